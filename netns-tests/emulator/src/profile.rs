//! What one direction of a line does to its frames.

use std::time::Duration;

use crate::loss::Loss;

/// What one direction of a line does to its frames; shares are of 1.
///
/// Loss, corruption, duplication and reordering come after the queue, as on a radio or a long line behind the bottleneck: a lost
/// frame has used its share of the rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// Propagation delay, added after the queue.
    pub delay: Duration,
    /// What is added to the delay at random.
    pub jitter: Jitter,
    /// Which frames are lost.
    pub loss: Loss,
    /// Which frames are overtaken by later ones.
    pub reorder: Reorder,
    /// Share of frames that arrive twice; the copy travels on its own, so it may be corrupted or delayed otherwise.
    pub duplicate: f64,
    /// Share of frames with some bits flipped, anywhere in the IP packet.
    pub corrupt: f64,
    /// Bits per second of IP packets; `None` does not limit.
    pub rate: Option<u64>,
    /// The longest time a frame may wait for the rate; one that would wait longer is dropped (drop-tail).
    pub queue: Duration,
    /// When nothing that arrives gets through.
    pub blackouts: Option<Blackouts>,
}

impl Profile {
    /// A lane that passes everything at once.
    pub const CLEAR: Self = Self {
        delay: Duration::ZERO,
        jitter: Jitter::NONE,
        loss: Loss::NONE,
        reorder: Reorder::NONE,
        duplicate: 0.0,
        corrupt: 0.0,
        rate: None,
        queue: Duration::ZERO,
        blackouts: None,
    };

    /// One direction of a line of `rate` bit/s with half of `round_trip` as its delay, random `loss`, and a queue of one
    /// bandwidth-delay product, at least 50 ms.
    #[must_use]
    pub fn long_line(rate: u64, round_trip: Duration, loss: f64) -> Self {
        Self {
            delay: round_trip / 2,
            loss: Loss::Random(loss),
            rate: Some(rate),
            queue: round_trip.max(SHORTEST_QUEUE),
            ..Self::CLEAR
        }
    }
}

/// Delay that differs from frame to frame: 0 to `most`, all equally likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jitter {
    /// The most that is added.
    pub most: Duration,
    /// Whether a frame waits for those before it, as behind a radio's retransmissions; otherwise it may overtake them, as over
    /// several paths.
    pub keeps_order: bool,
}

impl Jitter {
    /// Every frame takes the same time.
    pub const NONE: Self = Self { most: Duration::ZERO, keeps_order: true };

    /// Up to `most` more, frames in their order.
    #[must_use]
    pub const fn ordered(most: Duration) -> Self {
        Self { most, keeps_order: true }
    }

    /// Up to `most` more, frames overtake one another.
    #[must_use]
    pub const fn unordered(most: Duration) -> Self {
        Self { most, keeps_order: false }
    }
}

/// Frames that are held back until others have overtaken them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reorder {
    /// Share of frames held back.
    pub share: f64,
    /// How many later frames of the lane overtake each.
    pub distance: u32,
    /// A frame goes on after this time even if fewer have overtaken it.
    pub longest: Duration,
}

impl Reorder {
    /// Nothing is held back.
    pub const NONE: Self = Self { share: 0.0, distance: 0, longest: Duration::ZERO };

    /// A `share` of frames is overtaken by `distance` others, or arrives 100 ms late if fewer follow.
    #[must_use]
    pub const fn new(share: f64, distance: u32) -> Self {
        Self { share, distance, longest: LONGEST_HOLD }
    }
}

/// A schedule of blackouts, counted from when the profile was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blackouts {
    /// When the first begins.
    pub start: Duration,
    /// How long each lasts.
    pub length: Duration,
    /// From the beginning of one to that of the next; `None` for one only.
    pub period: Option<Duration>,
}

impl Blackouts {
    /// One blackout of `length` that begins after `start`.
    #[must_use]
    pub const fn once(start: Duration, length: Duration) -> Self {
        Self { start, length, period: None }
    }

    /// A blackout of `length` in every `period`, the first one after `start`.
    #[must_use]
    pub const fn every(period: Duration, start: Duration, length: Duration) -> Self {
        Self { start, length, period: Some(period) }
    }

    /// Whether it is dark `elapsed` after the profile was set.
    pub(crate) fn covers(&self, elapsed: Duration) -> bool {
        let Some(since) = elapsed.checked_sub(self.start) else {
            return false;
        };
        let period = self.period.filter(|period| !period.is_zero());
        let since = period.map_or(since.as_nanos(), |period| since.as_nanos() % period.as_nanos());
        since < self.length.as_nanos()
    }
}

/// The shortest queue of [`Profile::long_line`]: what home routers have at least.
const SHORTEST_QUEUE: Duration = Duration::from_millis(50);

/// How long a frame waits to be overtaken when nothing follows: our choice, a usual round trip.
const LONGEST_HOLD: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_blackout_begins_and_ends_once() {
        let blackouts = Blackouts::once(SECOND * 5, SECOND * 2);
        for (tenths, dark) in [(0, false), (49, false), (50, true), (69, true), (70, false), (1000, false)] {
            assert_eq!(blackouts.covers(SECOND * tenths / 10), dark, "{tenths} tenths of a second");
        }
    }

    #[test]
    fn periodic_blackouts_come_again() {
        let blackouts = Blackouts::every(SECOND * 10, SECOND * 3, SECOND);
        for (tenths, dark) in [(0, false), (30, true), (40, false), (130, true), (140, false), (10_035, true)]
        {
            assert_eq!(blackouts.covers(SECOND * tenths / 10), dark, "{tenths} tenths of a second");
        }
    }
}
