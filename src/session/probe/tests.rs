use std::collections::VecDeque;

use super::*;
use crate::egress::EgressPolicy;
use crate::kcp::CongestionKind;
use crate::session::{PeerSettings, Server, ServerSettings};

/// A client's probe and a server, with a line between them that takes 20 ms each way.
struct World {
    now: Instant,
    probe: Probe,
    server: Server,
    /// When each packet arrives, and whether at the server.
    line: VecDeque<(Instant, bool, Vec<u8>)>,
    next_port: u16,
    /// Whether a packet passes, by its direction (towards the server), number and bytes.
    passes: fn(bool, usize, &[u8]) -> bool,
    sent: [usize; 2],
}

const DELAY: Duration = Duration::from_millis(20);

fn settings(client: [u8; 32], psk: [u8; 32]) -> ProbeSettings {
    ProbeSettings {
        private_key: PrivateKey::from_bytes(client),
        server_key: PrivateKey::from_bytes([2; 32]).public_key(),
        preshared_key: PresharedKey::from_bytes(psk),
        suites: SuiteSet::PORTABLE,
    }
}

fn server(now: Instant) -> Server {
    let peer = PeerSettings {
        name: "alice".to_owned(),
        public_key: PrivateKey::from_bytes([1; 32]).public_key(),
        preshared_key: PresharedKey::default(),
        addresses: vec!["10.77.0.2/24".parse().unwrap()],
    };
    let settings = ServerSettings {
        private_key: PrivateKey::from_bytes([2; 32]),
        suites: SuiteSet::PORTABLE,
        congestion: CongestionKind::default(),
        peers: vec![peer],
        addresses: vec!["10.77.0.1".parse().unwrap()],
        dns: Vec::new(),
        egress: EgressPolicy::new(vec![], vec![], []),
        session_buffer: 1 << 20,
        process_buffer: 2 << 20,
    };
    Server::new(settings, [3; 32], now)
}

impl World {
    fn new(settings: ProbeSettings, passes: fn(bool, usize, &[u8]) -> bool) -> Self {
        #[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
        let now = Instant::now();
        let remotes = ["192.0.2.9:443".parse().unwrap()];
        let probe = Probe::new(settings, &remotes, &Mode::ALL, [4; 32], now);
        Self {
            now,
            probe,
            server: server(now),
            line: VecDeque::new(),
            next_port: 50_000,
            passes,
            sent: [0; 2],
        }
    }

    /// Runs to the end of the probe; returns what it found.
    fn run(&mut self) -> Vec<ProbeReport> {
        let start = self.now;
        while !self.probe.is_done() {
            self.flush();
            if self.probe.is_done() {
                break;
            }
            let arrival = self.line.front().map(|(at, ..)| *at);
            let due = self.probe.poll_timeout().into_iter().chain(arrival).min();
            self.now = due.expect("it waits for something").max(self.now);
            assert!(self.now - start < Duration::from_secs(18), "it takes too long");
            while self.line.front().is_some_and(|(at, ..)| *at <= self.now) {
                let Some((_, to_server, mut packet)) = self.line.pop_front() else { break };
                if to_server {
                    self.server.handle_packet(&mut packet, self.now);
                } else {
                    self.probe.handle_packet(&mut packet, self.now);
                }
            }
        }
        self.flush();
        self.probe.reports()
    }

    fn flush(&mut self) {
        self.probe.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
        while let Some(port) = self.probe.poll_port(self.now) {
            self.next_port += 1;
            let local = SocketAddr::new("198.51.100.7".parse().unwrap(), self.next_port);
            let wall = Timestamp::from_unix(Duration::from_secs(1_700_000_000));
            self.probe.dial(port.attempt, local, wall, self.now);
        }
        let mut packet = Vec::new();
        while self.probe.poll_transmit(&mut packet, self.now) {
            self.carry(true, std::mem::take(&mut packet));
        }
        while self.server.poll_transmit(&mut packet, self.now) {
            self.carry(false, std::mem::take(&mut packet));
        }
    }

    fn carry(&mut self, to_server: bool, packet: Vec<u8>) {
        let number = &mut self.sent[usize::from(to_server)];
        *number += 1;
        if (self.passes)(to_server, *number, &packet) {
            self.line.push_back((self.now + DELAY, to_server, packet));
        }
    }
}

fn everything(_: bool, _: usize, _: &[u8]) -> bool {
    true
}

fn is_syn(packet: &[u8]) -> bool {
    packet[33] & 0x12 == 0x02
}

#[test]
fn finds_that_an_open_network_lets_everything_through() {
    let mut world = World::new(settings([1; 32], [0; 32]), everything);
    for report in world.run() {
        let rtt = Some(2 * DELAY);
        assert_eq!((report.rtt_min, report.rtt_median, report.sealed), (rtt, rtt, rtt), "{report:?}");
        assert_eq!(report.tcp, (!report.mode.is_bare()).then_some(2 * DELAY), "{report:?}");
        assert_eq!((report.pings, report.arrived, report.answered), (50, 50, 50), "{report:?}");
        assert_eq!((report.size_out, report.size_in), (Some(1500), Some(1500)), "{report:?}");
        assert!(report.carries() && report.refused.is_none());
    }
}

#[test]
fn makes_no_session_and_is_forgotten() {
    let mut world = World::new(settings([1; 32], [0; 32]), everything);
    world.run();
    let load = world.server.load();
    assert_eq!((load.sessions, load.carriers, load.probes), (0, 0, 4));
    assert!(world.server.status(world.now).peers[0].session.is_none());
    world.now += Duration::from_secs(30);
    world.server.handle_timeout(world.now);
    assert_eq!((world.server.load().probes, world.server.load().indexes), (0, 0));
}

#[test]
fn tells_loss_and_size_of_each_direction_apart() {
    // Small pings and pongs alone are counted: every fifth out, every tenth back. What is large is too large out above 1400,
    // back above 1280.
    fn passes(to_server: bool, number: usize, packet: &[u8]) -> bool {
        let (every, largest) = if to_server { (5, 1400) } else { (10, 1280) };
        // Handshakes pass.
        packet.len() <= largest && (packet.len() > 100 || number < 10 || !number.is_multiple_of(every))
    }
    let mut world = World::new(settings([1; 32], [0; 32]), passes);
    // Message 2 of 1400 bytes does not exist: it is short.
    for report in world.run() {
        assert!((35..=45).contains(&report.arrived), "{report:?}");
        assert!((30..=44).contains(&report.answered) && report.answered < report.arrived, "{report:?}");
        assert_eq!((report.size_out, report.size_in), (Some(1400), Some(1280)), "{report:?}");
    }
}

#[test]
fn says_how_far_each_mode_came() {
    let mut world = World::new(settings([1; 32], [0; 32]), |_, _, packet| !is_syn(packet));
    for report in world.run() {
        assert_eq!(report.carries(), report.mode.is_bare(), "{report:?}");
        assert_eq!(report.reach == Reach::SynSent, !report.mode.is_bare(), "{report:?}");
    }
    // Whoever the server does not know is told so, and no more.
    for report in World::new(settings([9; 32], [0; 32]), everything).run() {
        assert_eq!((report.refused, report.carries()), (Some(Refusal::UnknownKey), false));
    }
    for report in World::new(settings([1; 32], [7; 32]), everything).run() {
        assert_eq!(report.reach, Reach::PresharedKeyDiffers, "{report:?}");
    }
    for report in World::new(settings([1; 32], [0; 32]), |_, _, _| false).run() {
        assert!(!report.carries() && report.tcp.is_none(), "{report:?}");
    }
}

#[test]
fn a_replayed_probe_gets_what_it_got_or_silence() {
    let mut world = World::new(settings([1; 32], [0; 32]), everything);
    let mut captured = Vec::new();
    world.flush();
    // The third attempt is bare: its message 1 comes without a SYN.
    while captured.is_empty() {
        world.now = world.probe.poll_timeout().expect("a start").max(world.now);
        world.flush();
        captured.extend(world.line.iter().filter(|(_, to, packet)| *to && packet.len() > 1000).cloned());
        if captured.is_empty() {
            world.run_one();
        }
    }
    let (_, _, message1) = captured.swap_remove(0);
    world.run();
    let answers = |world: &mut World| {
        let before = world.sent[0];
        world.server.handle_packet(&mut message1.clone(), world.now);
        world.flush();
        world.sent[0] - before
    };
    assert_eq!(answers(&mut world), 1, "message 2 was perhaps lost");
    world.now += Duration::from_secs(60);
    world.flush();
    assert_eq!(answers(&mut world), 0);
    assert_eq!(world.server.load().probes, 0);
}

impl World {
    /// Delivers what arrives next.
    fn run_one(&mut self) {
        let Some((at, to_server, mut packet)) = self.line.pop_front() else { return };
        self.now = self.now.max(at);
        if to_server {
            self.server.handle_packet(&mut packet, self.now);
        } else {
            self.probe.handle_packet(&mut packet, self.now);
        }
    }
}
