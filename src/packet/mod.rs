//! IP packets as bytes: a strict view of their headers, and the answers a host or router gives.
//!
//! A leaf that knows no other module. `flow` reads TCP segments with it and refuses connections,
//! `datagram` classifies what is not TCP and reports errors about it.
//!
//! - [`header`]: what an IPv4 or IPv6 packet says of itself.
//! - [`tcp`]: the TCP header in it, and the reset that answers a segment nobody expects.
//! - [`icmp`]: "destination unreachable" and "packet too big".

mod build;
pub mod header;
pub mod icmp;
pub mod tcp;

pub use header::{DropReason, Header, parse};
pub use icmp::too_big;

use pnet::packet::ip::IpNextHeaderProtocols;

/// Protocol number of ICMP.
pub const ICMP: u8 = IpNextHeaderProtocols::Icmp.0;
/// Protocol number of TCP.
pub const TCP: u8 = IpNextHeaderProtocols::Tcp.0;
/// Protocol number of UDP.
pub const UDP: u8 = IpNextHeaderProtocols::Udp.0;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = IpNextHeaderProtocols::Icmpv6.0;
