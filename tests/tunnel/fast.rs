//! Connects that are answered at once: what they save, and what becomes of those that fail.

use std::time::Duration;

use vpn::session::Connect;

use super::app::Outcome;
use super::target::Manner;
use super::weather::FAIR;
use super::world::World;

/// A world that is up, whose round trip is measured.
fn world(connect: Connect, seed: u64) -> World {
    let mut world = World::with_settings(FAIR, seed, |client, _| client.connect = connect);
    world.come_up();
    world.run_for(Duration::from_secs(30));
    world
}

/// From the app's SYN to its first byte at the target.
fn request(connect: Connect, seed: u64) -> Duration {
    let mut world = world(connect, seed);
    let begun = world.now;
    let port = world.open(false, 1, 1);
    let arrived = world.run_until(Duration::from_secs(5), |world| {
        world.targets.sides.get(&port).is_some_and(|side| side.reader.received == 1)
    });
    assert!(arrived, "seed {seed}: {}", world.describe());
    world.now - begun
}

#[test]
fn a_fast_connect_saves_one_round_trip() {
    for seed in 0..10 {
        let (faithful, fast) = (request(Connect::Faithful, seed), request(Connect::Fast, seed));
        let (margin, once) = (Duration::from_millis(3), ROUND_TRIP / 2);
        assert!((3 * once..3 * once + margin).contains(&faithful), "seed {seed}: {faithful:?}");
        assert!((once..once + margin).contains(&fast), "seed {seed}: {fast:?}");
    }
}

#[test]
fn a_fast_connect_that_fails_is_reset_whatever_the_reason() {
    for manner in [Manner::Refuse, Manner::Unreachable, Manner::Reset] {
        let mut world = world(Connect::Fast, 1);
        let port = world.open_to(manner, false, 100_000, 0, true);
        let ended = world.run_until(Duration::from_secs(5), |world| {
            world.host().apps.connections[&port].outcome.is_some()
        });
        let connection = &world.host().apps.connections[&port];
        assert!(ended && connection.established, "{manner:?}: {connection:#?}");
        assert_eq!(connection.outcome, Some(Outcome::Reset), "{manner:?}");
        assert!(world.host().apps.datagrams.is_empty(), "{manner:?}: an ICMP error for an open connection");
    }
}

#[test]
fn bytes_written_before_the_target_answers_are_not_lost() {
    let mut world = world(Connect::Fast, 1);
    let port = world.open_to(Manner::Silent, true, 300_000, 1000, true);
    world.run_for(Duration::from_secs(20));
    let connection = &world.host().apps.connections[&port];
    assert!(connection.established && connection.writer.written > 64 << 10, "{connection:#?}");
    world.targets.wake(port, &mut world.server);
    world.finish(Duration::from_secs(60));
}

/// That of [`FAIR`].
const ROUND_TRIP: Duration = Duration::from_millis(100);
