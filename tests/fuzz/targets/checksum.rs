//! The Internet checksum (RFC 1071) over a whole IP packet, independent of the code under test.

use std::net::IpAddr;

use vpn::packet;

/// Asserts that a packet of ours is one that any host takes: lengths and every checksum are right.
pub(crate) fn assert_valid(bytes: &[u8]) -> packet::Header {
    let header = packet::parse(bytes).unwrap_or_else(|error| panic!("we made {bytes:02x?}: {error:?}"));
    if header.source.is_ipv4() {
        let sum = sum_of(&bytes[..header.header_length]);
        assert_eq!(fold(sum), 0xffff, "IPv4 checksum of {bytes:02x?}");
    }
    if matches!(header.protocol, packet::TCP | packet::ICMP | packet::ICMPV6) {
        let upper = &bytes[header.header_length..];
        let pseudo = if header.protocol == packet::ICMP { 0 } else { pseudo_header(&header, upper.len()) };
        assert_eq!(fold(pseudo + sum_of(upper)), 0xffff, "checksum of {bytes:02x?}");
    }
    header
}

fn pseudo_header(header: &packet::Header, length: usize) -> u64 {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    sum_of(&octets(header.source))
        + sum_of(&octets(header.destination))
        + u64::from(header.protocol)
        + length as u64
}

fn sum_of(bytes: &[u8]) -> u64 {
    let pair = |pair: &[u8]| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u64::from(low));
    bytes.chunks(2).map(pair).sum()
}

fn fold(mut sum: u64) -> u64 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
