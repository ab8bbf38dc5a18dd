//! A whole server: against strangers, and against a client that has keys and says what it likes.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use vpn::carrier::{Connection, Flags, Kind, Mode, Seq, parse};
use vpn::crypto::{
    Initiator, Mask, Message1, Message2, PresharedKey, PrivateKey, SessionId, SuiteSet, Timestamp, VERSION,
};
use vpn::egress::EgressPolicy;
use vpn::kcp::CongestionKind;
use vpn::mux::ResetCode;
use vpn::packet;
use vpn::session::{
    PeerSettings, Server, ServerDrops, ServerSettings, ServerStatus, StreamEvent, StreamKey, Streams,
};

use super::flow::Kernel;
use super::handshake::mask_handshake;
use super::input::Input;
use super::session::{Puppet, datagram, frame, speeches};
use super::start;
use super::wire::{emit, read, repr};

/// Packets of whoever has no keys, those with a cookie included. Each is answered by nothing, or as a SYN by one
/// SYN-ACK; counted once; and leaves no trace.
pub(crate) fn strangers(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut now = start();
    let mut server = Server::new(settings(), [4; 32], now);
    let mut cookie = Seq(0);
    let mask = Mask::new(&server_key().public_key());
    while let Some(operation) = input.operation() {
        let source = SocketAddr::from(([192, 0, 2, input.u8()], 50_000));
        let mut packet = match operation % 5 {
            0 => input.bytes().to_vec(),
            1 => emit(&repr(source, SERVER, Flags::SYN, Seq(input.u32()), Seq(0)), b""),
            2 => emit(&repr(source, SERVER, Flags(input.u8() | 16), Seq(input.u32()), cookie), input.bytes()),
            3 => {
                let mut message = input.bytes().to_vec();
                message.resize(message.len().max(148), 0);
                mask_handshake(&mask, &mut message);
                emit(&repr(source, SERVER, Flags::ACK, Seq(input.u32()), cookie), &message)
            }
            _ => {
                now += Duration::from_millis(u64::from(input.u16()));
                server.handle_timeout(now);
                continue;
            }
        };
        let segment = parse(&packet).ok();
        let before = total(server.status(now).drops);
        server.handle_packet(&mut packet, now);
        let is_syn = segment.as_ref().is_some_and(|segment| segment.kind() == Kind::Syn);
        let mut answer = Vec::new();
        assert_eq!(server.poll_transmit(&mut answer, now), is_syn, "{segment:?}");
        assert_eq!(total(server.status(now).drops), before + u64::from(!is_syn), "{segment:?}");
        if let Some(segment) = segment.filter(|_| is_syn) {
            let answer = read(&answer);
            assert_eq!((answer.kind(), answer.destination), (Kind::SynAck, segment.source));
            cookie = if segment.source == source { answer.seq.advanced_by(1) } else { cookie };
        }
        assert!(!server.poll_transmit(&mut Vec::new(), now) && server.poll_tun(now).is_none());
        let status = server.status(now);
        assert!(server.poll_event().is_none() && status.peers[0].session.is_none());
        assert!(status.peers[0].carriers.is_empty() && server.poll_timeout(now).is_none());
    }
}

fn total(drops: ServerDrops) -> u64 {
    let ServerDrops { outer, stranger, budget, handshake, replayed, sealed, .. } = drops;
    outer + stranger + budget + handshake + replayed + sealed
}

/// Operations of a client with keys, which seals what it likes, of the TUN behind the server, of the sockets to its
/// targets, and of others on its way. Whatever is said: bounds hold, all that leaves is well formed and for this client,
/// its packets go only where it may, timers do not spin.
pub(crate) fn peer(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new();
    while let Some(operation) = input.operation() {
        world.operate(operation, &mut input);
        world.settle();
    }
    world.server.close(world.now);
    world.settle();
}

struct World {
    server: Server,
    policy: EgressPolicy,
    alice: Puppet,
    /// The outer packet that began the carrier.
    message1: Vec<u8>,
    streams: Vec<StreamKey>,
    gone: HashSet<StreamKey>,
    kernel: Kernel,
    /// To whom packets came out of the TUN.
    sought: HashSet<IpAddr>,
    now: Instant,
    handshakes: u32,
    /// The number of the carrier that `alice` speaks on, and how often it asked for new keys.
    carrier: u32,
    rekeys: u32,
}

impl World {
    fn new() -> Self {
        let (now, settings) = (start(), settings());
        let policy = settings.egress.clone();
        let mut server = Server::new(settings, [4; 32], now);
        let (alice, message1) =
            connect(&mut server, 1, SessionId([1; 16]), now).expect("an honest client is let in");
        Self {
            server,
            policy,
            alice,
            message1,
            streams: Vec::new(),
            gone: HashSet::new(),
            kernel: Kernel::far(),
            sought: HashSet::new(),
            now,
            handshakes: 1,
            carrier: 1,
            rekeys: 0,
        }
    }

    fn operate(&mut self, operation: u8, input: &mut Input<'_>) {
        let now = self.now;
        match operation % 13 {
            0 => self.speak(operation, input),
            1..=6 => self.speak(operation % 13, input),
            7 => self.interfere(input),
            8 => {
                let inner = match input.u8() % 3 {
                    0 => input.bytes().to_vec(),
                    1 => datagram(input),
                    _ => self.kernel.segment(input),
                };
                self.sought.extend(packet::parse(&inner).map(|header| header.destination));
                self.server.handle_tun(&inner, now);
            }
            9 => self.command(input),
            10 => self.reconnect(input),
            12 => self.rekey(input),
            _ => {
                self.now += Duration::from_millis(u64::from(input.u16()) << (input.u8() % 8));
                self.server.handle_timeout(self.now);
            }
        }
    }

    fn speak(&mut self, operation: u8, input: &mut Input<'_>) {
        if let Some(mut packet) = self.alice.speak(operation, input, self.now) {
            self.server.handle_packet(&mut packet, self.now);
        }
    }

    /// Someone on the way damages a packet, forges one, or repeats message 1.
    fn interfere(&mut self, input: &mut Input<'_>) {
        let before = self.server.status(self.now);
        if input.bool() {
            let Some((mut packet, is_whole)) = self.alice.damaged(input) else { return };
            self.server.handle_packet(&mut packet, self.now);
            let after = self.server.status(self.now);
            // One that is whole may belong to a carrier that has ended.
            let dropped = total(after.drops) - total(before.drops);
            assert!(dropped == 1 || is_whole && dropped == 0, "{dropped} drops");
            return;
        }
        let mut forged = self.message1.clone();
        if input.bool() {
            let (local, remote) = (self.alice.connection.local(), self.alice.connection.remote());
            let headers = repr(local, remote, Flags(input.u8()), Seq(input.u32()), Seq(input.u32()));
            forged = emit(&headers, input.bytes());
        }
        self.server.handle_packet(&mut forged, self.now);
        let after = self.server.status(self.now);
        assert_eq!(
            after.peers[0].carriers.len(),
            before.peers[0].carriers.len(),
            "a forgery ended a carrier"
        );
        assert_eq!(after.peers[0].session.is_some(), before.peers[0].session.is_some());
    }

    fn command(&mut self, input: &mut Input<'_>) {
        let (which, command, length) =
            (input.below(self.streams.len()), input.u8(), usize::from(input.u16()));
        let Some(&stream) = self.streams.get(which) else { return };
        match command % 7 {
            0 => self.server.connected(stream),
            1 => self.server.reset(stream, ResetCode::Refused),
            2 => self.server.abort(stream),
            3 => self.server.finish(stream),
            4 => assert!(self.server.write(stream, &vec![7; length]) <= length),
            5 => assert!(self.server.write_room(stream) <= BUFFER),
            _ => {
                let readable = self.server.readable(stream).len();
                self.server.consume(stream, length.min(readable), self.now);
            }
        }
    }

    /// The client comes anew: in the same session or another.
    fn reconnect(&mut self, input: &mut Input<'_>) {
        self.handshakes += 1;
        if self.handshakes > 6 {
            return;
        }
        let session = SessionId([input.u8() % 3 + 1; 16]);
        if let Some((alice, message1)) = connect(&mut self.server, self.handshakes, session, self.now) {
            (self.alice, self.message1, self.carrier) = (alice, message1, self.handshakes);
        }
    }

    /// The client asks for new keys on its carrier, once or twice; perhaps for another session's, or from elsewhere, or it never
    /// hears the answer. No carrier comes or goes by it, and where new keys are agreed on, they open.
    fn rekey(&mut self, input: &mut Input<'_>) {
        self.rekeys += 1;
        if self.rekeys > 6 {
            return;
        }
        let how = input.u8();
        let session = if how & 1 == 1 { SessionId([9; 16]) } else { self.alice.session };
        let index = 1000 + self.rekeys;
        let since = Duration::from_secs(u64::from(self.handshakes)) + Duration::from_millis(index.into());
        let message = Message1 {
            timestamp: Timestamp::from_unix(BEGAN + since),
            epoch: self.alice.epoch,
            ..message1(self.carrier, index, session)
        };
        let mut rng = StdRng::seed_from_u64(u64::from(index));
        let (psk, public) = (PresharedKey::default(), server_key().public_key());
        let (mut initiator, message1) =
            Initiator::new(&alice_key(), &public, &psk, &message, 200, &mut rng).expect("a fitting size");
        let mut outer = vec![0; self.alice.connection.header_len()];
        outer.extend_from_slice(&message1);
        self.alice.connection.finish_packet(&mut outer, true).expect("an open connection");
        if how & 2 == 2 {
            let segment = read(&outer);
            let elsewhere = SocketAddr::from(([192, 0, 2, 77], 999));
            outer = emit(&repr(elsewhere, SERVER, segment.flags, segment.seq, segment.ack), &message1);
        }
        let before = self.server.status(self.now);
        let mut answers = exchange(&mut self.server, &mut outer.clone(), self.now);
        if how & 4 == 4 {
            answers.extend(exchange(&mut self.server, &mut outer, self.now));
        }
        let after = self.server.status(self.now);
        let live =
            |status: &ServerStatus| (status.peers[0].carriers.len(), status.peers[0].session.is_some());
        assert_eq!(live(&after), live(&before), "a handshake alone changes nothing");
        for mut packet in answers {
            let segment = read(&packet);
            match initiator.finish(&packet[segment.payload]) {
                Ok((Message2::Resumed { .. }, Some(keys)))
                    if how & 8 == 0 && session == self.alice.session =>
                {
                    self.alice.rekey(index, keys.into_pair());
                    let mut first = self.alice.seal(&frame(PING, &[7; 10])).expect("an open connection");
                    let before = total(self.server.status(self.now).drops);
                    self.server.handle_packet(&mut first, self.now);
                    assert_eq!(total(self.server.status(self.now).drops), before, "new keys do not open");
                    return;
                }
                Ok(_) => {}
                Err(_) => drop(self.alice.take(&mut packet, self.now)),
            }
        }
    }

    fn settle(&mut self) {
        self.hear();
        self.take_tun();
        let (mut packet, mut count) = (Vec::new(), 0);
        while self.server.poll_transmit(&mut packet, self.now) {
            count += 1;
            assert!(count < 20_000, "packets never end");
            let segment = read(&packet);
            assert_eq!(segment.source, SERVER);
            self.alice.take(&mut packet, self.now);
            self.hear();
        }
        self.check_bounds();
    }

    fn take_tun(&mut self) {
        while let Some(packet) = self.server.poll_tun(self.now) {
            self.check_tun(&packet);
            self.kernel.note(&packet);
            self.server.recycle(packet);
        }
    }

    fn hear(&mut self) {
        for _ in 0..20_000 {
            let Some(event) = self.server.poll_event() else { return };
            match event {
                StreamEvent::Connect { stream, target } => {
                    assert!(self.policy.allows(target.ip(), Some(target.port())), "{target} is denied");
                    assert!(!self.streams.contains(&stream));
                    self.streams.push(stream);
                }
                StreamEvent::Reset(stream) => assert!(self.gone.insert(stream), "{stream:?} is gone already"),
                StreamEvent::Readable(stream)
                | StreamEvent::Writable(stream)
                | StreamEvent::Finished(stream) => {
                    assert!(self.streams.contains(&stream) && !self.gone.contains(&stream), "{event:?}");
                }
                StreamEvent::Abandoned(abandoned) => {
                    self.gone.extend(self.streams.iter().filter(|&&stream| abandoned.includes(stream)));
                }
            }
        }
        panic!("events never end");
    }

    /// From the client to where it may go; or an answer of whom the TUN's packet was to, who may be nobody.
    fn check_tun(&self, bytes: &[u8]) {
        let header = packet::parse(bytes).unwrap_or_else(|error| panic!("{bytes:02x?}: {error:?}"));
        let is_alices =
            ALICE.iter().any(|text| text.parse::<IpNetwork>().is_ok_and(|own| own.ip() == header.source));
        let is_to_us = header.destination == IpAddr::from([10, 77, 0, 1]);
        let port = header.destination_port(bytes);
        let may_go = is_to_us || self.policy.allows(header.destination, port);
        let is_answer = matches!(header.protocol, packet::TCP | packet::ICMP | packet::ICMPV6)
            && self.sought.contains(&header.source);
        assert!(is_answer || is_alices && may_go && header.protocol != packet::TCP, "{bytes:02x?}");
    }

    fn check_bounds(&mut self) {
        let status = self.server.status(self.now);
        assert!(status.peers[0].carriers.len() <= 8);
        if let Some(session) = status.peers[0].session {
            let mux = session.mux;
            assert!(mux.send_buffered <= BUFFER / 4 && mux.receive_buffered <= BUFFER / 4, "{mux:?}");
            assert!(mux.streams <= 16_384);
        }
        assert!(status.flows.memory <= BUFFER / 8, "{:?}", status.flows);
        for _ in 0..10 {
            if self.server.poll_timeout(self.now).is_none_or(|at| at > self.now) {
                return;
            }
            self.server.handle_timeout(self.now);
            self.take_tun();
            let mut packet = Vec::new();
            while self.server.poll_transmit(&mut packet, self.now) {
                self.alice.take(&mut packet, self.now);
            }
        }
        panic!("it spins: {:#?}", self.server);
    }
}

/// Carries out both handshakes of an honest client; `None` if it is told something else than keys.
fn connect(server: &mut Server, number: u32, session: SessionId, now: Instant) -> Option<(Puppet, Vec<u8>)> {
    let local = SocketAddr::from(([192, 0, 2, 2], 40_000 + u16::try_from(number).unwrap_or(0)));
    let index = 100 + number;
    let message = message1(number, index, session);
    let mut rng = StdRng::seed_from_u64(u64::from(number));
    let (psk, public) = (PresharedKey::default(), server_key().public_key());
    let (mut initiator, message1) =
        Initiator::new(&alice_key(), &public, &psk, &message, 200, &mut rng).expect("a fitting size");
    let mut connection = Connection::connect(local, SERVER, Mode::default(), number.into(), now);
    let mut syn = connection.poll_transmit(now)?;
    for packet in exchange(server, &mut syn, now) {
        connection.handle_segment(&parse(&packet).expect("one of ours"), now);
    }
    let mut outer = vec![0; connection.header_len()];
    outer.extend_from_slice(&message1);
    connection.finish_packet(&mut outer, true).ok()?;
    for packet in exchange(server, &mut outer.clone(), now) {
        let segment = parse(&packet).expect("one of ours");
        if let Ok((message, Some(keys))) = initiator.finish(&packet[segment.payload.clone()]) {
            let epoch = if let Message2::Fresh { epoch, .. } = message { epoch } else { 0 };
            let pair = keys.into_pair();
            let session = (session, epoch);
            return Some((Puppet::new(&server_key(), index, connection, pair, session, now), outer));
        }
    }
    None
}

fn message1(number: u32, index: u32, session: SessionId) -> Message1 {
    Message1 {
        version: VERSION,
        mode: Mode::default().to_wire(),
        is_probe: false,
        timestamp: Timestamp::from_unix(BEGAN + Duration::from_secs(number.into())),
        index,
        session,
        epoch: 0,
        suites: SuiteSet::PORTABLE,
        carrier: number,
        keep: 1,
    }
}

/// What the server answers to a packet.
fn exchange(server: &mut Server, packet: &mut [u8], now: Instant) -> Vec<Vec<u8>> {
    server.handle_packet(packet, now);
    let mut answers = Vec::new();
    let mut answer = Vec::new();
    while server.poll_transmit(&mut answer, now) {
        answers.push(answer.clone());
    }
    answers
}

fn settings() -> ServerSettings {
    let denied = "198.51.100.0/24:25".parse().expect("an entry");
    ServerSettings {
        private_key: server_key(),
        suites: SuiteSet::PORTABLE,
        congestion: CongestionKind::Bbr,
        peers: vec![PeerSettings {
            name: "alice".into(),
            public_key: alice_key().public_key(),
            preshared_key: PresharedKey::default(),
            addresses: ALICE.map(|text| text.parse().expect("a network")).to_vec(),
        }],
        addresses: vec![[10, 77, 0, 1].into()],
        dns: vec![[9, 9, 9, 9].into()],
        egress: EgressPolicy::new(Vec::new(), vec![denied], []),
        session_buffer: BUFFER,
        process_buffer: BUFFER,
    }
}

fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([2; 32])
}

fn alice_key() -> PrivateKey {
    PrivateKey::from_bytes([1; 32])
}

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)), 443);
const ALICE: [&str; 2] = ["10.77.0.2/24", "fd77::2/64"];
const BUFFER: usize = 1 << 20;
const BEGAN: Duration = Duration::from_secs(1_700_000_000);
const PING: u8 = 1;

pub(crate) fn strangers_seeds() -> Vec<Vec<u8>> {
    let syn = |host: u8| vec![1, host, 9, 9, 9, 9];
    let data = |host: u8, flags: u8| vec![2, host, flags, 1, 2, 3, 4, 30, 0, 7, 7, 7];
    let message = |host: u8| vec![3, host, 200, 0, 7, 7, 7];
    let mut seeds = super::carrier::packet_seeds();
    for seed in &mut seeds {
        let length = u16::try_from(seed.len() - 2).expect("a short packet");
        let packet = seed.split_off(2);
        *seed = [&[0, 1], length.to_le_bytes().as_slice(), &packet].concat();
    }
    seeds.truncate(4);
    seeds.push([syn(1), data(1, 16), message(1), data(2, 16), data(1, 4), data(1, 17)].concat());
    seeds.push(
        [syn(1), syn(2), vec![4, 0, 0xff, 0xff, 4, 0, 0xff, 0xff, 4, 0, 0xff, 0xff], message(2)].concat(),
    );
    seeds
}

pub(crate) fn peer_seeds() -> Vec<Vec<u8>> {
    let speech = |number: usize| {
        let (operation, arguments) = speeches().swap_remove(number);
        [vec![operation], arguments].concat()
    };
    let command = |command: u8| vec![9, 0, command, 200, 0];
    let wait = |time: u16, shift: u8| [vec![11], time.to_le_bytes().to_vec(), vec![shift]].concat();
    let mut seeds: Vec<_> =
        (0..speeches().len()).map(|number| [speech(number), wait(60, 0)].concat()).collect();
    // Connections to the client: it accepts, answers, finishes, refuses; the programs send, finish, reset.
    let segment = |which: u8, shape: u8| vec![8, 2, which, shape];
    let said = |message: &[u8]| [&[2, u8::try_from(message.len()).expect("short"), 0], message].concat();
    let opened = said(&[2, 2, 0, 0, 0]);
    let answer = said(&[3, 2, 0, 0, 0, 3, 0, 7, 7, 7]);
    let (finished, refused) = (said(&[4, 2, 0, 0, 0]), said(&[5, 4, 0, 0, 0, 1]));
    seeds.push(
        [
            speech(0),
            segment(0, 0),
            opened.clone(),
            segment(0, 1),
            [segment(0, 0x42), vec![200, 0]].concat(),
            answer,
            segment(0, 3),
            finished,
            segment(0, 1),
            segment(8, 0),
            refused,
            wait(60, 0),
        ]
        .concat(),
    );
    seeds.push([speech(0), segment(0, 0), opened, segment(0, 1), segment(0, 4), wait(0xffff, 7)].concat());
    seeds.push([speech(0), segment(0, 0), vec![10, 1], wait(60, 0), segment(0, 0)].concat());
    for how in [0, 1, 2, 4, 8, 12] {
        let again = [
            speech(0),
            vec![12, how],
            speech(4),
            wait(60, 0),
            vec![12, 0],
            speech(10),
            vec![10, 1],
            speech(0),
        ];
        seeds.push(again.concat());
    }
    let download = [speech(4), command(0), command(4), command(3), speech(10), wait(50, 0), speech(10)];
    seeds.push(download.concat());
    seeds.push([speech(4), command(1), speech(10), speech(5), wait(0xffff, 7), speech(0)].concat());
    seeds.push([speech(4), command(0), speech(6), command(6), command(2), speech(10)].concat());
    seeds.push([speech(0), vec![10, 0], speech(4), vec![10, 1], speech(0), speech(2), vec![10, 0]].concat());
    seeds.push(
        [
            speech(0),
            vec![7, 1, 1, 9, 0, 4],
            vec![7, 0, 1, 4, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0],
            vec![7, 0, 0],
            speech(0),
        ]
        .concat(),
    );
    seeds.push(
        [speech(0), vec![8, 1, 0x20, 0, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], vec![8, 1, 0xf2, 0, 3, 0, 7, 7, 7]]
            .concat(),
    );
    seeds
}
