//! The byte queue of one direction of one stream.
//!
//! A list of chunks rather than one ring: it grows without copying what it holds, its front is
//! always one contiguous slice, and memory goes back chunk by chunk as it drains. An empty queue owns
//! no heap memory at all, so an idle stream costs nothing.

use std::collections::VecDeque;

/// A first-in, first-out queue of bytes.
///
/// Holds at most twice its bytes and two chunks ([`CHUNK`]) of memory.
#[derive(Debug, Default)]
pub(super) struct ByteQueue {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the front chunk that were consumed already.
    start: usize,
    len: usize,
}

impl ByteQueue {
    /// Bytes in the queue.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the queue holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `bytes`.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.fill_tail(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if !bytes.is_empty() {
                // As much again as it holds: few chunks for many bytes, small ones for few.
                let capacity = bytes.len().max(self.len).min(CHUNK);
                self.chunks.push_back(Vec::with_capacity(capacity));
            }
        }
    }

    /// The bytes at the front that lie in one piece; empty only when the queue is.
    pub(super) fn front(&self) -> &[u8] {
        self.chunks.front().and_then(|chunk| chunk.get(self.start..)).unwrap_or_default()
    }

    /// Drops at most `n` bytes off the front and returns how many it were.
    pub(super) fn consume(&mut self, n: usize) -> usize {
        let n = n.min(self.len);
        let mut left = n;
        while left > 0 {
            let step = left.min(self.front().len());
            self.advance(step);
            left -= step;
        }
        n
    }

    /// Moves bytes off the front into `out` until either is exhausted; returns how many.
    pub(super) fn pop_into(&mut self, out: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(room) = out.get_mut(done..).filter(|room| !room.is_empty() && self.len > 0) {
            let front = self.front();
            let step = room.len().min(front.len());
            room[..step].copy_from_slice(&front[..step]);
            self.advance(step);
            done += step;
        }
        done
    }

    /// Drops everything and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Appends to the last chunk what fits without growing it.
    fn fill_tail(&mut self, bytes: &[u8]) -> usize {
        let Some(tail) = self.chunks.back_mut() else {
            return 0;
        };
        let fits = bytes.len().min(tail.capacity() - tail.len());
        tail.extend_from_slice(&bytes[..fits]);
        self.len += fits;
        fits
    }

    /// Consumes `step` bytes, which lie in the front chunk.
    fn advance(&mut self, step: usize) {
        self.start += step;
        self.len -= step;
        if self.len == 0 {
            self.clear();
        } else if self.front().is_empty() {
            self.chunks.pop_front();
            self.start = 0;
        }
    }
}

/// The largest piece of memory of a queue: our choice, because it is small beside a busy stream's
/// window, large enough for one write to a socket, and below the size for which the allocator asks
/// the kernel each time.
const CHUNK: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn owns_no_memory_when_it_is_empty() {
        let mut queue = ByteQueue::default();
        queue.push(&[1; 100_000]);
        assert_eq!(queue.consume(200_000), 100_000);
        assert_eq!((queue.chunks.capacity(), queue.len()), (0, 0));
        assert!(queue.front().is_empty());
    }

    #[test]
    fn gives_memory_back_while_it_drains() {
        let mut queue = ByteQueue::default();
        queue.push(&[1; 100 * CHUNK]);
        queue.consume(99 * CHUNK);
        let held: usize = queue.chunks.iter().map(Vec::capacity).sum();
        assert!(held <= 2 * CHUNK, "{held}");
    }

    #[test]
    fn a_few_bytes_take_only_a_few_bytes() {
        let mut queue = ByteQueue::default();
        for _ in 0..100 {
            queue.push(&[1]);
        }
        let held: usize = queue.chunks.iter().map(Vec::capacity).sum();
        assert!(held <= 200 && queue.chunks.len() < 10, "{held} in {}", queue.chunks.len());
    }

    proptest! {
        #[test]
        fn behaves_like_a_plain_vector(
            steps in proptest::collection::vec((0_u8..3, 0_usize..40_000), 1..40),
        ) {
            let mut queue = ByteQueue::default();
            let mut model: Vec<u8> = Vec::new();
            let mut next = 0_u8;
            for (step, size) in steps {
                match step {
                    0 => {
                        let at = model.len();
                        model.resize_with(at + size, || {
                            next = next.wrapping_add(1);
                            next
                        });
                        queue.push(&model[at..]);
                    }
                    1 => {
                        let n = queue.consume(size);
                        prop_assert_eq!(n, size.min(model.len()));
                        model.drain(..n);
                    }
                    _ => {
                        let mut out = vec![0; size];
                        let n = queue.pop_into(&mut out);
                        prop_assert_eq!(&out[..n], &model[..size.min(model.len())]);
                        model.drain(..n);
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.is_empty(), model.is_empty());
                prop_assert_eq!(queue.front().is_empty(), model.is_empty());
                prop_assert!(model.starts_with(queue.front()));
            }
        }
    }
}
