//! The four values that name a TCP connection, and the map that finds its flow by them.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::SocketAddr;

use siphasher::sip::SipHasher13;

use super::slab::FlowId;
use crate::packet::tcp::Segment;

/// A connection as seen from the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tuple {
    pub(super) source: SocketAddr,
    pub(super) target: SocketAddr,
}

impl Tuple {
    pub(super) const fn of(segment: &Segment) -> Self {
        Self { source: segment.source, target: segment.destination }
    }
}

/// Flows by their tuple.
pub(super) type TupleMap = HashMap<Tuple, FlowId, Keyed>;

/// SipHash-1-3 under a key of our own: no program can aim its ports at one bucket, and a run can
/// be repeated from its seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keyed {
    key: [u8; 16],
}

impl Keyed {
    pub(super) const fn new(key: [u8; 16]) -> Self {
        Self { key }
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.key)
    }
}
