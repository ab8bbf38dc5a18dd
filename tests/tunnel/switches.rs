//! On which carrier, and to which address, the server's packets leave: where the client says, and nowhere else in between.

use std::net::SocketAddr;
use std::time::Duration;

use link_emulator::{Direction as Way, Jitter, Loss, Middlebox, Profile};
use vpn::carrier::{Kind, parse};
use vpn::session::PeerStatus;

use super::MINUTE;
use super::carriers::syn;
use super::weather::FAIR;
use super::wire::{End, endpoint, set_endpoint};
use super::world::World;

fn peer(world: &World) -> PeerStatus {
    world.server.status(world.now).peers[0].clone()
}

fn migrations(world: &World) -> u64 {
    world.host().client.status(world.now).migrations
}

/// Data both ways, in packets that overtake each other by far.
fn unordered(seed: u64) -> World {
    let jitter = Jitter::unordered(Duration::from_millis(60));
    let weather = Profile {
        rate: Some(2_000_000),
        delay: Duration::from_millis(50),
        jitter,
        queue: Duration::from_millis(100),
        ..FAIR
    };
    let mut world = World::new(weather, seed);
    world.open(false, 1 << 30, 1 << 30);
    world.run_for(Duration::from_secs(3));
    world
}

#[test]
fn the_server_leaves_a_carrier_once_for_each_time_that_the_client_does() {
    for seed in 0..2 {
        let mut world = unordered(seed);
        for round in 1..=6 {
            match round % 3 {
                0 => world.kill_tuple(0),
                1 => world.kill_tuple_one_way(Way::In),
                _ => world.kill_tuple_one_way(Way::Out),
            }
            world.run_for(Duration::from_secs(20));
            assert!(migrations(&world) >= round, "seed {seed}, round {round}: {}", world.describe());
            assert_eq!(peer(&world).migrations, migrations(&world), "seed {seed}, round {round}");
        }
        assert_eq!(peer(&world).moves, 0, "seed {seed}");
    }
}

#[test]
fn a_carrier_that_is_tried_beside_another_takes_the_servers_packets_when_the_client_uses_it() {
    let mut taken = 0;
    let line = Profile { rate: Some(5_000_000), queue: Duration::from_millis(100), ..FAIR };
    for seed in 0..2 {
        let mut world = World::new(line, seed);
        world.open(false, 0, 1 << 40);
        world.run_for(Duration::from_secs(20));
        world.set_weather(Profile { loss: Loss::Random(0.25), ..line });
        world.run_until(2 * MINUTE, |world| migrations(world) > 0);
        world.run_for(Duration::from_secs(10));
        assert_eq!(peer(&world).migrations, migrations(&world), "seed {seed}");
        taken += migrations(&world);
    }
    assert!(taken > 0, "none took over");
}

#[test]
fn the_server_follows_a_nat_that_forgets_once_each_time_and_stays_on_the_carrier() {
    for seed in 0..4 {
        let jitter = Jitter::unordered(Duration::from_millis(60));
        let weather = Profile { rate: Some(5_000_000), jitter, ..FAIR };
        let mut world = World::connecting(weather, seed);
        world.line.set_middleboxes(&[Middlebox::NAT], world.now);
        world.come_up();
        world.open(false, 1 << 30, 1 << 30);
        for round in 1..=10 {
            world.run_for(Duration::from_secs(5));
            world.line.rebind(world.now);
            world.run_for(Duration::from_secs(1));
            assert_eq!(peer(&world).moves, round, "seed {seed}");
        }
        assert_eq!((peer(&world).migrations, migrations(&world)), (0, 0), "seed {seed}");
    }
}

#[test]
fn an_old_carrier_that_moves_away_leaves_its_port_to_the_one_that_has_it_now() {
    let mut world = World::new(FAIR, 5);
    world.open(false, 1 << 30, 0);
    world.run_for(Duration::from_secs(1));
    let old = world.host().local();
    world.kill_tuple(0);
    world.run_for(Duration::from_millis(30));
    // What it sent last does not arrive.
    let is_data = |packet: &&Vec<u8>| parse(packet).expect("one of ours").kind() == Kind::Data;
    let lost: Vec<_> = world.captured.all(Way::Out).filter(is_data).cloned().collect();
    assert!(world.run_until(MINUTE, |world| migrations(world) == 1));
    let new = world.host().local();
    let elsewhere = SocketAddr::new(old.ip(), 4242);
    for (packet, source) in lost[lost.len() - 2..].iter().zip([new, elsewhere]) {
        let (mut packet, before) = (packet.clone(), peer(&world).moves);
        set_endpoint(&mut packet, End::Source, source);
        world.deliver_up(packet);
        assert_eq!(peer(&world).moves, before + 1, "it was to open, from {source}");
    }
    let before = peer(&world).injected.syns;
    let syn = syn(&world);
    assert_eq!(endpoint(&syn, End::Source), Some(new));
    world.deliver_up(syn);
    assert_eq!(peer(&world).injected.syns, before + 1, "the server does not know whose port it is");
}
