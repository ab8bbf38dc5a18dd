//! What lies in a window of sn, found by its distance from the first: a sequence that may have gaps.
//!
//! It is kept in blocks. A block is made when something is put in it and given back when its last slot was taken, so
//! memory follows what is held, also after a burst, and nothing is ever moved to grow or to shrink: every operation is
//! O(1) and not only amortised. (The table of the blocks does grow by doubling, but has 1024 words for 65,535 slots.)
//! A peer that sends the last segment of the window first makes us hold one block.

use std::collections::VecDeque;

/// A queue of `T` with gaps.
#[derive(Debug)]
pub(crate) struct Window<T> {
    /// `None`: nothing was put in any slot of the block yet.
    blocks: VecDeque<Option<Block<T>>>,
    /// Slots of the first block that lie before the front.
    passed: usize,
    /// From the front to the last that was put.
    len: usize,
    /// An empty block, so that a short queue that fills and empties all the time allocates nothing.
    spare: Option<Block<T>>,
}

impl<T> Window<T> {
    /// Whether nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What lies `index` slots behind the front.
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        let (block, slot) = self.place(index);
        self.blocks.get(block)?.as_ref()?[slot].as_ref()
    }

    /// Puts something `index` slots behind the front, in place of what lies there.
    pub(crate) fn put(&mut self, index: usize, item: T) {
        let (block, slot) = self.place(index);
        self.len = self.len.max(index + 1);
        if let Some(Some(block)) = self.blocks.get_mut(block) {
            block[slot] = Some(item);
            return;
        }
        if self.blocks.len() <= block {
            self.blocks.resize_with(block + 1, || None);
        }
        let mut made = self.spare.take().unwrap_or_else(empty);
        made[slot] = Some(item);
        self.blocks[block] = Some(made);
    }

    /// Takes what lies at the front and moves on to the next slot; `None`, and nothing moves, if it is a gap.
    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let item = self.blocks.front_mut()?.as_mut()?[self.passed % BLOCK].take()?;
        self.passed += 1;
        self.len -= 1;
        if self.passed == BLOCK || self.len == 0 {
            self.leave_block();
        }
        Some(item)
    }

    /// The first block is empty: its slots were taken one by one.
    #[cold]
    fn leave_block(&mut self) {
        self.spare = self.blocks.pop_front().flatten();
        self.passed = 0;
        if self.len == 0 {
            self.blocks.shrink_to(FEW_BLOCKS);
        }
    }

    fn place(&self, index: usize) -> (usize, usize) {
        let at = self.passed + index;
        (at / BLOCK, at % BLOCK)
    }
}

/// Gives back most of what a queue without gaps has beyond its length, keeping room for `kept`.
///
/// It comes back to as much only after it has doubled twice, or to work only after it has shrunk to a quarter again: the
/// moving costs O(1) for each item that was put or taken.
pub(crate) fn trim<T>(queue: &mut VecDeque<T>, kept: usize) {
    if queue.capacity() > kept && queue.capacity() / 8 >= queue.len() {
        queue.shrink_to(kept.max(2 * queue.len()));
    }
}

impl<T> Default for Window<T> {
    fn default() -> Self {
        Self { blocks: VecDeque::new(), passed: 0, len: 0, spare: None }
    }
}

type Block<T> = Box<[Option<T>; BLOCK]>;

fn empty<T>() -> Block<T> {
    Box::new([const { None }; BLOCK])
}

/// Slots of a block; our choice: 2 KiB of what the receiver keeps.
const BLOCK: usize = 64;
/// Places for blocks that are kept when nothing is held; our choice.
const FEW_BLOCKS: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn blocks<T>(window: &Window<T>) -> usize {
        window.blocks.iter().flatten().count() + usize::from(window.spare.is_some())
    }

    #[test]
    fn gives_its_memory_back_after_a_burst() {
        let mut window = Window::default();
        for item in 0..60_000 {
            window.put(item, item);
        }
        assert!(blocks(&window) >= 60_000 / BLOCK);
        for item in 0..60_000 {
            assert_eq!(window.pop_front(), Some(item));
            assert!(blocks(&window) <= (60_000 - item) / BLOCK + 3);
        }
        assert_eq!(blocks(&window), 1);
        assert!(window.blocks.capacity() <= FEW_BLOCKS);
    }

    #[test]
    fn takes_one_block_for_what_lies_far_ahead() {
        let mut window = Window::default();
        window.put(65_534, ());
        assert_eq!((window.len, blocks(&window)), (65_535, 1));
        assert_eq!(window.pop_front(), None);
    }

    #[test]
    fn allocates_nothing_while_it_fills_and_empties() {
        let mut window = Window::default();
        window.put(0, 0);
        let block = window.blocks[0].as_ref().map(|block| block.as_ptr());
        for item in 1..1000 {
            assert_eq!(window.pop_front(), Some(item - 1));
            window.put(0, item);
            assert_eq!(window.blocks[0].as_ref().map(|block| block.as_ptr()), block);
        }
    }

    proptest! {
        #[test]
        fn is_a_queue_with_gaps(steps in prop::collection::vec(prop_oneof![
            3 => (0..300usize).prop_map(Some),
            4 => Just(None),
        ], 0..2000)) {
            let (mut window, mut model, mut front) = (Window::default(), BTreeMap::new(), 0);
            for (number, step) in steps.into_iter().enumerate() {
                if let Some(index) = step {
                    window.put(index, number);
                    model.insert(front + index, number);
                } else {
                    let expected = model.remove(&front);
                    front += usize::from(expected.is_some());
                    prop_assert_eq!(window.pop_front(), expected);
                }
                let end = model.last_key_value().map_or(front, |(last, _)| last + 1);
                prop_assert_eq!(window.len, end - front);
                prop_assert_eq!(window.is_empty(), model.is_empty());
                for index in [0, 1, BLOCK - 1, BLOCK, 299, 400] {
                    prop_assert_eq!(window.get(index), model.get(&(front + index)));
                }
                let held = blocks(&window).saturating_sub(1) * BLOCK;
                prop_assert!(held == 0 || blocks(&window) <= model.len() + 1);
            }
        }
    }
}
