//! The client opens a carrier: SYN, SYN-ACK, message 1, message 2.
//!
//! ```text
//!  SynSent ──SYN-ACK──> Asking ──message 2──> done
//!     │ RST: noted, not believed   │ nothing: message 1 again, the same bytes
//!                          ^
//!                          └── a bare carrier begins here
//! ```

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::dialing::Request;
use super::engine::PLAINTEXT;
use super::link::Link;
use crate::carrier::{Connection, Input, Mode, Segment};
use crate::crypto::{
    HandshakeError, Initiator, Keys, Message1, Message2, OVERHEAD, PresharedKey, PrivateKey, PublicKey,
    SessionId, SuiteSet, Timestamp, VERSION,
};

/// Who dials: what every message 1 of a session has in common.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) private_key: PrivateKey,
    pub(crate) server_key: PublicKey,
    pub(crate) preshared_key: PresharedKey,
    pub(crate) suites: SuiteSet,
    pub(crate) session: SessionId,
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

/// A carrier in the making.
#[derive(Debug)]
pub(crate) struct Dial {
    number: u32,
    index: u32,
    connection: Connection,
    initiator: Initiator,
    message1: Vec<u8>,
    next_message1: Option<Instant>,
    repeats: u32,
    /// How many of our message 1s were answered by something that opens under no key of ours, and the number of the last.
    unopened: u32,
    last_unopened: u32,
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
    /// Several of our messages were answered, and no answer opened under our pre-shared key.
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
        offer: Offer,
        local: SocketAddr,
        lifetime: Duration,
        rng: &mut StdRng,
        now: Instant,
    ) -> Option<Self> {
        let random = rng.random();
        let connection = Connection::connect(local, request.remote, request.mode, random, now);
        let size = PLAINTEXT + OVERHEAD;
        let (initiator, message1) = caller.initiate(request.mode, request.attempt, offer, size, rng)?;
        Some(Self {
            number: request.attempt,
            index: offer.index,
            // A bare connection needs no answer before data.
            next_message1: connection.may_send().then_some(now),
            connection,
            initiator,
            message1,
            repeats: 0,
            unopened: 0,
            last_unopened: 0,
            started: now,
            asked: None,
            deadline: now + lifetime,
        })
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

    pub(crate) fn is_from(&self, segment: &Segment) -> bool {
        self.connection.local() == segment.destination && self.connection.remote() == segment.source
    }

    pub(crate) fn reach(&self) -> Reach {
        if self.unopened >= UNOPENED {
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
        match self.initiator.finish(payload) {
            Ok((message, Some(keys))) => {
                self.connection.on_opened(segment, now);
                let rtt = now.saturating_duration_since(self.asked.unwrap_or(self.started));
                Progress::Accepted { message, keys: Box::new(keys), rtt }
            }
            Ok((message, None)) => Progress::Answered(message),
            Err(HandshakeError::NoPresharedKey) => {
                self.unopened = UNOPENED;
                Progress::Rejected
            }
            // One that was damaged on its way looks the same, as do its duplicates; the answers to several of our messages do
            // not. Still a forger may make them: only a suspicion, told if nothing better comes.
            Err(HandshakeError::PresharedKeyDiffers) if self.last_unopened != self.repeats => {
                self.last_unopened = self.repeats;
                self.unopened += 1;
                Progress::Rejected
            }
            Err(_) => Progress::Rejected,
        }
    }

    /// The dial has become a carrier.
    pub(crate) fn into_link(self, keys: Keys, now: Instant) -> Link {
        Link::new(self.number, self.index, self.connection, keys.into_pair(), now)
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
        self.next_message1 = Some(now + FIRST_REPEAT * (1 << self.repeats.min(4)));
        self.repeats += 1;
        self.asked = Some(now);
        out.clear();
        out.resize(self.connection.header_len(), 0);
        out.extend_from_slice(&self.message1);
        self.connection.finish_packet(out, true).is_ok()
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        let due = [self.connection.poll_timeout(), self.next_message1];
        due.into_iter().flatten().fold(self.deadline, Instant::min)
    }
}

/// Our choice: what is damaged on its way is damaged in a few of a hundred packets, and seldom twice in one dial.
const UNOPENED: u32 = 2;

/// Our choice: above the round trip of any path worth using.
const FIRST_REPEAT: Duration = Duration::from_millis(500);
