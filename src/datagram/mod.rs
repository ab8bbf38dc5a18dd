//! Inner packets that are not TCP: they cross the tunnel as they are, at once, unordered.
//!
//! What is here decides nothing about the tunnel; it gives the composition its parts: the strict
//! [`Header`] view, the ICMP errors a router owes to the sender ([`icmp`]), and a [`Queue`] that is
//! bounded in bytes and in waiting time, because a late datagram is worth less than a lost one.

mod queue;

pub use crate::packet::icmp;
pub use crate::packet::{DropReason, Header, parse};
pub use queue::{Limits, PACKET_OVERHEAD, Queue, Stats};
