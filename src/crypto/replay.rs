//! The replay window: which of the last 8192 counters of a key were already opened.
//!
//! The bitmap slides by whole words and is used as a ring (RFC 6479), so that it never shifts
//! bits. A counter is marked only once its packet has opened; until then it is only looked at.
//!
//! ```text
//!              highest - 8191            highest
//!     too old ─────────┤ seen or not seen ├───────── new
//! ```

use thiserror::Error;

/// The window of one key. A new one has seen nothing.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    highest: Option<u64>,
    words: [u64; WORDS],
}

impl Window {
    /// Makes a window that has seen nothing.
    pub(crate) fn new() -> Self {
        Self { highest: None, words: [0; WORDS] }
    }

    /// Returns the highest counter that was marked.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Looks whether a packet with this counter may still be opened. Changes nothing.
    ///
    /// # Errors
    /// [`Replay`] says why it may not.
    pub(crate) fn check(&self, counter: u64) -> Result<(), Replay> {
        let Some(highest) = self.highest else {
            return Ok(());
        };
        if counter > highest {
            return Ok(());
        }
        if highest - counter >= WINDOW {
            return Err(Replay::TooOld);
        }
        if self.word(counter) & bit(counter) != 0 {
            return Err(Replay::Seen);
        }
        Ok(())
    }

    /// Marks the counter of a packet that opened, and returns whether it is the highest so far.
    /// A counter below the window is left alone.
    pub(crate) fn mark(&mut self, counter: u64) -> bool {
        let newest = self.highest.is_none_or(|highest| counter > highest);
        if newest {
            self.slide(counter);
        } else if self.check(counter) == Err(Replay::TooOld) {
            return false;
        }
        if let Some(word) = self.words.get_mut(position(counter)) {
            *word |= bit(counter);
        }
        newest
    }

    /// Clears the words between the old and the new highest counter, all of them at most.
    fn slide(&mut self, counter: u64) {
        let new = counter / WORD_BITS;
        let old = self.highest.map_or(0, |highest| highest / WORD_BITS);
        let first = (old + 1).max((new + 1).saturating_sub(WORDS as u64));
        for number in first..=new {
            if let Some(word) = self.words.get_mut(position(number * WORD_BITS)) {
                *word = 0;
            }
        }
        self.highest = Some(counter);
    }

    fn word(&self, counter: u64) -> u64 {
        self.words.get(position(counter)).copied().unwrap_or(0)
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a counter may not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Replay {
    /// A packet with this counter was opened before.
    #[error("the counter was seen before")]
    Seen,
    /// The counter lies below the window, so nobody knows.
    #[error("the counter is below the window")]
    TooOld,
}

/// Which word of the ring holds the counter.
fn position(counter: u64) -> usize {
    (counter / WORD_BITS % WORDS as u64) as usize
}

fn bit(counter: u64) -> u64 {
    1 << (counter % WORD_BITS)
}

/// Counters that are remembered: our choice, because at 1 Gbit/s it is 90 ms of packets, more than
/// paths reorder; WireGuard's is about the same.
pub(crate) const WINDOW: u64 = 8192;

const WORD_BITS: u64 = u64::BITS as u64;

/// One word more than the window holds, because the words at its two ends are used in part
/// (RFC 6479, section 4).
const WORDS: usize = 129;

const _: () = assert!(WORDS as u64 * WORD_BITS >= WINDOW + WORD_BITS);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Opens a packet, if the window lets it.
    fn take(window: &mut Window, counter: u64) -> Result<bool, Replay> {
        window.check(counter).map(|()| window.mark(counter))
    }

    /// What the window must say, by remembering everything.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn take(&mut self, counter: u64) -> Result<bool, Replay> {
            let highest = self.seen.last().copied();
            if highest.is_some_and(|highest| highest >= counter + WINDOW) {
                return Err(Replay::TooOld);
            }
            if !self.seen.insert(counter) {
                return Err(Replay::Seen);
            }
            Ok(highest.is_none_or(|highest| counter > highest))
        }
    }

    #[test]
    fn takes_each_counter_once() {
        let mut window = Window::new();
        for counter in 0..3 * WINDOW {
            assert_eq!(take(&mut window, counter), Ok(true));
            assert_eq!(take(&mut window, counter), Err(Replay::Seen));
        }
        assert_eq!(window.highest(), Some(3 * WINDOW - 1));
    }

    #[test]
    fn takes_a_whole_window_backwards_and_nothing_below_it() {
        for highest in WINDOW - 1..WINDOW + 2 * WORD_BITS {
            let mut window = Window::new();
            assert_eq!(take(&mut window, highest), Ok(true));
            for back in 1..WINDOW {
                assert_eq!(take(&mut window, highest - back), Ok(false));
            }
            for back in 0..WINDOW {
                assert_eq!(take(&mut window, highest - back), Err(Replay::Seen));
            }
            if let Some(below) = highest.checked_sub(WINDOW) {
                assert_eq!(take(&mut window, below), Err(Replay::TooOld));
                assert!(!window.mark(below));
            }
        }
    }

    #[test]
    fn forgets_exactly_what_a_jump_leaves_behind() {
        for jump in (1..2 * WINDOW + 3 * WORD_BITS).step_by(61) {
            let mut window = Window::new();
            let mut model = Model::default();
            for counter in (0..WINDOW).step_by(3).chain([WINDOW + jump]) {
                assert_eq!(take(&mut window, counter), model.take(counter));
            }
            for counter in 0..WINDOW + jump + 2 {
                let expected = model.take(counter);
                assert_eq!(take(&mut window, counter), expected, "{counter} after {jump}");
            }
        }
    }

    #[test]
    fn works_up_to_the_last_counter() {
        let mut window = Window::new();
        assert_eq!(take(&mut window, u64::MAX), Ok(true));
        assert_eq!(take(&mut window, u64::MAX), Err(Replay::Seen));
        assert_eq!(take(&mut window, u64::MAX - WINDOW + 1), Ok(false));
        assert_eq!(take(&mut window, u64::MAX - WINDOW), Err(Replay::TooOld));
        assert_eq!(take(&mut window, 0), Err(Replay::TooOld));
    }

    #[test]
    fn changes_nothing_by_looking() {
        let window = Window::new();
        assert_eq!(window.check(7), Ok(()));
        assert_eq!(window.check(7), Ok(()));
        assert_eq!(window.highest(), None);
    }

    proptest! {
        #[test]
        fn agrees_with_a_model_that_remembers_everything(
            steps in prop::collection::vec((0..4u8, 0..WINDOW * 2), 1..400),
        ) {
            let mut window = Window::new();
            let mut model = Model::default();
            for (kind, distance) in steps {
                let highest = window.highest().unwrap_or(0);
                let counter = match kind {
                    0 => highest + 1,
                    1 => highest + distance % 130,
                    2 => highest.saturating_sub(distance),
                    _ => highest + distance,
                };
                prop_assert_eq!(take(&mut window, counter), model.take(counter));
            }
        }
    }
}
