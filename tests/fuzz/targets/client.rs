//! A whole client, against a server that has keys and says what it likes, and a kernel behind its TUN that does too.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use vpn::carrier::{Accepted, Connection, Flags, Kind, Listener, ListenerAction, Mode, Segment, Seq, parse};
use vpn::crypto::{
    Message2, PresharedKey, PrivateKey, PublicKey, Received, Refusal, Responder, Suite, SuiteSet, Timestamp,
};
use vpn::kcp::CongestionKind;
use vpn::mux::ResetCode;
use vpn::packet;
use vpn::session::{
    Client, ClientEvent, ClientSettings, ClientState, Connect, StreamEvent, StreamKey, Streams,
};

use super::flow::Kernel;
use super::input::Input;
use super::session::{Puppet, datagram, frame, frames, speeches};
use super::start;
use super::wire::{emit, read, repr};

/// Operations of the server, of the kernel behind the TUN, of others on the way; time. Whatever comes: bounds hold, all
/// that leaves is well formed and for this server, nothing forged ends the tunnel, timers do not spin; a client that was
/// closed says goodbye and nothing else.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new();
    world.settle();
    assert_eq!(world.client.status(world.now).state, ClientState::Up);
    while let Some(operation) = input.operation() {
        world.operate(operation, &mut input);
        world.settle();
    }
    world.close();
    world.settle();
}

struct World {
    client: Client,
    listener: Listener,
    server: Option<Puppet>,
    accepted: Option<Accepted>,
    kernel: Kernel,
    now: Instant,
    dials: u16,
    /// What the shell connects for the server's side, and how many of those are over.
    streams: Vec<StreamKey>,
    gone: HashSet<StreamKey>,
    handshakes: u32,
    answer: u8,
    is_silent: bool,
    is_over: bool,
    /// The shell closed it: what may leave is goodbyes and FINs.
    is_closed: bool,
}

impl World {
    fn new() -> Self {
        let now = start();
        let mut client = Client::new(settings(), [5; 32], now);
        client.set_servers(vec![vec![SERVER]], now);
        Self {
            client,
            listener: Listener::new([6; 32], now),
            server: None,
            accepted: None,
            kernel: Kernel::default(),
            now,
            dials: 0,
            streams: Vec::new(),
            gone: HashSet::new(),
            handshakes: 0,
            answer: 0,
            is_silent: false,
            is_over: false,
            is_closed: false,
        }
    }

    fn operate(&mut self, operation: u8, input: &mut Input<'_>) {
        match operation % 12 {
            number @ 0..=6 => {
                let packet = self.server.as_mut().and_then(|server| server.speak(number, input, self.now));
                packet.into_iter().for_each(|mut packet| self.client.handle_packet(&mut packet, self.now));
            }
            7 => self.interfere(input),
            8 | 9 => {
                let inner = match input.u8() % 3 {
                    0 => self.kernel.segment(input),
                    1 => datagram(input),
                    _ => input.bytes().to_vec(),
                };
                self.client.handle_tun(&inner, self.now);
            }
            10 => {
                self.answer = input.u8();
                let how = input.u8();
                self.is_silent = how & 1 == 1;
                if how >= 0x80 {
                    self.close();
                }
            }
            _ => {
                self.now += Duration::from_millis(u64::from(input.u16()) << (input.u8() % 8));
                self.client.handle_timeout(self.now);
            }
        }
    }

    fn close(&mut self) {
        self.client.close(self.now);
        (self.is_over, self.is_closed) = (true, true);
    }

    fn interfere(&mut self, input: &mut Input<'_>) {
        let Some(server) = &mut self.server else { return };
        let before = self.client.status(self.now);
        if input.bool() {
            let Some((mut packet, is_whole)) = server.damaged(input) else { return };
            let opened = before.session.traffic.received;
            self.client.handle_packet(&mut packet, self.now);
            let after = self.client.status(self.now).session.traffic.received;
            assert!(is_whole || after == opened, "a damaged packet opened");
            return;
        }
        let (local, remote) = (server.connection.local(), server.connection.remote());
        let forged = repr(local, remote, Flags(input.u8()), Seq(input.u32()), Seq(input.u32()));
        self.client.handle_packet(&mut emit(&forged, input.bytes()), self.now);
        let after = self.client.status(self.now);
        assert_eq!((after.state, after.carriers.len()), (before.state, before.carriers.len()));
    }

    fn settle(&mut self) {
        for _ in 0..20_000 {
            let moved = self.hear() | self.take_tun() | self.transmit();
            if !moved {
                return self.check_bounds();
            }
        }
        panic!("it never rests");
    }

    fn hear(&mut self) -> bool {
        let mut moved = false;
        while let Some(event) = self.client.poll_event() {
            moved = true;
            assert!(!self.is_over || matches!(event, ClientEvent::Retired(_)), "{event:?} after the end");
            match event {
                ClientEvent::Dial { attempt, remote } => {
                    assert_eq!(remote, SERVER);
                    self.dial(attempt);
                }
                ClientEvent::Ended(_) => self.is_over = true,
                ClientEvent::Up { .. }
                | ClientEvent::Retired(_)
                | ClientEvent::Suspect
                | ClientEvent::Recovered
                | ClientEvent::Broken(_)
                | ClientEvent::Closed(_)
                | ClientEvent::Restarted => {}
            }
        }
        while let Some(event) = self.client.poll_stream_event() {
            moved = true;
            self.serve_stream(event);
        }
        moved
    }

    /// A shell that accepts every other connection, echoes a little, and forgets some.
    fn serve_stream(&mut self, event: StreamEvent) {
        assert!(!self.is_over || matches!(event, StreamEvent::Abandoned(_)), "{event:?} after the end");
        match event {
            StreamEvent::Connect { stream, target } => {
                assert!(target.ip() == IpAddr::from([10, 77, 0, 2]) && INBOUND.contains(&target.port()));
                assert!(!self.streams.contains(&stream), "{stream:?} is announced twice");
                self.streams.push(stream);
                match self.streams.len() % 4 {
                    0 => self.client.reset(stream, ResetCode::Refused),
                    1 | 2 => self.client.connected(stream),
                    _ => {}
                }
            }
            StreamEvent::Readable(stream) => {
                self.assert_live(stream);
                let bytes = self.client.readable(stream).to_vec();
                self.client.write(stream, &bytes);
                self.client.consume(stream, bytes.len(), self.now);
            }
            StreamEvent::Writable(stream) => self.assert_live(stream),
            StreamEvent::Finished(stream) => {
                self.assert_live(stream);
                self.client.finish(stream);
            }
            StreamEvent::Reset(stream) => assert!(self.gone.insert(stream), "{stream:?} is gone already"),
            StreamEvent::Abandoned(abandoned) => {
                self.gone.extend(self.streams.iter().filter(|&&stream| abandoned.includes(stream)));
            }
        }
    }

    fn assert_live(&self, stream: StreamKey) {
        assert!(self.streams.contains(&stream) && !self.gone.contains(&stream), "{stream:?}");
    }

    fn dial(&mut self, attempt: u32) {
        self.dials = self.dials.wrapping_add(1);
        let local = SocketAddr::from(([192, 0, 2, 2], 40_000_u16.wrapping_add(self.dials).max(1)));
        let wall = Timestamp::from_unix(Duration::from_secs(1_700_000_000));
        self.client.dial(attempt, local, wall, self.now);
    }

    fn take_tun(&mut self) -> bool {
        let mut moved = false;
        while let Some(packet) = self.client.poll_tun(self.now) {
            moved = true;
            assert!(packet::parse(&packet).is_ok(), "{packet:02x?}");
            self.kernel.note(&packet);
            self.client.recycle(packet);
        }
        moved
    }

    fn transmit(&mut self) -> bool {
        let (mut packet, mut count) = (Vec::new(), 0);
        while self.client.poll_transmit(&mut packet, self.now) {
            count += 1;
            assert!(count < 20_000, "packets never end");
            let segment = read(&packet);
            assert_eq!(segment.destination, SERVER);
            if self.is_closed {
                self.check_farewell(&segment, &mut packet);
                continue;
            }
            let answers = self.serve(&mut packet);
            answers.into_iter().for_each(|mut answer| self.client.handle_packet(&mut answer, self.now));
        }
        count > 0
    }

    /// A closed client says goodbye, or ends a connection.
    fn check_farewell(&mut self, segment: &Segment, packet: &mut [u8]) {
        if segment.payload.is_empty() {
            assert!(segment.flags.contains(Flags::FIN), "{segment:?} after the close");
            return;
        }
        let is_handshake = self.read_message1(&packet[segment.payload.clone()]).is_some();
        assert!(!is_handshake, "a handshake after the close");
        let opened = self.server.as_mut().and_then(|server| server.take(packet, self.now));
        let is_goodbye =
            |plaintext: &Vec<u8>| frames(plaintext).iter().any(|(kind, _)| [CLOSE, LEFT].contains(kind));
        assert!(opened.as_ref().is_none_or(is_goodbye), "{opened:02x?} after the close");
    }

    /// What the server does with an outer packet; it answers pings, unless it is silent.
    fn serve(&mut self, packet: &mut [u8]) -> Vec<Vec<u8>> {
        if self.is_silent {
            return Vec::new();
        }
        let now = self.now;
        let opened = self.server.as_mut().and_then(|server| server.take(packet, now));
        if let (Some(plaintext), Some(server)) = (opened, &mut self.server) {
            let pings = frames(&plaintext).into_iter().filter(|(kind, _)| *kind == PING);
            return pings.filter_map(|(_, body)| server.seal(&frame(PONG, body))).collect();
        }
        let segment = parse(packet).expect("it was read before");
        match self.listener.handle_segment(&segment, now) {
            ListenerAction::SynAck(answer) => vec![answer],
            ListenerAction::Cookie(accepted) | ListenerAction::Bare(accepted) => {
                self.accepted = Some(accepted);
                let payload = packet[segment.payload.clone()].to_vec();
                self.accept(&payload).into_iter().collect()
            }
            ListenerAction::Drop(_) => {
                assert!(segment.kind() != Kind::Syn);
                Vec::new()
            }
        }
    }

    /// Message 2, of the kind that the input asked for last.
    fn accept(&mut self, message1: &[u8]) -> Option<Vec<u8>> {
        let received = self.read_message1(message1)?;
        let accepted = self.accepted?;
        self.handshakes += 1;
        let index = 500 + self.handshakes;
        if let Some(server) = self.server.as_ref().filter(|server| server.is_from(&accepted)) {
            let header = server.connection.header_len();
            return self.rekey(received, index, header);
        }
        let message1 = received.payload;
        let mut connection = Connection::accepted(&accepted, Mode::from_wire(message1.mode)?, self.now);
        let message = self.message2(index, message1.epoch, message1.timestamp);
        let (reply, keys) = received.responder.write(&message).expect("the client is known");
        let mut packet = vec![0; connection.header_len()];
        packet.extend_from_slice(&reply);
        connection.finish_packet(&mut packet, true).expect("an open connection");
        if let Some(keys) = keys {
            let epoch = if let Message2::Fresh { epoch, .. } = message { epoch } else { message1.epoch };
            let session = (message1.session, epoch);
            let pair = keys.into_pair();
            self.server = Some(Puppet::new(&server_key(), index, connection, pair, session, self.now));
        }
        Some(packet)
    }

    /// Message 2 on a live carrier: only `Resumed` gives a client new keys.
    fn rekey(&mut self, received: Received, index: u32, header: usize) -> Option<Vec<u8>> {
        let message1 = received.payload;
        let message = self.message2(index, message1.epoch, message1.timestamp);
        let (reply, keys) = received.responder.write(&message).expect("the client is known");
        let server = self.server.as_mut()?;
        let mut packet = vec![0; header];
        packet.extend_from_slice(&reply);
        server.connection.finish_packet(&mut packet, true).ok()?;
        if let (Message2::Resumed { .. }, Some(keys)) = (message, keys) {
            server.rekey(index, keys.into_pair());
        }
        Some(packet)
    }

    fn read_message1(&self, payload: &[u8]) -> Option<Received> {
        let lookup = |_: &PublicKey| Some(PresharedKey::default());
        let mut rng = StdRng::seed_from_u64(u64::from(self.dials));
        Responder::read(&server_key(), payload, &lookup, &mut rng).ok()
    }

    fn message2(&self, index: u32, epoch: u32, timestamp: Timestamp) -> Message2 {
        let suite = Suite::ChaCha20Poly1305;
        let fresh = |epoch: u32, last: u8| Message2::Fresh {
            index,
            suite,
            epoch,
            addresses: vec![format!("10.77.0.{last}/24").parse().expect("a network")],
            dns: vec![[9, 9, 9, 9].into()],
        };
        match self.answer % 8 {
            0 => fresh(epoch.saturating_add(1), 2),
            1 | 2 => Message2::Resumed { index, suite },
            3 => fresh(epoch, 2),
            4 => fresh(u32::MAX, 2),
            5 => fresh(epoch.saturating_add(1), 3),
            6 => Message2::Stale { above: timestamp.next() },
            _ => Message2::Refused { reason: Refusal::Version },
        }
    }

    fn check_bounds(&mut self) {
        let status = self.client.status(self.now);
        let mux = status.session.mux;
        assert!(mux.send_buffered <= BUFFER / 4 && mux.receive_buffered <= BUFFER / 4, "{mux:?}");
        assert!(status.carriers.len() <= 3 && status.session.flows_open <= 2 + mux.streams_of_peer);
        for _ in 0..10 {
            if self.client.poll_timeout().is_none_or(|at| at > self.now) {
                return;
            }
            self.client.handle_timeout(self.now);
            while self.hear() | self.take_tun() | self.transmit() {}
        }
        panic!("it spins: {:#?}", self.client);
    }
}

fn settings() -> ClientSettings {
    ClientSettings {
        private_key: PrivateKey::from_bytes([1; 32]),
        server_key: server_key().public_key(),
        preshared_key: PresharedKey::default(),
        mode: Some(Mode::default()),
        suites: SuiteSet::PORTABLE,
        congestion: CongestionKind::Bbr,
        connect: Connect::Faithful,
        inbound: vec![INBOUND],
        session_buffer: BUFFER,
        // Room for two flows.
        process_buffer: 2 * BUFFER,
        dead_after: Duration::from_secs(60),
    }
}

fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([2; 32])
}

const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 443);
const INBOUND: RangeInclusive<u16> = 1..=1023;
const BUFFER: usize = 1 << 20;
const PING: u8 = 1;
const PONG: u8 = 2;
const CLOSE: u8 = 8;
const LEFT: u8 = 11;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let speech = |number: usize| {
        let (operation, arguments) = speeches().swap_remove(number);
        [vec![operation], arguments].concat()
    };
    let wait = |time: u16, shift: u8| [vec![11], time.to_le_bytes().to_vec(), vec![shift]].concat();
    let syn = vec![8, 0, 0, 0];
    let opened = [vec![2, 5, 0, 2, 1, 0, 0, 0], vec![8, 0, 0, 1], vec![8, 0, 0, 0x42, 200, 0]].concat();
    let data = vec![2, 10, 0, 3, 1, 0, 0, 0, 3, 0, 7, 7, 7];
    let fin = vec![2, 5, 0, 4, 1, 0, 0, 0];
    let mut seeds: Vec<_> =
        (0..speeches().len()).map(|number| [speech(number), wait(60, 0)].concat()).collect();
    seeds.push(
        [syn.clone(), opened.clone(), data, vec![8, 0, 0, 1], fin, vec![8, 0, 0, 3], wait(50, 0)].concat(),
    );
    seeds.push([syn.clone(), vec![2, 6, 0, 5, 1, 0, 0, 0, 1], wait(10, 0)].concat());
    seeds.push(
        [syn, opened, vec![10, 1, 1], wait(3000, 0), wait(3000, 0), vec![10, 1, 0], wait(5000, 0)].concat(),
    );
    // Connections from the server's side: four that may come in, with data and ends, and one that may not.
    let said = |message: &[u8]| [&[2, u8::try_from(message.len()).expect("short"), 0], message].concat();
    let open =
        |id: u8, port: u8| said(&[1, id, 0, 0, 0, 4, 10, 77, 0, 2, port, if id == 10 { 9 } else { 0 }]);
    let mut inbound: Vec<_> = [2, 4, 6, 8, 10].into_iter().flat_map(|id| open(id, 22)).collect();
    for id in [2, 4, 6] {
        inbound.extend(said(&[3, id, 0, 0, 0, 3, 0, 7, 7, 7]));
        inbound.extend(said(&[if id == 2 { 4 } else { 5 }, id, 0, 0, 0, 6][..if id == 2 { 5 } else { 6 }]));
    }
    seeds.push([inbound, wait(60, 0), speech(11), open(2, 80), wait(60, 0)].concat());
    for answer in 3..8 {
        seeds.push([vec![10, answer, 0], speech(11), wait(1000, 0), wait(3000, 0), speech(0)].concat());
    }
    seeds.push([vec![9, 1, 0x10, 0, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], speech(8), wait(9, 0)].concat());
    seeds.push([vec![7, 1, 1, 9, 0, 4], vec![7, 0, 4, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0], speech(0)].concat());
    // Closed with a dial under way.
    seeds.push([vec![10, 1, 1], speech(11), vec![10, 1, 0x81], wait(3000, 0), speech(0)].concat());
    seeds
}
