//! The taps for SYNs, apart from those for everything else: a flood of SYNs waits, and is dropped, among itself.
//!
//! The kernel drops a SYN for which there is no room before it copies anything. What is read is bounded too: after a full batch the
//! doors rest, so that answering strangers costs a known share of a core however many there are.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::{Family, PacketSocket, Poller, PortFilter, ReceiveStats, Segments};

/// Where strangers' first packets come in.
#[derive(Debug)]
pub struct Doors {
    taps: Vec<PacketSocket>,
    /// Whether the poller is to be asked for the next SYN.
    is_shut: bool,
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
        Ok(Self { taps: taps.collect::<io::Result<_>>()?, is_shut: true, rests_until: None })
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
            match tap.recv_batch(&mut take) {
                Ok(packets) if packets >= PacketSocket::BATCH => self.rests_until = Some(now + REST),
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Ok(_) | Err(_) => {}
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

/// Our choice: with full batches of 32 that is 32,000 SYNs a second, an eighth of a core.
const REST: Duration = Duration::from_millis(1);

/// Our choice: some 300 SYNs as the kernel counts them, read within 10 ms even then.
const ROOM: usize = 128 << 10;
