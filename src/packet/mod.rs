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
