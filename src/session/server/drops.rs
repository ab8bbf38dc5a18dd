//! Why a server did not act on a packet.

/// Packets a server did not act on, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerDrops {
    /// Outer packets that are no TCP packet of ours.
    pub outer: u64,
    /// TCP packets without payload, or without a cookie, or of an unknown index.
    pub stranger: u64,
    /// Handshakes beyond the budget.
    pub budget: u64,
    /// First messages that do not open under our key.
    pub handshake: u64,
    /// First messages that were answered before.
    pub replayed: u64,
    /// Payloads that do not open, or opened before.
    pub sealed: u64,
    /// Opened packets whose frames do not parse.
    pub frame: u64,
    /// Sessions closed because the peer broke the protocol of streams; the log says how.
    pub protocol: u64,
    /// Inner packets with a source that is not the peer's, or TCP outside a stream.
    pub spoofed: u64,
    /// Inner packets the egress policy denies.
    pub denied: u64,
    /// Packets from the TUN for no peer that is connected; their senders are told.
    pub unrouted: u64,
    /// Errors that packets from the TUN brought about beyond those that are sent in a second.
    pub unreported: u64,
    /// SYNs from the TUN for a peer to which as many connections lead as may.
    pub flow_share: u64,
    /// Redirects of our own kernel, for a packet from client to client.
    pub redirect: u64,
    /// Packets from the TUN that are no IP packet.
    pub inner: u64,
    /// Inner packets for which the TUN was too slow.
    pub tun_full: u64,
    /// Answers for which the network was too slow.
    pub outbox_full: u64,
}
