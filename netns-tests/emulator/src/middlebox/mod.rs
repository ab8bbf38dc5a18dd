//! The boxes on a line, and the chain of them that packets pass.

mod chain;

use std::net::IpAddr;
use std::time::Duration;

pub(crate) use chain::{Chain, Frame};

/// A box on the line. Each looks at both directions; the tables of each are bounded by [`MAX_FLOWS`], the oldest flow is forgotten.
///
/// A flow is a TCP or UDP 5-tuple, the same for both directions. Rates are in bit/s of IP packets, sizes in bytes of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Middlebox {
    /// Drops every UDP packet.
    DropUdp,
    /// Drops the UDP packets of each direction that exceed a rate, all flows together.
    LimitUdp {
        /// Bits per second.
        rate: u64,
        /// Bytes that may come at once (a token bucket).
        burst: u64,
    },
    /// Kills each TCP flow for good after a while, both ways and without a word; the same 5-tuple never works again.
    KillFlow {
        /// After so many bytes, both directions together.
        after_bytes: Option<u64>,
        /// So long after its first packet.
        after_time: Option<Duration>,
    },
    /// Drops the packets of each flow that exceed a rate; every flow has a token bucket of its own for each direction.
    Police {
        /// Bits per second.
        rate: u64,
        /// Bytes that may come at once.
        burst: u64,
    },
    /// Drops TCP of flows whose SYN, SYN-ACK and ACK it has not seen in this order, as `nf_conntrack_tcp_loose=0` with a rule that
    /// drops what is invalid.
    RequireHandshake,
    /// Drops TCP segments that lie outside of what the ends have advertised, in the bounds of `nf_conntrack_tcp_be_liberal=0`.
    /// A flow whose SYN it has not seen passes unchecked.
    RequireWindow,
    /// Sends forged segments into TCP flows, with the sequence numbers that the receiver expects next.
    Forge {
        /// What to send.
        segment: Segment,
        /// To whom.
        towards: Towards,
        /// After so many packets of the flow, both directions together.
        after: u64,
        /// Again after every so many more.
        every: Option<u64>,
    },
    /// Drops packets larger than `size`.
    Mtu {
        /// The largest IP packet that passes.
        size: usize,
        /// Whether the sender is told (ICMP "fragmentation needed", ICMPv6 "packet too big"), as by a polite router; a black hole
        /// otherwise. Nothing is fragmented either way.
        icmp: bool,
    },
    /// Gives TCP and UDP flows from the client another source beyond it, and drops what comes in without a mapping. A flow keeps
    /// its own address and port until the NAT is rebound: then each flow gets another port and, if there are some, the next
    /// address, and its old mapping is gone.
    Nat {
        /// Rebinds by itself so often; [`Emulator::rebind`](crate::Emulator::rebind) does it at any time.
        every: Option<Duration>,
        /// The addresses of the outside to take in turn, those of the packet's family; none leaves every flow its address.
        addresses: Vec<IpAddr>,
    },
}

/// What a box forges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// RST and ACK.
    Reset,
    /// FIN and ACK.
    Fin,
}

/// To which ends of a flow a box sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towards {
    /// To the client.
    Client,
    /// To the router and who is behind it.
    Router,
    /// To both at once.
    Both,
}

/// Bound on the flows that each box knows, and that a line knows as killed.
pub const MAX_FLOWS: usize = 65_536;
