//! What a network lets through: every mode is tried to every address of a server, beside whatever tunnel is up.
//!
//! ```text
//!  waiting ──port──> dialing ──message 2──> pinging ──all asked, answers awaited──> done
//!                       └──7 s without an answer, or a refusal──────────────────────> done
//! ```
//!
//! Each attempt shakes hands as a carrier would, but says that it is a probe: the server answers its pings and makes no session.
//! First come many small pings, whose answers tell loss and round trips, then large ones, which tell the path's size each
//! way. Every ping has one answer, so the counter in an answer's seal says how many pings arrived.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::dial::{Caller, Dial, Offer, Progress, Reach, Room};
use super::dialing::Request;
use super::frame::{self, Frame};
use super::path_mtu::ETHERNET;
use super::probe_link::ProbeLink;
use crate::carrier::{self, Connection, Mode, Segment};
use crate::crypto::{
    Keys, Mask, Message2, PresharedKey, PrivateKey, PublicKey, Refusal, SessionId, SuiteSet, Timestamp,
};

/// Who asks whom.
#[derive(Clone, Debug)]
pub struct ProbeSettings {
    /// Ours.
    pub private_key: PrivateKey,
    /// The server's.
    pub server_key: PublicKey,
    /// Optional second secret; all zero when there is none.
    pub preshared_key: PresharedKey,
    /// Cipher suites this machine offers.
    pub suites: SuiteSet,
}

/// A port is wanted: call [`Probe::dial`], or [`Probe::dial_failed`], with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePort {
    /// Counts the attempts.
    pub attempt: u32,
    /// Where to.
    pub remote: SocketAddr,
}

/// What one mode to one address came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// The server's address.
    pub remote: SocketAddr,
    /// How the packets looked.
    pub mode: Mode,
    /// How far it came.
    pub reach: Reach,
    /// From the SYN to the SYN-ACK, where there was one.
    pub tcp: Option<Duration>,
    /// From message 1 to message 2, if the server agreed.
    pub sealed: Option<Duration>,
    /// Why the server would not.
    pub refused: Option<Refusal>,
    /// Small pings sent.
    pub pings: u32,
    /// Of them, those that the server received; a few at the end may be missing.
    pub arrived: u32,
    /// Of those, the answers that came back.
    pub answered: u32,
    /// The shortest round trip of a ping.
    pub rtt_min: Option<Duration>,
    /// The round trip that half of the pings stayed below.
    pub rtt_median: Option<Duration>,
    /// The largest outer packet that passed towards the server, in bytes.
    pub size_out: Option<u16>,
    /// The same towards us.
    pub size_in: Option<u16>,
    /// RSTs that the server never sent, or sent in vain.
    pub resets: u64,
    /// FINs likewise.
    pub fins: u64,
}

impl ProbeReport {
    /// Whether sealed packets make the round trip, and not only the first few of a flow.
    pub fn carries(&self) -> bool {
        self.answered > 0 && self.answered.saturating_mul(LEAST_ANSWERED) >= self.pings
    }
}

/// All attempts, driven like a client: feed input → drain [`Probe::poll_port`] and [`Probe::poll_transmit`] → wait until
/// [`Probe::poll_timeout`] or the next input, until [`Probe::is_done`].
#[derive(Debug)]
pub struct Probe {
    caller: Caller,
    mask: Mask,
    rng: StdRng,
    attempts: Vec<Attempt>,
    /// The server knows a later timestamp of ours.
    above: Option<Timestamp>,
    /// The MTU of the interface towards the server.
    interface: u16,
}

#[derive(Debug)]
struct Attempt {
    begin_at: Instant,
    stage: Stage,
    /// It was stale, and began once more.
    again: bool,
    report: ProbeReport,
    rtts: Vec<Duration>,
}

#[derive(Debug)]
enum Stage {
    Waiting,
    /// The shell was asked for a port.
    Wanted,
    Dialing {
        dial: Box<Dial>,
        begun: Instant,
    },
    Pinging(Box<Pinging>),
    /// A FIN is to be sent, as by any program that has what it came for.
    Closing(Box<Connection>),
    Done,
}

#[derive(Debug)]
struct Pinging {
    link: ProbeLink,
    /// When each ping left, by its token.
    sent: Vec<Instant>,
    /// Which were answered.
    answered: Vec<bool>,
    next: Instant,
    end: Instant,
}

impl Probe {
    /// Tries all of `modes` to all of `remotes`, at most [`REMOTES_MAX`]; `seed` must be random and secret.
    pub fn new(
        settings: ProbeSettings,
        remotes: &[SocketAddr],
        modes: &[Mode],
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let pairs = remotes
            .iter()
            .take(REMOTES_MAX)
            .flat_map(|remote| modes.iter().map(move |mode| (*remote, *mode)));
        let attempts =
            pairs.zip(0..).map(|((remote, mode), n)| Attempt::new(remote, mode, now + STAGGER * n));
        Self {
            mask: Mask::new(&settings.server_key),
            attempts: attempts.collect(),
            above: None,
            interface: ETHERNET,
            caller: Caller {
                private_key: settings.private_key,
                server_key: settings.server_key,
                preshared_key: settings.preshared_key,
                suites: settings.suites,
                session: SessionId(rng.random()),
                keep: 0,
                is_probe: true,
            },
            rng,
        }
    }

    /// The interface towards the server takes packets of at most `mtu` bytes, IP header included: say it before
    /// [`Self::dial`].
    pub fn set_mtu(&mut self, mtu: u16) {
        self.interface = mtu;
    }

    /// The next attempt that wants a port.
    pub fn poll_port(&mut self, now: Instant) -> Option<ProbePort> {
        let due = |attempt: &Attempt| matches!(attempt.stage, Stage::Waiting) && attempt.begin_at <= now;
        let at = self.attempts.iter().position(due)?;
        let attempt = &mut self.attempts[at];
        attempt.stage = Stage::Wanted;
        Some(ProbePort { attempt: u32::try_from(at).unwrap_or(u32::MAX), remote: attempt.report.remote })
    }

    /// Begins an attempt from `local`, whose port the shell guards; `wall` is the time of day.
    pub fn dial(&mut self, attempt: u32, local: SocketAddr, wall: Timestamp, now: Instant) {
        let index = self.rng.random::<u32>().max(1);
        let timestamp = Timestamp::after(self.above, wall);
        let Some(wanted) = usize::try_from(attempt).ok().and_then(|at| self.attempts.get_mut(at)) else {
            return;
        };
        let request = Request {
            attempt: attempt.saturating_add(1),
            remote: wanted.report.remote,
            mode: wanted.report.mode,
            is_beside: false,
        };
        let offer = Offer { timestamp, index, epoch: 0 };
        // The sizes of paths are for the pings to find.
        let room = Room { interface: self.interface, mtu: SMALLEST, known: None };
        let dial = Dial::begin(&self.caller, request, (offer, room), local, DIAL_FOR, &mut self.rng, now);
        wanted.stage = match dial {
            Some(dial) => Stage::Dialing { dial: Box::new(dial), begun: now },
            None => Stage::Done,
        };
    }

    /// There is no port or no route for an attempt.
    pub fn dial_failed(&mut self, attempt: u32) {
        if let Some(wanted) = usize::try_from(attempt).ok().and_then(|at| self.attempts.get_mut(at)) {
            wanted.stage = Stage::Done;
        }
    }

    /// Takes one outer IP packet.
    pub fn handle_packet(&mut self, packet: &mut [u8], now: Instant) {
        let Ok(segment) = carrier::parse(packet) else { return };
        for attempt in &mut self.attempts {
            if let Some(above) = attempt.handle_segment(&segment, packet, &self.mask, now) {
                self.above = self.above.max(Some(above));
            }
        }
    }

    /// Runs what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.attempts.iter_mut().for_each(|attempt| attempt.handle_timeout(now));
    }

    /// Writes the next outer IP packet into `out`; `false` when there is none now.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        self.attempts.iter_mut().any(|attempt| attempt.poll_transmit(out, now))
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.attempts.iter().filter_map(Attempt::poll_timeout).min()
    }

    /// Whether every attempt has come to its end.
    pub fn is_done(&self) -> bool {
        self.attempts.iter().all(|attempt| matches!(attempt.stage, Stage::Done))
    }

    /// What was found, address by address and mode by mode.
    pub fn reports(&self) -> Vec<ProbeReport> {
        self.attempts.iter().map(Attempt::report).collect()
    }
}

impl Attempt {
    fn new(remote: SocketAddr, mode: Mode, begin_at: Instant) -> Self {
        let report = ProbeReport {
            remote,
            mode,
            reach: Reach::None,
            tcp: None,
            sealed: None,
            refused: None,
            pings: 0,
            arrived: 0,
            answered: 0,
            rtt_min: None,
            rtt_median: None,
            size_out: None,
            size_in: None,
            resets: 0,
            fins: 0,
        };
        Self { begin_at, stage: Stage::Waiting, again: false, report, rtts: Vec::new() }
    }

    /// Takes a packet that may be this attempt's; returns the timestamp that the server wants exceeded.
    fn handle_segment(
        &mut self,
        segment: &Segment,
        packet: &mut [u8],
        mask: &Mask,
        now: Instant,
    ) -> Option<Timestamp> {
        match &mut self.stage {
            Stage::Dialing { dial, begun } if dial.is_from(segment) => {
                let progress = dial.handle_segment(segment, packet, now);
                if dial.reach() == Reach::SynAcked && !self.report.mode.is_bare() {
                    self.report.tcp.get_or_insert(now.saturating_duration_since(*begun));
                }
                self.on_progress(progress, now)
            }
            Stage::Pinging(pinging) if pinging.link.is_from(segment) => {
                let (counter, frame) = pinging.link.open(segment, mask, packet, now)?;
                if let Frame::Pong { token, .. } = frame {
                    self.on_pong(token, counter, now);
                }
                None
            }
            Stage::Waiting
            | Stage::Wanted
            | Stage::Dialing { .. }
            | Stage::Pinging(_)
            | Stage::Closing(_)
            | Stage::Done => None,
        }
    }

    fn on_progress(&mut self, progress: Progress, now: Instant) -> Option<Timestamp> {
        match progress {
            Progress::Pending | Progress::Rejected => None,
            Progress::Accepted { keys, rtt, .. } => {
                self.report.sealed = Some(rtt);
                self.begin_pings(*keys, rtt, now);
                None
            }
            Progress::Answered(Message2::Stale { above }) => {
                // Another of our own has overtaken it.
                self.finish();
                if !std::mem::replace(&mut self.again, true) {
                    self.stage = Stage::Waiting;
                    self.begin_at = now;
                }
                Some(above)
            }
            Progress::Answered(Message2::Refused { reason }) => {
                self.report.refused = Some(reason);
                self.finish();
                None
            }
            Progress::Answered(Message2::Fresh { .. } | Message2::Resumed { .. }) => None,
        }
    }

    fn begin_pings(&mut self, keys: Keys, rtt: Duration, now: Instant) {
        let Stage::Dialing { dial, .. } = std::mem::replace(&mut self.stage, Stage::Done) else { return };
        self.report.reach = dial.reach();
        let (connection, index) = dial.into_connection();
        let link = ProbeLink::new(connection, index, keys);
        let lasts = INTERVAL * u32::try_from(PINGS + LARGE_PINGS).unwrap_or(u32::MAX);
        self.stage = Stage::Pinging(Box::new(Pinging {
            link,
            sent: Vec::with_capacity(PINGS + LARGE_PINGS),
            answered: vec![false; PINGS + LARGE_PINGS],
            next: now,
            end: now + lasts + (rtt * 3).clamp(SHORTEST_WAIT, LONGEST_WAIT),
        }));
    }

    fn on_pong(&mut self, token: u64, counter: u64, now: Instant) {
        let Stage::Pinging(pinging) = &mut self.stage else { return };
        let Ok(token) = usize::try_from(token) else { return };
        let Some(sent) = pinging.sent.get(token).copied() else { return };
        if std::mem::replace(&mut pinging.answered[token], true) {
            return;
        }
        let report = &mut self.report;
        match large(token) {
            None => {
                report.answered += 1;
                let arrived = u32::try_from(counter + 1).unwrap_or(u32::MAX);
                report.arrived = report.arrived.max(arrived).min(report.pings);
                self.rtts.push(now.saturating_duration_since(sent));
            }
            Some((size, true)) => report.size_out = report.size_out.max(Some(size)),
            Some((size, false)) => report.size_in = report.size_in.max(Some(size)),
        }
        if pinging.answered.iter().all(|answered| *answered) {
            self.finish();
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        let is_over = match &self.stage {
            Stage::Dialing { dial, .. } => dial.deadline() <= now,
            Stage::Pinging(pinging) => pinging.end <= now,
            Stage::Waiting | Stage::Wanted | Stage::Closing(_) | Stage::Done => false,
        };
        if is_over {
            self.finish();
        }
    }

    /// What is known now stays; nothing is sent any more.
    fn finish(&mut self) {
        self.report = self.report();
        let connection = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Dialing { dial, .. } => dial.into_connection().0,
            Stage::Pinging(pinging) => pinging.link.into_connection(),
            Stage::Closing(connection) => *connection,
            Stage::Waiting | Stage::Wanted | Stage::Done => return,
        };
        let mut connection = Box::new(connection);
        connection.close();
        self.stage = Stage::Closing(connection);
    }

    fn poll_transmit(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        match &mut self.stage {
            Stage::Dialing { dial, .. } => dial.poll_transmit(out, now),
            Stage::Pinging(pinging) => {
                if let Some(packet) = pinging.poll_transmit(now) {
                    let small = pinging.sent.len().min(PINGS);
                    self.report.pings = u32::try_from(small).unwrap_or(u32::MAX);
                    *out = packet;
                    return true;
                }
                false
            }
            Stage::Closing(connection) => match connection.poll_transmit(now) {
                Some(packet) => {
                    *out = packet;
                    true
                }
                None => {
                    self.stage = Stage::Done;
                    false
                }
            },
            Stage::Waiting | Stage::Wanted | Stage::Done => false,
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Waiting => Some(self.begin_at),
            Stage::Dialing { dial, .. } => Some(dial.poll_timeout()),
            Stage::Pinging(pinging) => Some(pinging.poll_timeout()),
            Stage::Wanted | Stage::Closing(_) | Stage::Done => None,
        }
    }

    fn report(&self) -> ProbeReport {
        let mut report = self.report.clone();
        let connection = match &self.stage {
            Stage::Dialing { dial, .. } => {
                report.reach = report.reach.max(dial.reach());
                Some(dial.connection())
            }
            Stage::Pinging(pinging) => Some(pinging.link.connection()),
            // Counted when it ended.
            Stage::Waiting | Stage::Wanted | Stage::Closing(_) | Stage::Done => None,
        };
        if let Some(connection) = connection {
            report.resets += connection.stats().injected_resets;
            report.fins += connection.stats().injected_fins;
        }
        let mut rtts = self.rtts.clone();
        rtts.sort_unstable();
        report.rtt_min = rtts.first().copied();
        report.rtt_median = rtts.get(rtts.len() / 2).copied();
        report
    }
}

impl Pinging {
    fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(packet) = self.link.connection_mut().poll_transmit(now) {
            return Some(packet);
        }
        let token = self.sent.len();
        if token == PINGS + LARGE_PINGS || self.next > now {
            return None;
        }
        self.next = now + INTERVAL;
        self.sent.push(now);
        // The size in a ping is the one that its answer shall have.
        let (own, answer) = match large(token) {
            None => (0, 0),
            Some((size, true)) => (size, 0),
            Some((size, false)) => (0, size),
        };
        let token = u64::try_from(token).unwrap_or(u64::MAX);
        self.link.packet(own, |out| frame::put_ping(out, token, answer))
    }

    fn poll_timeout(&self) -> Instant {
        let ping = (self.sent.len() < PINGS + LARGE_PINGS).then_some(self.next);
        let ack = self.link.connection().poll_timeout();
        ping.into_iter().chain(ack).fold(self.end, Instant::min)
    }
}

/// The size that the ping of this number tries, and whether towards the server; `None` for a small one.
fn large(token: usize) -> Option<(u16, bool)> {
    let number = token.checked_sub(PINGS)?;
    Some((*SIZES.get(number / (2 * TRIES))?, number % 2 == 0))
}

/// Our choice: more addresses of one server are not tried, so that a probe stays short and below the server's budget for each
/// source.
pub const REMOTES_MAX: usize = 4;

/// Our choice: attempts do not begin all at once, because a server answers a few handshakes of one source in a second only.
const STAGGER: Duration = Duration::from_millis(250);

/// Our choice: a SYN, its repeats after one and three seconds, and an answer.
const DIAL_FOR: Duration = Duration::from_secs(7);

/// Our choice: a loss of a few percent shows.
const PINGS: usize = 50;

/// Our choice: of so many pings one must be answered. Boxes that cut a flow do so after a few packets, and no tunnel lives with such losses.
const LEAST_ANSWERED: u32 = 10;

/// Our choice: slow enough that large pings fill no line worth using.
const INTERVAL: Duration = Duration::from_millis(30);

/// The smallest path of IPv6; what this program sends at first, over IPv4 and IPv6; PPPoE; an Ethernet.
const SIZES: [u16; 5] = [SMALLEST, 1400, 1420, 1492, 1500];

/// What every path carries (RFC 8200 section 5).
const SMALLEST: u16 = 1280;

/// How often each size is tried each way.
const TRIES: usize = 3;

const LARGE_PINGS: usize = SIZES.len() * 2 * TRIES;

/// How long answers are awaited after the last ping: three round trips, within these bounds.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
