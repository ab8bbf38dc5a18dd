//! Whole tunnels in simulation: a client and a server in one process, over a bad network, under a virtual clock.
//!
//! ```text
//!   hosts: apps (an independent TCP stack) ─ client ──┐
//!                                                     ├── line (link-emulator) ── server ─ targets
//!   strangers, who have no keys ──────────────────────┘
//! ```
//!
//! | module | |
//! |---|---|
//! | `world` | all of it under one clock; `host`, `app`, `target`, `weather` are its parts |
//! | `stream` | the bytes of a flow, computed wherever they are needed |
//! | `bounds`, `heap` | what each end may hold, and what that takes of memory |
//! | `transition`, `stranger`, `datagram` | what may happen in a run |
//! | `model` | what each flow may have seen, and what it must have seen in the end |
//! | `runner`, `random`, `tally` | runs from seeds: one, some, as many as there is time for |
//! | `census` | what a payload looks like to who counts bytes |
//! | `fast` | connects that wait for no answer |
//! | `flow_list` | what is told of each flow |
//! | `inbound` | connections from the server's side |
//! | `carriers`, `outage`, `migration` | when carriers are opened; how soon a flow goes on |
//! | `left` | carriers that were left, and servers that lost the race |
//! | `switches` | where the server's packets leave |
//! | `path_mtu` | paths that carry less than others, or less than before |
//!
//! Here are the tests of one thing each. Every failure names its seed, and the seed reproduces it.

mod app;
mod bounds;
mod capture;
mod carriers;
mod census;
mod datagram;
mod fast;
mod flow_list;
mod heap;
mod host;
mod inbound;
mod left;
mod migration;
mod model;
mod outage;
mod path_mtu;
mod random;
mod rekey;
mod runner;
mod stranger;
mod stream;
mod switches;
mod tally;
mod target;
mod transition;
mod weather;
mod wire;
mod world;

use std::time::Duration;

use app::Outcome;
use link_emulator::{Middlebox, Profile};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use target::Manner;
use vpn::crypto::{PresharedKey, PrivateKey};
use vpn::kcp::CongestionKind;
use vpn::session::{ClientEvent, Ending, Reach};
use weather::{FAIR, any, lossy};
use world::World;

const MINUTE: Duration = Duration::from_secs(60);

/// The outcomes of all connections, once all have ended.
fn outcomes(world: &mut World, limit: Duration) -> Vec<Option<Outcome>> {
    world.run_until(limit, |world| world.host().apps.is_done());
    world.host().apps.connections.values().map(|connection| connection.outcome).collect()
}

#[test]
fn comes_up_and_carries_flows_of_both_families_both_ways() {
    let mut world = World::new(FAIR, 1);
    world.open(false, 100_000, 300_000);
    world.open(true, 300_000, 100_000);
    world.open(false, 0, 1);
    world.open(true, 1, 0);
    world.finish(MINUTE);
}

#[test]
fn every_flow_sees_exactly_what_was_sent_in_any_weather() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(any(&mut rng), seed);
        for _ in 0..rng.random_range(1..6) {
            let (upload, download) = (rng.random_range(0..60_000), rng.random_range(0..120_000));
            world.open(rng.random_bool(0.3), upload, download);
        }
        world.finish(10 * MINUTE);
    }
}

#[test]
fn comes_up_in_any_weather() {
    for seed in 0..100 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::connecting(any(&mut rng), seed);
        world.come_up();
    }
}

#[test]
fn a_blackout_in_mid_download_is_noticed_by_no_flow() {
    for seed in 0..30 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(lossy(0.02), seed);
        world.open(false, 50_000, 2_000_000);
        world.run_for(Duration::from_millis(rng.random_range(200..600)));
        let ways = rng.random_range(1..4);
        world.set_blackout([ways & 1 != 0, ways & 2 != 0]);
        world.run_for(Duration::from_secs(rng.random_range(1..60)));
        world.set_blackout([false; 2]);
        world.finish(2 * MINUTE);
        assert!(!world.host().events.contains(&ClientEvent::Restarted), "seed {seed}: a flow noticed");
    }
}

#[test]
fn a_killed_four_tuple_is_replaced_by_a_new_carrier() {
    for seed in 0..30 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(lossy(0.02), seed);
        world.open(false, 500_000, 8_000_000);
        for _ in 0..rng.random_range(1..4) {
            world.run_for(Duration::from_millis(rng.random_range(200..400)));
            world.kill_tuple(0);
        }
        assert!(!world.host().apps.is_done(), "seed {seed}: over before the first 4-tuple was killed");
        world.finish(2 * MINUTE);
        assert!(world.host().client.status(world.now).migrations > 0, "seed {seed}: no migration");
        assert!(!world.host().events.contains(&ClientEvent::Restarted), "seed {seed}: a flow noticed");
    }
}

#[test]
fn a_refused_port_is_refused_and_a_reset_is_a_reset() {
    let mut world = World::new(FAIR, 2);
    world.open_special(Manner::Refuse);
    world.open_special(Manner::Reset);
    assert_eq!(outcomes(&mut world, MINUTE), [Some(Outcome::Reset); 2]);
}

#[test]
fn an_unreachable_host_is_answered_with_an_icmp_error() {
    let mut world = World::new(FAIR, 3);
    world.open_special(Manner::Unreachable);
    let told = world.run_until(Duration::from_secs(5), |world| !world.host().apps.datagrams.is_empty());
    assert!(told, "no ICMP error");
    let packet = &world.host().apps.datagrams[0];
    assert_eq!((packet[9], packet[20], packet[21]), (1, 3, 1), "ICMP destination unreachable, host");
}

#[test]
fn a_restarted_server_resets_the_old_flows_and_serves_new_ones() {
    for seed in 0..10 {
        let mut world = World::new(lossy(0.01), seed);
        world.open(false, 0, 500_000_000);
        world.run_for(Duration::from_secs(2));
        world.restart_server();
        assert_eq!(outcomes(&mut world, MINUTE), [Some(Outcome::Reset)], "seed {seed}");
        assert!(world.host().events.contains(&ClientEvent::Restarted), "seed {seed}");
        world.forget_connections();
        world.open(false, 10_000, 10_000);
        world.finish(MINUTE);
    }
}

#[test]
fn a_restarted_client_replaces_its_session() {
    for seed in 0..10 {
        let mut world = World::new(lossy(0.01), seed);
        // An app that only waits would learn nothing; one that sends is told.
        world.open(false, 500_000_000, 0);
        world.run_for(Duration::from_secs(2));
        world.restart_client();
        world.come_up();
        assert_eq!(outcomes(&mut world, MINUTE), [Some(Outcome::Reset)], "seed {seed}");
        world.forget_connections();
        world.open(false, 10_000, 10_000);
        world.finish(MINUTE);
    }
}

#[test]
fn silence_beyond_dead_after_resets_every_flow() {
    let mut world = World::new(FAIR, 4);
    world.open(false, 0, 50_000_000);
    world.run_for(Duration::from_millis(300));
    world.set_blackout([true; 2]);
    world.run_for(11 * MINUTE);
    world.set_blackout([false; 2]);
    assert_eq!(outcomes(&mut world, MINUTE), [Some(Outcome::Reset)]);
    world.forget_connections();
    world.open(false, 10_000, 10_000);
    world.finish(MINUTE);
}

#[test]
fn an_idle_tunnel_is_nearly_silent() {
    let mut world = World::new(FAIR, 5);
    world.run_for(MINUTE);
    let before = world.packets();
    world.run_for(10 * MINUTE);
    let packets = world.packets() - before;
    assert!(packets <= 100, "{packets} packets in ten idle minutes");
}

#[test]
fn an_unknown_key_is_refused() {
    let mut world = World::with_settings(FAIR, 6, |_, server| {
        server.peers[0].public_key = server.private_key.public_key();
    });
    world.run_for(Duration::from_secs(5));
    let refused = |event: &ClientEvent| matches!(event, ClientEvent::Ended(Ending::Refused(_)));
    assert!(world.host().events.iter().any(refused), "{:?}", world.host().events);
}

#[test]
fn a_wrong_server_key_meets_silence_after_the_syn_ack() {
    let mut world = World::with_settings(FAIR, 7, |client, _| {
        client.server_key = client.private_key.public_key();
    });
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.host().client.reach(), Reach::SynAcked);
}

#[test]
fn another_preshared_key_is_told_whichever_end_has_none() {
    let none = PresharedKey::default;
    let other = || PresharedKey::from_bytes([8; 32]);
    for (on_client, on_server) in
        [(none(), other()), (other(), none()), (other(), PresharedKey::from_bytes([9; 32]))]
    {
        let mut world = World::with_settings(FAIR, 8, |client, server| {
            client.preshared_key = on_client;
            server.peers[0].preshared_key = on_server;
        });
        world.run_for(Duration::from_secs(5));
        let events = &world.host().events;
        assert!(events.contains(&ClientEvent::Ended(Ending::PresharedKeyDiffers)), "{events:?}");
    }
}

#[test]
fn a_damaged_answer_to_the_first_handshake_is_not_taken_for_another_preshared_key() {
    for seed in 0..100 {
        let mut world = World::connecting(Profile { corrupt: 0.7, ..FAIR }, seed);
        world.run_for(Duration::from_secs(20));
        let events = &world.host().events;
        assert!(
            !events.iter().any(|event| matches!(event, ClientEvent::Ended(_))),
            "seed {seed}: {events:?}"
        );
        world.set_weather(FAIR);
        world.come_up();
    }
}

#[test]
fn a_closed_client_ends_its_session_on_the_server() {
    let mut world = World::new(FAIR, 9);
    world.open(false, 0, 50_000_000);
    world.run_for(Duration::from_secs(1));
    let now = world.now;
    world.host_mut().client.close(now);
    world.run_for(Duration::from_secs(2));
    assert!(world.server.status(world.now).peers[0].session.is_none());
    assert_eq!(outcomes(&mut world, MINUTE), [Some(Outcome::Reset)]);
}

#[test]
fn an_idle_connection_that_speaks_again_finds_its_carrier_dead_and_goes_on() {
    let mut world = World::new(FAIR, 10);
    world.open_late(Duration::from_secs(45), 20_000, 20_000);
    world.run_for(Duration::from_secs(44));
    world.kill_tuple(0);
    let begun = world.now;
    world.finish(MINUTE);
    let took = world.now - begun;
    assert!(took < Duration::from_secs(5), "{took:?} with one second of them before the app spoke");
}

#[test]
fn a_rebound_nat_is_followed_without_another_carrier() {
    let addresses = vec!["198.18.0.1".parse().unwrap(), "198.18.0.2".parse().unwrap()];
    for (seed, nat) in (0..20).zip([Middlebox::NAT, Middlebox::Nat { every: None, addresses }].iter().cycle())
    {
        let mut world = World::connecting(lossy(0.02), seed);
        world.line.set_middleboxes(std::slice::from_ref(nat), world.now);
        world.come_up();
        world.open(false, 1_000_000, 3_000_000);
        for _ in 0..2 {
            world.run_for(Duration::from_millis(400));
            world.line.rebind(world.now);
        }
        assert!(!world.host().apps.is_done(), "seed {seed}: over before the NAT forgot");
        world.finish(MINUTE);
        assert_eq!(world.host().client.status(world.now).migrations, 0, "seed {seed}");
    }
}

#[test]
fn flows_go_on_at_once_when_everything_stood_still_for_minutes() {
    for congestion in [CongestionKind::Bbr, CongestionKind::Loss] {
        for seed in 0..10 {
            let mut world = World::with_settings(FAIR, seed, |client, server| {
                (client.congestion, server.congestion) = (congestion, congestion);
            });
            world.come_up();
            world.open(false, 1_000_000, 1_000_000);
            world.run_for(Duration::from_millis(310 + 7 * seed));
            assert!(!world.host().apps.is_done(), "seed {seed}: over too early");
            world.now += 5 * MINUTE;
            world.finish(Duration::from_secs(10));
        }
    }
}

#[test]
fn a_client_whose_clock_was_set_back_comes_up_again() {
    for seed in 0..10 {
        let mut world = World::new(lossy(0.02), seed);
        world.host_mut().wall -= Duration::from_secs(86_400);
        world.restart_client();
        world.come_up();
        world.open(false, 10_000, 10_000);
        world.finish(MINUTE);
    }
}

#[test]
fn a_migration_off_a_slow_carrier_loses_nothing() {
    let mut world = World::new(FAIR, 11);
    world.open(false, 0, 3_000_000);
    world.run_for(Duration::from_millis(400));
    // Late, not lost: what is on its way still counts when another carrier has taken over.
    world.slow_tuple(Duration::from_secs(3));
    world.finish(MINUTE);
    world.run_for(Duration::from_secs(5));
    let drops = world.host().client.status(world.now).drops;
    assert_eq!((drops.late, drops.stranger, drops.sealed), (0, 0, 0), "{drops:?}");
    assert!(world.host().client.status(world.now).migrations > 0);
}

#[test]
fn an_idle_tunnel_keeps_its_flows_whatever_dead_after_is() {
    let mut world = World::with_settings(FAIR, 12, |client, _| {
        client.dead_after = Duration::from_secs(1);
    });
    world.open_late(10 * MINUTE, 1_000, 1_000);
    world.finish(11 * MINUTE);
    assert!(!world.host().events.contains(&ClientEvent::Restarted));
}

#[test]
fn of_two_hosts_with_one_key_the_newer_stays_and_the_older_learns_why() {
    for seed in 0..20 {
        let mut world = World::new(lossy(0.05), seed);
        world.open(false, 1_000_000, 0);
        world.run_for(Duration::from_millis(300));
        if seed % 2 == 0 {
            // It cannot be told on its old carrier, and asks for another.
            world.kill_tuple(0);
        }
        world.second_host();
        world.come_up();
        world.run_for(MINUTE);
        let events = &world.hosts[0].events;
        let ended = events.contains(&ClientEvent::Ended(Ending::Replaced));
        assert!(ended, "seed {seed}: the older host does not know: {events:?}");
        let told = events.iter().filter(|event| matches!(event, ClientEvent::Ended(_))).count();
        assert_eq!(told, 1, "seed {seed}: a session ends once: {events:?}");
        world.forget_connections();
        world.open(false, 10_000, 10_000);
        world.finish(MINUTE);
        let replaced = world.host().events.contains(&ClientEvent::Ended(Ending::Replaced));
        assert!(!replaced, "seed {seed}: the older host came back");
    }
}

#[test]
fn bytes_before_a_reset_reach_the_target() {
    let mut world = World::new(FAIR, 13);
    let port = world.open_aborting(5_000);
    let reset = world.run_until(MINUTE, |world| world.targets.resets == 1);
    assert!(reset, "the target saw no reset");
    assert_eq!(world.targets.sides[&port].reader.received, 5_000);
}

#[test]
fn a_reader_that_stops_for_five_minutes_misses_nothing() {
    for (seed, v6) in [(16, false), (17, true)] {
        for by_app in [true, false] {
            let mut world = World::new(lossy(0.02), seed);
            let (stopped, other) = (world.open(v6, 5_000_000, 5_000_000), world.open(v6, 0, 3_000_000));
            world.stop_reader(stopped, by_app, true);
            world.run_for(5 * MINUTE);
            assert!(!world.host().apps.is_done(), "seed {seed}: nothing was held back");
            let outcome = |world: &World, port| world.host().apps.connections[&port].outcome;
            assert_eq!(outcome(&world, other), Some(Outcome::Finished), "seed {seed}: held up by another");
            let written = world.written_to(stopped, by_app);
            assert!(written < 4_000_000, "seed {seed}: {written} bytes wait for who does not read");
            world.stop_reader(stopped, by_app, false);
            world.finish(MINUTE);
        }
    }
}

#[test]
fn a_tunnel_wakes_only_when_something_is_due() {
    let mut world = World::new(lossy(0.02), 14);
    world.open(false, 20_000, 20_000);
    world.finish(MINUTE);
    let before = world.steps;
    world.run_for(10 * MINUTE);
    let steps = world.steps - before;
    assert!(steps < 400, "{steps} wake-ups in ten idle minutes");
    world.set_blackout([true; 2]);
    let before = world.steps;
    world.run_for(10 * MINUTE);
    let steps = world.steps - before;
    assert!(steps < 2_000, "{steps} wake-ups in a blackout of ten minutes");
}

#[test]
fn other_addresses_from_a_restarted_server_end_the_session_with_a_reason() {
    let mut world = World::new(FAIR, 15);
    world.server_settings.peers[0].addresses = vec!["10.77.0.9/24".parse().unwrap()];
    world.restart_server();
    world.run_for(MINUTE);
    assert!(
        world.host().events.contains(&ClientEvent::Ended(Ending::Readdressed)),
        "{:?}",
        world.host().events
    );
}

#[test]
fn a_client_has_its_whole_window_however_many_others_might_come() {
    let mut world = World::with_settings(FAIR, 16, |_, server| {
        let mut rng = StdRng::seed_from_u64(!16);
        for number in 0..99 {
            let mut other = server.peers[0].clone();
            other.public_key = PrivateKey::generate(&mut rng).public_key();
            other.addresses = vec![format!("10.77.1.{number}/24").parse().expect("a network")];
            server.peers.push(other);
        }
    });
    world.come_up();
    let session = world.server.status(world.now).peers[0].session.expect("it is up");
    assert_eq!(session.buffer, 64 << 20);
}

#[test]
fn what_a_session_may_hold_is_free_again_when_it_has_ended() {
    let mut world = World::with_settings(FAIR, 17, |_, server| server.process_buffer = 128 << 20);
    for round in 0..20 {
        world.come_up();
        let session = world.server.status(world.now).peers[0].session.expect("it is up");
        assert_eq!(session.buffer, 64 << 20, "round {round}");
        if round % 2 == 0 {
            let now = world.now;
            world.host_mut().client.close(now);
            world.run_for(Duration::from_secs(2));
            assert!(world.server.status(world.now).peers[0].session.is_none(), "round {round}");
        }
        world.restart_client();
    }
}
