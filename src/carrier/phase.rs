//! What a connection knows in each of its states; the diagram stands in [`connection`](super::connection).

use std::time::{Duration, Instant};

use super::{Segment, Seq};

/// The state with its data.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    SynSent(Opening),
    Established(Open),
    Closing(Open),
    Closed,
    TimedOut,
}

/// SYN-SENT.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) isn: Seq,
    pub(super) next_syn: Instant,
    pub(super) sent: u32,
}

impl Opening {
    pub(super) fn is_answered_by(&self, segment: &Segment) -> bool {
        segment.ack == self.isn.advanced_by(1)
    }
}

/// ESTABLISHED.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    /// Of the SYN-ACK; the server's end never learns the client's.
    pub(super) peer_isn: Option<Seq>,
    /// The highest end of a payload that opened: our ack.
    pub(super) highest: Seq,
    pub(super) window: u16,
    /// Payloads that opened since we last sent anything.
    unacknowledged: u32,
    pub(super) ack_at: Option<Instant>,
}

impl Open {
    pub(super) const fn new(peer_isn: Option<Seq>, highest: Seq, window: u16) -> Self {
        Self { peer_isn, highest, window, unacknowledged: 0, ack_at: None }
    }

    pub(super) fn on_payload(&mut self, end: Seq, now: Instant) {
        self.highest = self.highest.later(end);
        self.unacknowledged += 1;
        let delay = if self.unacknowledged < ACK_EVERY { ACK_DELAY } else { Duration::ZERO };
        let due = now + delay;
        self.ack_at = Some(self.ack_at.map_or(due, |earlier| earlier.min(due)));
    }

    pub(super) const fn with_ack_due(self, now: Instant) -> Self {
        Self { ack_at: Some(now), ..self }
    }

    pub(super) const fn acknowledged(self) -> Self {
        Self { unacknowledged: 0, ack_at: None, ..self }
    }
}

/// The longest a payload waits for its ACK: Linux' and Windows' delayed-ACK time.
pub(super) const ACK_DELAY: Duration = Duration::from_millis(40);

/// A pure ACK leaves at once when this many payloads were opened and nothing was sent. Our choice: TCP acknowledges every second segment
/// (RFC 5681, section 4.2), receivers that merge segments every few.
pub(super) const ACK_EVERY: u32 = 4;
