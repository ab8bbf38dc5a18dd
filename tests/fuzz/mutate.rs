//! Random damage to corpus entries, the same for the same seed.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// An endless source of inputs.
#[derive(Debug)]
pub(crate) struct Mutator<'a> {
    corpus: &'a [Vec<u8>],
    rng: StdRng,
}

impl<'a> Mutator<'a> {
    pub(crate) fn new(corpus: &'a [Vec<u8>], seed: u64) -> Self {
        Self { corpus, rng: StdRng::seed_from_u64(seed) }
    }

    /// One in sixteen is nothing but noise, the others are entries with one to eight changes.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        if self.rng.random_ratio(1, 16) {
            return self.noise(200);
        }
        let mut bytes = self.entry().to_vec();
        for _ in 0..self.rng.random_range(1..=8) {
            self.change(&mut bytes);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.rng.random_range(0..=bytes.len());
        match self.rng.random_range(0..9) {
            0 => self.overwrite(bytes, at, 1),
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at..at, self.noise(20))),
            3 => drop(bytes.drain(at..self.end(bytes, at))),
            4 => bytes.extend_from_within(at..),
            5 => self.splice(bytes, at),
            6 => {
                let width = [2, 4, 8][self.rng.random_range(0..3)];
                self.overwrite(bytes, at, width);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.rng.random_range(0..8);
                }
            }
        }
    }

    /// Writes a number over a field of `width` bytes: a small one, one at an edge, or any.
    fn overwrite(&mut self, bytes: &mut [u8], at: usize, width: usize) {
        let number: u64 = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(0..64),
            1 => (1_u64 << self.rng.random_range(0..64)).wrapping_sub(self.rng.random_range(0..3)),
            2 => (bytes.len() as u64).wrapping_add(self.rng.random_range(0..3)).wrapping_sub(1),
            _ => self.rng.random(),
        };
        let mut field = number.to_le_bytes()[..width].to_vec();
        if self.rng.random() {
            field.reverse();
        }
        for (to, from) in bytes.iter_mut().skip(at).zip(field) {
            *to = from;
        }
    }

    /// Goes on with the end of another entry.
    fn splice(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let other = self.entry();
        let from = self.rng.random_range(0..=other.len());
        bytes.truncate(at);
        bytes.extend_from_slice(&other[from..]);
    }

    fn entry(&mut self) -> &'a [u8] {
        let number = self.rng.random_range(0..self.corpus.len());
        &self.corpus[number]
    }

    fn end(&mut self, bytes: &[u8], at: usize) -> usize {
        self.rng.random_range(at..=bytes.len())
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let length = self.rng.random_range(0..=most);
        (0..length).map(|_| self.rng.random()).collect()
    }
}
