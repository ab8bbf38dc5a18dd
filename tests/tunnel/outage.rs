//! How soon a flow goes on when the path is there again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use vpn::session::ClientEvent;

use super::transition::duration;
use super::weather::FAIR;
use super::world::World;

#[test]
fn a_download_goes_on_within_a_round_trip_and_a_little_when_the_path_returns() {
    let mut worst = (Duration::ZERO, 0);
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(FAIR, seed);
        let port = world.open(false, 0, 500_000_000);
        world.run_for(Duration::from_millis(rng.random_range(300..900)));
        world.set_blackout([true; 2]);
        world.run_for(duration(&mut rng, Duration::from_secs(1), Duration::from_secs(60)));
        let received = |world: &World| world.host().apps.connections[&port].reader.received;
        let (before, returned) = (received(&world), world.now);
        assert!(before > 0, "seed {seed}: nothing was under way");
        world.set_blackout([false; 2]);
        let goes_on = world.run_until(Duration::from_secs(10), |world| received(world) > before);
        assert!(goes_on, "seed {seed}: nothing within 10 s");
        assert!(!world.host().events.contains(&ClientEvent::Restarted), "seed {seed}");
        worst = worst.max((world.now - returned, seed));
    }
    let (worst, seed) = worst;
    eprintln!("{worst:?} after the path's return at worst");
    assert!(worst <= ROUND_TRIP + NOTICE, "seed {seed}: {worst:?}");
}

/// Of [`FAIR`].
const ROUND_TRIP: Duration = Duration::from_millis(100);

/// What it may take to find that the path is back: pings go out every quarter of a second.
const NOTICE: Duration = Duration::from_millis(300);
