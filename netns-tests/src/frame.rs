//! What the emulator must know of an Ethernet frame: its size on the wire and the flow it belongs to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A transport flow, the same value for both of its directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// IP protocol number: [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// The two ends, the smaller first.
    pub ends: [SocketAddr; 2],
}

impl Flow {
    /// The flow between `one` and `other`, in whichever order they come.
    #[must_use]
    pub fn new(protocol: u8, one: SocketAddr, other: SocketAddr) -> Self {
        Self { protocol, ends: if one <= other { [one, other] } else { [other, one] } }
    }
}

/// The bytes a frame takes on the emulated link: the IP packet, as an ISP counts its rate.
#[must_use]
pub fn wire_bytes(frame: &[u8]) -> usize {
    frame.len().saturating_sub(ETHERNET_HEADER)
}

/// The IP protocol number of the frame's packet; `None` if it is not IP.
#[must_use]
pub fn protocol(frame: &[u8]) -> Option<u8> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    match ether_type(frame)? {
        ETHERTYPE_IPV4 => packet.get(9).copied(),
        ETHERTYPE_IPV6 => packet.get(6).copied(),
        _ => None,
    }
}

/// The TCP or UDP flow of the frame; `None` for anything else, later fragments and IPv6 extension headers among it.
#[must_use]
pub fn flow(frame: &[u8]) -> Option<Flow> {
    let protocol = protocol(frame).filter(|protocol| matches!(*protocol, TCP | UDP))?;
    let packet = frame.get(ETHERNET_HEADER..)?;
    let (source, destination, transport) = match ether_type(frame)? {
        ETHERTYPE_IPV4 => ipv4(packet)?,
        _ => ipv6(packet)?,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*transport.get(at)?, *transport.get(at + 1)?]));
    Some(Flow::new(protocol, SocketAddr::new(source, port(0)?), SocketAddr::new(destination, port(2)?)))
}

fn ether_type(frame: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]))
}

fn ipv4(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let fragment_offset = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x1fff;
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let address =
        |at: usize| Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?)));
    (fragment_offset == 0).then_some(())?;
    Some((address(12)?, address(16)?, packet.get(header..)?))
}

fn ipv6(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let address =
        |at: usize| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?)));
    Some((address(8)?, address(24)?, packet.get(40..)?))
}

/// Length of an Ethernet header without a VLAN tag.
pub const ETHERNET_HEADER: usize = 14;
/// IP protocol number of TCP (RFC 9293).
pub const TCP: u8 = 6;
/// IP protocol number of UDP (RFC 768).
pub const UDP: u8 = 17;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An Ethernet frame with an IPv4 packet of `size` bytes in all.
    pub(crate) fn ipv4_frame(protocol: u8, source_port: u16, destination_port: u16, size: usize) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET_HEADER + size];
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
        let packet = &mut frame[ETHERNET_HEADER..];
        packet[0] = 0x45;
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&[10, 0, 0, 2]);
        packet[16..20].copy_from_slice(&[192, 0, 2, 10]);
        packet[20..22].copy_from_slice(&source_port.to_be_bytes());
        packet[22..24].copy_from_slice(&destination_port.to_be_bytes());
        frame
    }

    #[test]
    fn finds_the_same_flow_in_both_directions() {
        let there = flow(&ipv4_frame(TCP, 40000, 443, 60)).unwrap();
        let [one, other] = there.ends;
        assert_eq!(there, Flow::new(TCP, other, one));
        assert_eq!(one, "10.0.0.2:40000".parse().unwrap());
        assert_eq!(other, "192.0.2.10:443".parse().unwrap());
    }

    #[test]
    fn finds_an_ipv6_flow() {
        let mut frame = vec![0; ETHERNET_HEADER + 60];
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV6.to_be_bytes());
        frame[ETHERNET_HEADER + 6] = UDP;
        frame[ETHERNET_HEADER + 40..ETHERNET_HEADER + 44].copy_from_slice(&[0, 53, 1, 0]);
        assert_eq!(
            flow(&frame).unwrap(),
            Flow::new(UDP, "[::]:53".parse().unwrap(), "[::]:256".parse().unwrap())
        );
    }

    #[test]
    fn sees_no_flow_in_a_later_fragment_or_a_short_frame() {
        let mut frame = ipv4_frame(UDP, 1, 2, 60);
        frame[ETHERNET_HEADER + 7] = 1;
        assert_eq!(flow(&frame), None);
        for length in 0..ETHERNET_HEADER + 24 {
            assert_eq!(flow(&ipv4_frame(UDP, 1, 2, 60)[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn counts_the_ip_packet_as_wire_bytes() {
        assert_eq!(wire_bytes(&ipv4_frame(UDP, 1, 2, 1500)), 1500);
        assert_eq!(wire_bytes(&[]), 0);
    }
}
