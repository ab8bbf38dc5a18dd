//! Fake TCP: the codec, one connection, and the listener.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vpn::carrier::{
    Accepted, Connection, Flags, Input as Meaning, Kind, Listener, ListenerAction, Mode, Options, Repr,
    Segment, Seq, State, SynOptions, parse,
};

use super::input::Input;
use super::start;
use super::wire::{emit, read, repr};

/// `u16 that only the cutting looks at, packet`. What parses is in bounds, and is the same after it was written again.
pub(crate) fn packet(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    input.u16();
    let packet = input.rest();
    let Ok(segment) = parse(packet) else { return };
    let payload = packet.get(segment.payload.clone()).expect("the payload lies in the packet");
    write_again(&segment, payload);
}

fn write_again(segment: &Segment, payload: &[u8]) {
    let Some(options) = options_of(segment) else { return };
    let Segment { source, destination, seq, ack, flags, window, .. } = *segment;
    let again = emit(&Repr { window, options, ..repr(source, destination, flags, seq, ack) }, payload);
    let expected = Segment { payload: again.len() - payload.len()..again.len(), ..segment.clone() };
    assert_eq!(read(&again), expected);
}

/// The options again as Linux writes them; `None` if there is no MSS to begin with.
fn options_of(segment: &Segment) -> Option<SynOptions> {
    let Options { mss, window_scale, sack_permitted } = segment.options;
    if !segment.flags.contains(Flags::SYN) {
        return Some(SynOptions::NONE);
    }
    mss.map(|mss| SynOptions::linux(mss, window_scale, sack_permitted))
}

pub(crate) fn packet_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for family in 0..2 {
        let (client, server) = ends(family);
        let data = Flags::ACK.with(Flags::PSH);
        for (flags, options, payload) in [
            (Flags::SYN, SynOptions::windows(1460, 8), 0),
            (Flags::SYN.with(Flags::ACK), SynOptions::linux(1360, Some(10), true), 0),
            (Flags::ACK, SynOptions::NONE, 0),
            (data, SynOptions::NONE, 50),
            (Flags::RST, SynOptions::NONE, 0),
            (Flags::FIN.with(Flags::ACK), SynOptions::NONE, 0),
        ] {
            let repr = Repr { options, ..repr(client, server, flags, Seq(u32::MAX - 9), Seq(7)) };
            seeds.push([&20_u16.to_le_bytes(), emit(&repr, &vec![0x5a; payload]).as_slice()].concat());
        }
    }
    seeds
}

/// A client's and a server's address, by family.
fn ends(family: u8) -> (SocketAddr, SocketAddr) {
    let [client, server] = if family & 1 == 0 {
        ["192.0.2.1:50000", "198.51.100.2:443"]
    } else {
        ["[2001:db8::1]:50000", "[2001:db8::2]:443"]
    };
    (client.parse().expect("an address"), server.parse().expect("an address"))
}

/// `end, family, scaling and mode u8, isn u32`, then operations on one connection: segments of its peer and of others, some of
/// which "open", polls, data packets, time, the end. Nothing from the network ends it or moves its numbers but a SYN-ACK and
/// what opens; what it sends carries exactly the numbers of the model; each drop is counted once.
pub(crate) fn connection(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = Lone::new(&mut input);
    while let Some(operation) = input.operation() {
        match operation % 6 {
            0 => world.receive(&mut input, false),
            1 => world.receive(&mut input, true),
            2 => world.drain(),
            3 => world.send(usize::from(input.u16())),
            4 => world.now += Duration::from_millis(u64::from(input.u16())),
            _ => world.connection.close(),
        }
    }
    world.drain();
}

/// A connection whose peer is the input, and what is known of it.
struct Lone {
    connection: Connection,
    mode: Mode,
    local: SocketAddr,
    remote: SocketAddr,
    now: Instant,
    isn: Seq,
    /// Of the next payload.
    seq: Seq,
    /// What it acknowledges, once established.
    highest: Option<Seq>,
    /// What it would, if the next payload agrees with the one before.
    outlier: Option<Seq>,
    /// The receive window, once established.
    window: u32,
    syns: usize,
    has_finished: bool,
}

impl Lone {
    fn new(input: &mut Input<'_>) -> Self {
        let (kind, isn, now) = (input.u8(), Seq(input.u32()), start());
        let (client, server) = ends(kind >> 1);
        let mode = Mode::from_wire(kind >> 6).expect("two bits name a mode");
        let is_client = kind & 1 == 0;
        let (local, remote) = if is_client { (client, server) } else { (server, client) };
        let (start, is_scaled) = (Seq(isn.0 ^ 0x5555), kind & 4 == 0);
        let ack = start.advanced_by(40);
        let accepted = Accepted { local, remote, seq: isn, start, ack, is_scaled, random: 3 };
        let connection = if is_client {
            let random = u128::from(isn.0) | u128::from(ack.0) << 32;
            Connection::connect(local, remote, mode, random, now)
        } else {
            Connection::accepted(&accepted, mode, now)
        };
        let highest = match (is_client, mode.is_bare(), mode.is_fixed()) {
            (true, false, _) => None,
            (true, true, _) | (false, _, false) => Some(ack),
            (false, _, true) => Some(start),
        };
        Self {
            connection,
            mode,
            local,
            remote,
            now,
            isn,
            seq: if is_client { isn.advanced_by(1) } else { isn },
            highest,
            outlier: None,
            window: match (is_client, is_scaled) {
                (true, _) => WINDOWS,
                (false, true) => LINUX,
                (false, false) => UNSCALED,
            },
            syns: 0,
            has_finished: false,
        }
    }

    fn receive(&mut self, input: &mut Input<'_>, opens: bool) {
        let segment = self.segment(input);
        let (before, stats) = (self.connection.state(), self.connection.stats());
        let meaning = self.connection.handle_segment(&segment, self.now);
        let after = self.connection.state();
        if meaning == Meaning::Established {
            assert_eq!((before, after), (State::SynSent, State::Established));
            self.highest = Some(segment.seq.advanced_by(1));
            self.window = if segment.options.window_scale.is_some() { WINDOWS } else { UNSCALED };
        } else {
            assert_eq!(before, after, "{segment:?} led out of {before:?}");
        }
        // A FIN is ordinary where ours has left, or is about to.
        let is_leaving = self.has_finished || before == State::Closing;
        let is_drop = match meaning {
            Meaning::FinSeen => !is_leaving,
            Meaning::Ignored(_) | Meaning::ResetSeen => true,
            Meaning::Payload | Meaning::Acknowledgement | Meaning::Established => false,
        };
        let count = |stats: vpn::carrier::Stats| stats.drops().map(|(_, count)| count).sum::<u64>();
        assert_eq!(count(self.connection.stats()), count(stats) + u64::from(is_drop), "{meaning:?}");
        assert!(meaning != Meaning::Payload || !segment.payload.is_empty());
        if meaning == Meaning::FinSeen && is_leaving {
            self.learn_fin(&segment);
        }
        if meaning == Meaning::Payload && opens {
            self.connection.on_opened(&segment, self.now);
            self.learn(segment.end());
        }
    }

    /// A payload opened whose last byte is before `end`.
    fn learn(&mut self, end: Seq) {
        let Some(highest) = self.highest.filter(|_| !self.mode.is_fixed()) else { return };
        let lies_within = |from: Seq| !end.is_after(Seq(from.0.wrapping_add(self.window)));
        let agrees = self.outlier.is_some_and(|outlier| !outlier.is_after(end) && lies_within(outlier));
        let moves = !end.is_after(highest) || lies_within(highest) || agrees;
        let counted = self.connection.stats().off_window;
        (self.highest, self.outlier) = match moves {
            true => (Some(highest.later(end)), None),
            false => (Some(highest), Some(end)),
        };
        assert!(moves || counted > 0, "not counted");
    }

    fn learn_fin(&mut self, segment: &Segment) {
        let Some(highest) = self.highest else { return };
        let end = segment.end().advanced_by(1);
        if !end.is_after(Seq(highest.0.wrapping_add(self.window))) {
            self.highest = Some(highest.later(end));
        }
    }

    /// Of the peer or of a neighbour of it, near the numbers that are right or anywhere.
    fn segment(&self, input: &mut Input<'_>) -> Segment {
        let (shape, flags, length) = (input.u8(), Flags(input.u8()), usize::from(input.u8()));
        let (seq, ack) = (Seq(input.u32()), Seq(input.u32()));
        let mut source = self.remote;
        if shape & 0x80 != 0 {
            source.set_port(source.port() ^ 1);
        }
        let near = self.highest.unwrap_or_default();
        Segment {
            source,
            destination: self.local,
            seq: if shape & 1 == 0 { near.advanced_by(usize::from(input.u8())) } else { seq },
            ack: if shape & 2 == 0 { self.isn.advanced_by(1) } else { ack },
            flags,
            window: input.u16(),
            options: Options {
                mss: (shape & 4 != 0).then(|| input.u16()),
                window_scale: (shape & 8 != 0).then(|| input.u8() % 15),
                sack_permitted: shape & 16 != 0,
            },
            payload: 40..40 + length,
        }
    }

    fn drain(&mut self) {
        let mut packets = 0;
        while let Some(packet) = self.connection.poll_transmit(self.now) {
            packets += 1;
            assert!(packets <= 2, "{:?} never ends", self.connection);
            self.check(&packet);
        }
        assert!(self.connection.poll_timeout().is_none_or(|at| at > self.now), "{:?} spins", self.connection);
    }

    fn check(&mut self, packet: &[u8]) {
        let segment = read(packet);
        assert_eq!((segment.source, segment.destination), (self.local, self.remote));
        match segment.kind() {
            Kind::Syn => {
                self.syns += 1;
                assert!(self.syns <= 5, "more SYNs than five");
                assert_eq!((segment.seq, segment.ack), (self.isn, Seq(0)));
            }
            Kind::Data | Kind::Acknowledgement | Kind::Fin => {
                assert_eq!((segment.seq, Some(segment.ack)), (self.seq, self.highest));
                if segment.kind() == Kind::Fin {
                    assert!(!self.has_finished, "a second FIN");
                    self.has_finished = true;
                    self.seq = self.seq.advanced_by(1);
                }
            }
            Kind::Reset | Kind::SynAck => panic!("it sent {segment:?}"),
        }
    }

    fn send(&mut self, length: usize) {
        let mut packet = vec![0; self.connection.header_len() + length];
        let may_send = self.connection.may_send();
        let fits = length > 0 && packet.len() <= usize::from(u16::MAX);
        let sent = self.connection.finish_packet(&mut packet, length & 1 == 0);
        if may_send && fits {
            assert_eq!(sent, Ok(()));
            self.check(&packet);
            self.advance(length);
        } else if !may_send || length == 0 {
            assert!(sent.is_err());
        } else if sent.is_ok() {
            // Over IPv6 the header is not counted in the length.
            assert!(self.remote.is_ipv6() && packet.len() <= usize::from(u16::MAX) + 40);
            self.advance(length);
        }
    }

    fn advance(&mut self, length: usize) {
        if !self.mode.is_fixed() {
            self.seq = self.seq.advanced_by(length);
        }
    }
}

/// The receive windows, in bytes, of either end and of a peer that scales none.
const WINDOWS: u32 = 0xff00 << 8;
const LINUX: u32 = 32 << 20;
const UNSCALED: u32 = 0xffff;

pub(crate) fn connection_seeds() -> Vec<Vec<u8>> {
    let syn_ack = |shape: u8| {
        let mut bytes = vec![0, shape, Flags::SYN.with(Flags::ACK).0, 0];
        bytes.extend([9, 9, 9, 9, 0, 0, 0, 0, 0xff, 0xff, 0xb4, 5, 10]);
        bytes
    };
    let data = |operation: u8, length: u8| {
        let mut bytes = vec![operation, 2, Flags::ACK.0, length];
        bytes.extend([0; 8]);
        bytes.extend([1, 0, 0xff]);
        bytes
    };
    let reset = || vec![0, 2, Flags::RST.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut seeds = Vec::new();
    for kind in (0..4).flat_map(|mode| (0..4).map(move |kind| mode << 6 | kind)) {
        let begin = vec![kind, 0xf0, 0xff, 0xff, 0xff, 2];
        let established = [begin.clone(), syn_ack(29), vec![2]].concat();
        seeds.push(
            [begin, vec![4, 0xe8, 3, 2, 4, 0xd0, 7, 2, 4, 0xa0, 0xf, 2, 4, 0x40, 0x1f, 2, 4, 0, 64, 2]]
                .concat(),
        );
        seeds.push([established.clone(), data(1, 100), data(1, 200), vec![4, 40, 0, 2], reset()].concat());
        seeds.push(
            [established, vec![3, 120, 5], data(0, 9), syn_ack(29), vec![2, 5, 2, 3, 9, 0], reset()].concat(),
        );
    }
    seeds
}

/// Operations of eight clients towards one listener: SYNs, first payloads with a cookie of their own or of another, other
/// segments, time. Only a SYN is answered, by at most twelve bytes more than it needs; a payload counts as that of someone who
/// heard the answer exactly if a twin of the listener, asked now or a slot ago, would have given that client that cookie,
/// and else as a bare one.
pub(crate) fn listener(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = Door::new();
    while let Some(operation) = input.operation() {
        match operation % 4 {
            0 => world.syn(&mut input),
            1 => world.payload(&mut input, true),
            2 => world.payload(&mut input, false),
            _ => world.now += Duration::from_millis(u64::from(input.u16()) * 4),
        }
    }
}

struct Door {
    listener: Listener,
    twin: Listener,
    origin: Instant,
    now: Instant,
    cookies: HashMap<SocketAddr, Seq>,
}

impl Door {
    fn new() -> Self {
        let origin = start();
        Self {
            listener: Listener::new([7; 32], origin),
            twin: Listener::new([7; 32], origin),
            origin,
            now: origin,
            cookies: HashMap::new(),
        }
    }

    fn client(number: u8) -> (SocketAddr, SocketAddr) {
        let (mut client, server) = ends(number);
        client.set_port(client.port() + u16::from(number >> 1 & 3));
        (client, server)
    }

    fn syn(&mut self, input: &mut Input<'_>) {
        let ((client, server), shape, mss) = (Self::client(input.u8()), input.u8(), input.u16());
        let segment = syn(client, server, Seq(input.u32()), shape, mss);
        let answered = self.listener.stats().syn_acks;
        let ListenerAction::SynAck(packet) = self.listener.handle_segment(&segment, self.now) else {
            panic!("no answer to {segment:?}");
        };
        assert_eq!(self.listener.stats().syn_acks, answered + 1);
        let answer = read(&packet);
        let bare = if client.is_ipv4() { 40 } else { 60 };
        assert!(packet.len() <= bare + 12);
        assert_eq!((answer.source, answer.destination, answer.kind()), (server, client, Kind::SynAck));
        assert_eq!(answer.ack, segment.seq.advanced_by(1));
        assert_eq!(answer.options.window_scale.is_some(), segment.options.window_scale.is_some());
        assert_eq!(answer.options.sack_permitted, segment.options.sack_permitted);
        assert!(answer.options.mss.is_some_and(|mss| (536..=1460).contains(&mss)));
        self.cookies.insert(client, answer.seq);
    }

    fn payload(&mut self, input: &mut Input<'_>, has_heard: bool) {
        let ((client, server), heard) = (Self::client(input.u8()), Self::client(input.u8()).0);
        let (flags, length, anything) = (Flags(input.u8()), usize::from(input.u8()), Seq(input.u32()));
        let cookie = self.cookies.get(&heard).copied().filter(|_| has_heard).unwrap_or(anything);
        let mut segment = syn(client, server, Seq(input.u32()), 0, 0);
        (segment.flags, segment.ack, segment.payload) = (flags, cookie.advanced_by(1), 40..40 + length);
        let action = self.listener.handle_segment(&segment, self.now);
        assert!(matches!(action, ListenerAction::SynAck(_)) == (segment.kind() == Kind::Syn), "{segment:?}");
        if segment.kind() != Kind::Data {
            return;
        }
        let issued = self.issued(client, server).into_iter().find(|(issued, _)| *issued == cookie);
        let (accepted, is_bare) = match action {
            ListenerAction::Cookie(accepted) => (accepted, false),
            ListenerAction::Bare(accepted) => (accepted, true),
            ListenerAction::SynAck(_) | ListenerAction::Drop(_) => panic!("{action:?}"),
        };
        assert_eq!(is_bare, issued.is_none());
        let expected = Accepted {
            local: server,
            remote: client,
            seq: segment.ack,
            start: segment.seq,
            ack: segment.end(),
            is_scaled: issued.is_none_or(|(_, is_scaled)| is_scaled),
            random: accepted.random,
        };
        assert_eq!(accepted, expected);
    }

    /// Every cookie that is good now, and whether it says that scaling was agreed.
    fn issued(&mut self, client: SocketAddr, server: SocketAddr) -> Vec<(Seq, bool)> {
        let mut issued = Vec::new();
        for at in [Some(self.now), self.now.checked_sub(Duration::from_secs(64))].into_iter().flatten() {
            for shape in [0, 1] {
                let segment = syn(client, server, Seq(1), shape, 0);
                if let ListenerAction::SynAck(answer) =
                    self.twin.handle_segment(&segment, at.max(self.origin))
                {
                    issued.push((read(&answer).seq, shape == 1));
                }
            }
        }
        issued
    }
}

/// A SYN; bits of `shape`: 0 window scale, 1 SACK permitted, 2 MSS.
fn syn(source: SocketAddr, destination: SocketAddr, seq: Seq, shape: u8, mss: u16) -> Segment {
    let options = Options {
        mss: (shape & 4 != 0).then_some(mss),
        window_scale: (shape & 1 != 0).then_some(8),
        sack_permitted: shape & 2 != 0,
    };
    let (ack, flags, window, payload) = (Seq(0), Flags::SYN, 64_240, 40..40);
    Segment { source, destination, seq, ack, flags, window, options, payload }
}

pub(crate) fn listener_seeds() -> Vec<Vec<u8>> {
    let syn = |client: u8, shape: u8| vec![0, client, shape, 0xb4, 5, 1, 2, 3, 4];
    let data = |operation: u8, client: u8, heard: u8, flags: Flags| {
        vec![operation, client, heard, flags.0, 100, 1, 2, 3, 4, 2, 2, 3, 4]
    };
    let wait = |quarters: u16| [vec![3], quarters.to_le_bytes().to_vec()].concat();
    vec![
        [syn(0, 7), data(1, 0, 0, Flags::ACK)].concat(),
        [syn(1, 0), wait(15_000), data(1, 1, 1, Flags::ACK), wait(17_500), data(1, 1, 1, Flags::ACK)]
            .concat(),
        [syn(2, 3), syn(4, 3), data(1, 4, 2, Flags::ACK), data(2, 4, 4, Flags::ACK)].concat(),
        [syn(3, 7), data(1, 3, 3, Flags::RST), data(1, 3, 3, Flags::FIN.with(Flags::ACK))].concat(),
    ]
}
