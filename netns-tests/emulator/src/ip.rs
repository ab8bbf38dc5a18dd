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
