//! A strict view of an IP packet: what the layers above need to route, refuse, cut or answer it.
//!
//! IPv4 is RFC 791, IPv6 RFC 8200. The packets come from a TUN device or from a peer, so nothing is
//! believed: lengths must agree with the bytes at hand, and IPv6 extension headers are walked only
//! as far as they are known and at most [`MAX_EXTENSION_HEADERS`] of them.

use std::net::IpAddr;

use super::{ICMP, ICMPV6, UDP};
use pnet::packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet::packet::ipv4::{Ipv4Flags, Ipv4Packet};
use pnet::packet::ipv6::Ipv6Packet;

/// What an IP packet says of itself, checked against its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The upper-layer protocol (IANA number), behind any IPv6 extension headers.
    pub protocol: u8,
    /// Bytes from the start of the packet to the upper-layer header; IPv4 options and IPv6
    /// extension headers included.
    pub header_length: usize,
    /// Bytes of the whole packet; always the length of the slice that was parsed.
    pub total_length: usize,
    /// The sender forbids routers to fragment it: IPv4's DF, always true for IPv6.
    pub dont_fragment: bool,
    /// A piece of a larger packet, the first one included.
    pub is_fragment: bool,
    /// Where a fragment's bytes stand in the whole, in bytes; 0 for the first and for no fragment.
    pub fragment_offset: usize,
}

/// Why a packet was dropped before anybody looked at its contents; each is a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Shorter than the header it must have.
    Truncated,
    /// Neither IPv4 nor IPv6.
    UnknownVersion,
    /// The header's own length is below the minimum or beyond the packet.
    BadHeaderLength,
    /// The length in the header is not the number of bytes there are.
    WrongLength,
    /// More or longer IPv6 extension headers than a packet may reasonably have.
    ExtensionHeaders,
    /// Not TCP, where TCP was asked for.
    NotTcp,
    /// A fragment, where a whole packet was asked for.
    Fragment,
    /// A TCP header that contradicts itself: its length, a port of 0, or flags that exclude
    /// each other.
    BadTcpHeader,
    /// An address that cannot be an end of a TCP connection: unspecified, multicast, broadcast.
    BadAddress,
}

impl DropReason {
    /// The name used in counters and reports.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::UnknownVersion => "unknown_version",
            Self::BadHeaderLength => "bad_header_length",
            Self::WrongLength => "wrong_length",
            Self::ExtensionHeaders => "extension_headers",
            Self::NotTcp => "not_tcp",
            Self::Fragment => "fragment",
            Self::BadTcpHeader => "bad_tcp_header",
            Self::BadAddress => "bad_address",
        }
    }
}

impl Header {
    /// The destination port of a UDP packet, if it is one and its UDP header is here.
    #[must_use]
    pub fn destination_port(&self, packet: &[u8]) -> Option<u16> {
        if self.protocol != UDP || self.is_later_fragment() {
            return None;
        }
        let udp = packet.get(self.header_length..)?;
        Some(u16::from_be_bytes([*udp.get(2)?, *udp.get(3)?]))
    }

    /// Whether this is an ICMP or ICMPv6 echo request or reply (RFC 792, RFC 4443 section 4).
    #[must_use]
    pub fn is_echo(&self, packet: &[u8]) -> bool {
        let expected: [u8; 2] = match self.protocol {
            ICMP => [8, 0],
            ICMPV6 => [128, 129],
            _ => return false,
        };
        let kind = packet.get(self.header_length).filter(|_| !self.is_later_fragment());
        kind.is_some_and(|kind| expected.contains(kind))
    }

    /// Whether this is an ICMP or ICMPv6 redirect: a router's advice to hosts of its own link (RFC 792, RFC 4861 section 4.5).
    #[must_use]
    pub fn is_redirect(&self, packet: &[u8]) -> bool {
        let expected = match self.protocol {
            ICMP => 5,
            ICMPV6 => 137,
            _ => return false,
        };
        let kind = packet.get(self.header_length).filter(|_| !self.is_later_fragment());
        kind == Some(&expected)
    }

    /// Whether this is a fragment that does not hold the upper-layer header.
    #[must_use]
    pub const fn is_later_fragment(&self) -> bool {
        self.fragment_offset != 0
    }
}

/// Reads the header of one whole IP packet.
///
/// # Errors
/// The first thing found wrong, as the reason to count and drop it.
pub fn parse(packet: &[u8]) -> Result<Header, DropReason> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => parse_v4(packet),
        Some(6) => parse_v6(packet),
        Some(_) => Err(DropReason::UnknownVersion),
        None => Err(DropReason::Truncated),
    }
}

fn parse_v4(packet: &[u8]) -> Result<Header, DropReason> {
    let view = Ipv4Packet::new(packet).ok_or(DropReason::Truncated)?;
    let header_length = usize::from(view.get_header_length()) * 4;
    let total_length = usize::from(view.get_total_length());
    if total_length != packet.len() {
        return Err(DropReason::WrongLength);
    }
    if header_length < IPV4_HEADER_LENGTH || header_length > total_length {
        return Err(DropReason::BadHeaderLength);
    }
    let flags = view.get_flags();
    let fragment_offset = usize::from(view.get_fragment_offset()) * 8;
    Ok(Header {
        source: view.get_source().into(),
        destination: view.get_destination().into(),
        protocol: view.get_next_level_protocol().0,
        header_length,
        total_length,
        dont_fragment: flags & Ipv4Flags::DontFragment != 0,
        is_fragment: flags & Ipv4Flags::MoreFragments != 0 || fragment_offset != 0,
        fragment_offset,
    })
}

fn parse_v6(packet: &[u8]) -> Result<Header, DropReason> {
    let view = Ipv6Packet::new(packet).ok_or(DropReason::Truncated)?;
    if usize::from(view.get_payload_length()) + IPV6_HEADER_LENGTH != packet.len() {
        return Err(DropReason::WrongLength);
    }
    let chain = walk_extensions(packet, view.get_next_header())?;
    Ok(Header {
        source: view.get_source().into(),
        destination: view.get_destination().into(),
        protocol: chain.protocol.0,
        header_length: chain.end,
        total_length: packet.len(),
        dont_fragment: true,
        is_fragment: chain.is_fragment,
        fragment_offset: chain.fragment_offset,
    })
}

/// Where a walk over IPv6 extension headers stands.
struct Chain {
    protocol: IpNextHeaderProtocol,
    end: usize,
    is_fragment: bool,
    fragment_offset: usize,
}

/// Skips the extension headers whose layout is known (RFC 8200 §4), and stops behind the fragment
/// header of a later fragment, since what follows there is not a header.
fn walk_extensions(packet: &[u8], first: IpNextHeaderProtocol) -> Result<Chain, DropReason> {
    let mut chain =
        Chain { protocol: first, end: IPV6_HEADER_LENGTH, is_fragment: false, fragment_offset: 0 };
    for _ in 0..=MAX_EXTENSION_HEADERS {
        if chain.fragment_offset != 0 || !is_extension(chain.protocol) {
            return Ok(chain);
        }
        skip_extension(packet, &mut chain)?;
    }
    Err(DropReason::ExtensionHeaders)
}

fn skip_extension(packet: &[u8], chain: &mut Chain) -> Result<(), DropReason> {
    let rest = packet.get(chain.end..).unwrap_or_default();
    let Some(&[next, length, high, low]) = rest.first_chunk::<4>() else {
        return Err(DropReason::Truncated);
    };
    let size = if chain.protocol == IpNextHeaderProtocols::Ipv6Frag {
        let field = u16::from_be_bytes([high, low]);
        chain.is_fragment = true;
        chain.fragment_offset = usize::from(field & !IPV6_FRAGMENT_FLAGS);
        IPV6_FRAGMENT_HEADER_LENGTH
    } else if chain.protocol == IpNextHeaderProtocols::Ah {
        (usize::from(length) + 2) * 4
    } else {
        (usize::from(length) + 1) * 8
    };
    if size > rest.len() {
        return Err(DropReason::BadHeaderLength);
    }
    chain.protocol = IpNextHeaderProtocol(next);
    chain.end += size;
    Ok(())
}

fn is_extension(protocol: IpNextHeaderProtocol) -> bool {
    [
        IpNextHeaderProtocols::Hopopt,
        IpNextHeaderProtocols::Ipv6Route,
        IpNextHeaderProtocols::Ipv6Frag,
        IpNextHeaderProtocols::Ipv6Opts,
        IpNextHeaderProtocols::Ah,
    ]
    .contains(&protocol)
}

/// An IPv4 header without options (RFC 791 §3.1).
pub const IPV4_HEADER_LENGTH: usize = 20;
/// The fixed IPv6 header (RFC 8200 §3).
pub const IPV6_HEADER_LENGTH: usize = 40;
/// The IPv6 fragment header (RFC 8200 §4.5).
const IPV6_FRAGMENT_HEADER_LENGTH: usize = 8;
/// The low bits of the fragment field that are not offset: two reserved, one "more fragments".
/// The offset counts units of 8 bytes and stands 3 bits up, so masking these leaves bytes.
const IPV6_FRAGMENT_FLAGS: u16 = 0b111;
/// Extension headers walked before a packet is given up. Our choice: RFC 8200 §4.1 lists seven in
/// its recommended order, two of them the same; more is an attack on the walker.
pub const MAX_EXTENSION_HEADERS: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(total: u16, flags_and_offset: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 7]);
        packet.extend(flags_and_offset.to_be_bytes());
        packet.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.resize(usize::from(total), 0xab);
        packet
    }

    fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([next, 64]);
        packet.extend("fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet.extend("fd00::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        packet.extend(payload);
        packet
    }

    #[test]
    fn reads_a_plain_v4_packet() {
        let header = parse(&v4(28, 0x4000)).unwrap();
        assert_eq!(header.source, "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(header.destination, "10.0.0.2".parse::<IpAddr>().unwrap());
        assert_eq!((header.protocol, header.header_length), (17, 20));
        assert_eq!(header.total_length, 28);
        assert!(header.dont_fragment && !header.is_fragment);
    }

    #[test]
    fn knows_first_and_later_fragments_of_v4() {
        let first = parse(&v4(28, 0x2000)).unwrap();
        assert!(first.is_fragment && !first.is_later_fragment());
        let last = parse(&v4(28, 3)).unwrap();
        assert!(last.is_fragment && last.is_later_fragment());
        assert_eq!(last.fragment_offset, 24);
    }

    #[test]
    fn refuses_lengths_that_disagree_with_the_bytes() {
        let mut short = v4(28, 0);
        short.pop();
        assert_eq!(parse(&short), Err(DropReason::WrongLength));
        let mut long = v6(17, &[0; 8]);
        long.push(0);
        assert_eq!(parse(&long), Err(DropReason::WrongLength));
        assert_eq!(parse(&[]), Err(DropReason::Truncated));
        assert_eq!(parse(&[0x45; 19]), Err(DropReason::Truncated));
        assert_eq!(parse(&[0x51; 40]), Err(DropReason::UnknownVersion));
    }

    #[test]
    fn refuses_a_v4_header_length_out_of_range() {
        let mut small = v4(28, 0);
        small[0] = 0x44;
        assert_eq!(parse(&small), Err(DropReason::BadHeaderLength));
        small[0] = 0x4f;
        assert_eq!(parse(&small), Err(DropReason::BadHeaderLength));
    }

    #[test]
    fn walks_v6_extension_headers_to_the_upper_protocol() {
        // Hop-by-hop (8 bytes), then a fragment header of the first fragment, then UDP.
        let mut payload = vec![44, 0, 1, 4, 0, 0, 0, 0];
        payload.extend([17, 0, 0, 1, 0, 0, 0, 9]);
        payload.extend([0; 8]);
        let header = parse(&v6(0, &payload)).unwrap();
        assert_eq!((header.protocol, header.header_length), (17, 56));
        assert!(header.is_fragment && !header.is_later_fragment());
    }

    #[test]
    fn knows_echoes_of_both_versions_and_nothing_else_as_such() {
        for (kind, is_echo) in [(0, true), (8, true), (3, false), (128, false), (129, false)] {
            let mut packet = v4(28, 0);
            (packet[9], packet[20]) = (ICMP, kind);
            assert_eq!(parse(&packet).unwrap().is_echo(&packet), is_echo, "ICMP {kind}");
        }
        for (kind, is_echo) in [(128, true), (129, true), (0, false), (8, false), (1, false)] {
            let packet = v6(ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(parse(&packet).unwrap().is_echo(&packet), is_echo, "ICMPv6 {kind}");
        }
        let mut later_fragment = v4(28, 1);
        (later_fragment[9], later_fragment[20]) = (ICMP, 8);
        assert!(!parse(&later_fragment).unwrap().is_echo(&later_fragment));
    }

    #[test]
    fn knows_redirects_of_both_versions_and_nothing_else_as_such() {
        for (kind, is_redirect) in [(5, true), (0, false), (8, false), (137, false)] {
            let mut packet = v4(28, 0);
            (packet[9], packet[20]) = (ICMP, kind);
            assert_eq!(parse(&packet).unwrap().is_redirect(&packet), is_redirect, "ICMP {kind}");
        }
        for (kind, is_redirect) in [(137, true), (5, false), (135, false)] {
            let packet = v6(ICMPV6, &[kind, 0, 0, 0]);
            assert_eq!(parse(&packet).unwrap().is_redirect(&packet), is_redirect, "ICMPv6 {kind}");
        }
    }

    #[test]
    fn stops_at_a_later_v6_fragment() {
        let payload = [0, 0, 0, 0x10, 0, 0, 0, 9, 0xff, 0xff];
        let header = parse(&v6(44, &payload)).unwrap();
        assert_eq!(header.fragment_offset, 16);
        assert_eq!(header.header_length, 48);
    }

    #[test]
    fn gives_up_on_endless_extension_headers() {
        let payload = [60u8, 0, 0, 0, 0, 0, 0, 0].repeat(MAX_EXTENSION_HEADERS + 1);
        assert_eq!(parse(&v6(60, &payload)), Err(DropReason::ExtensionHeaders));
        let allowed =
            [[60u8, 0, 0, 0, 0, 0, 0, 0].repeat(MAX_EXTENSION_HEADERS - 1), vec![17, 0, 0, 0, 0, 0, 0, 0]]
                .concat();
        assert_eq!(parse(&v6(60, &allowed)).unwrap().protocol, 17);
    }

    #[test]
    fn refuses_an_extension_header_that_leaves_the_packet() {
        assert_eq!(parse(&v6(60, &[17, 9, 0, 0, 0, 0, 0, 0])), Err(DropReason::BadHeaderLength));
        assert_eq!(parse(&v6(60, &[17, 0])), Err(DropReason::Truncated));
    }

    proptest! {
        #[test]
        fn survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 4u8..=6) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = version << 4 | *first & 0x0f;
            }
            if let Ok(header) = parse(&bytes) {
                prop_assert!(header.header_length <= header.total_length);
                prop_assert_eq!(header.total_length, bytes.len());
            }
        }

        #[test]
        fn survives_any_v6_extension_chain(
            next in prop::sample::select(vec![0u8, 43, 44, 51, 60]),
            bytes in proptest::collection::vec(prop::sample::select(vec![0u8, 1, 2, 6, 43, 44, 51, 60, 255]), 0..200),
        ) {
            let packet = v6(next, &bytes);
            if let Ok(header) = parse(&packet) {
                prop_assert!(header.header_length <= packet.len());
            }
        }
    }
}
