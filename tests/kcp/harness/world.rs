//! Ends on a line, under one clock.

use std::time::{Duration, Instant};

use link_emulator::{Direction, Profile};
use vpn::kcp::{Config, Stats};

use super::app::App;
use super::ikcp::{Ikcp, Knobs};
use super::line::Link;
use super::ours::{Ours, Sending};
use super::stall::Stalls;
use super::{OVERHEAD, ms, start};

/// All of it. Pair `n` has its first end at 2 `n`, on the client's side of the line, and its second at 2 `n` + 1.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) link: Link,
    pub(crate) hosts: Vec<Host>,
    seed: u64,
    buffer: Vec<u8>,
}

impl World {
    /// A line with nobody at it; `seed` decides every random choice.
    pub(crate) fn new(profiles: [Profile; 2], seed: u64) -> Self {
        let now = start();
        Self { now, link: Link::new(profiles, seed, now), hosts: Vec::new(), seed, buffer: Vec::new() }
    }

    /// A line that does the same both ways, and one pair of ends.
    pub(crate) fn pair(profile: Profile, seed: u64, engines: [Engine; 2], apps: [App; 2]) -> Self {
        let mut world = Self::new([profile; 2], seed);
        world.connect(engines, apps);
        world
    }

    /// Adds a pair of ends, which start now.
    pub(crate) fn connect(&mut self, engines: [Engine; 2], apps: [App; 2]) {
        let conv = self.conv();
        for (engine, app) in engines.into_iter().zip(apps) {
            let end = match engine {
                Engine::Ours(config, sending) => {
                    End::Ours(Box::new(Ours::new(conv, config, sending, self.now)))
                }
                Engine::Ikcp(knobs) => End::Ikcp(Box::new(Ikcp::new(conv, knobs, self.now))),
            };
            self.hosts.push(Host::new(end, app, self.now));
        }
    }

    /// The next pair's conversation, from which ours draws what it varies.
    fn conv(&self) -> u32 {
        let mixed = (self.seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        u32::try_from(mixed).unwrap_or(0).wrapping_add(u32::try_from(self.hosts.len()).unwrap_or(0))
    }

    /// From now on every host runs at some moments only.
    pub(crate) fn stall(&mut self, mean: Duration, longest: Duration) {
        for (number, host) in self.hosts.iter_mut().enumerate() {
            let seed = self.seed ^ (number as u64 + 1) << 32;
            host.stalls = Some(Stalls::new(mean, longest, seed, self.now));
        }
    }

    /// Lets `time` pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.serve(true);
        let mut turns = 0;
        while let Some(next) = self.next().filter(|next| *next <= end) {
            turns = if next > self.now { 0 } else { turns + 1 };
            assert!(turns < MOST_TURNS, "somebody wakes for nothing: {:?}", self.stats());
            self.now = self.now.max(next);
            while let Some((to, packet)) = self.link.poll(self.now) {
                self.hosts[to].on_arrival(packet, self.now);
            }
            self.serve(false);
        }
        self.now = end;
    }

    /// Runs until both ends have nothing left to do; panics with `context` after `limit`.
    pub(crate) fn finish(&mut self, limit: Duration, context: &str) {
        let end = self.now + limit;
        while !self.is_done() {
            assert!(self.now < end, "{context}: not done, {:?}", self.stats());
            self.run(ms(10));
        }
    }

    /// Whether everything was sent and acknowledged.
    pub(crate) fn is_done(&self) -> bool {
        self.hosts.iter().all(|host| host.app.is_silent() && host.end.is_idle())
    }

    /// How long packets waited in the queue of the direction from the first ends to the second, sorted.
    pub(crate) fn take_waits(&mut self) -> Vec<Duration> {
        let mut waits = self.link.take_waits(Direction::Out);
        waits.sort_unstable();
        waits
    }

    /// Packets that found the queue of that direction full.
    pub(crate) fn dropped(&self) -> u64 {
        self.link.dropped(Direction::Out)
    }

    /// What ours have measured and counted.
    pub(crate) fn stats(&self) -> Vec<Stats> {
        self.hosts.iter().filter_map(|host| host.end.stats()).collect()
    }

    fn next(&self) -> Option<Instant> {
        self.hosts.iter().filter_map(|host| host.due).chain(self.link.poll_timeout()).min()
    }

    /// Serves the hosts that are due, or all.
    fn serve(&mut self, all: bool) {
        for number in 0..self.hosts.len() {
            let host = &mut self.hosts[number];
            if all && host.stalls.is_none() || host.due.is_some_and(|due| due <= self.now) {
                host.handle(&mut self.link, self.now);
                self.transmit(number);
                self.hosts[number].plan(self.now);
            } else if all {
                host.plan(self.now);
            }
        }
    }

    fn transmit(&mut self, from: usize) {
        let host = &mut self.hosts[from];
        for _ in 0..MOST_PACKETS {
            let mut packet = Link::packet(from, std::mem::take(&mut self.buffer));
            let sent = match &mut host.end {
                End::Ours(ours) => ours.poll_transmit(&mut host.app, &mut packet, self.now),
                End::Ikcp(ikcp) => ikcp.poll_transmit(&mut packet),
            };
            if sent {
                host.sent_bytes += (packet.len() - OVERHEAD) as u64;
                self.link.send(&packet, self.now);
            }
            self.buffer = packet;
            if !sent {
                return;
            }
        }
        panic!("end {from} never stops sending: {:?}", host.end.stats());
    }
}

/// Which KCP an end has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Engine {
    Ours(Config, Sending),
    Ikcp(Knobs),
}

/// One end: KCP, the application above it, and what has arrived.
pub(crate) struct Host {
    pub(crate) end: End,
    pub(crate) app: App,
    /// Whether the application takes what arrives.
    pub(crate) is_reading: bool,
    /// KCP bytes handed to the line.
    pub(crate) sent_bytes: u64,
    stalls: Option<Stalls>,
    inbox: Vec<Vec<u8>>,
    /// When it is to be served next.
    due: Option<Instant>,
}

impl Host {
    fn new(end: End, app: App, now: Instant) -> Self {
        Self { end, app, is_reading: true, sent_bytes: 0, stalls: None, inbox: Vec::new(), due: Some(now) }
    }

    /// Payload bytes that have arrived once, those included that wait for others before them.
    ///
    /// # Panics
    /// If it is not ours, which alone says what waits.
    pub(crate) fn received(&self) -> u64 {
        self.app.received() + self.end.stats().expect("it is ours").receive_buffered as u64
    }

    fn on_arrival(&mut self, packet: Vec<u8>, now: Instant) {
        self.inbox.push(packet);
        self.wake(now, now);
    }

    /// Takes what has arrived, as one batch.
    fn handle(&mut self, link: &mut Link, now: Instant) {
        self.app.handle_timeout(now);
        for packet in self.inbox.drain(..) {
            match &mut self.end {
                End::Ours(ours) => ours.handle_packet(&packet[OVERHEAD..], now),
                End::Ikcp(ikcp) => ikcp.handle_packet(&packet[OVERHEAD..]),
            }
            link.recycle(packet);
        }
        self.read(now);
        if let End::Ikcp(ikcp) = &mut self.end {
            ikcp.drive(&mut self.app, now);
        }
    }

    fn read(&mut self, now: Instant) {
        while self.is_reading {
            let message = match &mut self.end {
                End::Ours(ours) => ours.poll_message(),
                End::Ikcp(ikcp) => ikcp.poll_message(),
            };
            let Some(message) = message else { return };
            self.app.read(&message, now);
        }
    }

    /// Finds out when it is to be served next.
    fn plan(&mut self, now: Instant) {
        self.due = None;
        let kcp = match &self.end {
            End::Ours(ours) => ours.poll_timeout(),
            End::Ikcp(ikcp) => Some(ikcp.poll_timeout()),
        };
        let arrived = (!self.inbox.is_empty()).then_some(now);
        if let Some(wanted) = kcp.into_iter().chain(self.app.poll_timeout()).chain(arrived).min() {
            self.wake(wanted.max(now), now);
        }
    }

    fn wake(&mut self, wanted: Instant, now: Instant) {
        let at = self.stalls.as_mut().map_or(wanted, |stalls| stalls.after(wanted, now));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

/// One of the two implementations.
pub(crate) enum End {
    Ours(Box<Ours>),
    Ikcp(Box<Ikcp>),
}

impl End {
    /// What ours has measured and counted.
    pub(crate) fn stats(&self) -> Option<Stats> {
        match self {
            Self::Ours(ours) => Some(ours.stats()),
            Self::Ikcp(_) => None,
        }
    }

    fn is_idle(&self) -> bool {
        match self {
            Self::Ours(ours) => ours.is_idle(),
            Self::Ikcp(ikcp) => ikcp.is_idle(),
        }
    }

    /// Tells ours that packets come through again; the crate has no ear for it.
    pub(crate) fn on_path_restored(&mut self, now: Instant) {
        if let Self::Ours(ours) = self {
            ours.on_path_restored(now);
        }
    }

    /// When ours wants to be called again.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Ours(ours) => ours.poll_timeout(),
            Self::Ikcp(ikcp) => Some(ikcp.poll_timeout()),
        }
    }
}

/// No moment needs so many turns.
const MOST_TURNS: u32 = 1000;

/// No end sends so many packets at once.
const MOST_PACKETS: usize = 1_000_000;
