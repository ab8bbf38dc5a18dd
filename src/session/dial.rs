//! The client opens a carrier: SYN, SYN-ACK, message 1, message 2.
//!
//! ```text
//!  SynSent ──SYN-ACK──> Asking ──message 2──> done
//!     │ RST: noted, not believed   │ nothing: message 1 again, first a smaller one, then the same bytes
//!                          ^
//!                          └── a bare carrier begins here
//! ```
//!
//! Message 1 is as large as the path is hoped to carry, and so is message 2: what passes is proven both ways. The server knows
//! a repetition by its bytes, so the smaller one is a message of its own, with an ephemeral key and a timestamp of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::dialing::Request;
use super::link::Link;
use super::path_mtu::{BASE, ETHERNET, IPV6_MORE, PathMtu, USUAL};
use crate::carrier::{Connection, Input, Mode, Segment};
use crate::crypto::{
    HandshakeError, Initiator, Keys, Message1, Message2, PresharedKey, PrivateKey, PublicKey, SessionId,
    SuiteSet, Timestamp, VERSION,
};

/// Who dials: what every message 1 of a session has in common.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) private_key: PrivateKey,
    pub(crate) server_key: PublicKey,
    pub(crate) preshared_key: PresharedKey,
    pub(crate) suites: SuiteSet,
    pub(crate) session: SessionId,
    /// Only to ask what passes, without a session.
    pub(crate) is_probe: bool,
    /// For how many hours the server is to keep the session.
    pub(crate) keep: u8,
}

impl Caller {
    /// Message 1 for the carrier of this number, of `size` bytes; `None` if it cannot be so small or large.
    pub(crate) fn initiate(
        &self,
        mode: Mode,
        carrier: u32,
        offer: Offer,
        size: usize,
        rng: &mut StdRng,
    ) -> Option<(Initiator, Vec<u8>)> {
        let message = Message1 {
            version: VERSION,
            mode: mode.to_wire(),
            is_probe: self.is_probe,
            timestamp: offer.timestamp,
            index: offer.index,
            session: self.session,
            epoch: offer.epoch,
            suites: self.suites,
            carrier,
            keep: self.keep,
        };
        Initiator::new(&self.private_key, &self.server_key, &self.preshared_key, &message, size, rng).ok()
    }
}

/// What one message 1 says beside that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) timestamp: Timestamp,
    /// Ours: what the server writes in the header of each packet.
    pub(crate) index: u32,
    pub(crate) epoch: u32,
}

/// How large packets may be, IP header included, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// What the interface towards the server takes.
    pub(crate) interface: u16,
    /// What we would send at most.
    pub(crate) mtu: u16,
    /// What the last carrier knew to pass, if the path may be the same.
    pub(crate) known: Option<u16>,
}

/// A message 1, and what takes the answer to it.
#[derive(Debug)]
struct Initiation {
    initiator: Initiator,
    message1: Vec<u8>,
    timestamp: Timestamp,
}

/// A carrier in the making.
#[derive(Debug)]
pub(crate) struct Dial {
    number: u32,
    index: u32,
    connection: Connection,
    /// Each smaller and later than the one before.
    initiations: Vec<Initiation>,
    /// Which of them is asked with.
    turn: usize,
    room: Room,
    next_message1: Option<Instant>,
    /// The server has accepted us before.
    is_known: bool,
    /// How long the answer to the first message 1 may take.
    patience: Duration,
    /// Somebody waits for the path.
    is_hurried: bool,
    repeats: u32,
    /// The last answer that opens under no key of ours, and how often we had asked by then.
    unopened: Option<(Vec<u8>, u32)>,
    /// The same answer came again when we asked again.
    differs: bool,
    started: Instant,
    asked: Option<Instant>,
    deadline: Instant,
}

/// How far towards the server a dial came: what `up` tells the user when it gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Not even tried: no source address, no route.
    #[default]
    None,
    /// Message 1 went without a SYN, and nothing came back: the way is closed to it, or the `server_key` is another's.
    BareSent,
    /// The SYN was never answered.
    SynSent,
    /// The SYN, or the first packet without one, was answered by a RST: nothing listens there.
    SynReset,
    /// The SYN was answered, message 1 was not: another server, or another `server_key`.
    SynAcked,
    /// A message of ours was answered alike each time, and the answer does not open under our pre-shared key.
    PresharedKeyDiffers,
}

/// What a segment did to a dial.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Nothing to act on.
    Pending,
    /// A payload that is no message 2 of ours.
    Rejected,
    /// The server accepts; the round trip of the message is measured.
    Accepted { message: Message2, keys: Box<Keys>, rtt: Duration },
    /// The server answers, but with no keys: refused, or the timestamp is too old.
    Answered(Message2),
}

impl Dial {
    /// Begins from `local`; `None` if this cannot be.
    pub(crate) fn begin(
        caller: &Caller,
        request: Request,
        (offer, room): (Offer, Room),
        local: SocketAddr,
        lifetime: Duration,
        rng: &mut StdRng,
        now: Instant,
    ) -> Option<Self> {
        let random = rng.random();
        let connection = Connection::connect(local, request.remote, request.mode, random, now)
            .from_interface(room.interface);
        let headers = connection.header_len();
        let mut offered = offer;
        let mut initiations = Vec::new();
        for size in room.sizes(request.remote.is_ipv6()) {
            let size = usize::from(size) - headers;
            let (initiator, message1) = caller.initiate(request.mode, request.attempt, offered, size, rng)?;
            initiations.push(Initiation { initiator, message1, timestamp: offered.timestamp });
            offered.timestamp = offered.timestamp.next();
        }
        Some(Self {
            number: request.attempt,
            index: offer.index,
            // A bare connection needs no answer before data.
            next_message1: connection.may_send().then_some(now),
            connection,
            initiations,
            turn: 0,
            room,
            is_known: offer.epoch > 0,
            patience: FIRST_REPEAT,
            is_hurried: false,
            repeats: 0,
            unopened: None,
            differs: false,
            started: now,
            asked: None,
            deadline: now + lifetime,
        })
    }

    /// Of the last message 1 that it may send.
    pub(crate) fn timestamp(&self) -> Option<Timestamp> {
        self.initiations.last().map(|initiation| initiation.timestamp)
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Another dial takes its place: it is given up at `deadline`, if not before.
    pub(crate) fn end_by(&mut self, deadline: Instant) {
        self.deadline = self.deadline.min(deadline);
    }

    /// Says whether somebody waits for the path: then each packet is repeated at full pace.
    pub(crate) fn set_hurried(&mut self, is_hurried: bool) {
        self.is_hurried = is_hurried;
        self.connection.set_hurried(is_hurried);
        if is_hurried && let (Some(due), Some(asked)) = (&mut self.next_message1, self.asked) {
            *due = (*due).min(asked + FIRST_REPEAT);
        }
    }

    pub(crate) fn is_from(&self, segment: &Segment) -> bool {
        self.connection.is_from(segment)
    }

    pub(crate) fn reach(&self) -> Reach {
        if self.differs {
            Reach::PresharedKeyDiffers
        } else if self.connection.may_send() && !self.connection.mode().is_bare() {
            Reach::SynAcked
        } else if self.connection.reset_to_syn() {
            Reach::SynReset
        } else if self.connection.mode().is_bare() {
            Reach::BareSent
        } else {
            Reach::SynSent
        }
    }

    /// Takes a segment of this dial's 4-tuple.
    pub(crate) fn handle_segment(&mut self, segment: &Segment, packet: &[u8], now: Instant) -> Progress {
        match self.connection.handle_segment(segment, now) {
            Input::Established => {
                self.next_message1 = Some(now);
                self.skip_too_large();
                // The SYN's round trip is known, but for one that was repeated.
                let rtt = now.saturating_duration_since(self.started);
                if self.is_known {
                    self.patience = (2 * rtt).clamp(SHORTEST_REPEAT, FIRST_REPEAT);
                }
                Progress::Pending
            }
            Input::Payload => match packet.get(segment.payload.clone()) {
                Some(payload) => self.handle_message2(segment, payload, now),
                None => Progress::Pending,
            },
            Input::Acknowledgement | Input::ResetSeen | Input::FinSeen | Input::Ignored(_) => {
                Progress::Pending
            }
        }
    }

    fn handle_message2(&mut self, segment: &Segment, payload: &[u8], now: Instant) -> Progress {
        match self.finish(payload) {
            Ok((message, Some(keys))) => {
                self.connection.on_opened(segment, now);
                let rtt = now.saturating_duration_since(self.asked.unwrap_or(self.started));
                Progress::Accepted { message, keys: Box::new(keys), rtt }
            }
            // The smaller message overtook this one: its own answer is on the way.
            Ok((Message2::Stale { above }, None)) if self.is_own(above) => Progress::Pending,
            Ok((message, None)) => Progress::Answered(message),
            Err(HandshakeError::NoPresharedKey) => {
                self.differs = true;
                Progress::Rejected
            }
            Err(HandshakeError::PresharedKeyDiffers) => {
                self.on_unopened(payload);
                Progress::Rejected
            }
            Err(_) => Progress::Rejected,
        }
    }

    /// The last message 1 is answered most likely, and an earlier one may be answered late.
    fn finish(&mut self, payload: &[u8]) -> Result<(Message2, Option<Keys>), HandshakeError> {
        let mut result = Err(HandshakeError::Forged);
        for turn in (0..=self.turn).rev() {
            let Some(initiation) = self.initiations.get_mut(turn) else { continue };
            result = initiation.initiator.finish(payload);
            if result.is_ok() {
                self.turn = turn;
                break;
            }
        }
        result
    }

    /// The server gives the same answer to the same question; what was damaged on its way is not damaged alike twice. Still a
    /// forger may make such answers: only a suspicion, told if nothing better comes.
    fn on_unopened(&mut self, payload: &[u8]) {
        let last = self.unopened.replace((payload.to_vec(), self.repeats));
        self.differs |= last.is_some_and(|(last, asked)| asked != self.repeats && last == payload);
    }

    fn is_own(&self, timestamp: Timestamp) -> bool {
        self.initiations.iter().any(|initiation| initiation.timestamp == timestamp)
    }

    /// What the SYN-ACK forbids is not tried.
    fn skip_too_large(&mut self) {
        while self.turn + 1 < self.initiations.len() && self.size() > self.limit() {
            self.turn += 1;
        }
    }

    /// Of the outer packet with the message 1 that is asked with, in bytes.
    fn size(&self) -> u16 {
        let message = self.initiations.get(self.turn).map_or(0, |initiation| initiation.message1.len());
        u16::try_from(self.connection.header_len() + message).unwrap_or(u16::MAX)
    }

    /// What an outer packet has at most: TCP exceeds neither the MSS nor the interface's MTU.
    fn limit(&self) -> u16 {
        let headers = u16::try_from(self.connection.header_len()).unwrap_or(0);
        let mss = self.connection.peer_mss().map(|mss| mss.saturating_add(headers));
        mss.unwrap_or(ETHERNET).min(self.room.mtu)
    }

    /// The connection, and the index that packets to us name.
    pub(crate) fn into_connection(self) -> (Connection, u32) {
        (self.connection, self.index)
    }

    /// The dial has become a carrier.
    pub(crate) fn into_link(self, keys: Keys, now: Instant) -> Link {
        let path = PathMtu::new(self.size(), self.limit(), now);
        Link::new(self.number, self.index, self.connection, keys.into_pair(), path, now)
    }

    /// Writes a SYN, an ACK or message 1 if one is due.
    pub(crate) fn poll_transmit(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        if let Some(packet) = self.connection.poll_transmit(now) {
            *out = packet;
            return true;
        }
        if self.next_message1.is_none_or(|due| due > now) {
            return false;
        }
        let wait = self.patience * (1 << self.repeats.min(4));
        self.next_message1 = Some(now + if self.is_hurried { wait.min(FIRST_REPEAT) } else { wait });
        if self.repeats > 0 {
            self.turn = (self.turn + 1).min(self.initiations.len() - 1);
        }
        self.repeats += 1;
        self.asked = Some(now);
        out.clear();
        out.resize(self.connection.header_len(), 0);
        let Some(initiation) = self.initiations.get(self.turn) else { return false };
        out.extend_from_slice(&initiation.message1);
        self.connection.finish_packet(out, true).is_ok()
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        let due = [self.connection.poll_timeout(), self.next_message1];
        due.into_iter().flatten().fold(self.deadline, Instant::min)
    }
}

impl Room {
    /// The sizes of the outer packets with the message 1s of a dial, largest first: what passed before or usually does, and what
    /// must.
    fn sizes(self, is_v6: bool) -> Vec<u16> {
        let usual = if is_v6 { USUAL + IPV6_MORE } else { USUAL };
        let first = self.known.unwrap_or(usual).min(self.mtu);
        if first > BASE { vec![first, BASE] } else { vec![BASE] }
    }
}

/// Our choice: above what the server takes to answer when it is busy.
const SHORTEST_REPEAT: Duration = Duration::from_millis(150);

/// Our choice: above the round trip of any path worth using. In a hurry no wait is longer.
const FIRST_REPEAT: Duration = Duration::from_millis(500);
