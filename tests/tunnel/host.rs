//! A client's host: the client under test, its kernel and apps, its services, its address, its clock.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use vpn::crypto::Timestamp;
use vpn::session::{Client, ClientEvent, ClientLoad, ClientSettings};

use super::app::{Apps, addresses_of_client};
use super::target::Targets;

pub(crate) struct Host {
    pub(crate) client: Client,
    pub(crate) apps: Apps,
    /// What is connected to from the server's side.
    pub(crate) services: Targets,
    /// What the client told so far.
    pub(crate) events: Vec<ClientEvent>,
    /// Where it dials from; what was dialled from another is dead.
    pub(crate) address: IpAddr,
    /// The one of the other family, which it has for good.
    other_family: IpAddr,
    /// Those it had before, where they still lead to it.
    pub(crate) kept: Vec<IpAddr>,
    /// Of its newest 4-tuple.
    pub(crate) port: u16,
    /// What its wall clock shows when the world begins.
    pub(crate) wall: Duration,
    settings: ClientSettings,
    /// The addresses of each server.
    servers: Vec<Vec<SocketAddr>>,
    start: Instant,
    /// The whole host stands still; packets wait for it, as far as a socket holds them.
    asleep: Option<VecDeque<Vec<u8>>>,
}

impl Host {
    /// The `number`th host of the world that began at `start`.
    pub(crate) fn new(
        number: u8,
        servers: Vec<Vec<SocketAddr>>,
        settings: ClientSettings,
        seed: [u8; 32],
        start: Instant,
        now: Instant,
    ) -> Self {
        let is_ipv6 = servers.iter().flatten().next().is_some_and(SocketAddr::is_ipv6);
        Self {
            client: client(&settings, &servers, seed, now),
            apps: Apps::new(addresses_of_client(), start),
            services: Targets::default(),
            events: Vec::new(),
            address: address(number, is_ipv6),
            other_family: address(number, !is_ipv6),
            kept: Vec::new(),
            port: 40_000 + 5_000 * u16::from(number % 5),
            wall: Duration::from_secs(1_700_000_000),
            settings,
            servers,
            start,
            asleep: None,
        }
    }

    /// Its shell hears that something about the network changed.
    pub(crate) fn tell_of_network(&mut self, now: Instant) {
        let source = self.client.remote().map(|_| self.address);
        self.client.handle_network_change(source, now);
    }

    /// Whether packets of this address pass here.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.address == address || self.other_family == address || self.kept.contains(&address)
    }

    /// The client dies and another takes its place.
    pub(crate) fn restart(&mut self, seed: [u8; 32], now: Instant) {
        self.client = client(&self.settings, &self.servers, seed, now);
        self.events.clear();
        self.services.drop_connections();
    }

    pub(crate) fn is_up(&self) -> bool {
        self.events.iter().any(|event| matches!(event, ClientEvent::Up { .. }))
    }

    pub(crate) fn load(&self) -> ClientLoad {
        self.client.load()
    }

    /// Its end of its newest 4-tuple.
    pub(crate) fn local(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Stands still from now on.
    pub(crate) fn fall_asleep(&mut self) {
        self.asleep.get_or_insert_default();
    }

    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.is_some()
    }

    /// Goes on; returns the packets that waited.
    pub(crate) fn wake(&mut self) -> impl Iterator<Item = Vec<u8>> + use<> {
        self.asleep.take().unwrap_or_default().into_iter()
    }

    /// Takes an outer packet that was addressed to it.
    pub(crate) fn handle_packet(&mut self, mut packet: Vec<u8>, now: Instant) {
        match &mut self.asleep {
            Some(waiting) if waiting.len() < SOCKET_PACKETS => waiting.push_back(packet),
            Some(_) => {}
            None => self.client.handle_packet(&mut packet, now),
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if !self.is_asleep() {
            self.client.handle_timeout(now);
        }
    }

    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        if self.is_asleep() {
            return None;
        }
        [self.client.poll_timeout(), self.apps.poll_timeout(now)].into_iter().flatten().min()
    }

    /// Passes on what can move within the host without time passing; says whether anything did.
    pub(crate) fn settle(&mut self, now: Instant) -> bool {
        if self.is_asleep() {
            return false;
        }
        for packet in self.apps.poll(now) {
            self.client.handle_tun(&packet, now);
        }
        let mut moved = false;
        while let Some(event) = self.client.poll_event() {
            moved = true;
            if let ClientEvent::Dial { attempt, remote } = event {
                self.dial(attempt, remote, now);
            }
            self.events.push(event);
        }
        while let Some(event) = self.client.poll_stream_event() {
            moved = true;
            self.services.handle_event(event, &mut self.client, now);
        }
        while let Some(packet) = self.client.poll_tun(now) {
            moved = true;
            self.apps.handle_packet(packet);
        }
        moved
    }

    /// The next outer packet.
    pub(crate) fn poll_transmit(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        !self.is_asleep() && self.client.poll_transmit(out, now)
    }

    fn dial(&mut self, attempt: u32, remote: SocketAddr, now: Instant) {
        self.port += 1;
        let is_usual = self.address.is_ipv6() == remote.is_ipv6();
        let address = if is_usual { self.address } else { self.other_family };
        let local = SocketAddr::new(address, self.port);
        let wall = Timestamp::from_unix(self.wall + (now - self.start));
        self.client.dial(attempt, local, wall, now);
    }
}

/// A client that knows where the servers are.
fn client(settings: &ClientSettings, servers: &[Vec<SocketAddr>], seed: [u8; 32], now: Instant) -> Client {
    let mut client = Client::new(settings.clone(), seed, now);
    client.set_servers(servers.to_vec(), now);
    client
}

fn address(number: u8, is_ipv6: bool) -> IpAddr {
    if is_ipv6 {
        [0x2001, 0xdb8, 2, 0, 0, 0, 0, 2 + u16::from(number)].into()
    } else {
        [192, 0, 2, 2 + number].into()
    }
}

/// What the socket of a host that stands still holds.
const SOCKET_PACKETS: usize = 256;
