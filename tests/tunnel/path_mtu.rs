//! Paths that carry less than others, or less than before; nobody says so.

use std::time::Duration;

use link_emulator::{Middlebox, Profile};
use vpn::session::ClientEvent;

use super::MINUTE;
use super::datagram::Datagrams;
use super::weather::{FAIR, lossy};
use super::world::World;

/// A world that is up, over a path of `size` bytes from the start.
fn over(size: usize, v6: bool, seed: u64) -> World {
    let mut world = World::connecting(FAIR, seed);
    if v6 {
        world.move_to_ipv6();
    }
    narrow(&mut world, size);
    world.come_up();
    world
}

fn narrow(world: &mut World, size: usize) {
    world.line.set_middleboxes(&[Middlebox::Mtu { size, icmp: true }], world.now);
}

/// What each end believes, client and server.
fn believed(world: &World) -> [u16; 2] {
    let client = world.host().client.status(world.now).carriers.first().map_or(0, |carrier| carrier.path_mtu);
    let server =
        world.server.status(world.now).peers[0].carriers.first().map_or(0, |carrier| carrier.path_mtu);
    [client, server]
}

/// How often a path was found to have become smaller, at either end.
fn shrunk(world: &World) -> u64 {
    let client = world.host().client.status(world.now).carriers;
    let server = world.server.status(world.now).peers.remove(0).carriers;
    client.iter().chain(&server).map(|carrier| carrier.path_shrunk).sum()
}

#[test]
fn a_path_of_1280_bytes_carries_flows_and_datagrams_of_both_families() {
    for v6 in [false, true] {
        let mut world = over(1280, v6, 1);
        assert!(world.age() < Duration::from_secs(1), "up after {:?}", world.age());
        world.open(false, 500_000, 500_000);
        world.open(true, 500_000, 500_000);
        world.finish(MINUTE);
        assert_eq!(believed(&world), [1280; 2]);
        let mut datagrams = Datagrams::default();
        for length in [8, 1000, 1165, 1166, 1300, 1500, 5000, 65_000] {
            datagrams.send(&mut world, length);
            world.run_for(Duration::from_secs(2));
            datagrams.collect(&mut world);
        }
        world.run_for(Duration::from_secs(2));
        datagrams.collect(&mut world);
        assert_eq!(datagrams.missing(), 0, "outer IPv6: {v6}");
    }
}

#[test]
fn what_the_path_carries_is_found_and_used() {
    for (size, time) in [(1500, 2), (1492, 60), (1452, 60), (1400, 60), (1300, 60)] {
        for v6 in [false, true] {
            let mut world = over(size, v6, 2);
            world.run_for(Duration::from_secs(time));
            let expected = u16::try_from(size).expect("small");
            assert_eq!(believed(&world), [expected; 2], "outer IPv6: {v6}");
            world.open(false, 1_000_000, 1_000_000);
            world.finish(MINUTE);
            assert_eq!(believed(&world), [expected; 2], "outer IPv6: {v6}");
        }
    }
}

#[test]
fn a_path_that_becomes_smaller_in_mid_flow_is_noticed_by_no_flow() {
    for seed in 0..20 {
        let line = lossy(if seed % 2 == 0 { 0.0 } else { 0.05 });
        let line = Profile { rate: Some(20_000_000), queue: Duration::from_millis(100), ..line };
        let mut world = World::new(line, seed);
        let (upload, download) = if seed % 4 < 2 { (0, 10_000_000) } else { (10_000_000, 0) };
        let port = world.open(false, upload, download);
        world.run_for(Duration::from_millis(1500));
        let is_over = |world: &World| world.host().apps.connections[&port].outcome.is_some();
        assert!(believed(&world).contains(&1500) && !is_over(&world), "seed {seed}: {:?}", believed(&world));
        narrow(&mut world, 1280);
        let sender = usize::from(download > 0);
        let found = world.run_until(Duration::from_secs(3), |world| believed(world)[sender] == 1280);
        assert!(found, "seed {seed}: not found within 3 s");
        let narrowed = world.now;
        world.finish(2 * MINUTE);
        let took = world.now - narrowed;
        assert!(!world.host().events.contains(&ClientEvent::Restarted), "seed {seed}: a flow noticed");
        assert!(!world.host().events.contains(&ClientEvent::Suspect), "seed {seed}: the carrier is sound");
        eprintln!("seed {seed}: {took:?} for the rest");
    }
}

#[test]
fn random_loss_is_not_taken_for_a_smaller_path() {
    let mut shrinks = 0;
    for seed in 0..20 {
        let mut world = World::new(lossy(0.2), seed);
        world.open(false, 1_000_000, 5_000_000);
        world.finish(5 * MINUTE);
        shrinks += shrunk(&world);
    }
    assert!(shrinks <= 1, "{shrinks} times in 20 transfers");
}

#[test]
fn large_datagrams_alone_find_out_a_smaller_path() {
    let mut world = World::new(FAIR, 3);
    world.run_for(Duration::from_secs(2));
    assert_eq!(believed(&world), [1500; 2]);
    narrow(&mut world, 1280);
    let mut datagrams = Datagrams::default();
    for _ in 0..100 {
        datagrams.send(&mut world, 4000);
        world.run_for(Duration::from_millis(100));
        datagrams.collect(&mut world);
    }
    assert_eq!(believed(&world), [1280; 2]);
    world.run_for(Duration::from_secs(2));
    datagrams.collect(&mut world);
    datagrams.give_up();
    datagrams.send(&mut world, 4000);
    // The second time: pings are answered.
    for _ in 0..2 {
        world.run_for(Duration::from_secs(2));
        datagrams.collect(&mut world);
    }
    assert_eq!(datagrams.missing(), 0);
}
