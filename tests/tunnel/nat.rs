//! A NAT before the server: each 4-tuple of the clients looks like another one to it, until the NAT forgets.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The mappings of a NAT with one rewriting for each inner address and port.
#[derive(Debug, Default)]
pub(crate) struct Nat {
    /// Without it, packets pass as they are.
    pub(crate) is_on: bool,
    outer_of: BTreeMap<SocketAddrV4, SocketAddrV4>,
    inner_of: BTreeMap<SocketAddrV4, SocketAddrV4>,
    next_port: u16,
    address: u8,
}

impl Nat {
    /// Rewrites the source of a packet to the server.
    pub(crate) fn translate_up(&mut self, packet: &mut [u8]) {
        let Some(inner) = endpoint(packet, SOURCE).filter(|_| self.is_on) else { return };
        let outer = match self.outer_of.get(&inner) {
            Some(&outer) => outer,
            None => self.map(inner),
        };
        set_endpoint(packet, SOURCE, outer);
    }

    /// Rewrites the destination of a packet from the server; false if nobody is behind it any more.
    pub(crate) fn translate_down(&self, packet: &mut [u8]) -> bool {
        let Some(outer) = endpoint(packet, DESTINATION).filter(|_| self.is_on) else { return !self.is_on };
        let Some(&inner) = self.inner_of.get(&outer) else { return false };
        set_endpoint(packet, DESTINATION, inner);
        true
    }

    /// Forgets every mapping: the next packets come from new ports of, perhaps, a new address.
    pub(crate) fn rebind(&mut self, moves: bool) {
        self.outer_of.clear();
        self.inner_of.clear();
        self.address = self.address.wrapping_add(u8::from(moves));
    }

    fn map(&mut self, inner: SocketAddrV4) -> SocketAddrV4 {
        self.next_port = self.next_port.wrapping_add(1);
        let outer = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, self.address), 10_000 + self.next_port);
        self.outer_of.insert(inner, outer);
        self.inner_of.insert(outer, inner);
        outer
    }
}

/// Where an address and a port stand in an IPv4 packet without options, whatever the network made of the rest.
type Place = (usize, usize);

pub(crate) const SOURCE: Place = (12, 20);
pub(crate) const DESTINATION: Place = (16, 22);

pub(crate) fn endpoint(packet: &[u8], (address, port): Place) -> Option<SocketAddrV4> {
    let address: &[u8; 4] = packet.get(address..)?.first_chunk()?;
    let port = packet.get(port..)?.first_chunk()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(*address), u16::from_be_bytes(*port)))
}

pub(crate) fn set_endpoint(packet: &mut [u8], (address, port): Place, endpoint: SocketAddrV4) {
    packet[address..address + 4].copy_from_slice(&endpoint.ip().octets());
    packet[port..port + 2].copy_from_slice(&endpoint.port().to_be_bytes());
}
