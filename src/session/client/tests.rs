//! Two clients and a server without a line between them: what becomes of an end that breaks the rules inside the tunnel.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use crate::crypto::{PrivateKey, PublicKey};
use crate::egress::EgressPolicy;
use crate::mux::{Limits, Mux, Role, Violation};
use crate::packet::tcp::tests::segment;
use crate::session::{PeerSettings, Server, ServerSettings, StreamEvent};
use rand::Rng as _;

use super::*;

/// Both clients are up.
struct World {
    server: Server,
    clients: [Client; 2],
    told: [Vec<ClientEvent>; 2],
    /// What the streams of both brought to the server, and what became of them.
    arrived: Vec<u8>,
    abandoned: usize,
    ports: u16,
    now: Instant,
}

impl World {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the virtual clock starts somewhere")]
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(1);
        let server_key = PrivateKey::generate(&mut rng);
        let keys = [(); 2].map(|()| PrivateKey::generate(&mut rng));
        let peers = keys.iter().zip(["alice", "bob"]).zip(2..);
        let peers = peers.map(|((key, name), host)| peer(name, key.public_key(), host)).collect();
        let mut seed = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let mut world = Self {
            server: Server::new(server_settings(server_key.clone(), peers), seed(), now),
            clients: keys.map(|key| Client::new(client_settings(key, server_key.public_key()), seed(), now)),
            told: [Vec::new(), Vec::new()],
            arrived: Vec::new(),
            abandoned: 0,
            ports: 40_000,
            now,
        };
        for client in &mut world.clients {
            client.set_servers(vec![vec![SocketAddr::V4(SERVER)]], now);
        }
        world.run();
        for told in &world.told {
            assert!(told.iter().any(|event| matches!(event, ClientEvent::Up { .. })), "{told:?}");
        }
        world
    }

    /// Three seconds.
    fn run(&mut self) {
        for _ in 0..300 {
            while self.step() {}
            self.now += Duration::from_millis(10);
            for client in &mut self.clients {
                client.handle_timeout(self.now);
            }
            self.server.handle_timeout(self.now);
        }
    }

    /// Passes on what can move; whether anything did.
    fn step(&mut self) -> bool {
        let (mut moved, mut packet) = (false, Vec::new());
        for (number, host) in HOSTS.into_iter().enumerate() {
            while let Some(event) = self.clients[number].poll_event() {
                if let ClientEvent::Dial { attempt, .. } = event {
                    self.ports += 1;
                    let local = SocketAddr::from((host, self.ports));
                    let wall = Timestamp::from_unix(Duration::from_secs(1_700_000_000));
                    self.clients[number].dial(attempt, local, wall, self.now);
                }
                self.told[number].push(event);
            }
            while self.clients[number].poll_transmit(&mut packet, self.now) {
                moved = true;
                self.server.handle_packet(&mut packet, self.now);
            }
        }
        while let Some(event) = self.server.poll_event() {
            match event {
                StreamEvent::Connect { stream, .. } => self.server.connected(stream),
                StreamEvent::Readable(stream) => {
                    let bytes = self.server.readable(stream).to_vec();
                    self.arrived.extend(&bytes);
                    self.server.consume(stream, bytes.len(), self.now);
                    self.server.write(stream, &bytes);
                }
                StreamEvent::Abandoned(_) => self.abandoned += 1,
                StreamEvent::Writable(_) | StreamEvent::Finished(_) | StreamEvent::Reset(_) => {}
            }
        }
        while self.server.poll_transmit(&mut packet, self.now) {
            moved = true;
            let number = HOSTS.iter().position(|host| packet[16..20] == host.octets()).unwrap();
            self.clients[number].handle_packet(&mut packet, self.now);
        }
        moved
    }

    /// A stream of a client, past its flows.
    fn open(&mut self, number: usize) -> mux::StreamId {
        self.clients[number].engine.mux.open(SocketAddr::from(([198, 51, 100, 7], 80)), self.now).unwrap()
    }
}

#[test]
fn a_client_that_breaks_the_protocol_loses_its_session_by_name_and_no_other_does() {
    let log = Log::default();
    let mut world = World::new();
    let stream = world.open(1);
    world.clients[1].engine.mux.write(stream, b"before ");
    world.run();
    world.told = [Vec::new(), Vec::new()];
    world.clients[0].engine.mux = Mux::new(Role::Server, Limits::default());
    let wrong = world.open(0);
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || world.run());
    world.clients[1].engine.mux.write(stream, b"after");
    world.run();

    let named = Violation::WrongSide(wrong).to_string();
    let log = log.text();
    let line = log.lines().find(|line| line.contains("breach of protocol"));
    assert!(line.is_some_and(|line| line.contains(&named) && line.contains("alice")), "{log}");
    assert_eq!(world.server.status(world.now).drops.protocol, 1);
    let [broken, other] = &world.told;
    assert!(broken.contains(&ClientEvent::Closed(CloseCode::Protocol)), "{broken:?}");
    assert!(broken.contains(&ClientEvent::Restarted), "{broken:?}");
    assert!(!other.contains(&ClientEvent::Restarted), "{other:?}");
    assert_eq!((world.arrived.as_slice(), world.abandoned), (&b"before after"[..], 1));
    // And begins anew, if it likes.
    assert!(world.server.status(world.now).peers.iter().all(|peer| peer.session.is_some()));
}

#[test]
fn a_server_that_breaks_the_protocol_is_named_and_every_flow_begins_anew() {
    let mut world = World::new();
    let stream = world.open(0);
    world.clients[0].engine.mux.write(stream, b"answer this");
    let mut packet = Vec::new();
    while world.clients[0].poll_transmit(&mut packet, world.now) {
        world.server.handle_packet(&mut packet, world.now);
    }
    // As if it had not been opened: the server's next frame for it is for none that there is.
    world.clients[0].engine.mux = Mux::new(Role::Client, Limits::default());
    world.run();
    let told = &world.told[0];
    let broken = ClientEvent::Broken(Violation::NeverOpened(stream));
    let at = told.iter().position(|event| *event == broken).unwrap_or_else(|| panic!("{told:?}"));
    assert_eq!(told.get(at + 1), Some(&ClientEvent::Restarted));
    assert!(!world.told[1].contains(&ClientEvent::Restarted));
    // The streams of the new epoch work.
    world.arrived.clear();
    let stream = world.open(0);
    world.clients[0].engine.mux.write(stream, b"new");
    world.run();
    assert_eq!(world.arrived, b"new");
}

#[test]
fn what_a_server_sends_beside_the_streams_is_for_this_client_and_not_tcp() {
    let mut world = World::new();
    let client = &mut world.clients[0];
    let before = client.status(world.now).drops.inner;
    let ours = "10.77.0.2:22";
    let strangers = "10.77.0.3:22";
    let syn = segment("203.0.113.5:4000", ours, 2, 1, 0, b"");
    let mut other = segment("203.0.113.5:4000", strangers, 2, 1, 0, b"");
    let mut datagram = syn.clone();
    // ESP, and no TCP: nobody looks behind the IP header.
    (other[9], datagram[9]) = (50, 50);
    for packet in [&syn, &other, &datagram] {
        let carrier = client.status(world.now).carriers[0].number;
        client.handle_datagram(packet, Origin { carrier, packet_len: 100 }, world.now);
    }
    assert_eq!(client.poll_tun(world.now), Some(datagram));
    assert_eq!(client.poll_tun(world.now), None);
    assert_eq!(client.status(world.now).drops.inner, before + 2);
}

#[test]
fn what_a_client_sends_beside_the_streams_is_its_own_and_leaves_the_server_alone() {
    let mut world = World::new();
    let (ours, server, elsewhere) = ("10.77.0.2:9", "10.77.0.1:9", "198.51.100.7:9");
    let udp = |from, to| {
        let mut packet = segment(from, to, 2, 1, 0, b"");
        packet[9] = packet::UDP;
        packet
    };
    let error = |about: &[u8], from: &str| {
        packet::icmp::unreachable(about, packet::icmp::Unreachable::Port, from.parse().unwrap()).unwrap()
    };
    let good = [udp(ours, elsewhere), error(&udp(server, ours), "10.77.0.2")];
    let mut stray = good[1].clone();
    stray[QUOTED_DESTINATION..][..4].copy_from_slice(&[10, 77, 0, 3]);
    let spoofed = [udp("10.77.0.3:9", elsewhere), error(&udp(server, "10.77.0.3:9"), "10.77.0.3")];
    let denied = [
        udp(ours, server),
        // About what we never sent to this client.
        stray,
        udp(ours, "127.0.0.1:9"),
    ];
    for packet in good.iter().chain(&spoofed).chain(&denied) {
        let header = packet::parse(packet).unwrap();
        world.clients[0].engine.push_datagram(packet, &header, world.now).unwrap();
    }
    world.run();
    assert_eq!(std::iter::from_fn(|| world.server.poll_tun(world.now)).collect::<Vec<_>>(), good);
    let drops = world.server.status(world.now).drops;
    assert_eq!((drops.spoofed, drops.denied), (2, 3), "{drops:?}");
}

fn peer(name: &str, public_key: PublicKey, host: u8) -> PeerSettings {
    let address = IpNetwork::new(Ipv4Addr::new(10, 77, 0, host).into(), 24).unwrap();
    PeerSettings {
        name: name.to_owned(),
        public_key,
        preshared_key: PresharedKey::default(),
        addresses: vec![address],
    }
}

fn server_settings(private_key: PrivateKey, peers: Vec<PeerSettings>) -> ServerSettings {
    ServerSettings {
        private_key,
        suites: SuiteSet::PORTABLE,
        congestion: CongestionKind::Bbr,
        peers,
        addresses: vec![Ipv4Addr::new(10, 77, 0, 1).into()],
        dns: Vec::new(),
        egress: EgressPolicy::new(Vec::new(), Vec::new(), []),
        session_buffer: 64 << 20,
        process_buffer: 1 << 30,
    }
}

fn client_settings(private_key: PrivateKey, server_key: PublicKey) -> ClientSettings {
    ClientSettings {
        private_key,
        server_key,
        preshared_key: PresharedKey::default(),
        mode: Some(Mode::HandshakeAdvance),
        suites: SuiteSet::PORTABLE,
        congestion: CongestionKind::Bbr,
        connect: Connect::Faithful,
        session_buffer: 64 << 20,
        process_buffer: 1 << 30,
        dead_after: Duration::from_secs(600),
        inbound: Vec::new(),
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().map_err(|_| io::Error::other("a writer panicked"))?.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 443);

/// Where the clients are.
const HOSTS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 3)];

/// In an ICMPv4 error: behind both its headers, in the header of the packet that it is about.
const QUOTED_DESTINATION: usize = 20 + 8 + 16;
