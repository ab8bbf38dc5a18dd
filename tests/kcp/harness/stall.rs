//! Hosts that are busy with something else.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// The moments at which a loaded host gets to run: what arrives in between waits for the next, as timers do.
#[derive(Debug)]
pub(crate) struct Stalls {
    mean: Duration,
    longest: Duration,
    random: StdRng,
    /// Those that were asked about and are not over, the last one drawn at the end.
    moments: VecDeque<Instant>,
}

impl Stalls {
    /// Moments that are exponentially far apart, `mean` before they are cut at `longest`.
    pub(crate) fn new(mean: Duration, longest: Duration, seed: u64, now: Instant) -> Self {
        Self { mean, longest, random: StdRng::seed_from_u64(seed), moments: VecDeque::from([now]) }
    }

    /// The first moment at or after `wanted`, which is not before `now`.
    pub(crate) fn after(&mut self, wanted: Instant, now: Instant) -> Instant {
        while let Some(last) = self.moments.back().copied().filter(|last| *last < wanted) {
            let gap = self.mean.mul_f64(-f64::ln(1.0 - self.random.random_range(0.0..1.0)));
            self.moments.push_back(last + gap.clamp(SHORTEST, self.longest));
        }
        while self.moments.len() > 1 && self.moments[0] < now {
            self.moments.pop_front();
        }
        self.moments[self.moments.partition_point(|moment| *moment < wanted)]
    }
}

const SHORTEST: Duration = Duration::from_micros(10);
