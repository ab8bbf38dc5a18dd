//! Outer packets as the targets make and read them.

use std::net::SocketAddr;

use vpn::carrier::{Flags, Repr, Segment, Seq, SynOptions, parse};

/// The headers of a segment without options.
pub(crate) fn repr(source: SocketAddr, destination: SocketAddr, flags: Flags, seq: Seq, ack: Seq) -> Repr {
    let (window, options) = (0xff00, SynOptions::NONE);
    let (hop_limit, flow_label, ip_id) = (64, 7, 9);
    Repr { source, destination, seq, ack, flags, window, options, hop_limit, flow_label, ip_id }
}

/// A whole packet.
pub(crate) fn emit(repr: &Repr, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; repr.header_len()];
    packet.extend_from_slice(payload);
    repr.emit(&mut packet).expect("a packet that an IP header can describe");
    packet
}

/// A packet of ours, which must be one.
pub(crate) fn read(packet: &[u8]) -> Segment {
    super::checksum::assert_valid(packet);
    parse(packet).unwrap_or_else(|reason| panic!("we made {packet:02x?}: {reason:?}"))
}
