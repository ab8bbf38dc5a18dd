//! What a connection knows in each of its states; the diagram stands in [`connection`](super::connection).

use std::time::{Duration, Instant};

use super::{Segment, Seq};

/// The state with its data.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    SynSent(Opening),
    Established(Open),
    Closing(Open),
    /// The FIN has left; what is left to do is to acknowledge the peer's.
    Finished(Open),
    Closed,
    TimedOut,
}

/// SYN-SENT.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) isn: Seq,
    /// When the last SYN left, or the first is due.
    pub(super) last_syn: Instant,
    pub(super) sent: u32,
    /// Somebody waits for the connection.
    pub(super) is_hurried: bool,
}

impl Opening {
    /// When the next SYN is due, or giving up.
    pub(super) fn next_syn(&self) -> Instant {
        match self.sent.checked_sub(1) {
            None => self.last_syn,
            Some(_) if self.is_hurried => self.last_syn + HURRIED_SYN,
            Some(repeats) => self.last_syn + SYN_TIMEOUT * (1 << repeats.min(SYN_ATTEMPTS)),
        }
    }

    /// Whether enough SYNs have left.
    pub(super) const fn is_over(&self) -> bool {
        self.sent >= SYN_ATTEMPTS && !self.is_hurried
    }

    pub(super) fn is_answered_by(&self, segment: &Segment) -> bool {
        segment.ack == self.isn.advanced_by(1)
    }
}

/// ESTABLISHED.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    /// Of the SYN-ACK; the server's end never learns the client's.
    pub(super) peer_isn: Option<Seq>,
    /// What we acknowledge: the highest end of a payload that opened, or the start if the numbers are fixed.
    pub(super) highest: Seq,
    pub(super) window: Window,
    /// The numbers stand still.
    is_fixed: bool,
    /// The peer's FIN came after we were to send ours.
    is_finished: bool,
    /// Where the last payload ended, if it lay outside of the window.
    outlier: Option<Seq>,
    /// Payloads that opened since we last sent anything.
    unacknowledged: u32,
    pub(super) ack_at: Option<Instant>,
}

/// The receive window we announce.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// As the header says it.
    pub(super) field: u16,
    pub(super) bytes: u32,
}

impl Open {
    pub(super) const fn new(peer_isn: Option<Seq>, highest: Seq, window: Window, is_fixed: bool) -> Self {
        Self {
            peer_isn,
            highest,
            window,
            is_fixed,
            is_finished: false,
            outlier: None,
            unacknowledged: 0,
            ack_at: None,
        }
    }

    /// Takes a payload that opened; says whether it may have moved the ack.
    ///
    /// A payload beyond the window moves nothing: someone on the way may have copied a genuine one under another seq. Two in a row
    /// that agree are a sender that went far ahead through a loss.
    pub(super) fn on_payload(&mut self, segment: &Segment, now: Instant) -> bool {
        if self.is_fixed {
            return true;
        }
        self.owe_ack(now);
        let end = segment.end();
        let is_near = |from: Seq| !end.is_after(Seq(from.0.wrapping_add(self.window.bytes)));
        if !end.is_after(self.highest) || is_near(self.highest) {
            self.outlier = None;
            self.highest = self.highest.later(end);
        } else if self.outlier.is_some_and(|outlier| end == outlier.later(end) && is_near(outlier)) {
            self.outlier = None;
            self.highest = end;
        } else {
            self.outlier = Some(end);
            return false;
        }
        true
    }

    /// After the payload that began the connection.
    pub(super) fn with_payload_owed(mut self, now: Instant) -> Self {
        if !self.is_fixed {
            self.owe_ack(now);
        }
        self
    }

    /// Acknowledges a FIN that lies within the window, whoever sent it: as in TIME-WAIT (RFC 9293, section 3.10.7.4). Only for
    /// what we have closed.
    pub(super) fn on_fin(self, segment: &Segment, now: Instant) -> Self {
        let end = segment.end().advanced_by(1);
        let is_near = !end.is_after(Seq(self.highest.0.wrapping_add(self.window.bytes)));
        if !is_near {
            return self;
        }
        Self { highest: self.highest.later(end), is_finished: true, ..self.with_ack_due(now) }
    }

    /// Whether the peer's FIN was seen, and acknowledged.
    pub(super) const fn is_over(&self) -> bool {
        self.is_finished && self.ack_at.is_none()
    }

    /// What is left once the ACK that is due has been sent; `None` if none is.
    pub(super) fn poll_ack(self, now: Instant) -> Option<Self> {
        self.ack_at.filter(|&due| due <= now)?;
        Some(self.acknowledged())
    }

    fn owe_ack(&mut self, now: Instant) {
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

/// The first wait for a SYN-ACK (RFC 6298, section 2.1); each next one is twice as long.
const SYN_TIMEOUT: Duration = Duration::from_secs(1);

/// Each wait while somebody waits. Our choice: data a second after a path's return at 100 ms, which takes three round trips more.
/// No stack is so quick (Linux since 6.5 repeats four times a second apart), so only as long as it must be.
pub(super) const HURRIED_SYN: Duration = Duration::from_millis(500);

/// SYNs sent before giving up, at 0, 1, 3, 7 and 15 s; the last may be answered until 31 s. Our choice: a first connection attempt lasts 20 s.
const SYN_ATTEMPTS: u32 = 5;

/// The longest a payload waits for its ACK: Linux' and Windows' delayed-ACK time.
pub(super) const ACK_DELAY: Duration = Duration::from_millis(40);

/// A pure ACK leaves at once when this many payloads were opened and nothing was sent. Our choice: TCP acknowledges every second segment
/// (RFC 5681, section 4.2), receivers that merge segments every few.
pub(super) const ACK_EVERY: u32 = 4;
