//! What a session's KCP measured and counted.

use std::time::Duration;

use super::congestion::Phase;

/// A snapshot of a [`super::Kcp`]; counters run from its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Smoothed round-trip time.
    pub srtt: Option<Duration>,
    /// The shortest round-trip time lately (`Bbr` only).
    pub min_rtt: Option<Duration>,
    /// The retransmission timeout without back-off.
    pub rto: Duration,
    /// Wire bytes per second the path is believed to carry (`Bbr` only).
    pub bandwidth: Option<u64>,
    /// Wire bytes per second at which data leaves; `None` = unpaced.
    pub pacing_rate: Option<u64>,
    /// What congestion control is doing (`Bbr` only).
    pub phase: Option<Phase>,
    /// Wire bytes that may be in flight.
    pub window: u64,
    /// Wire bytes sent, not acknowledged and not taken for lost.
    pub in_flight: u64,
    /// Segments from the first unacknowledged to the last sent (snd_nxt − snd_una).
    pub span: u32,
    /// Payload bytes kept until they are acknowledged, now.
    pub send_buffered: usize,
    /// Payload bytes received that wait for those before them or for the reader, now.
    pub receive_buffered: usize,
    /// The peer's receive window, in segments.
    pub peer_window: u16,
    /// Bytes of KCP packets handed out.
    pub sent_bytes: u64,
    /// Bytes of KCP packets taken in.
    pub received_bytes: u64,
    /// Payload bytes sent for the first time.
    pub payload_sent_bytes: u64,
    /// Payload bytes sent again.
    pub retransmitted_bytes: u64,
    /// Payload bytes of early copies.
    pub copied_bytes: u64,
    /// Payload bytes of messages handed up.
    pub payload_received_bytes: u64,
    /// Fresh segments sent.
    pub sent: u64,
    /// Segments sent again.
    pub retransmitted: u64,
    /// Copies sent before anything was known of the last transmission.
    pub copied: u64,
    /// Retransmissions whose original had arrived.
    pub spurious: u64,
    /// Transmissions taken for lost.
    pub lost: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Some segment was sent as often as [`super::Config::dead_link`] says.
    pub dead: bool,
    /// Acks sent, repetitions included.
    pub acks_sent: u64,
    /// Acks received.
    pub acks_received: u64,
    /// Segments received for the first time.
    pub received: u64,
    /// Segments received again.
    pub duplicates: u64,
    /// Dropped: packets that are not KCP segments of this conversation.
    pub malformed: u64,
    /// Dropped: segments with a `una` beyond what was sent.
    pub bad_una: u64,
    /// Dropped: acks of what was never sent.
    pub bad_acks: u64,
    /// Dropped: data beyond the receive window.
    pub outside_window: u64,
    /// Dropped: data for which there was no room in bytes.
    pub no_room: u64,
    /// Dropped: fragments of messages that cannot be put together.
    pub unassembled: u64,
    /// Dropped: acks for which there was no room in the list.
    pub acks_dropped: u64,
}
