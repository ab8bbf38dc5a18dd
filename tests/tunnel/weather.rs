//! What the line between the hosts and the server does to packets, the same both ways.

use std::time::Duration;

use link_emulator::{Jitter, Loss, Middlebox, Profile, Reorder, Segment, Towards};
use rand::RngExt as _;
use rand::rngs::StdRng;

/// Nothing but a round trip of 100 ms.
pub(crate) const FAIR: Profile = Profile { delay: Duration::from_millis(50), ..Profile::CLEAR };

/// [`FAIR`], but this share of packets is lost.
pub(crate) const fn lossy(share: f64) -> Profile {
    Profile { loss: Loss::Random(share), ..FAIR }
}

/// Anything, but survivable.
pub(crate) fn any(rng: &mut StdRng) -> Profile {
    let most = millis(rng, 0, 40);
    let share = rng.random_range(0.0..0.2);
    Profile {
        delay: millis(rng, 1, 150),
        jitter: if rng.random() { Jitter::unordered(most) } else { Jitter::ordered(most) },
        loss: if rng.random() {
            Loss::Random(share)
        } else {
            Loss::bursts(share, rng.random_range(2.0..30.0))
        },
        reorder: Reorder::new(rng.random_range(0.0..0.1), rng.random_range(1..20)),
        duplicate: rng.random_range(0.0..0.1),
        corrupt: rng.random_range(0.0..0.05),
        rate: rng.random_bool(0.3).then(|| rng.random_range(1_000_000..40_000_000)),
        queue: millis(rng, 20, 200),
        blackouts: None,
    }
}

/// The boxes of an ISP: often none, or one or two.
pub(crate) fn boxes(rng: &mut StdRng) -> Vec<Middlebox> {
    let mut boxes = Vec::new();
    while rng.random() {
        boxes.push(match rng.random_range(0..9) {
            0 => Middlebox::NAT,
            1 => Middlebox::Nat { every: Some(millis(rng, 5_000, 60_000)), addresses: Vec::new() },
            2 => Middlebox::Nat {
                every: None,
                addresses: ["198.18.0.1", "198.18.0.2", "2001:db8:18::1", "2001:db8:18::2"]
                    .map(|address| address.parse().expect("an address"))
                    .to_vec(),
            },
            3 => Middlebox::RequireHandshake,
            4 => Middlebox::RequireWindow,
            5 => Middlebox::KillFlow {
                after_bytes: Some(rng.random_range(200_000..4_000_000)),
                after_time: Some(millis(rng, 5_000, 120_000)),
            },
            6 => Middlebox::Mtu { size: rng.random_range(1280..1500), icmp: rng.random() },
            7 => Middlebox::Police { rate: rng.random_range(2_000_000..40_000_000), burst: 50_000 },
            _ => Middlebox::Forge {
                segment: if rng.random() { Segment::Reset } else { Segment::Fin },
                towards: Towards::Both,
                after: rng.random_range(2..50),
                every: Some(rng.random_range(20..500)),
            },
        });
    }
    // A forged RST before a strict tracker ends every flow for good as it begins: nothing survives that.
    let is_forger = |it: &Middlebox| matches!(it, Middlebox::Forge { .. });
    if boxes.iter().any(|it| matches!(it, Middlebox::RequireHandshake | Middlebox::RequireWindow)) {
        boxes.retain(|it| !is_forger(it));
    }
    boxes
}

fn millis(rng: &mut StdRng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.random_range(least..most))
}
