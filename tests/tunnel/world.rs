//! A whole tunnel under one virtual clock: apps — client — network — server — targets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use link_emulator::{Direction as Way, Emulator, Flow, Layer, Line, Profile, TCP};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use vpn::carrier::Mode;
use vpn::crypto::{PresharedKey, PrivateKey, SuiteSet};
use vpn::egress::EgressPolicy;
use vpn::kcp::CongestionKind;
use vpn::packet;
use vpn::session::{ClientSettings, Connect, PeerSettings, Server, ServerSettings};

use super::app::{Apps, Connection, Outcome, addresses_of_client, addresses_outside};
use super::bounds::Bounds;
use super::capture::{Captured, Transcript};
use super::host::Host;
use super::target::{Manner, Plan, Side, Targets};
use super::weather::FAIR;
use super::wire::{End, endpoint};

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: Instant,
    start: Instant,
    /// All of one key.
    pub(crate) hosts: Vec<Host>,
    /// The host that things are done with.
    pub(crate) current: usize,
    pub(crate) server: Server,
    server_address: SocketAddr,
    /// Between the hosts and the server.
    pub(crate) line: Emulator,
    pub(crate) targets: Targets,
    /// Who connects to the client's services, on the server's side.
    pub(crate) outside: Apps,
    /// Packets out of the server's TUN that are no TCP.
    pub(crate) server_tun: Vec<Vec<u8>>,
    pub(crate) bounds: Bounds,
    /// A host's port whose packets are lost both ways, each with this chance, and nobody else's.
    policed: Option<(u16, f64)>,
    client_settings: ClientSettings,
    pub(crate) server_settings: ServerSettings,
    rng: StdRng,
    /// How often time moved.
    pub(crate) steps: u64,
    /// How often the timer of the current host went off, and that of the server.
    pub(crate) wakeups: [u64; 2],
    /// How often in a row something was due at once although nothing could move.
    overdue: u32,
    /// All packets that travelled, to replay some.
    pub(crate) captured: Captured,
    /// Of everything that happened.
    pub(crate) transcript: Transcript,
}

impl World {
    /// A client that is up already, in fair weather; then `weather` sets in.
    pub(crate) fn new(weather: Profile, seed: u64) -> Self {
        let mut world = Self::connecting(FAIR, seed);
        world.come_up();
        world.set_weather(weather);
        world
    }

    /// A client that has not begun.
    pub(crate) fn connecting(weather: Profile, seed: u64) -> Self {
        Self::with_settings(weather, seed, |_, _| {})
    }

    pub(crate) fn with_settings(
        weather: Profile,
        seed: u64,
        change: impl FnOnce(&mut ClientSettings, &mut ServerSettings),
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut client_settings, mut server_settings) = settings(&mut rng);
        change(&mut client_settings, &mut server_settings);
        let now = start();
        Self {
            seed,
            now,
            start: now,
            hosts: vec![Host::new(0, vec![vec![SERVER]], client_settings.clone(), rng.random(), now, now)],
            current: 0,
            server: Server::new(server_settings.clone(), rng.random(), now),
            server_address: SERVER,
            line: Emulator::new(Line::new(weather), Layer::Ip, seed, now),
            targets: Targets::default(),
            outside: Apps::new(addresses_outside(), now),
            server_tun: Vec::new(),
            bounds: Bounds::of(&client_settings, &server_settings),
            policed: None,
            client_settings,
            server_settings,
            rng,
            steps: 0,
            wakeups: [0; 2],
            overdue: 0,
            captured: Captured::default(),
            transcript: Transcript::default(),
        }
    }

    /// The host that things are done with: the newest, unless said otherwise.
    pub(crate) fn host(&self) -> &Host {
        &self.hosts[self.current]
    }

    /// As [`Self::host`].
    pub(crate) fn host_mut(&mut self) -> &mut Host {
        &mut self.hosts[self.current]
    }

    /// Where the server listens.
    pub(crate) fn server_address(&self) -> SocketAddr {
        self.server_address
    }

    /// How long the world has been there.
    pub(crate) fn age(&self) -> Duration {
        self.now - self.start
    }

    /// Runs until the current client is up.
    pub(crate) fn come_up(&mut self) {
        let up = self.run_until(Duration::from_secs(60), |world| world.host().is_up());
        assert!(up, "seed {}: not up: {:?}", self.seed, self.host().events);
    }

    /// Opens a connection of the current host whose target serves; returns its port.
    pub(crate) fn open(&mut self, v6: bool, upload_len: u64, download_len: u64) -> u16 {
        self.open_to(Manner::Serve, v6, upload_len, download_len, true)
    }

    /// Opens a connection to a target that does not serve; returns its port.
    pub(crate) fn open_special(&mut self, manner: Manner) -> u16 {
        self.open_to(manner, false, 0, 0, true)
    }

    /// Opens a connection; returns its port.
    pub(crate) fn open_to(
        &mut self,
        manner: Manner,
        v6: bool,
        upload_len: u64,
        download_len: u64,
        finishes: bool,
    ) -> u16 {
        let port = 1000 + u16::try_from(self.targets.plans.len()).expect("few");
        let plan = Plan { target: target(v6, port), manner, upload_len, download_len, finishes };
        self.targets.plans.insert(port, plan);
        self.host_mut().apps.connect(plan);
        port
    }

    /// Opens a connection from the server's side to a service of the client; returns its port.
    pub(crate) fn open_inbound(
        &mut self,
        manner: Manner,
        v6: bool,
        upload_len: u64,
        download_len: u64,
    ) -> u16 {
        self.open_inbound_to(manner, v6, upload_len, download_len, true)
    }

    /// The same of a connection that may not finish.
    pub(crate) fn open_inbound_to(
        &mut self,
        manner: Manner,
        v6: bool,
        upload_len: u64,
        download_len: u64,
        finishes: bool,
    ) -> u16 {
        let number = self.host().services.plans.len();
        let port = INBOUND.start() + u16::try_from(number).expect("few");
        let (own_v4, own_v6) = addresses_of_client();
        let target = SocketAddr::new(if v6 { own_v6.into() } else { own_v4.into() }, port);
        let plan = Plan { target, manner, upload_len, download_len, finishes };
        for host in &mut self.hosts {
            host.services.plans.insert(port, plan);
        }
        self.outside.connect(plan);
        port
    }

    /// The app's end of a flow, whichever side opened it.
    pub(crate) fn app(&self, host: usize, port: u16) -> &Connection {
        let apps = if INBOUND.contains(&port) { &self.outside } else { &self.hosts[host].apps };
        &apps.connections[&port]
    }

    /// The target's end, if it was ever connected to; of several hosts that of the last.
    pub(crate) fn side(&self, port: u16) -> Option<&Side> {
        if INBOUND.contains(&port) {
            return self.hosts.iter().rev().find_map(|host| host.services.sides.get(&port));
        }
        self.targets.sides.get(&port)
    }

    /// Both ends of a flow, if its target was ever connected to.
    pub(crate) fn ends_mut(&mut self, port: u16) -> Option<(&mut Connection, &mut Side)> {
        if INBOUND.contains(&port) {
            let app = self.outside.connections.get_mut(&port)?;
            let side = self.hosts.iter_mut().rev().find_map(|host| host.services.sides.get_mut(&port))?;
            return Some((app, side));
        }
        let app = self.hosts.iter_mut().find_map(|host| host.apps.connections.get_mut(&port))?;
        Some((app, self.targets.sides.get_mut(&port)?))
    }

    /// The target of a flow goes on after its writer or reader was told something else.
    pub(crate) fn resume(&mut self, port: u16) {
        self.targets.resume(port, &mut self.server, self.now);
        for host in self.hosts.iter_mut().filter(|host| !host.is_asleep()) {
            host.services.resume(port, &mut host.client, self.now);
        }
    }

    /// The target of a flow resets its connection; whether there was one.
    pub(crate) fn reset_by_target(&mut self, port: u16) -> bool {
        let inwards = self.hosts.iter_mut().filter(|host| !host.is_asleep());
        let inwards = inwards.map(|host| host.services.reset(port, &mut host.client));
        inwards.fold(false, |any, one| any | one) | self.targets.reset(port, &mut self.server)
    }

    /// The target of a flow, if it was silent, serves from now on.
    pub(crate) fn wake_target(&mut self, port: u16) {
        self.targets.wake(port, &mut self.server);
        self.hosts.iter_mut().for_each(|host| host.services.wake(port, &mut host.client));
    }

    /// Opens a connection at once whose app first speaks after `pause`.
    pub(crate) fn open_late(&mut self, pause: Duration, upload_len: u64, download_len: u64) -> u16 {
        let speak_at = self.now + pause;
        let port = self.open(false, upload_len, download_len);
        self.connection(port).silence_until(speak_at);
        port
    }

    /// Opens a connection whose app sends and then aborts.
    pub(crate) fn open_aborting(&mut self, upload_len: u64) -> u16 {
        let port = self.open(false, upload_len, 10_000_000);
        self.connection(port).abort_after_sending();
        port
    }

    /// The reader of a connection, the app or its target, stops or goes on.
    pub(crate) fn stop_reader(&mut self, port: u16, by_app: bool, stops: bool) {
        if by_app {
            self.connection(port).reader.stopped = stops;
            return;
        }
        let accepted = |world: &Self| world.targets.sides.contains_key(&port);
        assert!(self.run_until(Duration::from_secs(10), accepted), "seed {}: not accepted", self.seed);
        if let Some(side) = self.targets.sides.get_mut(&port) {
            side.reader.stopped = stops;
        }
        self.targets.resume(port, &mut self.server, self.now);
    }

    /// What the other end has written so far to the app of a connection, or to its target.
    pub(crate) fn written_to(&self, port: u16, app: bool) -> u64 {
        let side = &self.targets.sides[&port];
        if app { side.writer.written } else { self.host().apps.connections[&port].writer.written }
    }

    fn connection(&mut self, port: u16) -> &mut Connection {
        self.host_mut().apps.connections.get_mut(&port).expect("just opened")
    }

    /// Another host with the same key begins.
    pub(crate) fn second_host(&mut self) {
        let number = u8::try_from(self.hosts.len()).expect("few");
        let seed = self.rng.random();
        let host = Host::new(
            number,
            vec![vec![self.server_address]],
            self.client_settings.clone(),
            seed,
            self.start,
            self.now,
        );
        let plans = self.hosts[0].services.plans.clone();
        self.current = self.hosts.len();
        self.hosts.push(host);
        self.host_mut().services.plans = plans;
    }

    /// What the line does from now on, both ways; what was black is clear.
    pub(crate) fn set_weather(&mut self, weather: Profile) {
        Way::BOTH.into_iter().for_each(|way| self.line.set_profile(way, weather, self.now));
        self.set_blackout([false; 2]);
    }

    /// Whether nothing passes, up and down.
    pub(crate) fn set_blackout(&mut self, ways: [bool; 2]) {
        Way::BOTH.into_iter().zip(ways).for_each(|(way, is_black)| self.line.set_blackout(way, is_black));
    }

    /// The newest 4-tuple of a host never passes anything again.
    pub(crate) fn kill_tuple(&mut self, host: usize) {
        let flow = Flow::new(TCP, self.hosts[host].local(), self.server_address);
        self.line.kill_flow(flow);
    }

    /// None of the 4-tuples that carry the current host's session, or could, ever passes anything again.
    pub(crate) fn kill_live_tuples(&mut self) {
        for carrier in self.host().client.status(self.now).carriers {
            self.line.kill_flow(Flow::new(TCP, carrier.local, carrier.remote));
        }
    }

    /// The newest 4-tuple of the current host passes nothing in one direction any more.
    pub(crate) fn kill_tuple_one_way(&mut self, way: Way) {
        let flow = Flow::new(TCP, self.host().local(), self.server_address);
        self.line.kill_flow_one_way(flow, way);
    }

    /// The current host's address of now leads to it for ever, whatever others it gets: a second uplink, a router that has not
    /// forgotten.
    pub(crate) fn keep_old_addresses(&mut self) {
        let host = self.host_mut();
        host.kept.push(host.address);
    }

    /// The current host's network gives it another address.
    pub(crate) fn change_address(&mut self) {
        let host = self.host_mut();
        host.address = match host.address {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() + (1 << 8)).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() + (1 << 64)).into(),
        };
    }

    /// The first host begins anew, with these addresses of its server.
    pub(crate) fn set_servers(&mut self, servers: Vec<Vec<SocketAddr>>) {
        let seed = self.rng.random();
        self.hosts[0] = Host::new(0, servers, self.client_settings.clone(), seed, self.start, self.now);
    }

    /// The newest 4-tuple loses this share each way from now on.
    pub(crate) fn police_tuple(&mut self, share: f64) {
        self.policed = Some((self.host().port, share));
    }

    fn is_policed(&mut self, end: End, packet: &[u8]) -> bool {
        let port = endpoint(packet, end).map(|endpoint| endpoint.port());
        self.policed.is_some_and(|(policed, share)| Some(policed) == port && self.rng.random_bool(share))
    }

    /// The newest 4-tuple takes this much longer than others.
    pub(crate) fn slow_tuple(&mut self, by: Duration) {
        let flow = Flow::new(TCP, self.host().local(), self.server_address);
        self.line.set_flow_delay(flow, by);
    }

    /// Packets that entered the line so far.
    pub(crate) fn packets(&self) -> u64 {
        self.sent().into_iter().sum()
    }

    /// The same, of the hosts and of the server.
    pub(crate) fn sent(&self) -> [u64; 2] {
        Way::BOTH.map(|way| self.line.stats(way).received)
    }

    /// The outer network is IPv6, from before the first dial.
    pub(crate) fn move_to_ipv6(&mut self) {
        self.server_address = SERVER_V6;
        let seed = self.rng.random();
        let servers = vec![vec![SERVER_V6]];
        self.hosts[0] = Host::new(0, servers, self.client_settings.clone(), seed, self.start, self.now);
    }

    /// Neither apps nor targets know of the connections there were.
    pub(crate) fn forget_connections(&mut self) {
        for host in &mut self.hosts {
            host.apps.connections.clear();
            host.services.forget();
        }
        self.outside.connections.clear();
        self.targets.forget();
    }

    /// The server dies and another takes its place, with what it remembered of handshakes.
    pub(crate) fn restart_server_that_remembers(&mut self) {
        let memory = self.server.memory();
        self.restart_server();
        self.server.remember(memory);
    }

    /// The server dies and another takes its place, with nothing but the configuration.
    pub(crate) fn restart_server(&mut self) {
        self.server = Server::new(self.server_settings.clone(), self.rng.random(), self.now);
        self.targets.drop_connections();
    }

    /// The current host's client dies and another takes its place.
    pub(crate) fn restart_client(&mut self) {
        let (seed, now) = (self.rng.random(), self.now);
        self.host_mut().restart(seed, now);
    }

    /// Runs until `done` or for `limit` of virtual time; returns whether it was `done`.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while self.step(end) {
            if done(self) {
                return true;
            }
        }
        done(self)
    }

    /// Passes on what can move now, then goes to the next event, but not beyond `end`; whether there is one before.
    pub(crate) fn step(&mut self, end: Instant) -> bool {
        self.settle();
        let Some(next) = self.next_event().filter(|next| *next <= end) else {
            self.now = end;
            return false;
        };
        self.overdue = if next <= self.now { self.overdue + 1 } else { 0 };
        assert!(self.overdue < OVERDUE, "seed {}: it spins\n{}", self.seed, self.describe());
        self.now = next.max(self.now + TICK);
        self.steps += 1;
        self.count_wakeups();
        self.deliver();
        self.settle();
        true
    }

    /// Runs for a while whatever happens.
    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until every connection of the current host has ended, and checks each byte for byte.
    pub(crate) fn finish(&mut self, limit: Duration) {
        let seed = self.seed;
        let done = self.run_until(limit, |world| {
            let outwards = world.host().apps.is_done() && world.targets.are_done();
            outwards && world.outside.is_done() && world.host().services.are_done()
        });
        assert!(done, "seed {seed}: {limit:?} of virtual time were not enough\n{}", self.describe());
        self.check_all();
    }

    /// The state of both ends, for a failure's message.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for host in &self.hosts {
            let connections = host.apps.connections.values();
            let open: Vec<_> = connections.filter(|connection| connection.outcome.is_none()).collect();
            let status = host.client.status(self.now);
            text += &format!("client {status:#?}\nevents {:?}\nopen {open:#?}\n", host.events);
        }
        let sides = self.hosts.iter().map(|host| &host.services).chain([&self.targets]);
        let sides = sides.flat_map(|targets| targets.sides.values());
        let open: Vec<_> = sides.filter(|side| side.stream.is_some()).collect();
        let connections = self.outside.connections.values();
        let outside: Vec<_> = connections.filter(|connection| connection.outcome.is_none()).collect();
        text += &format!("outside {outside:#?}\n");
        text + &format!("targets {open:#?}\nserver {:#?}", self.server.status(self.now))
    }

    fn check_all(&self) {
        let seed = self.seed;
        for (apps, targets) in [(&self.host().apps, &self.targets), (&self.outside, &self.host().services)] {
            for (port, connection) in &apps.connections {
                let plan = targets.plans[port];
                assert_eq!(connection.outcome, Some(Outcome::Finished), "seed {seed}, port {port}");
                assert_eq!(connection.reader.wrong, None, "seed {seed}, port {port}: the download");
                assert_eq!(
                    connection.reader.received, plan.download_len,
                    "seed {seed}, port {port}: the download"
                );
                let reader = targets.sides[port].reader;
                assert!(reader.finished, "seed {seed}, port {port}: the target saw no FIN");
                assert_eq!(reader.wrong, None, "seed {seed}, port {port}: the upload");
                assert_eq!(reader.received, plan.upload_len, "seed {seed}, port {port}: the upload");
            }
        }
    }

    /// Passes on everything that can move without time passing.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for host in &mut self.hosts {
                moved |= host.settle(self.now);
            }
            for packet in self.outside.poll(self.now) {
                self.server.handle_tun(&packet, self.now);
            }
            while let Some(event) = self.server.poll_event() {
                moved = true;
                self.targets.handle_event(event, &mut self.server, self.now);
            }
            while let Some(packet) = self.server.poll_tun(self.now) {
                moved = true;
                if packet::parse(&packet).is_ok_and(|header| header.protocol == packet::TCP) {
                    self.outside.handle_packet(packet);
                } else {
                    self.outside.note_unreachable(&packet);
                    self.server_tun.push(packet);
                }
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
        for number in 0..self.hosts.len() {
            while self.hosts[number].poll_transmit(&mut out, self.now) {
                moved = true;
                self.captured.note(Way::Out, &out);
                self.transcript.note(Way::Out, &out, self.start, self.now);
                // What leaves from an address that is not the host's any more goes nowhere.
                let source = endpoint(&out, End::Source);
                if source.is_some_and(|source| self.hosts[number].has(source.ip()))
                    && !self.is_policed(End::Source, &out)
                {
                    self.line.handle_frame(Way::Out, &out, self.now);
                }
            }
        }
        while self.server.poll_transmit(&mut out, self.now) {
            moved = true;
            self.captured.note(Way::In, &out);
            self.transcript.note(Way::In, &out, self.start, self.now);
            if !self.is_policed(End::Destination, &out) {
                self.line.handle_frame(Way::In, &out, self.now);
            }
        }
        moved
    }

    fn deliver(&mut self) {
        while let Some((way, packet)) = self.line.poll_frame(self.now) {
            match way {
                Way::Out => self.deliver_up(packet),
                Way::In => self.deliver_down(packet),
            }
        }
        for host in &mut self.hosts {
            host.handle_timeout(self.now);
            self.bounds.check_client(&host.load());
        }
        self.server.handle_timeout(self.now);
        self.bounds.check_server(&self.server.load());
    }

    /// A packet arrives at the server's host, which takes what is addressed to it.
    pub(crate) fn deliver_up(&mut self, mut packet: Vec<u8>) {
        if endpoint(&packet, End::Destination).is_some_and(|it| [SERVER, SERVER_V6].contains(&it)) {
            self.server.handle_packet(&mut packet, self.now);
            self.bounds.check_server(&self.server.load());
        }
    }

    /// A packet arrives where its destination lives, if it lives anywhere.
    pub(crate) fn deliver_down(&mut self, packet: Vec<u8>) {
        let Some(destination) = endpoint(&packet, End::Destination) else { return };
        if let Some(host) = self.hosts.iter_mut().find(|host| host.has(destination.ip())) {
            host.handle_packet(packet, self.now);
            self.bounds.check_client(&host.load());
        }
    }

    fn count_wakeups(&mut self) {
        let now = self.now;
        let due = [self.hosts[self.current].poll_timeout(now), self.server.poll_timeout(now)];
        for (count, due) in self.wakeups.iter_mut().zip(due) {
            *count += u64::from(due.is_some_and(|due| due <= now));
        }
    }

    fn next_event(&mut self) -> Option<Instant> {
        let now = self.now;
        let hosts = self.hosts.iter_mut().filter_map(|host| host.poll_timeout(now)).min();
        let outside = self.outside.poll_timeout(now);
        [self.line.poll_timeout(), self.server.poll_timeout(now), hosts, outside].into_iter().flatten().min()
    }
}

/// Of a client and the server that knows it.
pub(crate) fn settings(rng: &mut StdRng) -> (ClientSettings, ServerSettings) {
    let (client_key, server_key) = (PrivateKey::generate(rng), PrivateKey::generate(rng));
    let preshared_key = PresharedKey::generate(rng);
    let client_settings = ClientSettings {
        private_key: client_key.clone(),
        server_key: server_key.public_key(),
        preshared_key: preshared_key.clone(),
        mode: Some(Mode::HandshakeAdvance),
        suites: SuiteSet::PORTABLE,
        congestion: CongestionKind::Bbr,
        connect: Connect::Faithful,
        inbound: vec![INBOUND],
        session_buffer: 64 << 20,
        process_buffer: 1 << 30,
        dead_after: Duration::from_secs(600),
    };
    let (v4, v6) = addresses_of_client();
    let addresses = [(v4.into(), 24), (v6.into(), 64)];
    let addresses = addresses.map(|(address, length)| IpNetwork::new(address, length).expect("a network"));
    let server_settings = ServerSettings {
        private_key: server_key,
        suites: SuiteSet::PORTABLE,
        congestion: CongestionKind::Bbr,
        peers: vec![PeerSettings {
            name: "alice".into(),
            public_key: client_key.public_key(),
            preshared_key,
            addresses: addresses.to_vec(),
        }],
        addresses: vec![SERVER_TUNNEL_ADDRESS.into()],
        dns: vec![Ipv4Addr::new(9, 9, 9, 9).into()],
        egress: EgressPolicy::new(Vec::new(), Vec::new(), []),
        session_buffer: 64 << 20,
        process_buffer: 1 << 30,
    };
    (client_settings, server_settings)
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

/// The ports of services that are connected to from the server's side.
pub(crate) const INBOUND: RangeInclusive<u16> = 30_000..=39_999;

/// Where the server listens.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 443);

pub(crate) const SERVER_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9)), 443);

/// The server's own address in the tunnel.
pub(crate) const SERVER_TUNNEL_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// Our choice: one timer may make another due.
const OVERDUE: u32 = 8;

/// What the shells' timers resolve; keeps a timeout that is due at once from standing still.
const TICK: Duration = Duration::from_micros(1);
