//! The boxes on a line, and the chain of them that packets pass.

mod advance;
mod bucket;
mod chain;
mod forge;
mod handshake;
mod kill;
mod mtu;
mod nat;
mod packet;
mod police;
mod rewrite;
mod udp;
mod window;

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub(crate) use chain::Chain;
use packet::Packet;

use crate::ip::Flow;
use crate::stats::Cause;

/// A box on the line. Each looks at both directions; the tables of each are bounded by [`MAX_FLOWS`], the flow that was silent
/// for longest is forgotten.
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
    /// Kills each TCP flow for good, as [`Middlebox::KillFlow`], once the sequence numbers of either end have grown by more than so
    /// many bytes ("kcptun-raw": Guangdong Mobile).
    KillAdvancing {
        /// In bytes.
        after: u32,
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
    /// A flow whose SYN it has not seen passes unchecked, and so does, unlike there, a segment with a wrong checksum.
    RequireWindow,
    /// Sends forged segments into TCP flows, with the sequence numbers that the receiver expects next. In answer to a SYN, which
    /// shows none of the other end's, that is the reset of a closed port: sequence number zero, the SYN acknowledged.
    /// Segments with a wrong checksum do not count.
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

impl Middlebox {
    /// A NAT that is rebound by command only and leaves every flow its address.
    pub const NAT: Self = Self::Nat { every: None, addresses: Vec::new() };

    /// The box itself, which has seen nothing yet.
    fn station(&self, seed: u64, now: Instant) -> Box<dyn Station> {
        match self.clone() {
            Self::DropUdp => Box::new(udp::DropUdp),
            Self::LimitUdp { rate, burst } => {
                Box::new(udp::LimitUdp { rate, burst, buckets: bucket::Bucket::PAIR })
            }
            Self::KillFlow { after_bytes, after_time } => {
                Box::new(kill::KillFlow::new(after_bytes, after_time))
            }
            Self::KillAdvancing { after } => Box::new(advance::KillAdvancing::new(after)),
            Self::Police { rate, burst } => Box::new(police::Police::new(rate, burst)),
            Self::RequireHandshake => Box::new(handshake::RequireHandshake::new()),
            Self::RequireWindow => Box::new(window::RequireWindow::new()),
            Self::Forge { segment, towards, after, every } => {
                Box::new(forge::Forge::new(segment, towards, after, every))
            }
            Self::Mtu { size, icmp } => Box::new(mtu::Mtu { size, icmp }),
            Self::Nat { every, addresses } => Box::new(nat::Nat::new(every, addresses, seed, now)),
        }
    }
}

/// What every box does.
trait Station: Debug + Send {
    /// Lets a packet pass, perhaps changed, or says why not.
    fn handle(&mut self, packet: &mut Packet<'_>) -> Result<(), Cause>;

    /// Forgets every mapping, if it has some.
    fn rebind(&mut self, _now: Instant) {}

    /// Forgets the mapping of one flow, if it has one.
    fn rebind_flow(&mut self, _flow: &Flow) {}
}

/// What a box forges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// RST, and ACK if there is anything to acknowledge.
    Reset,
    /// FIN, and ACK if there is anything to acknowledge.
    Fin,
    /// SYN, with a number of its own, as of a host that begins anew.
    Syn,
    /// Bytes that mean nothing, where the receiver expects the next.
    Data,
    /// The same far outside of every window.
    StrayData,
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
