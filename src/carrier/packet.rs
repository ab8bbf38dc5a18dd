//! Reading an IP packet that holds a TCP segment (RFC 791, RFC 8200, RFC 9293).
//!
//! ```text
//! 0                     20 or 40                +20           + options (SYN only)
//! | IPv4 or IPv6 header | TCP header            | options ... | payload: one sealed packet | link padding, cut |
//! |                     | ports seq ack flags   |
//! ```
//!
//! The TCP checksum is never verified: packets from this host, a virtual machine or a container carry a
//! partial one, and the seal is stronger. Lengths are: nothing outside the IP packet is read.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use pnet::packet::Packet;
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{Ipv4Flags, Ipv4Packet};
use pnet::packet::ipv6::Ipv6Packet;
use pnet::packet::tcp::{TcpFlags, TcpPacket};

use super::{DropReason, Options, Seq};

/// One TCP segment as read from the wire. Nothing in it is authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Who claims to have sent it.
    pub source: SocketAddr,
    /// Whom it was sent to.
    pub destination: SocketAddr,
    /// Sequence number of the first payload byte, or of the SYN.
    pub seq: Seq,
    /// Acknowledgement number; without meaning if the ACK flag is not set.
    pub ack: Seq,
    /// Control flags.
    pub flags: Flags,
    /// The window field, not scaled.
    pub window: u16,
    /// Options, read only if SYN is set.
    pub options: Options,
    /// Where the payload lies in the packet that was parsed.
    pub payload: Range<usize>,
}

impl Segment {
    /// What the segment is for. A packet with RST is a reset whatever else it carries, and so on down the list.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let has = |flag| self.flags.contains(flag);
        match () {
            () if has(Flags::RST) => Kind::Reset,
            () if has(Flags::SYN) && has(Flags::ACK) => Kind::SynAck,
            () if has(Flags::SYN) => Kind::Syn,
            () if has(Flags::FIN) => Kind::Fin,
            () if self.payload.is_empty() => Kind::Acknowledgement,
            () => Kind::Data,
        }
    }

    /// The sequence number after the last payload byte.
    #[must_use]
    pub const fn end(&self) -> Seq {
        self.seq.advanced_by(self.payload.end.saturating_sub(self.payload.start))
    }
}

/// What a segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// RST.
    Reset,
    /// SYN without ACK.
    Syn,
    /// SYN with ACK.
    SynAck,
    /// FIN.
    Fin,
    /// ACK with payload.
    Data,
    /// ACK without payload.
    Acknowledgement,
}

/// TCP control flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(TcpFlags::FIN);
    /// Opens a connection.
    pub const SYN: Self = Self(TcpFlags::SYN);
    /// There is no such connection.
    pub const RST: Self = Self(TcpFlags::RST);
    /// The last segment of a burst.
    pub const PSH: Self = Self(TcpFlags::PSH);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(TcpFlags::ACK);

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether a TCP may send this combination: exactly one of SYN, RST, or ACK alone leads.
    const fn are_possible(self) -> bool {
        match self.contains(Self::SYN) {
            true => !self.intersects(Self::FIN.with(Self::RST)),
            false => self.intersects(Self::RST.with(Self::ACK)),
        }
    }
}

/// Reads one IP packet without a link header. Bytes after the IP packet (link padding) are ignored.
///
/// # Errors
/// The reason to drop it, to be counted by the caller.
pub fn parse(packet: &[u8]) -> Result<Segment, DropReason> {
    let ip = match packet.first().map(|byte| byte >> 4) {
        Some(4) => parse_ipv4(packet)?,
        Some(6) => parse_ipv6(packet)?,
        Some(_) => return Err(DropReason::NotIp),
        None => return Err(DropReason::Truncated),
    };
    let bytes = packet.get(ip.tcp.clone()).ok_or(DropReason::BadIpLength)?;
    let tcp = TcpPacket::new(bytes).ok_or(DropReason::Truncated)?;
    let header = usize::from(tcp.get_data_offset()) * 4;
    let options = bytes.get(TcpPacket::minimum_packet_size()..header).ok_or(DropReason::BadTcpLength)?;
    let segment = Segment {
        source: SocketAddr::new(ip.source, tcp.get_source()),
        destination: SocketAddr::new(ip.destination, tcp.get_destination()),
        seq: Seq(tcp.get_sequence()),
        ack: Seq(tcp.get_acknowledgement()),
        flags: Flags(tcp.get_flags()),
        window: tcp.get_window(),
        options: Options::default(),
        payload: ip.tcp.start + header..ip.tcp.end,
    };
    checked(segment, options)
}

/// What the IP header says.
struct IpView {
    source: IpAddr,
    destination: IpAddr,
    tcp: Range<usize>,
}

fn parse_ipv4(packet: &[u8]) -> Result<IpView, DropReason> {
    let ip = Ipv4Packet::new(packet).ok_or(DropReason::Truncated)?;
    if ip.get_next_level_protocol() != IpNextHeaderProtocols::Tcp {
        return Err(DropReason::NotTcp);
    }
    if ip.get_flags() & Ipv4Flags::MoreFragments != 0 || ip.get_fragment_offset() != 0 {
        return Err(DropReason::Fragment);
    }
    let header = Ipv4Packet::minimum_packet_size();
    match usize::from(ip.get_header_length()) * 4 {
        length if length < header => return Err(DropReason::BadIpLength),
        length if length > header => return Err(DropReason::IpOptions),
        _ => {}
    }
    let end = usize::from(ip.get_total_length());
    if end < header || end > ip.packet().len() {
        return Err(DropReason::BadIpLength);
    }
    Ok(IpView { source: ip.get_source().into(), destination: ip.get_destination().into(), tcp: header..end })
}

fn parse_ipv6(packet: &[u8]) -> Result<IpView, DropReason> {
    let ip = Ipv6Packet::new(packet).ok_or(DropReason::Truncated)?;
    match ip.get_next_header() {
        IpNextHeaderProtocols::Tcp => {}
        IpNextHeaderProtocols::Ipv6Frag => return Err(DropReason::Fragment),
        header if is_extension(header) => return Err(DropReason::IpOptions),
        _ => return Err(DropReason::NotTcp),
    }
    let header = Ipv6Packet::minimum_packet_size();
    let end = header + usize::from(ip.get_payload_length());
    if end > packet.len() {
        return Err(DropReason::BadIpLength);
    }
    Ok(IpView { source: ip.get_source().into(), destination: ip.get_destination().into(), tcp: header..end })
}

/// Whether TCP could follow behind this header (RFC 8200, section 4; the IANA registry of extension headers).
fn is_extension(header: IpNextHeaderProtocol) -> bool {
    [
        IpNextHeaderProtocols::Hopopt,
        IpNextHeaderProtocols::Ipv6Route,
        IpNextHeaderProtocols::Ipv6Opts,
        IpNextHeaderProtocols::Ah,
        IpNextHeaderProtocols::MobilityHeader,
    ]
    .contains(&header)
}

/// Refuses what no TCP host sends, and reads the options of a SYN.
fn checked(mut segment: Segment, options: &[u8]) -> Result<Segment, DropReason> {
    if !segment.flags.are_possible() {
        return Err(DropReason::BadFlags);
    }
    if segment.source == segment.destination || !is_host(segment.source) || !is_host(segment.destination) {
        return Err(DropReason::BadAddress);
    }
    if segment.flags.contains(Flags::SYN) {
        segment.options = Options::parse(options)?;
    }
    Ok(segment)
}

/// Whether a connection may have this address and port as an end.
fn is_host(address: SocketAddr) -> bool {
    let is_one = match address.ip() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
    };
    is_one && address.port() != 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::carrier::emit::tests::{data_v4, data_v6, syn_v4};

    /// Sets one byte of a packet and says why it is refused then.
    fn refusal(mut packet: Vec<u8>, at: usize, value: u8) -> DropReason {
        packet[at] = value;
        parse(&packet).unwrap_err()
    }

    #[test]
    fn cuts_the_padding_of_the_link() {
        for packet in [data_v4(), data_v6()] {
            let mut padded = packet.clone();
            padded.resize(packet.len() + 6, 0);
            assert_eq!(parse(&padded), parse(&packet));
            assert_eq!(parse(&packet).unwrap().payload, packet.len() - 5..packet.len());
        }
    }

    #[test]
    fn refuses_lengths_that_lie() {
        assert_eq!(parse(&[]), Err(DropReason::Truncated));
        assert_eq!(parse(&[0x45; 19]), Err(DropReason::Truncated));
        assert_eq!(parse(&[0x60; 39]), Err(DropReason::Truncated));
        assert_eq!(refusal(data_v4(), 3, 255), DropReason::BadIpLength);
        assert_eq!(refusal(data_v4(), 3, 19), DropReason::BadIpLength);
        assert_eq!(refusal(data_v4(), 3, 39), DropReason::Truncated);
        assert_eq!(refusal(data_v6(), 5, 255), DropReason::BadIpLength);
        assert_eq!(refusal(data_v6(), 5, 19), DropReason::Truncated);
        assert_eq!(refusal(data_v4(), 0, 0x44), DropReason::BadIpLength);
        assert_eq!(refusal(data_v4(), 32, 0x40), DropReason::BadTcpLength);
        assert_eq!(refusal(data_v4(), 32, 0xf0), DropReason::BadTcpLength);
    }

    #[test]
    fn refuses_what_is_no_plain_tcp_over_ip() {
        assert_eq!(refusal(data_v4(), 0, 0x55), DropReason::NotIp);
        assert_eq!(refusal(data_v4(), 0, 0x46), DropReason::IpOptions);
        assert_eq!(refusal(data_v4(), 6, 0x20), DropReason::Fragment);
        assert_eq!(refusal(data_v4(), 7, 1), DropReason::Fragment);
        assert_eq!(refusal(data_v4(), 9, 17), DropReason::NotTcp);
        assert_eq!(refusal(data_v6(), 6, 17), DropReason::NotTcp);
        assert_eq!(refusal(data_v6(), 6, 44), DropReason::Fragment);
        assert_eq!(refusal(data_v6(), 6, 0), DropReason::IpOptions);
        assert_eq!(refusal(data_v6(), 6, 60), DropReason::IpOptions);
    }

    #[test]
    fn refuses_flags_and_addresses_no_host_has() {
        for flags in [0x00, 0x08, 0x01, 0x03, 0x06, 0x29, 0x3f] {
            assert_eq!(refusal(data_v4(), 33, flags), DropReason::BadFlags, "{flags:#x}");
        }
        assert_eq!(refusal(data_v4(), 12, 224), DropReason::BadAddress);
        assert_eq!(refusal(data_v6(), 8, 0xff), DropReason::BadAddress);
        let mut no_port = data_v4();
        no_port[20..22].fill(0);
        assert_eq!(parse(&no_port), Err(DropReason::BadAddress));
        let mut to_itself = data_v4();
        to_itself.copy_within(12..16, 16);
        to_itself.copy_within(20..22, 22);
        assert_eq!(parse(&to_itself), Err(DropReason::BadAddress));
    }

    #[test]
    fn refuses_a_syn_with_hostile_options_but_ignores_those_of_data() {
        assert_eq!(refusal(syn_v4(), 41, 0), DropReason::BadTcpOptions);
        let mut packet = syn_v4();
        packet[41] = 0;
        packet[33] = Flags::ACK.0;
        assert_eq!(parse(&packet).map(|segment| segment.options), Ok(Options::default()));
    }

    #[test]
    fn never_verifies_the_tcp_checksum() {
        let mut packet = data_v4();
        packet[36] ^= 0xff;
        assert!(parse(&packet).is_ok());
    }

    proptest! {
        #[test]
        fn never_panics_on_random_bytes(packet in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(segment) = parse(&packet) {
                prop_assert!(packet.get(segment.payload).is_some());
            }
        }

        #[test]
        fn never_panics_on_a_damaged_packet(which in 0..3usize, damage in proptest::collection::vec((0..80usize, any::<u8>()), 0..6), keep in 0..80usize) {
            let mut packet = [syn_v4(), data_v4(), data_v6()][which].clone();
            for (at, value) in damage {
                if let Some(byte) = packet.get_mut(at) {
                    *byte = value;
                }
            }
            packet.truncate(keep);
            if let Ok(segment) = parse(&packet) {
                prop_assert!(packet.get(segment.payload).is_some());
            }
        }
    }
}
