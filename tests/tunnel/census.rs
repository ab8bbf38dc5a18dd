//! What an eavesdropper who counts would find: which byte stands how often at which place of a payload.

use std::time::Duration;

use super::MINUTE;
use super::weather::FAIR;
use super::world::World;

/// Counts of the payloads of one kind, by their size.
#[derive(Debug)]
pub(crate) struct Census {
    sizes: std::ops::Range<usize>,
    /// Of each place from the front, then of each from the end.
    places: Vec<[u32; 256]>,
    count: u32,
}

impl Census {
    /// Of payloads whose length lies in `sizes`.
    fn of(sizes: std::ops::Range<usize>) -> Self {
        Self { sizes, places: vec![[0; 256]; FRONT + BACK], count: 0 }
    }

    /// Takes an outer packet.
    pub(crate) fn note(&mut self, packet: &[u8]) {
        let Ok(segment) = vpn::carrier::parse(packet) else { return };
        let payload = &packet[segment.payload];
        if !self.sizes.contains(&payload.len()) {
            return;
        }
        self.count += 1;
        let bytes = payload[..FRONT].iter().chain(&payload[payload.len() - BACK..]);
        for (place, byte) in self.places.iter_mut().zip(bytes) {
            place[usize::from(*byte)] += 1;
        }
    }

    /// The place where the bytes say least, and how many bits that is.
    fn least_entropy(&self) -> (usize, f64) {
        let bits = self.places.iter().map(|counts| entropy(counts, self.count));
        bits.enumerate().min_by(|one, other| one.1.total_cmp(&other.1)).expect("there are places")
    }
}

/// Bits of a byte that is distributed so.
fn entropy(counts: &[u32; 256], total: u32) -> f64 {
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / f64::from(total));
    -shares.map(|share| share * share.log2()).sum::<f64>()
}

#[test]
fn ten_thousand_small_payloads_have_no_constant_place() {
    let mut world = counted(5, SMALL);
    while world.captured.census().count < ENOUGH {
        world.run_for(60 * MINUTE);
    }
    expect_noise(&world);
}

#[test]
fn ten_thousand_large_payloads_have_no_constant_place() {
    let mut world = counted(6, SMALL.end..usize::MAX);
    world.open(false, 8 << 20, 8 << 20);
    world.finish(10 * MINUTE);
    expect_noise(&world);
}

/// Handshakes and the pings after them: sessions that come and go.
#[test]
fn payloads_of_many_short_sessions_have_no_constant_place() {
    let mut census = Census::of(FRONT.max(BACK)..usize::MAX);
    let mut seed = 1000;
    while census.count < ENOUGH / 4 {
        let mut world = World::connecting(FAIR, seed);
        world.captured.count(census);
        world.come_up();
        world.run_for(Duration::from_secs(3));
        census = world.captured.take_census();
        seed += 1;
    }
    let (place, bits) = census.least_entropy();
    assert!(bits > 7.9, "{bits} bits at place {place} of {} payloads", census.count);
}

fn counted(seed: u64, sizes: std::ops::Range<usize>) -> World {
    let mut world = World::new(FAIR, seed);
    world.captured.count(Census::of(sizes));
    world
}

/// Of 10,000 random bytes 7.98 bits are to be expected.
fn expect_noise(world: &World) {
    let census = world.captured.census();
    assert!(census.count >= ENOUGH, "{}, {} payloads", world.describe(), census.count);
    let (place, bits) = census.least_entropy();
    assert!(bits > 7.95, "{}, {bits} bits at place {place} of {} payloads", world.describe(), census.count);
}

const ENOUGH: u32 = 10_000;

/// Pings, their answers, acknowledgements.
const SMALL: std::ops::Range<usize> = FRONT..600;

/// Header, ephemeral key, and what begins behind them.
const FRONT: usize = 40;

/// The tag.
const BACK: usize = 16;
