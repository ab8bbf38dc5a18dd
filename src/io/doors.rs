//! The taps for SYNs, apart from those for everything else: a flood of SYNs waits, and is dropped, among itself.
//!
//! The kernel drops a SYN for which there is no room before it copies anything. What is read is bounded too: what is above
//! the budget of all doors together waits while they rest, so that answering strangers costs a known share of a core however many
//! there are, and whatever they send.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::{Family, PacketSocket, Poller, PortFilter, ReceiveStats, Segments};
use crate::rate::{Bucket, Rate};

/// Where strangers' first packets come in.
#[derive(Debug)]
pub struct Doors {
    taps: Vec<PacketSocket>,
    /// Whether the poller is to be asked for the next SYN.
    is_shut: bool,
    /// Of frames that may be read, of all taps together.
    budget: Bucket,
    rests_until: Option<Instant>,
}

impl Doors {
    /// Opens one for each of `families`, for the SYNs to the ports of `filter`.
    ///
    /// # Errors
    /// As [`PacketSocket::open`].
    pub fn open(families: &[Family], filter: &PortFilter) -> io::Result<Self> {
        let filter = PortFilter { segments: Segments::Syns, ..filter.clone() };
        let taps = families.iter().map(|&family| PacketSocket::open(family, &filter, ROOM));
        let taps = taps.collect::<io::Result<_>>()?;
        Ok(Self { taps, is_shut: true, budget: Bucket::default(), rests_until: None })
    }

    /// Registers the doors with `poller`, which wakes with `token` for each [`Self::await_syns`].
    ///
    /// # Errors
    /// A socket cannot be watched.
    pub fn watch(&self, poller: &Poller, token: u64) -> io::Result<()> {
        self.taps.iter().try_for_each(|tap| poller.watch_on_demand(tap.as_fd(), token))
    }

    /// Has `poller` wake with `token` when a SYN comes, unless the doors rest.
    ///
    /// # Errors
    /// A socket cannot be watched.
    pub fn await_syns(&mut self, poller: &Poller, token: u64, now: Instant) -> io::Result<()> {
        if !self.is_shut || self.rests_until.is_some_and(|until| now < until) {
            return Ok(());
        }
        (self.is_shut, self.rests_until) = (false, None);
        self.taps.iter().try_for_each(|tap| poller.await_input(tap.as_fd(), token))
    }

    /// Hands at most one batch of each door to `take`, as [`PacketSocket::recv_batch`] does.
    ///
    /// # Errors
    /// A tap failed for another reason than having nothing.
    pub fn receive(&mut self, now: Instant, mut take: impl FnMut(&mut [u8], u32)) -> io::Result<()> {
        self.is_shut = true;
        for tap in &mut self.taps {
            let before = tap.taken();
            let result = tap.recv_batch(&mut take);
            // Whatever came of it: what is malformed costs no less.
            self.rests_until = charge(&mut self.budget, tap.taken() - before, now);
            match result {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// When to call [`Self::await_syns`] next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.rests_until
    }

    /// What came in and what did not.
    pub fn received(&mut self) -> ReceiveStats {
        self.taps.iter_mut().fold(ReceiveStats::default(), |sum, tap| sum + tap.stats())
    }
}

/// Writes down that `frames` were read, and says until when nothing may be.
fn charge(budget: &mut Bucket, frames: u64, now: Instant) -> Option<Instant> {
    budget.charge(FRAMES, u32::try_from(frames).unwrap_or(u32::MAX), now);
    budget.ready_at(FRAMES, now)
}

/// Our choice: with batches of 32 that is 32,000 SYNs a second, an eighth of a core.
const PERIOD: Duration = Duration::from_millis(1);

/// A batch in each [`PERIOD`] in the long run, and as much ahead.
#[expect(clippy::cast_possible_truncation, reason = "a batch is small")]
const FRAMES: Rate = Rate::new(
    Duration::from_nanos(PERIOD.subsec_nanos() as u64 / PacketSocket::BATCH as u64),
    PacketSocket::BATCH as u32 + 1,
);

/// Our choice: some 300 SYNs as the kernel counts them, read within 10 ms even then.
const ROOM: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `batch` at each opening, and at once after each rest, for a second.
    fn read_in_a_second(batch: impl Fn(u64) -> u64) -> u64 {
        let start = crate::io::now();
        let (mut budget, mut now, mut read) = (Bucket::default(), start, 0);
        for opening in 0.. {
            let frames = batch(opening);
            read += frames;
            // A wake-up takes time, too: less than any batch is paid with.
            now = charge(&mut budget, frames, now).unwrap_or(now + Duration::from_micros(1));
            if now >= start + Duration::from_secs(1) {
                break;
            }
        }
        read
    }

    #[test]
    fn all_doors_together_are_read_at_one_rate() {
        for (what, batch) in [("one door", 32), ("two doors", 64), ("a batch never full", 31), ("few", 3)] {
            let read = read_in_a_second(|_| batch);
            assert!((31_900..=32_200).contains(&read), "{what}: {read}");
        }
        let read = read_in_a_second(|opening| opening % 33);
        assert!((31_900..=32_200).contains(&read), "{read}");
    }

    #[test]
    fn what_is_ordinary_never_waits() {
        let (mut budget, mut now) = (Bucket::default(), crate::io::now());
        for _ in 0..1000 {
            assert_eq!(charge(&mut budget, 32, now), None);
            now += PERIOD;
        }
    }
}
