//! What the emulator must know of a frame: its size on the wire, its protocol and the flow it belongs to.

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

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// An Ethernet frame without a VLAN tag.
    Ethernet,
    /// A bare IPv4 or IPv6 packet.
    Ip,
}

impl Layer {
    /// Where the IP packet begins in a frame.
    pub(crate) const fn header(self) -> usize {
        match self {
            Self::Ethernet => ETHERNET_HEADER,
            Self::Ip => 0,
        }
    }

    /// The bytes a frame takes on the line: the IP packet, as an ISP counts its rate.
    pub(crate) const fn wire_bytes(self, frame: &[u8]) -> usize {
        frame.len().saturating_sub(self.header())
    }

    /// The frame's IP header; `None` if it is not IP or cut short.
    pub(crate) fn parse(self, frame: &[u8]) -> Option<IpHeader> {
        let start = self.header();
        let packet = frame.get(start..)?;
        let version = packet.first()? >> 4;
        let ether_type = match self {
            Self::Ethernet => u16_at(frame, 12)?,
            Self::Ip => 0,
        };
        match (self, ether_type, version) {
            (Self::Ip, _, 4) | (Self::Ethernet, ETHERTYPE_IPV4, 4) => ipv4(start, packet),
            (Self::Ip, _, 6) | (Self::Ethernet, ETHERTYPE_IPV6, 6) => ipv6(start, packet),
            _ => None,
        }
    }
}

/// Where things stand in a frame with an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IpHeader {
    /// Where the packet begins.
    pub(crate) start: usize,
    /// Where the packet ends; a frame may be padded.
    pub(crate) end: usize,
    pub(crate) is_ipv6: bool,
    /// Protocol number of what the packet carries, behind any extension headers.
    pub(crate) protocol: u8,
    /// Where that begins.
    pub(crate) transport: usize,
    /// A fragment that is not the first has no transport header.
    pub(crate) is_later_fragment: bool,
}

impl IpHeader {
    pub(crate) fn source(&self, frame: &[u8]) -> Option<IpAddr> {
        self.address(frame, if self.is_ipv6 { 8 } else { 12 })
    }

    pub(crate) fn destination(&self, frame: &[u8]) -> Option<IpAddr> {
        self.address(frame, if self.is_ipv6 { 24 } else { 16 })
    }

    fn address(&self, frame: &[u8], offset: usize) -> Option<IpAddr> {
        let at = self.start + offset;
        Some(if self.is_ipv6 {
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?))
        } else {
            IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?))
        })
    }

    /// Source and destination with their ports; `None` for anything but TCP and UDP with a header.
    pub(crate) fn ends(&self, frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
        if self.is_later_fragment || !matches!(self.protocol, TCP | UDP) {
            return None;
        }
        let source = SocketAddr::new(self.source(frame)?, u16_at(frame, self.transport)?);
        let destination = SocketAddr::new(self.destination(frame)?, u16_at(frame, self.transport + 2)?);
        Some((source, destination))
    }

    /// The TCP or UDP flow of the frame; `None` for anything else.
    pub(crate) fn flow(&self, frame: &[u8]) -> Option<Flow> {
        let (source, destination) = self.ends(frame)?;
        Some(Flow::new(self.protocol, source, destination))
    }
}

fn ipv4(start: usize, packet: &[u8]) -> Option<IpHeader> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = usize::from(u16_at(packet, 2)?);
    let protocol = *packet.get(9)?;
    let is_later_fragment = u16_at(packet, 6)? & 0x1fff != 0;
    if header < IPV4_HEADER || packet.len() < header {
        return None;
    }
    let end = start + total.clamp(header, packet.len());
    Some(IpHeader { start, end, is_ipv6: false, protocol, transport: start + header, is_later_fragment })
}

fn ipv6(start: usize, packet: &[u8]) -> Option<IpHeader> {
    let payload = usize::from(u16_at(packet, 4)?);
    let end = (IPV6_HEADER + payload).min(packet.len());
    let (mut protocol, mut at, mut is_later_fragment) = (*packet.get(6)?, IPV6_HEADER, false);
    packet.get(..IPV6_HEADER)?;
    while matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) && !is_later_fragment {
        let next = *packet.get(at)?;
        if protocol == FRAGMENT {
            is_later_fragment = u16_at(packet, at + 2)? & 0xfff8 != 0;
            at += 8;
        } else {
            at += 8 + usize::from(*packet.get(at + 1)?) * 8;
        }
        protocol = next;
    }
    Some(IpHeader {
        start,
        end: start + end,
        is_ipv6: true,
        protocol,
        transport: start + at,
        is_later_fragment,
    })
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// IP protocol number of TCP (RFC 9293).
pub const TCP: u8 = 6;
/// IP protocol number of UDP (RFC 768).
pub const UDP: u8 = 17;

/// Length of an Ethernet header without a VLAN tag.
pub(crate) const ETHERNET_HEADER: usize = 14;
/// Length of an IPv4 header without options (RFC 791, section 3.1).
pub(crate) const IPV4_HEADER: usize = 20;
/// Length of an IPv6 header without extensions (RFC 8200, section 3).
pub(crate) const IPV6_HEADER: usize = 40;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

// Extension headers of IPv6 (RFC 8200, section 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CLIENT, ENDS, SERVER, Tcp, address, ethernet, udp};
    use crate::{Direction, tcp};

    fn flow(layer: Layer, frame: &[u8]) -> Option<Flow> {
        layer.parse(frame)?.flow(frame)
    }

    /// Puts an extension header between the IPv6 header and what follows.
    fn extended(packet: &[u8], kind: u8, mut extension: Vec<u8>) -> Vec<u8> {
        let mut packet = packet.to_vec();
        extension[0] = std::mem::replace(&mut packet[6], kind);
        packet.splice(IPV6_HEADER..IPV6_HEADER, extension);
        let payload = u16::try_from(packet.len() - IPV6_HEADER).unwrap();
        packet[4..6].copy_from_slice(&payload.to_be_bytes());
        packet
    }

    #[test]
    fn finds_the_same_flow_in_both_directions_of_both_families() {
        for (client, server) in ENDS {
            let expected = Flow::new(UDP, address(server), address(client));
            for packet in [udp(client, server, 100), udp(server, client, 100)] {
                assert_eq!(flow(Layer::Ip, &packet), Some(expected));
                assert_eq!(flow(Layer::Ethernet, &ethernet(&packet)), Some(expected));
            }
            let segment = Tcp::between(client, server, Direction::In, tcp::ACK).packet();
            assert_eq!(flow(Layer::Ip, &segment).unwrap().protocol, TCP);
        }
    }

    #[test]
    fn finds_a_flow_behind_extension_headers() {
        let (client, server) = ENDS[1];
        let plain = udp(client, server, 100);
        let mut packet = plain.clone();
        for (kind, length) in [(DESTINATION_OPTIONS, 16), (FRAGMENT, 8), (ROUTING, 8), (HOP_BY_HOP, 24)] {
            let mut extension = vec![0; length];
            extension[1] = if kind == FRAGMENT { 0 } else { u8::try_from(length / 8 - 1).unwrap() };
            packet = extended(&packet, kind, extension);
            assert_eq!(flow(Layer::Ip, &packet), flow(Layer::Ip, &plain), "{kind}");
        }
    }

    #[test]
    fn sees_no_flow_in_a_later_fragment() {
        let mut later = udp(CLIENT, SERVER, 100);
        later[7] = 1;
        assert_eq!(flow(Layer::Ip, &later), None);
        let (client, server) = ENDS[1];
        let later = extended(&udp(client, server, 100), FRAGMENT, vec![0, 0, 0, 8, 0, 0, 0, 1]);
        let header = Layer::Ip.parse(&later).unwrap();
        assert_eq!((header.flow(&later), header.protocol), (None, UDP));
    }

    #[test]
    fn a_frame_that_is_cut_short_or_is_no_ip_shows_nothing() {
        for (client, server) in ENDS {
            let packet = udp(client, server, 100);
            let ports = if packet[0] >> 4 == 4 { IPV4_HEADER + 4 } else { IPV6_HEADER + 4 };
            for length in 0..ports {
                assert_eq!(flow(Layer::Ip, &packet[..length]), None, "{length} bytes");
            }
            let mut arp = ethernet(&packet);
            arp[13] = 6;
            assert_eq!(Layer::Ethernet.parse(&arp), None);
            for first in [0, 0x41, 0x50, 0xf0] {
                assert_eq!(Layer::Ip.parse(&[&[first], &packet[1..]].concat()), None, "{first:#x}");
            }
        }
    }

    #[test]
    fn knows_the_padding_of_a_short_frame() {
        let packet = udp(CLIENT, SERVER, 30);
        let mut frame = ethernet(&packet);
        frame.resize(60, 0);
        assert_eq!(Layer::Ethernet.parse(&frame).unwrap().end, ETHERNET_HEADER + 30);
        assert_eq!(Layer::Ethernet.wire_bytes(&frame), 46);
        assert_eq!(Layer::Ethernet.wire_bytes(&[]), 0);
    }
}
