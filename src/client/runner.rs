//! The client's loop: sockets and TUN on one side, the sans-IO client on the other, nothing decided here.
//!
//! One wake-up takes a bounded share from each source, then everything that may leave leaves, then the timer is set.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::surroundings::{News, Surroundings};
use crate::crypto::Timestamp;
use crate::instance::{Source, Targets};
use crate::io::{
    self as shell, Family, Poller, PortFilter, PortGuard, Readiness, ReceiveStats, SendStats, TUN_MTU, Timer,
    TunDevice, Wire, mtu_at, source_for,
};
use crate::session::{Client, ClientEvent, ServerAddress};

/// The data path of one client.
#[derive(Debug)]
pub(crate) struct Runner {
    /// The protocol.
    pub(crate) client: Client,
    /// The device that apps' packets come from.
    pub(crate) tun: TunDevice,
    /// The sockets of connections from the server's side to services of this host.
    pub(crate) targets: Targets,
    wire: Wire,
    poller: Poller,
    timer: Timer,
    guards: Vec<Guard>,
    mark: u32,
    ready: Vec<Readiness>,
    buffer: Vec<u8>,
}

/// A guarded source port; a retired one stays guarded for what may still arrive for it.
#[derive(Debug)]
struct Guard {
    port: PortGuard,
    local: SocketAddr,
    until: Option<Instant>,
}

impl Runner {
    /// Opens the sockets, for carriers to `servers`; the process may have `most_files` open.
    pub(crate) fn open(
        client: Client,
        tun: TunDevice,
        servers: &[SocketAddr],
        mark: u32,
        most_files: usize,
    ) -> io::Result<Self> {
        let families = Family::all_of(servers);
        let wire = Wire::open(&families, &PortFilter::default(), Some(mark))?;
        let (poller, timer) = (Poller::new()?, Timer::new()?);
        wire.watch(&poller, WIRE)?;
        poller.watch_readable(&tun, TUN)?;
        poller.watch_readable(&timer, TIMER)?;
        Ok(Self {
            client,
            tun,
            targets: Targets::new(
                Source::Target,
                FIRST_TARGET,
                most_files.saturating_sub(OTHER_FILES).min(MOST_TARGETS),
            ),
            wire,
            poller,
            timer,
            guards: Vec::new(),
            mark,
            ready: Vec::new(),
            buffer: vec![0; usize::from(TUN_MTU)],
        })
    }

    /// What is on every packet that leaves here.
    pub(crate) fn mark(&self) -> u32 {
        self.mark
    }

    /// From now on these are the addresses of each server.
    pub(crate) fn set_servers(&mut self, servers: Vec<Vec<ServerAddress>>) {
        let addresses = servers.iter().flatten().copied().map(ServerAddress::with_first_port);
        let addresses: Vec<_> = addresses.collect();
        let ports = PortFilter::ports(self.guards.iter().map(|guard| guard.port.port()));
        for family in Family::all_of(&addresses) {
            // The other addresses are as good as before.
            if let Err(error) = self.wire.add_family(family, &ports, Some(self.mark), &self.poller, WIRE) {
                tracing::debug!(?family, %error, "no sockets for these addresses");
            }
        }
        self.client.set_servers(servers, shell::now());
    }

    /// Tells the client what is new around it.
    pub(crate) fn on_news(&mut self, news: News, surroundings: &Surroundings) {
        match news {
            News::Servers => self.set_servers(surroundings.names.servers()),
            News::Name => self.client.set_network(surroundings.network()),
            News::Network => {
                let towards = |remote| source_for(remote, Some(self.mark)).ok();
                let source = self.client.remote().and_then(towards);
                self.client.handle_network_change(source, shell::now());
            }
        }
    }

    /// What became of the packets that were sent.
    pub(crate) fn sent(&self) -> SendStats {
        self.wire.sent()
    }

    /// What came in, and what the kernel had no room for.
    pub(crate) fn received(&mut self) -> ReceiveStats {
        self.wire.received()
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

    /// Runs what is due, does what the client asks, sends what may leave, and sets the timer.
    /// Returns the events that are not the loop's business.
    pub(crate) fn flush(&mut self, events: &mut Vec<ClientEvent>) -> io::Result<()> {
        let now = shell::now();
        self.client.handle_timeout(now);
        while let Some(event) = self.client.poll_event() {
            match event {
                ClientEvent::Dial { attempt, remote } => self.dial(attempt, remote, now),
                ClientEvent::Retired(local) => self.retire(local, now),
                ClientEvent::Up { .. }
                | ClientEvent::Suspect
                | ClientEvent::Recovered
                | ClientEvent::Broken(_)
                | ClientEvent::Closed(_)
                | ClientEvent::Restarted
                | ClientEvent::Ended(_) => events.push(event),
            }
        }
        self.release_guards(now);
        self.serve_streams(now);
        self.fill_tun(now);
        let more = loop {
            let sent = self.wire.send(MOST_PACKETS, |packet| self.client.poll_transmit(packet, now));
            // What left made room for services and apps that had none: they are told at once.
            let more = self.serve_streams(now) | sent;
            if !self.fill_tun(now) || more {
                break more;
            }
        };
        self.wire.await_room(&self.poller, WIRE)?;
        let deadline = if more { Some(now) } else { self.deadline() };
        self.timer.set(self.wire.wake_at(deadline, now))
    }

    fn handle_ready(&mut self, ready: Readiness, now: Instant) -> io::Result<()> {
        match ready.token {
            WIRE => self.wire.receive(|packet, _| self.client.handle_packet(packet, now))?,
            TUN => self.read_tun(now)?,
            TIMER => {
                self.timer.take_expired()?;
            }
            _ => self.targets.handle_ready(ready, &mut self.client, now),
        }
        Ok(())
    }

    /// Does what streams ask of their sockets; says whether any did.
    fn serve_streams(&mut self, now: Instant) -> bool {
        let mut served = false;
        while let Some(event) = self.client.poll_stream_event() {
            self.targets.handle_event(event, &mut self.client, &self.poller, now);
            served = true;
        }
        served
    }

    /// Hands the kernel what the client has for it; says whether there was anything.
    fn fill_tun(&mut self, now: Instant) -> bool {
        let mut filled = false;
        while let Some(packet) = self.client.poll_tun(now) {
            self.tun.offer(&packet);
            self.client.recycle(packet);
            filled = true;
        }
        filled
    }

    fn read_tun(&mut self, now: Instant) -> io::Result<()> {
        let mut left = MOST_BYTES;
        for _ in 0..MOST_SEGMENTS {
            match self.tun.recv(&mut self.buffer) {
                Ok(length) => {
                    self.client.handle_tun(&self.buffer[..length], now);
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

    fn dial(&mut self, attempt: u32, remote: SocketAddr, now: Instant) {
        match self.reserve(remote) {
            Ok(local) => self.client.dial(attempt, local, Timestamp::from_unix(shell::wall()), now),
            Err(error) => {
                tracing::debug!(%remote, %error, "no source for a new carrier");
                self.client.dial_failed(attempt, now);
            }
        }
    }

    /// A guarded port on the address that packets to `remote` leave from.
    fn reserve(&mut self, remote: SocketAddr) -> io::Result<SocketAddr> {
        let (port, local) = PortGuard::towards(remote, Some(self.mark))?;
        match mtu_at(local.ip()) {
            Ok(mtu) => self.client.set_mtu(mtu),
            Err(error) => tracing::debug!(%local, %error, "the MTU is not known"),
        }
        let ports = self.guards.iter().map(|guard| &guard.port).chain([&port]);
        self.wire.set_filter(&PortFilter::ports(ports.map(PortGuard::port)))?;
        self.guards.push(Guard { port, local, until: None });
        Ok(local)
    }

    fn retire(&mut self, local: SocketAddr, now: Instant) {
        for guard in self.guards.iter_mut().filter(|guard| guard.local == local) {
            guard.until = Some(now + GUARD_AFTER);
        }
    }

    /// Lets go of the retired ports whose time is over.
    fn release_guards(&mut self, now: Instant) {
        let is_over = |guard: &Guard| guard.until.is_some_and(|until| until <= now);
        if !self.guards.iter().any(is_over) {
            return;
        }
        self.guards.retain(|guard| !is_over(guard));
        let ports = self.guards.iter().map(|guard| guard.port.port());
        if let Err(error) = self.wire.set_filter(&PortFilter::ports(ports)) {
            tracing::warn!(%error, "the packet filter could not be narrowed");
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let guards = self.guards.iter().filter_map(|guard| guard.until);
        self.client.poll_timeout().into_iter().chain(guards).min()
    }
}

const WIRE: u64 = 0;
const TUN: u64 = 1;
const TIMER: u64 = 2;
const FIRST_TARGET: u64 = 3;

/// Our choice: what the services of one host bear, and a server that goes mad must not have more.
const MOST_TARGETS: usize = 4096;

/// Our choice: open files that are no such sockets: guarded ports, the journal, who asks for our status.
const OTHER_FILES: usize = 64;

/// Our choice: packets sent before input is looked at again.
const MOST_PACKETS: usize = 256;

/// Our choice: TUN packets taken before anything is sent, …
const MOST_SEGMENTS: usize = 64;

/// … and bytes of them: eight of the largest.
const MOST_BYTES: usize = 512 * 1024;

/// What is still on its way to a retired port finds it guarded.
const GUARD_AFTER: Duration = Duration::from_secs(60);
