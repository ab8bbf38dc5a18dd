//! Lengths without a habit: what an idle tunnel says is always the same, and must not always be as long.

/// Draws paddings for the packets of one carrier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    /// `seed` must be unforeseeable outside.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Appends padding to the `length` bytes of frames at the end of `out`, if they are few: what carries data has lengths of its
    /// own, and pays for none.
    pub(crate) fn pad(&mut self, out: &mut Vec<u8>, length: usize) {
        if length < FEW {
            let padding = usize::from(self.next().to_le_bytes()[7]) % MOST;
            out.resize(out.len() + padding, 0);
        }
    }

    /// SplitMix64 ("Fast splittable pseudorandom number generators", Steele, Lea and Flood): lengths are no secret.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// Pings, their answers, goodbyes: packets of nothing but these are shorter.
const FEW: usize = 64;

/// Our choice: as many lengths, all about equally frequent.
const MOST: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_bytes_get_any_length_and_many_get_none() {
        let mut noise = Noise::new(5);
        let mut seen = [0; MOST];
        for _ in 0..100 * MOST {
            let mut out = vec![1; 100];
            noise.pad(&mut out, 30);
            assert!(out[100..].iter().all(|byte| *byte == 0));
            seen[out.len() - 100] += 1;
        }
        assert!(seen.iter().all(|count| (50..200).contains(count)), "{seen:?}");
        let mut out = vec![1; 100];
        noise.pad(&mut out, FEW);
        assert_eq!(out.len(), 100);
    }
}
