//! What an eavesdropper has: packets that travelled, to be played again; and a hash of all of them.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher as _};
use std::time::Instant;

use link_emulator::Direction as Way;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::census::Census;

/// Some packets of each way: the latest, and old ones here and there.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    latest: [VecDeque<Vec<u8>>; 2],
    old: [Vec<Vec<u8>>; 2],
    seen: usize,
    census: Option<Census>,
}

impl Captured {
    pub(crate) fn note(&mut self, way: Way, packet: &[u8]) {
        if let Some(census) = &mut self.census {
            census.note(packet);
        }
        let latest = &mut self.latest[way.index()];
        if latest.len() == LATEST {
            latest.pop_front();
        }
        latest.push_back(packet.to_vec());
        self.seen += 1;
        let old = &mut self.old[way.index()];
        // The first are the handshake's.
        if old.len() < FIRST || (old.len() < OLD && self.seen.is_multiple_of(64)) {
            old.push(packet.to_vec());
        }
    }

    /// All of them.
    pub(crate) fn all(&self, way: Way) -> impl Iterator<Item = &Vec<u8>> {
        self.old[way.index()].iter().chain(&self.latest[way.index()])
    }

    /// From now on all packets are counted.
    pub(crate) fn count(&mut self, census: Census) {
        self.census = Some(census);
    }

    /// What was counted.
    pub(crate) fn census(&self) -> &Census {
        self.census.as_ref().expect("packets are counted")
    }

    /// The same, for another world to go on with.
    pub(crate) fn take_census(&mut self) -> Census {
        self.census.take().expect("packets are counted")
    }

    /// One of them.
    pub(crate) fn choose(&self, way: Way, rng: &mut StdRng) -> Option<Vec<u8>> {
        let (latest, old) = (&self.latest[way.index()], &self.old[way.index()]);
        let count = latest.len() + old.len();
        let index = rng.random_range(0..count.max(1));
        latest.get(index).or_else(|| old.get(index - latest.len())).cloned()
    }
}

/// A hash of every packet, with its time and way.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    hasher: DefaultHasher,
    pub(crate) packets: u64,
}

impl Transcript {
    pub(crate) fn note(&mut self, way: Way, packet: &[u8], start: Instant, now: Instant) {
        self.packets += 1;
        self.hasher.write_usize(way.index());
        self.hasher.write_u128((now - start).as_nanos());
        self.hasher.write(packet);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}

const LATEST: usize = 32;
const FIRST: usize = 4;
const OLD: usize = 64;
