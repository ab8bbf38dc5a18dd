//! New keys on a live carrier: no packet is lost for them, nothing waits, and nobody else can have them.

use std::time::{Duration, Instant};

use link_emulator::{Direction as Way, Middlebox, Profile};
use vpn::session::ClientEvent;

use super::MINUTE;
use super::weather::{FAIR, lossy};
use super::world::World;

/// A download that lasts for the whole test, over a path narrow enough for that.
fn busy(weather: Profile, seed: u64) -> World {
    let mut world =
        World::new(Profile { rate: Some(2_000_000), queue: Duration::from_millis(100), ..weather }, seed);
    world.open(false, 0, 1 << 30);
    world
}

/// How often the carrier in use has got new keys, at the client and at the server.
fn rekeys(world: &World) -> (u64, u64) {
    let client = world.host().client.status(world.now).carriers.first().map_or(0, |carrier| carrier.rekeys);
    let server = world.server.status(world.now).peers[0].carriers.first().map_or(0, |carrier| carrier.rekeys);
    (client, server)
}

fn is_rekeying(world: &World) -> bool {
    world.host().client.status(world.now).carriers.first().is_some_and(|carrier| carrier.rekeying)
}

fn migrations(world: &World) -> u64 {
    world.host().client.status(world.now).migrations
}

fn received(world: &World) -> u64 {
    world.host().apps.connections.values().map(|connection| connection.reader.received).sum()
}

/// Runs for `time`; returns the longest in which the app received nothing.
fn longest_stall(world: &mut World, time: Duration) -> Duration {
    let (end, mut longest) = (world.now + time, Duration::ZERO);
    let mut last: (Instant, u64) = (world.now, received(world));
    while world.now < end {
        world.run_for(Duration::from_millis(10));
        let now = received(world);
        if now != last.1 {
            longest = longest.max(world.now - last.0);
            last = (world.now, now);
        }
    }
    longest.max(world.now - last.0)
}

#[test]
fn a_download_goes_on_through_every_rekey_and_no_packet_is_lost_for_it() {
    let mut world = busy(FAIR, 1);
    world.run_for(Duration::from_secs(100));
    let usual = longest_stall(&mut world, Duration::from_secs(15));
    let before = (world.server.status(world.now).drops.stranger, migrations(&world));
    let stall = longest_stall(&mut world, Duration::from_secs(490));
    assert_eq!(rekeys(&world), (5, 5));
    assert!(stall <= usual.max(Duration::from_millis(50)), "{stall:?}, without a rekey {usual:?}");
    let (client, server) = (world.host().client.status(world.now), world.server.status(world.now));
    assert_eq!((client.drops.sealed, client.drops.index, server.drops.sealed), (0, 0, 0));
    assert_eq!((server.drops.stranger, client.migrations), before);
}

#[test]
fn keys_are_renewed_at_twenty_percent_loss_under_load() {
    for seed in 0..4 {
        let mut world = busy(lossy(0.2), seed);
        world.run_for(Duration::from_secs(110));
        let usual = longest_stall(&mut world, Duration::from_secs(10));
        let before = (rekeys(&world), migrations(&world));
        assert_eq!(before.0, (0, 0), "seed {seed}");
        let stall = longest_stall(&mut world, Duration::from_secs(120));
        let (client, server) = rekeys(&world);
        assert_eq!((client, migrations(&world)), (1, before.1), "seed {seed}: {server} at the server");
        assert!(client.abs_diff(server) <= 1, "seed {seed}: {client} and {server}");
        let age = world.host().client.status(world.now).carriers[0].keys_age;
        let on_time = Duration::from_secs(115)..Duration::from_secs(120);
        assert!(on_time.contains(&age), "seed {seed}: the keys are {age:?} old 120 s after they were due");
        // A segment lost several times holds up all behind it: by chance, in two minutes, for longer than in ten seconds.
        let bound = (3 * usual).max(Duration::from_millis(1500));
        assert!(stall <= bound, "seed {seed}: {stall:?}, before {usual:?}");
        assert!(!world.host().events.contains(&ClientEvent::Restarted), "seed {seed}");
    }
}

#[test]
fn a_lost_message_of_a_rekey_is_said_again() {
    // An idle tunnel asks with its first ping after two minutes: the same moment in every world of this seed.
    let idle = || World::new(FAIR, 2);
    let mut rehearsal = idle();
    assert!(rehearsal.run_until(3 * MINUTE, is_rekeying), "no rekey");
    let asks = rehearsal.age() - idle().age();
    let moment = Duration::from_millis(1);
    // Message 1, and message 2 while it is on its way.
    for (ways, from) in [([true, false], asks - moment), ([false, true], asks + moment)] {
        let mut world = idle();
        world.run_for(from);
        assert_eq!(is_rekeying(&world), ways[1], "{ways:?}");
        world.set_blackout(ways);
        world.run_for(Duration::from_millis(200));
        assert_eq!(rekeys(&world).0, 0, "{ways:?}: the answer was to be lost");
        world.set_blackout([false; 2]);
        world.run_for(Duration::from_secs(5));
        assert_eq!(rekeys(&world).0, 1, "{ways:?}");
        world.open(false, 10_000, 10_000);
        world.finish(MINUTE);
        assert_eq!(rekeys(&world), (1, 1), "{ways:?}");
        assert_eq!(migrations(&world), 0, "{ways:?}");
    }
}

#[test]
fn an_idle_tunnel_is_as_silent_with_rekeys_as_without() {
    let mut world = World::new(FAIR, 3);
    world.run_for(MINUTE);
    let before = world.packets();
    world.run_for(20 * MINUTE);
    let packets = world.packets() - before;
    let (client, server) = rekeys(&world);
    assert!(client >= 8 && client.abs_diff(server) <= 1, "{client} and {server}");
    assert!(packets <= 200, "{packets} packets in twenty idle minutes");
}

#[test]
fn a_rekey_goes_on_when_the_nat_forgets_in_the_middle_of_it() {
    for seed in 0..5 {
        let mut world = World::connecting(FAIR, seed);
        world.line.set_middleboxes(&[Middlebox::NAT], world.now);
        world.come_up();
        world.open_late(3 * MINUTE, 100_000, 100_000);
        assert!(world.run_until(3 * MINUTE, is_rekeying), "no rekey");
        world.run_for(Duration::from_millis(seed * 25));
        world.line.rebind(world.now);
        world.finish(10 * MINUTE);
        world.run_for(MINUTE);
        let (client, server) = rekeys(&world);
        assert!(client > 0 && client.abs_diff(server) <= 1, "seed {seed}: {client} and {server}");
    }
}

#[test]
fn recorded_rekeys_and_data_are_refused_whenever_they_come_again() {
    let mut world = World::new(FAIR, 4);
    world.open_late(11 * MINUTE, 10_000, 10_000);
    let mut replayed = 0;
    for _ in 0..10 {
        world.run_for(MINUTE);
        let recorded: Vec<_> = world.captured.all(Way::Out).cloned().collect();
        replayed += recorded.len();
        let carriers = world.server.status(world.now).peers[0].carriers.len();
        for packet in recorded {
            world.deliver_up(packet);
        }
        assert_eq!(world.server.status(world.now).peers[0].carriers.len(), carriers);
    }
    assert!(replayed > 100, "{replayed} packets");
    world.finish(10 * MINUTE);
    let (client, server) = rekeys(&world);
    assert!(client >= 4 && client.abs_diff(server) <= 1, "{client} and {server}");
    assert_eq!(migrations(&world), 0);
}

#[test]
fn recorded_handshakes_are_refused_after_a_restart_of_the_server_too() {
    let mut world = World::new(FAIR, 5);
    world.run_for(3 * MINUTE);
    let recorded: Vec<_> = world.captured.all(Way::Out).cloned().collect();
    world.restart_server_that_remembers();
    for packet in recorded {
        world.deliver_up(packet);
        let peer = &world.server.status(world.now).peers[0];
        assert!(peer.carriers.is_empty() && world.server.load().carriers == 0, "a replay made a carrier");
    }
    world.run_for(MINUTE);
    world.open(false, 10_000, 10_000);
    world.finish(MINUTE);
}

/// Every packet of the first carrier is recorded and its 4-tuple killed; the second lives for so many rekeys.
fn long_after_its_first_carrier(seed: u64, rekeys_at_least: u64) -> (World, Vec<Vec<u8>>) {
    let mut world = World::new(FAIR, seed);
    let recorded: Vec<_> = world.captured.all(Way::Out).cloned().collect();
    world.kill_tuple(0);
    world.open(false, 10_000, 10_000);
    world.finish(MINUTE);
    assert_eq!(migrations(&world), 1);
    assert!(
        world.run_until(20 * 60 * MINUTE, |world| rekeys(world).1 >= rekeys_at_least),
        "{:?}",
        rekeys(&world)
    );
    assert_eq!(migrations(&world), 1, "the same carrier all the time");
    (world, recorded)
}

/// Plays `recorded` again, slowly enough for whatever a server would spend on strangers.
fn assert_that_they_open_nothing(world: &mut World, recorded: Vec<Vec<u8>>) {
    let carriers = world.server.load().carriers;
    let before = world.server.status(world.now).drops;
    for packet in recorded {
        world.deliver_up(packet);
        assert_eq!(world.server.load().carriers, carriers, "a replay made a carrier");
        world.run_for(Duration::from_secs(1));
    }
    let drops = world.server.status(world.now).drops;
    assert_eq!(drops.budget, before.budget);
    assert!(drops.replayed > before.replayed, "no handshake was among them");
}

#[test]
fn a_handshake_of_this_very_session_is_refused_after_three_hundred_rekeys() {
    let (mut world, recorded) = long_after_its_first_carrier(6, 300);
    assert_that_they_open_nothing(&mut world, recorded);
    assert_eq!(migrations(&world), 1);
}

#[test]
fn a_handshake_of_this_very_session_is_refused_after_more_rekeys_than_a_restarted_server_remembers() {
    let (mut world, recorded) = long_after_its_first_carrier(7, 40);
    world.restart_server_that_remembers();
    world.open(false, 10_000, 10_000);
    world.finish(MINUTE);
    world.run_for(MINUTE);
    assert_that_they_open_nothing(&mut world, recorded);
}

#[test]
fn a_clock_that_was_set_back_is_believed_over_a_restart_of_both_ends() {
    for seed in 0..5 {
        let mut world = World::new(lossy(0.02), seed);
        world.restart_server_that_remembers();
        world.host_mut().wall -= Duration::from_secs(86_400);
        world.restart_client();
        world.come_up();
        world.open(false, 10_000, 10_000);
        world.finish(MINUTE);
    }
}
