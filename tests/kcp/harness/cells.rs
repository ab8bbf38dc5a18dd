//! What is measured: one transfer over one line, two that share one, and echoes.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use link_emulator::{Jitter, Loss, Profile};
use vpn::kcp::{Config, CongestionKind, HEADER_LEN, Stats};

use super::app::{App, Asker};
use super::ikcp::Knobs;
use super::ours::Sending;
use super::world::{Engine, World};
use super::{MSS, OVERHEAD, SESSION_BUFFER, ms, seconds, tunnel};

/// A line with the same rate, delay and loss both ways, and a queue of exactly one bandwidth-delay product.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    /// In Mbit/s.
    pub(crate) rate: u64,
    /// In milliseconds.
    pub(crate) round_trip: u64,
    /// In percent, each way.
    pub(crate) loss: u32,
}

impl Path {
    pub(crate) const fn new(rate: u64, round_trip: u64, loss: u32) -> Self {
        Self { rate, round_trip, loss }
    }

    pub(crate) fn profile(&self) -> Profile {
        let round_trip = ms(self.round_trip);
        let line = Profile::long_line(self.rate * 1_000_000, round_trip, self.loss());
        Profile { queue: round_trip, ..line }
    }

    /// Of 1.
    pub(crate) fn loss(&self) -> f64 {
        f64::from(self.loss) / 100.0
    }

    /// The part of [`Self::limit`] that is to be reached.
    pub(crate) fn least_goodput(&self) -> f64 {
        if self.loss <= 10 { 0.95 } else { 0.90 }
    }

    /// Payload bytes a second: rate × (1 − loss) × the payload's share of a full packet.
    pub(crate) fn limit(&self) -> f64 {
        let share = MSS as f64 / (MSS + HEADER_LEN + OVERHEAD) as f64;
        self.rate as f64 * 125_000.0 * (1.0 - self.loss()) * share
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Mbit/s, {} ms, {} %", self.rate, self.round_trip, self.loss)
    }
}

/// How busy the hosts are: the mean and the longest time between the moments at which one runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) mean: Duration,
    pub(crate) longest: Duration,
}

/// What a transfer that never ends came to in some of its seconds, by what the receiver took in them.
#[derive(Debug)]
pub(crate) struct Bulk {
    /// Of [`Path::limit`].
    pub(crate) goodput: f64,
    /// KCP bytes sent in the data's direction, of delivered ÷ (1 − loss).
    pub(crate) cost: f64,
    /// Queueing delay of the data's packets: median and 99th percentile.
    pub(crate) queue: [Duration; 2],
    /// Packets of the data's direction that found the queue full, since the start.
    pub(crate) dropped: u64,
    /// The sender's, at the end.
    pub(crate) stats: Option<Stats>,
}

/// Measures `engines[0]` sending over `path` in seconds `from` to `to`.
pub(crate) fn bulk(engines: [Engine; 2], path: Path, load: Option<Load>, span: [u64; 2], seed: u64) -> Bulk {
    let mut world = World::pair(path.profile(), seed, engines, [App::endless(), App::listener()]);
    if let Some(load) = load {
        world.stall(load.mean, load.longest);
    }
    let [from, to] = span;
    world.run(seconds(from));
    world.take_waits();
    let before = (world.hosts[1].received(), world.hosts[0].sent_bytes);
    world.run(seconds(to - from));
    let delivered = (world.hosts[1].received() - before.0) as f64;
    let sent = (world.hosts[0].sent_bytes - before.1) as f64;
    Bulk {
        goodput: part_of_limit(delivered, path, to - from),
        cost: sent / (delivered / (1.0 - path.loss())),
        queue: percentiles(&world.take_waits()),
        dropped: world.dropped(),
        stats: world.hosts[0].end.stats(),
    }
}

/// The part of the path's limit that `delivered` payload bytes in so many seconds are.
///
/// # Panics
/// If it is more than all: then something is counted that the line cannot have carried.
fn part_of_limit(delivered: f64, path: Path, seconds: u64) -> f64 {
    let part = delivered / (path.limit() * seconds as f64);
    assert!(part <= 1.0 + LUCK, "{path}: {part} of the limit");
    part
}

/// By so much less than on average may be lost in a short cell; four standard deviations of 25,000 packets at 20 %.
const LUCK: f64 = 0.013;

/// The tunnel's KCP at both ends.
pub(crate) fn ours() -> [Engine; 2] {
    ours_with(SESSION_BUFFER)
}

/// The same in a tunnel with another `session_buffer`.
pub(crate) fn ours_with(session_buffer: usize) -> [Engine; 2] {
    [Engine::Ours(tunnel(CongestionKind::Bbr, session_buffer), Sending::Pulled); 2]
}

/// The tunnel's own.
pub(crate) fn config() -> Config {
    tunnel(CongestionKind::Bbr, SESSION_BUFFER)
}

/// The crate's KCP at both ends, as ikcp's own test calls it "fast".
pub(crate) fn crate_fast() -> [Engine; 2] {
    [Engine::Ikcp(Knobs::FAST); 2]
}

/// The first session's part of what both delivered in seconds 20 to 80, of 1; the second starts after 5 s.
pub(crate) fn share(path: Path, seed: u64) -> Share {
    let mut world = World::pair(path.profile(), seed, ours(), [App::endless(), App::listener()]);
    world.run(seconds(5));
    world.connect(ours(), [App::endless(), App::listener()]);
    world.run(seconds(15));
    world.take_waits();
    let received = |world: &World| [1, 3].map(|end: usize| world.hosts[end].received());
    let before = received(&world);
    world.run(seconds(60));
    let after = received(&world);
    let [first, second] = [0, 1].map(|n| (after[n] - before[n]) as f64);
    Share {
        first: first / (first + second),
        goodput: part_of_limit(first + second, path, 60),
        queue: percentiles(&world.take_waits()),
    }
}

/// What two sessions on one line came to.
#[derive(Debug)]
pub(crate) struct Share {
    /// The first session's part of both, of 1.
    pub(crate) first: f64,
    /// Of both, of the limit.
    pub(crate) goodput: f64,
    pub(crate) queue: [Duration; 2],
}

/// A test of echoes: one of `size` bytes is asked for each 20 ms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Race {
    pub(crate) echoes: u64,
    pub(crate) size: usize,
    pub(crate) profile: Profile,
}

impl Race {
    /// ikcp's own: a round trip of 60 to 125 ms, 5 % lost each way, 1000 echoes of 8 bytes.
    ///
    /// There a packet waits for those before it, so order is kept and the later ones are slow together; with `keeps_order`
    /// unset each takes its own time.
    pub(crate) fn of_ikcp(keeps_order: bool) -> Self {
        let jitter = Jitter { most: Duration::from_micros(32_500), keeps_order };
        let profile = Profile { delay: ms(30), jitter, loss: Loss::Random(0.05), ..Profile::CLEAR };
        Self { echoes: 1000, size: 8, profile }
    }

    /// kcp-go's: a round trip of 200 ms, 10 to 30 % lost each way, echoes of 64 bytes.
    pub(crate) fn of_kcp_go(loss: u32, echoes: u64) -> Self {
        let loss = Loss::Random(f64::from(loss) / 100.0);
        let profile = Profile { delay: ms(100), loss, ..Profile::CLEAR };
        Self { echoes, size: 64, profile }
    }

    /// How long the echoes took.
    pub(crate) fn run(&self, engines: [Engine; 2], seed: u64) -> Echoes {
        let mut world = World::new([self.profile; 2], seed);
        let asker = App::Asker(Asker::new(self.echoes, self.size, world.now));
        world.connect(engines, [asker, App::Echoer(Default::default())]);
        world.finish(ms(20) * u32::try_from(self.echoes).unwrap_or(0) + seconds(60), &format!("seed {seed}"));
        let sent_bytes = world.hosts[0].sent_bytes + world.hosts[1].sent_bytes;
        let App::Asker(asker) = &world.hosts[0].app else { panic!("it is the asker") };
        assert_eq!(asker.round_trips.len() as u64, self.echoes);
        let mut sorted = asker.round_trips.clone();
        sorted.sort_unstable();
        let average = sorted.iter().sum::<Duration>() / u32::try_from(sorted.len()).unwrap_or(1);
        Echoes { average, p99: percentiles(&sorted)[1], max: sorted[sorted.len() - 1], sent_bytes }
    }
}

/// What the echoes of one run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Echoes {
    pub(crate) average: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
    /// KCP bytes both ways.
    pub(crate) sent_bytes: u64,
}

impl Echoes {
    /// The median of each figure.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let middle = |of: fn(&Self) -> Duration| median(runs.iter().map(of).collect());
        Self {
            average: middle(|run| run.average),
            p99: middle(|run| run.p99),
            max: middle(|run| run.max),
            sent_bytes: median(runs.iter().map(|run| run.sent_bytes).collect()),
        }
    }
}

/// Median and 99th percentile.
fn percentiles(sorted: &[Duration]) -> [Duration; 2] {
    [50, 99].map(|percent| sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default())
}

/// The middle one of an odd number, the upper of the two otherwise.
pub(crate) fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    values[values.len() / 2]
}
