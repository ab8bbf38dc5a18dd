//! Outer packets of both IP versions in both directions: the taps, the raw sockets, and a reused batch between them.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::{Family, PacketSocket, Poller, PortFilter, RawSocket, ReceiveStats, SendStats};

/// Where outer packets come from and go to.
#[derive(Debug)]
pub struct Wire {
    taps: Vec<PacketSocket>,
    raw: Vec<(Family, RawSocket)>,
    batch: Vec<Vec<u8>>,
    waiting: usize,
}

impl Wire {
    /// Opens the sockets of each of `families` for the ports that `filter` names; `mark` goes on what is sent.
    ///
    /// # Errors
    /// As [`PacketSocket::open`] and [`RawSocket::open`].
    pub fn open(families: &[Family], filter: &PortFilter, mark: Option<u32>) -> io::Result<Self> {
        let taps = families.iter().map(|&family| PacketSocket::open(family, filter, RECEIVE_BUFFER));
        let raw = families.iter().map(|&family| Ok((family, RawSocket::open(family, mark)?)));
        Ok(Self {
            taps: taps.collect::<io::Result<_>>()?,
            raw: raw.collect::<io::Result<_>>()?,
            batch: vec![Vec::new(); BATCH],
            waiting: 0,
        })
    }

    /// Wakes `poller` with `token` when a packet arrives, and when [`Self::await_room`] asks.
    ///
    /// # Errors
    /// A socket cannot be watched.
    pub fn watch(&self, poller: &Poller, token: u64) -> io::Result<()> {
        for tap in &self.taps {
            poller.watch_readable(tap.as_fd(), token)?;
        }
        for (_, socket) in &self.raw {
            poller.watch_on_demand(socket.as_fd(), token)?;
        }
        Ok(())
    }

    /// Opens the sockets of another family for the ports that `filter` names, watched as by [`Self::watch`]; no more than once.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::watch`].
    pub fn add_family(
        &mut self,
        family: Family,
        filter: &PortFilter,
        mark: Option<u32>,
        poller: &Poller,
        token: u64,
    ) -> io::Result<()> {
        if self.raw.iter().any(|(known, _)| *known == family) {
            return Ok(());
        }
        let (tap, raw) =
            (PacketSocket::open(family, filter, RECEIVE_BUFFER)?, RawSocket::open(family, mark)?);
        poller.watch_readable(tap.as_fd(), token)?;
        poller.watch_on_demand(raw.as_fd(), token)?;
        self.taps.push(tap);
        self.raw.push((family, raw));
        Ok(())
    }

    /// While packets wait that the kernel did not take, wakes `poller` with `token` when it takes packets again.
    ///
    /// # Errors
    /// A socket cannot be watched.
    pub fn await_room(&self, poller: &Poller, token: u64) -> io::Result<()> {
        let Some(first) = self.batch[..self.waiting].first() else { return Ok(()) };
        let family = family_of(first);
        let mut sockets = self.raw.iter().filter(|(socket, _)| *socket == family);
        sockets.try_for_each(|(_, socket)| poller.await_room(socket.as_fd(), token))
    }

    /// When to wake for what is due at `deadline`: while the kernel takes no packets, what is overdue cannot leave, and a
    /// timer in the past would fire again and again.
    pub fn wake_at(&self, deadline: Option<Instant>, now: Instant) -> Option<Instant> {
        if self.waiting == 0 {
            return deadline;
        }
        deadline.map(|deadline| deadline.max(now + BLOCKED_PAUSE))
    }

    /// Replaces the ports that are tapped.
    ///
    /// # Errors
    /// As [`PacketSocket::set_filter`].
    pub fn set_filter(&self, filter: &PortFilter) -> io::Result<()> {
        self.taps.iter().try_for_each(|tap| tap.set_filter(filter))
    }

    /// Hands at most one batch of each tap to `take`, packet by packet, with the interface it came in on.
    ///
    /// # Errors
    /// A tap failed for another reason than having nothing.
    pub fn receive(&mut self, mut take: impl FnMut(&mut [u8], u32)) -> io::Result<()> {
        for tap in &mut self.taps {
            match tap.recv_batch(&mut take) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends what `fill` writes, packet by packet, until it says `false`, the kernel takes no more, or `most` packets
    /// left. Returns whether `fill` may have more to say at once.
    pub fn send(&mut self, most: usize, mut fill: impl FnMut(&mut Vec<u8>) -> bool) -> bool {
        let mut sent = 0;
        while sent < most {
            let mut ready = self.waiting;
            while ready < BATCH && fill(&mut self.batch[ready]) {
                ready += 1;
            }
            let done = self.send_ready(ready);
            sent += done;
            self.batch[..ready].rotate_left(done);
            self.waiting = ready - done;
            if self.waiting > 0 || ready < BATCH {
                return false;
            }
        }
        true
    }

    /// Returns how many packets from the front are done with.
    fn send_ready(&mut self, ready: usize) -> usize {
        let mut done = 0;
        while done < ready {
            let family = family_of(&self.batch[done]);
            let rest = &self.batch[done..ready];
            let run: Vec<&[u8]> =
                rest.iter().take_while(|packet| family_of(packet) == family).map(Vec::as_slice).collect();
            let Some((_, socket)) = self.raw.iter_mut().find(|(socket, _)| *socket == family) else {
                done += run.len();
                continue;
            };
            match socket.send_batch(&run) {
                Ok(taken) if taken == run.len() => done += taken,
                Ok(taken) => return done + taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return done,
                // Lost like any packet on the way; the socket counts why.
                Err(error) => {
                    tracing::debug!(%error, "packets could not be sent");
                    done += run.len();
                }
            }
        }
        done
    }

    /// What the raw sockets sent and could not send.
    pub fn sent(&self) -> SendStats {
        self.raw.iter().fold(SendStats::default(), |sum, (_, socket)| sum + socket.stats())
    }

    /// What came in and what did not.
    pub fn received(&mut self) -> ReceiveStats {
        self.taps.iter_mut().fold(ReceiveStats::default(), |sum, tap| sum + tap.stats())
    }
}

fn family_of(packet: &[u8]) -> Family {
    if packet.first().is_some_and(|byte| byte >> 4 == 6) { Family::V6 } else { Family::V4 }
}

/// Our choice: 100 ms at 1 Gbit/s, because the kernel counts its own overhead into it.
const RECEIVE_BUFFER: usize = 16 << 20;

/// Packets of one `sendmmsg`.
const BATCH: usize = 64;

/// Our choice: how often other timers than those of what waits are looked at while nothing can be sent.
const BLOCKED_PAUSE: Duration = Duration::from_millis(10);
