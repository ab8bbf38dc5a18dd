//! Which frames are lost: at random, or in bursts.

use rand::RngExt;
use rand::rngs::StdRng;

/// Which frames are lost; probabilities are of 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// Each frame for itself, with this probability.
    Random(f64),
    /// In bursts: the model of Gilbert and Elliott, two states with a loss of their own and a chance of change at each frame.
    /// [`Loss::bursts`] finds the numbers.
    Bursts {
        /// Probability that a frame in the good state makes it bad.
        begin: f64,
        /// Probability that a frame in the bad state makes it good.
        end: f64,
        /// Loss in the good state.
        good: f64,
        /// Loss in the bad state.
        bad: f64,
    },
}

impl Loss {
    /// Nothing is lost.
    pub const NONE: Self = Self::Random(0.0);

    /// Bursts that lose every frame and `mean_length` frames on average, with enough of them that `share` of all is lost.
    ///
    /// # Panics
    /// If `share` is not in 0 to 1 or `mean_length` below 1, or if bursts so short cannot lose so much: a burst is followed by at
    /// least one frame that is not lost.
    #[must_use]
    pub const fn bursts(share: f64, mean_length: f64) -> Self {
        assert!(share >= 0.0 && share < 1.0, "a share of all frames");
        assert!(mean_length >= 1.0, "a burst is at least one frame");
        let end = 1.0 / mean_length;
        let begin = share * end / (1.0 - share);
        assert!(begin <= 1.0, "longer bursts are needed to lose this much");
        Self::Bursts { begin, end, good: 0.0, bad: 1.0 }
    }

    /// The share of frames lost in the long run.
    #[must_use]
    pub const fn share(&self) -> f64 {
        match *self {
            Self::Random(share) => share,
            Self::Bursts { begin, end, good, bad } => {
                if begin + end == 0.0 {
                    return good;
                }
                (good * end + bad * begin) / (begin + end)
            }
        }
    }
}

/// Decides frame by frame.
#[derive(Debug, Default)]
pub(crate) struct Dice {
    is_bad: bool,
}

impl Dice {
    pub(crate) fn is_lost(&mut self, loss: &Loss, random: &mut StdRng) -> bool {
        match *loss {
            Loss::Random(share) => random.random_bool(share),
            Loss::Bursts { begin, end, good, bad } => {
                let change = if self.is_bad { end } else { begin };
                self.is_bad ^= random.random_bool(change);
                random.random_bool(if self.is_bad { bad } else { good })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const FRAMES: usize = 400_000;

    /// The share of frames lost and the mean length of runs of lost frames.
    fn measure(loss: &Loss, seed: u64) -> (f64, f64) {
        let (mut dice, mut random) = (Dice::default(), StdRng::seed_from_u64(seed));
        let lost: Vec<bool> = (0..FRAMES).map(|_| dice.is_lost(loss, &mut random)).collect();
        let count = lost.iter().filter(|lost| **lost).count() as f64;
        let runs = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64;
        (count / FRAMES as f64, count / runs)
    }

    #[test]
    fn bursts_have_the_share_and_the_mean_length_that_were_asked_for() {
        for (seed, (share, length)) in (0..).zip([(0.05, 10.0), (0.02, 3.0), (0.2, 25.0), (0.3, 1.0)]) {
            let loss = Loss::bursts(share, length);
            let (lost, mean) = measure(&loss, seed);
            assert!((lost / share - 1.0).abs() < 0.06, "{loss:?}: lost {lost}");
            assert!((mean / length - 1.0).abs() < 0.06, "{loss:?}: bursts of {mean}");
            assert!((loss.share() - share).abs() < 1e-9, "{loss:?}: {}", loss.share());
        }
    }

    #[test]
    fn both_states_lose_their_own_share() {
        let loss = Loss::Bursts { begin: 0.01, end: 0.03, good: 0.02, bad: 0.5 };
        let (lost, _) = measure(&loss, 9);
        // In the bad state for a quarter of the time.
        assert!((lost - 0.14).abs() < 0.006, "{lost}");
        assert!((loss.share() - 0.14).abs() < 1e-9);
    }

    #[test]
    fn random_loss_comes_in_runs_as_chance_has_it() {
        let (lost, mean) = measure(&Loss::Random(0.2), 5);
        assert!((lost - 0.2).abs() < 0.004, "{lost}");
        assert!((mean - 1.25).abs() < 0.02, "{mean}");
    }

    #[test]
    fn a_line_that_loses_nothing_loses_nothing() {
        for loss in [Loss::NONE, Loss::bursts(0.0, 10.0)] {
            let mut random = StdRng::seed_from_u64(1);
            let mut dice = Dice::default();
            assert!((0..FRAMES).all(|_| !dice.is_lost(&loss, &mut random)), "{loss:?}");
        }
    }
}
