//! Changing one end of a packet, with all checksums that know of it.

use std::net::{IpAddr, SocketAddr};

use crate::checksum::{Kind, kind, update};
use crate::craft::{ICMP_CHECKSUM, ICMP_HEADER, ICMPV6, IPV4_CHECKSUM, TCP_CHECKSUM, UDP_CHECKSUM};
use crate::ip::{IpHeader, TCP, UDP};

/// Which end of a packet changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Source,
    Destination,
}

/// Replaces one end of a TCP or UDP packet and updates its checksums.
pub(crate) fn rewrite(frame: &mut [u8], header: &IpHeader, role: Role, old: SocketAddr, new: SocketAddr) {
    let field = header.transport + if header.protocol == TCP { TCP_CHECKSUM } else { UDP_CHECKSUM };
    let kind = kind(frame, header, field);
    let (old_address, new_address) = (octets(old.ip()), octets(new.ip()));
    update(frame, field, kind, &old_address, &new_address);
    if kind == Kind::Full {
        // A partial checksum covers the pseudo-header, which has no ports.
        update(frame, field, kind, &old.port().to_be_bytes(), &new.port().to_be_bytes());
    }
    if header.protocol == UDP && kind == Kind::Full && frame.get(field..field + 2) == Some(&[0, 0]) {
        // Zero would say that there is none (RFC 768).
        frame[field..field + 2].fill(0xff);
    }
    write_address(frame, header, role, &old_address, &new_address);
    write_port(frame, header.transport, role, new.port());
}

/// Replaces one end of a packet that an ICMP error quotes, and the end of the error itself that is the same.
pub(crate) fn rewrite_quoted(
    frame: &mut [u8],
    outer: &IpHeader,
    quoted: &IpHeader,
    role: Role,
    old: SocketAddr,
    new: SocketAddr,
) {
    let start = outer.transport + ICMP_HEADER;
    let quoted = IpHeader { start, transport: start + quoted.transport, end: outer.end, ..*quoted };
    let (old_address, new_address) = (octets(old.ip()), octets(new.ip()));
    let icmp = outer.transport + ICMP_CHECKSUM;
    update(frame, icmp, Kind::Full, &old.port().to_be_bytes(), &new.port().to_be_bytes());
    write_port(frame, quoted.transport, role, new.port());
    // The sum over an IPv4 header with its own checksum does not change, so ICMP's does only in IPv6.
    if quoted.is_ipv6 {
        update(frame, icmp, Kind::Full, &old_address, &new_address);
    }
    write_address(frame, &quoted, role, &old_address, &new_address);
    let (role, end) = match role {
        Role::Source => (Role::Destination, outer.destination(frame)),
        Role::Destination => (Role::Source, outer.source(frame)),
    };
    if end == Some(old.ip()) {
        if outer.protocol == ICMPV6 {
            update(frame, icmp, Kind::Full, &old_address, &new_address);
        }
        write_address(frame, outer, role, &old_address, &new_address);
    }
}

/// Replaces an address; IPv4's header has a checksum of its own.
fn write_address(frame: &mut [u8], header: &IpHeader, role: Role, old: &[u8], new: &[u8]) {
    let at = header.start
        + match (header.is_ipv6, role) {
            (false, Role::Source) => 12,
            (false, Role::Destination) => 16,
            (true, Role::Source) => 8,
            (true, Role::Destination) => 24,
        };
    if !header.is_ipv6 {
        update(frame, header.start + IPV4_CHECKSUM, Kind::Full, old, new);
    }
    if let Some(address) = frame.get_mut(at..at + new.len()) {
        address.copy_from_slice(new);
    }
}

fn write_port(frame: &mut [u8], transport: usize, role: Role, port: u16) {
    let at = transport + if role == Role::Source { 0 } else { 2 };
    if let Some(field) = frame.get_mut(at..at + 2) {
        field.copy_from_slice(&port.to_be_bytes());
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
