//! Both whole ends in memory: segments of an app into the client's TUN, bytes out of the server's stream.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use ipnetwork::IpNetwork;
use vpn::carrier::Mode;
use vpn::crypto::{PresharedKey, PrivateKey, SuiteSet, Timestamp};
use vpn::egress::EgressPolicy;
use vpn::kcp::CongestionKind;
use vpn::session::{
    Client, ClientEvent, ClientSettings, ClientState, Connect, PeerSettings, Server, ServerSettings,
    StreamEvent, Streams,
};

use crate::start;
use crate::tcp::Sender;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Bytes(SEGMENT as u64));
    for (name, suites) in [("aes", SuiteSet::ALL), ("chacha", SuiteSet::PORTABLE)] {
        let mut tunnel = Tunnel::new(suites);
        let mut app = tunnel.open();
        tunnel.upload(&mut app);
        group.bench_function(format!("upload/{name}"), |bencher| bencher.iter(|| tunnel.upload(&mut app)));
        let stats = tunnel.client.status(tunnel.now).session;
        assert_eq!((stats.kcp.retransmitted, stats.flows_open), (0, 1), "{stats:?}");
    }
    group.finish();
}

struct Tunnel {
    client: Client,
    server: Server,
    received: usize,
    /// What the app's kernel received last.
    last: Vec<u8>,
    packet: Vec<u8>,
    now: Instant,
}

impl Tunnel {
    fn new(suites: SuiteSet) -> Self {
        let (now, (client, server)) = (start(), settings(suites));
        let mut tunnel = Self {
            client: Client::new(client, [1; 32], now),
            server: Server::new(server, [2; 32], now),
            received: 0,
            last: Vec::new(),
            packet: Vec::new(),
            now,
        };
        tunnel.client.set_servers(vec![vec![SocketAddr::from(([203, 0, 113, 9], 443))]], now);
        tunnel.settle();
        assert_eq!(tunnel.client.status(now).state, ClientState::Up);
        tunnel
    }

    fn open(&mut self) -> Sender {
        let mut app = Sender::new(1, SEGMENT);
        self.client.handle_tun(&app.syn(), self.now);
        self.settle();
        let ack = app.ack(&self.last);
        self.client.handle_tun(&ack, self.now);
        self.settle();
        app
    }

    /// One segment of the app, until the server has all of it.
    fn upload(&mut self, app: &mut Sender) {
        let wanted = self.received + SEGMENT;
        self.client.handle_tun(app.data(), self.now);
        self.settle();
        // What is paced or waits for a delayed acknowledgement.
        while self.received < wanted {
            let timeouts = [self.client.poll_timeout(), self.server.poll_timeout(self.now)];
            let next = timeouts.into_iter().flatten().min().expect("something is due");
            self.now = next.max(self.now + Duration::from_micros(1));
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
            self.settle();
        }
        assert_eq!(self.received, wanted);
    }

    /// Passes on everything that can move without time passing.
    fn settle(&mut self) {
        while self.pass_up() | self.pass_down() | self.hear() {}
    }

    fn pass_up(&mut self) -> bool {
        let mut moved = false;
        while self.client.poll_transmit(&mut self.packet, self.now) {
            moved = true;
            self.server.handle_packet(&mut self.packet, self.now);
        }
        moved
    }

    fn pass_down(&mut self) -> bool {
        let mut moved = false;
        while self.server.poll_transmit(&mut self.packet, self.now) {
            moved = true;
            self.client.handle_packet(&mut self.packet, self.now);
        }
        while let Some(packet) = self.client.poll_tun(self.now) {
            moved = true;
            self.client.recycle(std::mem::replace(&mut self.last, packet));
        }
        moved
    }

    fn hear(&mut self) -> bool {
        let mut moved = false;
        while let Some(event) = self.client.poll_event() {
            moved = true;
            if let ClientEvent::Dial { attempt, .. } = event {
                let wall = Timestamp::from_unix(Duration::from_secs(1_700_000_000));
                let local = SocketAddr::from(([192, 0, 2, 2], 40_000));
                self.client.dial(attempt, local, wall, self.now);
            }
        }
        while let Some(event) = self.server.poll_event() {
            moved = true;
            match event {
                StreamEvent::Connect { stream, .. } => self.server.connected(stream),
                StreamEvent::Readable(stream) => loop {
                    let length = self.server.readable(stream).len();
                    if length == 0 {
                        break;
                    }
                    self.received += length;
                    self.server.consume(stream, length, self.now);
                },
                StreamEvent::Writable(_)
                | StreamEvent::Finished(_)
                | StreamEvent::Reset(_)
                | StreamEvent::Abandoned(_) => panic!("{event:?}"),
            }
        }
        moved
    }
}

fn settings(suites: SuiteSet) -> (ClientSettings, ServerSettings) {
    let (client_key, server_key) = (PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32]));
    let address: IpNetwork = "10.77.0.2/24".parse().expect("a network");
    let peer = PeerSettings {
        name: "alice".into(),
        public_key: client_key.public_key(),
        preshared_key: PresharedKey::default(),
        addresses: vec![address],
    };
    let server = ServerSettings {
        private_key: server_key.clone(),
        suites,
        congestion: CongestionKind::None,
        peers: vec![peer],
        addresses: vec![[10, 77, 0, 1].into()],
        dns: Vec::new(),
        egress: EgressPolicy::default(),
        session_buffer: 64 << 20,
        process_buffer: 1 << 30,
    };
    let client = ClientSettings {
        private_key: client_key,
        server_key: server_key.public_key(),
        preshared_key: PresharedKey::default(),
        mode: Some(Mode::default()),
        suites,
        congestion: CongestionKind::None,
        connect: Connect::Faithful,
        inbound: Vec::new(),
        session_buffer: 64 << 20,
        process_buffer: 1 << 30,
        dead_after: Duration::from_secs(600),
    };
    (client, server)
}

/// As large as the kernel hands them to a TUN of 65,520 bytes.
const SEGMENT: usize = 60_000;
