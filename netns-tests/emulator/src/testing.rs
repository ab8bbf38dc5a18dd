//! What the tests share: packets with valid checksums, and a line in virtual time.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::checksum::{checksum, pseudo_header};
use crate::craft::{IPV4_CHECKSUM, TCP_CHECKSUM, UDP_CHECKSUM, ip_packet};
use crate::ip::{ETHERNET_HEADER, IPV4_HEADER, Layer, TCP, UDP};
use crate::line::{Direction, Line};
use crate::stats::Stats;
use crate::tcp::{ACK, SYN};
use crate::{Emulator, Flow};

pub(crate) const CLIENT: &str = "10.0.0.2:40000";
pub(crate) const SERVER: &str = "192.0.2.10:443";
pub(crate) const CLIENT_V6: &str = "[2001:db8:1::2]:40000";
pub(crate) const SERVER_V6: &str = "[2001:db8:200::10]:443";

/// Both families: a client and a server.
pub(crate) const ENDS: [(&str, &str); 2] = [(CLIENT, SERVER), (CLIENT_V6, SERVER_V6)];

pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);

/// Size of a full packet.
pub(crate) const FULL: usize = 1500;

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The flow of [`CLIENT`] and [`SERVER`].
pub(crate) fn flow(protocol: u8) -> Flow {
    Flow::new(protocol, address(CLIENT), address(SERVER))
}

/// A UDP packet of `size` bytes in all.
pub(crate) fn udp(source: &str, destination: &str, size: usize) -> Vec<u8> {
    let (source, destination) = (address(source), address(destination));
    let header = if source.is_ipv4() { 20 } else { 40 };
    let mut datagram = vec![0x5a; size - header];
    datagram[0..2].copy_from_slice(&source.port().to_be_bytes());
    datagram[2..4].copy_from_slice(&destination.port().to_be_bytes());
    datagram[4..6].copy_from_slice(&u16::try_from(size - header).unwrap().to_be_bytes());
    ip_packet(source.ip(), destination.ip(), UDP, &datagram, UDP_CHECKSUM).unwrap()
}

/// A TCP segment between [`CLIENT`] and [`SERVER`], or whoever stands there.
#[derive(Debug, Clone)]
pub(crate) struct Tcp {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: usize,
}

impl Tcp {
    pub(crate) fn new(direction: Direction, flags: u8) -> Self {
        Self::between(CLIENT, SERVER, direction, flags)
    }

    pub(crate) fn between(client: &str, server: &str, direction: Direction, flags: u8) -> Self {
        let (client, server) = (address(client), address(server));
        let (source, destination) = match direction {
            Direction::Out => (client, server),
            Direction::In => (server, client),
        };
        let options = Vec::new();
        Self { source, destination, seq: 0, ack: 0, flags, window: 65535, options, payload: 0 }
    }

    pub(crate) fn at(mut self, seq: u32, ack: u32) -> Self {
        (self.seq, self.ack) = (seq, ack);
        self
    }

    pub(crate) fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    pub(crate) fn payload(mut self, bytes: usize) -> Self {
        self.payload = bytes;
        self
    }

    pub(crate) fn scale(mut self, scale: u8) -> Self {
        self.options.extend([3, 3, scale, 1]);
        self
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[0..2].copy_from_slice(&self.source.port().to_be_bytes());
        segment[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.seq.to_be_bytes());
        segment[8..12].copy_from_slice(&self.ack.to_be_bytes());
        segment[12] = u8::try_from((20 + self.options.len()) / 4).unwrap() << 4;
        segment[13] = self.flags;
        segment[14..16].copy_from_slice(&self.window.to_be_bytes());
        segment.extend(&self.options);
        segment.resize(segment.len() + self.payload, 0xa5);
        ip_packet(self.source.ip(), self.destination.ip(), TCP, &segment, TCP_CHECKSUM).unwrap()
    }
}

/// A segment with a bit flipped on the way: its checksum is wrong.
pub(crate) fn damaged(segment: &Tcp) -> Vec<u8> {
    let mut packet = segment.packet();
    let last = packet.len() - 1;
    packet[last] ^= 1;
    assert!(!has_valid_checksums(&packet));
    packet
}

/// A segment whose checksum is left to the network card: the field holds the sum of the pseudo-header.
pub(crate) fn offloaded(segment: &Tcp) -> Vec<u8> {
    let mut packet = segment.packet();
    let at = transport_checksum_at(&packet);
    let pseudo = pseudo_header(&packet, &Layer::Ip.parse(&packet).unwrap());
    packet[at..at + 2].copy_from_slice(&u16::try_from(pseudo).unwrap().to_be_bytes());
    packet
}

/// An ICMP message, of IPv4 or of IPv6.
pub(crate) fn icmp(source: IpAddr, destination: IpAddr, kind: u8, quoted: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(quoted);
    let protocol = if source.is_ipv4() { 1 } else { 58 };
    ip_packet(source, destination, protocol, &message, 2).unwrap()
}

/// A packet as an Ethernet frame.
pub(crate) fn ethernet(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    if packet[0] >> 4 == 6 {
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    }
    frame.extend_from_slice(packet);
    assert_eq!(frame.len(), ETHERNET_HEADER + packet.len());
    frame
}

/// Whether every checksum of a packet is the one of its bytes.
pub(crate) fn has_valid_checksums(packet: &[u8]) -> bool {
    let header = Layer::Ip.parse(packet).unwrap();
    let ip = header.is_ipv6 || checksum(&packet[..IPV4_HEADER], 0) == 0;
    let pseudo = if header.protocol == 1 { 0 } else { pseudo_header(packet, &header) };
    ip && checksum(&packet[header.transport..header.end], pseudo) == 0
}

/// The checksum field of a TCP or UDP packet.
pub(crate) fn transport_checksum_at(packet: &[u8]) -> usize {
    let header = Layer::Ip.parse(packet).unwrap();
    header.transport + if header.protocol == TCP { TCP_CHECKSUM } else { UDP_CHECKSUM }
}

/// Where the checksum of an IPv4 header stands.
pub(crate) const IP_CHECKSUM: usize = IPV4_CHECKSUM;

pub(crate) fn ends(packet: &[u8]) -> (SocketAddr, SocketAddr) {
    Layer::Ip.parse(packet).unwrap().ends(packet).unwrap()
}

/// A line for IP packets, and the time on it.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) emulator: Emulator,
    start: Instant,
    pub(crate) elapsed: Duration,
}

impl Rig {
    pub(crate) fn new(line: Line) -> Self {
        Self::seeded(line, Layer::Ip, 1)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "an Instant to count virtual time from; nothing reads the clock again"
    )]
    pub(crate) fn seeded(line: Line, layer: Layer, seed: u64) -> Self {
        let start = Instant::now();
        Self { emulator: Emulator::new(line, layer, seed, start), start, elapsed: Duration::ZERO }
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.elapsed += time;
    }

    pub(crate) fn send(&mut self, direction: Direction, frame: &[u8]) {
        self.emulator.handle_frame(direction, frame, self.now());
    }

    /// Everything that is due now.
    pub(crate) fn take(&mut self) -> Vec<(Direction, Vec<u8>)> {
        std::iter::from_fn(|| self.emulator.poll_frame(self.now())).collect()
    }

    /// Sends a frame and returns what comes out at once.
    pub(crate) fn pass(&mut self, direction: Direction, frame: &[u8]) -> Vec<(Direction, Vec<u8>)> {
        self.send(direction, frame);
        self.take()
    }

    /// Whether a frame comes out at once, as it was.
    pub(crate) fn passes(&mut self, direction: Direction, frame: &[u8]) -> bool {
        self.pass(direction, frame) == [(direction, frame.to_vec())]
    }

    /// Sends `count` frames made by `frame`, one each `gap`, waits for all that is under way, and returns what came out and when.
    pub(crate) fn run(
        &mut self,
        direction: Direction,
        count: u32,
        gap: Duration,
        frame: impl Fn(u32) -> Vec<u8>,
    ) -> Vec<(Duration, Vec<u8>)> {
        let first = self.elapsed;
        let mut arrivals = Vec::new();
        for n in 0..count {
            let sending = first + gap * n;
            self.drain(sending, &mut arrivals);
            self.elapsed = sending;
            self.send(direction, &frame(n));
        }
        self.drain(Duration::MAX, &mut arrivals);
        arrivals.into_iter().map(|(at, frame)| (at - first, frame)).collect()
    }

    pub(crate) fn stats(&self, direction: Direction) -> Stats {
        self.emulator.stats(direction)
    }

    fn drain(&mut self, until: Duration, arrivals: &mut Vec<(Duration, Vec<u8>)>) {
        while let Some(due) = self.emulator.poll_timeout().filter(|due| *due - self.start <= until) {
            self.elapsed = due - self.start;
            // A box at the end of the line may drop what is due.
            let frame = self.emulator.poll_frame(due);
            arrivals.extend(frame.map(|(_, frame)| (due - self.start, frame)));
        }
    }
}

/// A number written into the payload of a UDP packet, to know it again.
pub(crate) fn numbered(n: u32, size: usize) -> Vec<u8> {
    let mut packet = udp(CLIENT, SERVER, size);
    let at = packet.len() - 4;
    packet[at..].copy_from_slice(&n.to_be_bytes());
    packet
}

pub(crate) fn number_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[packet.len() - 4..].try_into().unwrap())
}

/// The three packets that open a connection between [`CLIENT`] and [`SERVER`], with sequence numbers 1000 and 5000 and a window
/// scale, and what they come to: the next numbers are 1001 and 5001.
pub(crate) fn handshake(scale: Option<u8>) -> [(Direction, Vec<u8>); 3] {
    let with_scale = |segment: Tcp| scale.map_or(segment.clone(), |scale| segment.scale(scale));
    [
        (Direction::Out, with_scale(Tcp::new(Direction::Out, SYN).at(1000, 0)).packet()),
        (Direction::In, with_scale(Tcp::new(Direction::In, SYN | ACK).at(5000, 1001)).packet()),
        (Direction::Out, Tcp::new(Direction::Out, ACK).at(1001, 5001).packet()),
    ]
}
