//! The segments sent and not yet acknowledged: a ring indexed by sn, and through it a list in order of transmission.
//!
//! All in flight share one timeout, so the order of transmission is the order of deadlines: finding, adding, removing
//! and the earliest deadline are all O(1) however large the window is. The slots are moved when they double and when
//! they shrink to a quarter, each time after at least as many were filled or left: amortised O(1), too.

use std::{collections::VecDeque, time::Instant};

use super::{delivery::Snapshot, segment::distance, window::trim};

/// The sent segments from `una` (snd_una) to `next` (snd_nxt).
#[derive(Debug)]
pub(crate) struct Ring {
    slots: VecDeque<Sent>,
    una: u32,
    /// First and last in flight, in order of transmission.
    oldest: Option<u32>,
    newest: Option<u32>,
    /// The number of the next transmission.
    order: u64,
    in_flight: u64,
    buffered: usize,
    /// Wire bytes around each payload.
    overhead: u64,
}

impl Ring {
    /// Starts at sn 0; `overhead` is what a segment takes on the wire beside its payload.
    pub(crate) fn new(overhead: u64) -> Self {
        Self {
            slots: VecDeque::new(),
            una: 0,
            oldest: None,
            newest: None,
            order: 0,
            in_flight: 0,
            buffered: 0,
            overhead,
        }
    }

    /// Starts at `sn` instead.
    #[cfg(test)]
    pub(crate) fn start_at(&mut self, sn: u32) {
        self.una = sn;
    }

    /// Adds a fresh segment in flight; it gets the number [`Self::next`].
    pub(crate) fn push(&mut self, payload: Box<[u8]>, frg: u8, departure: Departure) {
        let sn = self.next();
        self.buffered += payload.len();
        self.slots.push_back(Sent {
            payload,
            frg,
            state: State::Lost,
            transmissions: 0,
            attempts: 0,
            first_ts: departure.ts,
            base_ts: departure.ts,
            order: 0,
            copied_by: 0,
            departure,
            before: None,
            after: None,
        });
        self.depart(sn, departure);
    }

    /// Puts a lost segment in flight, as the newest transmission.
    pub(crate) fn depart(&mut self, sn: u32, departure: Departure) {
        if let Some(sent) = self.get_mut(sn) {
            sent.base_ts = departure.ts;
            sent.attempts = sent.attempts.saturating_add(1);
        }
        self.link(sn, departure);
        if let Some(sent) = self.get_mut(sn) {
            sent.copied_by = 0;
        }
    }

    /// Makes a segment in flight the newest transmission: what it says of losses is now said of the copy.
    pub(crate) fn copy(&mut self, sn: u32, departure: Departure) {
        if self.lose(sn) {
            self.link(sn, departure);
        }
    }

    fn link(&mut self, sn: u32, departure: Departure) {
        let (order, before) = (self.order, self.newest);
        let Some(sent) = self.get_mut(sn).filter(|sent| sent.state == State::Lost) else {
            return;
        };
        sent.state = State::InFlight;
        let ahead = u16::try_from(order - sent.order).unwrap_or(u16::MAX);
        sent.copied_by = sent.copied_by.saturating_add(ahead);
        sent.order = order;
        sent.transmissions = sent.transmissions.saturating_add(1);
        sent.departure = departure;
        (sent.before, sent.after) = (before, None);
        self.order += 1;
        self.in_flight += self.cost(sn);
        self.newest = Some(sn);
        match before.and_then(|before| self.get_mut(before)) {
            Some(before) => before.after = Some(sn),
            None => self.oldest = Some(sn),
        }
    }

    /// Takes a segment out of flight, to be sent again; `false` if it was not in flight.
    pub(crate) fn lose(&mut self, sn: u32) -> bool {
        let in_flight = self.is_in(sn, State::InFlight);
        if in_flight {
            self.unlink(sn);
            if let Some(sent) = self.get_mut(sn) {
                sent.state = State::Lost;
            }
        }
        in_flight
    }

    /// Acknowledges a segment and frees its payload; `None` if it is unknown or already acknowledged.
    pub(crate) fn acknowledge(&mut self, sn: u32) -> Option<Acknowledged> {
        let bytes = self.cost(sn);
        let sent = self.get(sn).filter(|sent| sent.state != State::Acked)?;
        let acknowledged = Acknowledged {
            bytes,
            order: sent.order,
            departure: sent.departure,
            transmissions: sent.transmissions.into(),
            base_ts: sent.base_ts,
            base_order: sent.base_order(),
        };
        if sent.state == State::InFlight {
            self.unlink(sn);
        }
        if let Some(sent) = self.get_mut(sn) {
            sent.state = State::Acked;
            let payload = std::mem::take(&mut sent.payload);
            self.buffered -= payload.len();
        }
        Some(acknowledged)
    }

    /// Moves `una` past what is acknowledged; gives back what a burst took.
    pub(crate) fn shrink(&mut self) {
        while self.slots.front().is_some_and(|sent| sent.state == State::Acked) {
            self.slots.pop_front();
            self.una = self.una.wrapping_add(1);
        }
        trim(&mut self.slots, KEPT_SLOTS);
    }

    /// A segment by number.
    pub(crate) fn get(&self, sn: u32) -> Option<&Sent> {
        self.slots.get(self.index(sn)?)
    }

    /// Whether `sn` is known and in `state`.
    pub(crate) fn is_in(&self, sn: u32, state: State) -> bool {
        self.get(sn).is_some_and(|sent| sent.state == state)
    }

    /// The segment in flight that was sent first.
    pub(crate) fn oldest(&self) -> Option<(u32, &Sent)> {
        self.oldest.and_then(|sn| Some((sn, self.get(sn)?)))
    }

    /// The segment in flight that was sent last.
    pub(crate) fn newest(&self) -> Option<(u32, &Sent)> {
        self.newest.and_then(|sn| Some((sn, self.get(sn)?)))
    }

    /// snd_una, the first number not acknowledged.
    pub(crate) fn una(&self) -> u32 {
        self.una
    }

    /// snd_nxt, the number of the next fresh segment.
    pub(crate) fn next(&self) -> u32 {
        self.una.wrapping_add(self.span())
    }

    /// snd_nxt − snd_una.
    pub(crate) fn span(&self) -> u32 {
        // The peer's 16-bit window bounds it.
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Wire bytes sent, not acknowledged and not declared lost.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Payload bytes kept for retransmission.
    pub(crate) fn buffered(&self) -> usize {
        self.buffered
    }

    /// Wire bytes of a segment; 0 if it is unknown.
    pub(crate) fn cost(&self, sn: u32) -> u64 {
        self.get(sn).map_or(0, |sent| self.overhead + u64::try_from(sent.payload.len()).unwrap_or(u64::MAX))
    }

    fn unlink(&mut self, sn: u32) {
        let Some((before, after)) = self.get(sn).map(|sent| (sent.before, sent.after)) else {
            return;
        };
        self.in_flight -= self.cost(sn);
        match before.and_then(|before| self.get_mut(before)) {
            Some(sent) => sent.after = after,
            None => self.oldest = after,
        }
        match after.and_then(|after| self.get_mut(after)) {
            Some(sent) => sent.before = before,
            None => self.newest = before,
        }
    }

    fn get_mut(&mut self, sn: u32) -> Option<&mut Sent> {
        let index = self.index(sn)?;
        self.slots.get_mut(index)
    }

    fn index(&self, sn: u32) -> Option<usize> {
        usize::try_from(distance(sn, self.una)).ok()
    }
}

/// One sent segment.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Its payload; empty once acknowledged.
    pub(crate) payload: Box<[u8]>,
    /// How many fragments of the same message follow.
    pub(crate) frg: u8,
    /// Number of its last transmission, counted over the session.
    pub(crate) order: u64,
    /// Its last transmission.
    pub(crate) departure: Departure,
    state: State,
    transmissions: u16,
    attempts: u16,
    first_ts: u32,
    base_ts: u32,
    /// Transmissions from the last that was not an early copy to the last; all that are possible if they are more.
    copied_by: u16,
    before: Option<u32>,
    after: Option<u32>,
}

impl Sent {
    /// How often it was sent because it was new or taken for lost: early copies aside.
    pub(crate) fn attempts(&self) -> u32 {
        u32::from(self.attempts)
    }

    fn base_order(&self) -> u64 {
        let order = self.order.saturating_sub(self.copied_by.into());
        if self.copied_by == u16::MAX { 0 } else { order }
    }

    /// The `ts` of its first transmission.
    pub(crate) fn first_ts(&self) -> u32 {
        self.first_ts
    }
}

/// Where a sent segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Under way.
    InFlight,
    /// Taken for lost, waiting to be sent again.
    Lost,
    /// Arrived, behind one that has not.
    Acked,
}

/// One transmission.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Departure {
    /// When it left.
    pub(crate) at: Instant,
    /// The `ts` it carried.
    pub(crate) ts: u32,
    /// What was delivered by then.
    pub(crate) snapshot: Snapshot,
}

/// What is known of a segment at its acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acknowledged {
    /// Its wire bytes.
    pub(crate) bytes: u64,
    /// Number of its last transmission.
    pub(crate) order: u64,
    /// Its last transmission.
    pub(crate) departure: Departure,
    /// How often it was sent.
    pub(crate) transmissions: u32,
    /// The `ts` of its last transmission that was not an early copy.
    pub(crate) base_ts: u32,
    /// Number of that transmission, or of an earlier one.
    pub(crate) base_order: u64,
}

/// Slots that are kept for the next burst; our choice: 32 KiB.
const KEPT_SLOTS: usize = 256;
const _: () = assert!(size_of::<Sent>() <= 128, "two cache lines, and 8 MiB for the widest window");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::{delivery::Delivery, tests::start};

    fn departure() -> Departure {
        let at = start();
        let snapshot = Delivery::new(at).on_sent(true, at);
        Departure { at, ts: 7, snapshot }
    }

    fn ring(segments: usize) -> Ring {
        let mut ring = Ring::new(100);
        for _ in 0..segments {
            ring.push(Box::new([0; 10]), 0, departure());
        }
        ring
    }

    fn ends(ring: &Ring) -> (Option<u32>, Option<u32>) {
        (ring.oldest().map(|o| o.0), ring.newest().map(|n| n.0))
    }

    #[test]
    fn remembers_the_transmission_that_early_copies_followed() {
        let mut ring = ring(3);
        ring.lose(0);
        ring.depart(0, departure());
        ring.copy(1, departure());
        ring.copy(0, departure());
        ring.copy(0, departure());
        // Transmissions 0 to 2 were the first ones; 3, 5 and 6 are of the first segment.
        let acked = ring.acknowledge(0).unwrap();
        assert_eq!((acked.base_order, acked.order), (3, 6));
        let acked = ring.acknowledge(1).unwrap();
        assert_eq!((acked.base_order, acked.order), (1, 4));
    }

    #[test]
    fn keeps_the_order_of_transmission() {
        let mut ring = ring(4);
        assert_eq!(ends(&ring), (Some(0), Some(3)));
        assert!(ring.lose(0));
        assert!(!ring.lose(0));
        assert_eq!(ends(&ring), (Some(1), Some(3)));
        ring.depart(0, departure());
        assert_eq!(ends(&ring), (Some(1), Some(0)));
        ring.acknowledge(2);
        ring.acknowledge(1);
        assert_eq!(ends(&ring), (Some(3), Some(0)));
        ring.acknowledge(0);
        assert_eq!(ends(&ring), (Some(3), Some(3)));
        ring.acknowledge(3);
        assert_eq!(ends(&ring), (None, None));
        assert_eq!((ring.in_flight(), ring.buffered()), (0, 0));
    }

    #[test]
    fn counts_the_bytes_in_flight_and_not_the_span() {
        let mut ring = ring(3);
        assert_eq!((ring.in_flight(), ring.buffered()), (330, 30));
        ring.lose(1);
        ring.acknowledge(2);
        ring.shrink();
        assert_eq!((ring.in_flight(), ring.buffered(), ring.span()), (110, 20, 3));
        ring.acknowledge(0);
        ring.shrink();
        assert_eq!((ring.una(), ring.span()), (1, 2));
    }

    #[test]
    fn acknowledges_a_segment_once() {
        let mut ring = ring(2);
        assert_eq!(ring.acknowledge(1).map(|a| a.bytes), Some(110));
        assert!(ring.acknowledge(1).is_none());
        assert!(ring.acknowledge(2).is_none());
        assert!(ring.acknowledge(u32::MAX).is_none());
    }

    #[test]
    fn gives_its_memory_back_after_a_burst() {
        let mut ring = ring(60_000);
        for sn in 0..60_000 {
            ring.acknowledge(sn);
            ring.shrink();
            let most = KEPT_SLOTS.max(8 * ring.slots.len());
            assert!(ring.slots.capacity() <= most, "{} for {}", ring.slots.capacity(), ring.slots.len());
        }
        assert_eq!(ring.buffered(), 0);
    }

    #[test]
    fn goes_on_across_the_wrap_of_sn() {
        let mut ring = Ring::new(100);
        ring.una = u32::MAX - 1;
        for _ in 0..4 {
            ring.push(Box::new([0; 10]), 0, departure());
        }
        assert_eq!((ring.next(), ends(&ring)), (2, (Some(u32::MAX - 1), Some(1))));
        for sn in [1, 0, u32::MAX, u32::MAX - 1] {
            assert!(ring.acknowledge(sn).is_some());
        }
        ring.shrink();
        assert_eq!((ring.una(), ring.span(), ring.in_flight()), (2, 0, 0));
    }
}
