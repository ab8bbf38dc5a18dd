//! Connections from the server's side to services of the client.

use std::time::Duration;

use vpn::session::ClientEvent;

use super::app::Outcome;
use super::target::Manner;
use super::weather::{FAIR, any, lossy};
use super::world::World;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const MINUTE: Duration = Duration::from_secs(60);

/// How a connection from outside ended, once all have.
fn outcome(world: &mut World, port: u16) -> Option<Outcome> {
    world.run_until(MINUTE, |world| world.outside.is_done());
    world.app(0, port).outcome
}

fn denied(world: &World) -> u64 {
    world.host().client.status(world.now).drops.denied
}

#[test]
fn a_service_of_the_client_is_reached_in_both_families_and_both_ways() {
    let mut world = World::new(FAIR, 1);
    world.open_inbound(Manner::Serve, false, 100_000, 300_000);
    world.open_inbound(Manner::Serve, true, 300_000, 100_000);
    world.open_inbound(Manner::Serve, false, 0, 1);
    world.open_inbound(Manner::Serve, true, 1, 0);
    world.open(false, 100_000, 100_000);
    world.finish(MINUTE);
    world.run_for(Duration::from_secs(20));
    let (client, server) = (world.host().load(), world.server.load());
    assert_eq!((client.flows, client.session.streams()), (0, 0), "{client:?}");
    assert_eq!((server.flows, server.total.streams()), (0, 0), "{server:?}");
    let status = world.host().client.status(world.now).session;
    assert_eq!((status.flows_open, status.flows_total), (0, 5));
}

#[test]
fn who_connects_before_the_client_knows_its_addresses_is_not_denied() {
    let mut world = World::connecting(FAIR, 2);
    // Both ends have keys; that the server's answer to the first ping is lost leaves the client unsure of the way back.
    assert!(world.run_until(MINUTE, |world| !world.host().client.status(world.now).carriers.is_empty()));
    world.set_blackout([false, true]);
    assert!(world.run_until(MINUTE, |world| world.server.load().sessions == 1));
    world.set_blackout([false; 2]);
    let port = world.open_inbound(Manner::Serve, false, 1000, 1000);
    assert!(!world.host().is_up(), "too late for the test");
    assert_eq!((outcome(&mut world, port), denied(&world)), (Some(Outcome::Finished), 0));
}

#[test]
fn every_connection_from_outside_sees_exactly_what_was_sent_in_any_weather() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(any(&mut rng), seed);
        for _ in 0..rng.random_range(1..6) {
            let (upload, download) = (rng.random_range(0..60_000), rng.random_range(0..120_000));
            if rng.random_bool(0.7) {
                world.open_inbound(Manner::Serve, rng.random_bool(0.3), upload, download);
            } else {
                world.open(rng.random_bool(0.3), upload, download);
            }
        }
        world.finish(10 * MINUTE);
    }
}

#[test]
fn an_outage_and_a_move_are_noticed_by_no_connection_from_outside() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new(lossy(0.02), seed);
        world.open_inbound(Manner::Serve, false, 2_000_000, 2_000_000);
        world.run_for(Duration::from_millis(rng.random_range(200..600)));
        match seed % 3 {
            0 => world.kill_tuple(0),
            1 => {
                world.change_address();
                let now = world.now;
                world.host_mut().tell_of_network(now);
            }
            _ => {
                world.set_blackout([true; 2]);
                world.run_for(Duration::from_secs(rng.random_range(1..300)));
                world.set_blackout([false; 2]);
            }
        }
        assert!(!world.outside.is_done(), "seed {seed}: over too early");
        world.finish(2 * MINUTE);
        assert!(!world.host().events.contains(&ClientEvent::Restarted), "seed {seed}: a flow noticed");
    }
}

#[test]
fn a_connect_waits_for_the_service_and_ends_as_it_answers() {
    for (manner, expected) in [
        (Manner::Refuse, Outcome::Reset),
        (Manner::Reset, Outcome::Reset),
        (Manner::Unreachable, Outcome::Unreachable),
    ] {
        let mut world = World::new(FAIR, 2);
        let port = world.open_inbound(manner, false, 0, 0);
        assert_eq!(outcome(&mut world, port), Some(expected), "{manner:?}");
        assert_eq!(denied(&world), 0);
    }
    let mut world = World::new(FAIR, 2);
    let port = world.open_inbound(Manner::Silent, true, 1000, 1000);
    world.run_for(Duration::from_secs(40));
    assert!(!world.outside.connections[&port].established, "nobody has answered");
    let host = &mut world.hosts[0];
    host.services.wake(port, &mut host.client);
    world.finish(MINUTE);
}

#[test]
fn what_is_not_allowed_is_reset_and_counted() {
    let mut world = World::with_settings(FAIR, 3, |client, _| client.inbound = vec![22..=22]);
    world.come_up();
    let port = world.open_inbound(Manner::Serve, false, 100, 100);
    assert_eq!(outcome(&mut world, port), Some(Outcome::Reset));
    assert!(!world.outside.connections[&port].established);
    assert_eq!(denied(&world), 1);
    assert!(world.host().services.sides.is_empty(), "the service was reached");
}

#[test]
fn a_client_that_is_not_there_is_an_unreachable_host() {
    // Not yet, …
    let mut world = World::connecting(FAIR, 4);
    let port = world.open_inbound(Manner::Serve, false, 100, 100);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.outside.connections[&port].outcome, Some(Outcome::Unreachable));
    // … not any more, …
    world.come_up();
    let now = world.now;
    world.host_mut().client.close(now);
    world.run_for(Duration::from_secs(5));
    let port = world.open_inbound(Manner::Serve, true, 100, 100);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.outside.connections[&port].outcome, Some(Outcome::Unreachable));
    // … or silent for longer than anybody should wait for it.
    let mut world = World::new(FAIR, 4);
    world.set_blackout([true; 2]);
    let port = world.open_inbound(Manner::Serve, false, 100, 100);
    world.run_for(Duration::from_secs(50));
    assert_eq!(world.outside.connections[&port].outcome, None, "an outage may end");
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.outside.connections[&port].outcome, Some(Outcome::Unreachable));
    let port = world.open_inbound(Manner::Serve, false, 100, 100);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.outside.connections[&port].outcome, Some(Outcome::Unreachable));
    assert_eq!(world.server.load().flows, 0);
    // It is back: nothing of it is left over, and it is reached.
    world.set_blackout([false; 2]);
    world.run_for(MINUTE);
    assert!(world.host().services.sides.values().all(|side| side.stream.is_none()));
    world.forget_connections();
    world.open_inbound(Manner::Serve, false, 10_000, 10_000);
    world.finish(MINUTE);
}

#[test]
fn a_session_that_is_replaced_or_begins_anew_resets_what_was_connected_and_connects_what_waits() {
    for (seed, end) in (0..).zip([World::restart_client, World::restart_server, World::second_host]) {
        let mut world = World::new(FAIR, seed);
        let port = world.open_inbound(Manner::Serve, false, 500_000_000, 0);
        world.run_for(Duration::from_secs(2));
        assert!(world.outside.connections[&port].established);
        end(&mut world);
        assert_eq!(outcome(&mut world, port), Some(Outcome::Reset), "seed {seed}");
        world.run_for(MINUTE);
        let old = &world.hosts[0].services.sides[&port];
        assert!(old.stream.is_none() && old.reset, "seed {seed}: the service was not told");
        world.forget_connections();
        world.open_inbound(Manner::Serve, false, 10_000, 10_000);
        world.finish(MINUTE);
    }
    // A connect that nobody has answered is asked again in the next session.
    let mut world = World::new(FAIR, 9);
    let port = world.open_inbound(Manner::Silent, false, 1000, 1000);
    world.run_for(Duration::from_secs(1));
    world.restart_client();
    world.come_up();
    world.run_for(Duration::from_secs(10));
    let host = &mut world.hosts[0];
    host.services.wake(port, &mut host.client);
    world.finish(MINUTE);
}

#[test]
fn bytes_before_a_reset_arrive_on_both_sides() {
    let mut world = World::new(FAIR, 10);
    let port = world.open_inbound(Manner::Serve, false, 5_000, 5_000_000);
    let sent =
        world.run_until(MINUTE, |world| world.side(port).is_some_and(|side| side.reader.received == 5_000));
    assert!(sent, "{}", world.describe());
    let host = &mut world.hosts[0];
    assert!(host.services.reset(port, &mut host.client));
    assert_eq!(outcome(&mut world, port), Some(Outcome::Reset));
    let mut world = World::new(FAIR, 11);
    let port = world.open_inbound(Manner::Serve, false, 5_000, 0);
    world.outside.connections.get_mut(&port).expect("just opened").abort_after_sending();
    let reset = world.run_until(MINUTE, |world| world.host().services.resets == 1);
    assert!(reset, "the service saw no reset");
    assert_eq!(world.side(port).map(|side| side.reader.received), Some(5_000));
}

#[test]
fn a_service_that_stops_reading_holds_up_nobody_else() {
    let mut world = World::new(FAIR, 12);
    let port = world.open_inbound(Manner::Serve, false, 20_000_000, 0);
    world.run_until(MINUTE, |world| world.side(port).is_some());
    world.hosts[0].services.sides.get_mut(&port).expect("it is connected").reader.stopped = true;
    world.run_for(Duration::from_secs(10));
    for v6 in [false, true] {
        let other = world.open_inbound(Manner::Serve, v6, 200_000, 200_000);
        let finished = world.run_until(Duration::from_secs(10), |world| {
            world.outside.connections[&other].outcome == Some(Outcome::Finished)
        });
        assert!(finished, "{}", world.describe());
    }
    let host = &mut world.hosts[0];
    host.services.sides.get_mut(&port).expect("it is connected").reader.stopped = false;
    host.services.resume(port, &mut host.client, world.now);
    world.finish(MINUTE);
}

#[test]
fn what_cannot_be_sent_to_a_client_is_an_error_to_its_sender_and_a_redirect_is_for_nobody() {
    let echo = |kind: u8| {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0];
        packet.extend_from_slice(&[198, 51, 100, 7, 10, 77, 0, 2]);
        packet.extend_from_slice(&[kind, 0, 0, 0, 0, 1, 0, 1]);
        packet
    };
    let mut world = World::new(FAIR, 13);
    world.server.handle_tun(&echo(5), world.now);
    world.server.handle_tun(&echo(8), world.now);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.host().apps.datagrams, [echo(8)], "the ping alone");
    let drops = world.server.status(world.now).drops;
    assert_eq!((drops.redirect, drops.unrouted, world.server_tun.len()), (1, 0, 0));
    let now = world.now;
    world.host_mut().client.close(now);
    world.run_for(Duration::from_secs(5));
    world.server.handle_tun(&echo(8), world.now);
    world.run_for(Duration::from_millis(1));
    let answer = &world.server_tun[0];
    assert_eq!((answer[9], answer[20], answer[21]), (1, 3, 1), "ICMP destination unreachable, host");
    assert_eq!(world.server.status(world.now).drops.unrouted, 1);
}

#[test]
fn errors_to_the_servers_side_have_a_bound_and_none_is_about_a_broadcast() {
    let ping = |to: [u8; 4]| {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 198, 51, 100, 7];
        packet.extend_from_slice(&to);
        packet.extend_from_slice(&[8, 0, 0, 0, 0, 1, 0, 1]);
        packet
    };
    let mut world = World::connecting(FAIR, 15);
    for last in [0, 255] {
        world.server.handle_tun(&ping([10, 77, 0, last]), world.now);
    }
    assert_eq!(world.server.poll_tun(world.now), None);
    let mut errors = |count: usize, now| {
        (0..count).for_each(|_| world.server.handle_tun(&ping([10, 77, 0, 9]), now));
        std::iter::from_fn(|| world.server.poll_tun(now)).count()
    };
    let now = world.now;
    assert_eq!(errors(1500, now), 1000);
    assert_eq!(errors(1500, now + Duration::from_millis(100)), 100);
    let drops = world.server.status(now).drops;
    assert_eq!((drops.unrouted, drops.unreported), (3002, 1900));
}

#[test]
fn the_path_is_asked_for_while_only_the_servers_side_has_a_connection() {
    let mut world = World::new(FAIR, 14);
    let port = world.open_inbound(Manner::Serve, false, 1_000, 1_000);
    world.outside.connections.get_mut(&port).expect("just opened").writer.finishes = false;
    world.run_until(MINUTE, |world| world.app(0, port).reader.received == 1_000);
    world.set_blackout([true; 2]);
    let before = world.sent()[0];
    world.run_for(MINUTE);
    let asked = world.sent()[0] - before;
    assert!(asked > 200, "{asked} packets in a minute");
}

#[test]
fn a_server_wakes_to_tell_who_waits_for_a_client_that_went_silent() {
    let mut seen = 0;
    for seed in 0..8 {
        let mut world = World::new(FAIR, seed);
        world.run_for(Duration::from_secs(seed));
        world.set_blackout([true; 2]);
        world.open_inbound(Manner::Serve, false, 100, 100);
        let silent = |world: &World| {
            world.server.status(world.now).peers[0].last_heard.is_some_and(|silence| silence >= MINUTE)
        };
        assert!(world.run_until(2 * MINUTE, silent), "seed {seed}");
        if world.server.load().flows == 1 {
            seen += 1;
            let due = world.server.poll_timeout(world.now).map(|due| due - world.now);
            assert!(due.is_some_and(|due| due <= Duration::from_secs(5)), "seed {seed}: {due:?}");
        }
    }
    assert!(seen > 0, "it was always awake already");
}
