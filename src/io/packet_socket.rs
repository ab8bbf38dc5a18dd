//! The tap: what arrives for our ports, read before any firewall sees it (packet(7)).
//!
//! One socket for each IP version, bound to its EtherType: a socket for all protocols would get a copy of everything that
//! this host sends. `PACKET_VNET_HDR` says where to cut merged packets, `PACKET_AUXDATA` where the IP header begins (the same
//! place as the filter's `SKF_NET_OFF`), so links with any header or none work.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, SockFilter, Socket, Type};

use super::{
    Family, PortFilter,
    gso::{self, Malformed},
    sys::{self, BATCH, Received},
};

/// A packet socket for one IP version.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
    family: Family,
    frames: Vec<u8>,
    received: [Received; BATCH],
    stats: ReceiveStats,
}

/// What a [`PacketSocket`] received and dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiveStats {
    /// Frames read.
    pub frames: u64,
    /// IP packets handed out; more than frames if some were merged.
    pub packets: u64,
    /// Frames that were cut.
    pub merged: u64,
    /// Frames larger than a buffer, dropped.
    pub truncated: u64,
    /// Frames whose headers contradict each other or the virtio header, dropped.
    pub malformed: u64,
    /// Frames that the kernel could not describe with a virtio header, dropped by it.
    pub undescribed: u64,
    /// Frames dropped by the kernel because the receive buffer was full.
    pub kernel_drops: u64,
}

impl std::ops::Add for ReceiveStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            frames: self.frames + other.frames,
            packets: self.packets + other.packets,
            merged: self.merged + other.merged,
            truncated: self.truncated + other.truncated,
            malformed: self.malformed + other.malformed,
            undescribed: self.undescribed + other.undescribed,
            kernel_drops: self.kernel_drops + other.kernel_drops,
        }
    }
}

impl PacketSocket {
    /// Frames read at once at most.
    pub(super) const BATCH: usize = BATCH;

    /// Opens a tap on all interfaces for the packets that `filter` lets pass, of which `room` bytes may wait as the kernel
    /// counts them. Non-blocking.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW; `InvalidInput` for a filter with too many ranges.
    pub fn open(family: Family, filter: &PortFilter, room: usize) -> io::Result<Self> {
        // Without a protocol nothing arrives until bind: no packet passes unfiltered.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        sys::enable_packet_option(socket.as_fd(), libc::PACKET_VNET_HDR)?;
        sys::enable_packet_option(socket.as_fd(), libc::PACKET_AUXDATA)?;
        if set_socket_recv_buffer_size_force(&socket, room).is_err() {
            socket.set_recv_buffer_size(room)?;
        }
        let frames = vec![0; BATCH * FRAME];
        let tap = Self {
            socket,
            family,
            frames,
            received: [Received::default(); BATCH],
            stats: ReceiveStats::default(),
        };
        tap.set_filter(filter)?;
        sys::bind_packet(tap.socket.as_fd(), ethertype(family))?;
        Ok(tap)
    }

    /// Replaces the filter at once and without a gap; frames already queued passed the old one.
    ///
    /// # Errors
    /// `InvalidInput` for too many ranges; the old filter then stays.
    pub fn set_filter(&self, filter: &PortFilter) -> io::Result<()> {
        let program: Vec<_> = filter.program(self.family)?.into_iter().map(SockFilter::from).collect();
        self.socket.attach_filter(&program)
    }

    /// Hands out what is there, one IP packet at a time with the index of the interface it came in by; `take` may overwrite
    /// its packet. Reads at most one batch of frames.
    ///
    /// TCP checksums may be partial: nobody must verify them.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    pub fn recv_batch(&mut self, mut take: impl FnMut(&mut [u8], u32)) -> io::Result<()> {
        let frames = self.receive()?;
        for (received, frame) in self.received.iter().zip(self.frames.chunks_exact_mut(FRAME)).take(frames) {
            hand_out(received, frame, self.family, &mut self.stats, &mut take);
        }
        Ok(())
    }

    /// Frames asked of the kernel so far, whatever they were.
    pub(super) const fn taken(&self) -> u64 {
        self.stats.frames + self.stats.undescribed
    }

    /// What was received and dropped so far, by the kernel too.
    pub fn stats(&mut self) -> ReceiveStats {
        // It cannot fail on a packet socket that is open.
        self.stats.kernel_drops += sys::take_packet_drops(self.socket.as_fd()).map_or(0, u64::from);
        self.stats
    }

    fn receive(&mut self) -> io::Result<usize> {
        for _ in 0..BATCH {
            match sys::receive(self.socket.as_fd(), &mut self.frames, FRAME, &mut self.received) {
                // The kernel found no virtio header for a packet and has dropped it; others may stand behind it.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.stats.undescribed += 1,
                result => return result,
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Cuts one received frame up for `take`, and counts.
fn hand_out(
    received: &Received,
    frame: &mut [u8],
    family: Family,
    stats: &mut ReceiveStats,
    take: &mut impl FnMut(&mut [u8], u32),
) {
    stats.frames += 1;
    if received.is_truncated {
        stats.truncated += 1;
        return;
    }
    match split(received, frame, family, |packet| take(packet, received.interface)) {
        Ok(packets) => {
            stats.packets += u64::try_from(packets).unwrap_or(0);
            stats.merged += u64::from(packets > 1);
        }
        Err(Malformed) => stats.malformed += 1,
    }
}

fn split(
    received: &Received,
    frame: &mut [u8],
    family: Family,
    mut take: impl FnMut(&mut [u8]),
) -> Result<usize, Malformed> {
    let (virtio, link) = frame.split_at_mut_checked(VIRTIO_HEADER).ok_or(Malformed)?;
    let length = received.length.checked_sub(VIRTIO_HEADER).ok_or(Malformed)?;
    let start = received.network_offset.ok_or(Malformed)?;
    let packet = gso::trim(link.get_mut(start..length).ok_or(Malformed)?)?;
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    if is_v4 != (family == Family::V4) {
        return Err(Malformed);
    }
    match Merging::parse(virtio, family)? {
        Merging::Single => {
            take(packet);
            Ok(1)
        }
        Merging::Segments(size) => gso::cut(packet, size, take),
    }
}

/// What the virtio header (`struct virtio_net_hdr`, native byte order on a packet socket) says of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Merging {
    Single,
    /// TCP segments of this many payload bytes.
    Segments(usize),
}

impl Merging {
    /// Fails for what cannot be TCP of this IP version.
    fn parse(header: &[u8], family: Family) -> Result<Self, Malformed> {
        let kind = *header.get(VIRTIO_GSO_TYPE).ok_or(Malformed)? & !GSO_ECN;
        let size = header.get(VIRTIO_GSO_SIZE..VIRTIO_GSO_SIZE + 2).ok_or(Malformed)?;
        let size = <[u8; 2]>::try_from(size).map_err(|_| Malformed)?;
        let expected = match family {
            Family::V4 => GSO_TCPV4,
            Family::V6 => GSO_TCPV6,
        };
        match kind {
            GSO_NONE => Ok(Self::Single),
            kind if kind == expected => Ok(Self::Segments(usize::from(u16::from_ne_bytes(size)))),
            _ => Err(Malformed),
        }
    }
}

fn ethertype(family: Family) -> u16 {
    match family {
        Family::V4 => 0x0800,
        Family::V6 => 0x86dd,
    }
}

const VIRTIO_HEADER: usize = 10;
const VIRTIO_GSO_TYPE: usize = 1;
const VIRTIO_GSO_SIZE: usize = 4;
// linux/virtio_net.h: VIRTIO_NET_HDR_GSO_*.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;
/// The largest IP packet, its link header with room to spare, and the virtio header.
const FRAME: usize = VIRTIO_HEADER + 246 + 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 TCP packet of `payload` zero bytes behind virtio and Ethernet headers.
    fn frame(kind: u8, size: u16, payload: u16) -> (Received, Vec<u8>) {
        let mut frame = vec![0; VIRTIO_HEADER + 14];
        frame[VIRTIO_GSO_TYPE] = kind;
        frame[VIRTIO_GSO_SIZE..VIRTIO_GSO_SIZE + 2].copy_from_slice(&size.to_ne_bytes());
        let mut packet = vec![0; 40 + usize::from(payload)];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(40 + payload).to_be_bytes());
        packet[32] = 0x50;
        frame.extend(packet);
        let received =
            Received { length: frame.len(), is_truncated: false, interface: 7, network_offset: Some(14) };
        frame.resize(FRAME, 0);
        (received, frame)
    }

    fn run(received: &Received, mut frame: Vec<u8>) -> (Vec<usize>, ReceiveStats) {
        let (mut lengths, mut stats) = (Vec::new(), ReceiveStats::default());
        hand_out(received, &mut frame, Family::V4, &mut stats, &mut |packet: &mut [u8], interface| {
            assert_eq!(interface, 7);
            lengths.push(packet.len());
        });
        (lengths, stats)
    }

    #[test]
    fn hands_out_a_single_packet_without_its_link_header() {
        let (received, frame) = frame(0, 0, 100);
        assert_eq!(
            run(&received, frame),
            (vec![140], ReceiveStats { frames: 1, packets: 1, ..Default::default() })
        );
    }

    #[test]
    fn cuts_a_merged_packet_by_the_size_the_kernel_names() {
        let (received, frame) = frame(GSO_TCPV4 | GSO_ECN, 100, 250);
        let stats = ReceiveStats { frames: 1, packets: 3, merged: 1, ..Default::default() };
        assert_eq!(run(&received, frame), (vec![140, 140, 90], stats));
    }

    #[test]
    fn drops_and_counts_what_the_virtio_header_contradicts() {
        let malformed = (vec![], ReceiveStats { frames: 1, malformed: 1, ..Default::default() });
        for (kind, size) in [(GSO_TCPV6, 100), (3, 100), (1, 0), (1, 15), (77, 9)] {
            let (received, frame) = frame(kind, size, 250);
            assert_eq!(run(&received, frame), malformed, "{kind} {size}");
        }
    }

    #[test]
    fn drops_and_counts_frames_without_a_place_for_ip() {
        let malformed = (vec![], ReceiveStats { frames: 1, malformed: 1, ..Default::default() });
        for (length, network_offset) in
            [(164, None), (164, Some(15)), (164, Some(65_535)), (9, Some(0)), (0, Some(14)), (24, Some(14))]
        {
            let (received, frame) = frame(0, 0, 100);
            assert_eq!(
                run(&Received { length, network_offset, ..received }, frame),
                malformed,
                "{length} {network_offset:?}"
            );
        }
    }

    #[test]
    fn drops_and_counts_truncated_frames() {
        let (received, frame) = frame(0, 0, 100);
        let truncated = (vec![], ReceiveStats { frames: 1, truncated: 1, ..Default::default() });
        assert_eq!(run(&Received { is_truncated: true, ..received }, frame), truncated);
    }
}
