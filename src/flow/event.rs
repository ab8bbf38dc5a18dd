//! What inner TCP tells its owner, and how the owner refuses.

use std::net::SocketAddr;

use super::slab::FlowId;

/// Something happened to a flow.
///
/// A flow the owner heard of by `Connect` ends in exactly one of: the owner's `refuse` or `reset`,
/// a `Reset` event, a `Closed` event. After that its id names nothing, and every call with it does
/// nothing.
///
/// `Readable` and `Writable` are edges. Each is armed, fires once, and is armed again by what the
/// owner does:
/// - `Readable` is armed by `accept` and by every `read` that leaves no byte unread. An owner that
///   stops earlier gets no further `Readable`: it knows there is more, and comes back when it has
///   room.
/// - `Writable` is armed by every `write` that took fewer bytes than it was offered, and fires when
///   a quarter of the send buffer is free (at first: when the program's kernel has completed the
///   connection).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A program asks for a connection. Its SYN is held until `accept` or `refuse`.
    Connect {
        /// The new flow.
        id: FlowId,
        /// The program's end.
        source: SocketAddr,
        /// Whom it wants to reach.
        target: SocketAddr,
    },
    /// There are bytes from the program to read.
    Readable {
        /// The flow.
        id: FlowId,
    },
    /// There is room again for bytes to the program.
    Writable {
        /// The flow.
        id: FlowId,
    },
    /// The program finished sending, and all it sent was read. The other direction stays open.
    Finished {
        /// The flow.
        id: FlowId,
    },
    /// The program reset the flow, or its kernel no longer answers. What was not read is gone.
    Reset {
        /// The flow, which is no more.
        id: FlowId,
    },
    /// Both directions are finished and acknowledged, all bytes were read.
    Closed {
        /// The flow, which is no more.
        id: FlowId,
    },
}

impl Event {
    /// The flow it is about.
    #[must_use]
    pub const fn id(&self) -> FlowId {
        match *self {
            Self::Connect { id, .. }
            | Self::Readable { id }
            | Self::Writable { id }
            | Self::Finished { id }
            | Self::Reset { id }
            | Self::Closed { id } => id,
        }
    }

    /// Whether it still means something when its flow has ended since.
    pub(super) const fn outlives_flow(&self) -> bool {
        matches!(self, Self::Finished { .. } | Self::Reset { .. } | Self::Closed { .. })
    }
}

/// What a program gets to see in place of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A reset: `ECONNREFUSED`.
    Refused,
    /// ICMP "host unreachable": `EHOSTUNREACH`.
    HostUnreachable,
    /// ICMP "network unreachable": `ENETUNREACH`.
    NetUnreachable,
    /// ICMP "administratively prohibited": `EHOSTUNREACH` for IPv4, `EACCES` for IPv6.
    AdminProhibited,
    /// A reset, for what is not a refusal of the far end: a limit, a policy, a reset while
    /// connecting.
    Reset,
    /// Nothing. The SYN is forgotten; when the program's kernel repeats it, it is a new `Connect`,
    /// until the program's own timeout.
    Silent,
}
