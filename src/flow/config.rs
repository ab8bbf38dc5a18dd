//! The bounds of inner TCP, and what it counts.

use super::socket::FLOW_BYTES;

/// How much the flows of one [`Flows`](super::Flows) may take.
#[derive(Debug, Clone, Copy)]
pub struct FlowLimits {
    /// Flows at most, held ones included; a SYN beyond is answered with a reset.
    pub flows: usize,
    /// Held SYNs at most; one beyond is dropped, and the program's kernel asks again a second later.
    pub held: usize,
    /// Bytes a flow takes from its program before they are read; at most 1 GiB.
    pub receive_buffer: usize,
    /// Bytes a flow takes for its program before they are acknowledged.
    pub send_buffer: usize,
    /// Bytes of memory that all flows take together: a flow that rests takes 12 KiB, one at work up to both its buffers
    /// besides.
    pub memory: usize,
    /// Bytes of them that the flows of one group take, which the owner makes with [`Flows::join`](super::Flows::join).
    pub memory_of_group: usize,
}

impl FlowLimits {
    /// Flows at most, for the memory that even one at rest takes.
    #[must_use]
    pub fn flows_in_memory(&self) -> usize {
        self.flows.min(self.memory / FLOW_BYTES)
    }
}

impl Default for FlowLimits {
    /// Buffers of 256 KiB hold four of the largest segments in each direction, which was measured to
    /// carry more than 30 Gbit/s on one core over a TUN; the kernel gives the memory page by page as it is
    /// used. The counts are our choice: room for ten thousand flows, and for what a program may open
    /// within one round trip at five thousand connects a second; and 1 GiB.
    fn default() -> Self {
        Self {
            flows: 16_384,
            held: 4_096,
            receive_buffer: 256 * 1024,
            send_buffer: 256 * 1024,
            memory: 1 << 30,
            memory_of_group: usize::MAX,
        }
    }
}

/// What happened to packets and flows since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Flows there are now, held ones included.
    pub flows: usize,
    /// Of those, the ones whose SYN is held.
    pub held: usize,
    /// Of those, the ones that their owner reset and that have not said all yet.
    pub ending: usize,
    /// Bytes of memory that the flows may take now, in pages that were written; bounded by [`FlowLimits::memory`].
    pub memory: usize,
    /// Flows that were accepted.
    pub accepted: u64,
    /// Flows that were refused by the owner.
    pub refused: u64,
    /// Flows that the program reset, or whose program is no more.
    pub resets_received: u64,
    /// Flows that the owner reset.
    pub resets_sent: u64,
    /// Flows that ended in order.
    pub closed: u64,
    /// Packets taken from the TUN.
    pub packets_in: u64,
    /// Packets made for the TUN.
    pub packets_out: u64,
    /// SYNs of a flow already held: the program's kernel asks again.
    pub repeated_syns: u64,
    /// SYNs that replaced an older flow of the same addresses and ports.
    pub replaced: u64,
    /// SYNs of a flow that is open, which were answered with where it stands.
    pub challenged: u64,
    /// Segments of no flow that were answered with a reset.
    pub unknown_segments: u64,
    /// Dropped: not one whole, sensible TCP segment.
    pub dropped_malformed: u64,
    /// Dropped: data beyond what the flow's buffer has room for.
    pub dropped_beyond_window: u64,
    /// Dropped: data for which there was no memory.
    pub dropped_for_memory: u64,
    /// Flows whose pages were given back while they rested.
    pub rested: u64,
    /// Dropped: a SYN with all places for held ones or for events taken.
    pub dropped_syns: u64,
    /// Refused with a reset: a SYN with all flows in use, or no memory left.
    pub limited: u64,
    /// Dropped: a reply that found the queue of replies full.
    pub dropped_replies: u64,
}
