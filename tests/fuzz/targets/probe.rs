//! A whole probe, which parses what strangers send, against a server that has keys and says what it likes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use vpn::carrier::{Accepted, Connection, Flags, Listener, ListenerAction, Mode, Segment, Seq, parse};
use vpn::crypto::{
    HEADER_LEN, Mask, Message2, Opener, PresharedKey, PrivateKey, PublicKey, Refusal, Responder, Sealer,
    Suite, SuiteSet, Timestamp,
};
use vpn::session::{Probe, ProbeReport, ProbeSettings};

use super::input::{Input, damage};
use super::session::{frame, frames};
use super::start;
use super::wire::{emit, read, repr};

/// Operations of the server, of others on the way; time. Whatever comes: all that leaves is well formed and for this server, what
/// nobody with keys said is believed in nothing but its RSTs and FINs, no report counts more than was sent, timers do not
/// spin, and the probe comes to an end.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new();
    world.settle();
    while let Some(operation) = input.operation() {
        world.operate(operation, &mut input);
        world.settle();
    }
    world.finish();
}

struct World {
    probe: Probe,
    listener: Listener,
    mask: Mask,
    served: Vec<Served>,
    /// The 4-tuples of all attempts, theirs first.
    ports: Vec<SocketAddr>,
    now: Instant,
    answer: u8,
    is_silent: bool,
}

/// The server's end of an attempt.
struct Served {
    index: u32,
    connection: Connection,
    sealer: Sealer,
    opener: Opener,
}

impl World {
    fn new() -> Self {
        let now = start();
        let settings = ProbeSettings {
            private_key: PrivateKey::from_bytes([1; 32]),
            server_key: server_key().public_key(),
            preshared_key: PresharedKey::default(),
            suites: SuiteSet::PORTABLE,
        };
        Self {
            probe: Probe::new(settings, &[SERVER], &Mode::ALL, [5; 32], now),
            listener: Listener::new([6; 32], now),
            mask: Mask::new(&server_key().public_key()),
            served: Vec::new(),
            ports: Vec::new(),
            now,
            answer: 0,
            is_silent: false,
        }
    }

    fn operate(&mut self, operation: u8, input: &mut Input<'_>) {
        match operation % 6 {
            0 => self.interfere(input),
            1 => {
                let (which, kind) = (input.below(self.served.len()), input.u8() % 10);
                let plaintext =
                    if input.bool() { input.bytes().to_vec() } else { frame(kind, input.bytes()) };
                self.say(which, &plaintext);
            }
            2 => {
                let (which, token) = (input.below(self.served.len()), u64::from(input.u8()));
                self.say(which, &frame(PONG, &[&token.to_le_bytes()[..], &input.array::<2>()].concat()));
            }
            3 => (self.answer, self.is_silent) = (input.u8(), input.bool()),
            4 => self.probe.handle_packet(&mut input.bytes().to_vec(), self.now),
            _ => {
                self.now += Duration::from_millis(u64::from(input.u16()) << (input.u8() % 4));
                self.probe.handle_timeout(self.now);
            }
        }
    }

    /// Who has no keys forges a segment, or damages one.
    fn interfere(&mut self, input: &mut Input<'_>) {
        let port = self.ports.get(input.below(self.ports.len())).copied();
        let Some(local) = port else { return };
        let before = believed(self.probe.reports());
        let mut forged = if input.bool() {
            let headers = repr(SERVER, local, Flags(input.u8()), Seq(input.u32()), Seq(input.u32()));
            emit(&headers, input.bytes())
        } else {
            let which = input.below(self.served.len());
            let pong = frame(PONG, &[0; 10]);
            let Some(packet) = self.served.get_mut(which).and_then(|served| served.seal(&pong)) else {
                return;
            };
            let segment = read(&packet);
            let mut payload = packet[segment.payload.clone()].to_vec();
            damage(&mut payload, input);
            if payload == packet[segment.payload.clone()] {
                return;
            }
            let headers = repr(segment.source, segment.destination, segment.flags, segment.seq, segment.ack);
            emit(&headers, &payload)
        };
        let is_syn_ack = parse(&forged).is_ok_and(|segment| segment.flags.contains(Flags::SYN));
        self.probe.handle_packet(&mut forged, self.now);
        // A SYN-ACK carries no proof but the number of the SYN.
        assert!(is_syn_ack || believed(self.probe.reports()) == before, "a forgery was believed");
    }

    fn say(&mut self, which: usize, plaintext: &[u8]) {
        let plaintext = &plaintext[..plaintext.len().min(1400)];
        let packet = self.served.get_mut(which).and_then(|served| served.seal(plaintext));
        packet.into_iter().for_each(|mut packet| self.probe.handle_packet(&mut packet, self.now));
    }

    /// Until nothing moves.
    fn settle(&mut self) {
        self.probe.handle_timeout(self.now);
        for _ in 0..MOST {
            let mut moved = false;
            while let Some(port) = self.probe.poll_port(self.now) {
                moved = true;
                assert_eq!(port.remote, SERVER);
                let number = u16::try_from(self.ports.len()).expect("few attempts");
                let local = SocketAddr::from(([192, 0, 2, 2], 40_000 + number));
                self.ports.push(local);
                let wall = Timestamp::from_unix(Duration::from_secs(1_700_000_000));
                self.probe.dial(port.attempt, local, wall, self.now);
            }
            let mut packet = Vec::new();
            while self.probe.poll_transmit(&mut packet, self.now) {
                moved = true;
                let segment = read(&packet);
                assert_eq!(segment.destination, SERVER);
                assert!(self.ports.contains(&segment.source), "{segment:?}");
                if let Some(mut answer) = self.serve(&segment, &mut packet) {
                    self.probe.handle_packet(&mut answer, self.now);
                }
            }
            self.check();
            if !moved {
                return;
            }
        }
        panic!("it never rests: {:#?}", self.probe);
    }

    /// What the server does with a packet: it answers handshakes as it was told to, and pings, unless it is silent.
    fn serve(&mut self, segment: &Segment, packet: &mut [u8]) -> Option<Vec<u8>> {
        let payload = &mut packet[segment.payload.clone()];
        let header = self.mask.header(payload);
        if let Some(served) =
            self.served.iter_mut().find(|served| header.is_some_and(|h| h.index == served.index))
        {
            let opened = served.opener.open(header?, payload).expect("what the probe seals opens");
            let plaintext = opened.plaintext.to_vec();
            served.connection.on_opened(segment, self.now);
            let (_, body) = frames(&plaintext).into_iter().find(|(kind, _)| *kind == PING)?;
            let body: Vec<u8> = body.to_vec();
            return if self.is_silent { None } else { served.seal(&frame(PONG, &body)) };
        }
        let action = self.listener.handle_segment(segment, self.now);
        if self.is_silent {
            return None;
        }
        match action {
            ListenerAction::SynAck(answer) => Some(answer),
            ListenerAction::Cookie(accepted) | ListenerAction::Bare(accepted) => {
                self.accept(&accepted, &packet[segment.payload.clone()])
            }
            ListenerAction::Drop(_) => None,
        }
    }

    /// Message 2, of the kind that the input asked for last.
    fn accept(&mut self, accepted: &Accepted, payload: &[u8]) -> Option<Vec<u8>> {
        let lookup = |_: &PublicKey| Some(PresharedKey::default());
        let mut rng = StdRng::seed_from_u64(self.served.len() as u64);
        let received = Responder::read(&server_key(), payload, &lookup, &mut rng).ok()?;
        let message1 = received.payload;
        assert!(message1.is_probe, "the probe asks for a session");
        let (index, suite) = (500 + u32::try_from(self.served.len()).ok()?, Suite::ChaCha20Poly1305);
        let message = match self.answer % 5 {
            0 | 1 => Message2::Resumed { index, suite },
            2 => Message2::Fresh { index, suite, epoch: 1, addresses: Vec::new(), dns: Vec::new() },
            3 => Message2::Stale { above: message1.timestamp.next() },
            _ => Message2::Refused { reason: Refusal::Version },
        };
        let mut connection = Connection::accepted(accepted, Mode::from_wire(message1.mode)?, self.now);
        let (reply, keys) = received.responder.write(&message).expect("the client is known");
        let mut packet = vec![0; connection.header_len()];
        packet.extend_from_slice(&reply);
        connection.finish_packet(&mut packet, true).ok()?;
        if let Some((sealer, opener)) = keys.map(vpn::crypto::Keys::into_pair) {
            self.served.push(Served { index, connection, sealer, opener });
        }
        Some(packet)
    }

    fn check(&self) {
        for report in self.probe.reports() {
            assert!(report.pings <= 50 && report.answered <= report.pings, "{report:?}");
            assert!(report.arrived <= report.pings, "{report:?}");
            for size in [report.size_out, report.size_in].into_iter().flatten() {
                assert!((1280..=1500).contains(&size), "{report:?}");
            }
        }
    }

    /// Nobody says anything any more.
    fn finish(&mut self) {
        let last = self.now + Duration::from_secs(30);
        self.is_silent = true;
        for _ in 0..MOST {
            self.settle();
            if self.probe.is_done() {
                return;
            }
            let due = self.probe.poll_timeout().expect("it waits for something");
            assert!(due > self.now, "it spins: {:#?}", self.probe);
            self.now = due;
            assert!(self.now < last, "it never ends: {:#?}", self.probe);
        }
        panic!("it never ends: {:#?}", self.probe);
    }
}

impl Served {
    fn seal(&mut self, plaintext: &[u8]) -> Option<Vec<u8>> {
        let start = self.connection.header_len();
        let mut packet = vec![0; start + HEADER_LEN];
        packet.extend_from_slice(plaintext);
        self.sealer.seal(&mut packet, start).expect("fresh keys");
        self.connection.finish_packet(&mut packet, true).ok()?;
        Some(packet)
    }
}

/// All but what anybody can bring about.
fn believed(reports: Vec<ProbeReport>) -> Vec<ProbeReport> {
    let without = |report| ProbeReport { resets: 0, fins: 0, ..report };
    reports.into_iter().map(without).collect()
}

fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([2; 32])
}

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 443);
const PING: u8 = 1;
const PONG: u8 = 2;

/// Our choice: rounds without an end.
const MOST: usize = 20_000;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let wait = |time: u16| [vec![5], time.to_le_bytes().to_vec(), vec![0]].concat();
    let answer = |how: u8, is_silent: u8| vec![3, how, is_silent];
    let pong = |token: u8| vec![2, 0, token, 0, 5];
    let forged = |flags: u8| vec![0, 0, 1, flags, 1, 1, 1, 1, 2, 2, 2, 2, 4, 0, 7, 7, 7, 7];
    let damaged = vec![0, 0, 0, 0, 1, 9, 0, 4];
    let mut seeds = vec![[wait(30), wait(300), wait(300), wait(3000)].concat()];
    for how in 2..5 {
        seeds.push([answer(how, 0), wait(30), wait(300), forged(4), wait(900)].concat());
    }
    seeds.push([wait(0), pong(0), pong(0), pong(60), pong(200), wait(40), damaged, forged(20)].concat());
    seeds.push(
        [answer(0, 1), wait(300), forged(18), forged(17), forged(24), answer(0, 0), wait(3000)].concat(),
    );
    seeds.push(vec![1, 0, 2, 1, 3, 0, 2, 10, 0, 1, 0, 2, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    seeds.push([vec![4, 4, 0, 0x45, 0, 0, 0], wait(100)].concat());
    seeds
}
