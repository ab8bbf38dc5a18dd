//! What strangers may cost: how many message 1s are opened and how many unknown keys are told so, for all together and for
//! each source.
//!
//! Nothing here grows. Each source is charged to two of a fixed number of slots, found by a hash that nobody else can
//! compute, and is over its rate when both slots are (a count-min sketch): a flood from many sources cannot aim at anybody's
//! slots. It can use up what all strangers share; whoever proved lately that it holds keys has a share of its own.

use std::net::IpAddr;
use std::time::Instant;

use siphasher::sip::SipHasher13;

use crate::rate::{Bucket, Rate};

/// What a packet would have us do for a stranger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cost {
    /// Open message 1 of someone who showed a cookie, or is on the 4-tuple of a live carrier.
    Message1,
    /// Open message 1 of someone who showed no cookie: its source may be forged.
    BareMessage1,
    /// Tell someone with valid keys that we do not know them.
    Refusal,
}

/// What is left for whom.
#[derive(Debug)]
pub(crate) struct Budgets {
    hasher: SipHasher13,
    /// Of sources that proved nothing.
    strangers: [Bucket; COSTS],
    /// Of sources that did.
    known: [Bucket; COSTS],
    slots: Box<[Bucket; SLOTS]>,
    /// Hashes of sources that proved themselves, each at the place it names; a newer one takes the place of an older.
    proved: Box<[u64; PROVED]>,
}

impl Budgets {
    /// `secret` must be random and known to nobody else.
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        Self {
            hasher: SipHasher13::new_with_key(&secret),
            strangers: [Bucket::default(); COSTS],
            known: [Bucket::default(); COSTS],
            slots: Box::new([Bucket::default(); SLOTS]),
            proved: Box::new([0; PROVED]),
        }
    }

    /// Takes one from what `source` and all others like it have left, if there is one.
    pub(crate) fn take(&mut self, cost: Cost, source: IpAddr, now: Instant) -> bool {
        let limits = cost.limits();
        let slots = self.slots_of(cost, source);
        let has_left = slots.iter().any(|&slot| self.slots[slot].has_left(limits.source, now));
        if !has_left {
            return false;
        }
        let own = self.is_proved(source) && self.known[cost as usize].take(limits.all, now);
        if !own && !self.strangers[cost as usize].take(limits.all, now) {
            return false;
        }
        for slot in slots {
            self.slots[slot].charge(limits.source, 1, now);
        }
        true
    }

    /// A packet from `source` opened under the keys of a carrier.
    pub(crate) fn on_proved(&mut self, source: IpAddr) {
        let hash = self.hash(PROOF, source);
        self.proved[below(hash, PROVED)] = hash;
    }

    fn is_proved(&self, source: IpAddr) -> bool {
        let hash = self.hash(PROOF, source);
        self.proved[below(hash, PROVED)] == hash
    }

    fn slots_of(&self, cost: Cost, source: IpAddr) -> [usize; 2] {
        let hash = self.hash(cost as u8, source);
        [below(hash, SLOTS), below(hash >> 32, SLOTS)]
    }

    /// IPv6 by its /64, which any host has to itself.
    fn hash(&self, purpose: u8, source: IpAddr) -> u64 {
        let network = match source {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        let mut input = [0; 10];
        input[..8].copy_from_slice(&network.to_le_bytes());
        input[8] = u8::from(source.is_ipv6());
        input[9] = purpose;
        self.hasher.hash(&input)
    }
}

impl Cost {
    const fn limits(self) -> Limits {
        match self {
            Self::Message1 => Limits { all: Rate::per_second(200, 200), source: Rate::per_second(20, 40) },
            Self::BareMessage1 => Limits { all: Rate::per_second(50, 50), source: Rate::per_second(5, 5) },
            Self::Refusal => Limits { all: Rate::per_second(10, 20), source: Rate::per_second(1, 3) },
        }
    }
}

/// How much of one thing.
///
/// The numbers are our choice. A message 1 costs a quarter of a millisecond: 200 a second are a twentieth of a core, and
/// the burst is all clients of a small server at once. A client asks twice a second while it dials, so many fit behind one
/// NAT. Without a cookie five a second let one client try all it has.
struct Limits {
    all: Rate,
    source: Rate,
}

#[expect(clippy::cast_possible_truncation, reason = "a place below a bound is wanted")]
const fn below(hash: u64, bound: usize) -> usize {
    hash as usize % bound
}

const COSTS: usize = 3;

/// Differs from every [`Cost`].
const PROOF: u8 = 255;

/// Our choice: 128 KiB. What all strangers may take fills a thousandth of it in a second.
const SLOTS: usize = 8192;

/// Our choice: 32 KiB, and more clients than one server has.
const PROVED: usize = 4096;

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Duration;

    use super::*;

    fn source(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    fn budgets() -> (Budgets, Instant) {
        let now = Instant::now();
        (Budgets::new([7; 16]), now)
    }

    /// How many of `count` askings are granted, each from another source.
    fn granted(budgets: &mut Budgets, cost: Cost, first: u32, count: u32, now: Instant) -> usize {
        (first..first + count).filter(|&number| budgets.take(cost, source(number), now)).count()
    }

    #[test]
    fn one_source_gets_a_burst_and_then_its_rate() {
        let (mut budgets, start) = budgets();
        for (cost, burst, rate) in
            [(Cost::Message1, 40, 20), (Cost::BareMessage1, 5, 5), (Cost::Refusal, 3, 1)]
        {
            let mut taken = |now| (0..1000).filter(|_| budgets.take(cost, source(1), now)).count();
            assert_eq!(taken(start), burst, "{cost:?}");
            assert_eq!(taken(start + Duration::from_secs(1)), rate, "{cost:?}");
            assert_eq!(taken(start + Duration::from_secs(100)), burst, "{cost:?}");
        }
    }

    #[test]
    fn all_strangers_together_get_a_burst_and_then_a_rate() {
        let (mut budgets, start) = budgets();
        for (cost, burst, rate) in
            [(Cost::Message1, 200, 200), (Cost::BareMessage1, 50, 50), (Cost::Refusal, 20, 10)]
        {
            assert_eq!(granted(&mut budgets, cost, 0, 5000, start), burst, "{cost:?}");
            let later = start + Duration::from_secs(1);
            assert_eq!(granted(&mut budgets, cost, 10_000, 5000, later), rate, "{cost:?}");
        }
    }

    #[test]
    fn a_flood_without_cookies_spends_nothing_of_those_who_have_one() {
        let (mut budgets, now) = budgets();
        granted(&mut budgets, Cost::BareMessage1, 0, 100_000, now);
        assert_eq!(granted(&mut budgets, Cost::Message1, 0, 100, now), 100);
    }

    #[test]
    fn a_flood_from_a_hundred_thousand_sources_starves_nobody_who_proved_itself() {
        let (mut budgets, mut now) = budgets();
        let (friend, other) = (source(7_000_000), source(8_000_000));
        budgets.on_proved(friend);
        for second in 0..10 {
            now += Duration::from_secs(1);
            for cost in [Cost::Message1, Cost::BareMessage1] {
                granted(&mut budgets, cost, second * 100_000, 100_000, now);
                assert!(!budgets.take(cost, other, now), "a stranger is one of many");
                assert!(budgets.take(cost, friend, now), "{cost:?}, second {second}");
            }
        }
    }

    #[test]
    fn a_source_that_is_over_its_rate_spends_nothing_of_the_others() {
        let (mut budgets, now) = budgets();
        for _ in 0..100_000 {
            budgets.take(Cost::Message1, source(1), now);
        }
        assert_eq!(granted(&mut budgets, Cost::Message1, 2, 1000, now), 160);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_source() {
        let (mut budgets, now) = budgets();
        let address =
            |network: u16, host: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host).into();
        let taken = (0..100).filter(|&host| budgets.take(Cost::BareMessage1, address(1, host), now)).count();
        assert_eq!(taken, 5);
        assert!(budgets.take(Cost::BareMessage1, address(2, 0), now));
    }
}
