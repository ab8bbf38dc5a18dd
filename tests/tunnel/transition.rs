//! What may happen next, chosen at random; each says what it does to the world.

use std::time::Duration;

use link_emulator::{Middlebox, Profile};
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::stranger::Attack;
use super::stream::Direction;
use super::target::Manner;
use super::weather;

/// One step of a run.
#[derive(Clone, Debug)]
pub(crate) enum Transition {
    /// An app connects, one of the server's side if `inbound`; both ends write what is given, and finish only if it says so.
    Open { inbound: bool, manner: Manner, v6: bool, upload: u64, download: u64, finishes: bool },
    /// Something is done with a flow, named by the port of its target.
    OnFlow { flow: u16, change: FlowChange },
    /// The way between the hosts and the server becomes another.
    OnPath(PathChange),
    /// Something happens to an end of the tunnel.
    OnEnd(EndChange),
    /// Datagrams and pings, both ways.
    Datagrams { count: usize, length: usize },
    /// Somebody without keys sends something.
    Attack(Attack),
    /// Time passes.
    Wait { time: Duration },
}

/// What an app or a target does with a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FlowChange {
    /// The writer of one direction has more to write.
    Write {
        direction: Direction,
        bytes: u64,
    },
    /// The reader of one direction reads nothing any more.
    StopReading(Direction),
    /// It reads again.
    ReadAgain(Direction),
    /// The writer of one direction ends it behind what it has to write.
    Finish(Direction),
    ResetByApp,
    ResetByTarget,
    /// A target that did not answer does.
    Answer,
}

/// What happens to the way between the hosts and the server.
#[derive(Clone, Debug)]
pub(crate) enum PathChange {
    /// Nothing passes up, down, or either way.
    Blackout { ways: [bool; 2] },
    /// Other weather; what was black is clear again.
    Weather(Profile),
    /// Other boxes on the line, which know nothing of what was before.
    Boxes(Vec<Middlebox>),
    /// The newest 4-tuple of a host passes nothing any more; again and again, if a middlebox has taken a dislike to it.
    KillTuples { host: usize, times: u32 },
    /// Every NAT forgets; the client has another port at the server, perhaps another address.
    Rebind,
    /// The client's host gets another address; what uses the old one is dead.
    NewAddress,
}

/// What happens to an end of the tunnel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EndChange {
    RestartServer,
    RestartClient,
    RestartBoth,
    /// Another host comes up with the same key.
    SecondHost,
    /// The client's wall clock is set.
    SetClock {
        forward: bool,
        by: Duration,
    },
    /// Nothing runs anywhere for a while, as in a virtual machine that was paused.
    Pause {
        time: Duration,
    },
    /// The client's host sleeps while the rest goes on.
    Sleep {
        time: Duration,
    },
}

impl Transition {
    /// A name for the tally.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Open { manner: Manner::Serve, inbound: true, .. } => "open from the server's side",
            Self::Open { manner: Manner::Serve, .. } => "open",
            Self::Open { manner: Manner::Refuse, .. } => "open to a closed port",
            Self::Open { manner: Manner::Unreachable, .. } => "open to an unreachable host",
            Self::Open { manner: Manner::Reset, .. } => "open to a resetting target",
            Self::Open { manner: Manner::Silent, .. } => "open to a silent target",
            Self::OnFlow { change, .. } => change.name(),
            Self::OnPath(change) => change.name(),
            Self::OnEnd(change) => change.name(),
            Self::Datagrams { .. } => "datagrams",
            Self::Attack(attack) => attack.name(),
            Self::Wait { .. } => "wait",
        }
    }

    /// The next step of a run with these flows open, of at most so many, and so many hosts.
    pub(crate) fn choose(flows: &[u16], most_flows: usize, hosts: usize, rng: &mut StdRng) -> Self {
        if flows.len() < 2 || (flows.len() < most_flows && rng.random_bool(0.15)) {
            return Self::open(rng);
        }
        match rng.random_range(0..100) {
            0..50 => {
                let flow = flows[rng.random_range(0..flows.len())];
                Self::OnFlow { flow, change: FlowChange::choose(rng) }
            }
            50..76 => Self::OnPath(PathChange::choose(hosts, rng)),
            76..85 => Self::OnEnd(EndChange::choose(rng)),
            85..90 => Self::Attack(Attack::choose(rng)),
            90..95 => Self::Datagrams { count: rng.random_range(1..40), length: datagram_length(rng) },
            _ => Self::Wait { time: millis(rng, 1, 120_000) },
        }
    }

    fn open(rng: &mut StdRng) -> Self {
        let manner = match rng.random_range(0..20) {
            0 => Manner::Refuse,
            1 => Manner::Unreachable,
            2 => Manner::Reset,
            3 => Manner::Silent,
            _ => Manner::Serve,
        };
        let (upload, download) = (size(rng), size(rng));
        let (inbound, v6, finishes) = (rng.random_bool(0.25), rng.random_bool(0.3), rng.random_bool(0.5));
        Self::Open { inbound, manner, v6, upload, download, finishes }
    }
}

impl FlowChange {
    fn name(self) -> &'static str {
        match self {
            Self::Write { .. } => "write more",
            Self::StopReading(_) => "stop reading",
            Self::ReadAgain(_) => "read again",
            Self::Finish(_) => "half-close",
            Self::ResetByApp => "reset by the app",
            Self::ResetByTarget => "reset by the target",
            Self::Answer => "late answer",
        }
    }

    fn choose(rng: &mut StdRng) -> Self {
        let direction = if rng.random() { Direction::Upload } else { Direction::Download };
        match rng.random_range(0..100) {
            0..40 => Self::Write { direction, bytes: size(rng) },
            40..55 => Self::StopReading(direction),
            55..75 => Self::ReadAgain(direction),
            75..90 => Self::Finish(direction),
            90..94 => Self::ResetByApp,
            94..98 => Self::ResetByTarget,
            _ => Self::Answer,
        }
    }
}

impl PathChange {
    fn name(&self) -> &'static str {
        match self {
            Self::Blackout { ways: [true, true] } => "blackout",
            Self::Blackout { .. } => "one-way blackout",
            Self::Weather(_) => "other weather",
            Self::KillTuples { .. } => "4-tuples killed",
            Self::Boxes(_) => "other middleboxes",
            Self::Rebind => "NAT rebinding",
            Self::NewAddress => "client address change",
        }
    }

    fn choose(hosts: usize, rng: &mut StdRng) -> Self {
        match rng.random_range(0..75) {
            0..20 => {
                let ways = rng.random_range(1..4);
                Self::Blackout { ways: [ways & 1 != 0, ways & 2 != 0] }
            }
            20..50 => Self::Weather(if rng.random() { weather::any(rng) } else { weather::FAIR }),
            50..60 => {
                let times = if rng.random_bool(0.1) { rng.random_range(2..12) } else { 1 };
                Self::KillTuples { host: rng.random_range(0..hosts), times }
            }
            60..65 => Self::Boxes(weather::boxes(rng)),
            65..70 => Self::Rebind,
            _ => Self::NewAddress,
        }
    }
}

impl EndChange {
    fn name(self) -> &'static str {
        match self {
            Self::RestartServer => "server restart",
            Self::RestartClient => "client restart",
            Self::RestartBoth => "restart of both",
            Self::SecondHost => "second host",
            Self::SetClock { .. } => "wall clock set",
            Self::Pause { .. } => "pause of everything",
            Self::Sleep { .. } => "client asleep",
        }
    }

    fn choose(rng: &mut StdRng) -> Self {
        match rng.random_range(0..25) {
            0..4 => Self::RestartServer,
            4..7 => Self::RestartClient,
            7..8 => Self::RestartBoth,
            8..11 => Self::SecondHost,
            11..16 => Self::SetClock { forward: rng.random(), by: millis(rng, 1_000, 90 * 86_400_000) },
            16..20 => Self::Pause { time: millis(rng, 100, 400_000) },
            _ => Self::Sleep { time: millis(rng, 100, 400_000) },
        }
    }
}

/// Up to the largest that IPv6 can say.
fn datagram_length(rng: &mut StdRng) -> usize {
    if rng.random_bool(0.7) { rng.random_range(9..1500) } else { rng.random_range(1500..65_000) }
}

fn millis(rng: &mut StdRng, least: u64, most: u64) -> Duration {
    duration(rng, Duration::from_millis(least), Duration::from_millis(most))
}

/// Evenly over the orders of magnitude.
pub(crate) fn duration(rng: &mut StdRng, least: Duration, most: Duration) -> Duration {
    least.mul_f64(most.div_duration_f64(least).powf(rng.random_range(0.0..1.0)))
}

/// Nothing, a keystroke, a request, a page, a file; more than a small session may hold.
fn size(rng: &mut StdRng) -> u64 {
    if rng.random_bool(0.1) { 0 } else { spread(rng, 1, 4_000_000) }
}

/// Evenly over the orders of magnitude.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "any value between will do"
)]
fn spread(rng: &mut StdRng, least: u64, most: u64) -> u64 {
    let (least, most) = (least as f64, most as f64);
    (least * (most / least).powf(rng.random_range(0.0..1.0))) as u64
}
