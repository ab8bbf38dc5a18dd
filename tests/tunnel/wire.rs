//! Where things stand in an outer packet, whatever the network made of the rest of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// One end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// Bytes of the IP header, without options.
pub(crate) fn ip_header(packet: &[u8]) -> usize {
    if is_ipv6(packet) { 40 } else { 20 }
}

/// Address and port of one end; `None` if the packet is too short for them.
pub(crate) fn endpoint(packet: &[u8], end: End) -> Option<SocketAddr> {
    let (address, port) = places(packet, end);
    let rest = packet.get(address..)?;
    let address: IpAddr = if is_ipv6(packet) {
        Ipv6Addr::from(*rest.first_chunk::<16>()?).into()
    } else {
        Ipv4Addr::from(*rest.first_chunk::<4>()?).into()
    };
    Some(SocketAddr::new(address, u16::from_be_bytes(*packet.get(port..)?.first_chunk()?)))
}

/// Writes address and port of one end of a packet of the same family.
pub(crate) fn set_endpoint(packet: &mut [u8], end: End, endpoint: SocketAddr) {
    let (address, port) = places(packet, end);
    match endpoint.ip() {
        IpAddr::V4(v4) => packet[address..address + 4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => packet[address..address + 16].copy_from_slice(&v6.octets()),
    }
    packet[port..port + 2].copy_from_slice(&endpoint.port().to_be_bytes());
}

/// Makes the IP header say how long the packet is.
pub(crate) fn set_length(packet: &mut [u8]) {
    let (at, beside) = if is_ipv6(packet) { (4, 40) } else { (2, 0) };
    let length = u16::try_from(packet.len() - beside).expect("a packet");
    packet[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

fn is_ipv6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|byte| byte >> 4 == 6)
}

fn places(packet: &[u8], end: End) -> (usize, usize) {
    match (is_ipv6(packet), end) {
        (false, End::Source) => (12, 20),
        (false, End::Destination) => (16, 22),
        (true, End::Source) => (8, 40),
        (true, End::Destination) => (24, 42),
    }
}
