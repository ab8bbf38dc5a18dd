//! Operations on inner TCP: segments of sixteen connections of the programs' kernel, near the numbers that are right or
//! anywhere; other packets; the commands of the owner; time.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use vpn::flow::{Event, FlowId, FlowLimits, Flows, Refusal, Segment};
use vpn::packet;

use super::checksum::assert_valid;
use super::input::Input;
use super::start;

/// The bounds hold; every packet made is valid and goes to whom it concerns; a flow is announced once, ends once, and its
/// id then names nothing; timers do not spin.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new();
    while let Some(operation) = input.operation() {
        world.operate(operation, &mut input);
        world.settle();
    }
}

struct World {
    flows: Flows,
    now: Instant,
    kernel: Kernel,
    /// Every flow that was announced, in order, and those that live.
    ids: Vec<FlowId>,
    live: HashSet<FlowId>,
    /// Flows of which the end was told.
    ended: HashSet<FlowId>,
}

impl World {
    fn new() -> Self {
        let now = start();
        Self {
            flows: Flows::new(LIMITS, [9; 32], now),
            now,
            kernel: Kernel::default(),
            ids: Vec::new(),
            live: HashSet::new(),
            ended: HashSet::new(),
        }
    }

    fn operate(&mut self, operation: u8, input: &mut Input<'_>) {
        let now = self.now;
        match operation % 12 {
            0..=2 => {
                let packet = self.kernel.segment(input);
                self.flows.handle_packet(&packet, now);
            }
            3 => self.flows.handle_packet(input.bytes(), now),
            4 => self.with(input, |flows, id, _| flows.accept(id, now)),
            5 => self.refuse(input),
            6 => self.with(input, |flows, id, length| {
                flows.read(id, |bytes| length.min(bytes.len()));
            }),
            7 => self.with(input, |flows, id, length| {
                assert!(flows.write(id, &vec![7; length], now) <= LIMITS.send_buffer);
            }),
            8 => self.with(input, |flows, id, _| flows.finish(id, now)),
            9 if input.u8() == 0xff => {
                self.flows.reset_all(now);
                self.live.clear();
            }
            9 => self.reset(input),
            _ => {
                self.now += Duration::from_millis(u64::from(input.u16()) << (input.u8() % 8));
                self.flows.handle_timeout(self.now);
            }
        }
    }

    fn any(&self, input: &mut Input<'_>) -> Option<FlowId> {
        let back = usize::from(input.u8());
        self.ids.len().checked_sub(1).map(|last| self.ids[last - back % self.ids.len()])
    }

    fn with(&mut self, input: &mut Input<'_>, act: impl FnOnce(&mut Flows, FlowId, usize)) {
        let (id, length) = (self.any(input), usize::from(input.u16()));
        if let Some(id) = id {
            act(&mut self.flows, id, length);
        }
    }

    fn refuse(&mut self, input: &mut Input<'_>) {
        let Some(id) = self.any(input) else { return };
        let refusals = [
            Refusal::Refused,
            Refusal::HostUnreachable,
            Refusal::NetUnreachable,
            Refusal::AdminProhibited,
            Refusal::Reset,
            Refusal::Silent,
        ];
        self.flows.refuse(id, refusals[input.below(6)], self.now);
        self.live.remove(&id);
    }

    fn reset(&mut self, input: &mut Input<'_>) {
        if let Some(id) = self.any(input) {
            self.flows.reset(id, self.now);
            self.live.remove(&id);
        }
    }

    fn settle(&mut self) {
        let mut packets = 0;
        while let Some(packet) = self.flows.poll_packet(self.now) {
            packets += 1;
            assert!(packets < 10_000, "packets never end");
            self.kernel.take(&packet);
            self.flows.recycle(packet);
        }
        while let Some(event) = self.flows.poll_event() {
            self.hear(event);
        }
        let stats = self.flows.stats();
        assert_eq!(stats.flows - stats.ending, self.live.len(), "{stats:?}");
        assert!(stats.flows <= LIMITS.flows && stats.held <= LIMITS.held, "{stats:?}");
        assert!(stats.memory <= LIMITS.memory, "{stats:?}");
        let due = self.flows.poll_timeout();
        if due.is_some_and(|at| at <= self.now) {
            self.flows.handle_timeout(self.now);
            while self.flows.poll_packet(self.now).is_some() {}
            while let Some(event) = self.flows.poll_event() {
                self.hear(event);
            }
            assert!(self.flows.poll_timeout().is_none_or(|at| at > self.now), "it spins");
        }
    }

    fn hear(&mut self, event: Event) {
        let id = event.id();
        match event {
            Event::Connect { source, target, .. } => {
                assert!(!self.ids.contains(&id), "{id:?} is announced twice");
                assert!(source.port() != 0 && target.port() != 0);
                self.ids.push(id);
                self.live.insert(id);
            }
            Event::Readable { .. } | Event::Writable { .. } => assert!(self.live.contains(&id), "{event:?}"),
            Event::Finished { .. } => assert!(self.ids.contains(&id), "{event:?}"),
            Event::Reset { .. } | Event::Closed { .. } => {
                assert!(self.ids.contains(&id) && self.ended.insert(id), "{event:?} after its end");
                self.live.remove(&id);
                let room = self.flows.read(id, <[u8]>::len) + self.flows.write(id, b"x", self.now);
                assert_eq!(room, 0, "{id:?} lives on");
            }
        }
    }
}

/// What the programs' kernel knows of its connections.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    connections: HashMap<(SocketAddr, SocketAddr), Numbers>,
    /// Its programs are at the far end, and connect to the client.
    is_far: bool,
}

/// The next sequence number of each end.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    ours: u32,
    theirs: u32,
}

impl Kernel {
    /// That of a server: what it connects to is the client's.
    pub(crate) fn far() -> Self {
        Self { is_far: true, ..Self::default() }
    }

    /// A packet with a segment of one of the connections.
    pub(crate) fn segment(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let (which, shape) = (input.u8(), input.u8());
        let (from, to) = ends(which);
        let swapped = (SocketAddr::new(to.ip(), from.port()), SocketAddr::new(from.ip(), to.port()));
        let ends = if self.is_far { swapped } else { (from, to) };
        let numbers = self.connections.entry(ends).or_insert(Numbers { ours: 1000, theirs: 0 });
        let flags = match shape & 7 {
            0 => SYN,
            1 => ACK,
            2 => ACK | PSH,
            3 => ACK | FIN,
            4 => RST,
            5 => ACK | RST,
            6 => ACK | SYN,
            _ => input.u8(),
        };
        let is_wild = shape & 0x20 != 0;
        let (seq, ack) = if shape & 0x10 == 0 {
            (numbers.ours, numbers.theirs)
        } else if is_wild {
            (input.u32(), input.u32())
        } else {
            let [seq, ack] = [input.u16(), input.u16()].map(|near| u32::from(near).wrapping_sub(0x8000));
            (numbers.ours.wrapping_add(seq), numbers.theirs.wrapping_add(ack))
        };
        let length = if shape & 0x40 != 0 { usize::from(input.u16() % 3000) } else { 0 };
        let window = if shape & 0x80 != 0 { input.u16() } else { 0xffff };
        let options = if which & 0x80 != 0 { input.bytes() } else { &[2, 4, 5, 0xb4, 1, 3, 3, 7] };
        if seq == numbers.ours {
            let control = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            numbers.ours = seq.wrapping_add(u32::try_from(length).unwrap_or(0)).wrapping_add(control);
        }
        let options = if flags & SYN != 0 || which & 0x80 != 0 { options } else { &[] };
        tcp(ends, Fields { flags, seq, ack, window, options: &options[..options.len().min(40)] }, length)
    }

    /// Takes a packet for the programs, which must be one.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let header = assert_valid(bytes);
        if header.protocol == packet::TCP {
            assert!(Segment::parse(bytes).is_ok(), "we made {bytes:02x?}");
            self.note(bytes);
        }
    }

    /// Takes over the numbers of a segment, if it is one.
    pub(crate) fn note(&mut self, bytes: &[u8]) {
        let Ok(segment) = Segment::parse(bytes) else { return };
        if let Some(numbers) = self.connections.get_mut(&(segment.destination, segment.source)) {
            numbers.theirs = segment.sequence.wrapping_add(segment.sequence_length());
        }
    }
}

/// One of sixteen connections, half of them over IPv6.
fn ends(which: u8) -> (SocketAddr, SocketAddr) {
    let (port, target) = (1000 + u16::from(which & 3), 80 + u16::from(which >> 2 & 1));
    let [from, to]: [IpAddr; 2] = if which & 8 == 0 {
        [[10, 77, 0, 2].into(), [198, 51, 100, 7].into()]
    } else {
        [[0xfd77, 0, 0, 0, 0, 0, 0, 2].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7].into()]
    };
    (SocketAddr::new(from, port), SocketAddr::new(to, target))
}

struct Fields<'a> {
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    options: &'a [u8],
}

/// A whole packet, without a TCP checksum.
fn tcp((source, destination): (SocketAddr, SocketAddr), fields: Fields<'_>, length: usize) -> Vec<u8> {
    let mut options = fields.options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let mut segment = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    segment.extend(fields.seq.to_be_bytes());
    segment.extend(fields.ack.to_be_bytes());
    let words = u8::try_from(5 + options.len() / 4).unwrap_or(15);
    segment.extend([words << 4, fields.flags]);
    segment.extend(fields.window.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    segment.resize(segment.len() + length, 0x5a);
    ip(source.ip(), destination.ip(), packet::TCP, &segment)
}

/// A whole IP packet.
pub(crate) fn ip(source: IpAddr, destination: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX - 20).min(u16::MAX - 20);
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [high, low] = (length + 20).to_be_bytes();
            let head = [0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            [head.as_slice(), &source.octets(), &destination.octets()].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [high, low] = length.to_be_bytes();
            let head = [0x60, 0, 0, 0, high, low, protocol, 64];
            [head.as_slice(), &source.octets(), &destination.octets()].concat()
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("mixed families"),
    };
    packet.extend_from_slice(&body[..usize::from(length)]);
    packet
}

/// All flows can rest at once, and two be at work.
const LIMITS: FlowLimits = FlowLimits {
    flows: 8,
    held: 4,
    receive_buffer: 9000,
    send_buffer: 5000,
    memory: MEMORY,
    memory_of_group: MEMORY,
};

const MEMORY: usize = (8 * 3 + 3) * 4096;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let open = |which: u8| vec![0, which, 0, 4, 0, 0, 0, 0, which, 1];
    let data = |which: u8, length: u16| [vec![0, which, 0x42], length.to_le_bytes().to_vec()].concat();
    let read = vec![6, 0, 0xff, 0xff];
    let write = vec![7, 0, 0xa0, 0xf];
    let close = |which: u8| vec![8, 0, 0, 0, 0, which, 3, 0, which, 1];
    let wait = |time: u16| [vec![10], time.to_le_bytes().to_vec(), vec![3]].concat();
    let mut seeds = Vec::new();
    for which in [0, 8] {
        seeds.push(
            [open(which), data(which, 900), read.clone(), write.clone(), vec![0, which, 1], close(which)]
                .concat(),
        );
        seeds.push(
            [open(which), write.clone(), wait(100), wait(1000), wait(0xffff), vec![0, which, 4]].concat(),
        );
        seeds.push([vec![0, which, 0, 5, 0, 1], vec![0, which, 0, 5, 0, 5, 0, which, 0, 9, 1]].concat());
        seeds.push(
            [open(which), data(which, 2900), data(which, 2900), read.clone(), data(which, 9), read.clone()]
                .concat(),
        );
        // Beside and behind what is expected.
        let beside = vec![0, which, 0x52, 0x10, 0x80, 0, 0x80, 90, 0];
        seeds
            .push([open(which), beside, data(which, 500), read.clone(), vec![0, which, 0, 9, 0, 0]].concat());
        seeds.push(
            [vec![0, which | 0x80, 0, 12, 0, 2, 4, 0, 0, 3, 3, 14, 8, 2, 5, 3, 0], vec![4, 0, 0, 0]].concat(),
        );
    }
    seeds
}
