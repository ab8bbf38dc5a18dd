//! Delivery-rate samples (draft-cheng-iccrg-delivery-rate-estimation): what arrived between a segment's departure and its ack.

use std::time::{Duration, Instant};

use super::rate::Rate;

/// Counts what was delivered and turns acks into rate samples.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Wire bytes known to have arrived.
    delivered: u64,
    delivered_at: Instant,
    /// Departure of the segment acknowledged last.
    first_sent_at: Instant,
    /// Samples are limited by the application until `delivered` passes this.
    app_limited_until: Option<u64>,
}

impl Delivery {
    /// Starts with nothing delivered.
    pub(crate) fn new(now: Instant) -> Self {
        Self { delivered: 0, delivered_at: now, first_sent_at: now, app_limited_until: None }
    }

    /// Takes the state a departing segment keeps; `idle` if nothing else is in flight.
    pub(crate) fn on_sent(&mut self, idle: bool, now: Instant) -> Snapshot {
        if idle {
            self.delivered_at = now;
            self.first_sent_at = now;
        }
        Snapshot {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            app_limited: self.app_limited_until.is_some(),
        }
    }

    /// Counts acknowledged wire bytes.
    pub(crate) fn on_delivered(&mut self, bytes: u64, now: Instant) {
        self.delivered += bytes;
        self.delivered_at = now;
        if self.app_limited_until.is_some_and(|end| self.delivered > end) {
            self.app_limited_until = None;
        }
    }

    /// Counts wire bytes that left beside the data and are never acknowledged.
    ///
    /// They used the path: without them a sender that shares its rate with datagrams would measure ever less.
    pub(crate) fn on_beside(&mut self, bytes: u64) {
        self.delivered += bytes;
    }

    /// Marks what is in flight, and all until it has arrived, as limited by the application.
    pub(crate) fn on_app_limited(&mut self, in_flight: u64) {
        self.app_limited_until = Some(self.delivered + in_flight);
    }

    /// The sample of a batch whose segment sent last left at `sent_at` with `snapshot`.
    pub(crate) fn sample(&mut self, snapshot: &Snapshot, sent_at: Instant) -> Option<Sample> {
        let sending = sent_at.saturating_duration_since(snapshot.first_sent_at);
        let acking = self.delivered_at.saturating_duration_since(snapshot.delivered_at);
        self.first_sent_at = sent_at;
        let interval = sending.max(acking);
        if interval < SHORTEST_INTERVAL {
            return None;
        }
        Some(Sample {
            rate: Rate::of(self.delivered.saturating_sub(snapshot.delivered), interval)?,
            app_limited: snapshot.app_limited,
        })
    }

    /// Wire bytes delivered so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }
}

/// What was delivered when a segment left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    /// Wire bytes delivered by then.
    pub(crate) delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    app_limited: bool,
}

/// One measurement of the delivery rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Wire bytes delivered per second.
    pub(crate) rate: Rate,
    /// The application, not the path, may have been the limit.
    pub(crate) app_limited: bool,
}

/// Shorter intervals say more about timers than about the path; our choice.
const SHORTEST_INTERVAL: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::tests::start;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn measures_what_arrived_while_a_segment_was_under_way() {
        let now = start();
        let mut delivery = Delivery::new(now);
        let first = delivery.on_sent(true, now);
        delivery.on_delivered(1000, now + 10 * MS);
        assert_eq!(delivery.sample(&first, now).unwrap().rate, Rate::per_second(100_000));
        let second = delivery.on_sent(false, now + 10 * MS);
        delivery.on_delivered(4000, now + 30 * MS);
        let sample = delivery.sample(&second, now + 10 * MS).unwrap();
        assert_eq!(sample.rate, Rate::per_second(200_000));
        assert!(!sample.app_limited);
    }

    #[test]
    fn acks_that_arrive_together_do_not_raise_the_rate() {
        let now = start();
        let mut delivery = Delivery::new(now);
        delivery.on_sent(true, now);
        let snapshot = delivery.on_sent(false, now + 50 * MS);
        delivery.on_delivered(10_000, now + 51 * MS);
        let sample = delivery.sample(&snapshot, now + 50 * MS).unwrap();
        assert!(sample.rate <= Rate::per_second(200_000));
    }

    #[test]
    fn marks_samples_until_the_limited_flight_has_arrived() {
        let now = start();
        let mut delivery = Delivery::new(now);
        delivery.on_app_limited(1000);
        assert!(delivery.on_sent(true, now).app_limited);
        delivery.on_delivered(1000, now + MS);
        assert!(delivery.on_sent(false, now + MS).app_limited);
        delivery.on_delivered(1, now + MS);
        assert!(!delivery.on_sent(false, now + MS).app_limited);
    }
}
