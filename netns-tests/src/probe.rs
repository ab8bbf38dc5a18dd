//! Numbered datagrams from one host to another, and what became of each: what a line does, seen from its ends.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::node::Node;
use crate::{sys, wait};

/// What to send.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// How many datagrams.
    pub count: u32,
    /// From one to the next.
    pub gap: Duration,
    /// Bytes of each IPv4 packet.
    pub size: usize,
}

impl Probe {
    /// Sends the datagrams from one host to another and waits until nothing more comes.
    ///
    /// # Errors
    /// If the hosts cannot be entered, or if nothing can be sent.
    pub fn run(self, from: &Node, to: &Node, address: Ipv4Addr) -> Result<Outcome> {
        let receiver = socket(to, SocketAddr::from((address, 0)))?;
        let sender = socket(from, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        sender.connect(receiver.local_addr()?)?;
        let mut arrivals = Vec::new();
        let mut traffic = Traffic { sender, receiver, batch: sys::Receiver::new(), sent: Vec::new() };
        let (start, mut alive) = (wait::now(), wait::now());
        while traffic.sent.len() < self.count as usize || wait::now() < alive + PATIENCE {
            let next = start + self.gap * u32::try_from(traffic.sent.len())?;
            let is_over = traffic.sent.len() == self.count as usize;
            traffic.wait_until(if is_over { alive + PATIENCE } else { next })?;
            if traffic.receive(&mut arrivals)? || !is_over {
                alive = wait::now();
            }
            let due = (wait::now() - start).as_nanos() / self.gap.as_nanos().max(1) + 1;
            traffic.send(due.min(u128::from(self.count)), self.size)?;
        }
        Ok(Outcome { probe: self, sent: traffic.sent, arrivals })
    }
}

/// Both ends of the traffic.
#[derive(Debug)]
struct Traffic {
    sender: UdpSocket,
    receiver: UdpSocket,
    batch: sys::Receiver,
    /// When each was sent, since the epoch.
    sent: Vec<Duration>,
}

impl Traffic {
    /// Waits for a datagram, at most until `deadline`.
    fn wait_until(&self, deadline: Instant) -> Result<()> {
        let rest = deadline.saturating_duration_since(wait::now());
        let timeout =
            Timespec { tv_sec: i64::try_from(rest.as_secs())?, tv_nsec: i64::from(rest.subsec_nanos()) };
        poll(&mut [PollFd::new(&self.receiver, PollFlags::IN)], Some(&timeout))?;
        Ok(())
    }

    /// Takes what has arrived; false if nothing has.
    fn receive(&mut self, arrivals: &mut Vec<Arrival>) -> Result<bool> {
        match self.batch.receive(self.receiver.as_fd()) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("receiving"),
        }
        for (at, datagram) in self.batch.frames() {
            let number = datagram.first_chunk().map(|number| u32::from_be_bytes(*number));
            let sent = number.and_then(|number| self.sent.get(number as usize));
            if let (Some(number), Some(at), Some(sent)) = (number, at, sent) {
                arrivals.push(Arrival { number, at, delay: at.saturating_sub(*sent) });
            }
        }
        Ok(true)
    }

    /// Sends until `due` datagrams are sent, or as many as one batch has; the rest waits until something was received.
    fn send(&mut self, due: u128, size: usize) -> Result<()> {
        let mut datagram = vec![0; size.saturating_sub(HEADERS).max(4)];
        for _ in 0..sys::BATCH {
            let number = u32::try_from(self.sent.len())?;
            if u128::from(number) >= due {
                break;
            }
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            self.sent.push(wait::wall_clock());
            match self.sender.send(&datagram) {
                Ok(_) => {}
                // A host that knows no better has told us of a line that is down.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error).context("sending"),
            }
        }
        Ok(())
    }
}

/// A datagram that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its number, counted from 0.
    pub number: u32,
    /// When, since the epoch.
    pub at: Duration,
    /// How long it took.
    pub delay: Duration,
}

/// What became of the datagrams.
#[derive(Debug)]
pub struct Outcome {
    probe: Probe,
    /// When each was sent, since the epoch.
    sent: Vec<Duration>,
    /// In the order in which they came.
    pub arrivals: Vec<Arrival>,
}

impl Outcome {
    /// The share that never arrived.
    #[must_use]
    pub fn loss(&self) -> f64 {
        1.0 - self.first_copies().len() as f64 / f64::from(self.probe.count)
    }

    /// The runs of numbers that never arrived, each with its length.
    #[must_use]
    pub fn losses(&self) -> Vec<u32> {
        self.runs().map(|(first, next)| next - first).collect()
    }

    /// How long nothing got through at the longest: surely (while those were sent that were lost, without the first, which may have
    /// been held up before it met the line) and at most (from the sending of the one before them to the arrival of the one after).
    /// Both hold however slow the machine is, if one did come after them.
    #[must_use]
    pub fn longest_silence(&self) -> (Duration, Duration) {
        let Some((first, next)) = self.runs().max_by_key(|(first, next)| next - first) else {
            return (Duration::ZERO, Duration::ZERO);
        };
        let sent =
            |number: u32| self.sent.get(number as usize).or(self.sent.last()).copied().unwrap_or_default();
        let after =
            self.arrivals.iter().filter(|arrival| arrival.number == next).map(|arrival| arrival.at).min();
        (
            sent(next.saturating_sub(1)).saturating_sub(sent(first + 1)),
            after.unwrap_or_else(|| sent(next)).saturating_sub(sent(first.saturating_sub(1))),
        )
    }

    /// From the sending of the first to the last arrival: the line has seen all that arrived in no more time.
    #[must_use]
    pub fn span(&self) -> Duration {
        let last = self.arrivals.iter().map(|arrival| arrival.at).max().unwrap_or_default();
        last.saturating_sub(self.sent.first().copied().unwrap_or_default())
    }

    /// The first number that was lost and the first that was not, again and again.
    fn runs(&self) -> impl Iterator<Item = (u32, u32)> {
        let mut expected = 0;
        let arrived = self.first_copies().into_keys().chain([self.probe.count]);
        let run = move |number| {
            let first = std::mem::replace(&mut expected, number + 1);
            (first, number)
        };
        arrived.map(run).filter(|(first, next)| next > first)
    }

    /// The delay that `share` of the datagrams did not exceed; zero if none arrived.
    #[must_use]
    pub fn delay(&self, share: f64) -> Duration {
        let mut delays: Vec<Duration> = self.arrivals.iter().map(|arrival| arrival.delay).collect();
        delays.sort_unstable();
        let most = delays.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index between 0 and the length"
        )]
        let at = (most as f64 * share).round() as usize;
        delays.get(at.min(most)).copied().unwrap_or_default()
    }

    /// The share of numbers that arrived more than once.
    #[must_use]
    pub fn duplicated(&self) -> f64 {
        let more = self.first_copies().values().filter(|(_, copies)| *copies > 1).count();
        more as f64 / self.first_copies().len().max(1) as f64
    }

    /// For each datagram that was overtaken, how many with a higher number had arrived before it.
    #[must_use]
    pub fn overtaken(&self) -> Vec<usize> {
        let first_copies = self.first_copies();
        let late = first_copies.values().enumerate();
        late.filter(|(rank, (place, _))| place > rank).map(|(rank, (place, _))| place - rank).collect()
    }

    /// Bits per second of IP packets that arrived, from the first to the last.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let (Some(first), Some(last)) = (self.arrivals.first(), self.arrivals.last()) else {
            return 0.0;
        };
        let time = last.at.saturating_sub(first.at).as_secs_f64();
        (self.arrivals.len() - 1) as f64 * self.probe.size as f64 * 8.0 / time
    }

    /// By number: the place among the first copies, and how many copies came in all.
    fn first_copies(&self) -> BTreeMap<u32, (usize, u32)> {
        let mut copies = BTreeMap::new();
        for arrival in &self.arrivals {
            let place = copies.len();
            copies.entry(arrival.number).or_insert((place, 0)).1 += 1;
        }
        copies
    }
}

/// A socket of another host.
fn socket(node: &Node, address: SocketAddr) -> Result<UdpSocket> {
    let namespace = node.namespace().network().as_fd().try_clone_to_owned()?;
    let open = move || -> Result<UdpSocket> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        sys::force_buffers(&socket, SOCKET_BUFFER)?;
        sys::stamp_arrivals(&socket)?;
        Ok(socket)
    };
    // A thread of its own: the one that calls stays where it is.
    std::thread::spawn(open).join().map_err(|_| anyhow!("a thread died"))?.context("a socket of another host")
}

/// Room for what arrives while this thread does not run.
const SOCKET_BUFFER: i32 = 16 << 20;

/// How long nothing must have arrived before nothing more is expected.
const PATIENCE: Duration = Duration::from_millis(700);

/// IPv4 and UDP.
const HEADERS: usize = 20 + 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(count: u32, numbers: &[u32]) -> Outcome {
        let probe = Probe { count, gap: Duration::from_millis(2), size: 1000 };
        let arrival = |(n, number): (u64, &u32)| {
            let delay = Duration::from_millis(10 + n);
            Arrival { number: *number, at: probe.gap * *number + delay, delay }
        };
        let sent = (0..count).map(|number| Duration::from_millis(2) * number).collect();
        Outcome { probe, sent, arrivals: (0..).zip(numbers).map(arrival).collect() }
    }

    #[test]
    fn finds_what_is_missing() {
        let outcome = outcome(10, &[1, 2, 5, 6, 9, 9]);
        assert!((outcome.loss() - 0.5).abs() < 1e-9);
        assert_eq!(outcome.losses(), [1, 2, 2]);
        // Of 7 and 8, sent at 14 and 16 ms: 6 was sent at 12 ms, and 9 came at 18 + 14 ms.
        assert_eq!(outcome.longest_silence(), (Duration::ZERO, Duration::from_millis(20)));
        let four = self::outcome(7, &[0, 5]).longest_silence();
        assert_eq!(four, (Duration::from_millis(4), Duration::from_millis(21)));
        assert_eq!(self::outcome(3, &[]).losses(), [3]);
        assert!(self::outcome(2, &[0, 1]).losses().is_empty());
    }

    #[test]
    fn finds_what_came_twice_or_late() {
        let outcome = outcome(8, &[0, 2, 3, 1, 4, 4, 7, 6]);
        assert_eq!(outcome.overtaken(), [2, 1]);
        assert!((outcome.duplicated() - 1.0 / 7.0).abs() < 1e-9);
    }

    #[test]
    fn measures_delay_and_rate() {
        let outcome = outcome(11, &Vec::from_iter(0..11));
        assert_eq!(outcome.delay(0.0), Duration::from_millis(10));
        assert_eq!(outcome.delay(0.5), Duration::from_millis(15));
        assert_eq!(outcome.delay(1.0), Duration::from_millis(20));
        // Each comes 3 ms after the one before.
        assert!((outcome.rate() - 8e6 / 3.0).abs() < 1.0);
        assert_eq!(outcome.span(), Duration::from_millis(40));
        assert_eq!(self::outcome(1, &[]).delay(0.5), Duration::ZERO);
    }
}
