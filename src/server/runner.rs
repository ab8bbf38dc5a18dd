//! The server's loop: sockets, TUN and targets on one side, the sans-IO server on the other.
//!
//! One wake-up takes a bounded share from each source, then everything that may leave leaves, then the timer is set.

use std::io::{self, ErrorKind};
use std::time::Instant;

use crate::carrier;
use crate::config::Listen;
use crate::instance::{Source, Targets};
use crate::io::{
    self as shell, Doors, Family, LocalAddresses, Poller, PortFilter, PortGuard, Readiness, ReceiveStats,
    Segments, SendStats, TUN_MTU, Timer, TunDevice, Wire,
};
use crate::session::Server;

/// The data path of one server.
#[derive(Debug)]
pub(crate) struct Runner {
    /// The protocol.
    pub(crate) server: Server,
    /// The device of what goes to clients, and of what comes from them but for TCP.
    pub(crate) tun: TunDevice,
    /// The sockets of clients' TCP.
    pub(crate) targets: Targets,
    wire: Wire,
    doors: Doors,
    ours: Ours,
    poller: Poller,
    timer: Timer,
    ready: Vec<Readiness>,
    buffer: Vec<u8>,
    _guards: Vec<PortGuard>,
}

impl Runner {
    /// Opens the sockets for the ports of `listen`, which are guarded; the process may have `most_files` open.
    pub(crate) fn open(
        server: Server,
        tun: TunDevice,
        listen: Vec<Listen>,
        guards: Vec<PortGuard>,
        most_files: usize,
    ) -> io::Result<Self> {
        let addresses: Vec<_> = guards.iter().map(PortGuard::local_addr).collect();
        let families = Family::all_of(&addresses);
        let ranges = listen.iter().map(|listen| listen.ports.range()).collect();
        let filter = PortFilter { destination: ranges, source: None, segments: Segments::AllButSyns };
        let wire = Wire::open(&families, &filter, None)?;
        let doors = Doors::open(&families, &filter)?;
        let (poller, timer) = (Poller::new()?, Timer::new()?);
        wire.watch(&poller, WIRE)?;
        doors.watch(&poller, DOORS)?;
        poller.watch_readable(&tun, TUN)?;
        poller.watch_readable(&timer, TIMER)?;
        Ok(Self {
            server,
            tun,
            targets: Targets::new(
                Source::Kernel,
                FIRST_TARGET,
                most_files.saturating_sub(guards.len() + OTHER_FILES),
            ),
            wire,
            doors,
            ours: Ours { listen, local: LocalAddresses::new(), unparsed: 0 },
            poller,
            timer,
            ready: Vec::new(),
            buffer: vec![0; usize::from(TUN_MTU)],
            _guards: guards,
        })
    }

    /// What became of the packets that were sent.
    pub(crate) fn sent(&self) -> SendStats {
        self.wire.sent()
    }

    /// What came in on our ports, and what the kernel had no room for: SYNs, and everything else.
    pub(crate) fn received(&mut self) -> [ReceiveStats; 2] {
        [self.doors.received(), self.wire.received()]
    }

    /// Packets to our ports that are no TCP of ours.
    pub(crate) fn unparsed(&self) -> u64 {
        self.ours.unparsed
    }

    /// Waits for the next input and hands it over. Cancel-safe: what was not taken stays in the sockets.
    pub(crate) async fn step(&mut self) -> io::Result<()> {
        self.poller.wait(&mut self.ready).await?;
        let now = shell::now();
        let mut ready = std::mem::take(&mut self.ready);
        let result = ready.drain(..).try_for_each(|ready| self.handle_ready(ready, now));
        self.ready = ready;
        result
    }

    /// Runs what is due, does what the server asks, sends what may leave, and sets the timer.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let now = shell::now();
        self.server.handle_timeout(now);
        self.serve_streams(now);
        self.fill_tun(now);
        let mut more = self.wire.send(MOST_PACKETS, |packet| self.server.poll_transmit(packet, now));
        // Sending makes room in streams: their sockets and flows are read on.
        more |= self.serve_streams(now) | self.fill_tun(now);
        self.wire.await_room(&self.poller, WIRE)?;
        self.doors.await_syns(&self.poller, DOORS, now)?;
        let deadline = if more { Some(now) } else { self.server.poll_timeout(now) };
        let deadline = self.wire.wake_at(deadline, now);
        self.timer.set([deadline, self.doors.poll_timeout()].into_iter().flatten().min())
    }

    /// Tells every client that the server ends, as far as the kernel takes it.
    pub(crate) fn close(&mut self) {
        let now = shell::now();
        self.server.close(now);
        self.fill_tun(now);
        while self.wire.send(MOST_PACKETS, |packet| self.server.poll_transmit(packet, now)) {}
    }

    fn handle_ready(&mut self, ready: Readiness, now: Instant) -> io::Result<()> {
        match ready.token {
            WIRE => self.wire.receive(|packet, interface| {
                self.ours.hand_on(packet, interface, (&mut self.server, &self.tun), now);
            })?,
            DOORS => self.doors.receive(now, |packet, interface| {
                self.ours.hand_on(packet, interface, (&mut self.server, &self.tun), now);
            })?,
            TUN => self.read_tun(now)?,
            TIMER => {
                self.timer.take_expired()?;
            }
            _ => self.targets.handle_ready(ready, &mut self.server, now),
        }
        Ok(())
    }

    /// Does what streams ask of their sockets; says whether any did.
    fn serve_streams(&mut self, now: Instant) -> bool {
        let mut served = false;
        while let Some(event) = self.server.poll_event() {
            self.targets.handle_event(event, &mut self.server, &self.poller, now);
            served = true;
        }
        served
    }

    /// Hands the kernel what the server has for it; says whether there was anything.
    fn fill_tun(&mut self, now: Instant) -> bool {
        let mut filled = false;
        while let Some(packet) = self.server.poll_tun(now) {
            self.tun.offer(&packet);
            self.server.recycle(packet);
            filled = true;
        }
        filled
    }

    /// The addresses of this host may have changed: which packets are ours, and where clients may not go.
    pub(crate) fn refresh_addresses(&mut self) {
        self.ours.local.refresh(shell::now());
        self.server.set_own_addresses(shell::local_networks());
    }

    fn read_tun(&mut self, now: Instant) -> io::Result<()> {
        let mut left = TUN_BYTES;
        for _ in 0..TUN_PACKETS {
            match self.tun.recv(&mut self.buffer) {
                Ok(length) => {
                    self.server.handle_tun(&self.buffer[..length], now);
                    left = left.saturating_sub(length);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if left == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Which of the packets to our ports are ours.
#[derive(Debug)]
struct Ours {
    listen: Vec<Listen>,
    local: LocalAddresses,
    unparsed: u64,
}

impl Ours {
    /// Only what is addressed to this host and to an address we listen on is ours: a router's tap shows other hosts'
    /// connections too.
    fn hand_on(
        &mut self,
        packet: &mut [u8],
        interface: u32,
        (server, tun): (&mut Server, &TunDevice),
        now: Instant,
    ) {
        let Ok(segment) = carrier::parse(packet) else {
            self.unparsed += 1;
            return;
        };
        let destination = segment.destination;
        let listened = self.listen.iter().any(|listen| listen.covers(destination));
        if listened && interface != tun.index() && self.local.is_local(destination.ip(), now) {
            server.handle_segment(&segment, packet, now);
        }
    }
}

const WIRE: u64 = 0;
const TUN: u64 = 1;
const TIMER: u64 = 2;
const DOORS: u64 = 3;
const FIRST_TARGET: u64 = 4;

/// Our choice: open files that are no targets' sockets, and no guards. Who asks for our status gets an answer however many
/// connections there are.
const OTHER_FILES: usize = 64;

/// Our choice: packets sent before input is looked at again.
const MOST_PACKETS: usize = 256;

/// Our choice: TUN packets taken before anything is sent, …
const TUN_PACKETS: usize = 64;

/// … and bytes of them: eight of the largest.
const TUN_BYTES: usize = 512 * 1024;
