//! What runs did, for the eyes of who waits for them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use super::model::Whole;

/// Counts over one run or many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) seeds: u64,
    pub(crate) transitions: BTreeMap<&'static str, u64>,
    pub(crate) flows: u64,
    pub(crate) bytes: u64,
    pub(crate) whole: Whole,
    pub(crate) datagrams: u64,
    pub(crate) too_big: u64,
    pub(crate) packets: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) corrupted: u64,
    pub(crate) reordered: u64,
    pub(crate) forged: u64,
    /// Of virtual time.
    pub(crate) seconds: u64,
    pub(crate) peak_session: usize,
    /// Seconds until all flows had ended.
    pub(crate) longest_calm: u64,
}

impl Tally {
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    pub(crate) fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        for (name, count) in other.transitions {
            *self.transitions.entry(name).or_default() += count;
        }
        self.flows += other.flows;
        self.bytes += other.bytes;
        self.whole.flows += other.whole.flows;
        self.whole.inbound += other.whole.inbound;
        self.whole.bytes += other.whole.bytes;
        self.datagrams += other.datagrams;
        self.too_big += other.too_big;
        self.packets += other.packets;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.corrupted += other.corrupted;
        self.reordered += other.reordered;
        self.forged += other.forged;
        self.seconds += other.seconds;
        self.peak_session = self.peak_session.max(other.peak_session);
        self.longest_calm = self.longest_calm.max(other.longest_calm);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds, {:.1} hours of virtual time, {} flows, {:.1} MB and {} datagrams checked",
            self.seeds,
            self.seconds as f64 / 3600.0,
            self.flows,
            self.megabytes(),
            self.datagrams
        )?;
        writeln!(
            f,
            "{} flows, {} of them from the server's side, with {:.1} MB had no excuse and were whole in the end; \
             {} times a datagram was told to be too big",
            self.whole.flows,
            self.whole.inbound,
            self.whole.bytes as f64 / 1e6,
            self.too_big
        )?;
        writeln!(
            f,
            "{} packets, of which {} lost, {} duplicated, {} corrupted, {} reordered, {} forged; a session held {:.1} MB at most; \
             all flows had ended after {} s of calm at most",
            self.packets,
            self.lost,
            self.duplicated,
            self.corrupted,
            self.reordered,
            self.forged,
            self.peak_session as f64 / 1e6,
            self.longest_calm
        )?;
        self.transitions.iter().try_for_each(|(name, count)| writeln!(f, "{count:>9}  {name}"))
    }
}
