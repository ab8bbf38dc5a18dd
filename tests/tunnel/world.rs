//! A whole tunnel under one virtual clock: apps — client — network — server — targets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use vpn::carrier::Mode;
use vpn::crypto::{PresharedKey, PrivateKey, SuiteSet, Timestamp};
use vpn::egress::EgressPolicy;
use vpn::kcp::CongestionKind;
use vpn::session::{Client, ClientEvent, ClientSettings, PeerSettings, Server, ServerSettings};

use super::app::{Apps, addresses_of_client};
use super::network::{Network, Way, Weather};
use super::target::{FIRST_SERVING_PORT, Plan, Targets};

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: Instant,
    start: Instant,
    pub(crate) client: Client,
    pub(crate) server: Server,
    pub(crate) network: Network,
    pub(crate) apps: Apps,
    pub(crate) targets: Targets,
    pub(crate) events: Vec<ClientEvent>,
    pub(crate) server_tun: Vec<Vec<u8>>,
    client_settings: ClientSettings,
    pub(crate) server_settings: ServerSettings,
    pub(crate) client_port: u16,
    rng: StdRng,
    /// How often time moved.
    pub(crate) steps: u64,
}

impl World {
    /// A client that is up already, in fair weather; then `weather` sets in.
    pub(crate) fn new(weather: Weather, seed: u64) -> Self {
        let mut world = Self::connecting(Weather::FAIR, seed);
        let up = |world: &Self| world.events.iter().any(|event| matches!(event, ClientEvent::Up { .. }));
        assert!(world.run_until(Duration::from_secs(10), up), "seed {seed}: not up");
        world.network.weather = weather;
        world
    }

    /// A client that has not begun.
    pub(crate) fn connecting(weather: Weather, seed: u64) -> Self {
        Self::with_settings(weather, seed, |_, _| {})
    }

    pub(crate) fn with_settings(
        weather: Weather,
        seed: u64,
        change: impl FnOnce(&mut ClientSettings, &mut ServerSettings),
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (client_key, server_key) = (PrivateKey::generate(&mut rng), PrivateKey::generate(&mut rng));
        let preshared_key = PresharedKey::generate(&mut rng);
        let mut client_settings = ClientSettings {
            private_key: client_key.clone(),
            server_key: server_key.public_key(),
            preshared_key: preshared_key.clone(),
            mode: Mode::HandshakeAdvance,
            suites: SuiteSet::PORTABLE,
            congestion: CongestionKind::Bbr,
            session_buffer: 64 << 20,
            process_buffer: 1 << 30,
            dead_after: Duration::from_secs(600),
        };
        let (v4, v6) = addresses_of_client();
        let mut server_settings = ServerSettings {
            private_key: server_key,
            suites: SuiteSet::PORTABLE,
            congestion: CongestionKind::Bbr,
            peers: vec![PeerSettings {
                name: "alice".into(),
                public_key: client_key.public_key(),
                preshared_key,
                addresses: vec![
                    IpNetwork::new(v4.into(), 24).expect("a network"),
                    IpNetwork::new(v6.into(), 64).expect("a network"),
                ],
            }],
            addresses: vec![SERVER_TUNNEL_ADDRESS.into()],
            dns: vec![Ipv4Addr::new(9, 9, 9, 9).into()],
            egress: EgressPolicy::new(Vec::new(), Vec::new(), []),
            session_buffer: 64 << 20,
            process_buffer: 1 << 30,
        };
        change(&mut client_settings, &mut server_settings);
        let now = start();
        Self {
            seed,
            now,
            start: now,
            client: Client::new(client_settings.clone(), rng.random(), now),
            server: Server::new(server_settings.clone(), rng.random(), now),
            network: Network::new(weather, seed),
            apps: Apps::new(now),
            targets: Targets::default(),
            events: Vec::new(),
            server_tun: Vec::new(),
            client_settings,
            server_settings,
            client_port: 40_000,
            rng,
            steps: 0,
        }
    }

    /// Opens a connection whose target serves; returns its port.
    pub(crate) fn open(&mut self, v6: bool, upload_len: usize, download_len: usize) -> u16 {
        let port = FIRST_SERVING_PORT + u16::try_from(self.targets.plans.len()).expect("few");
        let plan = Plan { target: target(v6, port), upload_len, download_len };
        self.targets.plans.insert(port, plan);
        self.apps.connect(plan);
        port
    }

    /// Opens a connection at once whose app first speaks after `pause`.
    pub(crate) fn open_late(&mut self, pause: Duration, upload_len: usize, download_len: usize) -> u16 {
        let speak_at = self.now + pause;
        let port = self.open(false, upload_len, download_len);
        self.apps.silence_last_until(speak_at);
        port
    }

    /// Opens a connection whose app sends and then aborts; its target serves nothing.
    pub(crate) fn open_aborting(&mut self, upload_len: usize) -> u16 {
        let port = self.open(false, upload_len, 10_000_000);
        self.apps.abort_last_after_sending();
        port
    }

    /// Another host with the same key takes the client's place at the TUN; returns the client, as it stands.
    pub(crate) fn swap_client(&mut self) -> Client {
        let newer = Client::new(self.client_settings.clone(), self.rng.random(), self.now);
        self.swap_client_for(newer)
    }

    /// Puts another client at the TUN; returns the one that was there.
    pub(crate) fn swap_client_for(&mut self, client: Client) -> Client {
        self.events.clear();
        std::mem::replace(&mut self.client, client)
    }

    /// Opens a connection to a port that does not serve.
    pub(crate) fn open_special(&mut self, port: u16) {
        self.apps.connect(Plan { target: target(false, port), upload_len: 0, download_len: 0 });
    }

    /// The server dies and another takes its place, with nothing but the configuration.
    pub(crate) fn restart_server(&mut self) {
        self.server = Server::new(self.server_settings.clone(), self.rng.random(), self.now);
        self.targets.forget_connections();
    }

    /// The client dies and another takes its place.
    pub(crate) fn restart_client(&mut self) {
        self.client = Client::new(self.client_settings.clone(), self.rng.random(), self.now);
        self.events.clear();
    }

    /// Runs until `done` or for `limit` of virtual time; returns whether it was `done`.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.settle();
            if done(self) {
                return true;
            }
            let Some(next) = self.next_event().filter(|next| *next <= end) else {
                self.now = end;
                return false;
            };
            assert!(next >= self.now, "seed {}: time runs backwards", self.seed);
            self.now = next.max(self.now + TICK);
            self.steps += 1;
            self.deliver();
        }
    }

    /// Runs for a while whatever happens.
    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until every connection has ended, and checks each byte for byte.
    pub(crate) fn finish(&mut self, limit: Duration) {
        let seed = self.seed;
        let done = self.run_until(limit, |world| world.apps.is_done() && world.targets.are_done());
        assert!(done, "seed {seed}: {limit:?} of virtual time were not enough\n{}", self.describe());
        self.check_all();
    }

    /// The state of both ends, for a failure's message.
    fn describe(&self) -> String {
        let apps: Vec<_> = self
            .apps
            .connections
            .iter()
            .map(|connection| (connection.plan, connection.received.len(), connection.outcome))
            .collect();
        let received: Vec<_> = self
            .targets
            .received
            .iter()
            .map(|(port, (bytes, finished))| (port, bytes.len(), finished))
            .collect();
        format!(
            "events {:?}\napps {apps:?}\ntargets {received:?}\nclient {:#?}\nserver {:#?}",
            self.events,
            self.client.status(self.now),
            self.server.status(self.now)
        )
    }

    fn check_all(&self) {
        let seed = self.seed;
        for connection in &self.apps.connections {
            let plan = connection.plan;
            let port = plan.target.port();
            assert_eq!(connection.outcome, Some(super::app::Outcome::Finished), "seed {seed}, port {port}");
            assert!(connection.received == plan.download(), "seed {seed}, port {port}: download differs");
            let (received, finished) = &self.targets.received[&port];
            assert!(*finished, "seed {seed}, port {port}: the target saw no FIN");
            assert!(*received == plan.upload(), "seed {seed}, port {port}: upload differs");
        }
    }

    /// Passes on everything that can move without time passing.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for packet in self.apps.poll(self.now) {
                self.client.handle_tun(&packet, self.now);
            }
            while let Some(event) = self.client.poll_event() {
                moved = true;
                self.on_client_event(event);
            }
            while let Some(packet) = self.client.poll_tun(self.now) {
                moved = true;
                self.apps.handle_packet(packet);
            }
            while let Some(event) = self.server.poll_event() {
                moved = true;
                self.targets.handle_event(event, &mut self.server, self.now);
            }
            while let Some(packet) = self.server.poll_tun() {
                self.server_tun.push(packet);
            }
            moved |= self.transmit();
            if !moved {
                break;
            }
        }
    }

    fn transmit(&mut self) -> bool {
        let mut out = Vec::new();
        let mut moved = false;
        while self.client.poll_transmit(&mut out, self.now) {
            moved = true;
            self.network.send(Way::Up, &out, self.now);
        }
        while self.server.poll_transmit(&mut out, self.now) {
            moved = true;
            self.network.send(Way::Down, &out, self.now);
        }
        moved
    }

    fn on_client_event(&mut self, event: ClientEvent) {
        if event == ClientEvent::Dial {
            self.client_port += 1;
            let local = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 2).into(), self.client_port);
            let wall = Timestamp::from_unix(Duration::from_secs(1_700_000_000) + (self.now - self.start));
            self.client.dial(local, SERVER, wall, self.now);
        }
        self.events.push(event);
    }

    fn deliver(&mut self) {
        while let Some((way, mut packet)) = self.network.receive(self.now) {
            match way {
                Way::Up => self.server.handle_packet(&mut packet, self.now),
                Way::Down => self.client.handle_packet(&mut packet, self.now),
            }
        }
        self.client.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
    }

    fn next_event(&mut self) -> Option<Instant> {
        let apps = self.apps.poll_timeout(self.now);
        [self.network.next_arrival(), self.client.poll_timeout(), self.server.poll_timeout(self.now), apps]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.max(self.now))
    }
}

fn target(v6: bool, port: u16) -> SocketAddr {
    let address: IpAddr = if v6 {
        "2001:db8::80".parse().expect("an address")
    } else {
        "198.51.100.80".parse().expect("an address")
    };
    SocketAddr::new(address, port)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a virtual clock must start somewhere; only differences matter"
)]
fn start() -> Instant {
    Instant::now()
}

/// Where the server listens.
pub(crate) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 443);

/// The server's own address in the tunnel.
pub(crate) const SERVER_TUNNEL_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// What the shells' timers resolve; keeps a timeout that is due at once from standing still.
const TICK: Duration = Duration::from_micros(1);
