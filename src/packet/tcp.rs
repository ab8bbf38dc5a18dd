//! TCP segments as they stand in whole IP packets (RFC 9293 §3.1), and the reset that answers one.

use std::net::{IpAddr, SocketAddr};

use pnet::packet::ip::IpNextHeaderProtocols;
use pnet::packet::ipv4::{self, MutableIpv4Packet};
use pnet::packet::ipv6::MutableIpv6Packet;
use pnet::packet::tcp::{self, MutableTcpPacket, TcpFlags, TcpPacket};

use super::build::{Draft, Ends};
use super::header::{self, DropReason, IPV6_HEADER_LENGTH};

/// What the header of one TCP segment says, checked against the bytes of its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The sender.
    pub source: SocketAddr,
    /// The receiver.
    pub destination: SocketAddr,
    /// Sequence number of the first byte, or of SYN.
    pub sequence: u32,
    /// Acknowledgment number; means nothing unless [`Segment::has_ack`].
    pub acknowledgment: u32,
    /// Bytes of data carried.
    pub payload_length: usize,
    flags: u8,
    payload_at: usize,
}

impl Segment {
    /// Reads the segment of one whole IP packet. The checksum is not verified: what the local kernel
    /// hands out is often checksummed only in part.
    ///
    /// # Errors
    /// The first thing found wrong, as the reason to count and drop it: not TCP, a fragment, ports
    /// of 0, flags that exclude each other, or addresses that no connection can have.
    pub fn parse(packet: &[u8]) -> Result<Self, DropReason> {
        let ip = header::parse(packet)?;
        if ip.is_fragment {
            return Err(DropReason::Fragment);
        }
        if ip.protocol != IpNextHeaderProtocols::Tcp.0 {
            return Err(DropReason::NotTcp);
        }
        if !is_unicast(ip.source) || !is_unicast(ip.destination) {
            return Err(DropReason::BadAddress);
        }
        let bytes = packet.get(ip.header_length..).unwrap_or_default();
        let view = TcpPacket::new(bytes).ok_or(DropReason::Truncated)?;
        let data_offset = usize::from(view.get_data_offset()) * 4;
        if data_offset < TCP_HEADER_LENGTH || data_offset > bytes.len() {
            return Err(DropReason::BadTcpHeader);
        }
        let segment = Self {
            source: SocketAddr::new(ip.source, view.get_source()),
            destination: SocketAddr::new(ip.destination, view.get_destination()),
            sequence: view.get_sequence(),
            acknowledgment: view.get_acknowledgement(),
            payload_length: bytes.len() - data_offset,
            flags: view.get_flags(),
            payload_at: ip.header_length + data_offset,
        };
        if segment.is_contradictory() {
            return Err(DropReason::BadTcpHeader);
        }
        Ok(segment)
    }

    /// Asks for a connection: SYN without ACK.
    #[must_use]
    pub const fn is_connect(&self) -> bool {
        self.has(TcpFlags::SYN) && !self.has_ack()
    }

    /// Carries RST.
    #[must_use]
    pub const fn is_reset(&self) -> bool {
        self.has(TcpFlags::RST)
    }

    /// Carries an acknowledgment number.
    #[must_use]
    pub const fn has_ack(&self) -> bool {
        self.has(TcpFlags::ACK)
    }

    /// What the segment takes of the sequence space: its bytes, SYN and FIN (RFC 9293's SEG.LEN).
    #[must_use]
    pub fn sequence_length(&self) -> u32 {
        let control = u32::from(self.has(TcpFlags::SYN)) + u32::from(self.has(TcpFlags::FIN));
        u32::try_from(self.payload_length).map_or(control, |bytes| bytes + control)
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn is_contradictory(&self) -> bool {
        let exclusive = [TcpFlags::SYN, TcpFlags::FIN, TcpFlags::RST];
        let set = exclusive.into_iter().filter(|flag| self.has(*flag)).count();
        set > 1 || self.source.port() == 0 || self.destination.port() == 0
    }
}

/// Builds the reset that a host sends for a segment of a connection it does not know, as one whole
/// IP packet (RFC 9293 §3.5.2, group 1). `None` where none may be sent: the packet is a reset
/// itself, or not a TCP segment that [`Segment::parse`] takes.
#[must_use]
pub fn reset_for(packet: &[u8]) -> Option<Vec<u8>> {
    let segment = Segment::parse(packet).ok()?;
    if segment.is_reset() {
        return None;
    }
    let ends = Ends::new(segment.destination.ip(), segment.source.ip())?;
    let mut draft = Draft::new(ends, IpNextHeaderProtocols::Tcp, TCP_HEADER_LENGTH)?;
    let mut view = MutableTcpPacket::new(draft.payload_mut())?;
    view.set_source(segment.destination.port());
    view.set_destination(segment.source.port());
    view.set_data_offset(5);
    if segment.has_ack() {
        view.set_sequence(segment.acknowledgment);
        view.set_flags(TcpFlags::RST);
    } else {
        view.set_acknowledgement(segment.sequence.wrapping_add(segment.sequence_length()));
        view.set_flags(TcpFlags::RST | TcpFlags::ACK);
    }
    let checksum = match ends {
        Ends::V4(from, to) => tcp::ipv4_checksum(&view.to_immutable(), &from, &to),
        Ends::V6(from, to) => tcp::ipv6_checksum(&view.to_immutable(), &from, &to),
    };
    view.set_checksum(checksum);
    Some(draft.packet)
}

/// Copies the headers of a segment, leaving out the data (a SYN of TCP Fast Open carries some): what
/// is worth holding of a connection that is not accepted yet. Its TCP checksum is not renewed.
/// `None` if the packet is not a segment that [`Segment::parse`] takes.
#[must_use]
pub fn without_data(packet: &[u8]) -> Option<Vec<u8>> {
    let segment = Segment::parse(packet).ok()?;
    let mut bytes = packet.get(..segment.payload_at)?.to_vec();
    match segment.source.ip() {
        IpAddr::V4(_) => {
            let total = u16::try_from(bytes.len()).ok()?;
            let mut view = MutableIpv4Packet::new(&mut bytes)?;
            view.set_total_length(total);
            let checksum = ipv4::checksum(&view.to_immutable());
            view.set_checksum(checksum);
        }
        IpAddr::V6(_) => {
            let length = u16::try_from(bytes.len() - IPV6_HEADER_LENGTH).ok()?;
            MutableIpv6Packet::new(&mut bytes)?.set_payload_length(length);
        }
    }
    Some(bytes)
}

/// Copies the headers of a segment, as those of an acknowledgment without data, with these numbers. Its TCP checksum is not renewed.
/// `None` if the packet is not a segment that [`Segment::parse`] takes.
#[must_use]
pub fn as_acknowledgment(packet: &[u8], sequence: u32, acknowledgment: u32) -> Option<Vec<u8>> {
    let at = header::parse(packet).ok()?.header_length;
    let mut bytes = without_data(packet)?;
    let mut view = MutableTcpPacket::new(bytes.get_mut(at..)?)?;
    view.set_sequence(sequence);
    view.set_acknowledgement(acknowledgment);
    view.set_flags(TcpFlags::ACK);
    Some(bytes)
}

/// Whether an address can be one end of a TCP connection (RFC 9293 §3.9.2.3, RFC 1122 §3.2.1.3).
fn is_unicast(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || is_broadcast)
}

/// A TCP header without options (RFC 9293 §3.1).
pub const TCP_HEADER_LENGTH: usize = 20;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A segment with a given data part, for tests here and above.
    pub(crate) fn segment(
        from: &str,
        to: &str,
        flags: u8,
        sequence: u32,
        acknowledgment: u32,
        data: &[u8],
    ) -> Vec<u8> {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let ends = Ends::new(from.ip(), to.ip()).unwrap();
        let length = TCP_HEADER_LENGTH + data.len();
        let mut draft = Draft::new(ends, IpNextHeaderProtocols::Tcp, length).unwrap();
        let mut view = MutableTcpPacket::new(draft.payload_mut()).unwrap();
        view.set_source(from.port());
        view.set_destination(to.port());
        view.set_sequence(sequence);
        view.set_acknowledgement(acknowledgment);
        view.set_data_offset(5);
        view.set_window(64_000);
        view.set_flags(flags);
        view.set_payload(data);
        draft.packet
    }

    const A: &str = "10.0.0.1:1000";
    const B: &str = "192.0.2.7:80";

    #[test]
    fn reads_a_segment_of_either_family() {
        let packet = segment(A, B, TcpFlags::ACK | TcpFlags::PSH, 7, 9, b"hello");
        let seen = Segment::parse(&packet).unwrap();
        assert_eq!(seen.source, A.parse().unwrap());
        assert_eq!(seen.destination, B.parse().unwrap());
        assert_eq!((seen.sequence, seen.acknowledgment), (7, 9));
        assert_eq!(seen.sequence_length(), 5);
        assert!(seen.has_ack() && !seen.is_connect() && !seen.is_reset());
        let packet = segment("[fd00::1]:5", "[fd00::2]:6", TcpFlags::SYN, 7, 0, b"");
        let seen = Segment::parse(&packet).unwrap();
        assert!(seen.is_connect());
        assert_eq!(seen.sequence_length(), 1);
    }

    #[test]
    fn refuses_what_is_no_segment_of_a_connection() {
        let check = |packet: &[u8], reason| assert_eq!(Segment::parse(packet), Err(reason));
        let good = segment(A, B, TcpFlags::SYN, 1, 0, b"");
        let mut bad = good.clone();
        bad[9] = 17;
        check(&bad, DropReason::NotTcp);
        bad = good.clone();
        bad[6] = 0x20;
        check(&bad, DropReason::Fragment);
        bad = good.clone();
        bad[32] = 0x40;
        check(&bad, DropReason::BadTcpHeader);
        bad[32] = 0x60;
        check(&bad, DropReason::BadTcpHeader);
        let both = segment(A, B, TcpFlags::SYN | TcpFlags::FIN, 1, 0, b"");
        check(&both, DropReason::BadTcpHeader);
        let portless = segment("10.0.0.1:0", B, TcpFlags::SYN, 1, 0, b"");
        check(&portless, DropReason::BadTcpHeader);
        for odd in ["224.0.0.1:80", "0.0.0.0:80", "255.255.255.255:80"] {
            check(&segment(A, odd, TcpFlags::SYN, 1, 0, b""), DropReason::BadAddress);
        }
    }

    #[test]
    fn resets_a_syn_by_acknowledging_it() {
        let syn = segment(A, B, TcpFlags::SYN, 99, 0, b"abc");
        let reset = reset_for(&syn).unwrap();
        let seen = Segment::parse(&reset).unwrap();
        assert!(seen.is_reset() && seen.has_ack());
        assert_eq!((seen.sequence, seen.acknowledgment), (0, 103));
        assert_eq!(seen.source, B.parse().unwrap());
        assert_eq!(seen.destination, A.parse().unwrap());
    }

    #[test]
    fn resets_an_acknowledgment_from_where_it_points() {
        let stray = segment("[fd00::1]:5", "[fd00::2]:6", TcpFlags::ACK, 1, 0xffff_ffff, b"x");
        let seen = Segment::parse(&reset_for(&stray).unwrap()).unwrap();
        assert!(seen.is_reset() && !seen.has_ack());
        assert_eq!(seen.sequence, 0xffff_ffff);
    }

    #[test]
    fn never_answers_a_reset() {
        assert_eq!(reset_for(&segment(A, B, TcpFlags::RST, 1, 0, b"")), None);
        let both = segment(A, B, TcpFlags::RST | TcpFlags::ACK, 1, 5, b"");
        assert_eq!(reset_for(&both), None);
    }

    #[test]
    fn writes_the_reset_of_the_vector() {
        // 10.0.0.1:1000 > 192.0.2.7:80 SYN 1; checksums computed by hand over the words.
        let reset = reset_for(&segment(A, B, TcpFlags::SYN, 1, 0, b"")).unwrap();
        assert_eq!(reset.len(), 40);
        assert_eq!(ones_sum(&reset[..20]), 0xffff);
        let pseudo = [&reset[12..20], &[0, 6, 0, 20]].concat();
        assert_eq!(ones_sum(&[&pseudo, &reset[20..]].concat()), 0xffff);
    }

    #[test]
    fn leaves_out_the_data_of_a_held_syn() {
        for (from, to) in [(A, B), ("[fd00::1]:5", "[fd00::2]:6")] {
            let packet = segment(from, to, TcpFlags::SYN, 8, 0, b"early data");
            let held = without_data(&packet).unwrap();
            let seen = Segment::parse(&held).unwrap();
            assert_eq!((seen.payload_length, seen.sequence), (0, 8));
            assert_eq!(held, segment(from, to, TcpFlags::SYN, 8, 0, b""));
        }
    }

    /// The one's complement sum of RFC 1071: 0xffff over a block that holds its checksum.
    pub(crate) fn ones_sum(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16::try_from(sum).unwrap()
    }

    proptest! {
        #[test]
        fn survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..120), shape in 0u8..3) {
            let mut bytes = bytes;
            shape_as_tcp(&mut bytes, shape);
            if let Some(reset) = reset_for(&bytes) {
                prop_assert!(Segment::parse(&reset).unwrap().is_reset());
                prop_assert!(reset_for(&reset).is_none());
            }
            if let Some(held) = without_data(&bytes) {
                prop_assert_eq!(Segment::parse(&held).unwrap().payload_length, 0);
            }
        }
    }

    /// Makes random bytes pass for IPv4 or IPv6 with TCP, so that the checks behind are reached.
    pub(crate) fn shape_as_tcp(bytes: &mut [u8], shape: u8) {
        let total = u16::try_from(bytes.len()).unwrap();
        if shape == 1 && bytes.len() >= 20 {
            bytes[0] = 0x40 | (bytes[0] & 0x07);
            bytes[2..4].copy_from_slice(&total.to_be_bytes());
            bytes[6..8].fill(0);
            bytes[9] = 6;
        }
        if shape == 2 && bytes.len() >= 40 {
            bytes[0] = 0x60;
            bytes[4..6].copy_from_slice(&(total - 40).to_be_bytes());
            bytes[6] = 6;
        }
    }
}
