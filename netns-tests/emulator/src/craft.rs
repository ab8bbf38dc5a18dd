//! Packets that boxes make up.

use std::net::{IpAddr, SocketAddr};

use crate::checksum::{checksum, pseudo_header};
use crate::ip::{IPV4_HEADER, IPV6_HEADER, IpHeader, Layer, TCP};
use crate::tcp::TCP_HEADER;

/// A TCP segment without options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bare {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
}

impl Bare {
    /// The IP packet with this data; `None` if the two addresses are not of one family.
    pub(crate) fn packet(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut segment = vec![0; TCP_HEADER];
        segment[0..2].copy_from_slice(&self.source.port().to_be_bytes());
        segment[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        segment[4..8].copy_from_slice(&self.seq.to_be_bytes());
        segment[8..12].copy_from_slice(&self.ack.to_be_bytes());
        segment[12] = u8::try_from(TCP_HEADER / 4).unwrap_or(0) << 4;
        segment[13] = self.flags;
        segment[14..16].copy_from_slice(&self.window.to_be_bytes());
        segment.extend_from_slice(payload);
        ip_packet(self.source.ip(), self.destination.ip(), TCP, &segment, TCP_CHECKSUM)
    }
}

/// An IP packet around `payload`, whose checksum at offset `field` of the payload is filled in.
pub(crate) fn ip_packet(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &[u8],
    field: usize,
) -> Option<Vec<u8>> {
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0; IPV4_HEADER];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&length(IPV4_HEADER + payload.len())?);
            header[6] = DONT_FRAGMENT;
            header[8] = HOP_LIMIT;
            header[9] = protocol;
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&destination.octets());
            let sum = checksum(&header, 0);
            header[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0; IPV6_HEADER];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&length(payload.len())?);
            header[6] = protocol;
            header[7] = HOP_LIMIT;
            header[8..24].copy_from_slice(&source.octets());
            header[24..40].copy_from_slice(&destination.octets());
            header
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    packet.extend_from_slice(payload);
    fill_checksum(&mut packet, field)?;
    Some(packet)
}

/// Computes the checksum at offset `field` behind the IP header. ICMP of IPv4 is the only one without a pseudo-header.
fn fill_checksum(packet: &mut [u8], field: usize) -> Option<()> {
    let header = Layer::Ip.parse(packet)?;
    let pseudo = if header.protocol == ICMP { 0 } else { pseudo_header(packet, &header) };
    let at = header.transport + field;
    packet.get_mut(at..at + 2)?.fill(0);
    let sum = checksum(packet.get(header.transport..)?, pseudo);
    packet.get_mut(at..at + 2)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Tells the sender of a packet that only `mtu` bytes get through: the IP packet with an ICMP message from the packet's
/// destination. `None` for packets that nobody may be told about (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
pub(crate) fn too_big(frame: &[u8], header: &IpHeader, mtu: usize) -> Option<Vec<u8>> {
    let packet = frame.get(header.start..header.end)?;
    if header.is_later_fragment || is_icmp_error(frame, header) {
        return None;
    }
    let (source, destination) = (header.destination(frame)?, header.source(frame)?);
    let mut message = vec![0; ICMP_HEADER];
    let (protocol, quoted) = if header.is_ipv6 {
        message[0] = PACKET_TOO_BIG;
        message[4..8].copy_from_slice(&u32::try_from(mtu).ok()?.to_be_bytes());
        (ICMPV6, IPV6_QUOTE)
    } else {
        message[0] = DESTINATION_UNREACHABLE;
        message[1] = FRAGMENTATION_NEEDED;
        message[6..8].copy_from_slice(&u16::try_from(mtu).ok()?.to_be_bytes());
        (ICMP, IPV4_QUOTE)
    };
    message.extend_from_slice(&packet[..packet.len().min(quoted)]);
    ip_packet(source, destination, protocol, &message, ICMP_CHECKSUM)
}

/// Whether a packet is an ICMP message about another packet, which it quotes.
pub(crate) fn is_icmp_error(frame: &[u8], header: &IpHeader) -> bool {
    let kind = frame.get(header.transport).copied();
    match header.protocol {
        _ if header.is_later_fragment => false,
        ICMP => matches!(kind, Some(3 | 4 | 5 | 11 | 12)),
        ICMPV6 => matches!(kind, Some(1..=127)),
        _ => false,
    }
}

/// Puts the Ethernet header of `like` in front of a packet, with the addresses exchanged if it goes back.
pub(crate) fn framed(layer: Layer, like: &[u8], packet: &[u8], goes_back: bool) -> Option<Vec<u8>> {
    let mut frame = like.get(..layer.header())?.to_vec();
    if goes_back && layer == Layer::Ethernet {
        let (destination, source) = (like.get(0..6)?, like.get(6..12)?);
        frame[0..6].copy_from_slice(source);
        frame[6..12].copy_from_slice(destination);
    }
    frame.extend_from_slice(packet);
    Some(frame)
}

fn length(bytes: usize) -> Option<[u8; 2]> {
    Some(u16::try_from(bytes).ok()?.to_be_bytes())
}

/// Where the checksums stand in their headers.
pub(crate) const IPV4_CHECKSUM: usize = 10;
pub(crate) const TCP_CHECKSUM: usize = 16;
pub(crate) const UDP_CHECKSUM: usize = 6;
pub(crate) const ICMP_CHECKSUM: usize = 2;

/// IP protocol numbers of ICMP (RFC 792) and ICMPv6 (RFC 4443).
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// Length of the header of an ICMP error, before the packet that it quotes.
pub(crate) const ICMP_HEADER: usize = 8;

const DESTINATION_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const PACKET_TOO_BIG: u8 = 2;

/// How much an ICMP error quotes: up to 576 bytes in all (RFC 1812, section 4.3.2.3), in IPv6 up to its smallest MTU.
const IPV4_QUOTE: usize = 576 - IPV4_HEADER - ICMP_HEADER;
const IPV6_QUOTE: usize = 1280 - IPV6_HEADER - ICMP_HEADER;

const DONT_FRAGMENT: u8 = 0x40;

/// What most systems begin with.
const HOP_LIMIT: u8 = 64;
