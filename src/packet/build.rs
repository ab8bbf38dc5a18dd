//! Writes the IP headers of the packets that we make ourselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet::packet::ip::IpNextHeaderProtocol;
use pnet::packet::ipv4::{self, Ipv4Flags, MutableIpv4Packet};
use pnet::packet::ipv6::MutableIpv6Packet;

use super::header::{IPV4_HEADER_LENGTH, IPV6_HEADER_LENGTH};

/// A packet under construction: a finished IP header and a zeroed payload behind it.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) packet: Vec<u8>,
    pub(super) ends: Ends,
}

/// Source and destination, in one family.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ends {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Ends {
    /// Pairs two addresses; `None` if their families differ.
    pub(super) fn new(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4(source, destination)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6(source, destination)),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

impl Draft {
    /// Starts a packet of `payload_length` bytes behind its IP header; `None` if an IP packet
    /// cannot be that long.
    pub(super) fn new(ends: Ends, protocol: IpNextHeaderProtocol, payload_length: usize) -> Option<Self> {
        let packet = match ends {
            Ends::V4(source, destination) => emit_v4(source, destination, protocol, payload_length)?,
            Ends::V6(source, destination) => emit_v6(source, destination, protocol, payload_length)?,
        };
        Some(Self { packet, ends })
    }

    /// The bytes behind the IP header.
    pub(super) fn payload_mut(&mut self) -> &mut [u8] {
        let header = match self.ends {
            Ends::V4(..) => IPV4_HEADER_LENGTH,
            Ends::V6(..) => IPV6_HEADER_LENGTH,
        };
        self.packet.get_mut(header..).unwrap_or_default()
    }
}

fn emit_v4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: IpNextHeaderProtocol,
    payload_length: usize,
) -> Option<Vec<u8>> {
    let total = u16::try_from(IPV4_HEADER_LENGTH + payload_length).ok()?;
    let mut packet = vec![0; usize::from(total)];
    let mut view = MutableIpv4Packet::new(&mut packet)?;
    view.set_version(4);
    view.set_header_length(5);
    view.set_total_length(total);
    view.set_flags(Ipv4Flags::DontFragment);
    view.set_ttl(HOP_LIMIT);
    view.set_next_level_protocol(protocol);
    view.set_source(source);
    view.set_destination(destination);
    let checksum = ipv4::checksum(&view.to_immutable());
    view.set_checksum(checksum);
    Some(packet)
}

fn emit_v6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: IpNextHeaderProtocol,
    payload_length: usize,
) -> Option<Vec<u8>> {
    let length = u16::try_from(payload_length).ok()?;
    let mut packet = vec![0; IPV6_HEADER_LENGTH + payload_length];
    let mut view = MutableIpv6Packet::new(&mut packet)?;
    view.set_version(6);
    view.set_payload_length(length);
    view.set_next_header(protocol);
    view.set_hop_limit(HOP_LIMIT);
    view.set_source(source);
    view.set_destination(destination);
    Some(packet)
}

/// Hop limit of what we send (RFC 1700's recommended default, Linux's too).
const HOP_LIMIT: u8 = 64;
