//! A carrier that dies, or seems to: how soon another carries on, and what a false alarm costs.

use std::net::SocketAddr;
use std::time::Duration;

use link_emulator::{Direction as Way, Flow, Jitter, Loss, Profile, TCP};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use vpn::session::{ClientEvent, ClientState};

use super::MINUTE;
use super::weather::{FAIR, lossy};
use super::world::{SERVER_V6, World};

/// What is done to the carrier in use.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// Its 4-tuple passes nothing any more.
    Kill,
    /// Nothing towards the server, or from it.
    KillOneWay(Way),
    /// The host has another address now, and its shell says so.
    Move,
    /// The same, and nobody says so.
    MoveUnseen,
}

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Download,
    Upload,
}

/// The longest time without data at its reader in the seconds after the blow, and how often another carrier took over.
fn gap(load: Load, blow: Blow, seed: u64) -> (Duration, u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(LINE, seed);
    let (upload, download) = if load == Load::Upload { (FILE, 0) } else { (0, FILE) };
    let port = world.open(false, upload, download);
    world.run_for(Duration::from_millis(rng.random_range(2_000..3_000)));
    strike(&mut world, blow);
    let received = |world: &World| match load {
        Load::Download => world.host().apps.connections[&port].reader.received,
        Load::Upload => world.targets.sides[&port].reader.received,
    };
    let (end, mut longest) = (world.now + Duration::from_secs(5), Duration::ZERO);
    let (mut last, mut last_at) = (received(&world), world.now);
    assert!(last > 0, "seed {seed}: nothing was under way");
    while world.step(end) {
        if received(&world) > last {
            longest = longest.max(world.now - last_at);
            (last, last_at) = (received(&world), world.now);
        }
    }
    assert!(!world.host().events.contains(&ClientEvent::Restarted), "seed {seed}");
    (longest.max(world.now - last_at), world.host().client.status(world.now).migrations)
}

fn strike(world: &mut World, blow: Blow) {
    match blow {
        Blow::Kill => world.kill_tuple(0),
        Blow::KillOneWay(way) => world.kill_tuple_one_way(way),
        Blow::MoveUnseen => world.change_address(),
        Blow::Move => {
            world.change_address();
            let now = world.now;
            world.host_mut().tell_of_network(now);
        }
    }
}

fn check_gaps(blow: Blow, limit: Duration) {
    for load in [Load::Download, Load::Upload] {
        let mut gaps: Vec<_> = (0..20).map(|seed| (gap(load, blow, seed), seed)).collect();
        gaps.sort_unstable();
        let ((median, _), (worst, migrations), seed) = (gaps[10].0, gaps[19].0, gaps[19].1);
        eprintln!("{load:?}, {blow:?}: {median:?} without data in the median, {worst:?} at worst");
        assert!(worst <= limit, "{load:?}, {blow:?}, seed {seed}: {worst:?}, {migrations} migrations");
        assert!(gaps.iter().all(|((_, migrations), _)| *migrations == 1), "{load:?}, {blow:?}: {gaps:?}");
    }
}

#[test]
fn data_goes_on_within_a_second_when_the_four_tuple_is_killed() {
    check_gaps(Blow::Kill, Duration::from_secs(1));
}

#[test]
fn data_goes_on_within_a_second_when_the_four_tuple_is_cut_towards_the_server() {
    check_gaps(Blow::KillOneWay(Way::Out), Duration::from_secs(1));
}

#[test]
fn data_goes_on_within_a_second_when_the_four_tuple_is_cut_from_the_server() {
    check_gaps(Blow::KillOneWay(Way::In), Duration::from_secs(1));
}

#[test]
fn data_goes_on_within_a_second_when_the_host_has_another_address() {
    check_gaps(Blow::MoveUnseen, Duration::from_secs(1));
}

#[test]
fn a_host_that_says_that_it_moved_needs_a_handshake_and_no_more() {
    check_gaps(Blow::Move, Duration::from_millis(650));
}

#[test]
fn a_change_of_the_network_that_leaves_the_address_opens_no_carrier() {
    let mut world = World::new(LINE, 1);
    world.open(false, 0, FILE);
    for _ in 0..20 {
        world.run_for(Duration::from_millis(500));
        let now = world.now;
        world.host_mut().tell_of_network(now);
    }
    let status = world.host().client.status(world.now);
    assert_eq!((status.migrations, status.state), (0, ClientState::Up));
    assert_eq!(world.host().load().carriers, 1);
}

#[test]
fn a_move_is_not_undone_by_a_carrier_that_still_answers_at_the_old_address() {
    for seed in 0..6 {
        let mut world = World::new(lossy(0.02), seed);
        world.open(false, 0, FILE);
        world.run_for(Duration::from_secs(3));
        let before = (world.host().events.len(), dials(&world));
        world.keep_old_addresses();
        strike(&mut world, Blow::Move);
        world.run_for(Duration::from_secs(3));
        let status = world.host().client.status(world.now);
        let locals: Vec<_> = status.carriers.iter().map(|carrier| carrier.local.ip()).collect();
        assert_eq!(locals, [world.host().address], "seed {seed}");
        assert_eq!((status.migrations, status.why.moved), (1, 1), "seed {seed}");
        assert!(!world.host().events[before.0..].contains(&ClientEvent::Suspect), "seed {seed}: an outage");
        for _ in 0..20 {
            let now = world.now;
            world.host_mut().tell_of_network(now);
            world.run_for(Duration::from_millis(300));
        }
        assert_eq!(dials(&world), before.1 + 1, "seed {seed}: ports for changes that changed nothing");
    }
}

/// Another address, which the client is told of; what it dials from there leads nowhere.
fn move_to_nowhere(world: &mut World) {
    strike(world, Blow::Move);
    world.run_for(Duration::from_millis(1));
    world.kill_tuple(0);
}

/// Whether all that carries the session comes from the host's address of now.
fn has_moved(world: &World) -> bool {
    let carriers = world.host().client.status(world.now).carriers;
    !carriers.is_empty() && carriers.iter().all(|carrier| carrier.local.ip() == world.host().address)
}

#[test]
fn a_host_that_moves_on_while_it_moves_arrives() {
    for seed in 0..6 {
        let mut world = World::new(FAIR, seed);
        world.open_to(super::Manner::Serve, false, 1_000, 1_000, false);
        world.run_for(Duration::from_secs(3));
        world.keep_old_addresses();
        move_to_nowhere(&mut world);
        world.run_for(Duration::from_secs(2));
        assert!(!has_moved(&world), "seed {seed}: the dead address is dead");
        strike(&mut world, Blow::Move);
        assert!(world.run_until(Duration::from_secs(1), has_moved), "seed {seed}: {}", world.describe());
        let status = world.host().client.status(world.now);
        assert_eq!((status.migrations, status.why.moved), (1, 1), "seed {seed}");
        assert!(!world.host().events.contains(&ClientEvent::Suspect), "seed {seed}: an outage");
    }
}

#[test]
fn a_host_that_moved_asks_until_a_carrier_follows_but_not_for_port_after_port() {
    let mut world = World::new(FAIR, 3);
    world.open_to(super::Manner::Serve, false, 1_000, 1_000, false);
    world.run_for(Duration::from_secs(3));
    world.keep_old_addresses();
    let before = dials(&world);
    strike(&mut world, Blow::Move);
    for _ in 0..4 * 120 {
        world.run_for(Duration::from_millis(25));
        world.kill_tuple(0);
        world.run_for(Duration::from_millis(225));
    }
    let asked = dials(&world) - before;
    assert!((11..=13).contains(&asked), "{asked} ports in two minutes");
    assert!(!has_moved(&world));
    assert!(world.run_until(Duration::from_secs(11), has_moved), "{}", world.describe());
    let asked = dials(&world);
    world.run_for(MINUTE);
    assert_eq!(dials(&world), asked, "it has moved");
    assert!(!world.host().events.contains(&ClientEvent::Suspect), "an outage");
}

#[test]
fn a_host_that_moved_during_an_outage_follows_though_its_old_carrier_answers_again() {
    let mut returned = 0;
    for seed in 0..10 {
        let mut world = World::new(FAIR, seed);
        world.open(false, 0, FILE);
        world.run_for(Duration::from_secs(3));
        world.keep_old_addresses();
        world.set_blackout([true; 2]);
        world.run_for(Duration::from_secs(3));
        strike(&mut world, Blow::Move);
        world.run_for(Duration::from_millis(2_700));
        world.set_blackout([false; 2]);
        let is_up = |world: &World| world.host().client.status(world.now).state == ClientState::Up;
        assert!(world.run_until(Duration::from_secs(2), is_up), "seed {seed}");
        returned += u32::from(!has_moved(&world));
        assert!(world.run_until(Duration::from_secs(1), has_moved), "seed {seed}: {}", world.describe());
    }
    assert!(returned > 0, "the old carrier was never the first to answer");
}

#[test]
fn dials_from_an_address_that_is_gone_hold_no_race_up() {
    let dead = |number| SocketAddr::from(([192, 0, 2, number], 443));
    let mut longest = Duration::ZERO;
    for seed in 0..10 {
        let mut world = World::with_settings(FAIR, seed, |client, _| client.mode = None);
        let server = world.server_address();
        world.set_servers(vec![vec![server, dead(200), dead(201), dead(202)]]);
        world.come_up();
        world.open(false, 0, FILE);
        world.run_for(Duration::from_secs(2));
        let before = dials(&world);
        world.set_blackout([true; 2]);
        assert!(world.run_until(MINUTE / 6, |world| dials(world) == before + 8), "seed {seed}");
        world.set_blackout([false; 2]);
        strike(&mut world, Blow::Move);
        let moved = world.now;
        let is_up = |world: &World| world.host().client.status(world.now).state == ClientState::Up;
        assert!(world.run_until(MINUTE, |world| is_up(world) && has_moved(world)), "seed {seed}");
        longest = longest.max(world.now - moved);
    }
    assert!(longest <= Duration::from_millis(3 * 250 + 350), "{longest:?}");
}

#[test]
fn a_carrier_that_died_is_no_move_because_the_next_is_of_the_other_family() {
    for seed in 0..6 {
        let mut world = World::with_settings(FAIR, seed, |client, _| client.mode = None);
        let server = world.server_address();
        world.set_servers(vec![vec![SERVER_V6, server]]);
        world.come_up();
        world.open(false, 0, FILE);
        world.run_for(Duration::from_secs(3));
        let remote = |world: &World| world.host().client.status(world.now).carriers[0].remote;
        assert_eq!(remote(&world), SERVER_V6, "seed {seed}");
        let killed = world.now;
        while remote(&world) != server {
            world.line.kill_flow(Flow::new(TCP, world.host().local(), SERVER_V6));
            world.run_for(Duration::from_millis(10));
            assert!(world.now - killed < MINUTE / 6, "seed {seed}: {}", world.describe());
        }
        world.run_for(Duration::from_secs(1));
        let status = world.host().client.status(world.now);
        assert_eq!((status.why.moved, status.why.silent), (0, 1), "seed {seed}: {:?}", status.why);
        let died: usize = world.host().client.mode_ranking().iter().map(|record| record.died_young).sum();
        assert_eq!(died, 1, "seed {seed}: nobody answers for it");
    }
}

/// Dials asked for so far.
fn dials(world: &World) -> usize {
    world.host().events.iter().filter(|event| matches!(event, ClientEvent::Dial { .. })).count()
}

/// An hour in which an app that never ends sends something now and then, and is answered.
fn hour_of(weather: Profile, seed: u64) -> World {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(weather, seed);
    let port = world.open_to(super::Manner::Serve, false, 1_000, 1_000, false);
    let end = world.now + 60 * MINUTE;
    while world.now < end {
        world.run_for(super::transition::duration(
            &mut rng,
            Duration::from_millis(10),
            Duration::from_secs(20),
        ));
        let bytes = 1 << rng.random_range(6..19);
        let now = world.now;
        if let Some(connection) = world.host_mut().apps.connections.get_mut(&port) {
            connection.writer.length += bytes / 4;
        }
        if let Some(side) = world.targets.sides.get_mut(&port) {
            side.writer.length += bytes;
        }
        world.targets.resume(port, &mut world.server, now);
    }
    world
}

#[test]
fn an_hour_of_bad_weather_wastes_few_ports_and_moves_nothing_to_and_fro() {
    let weathers = [
        ("20 % lost each way", Profile { loss: Loss::Random(0.2), ..FAIR }),
        (
            "200 ms, jitter, 5 % lost in bursts",
            Profile {
                delay: Duration::from_millis(100),
                jitter: Jitter::unordered(Duration::from_millis(60)),
                loss: Loss::bursts(0.05, 5.0),
                ..FAIR
            },
        ),
        (
            "2 Mbit/s with a queue of 500 ms",
            Profile { rate: Some(2_000_000), queue: Duration::from_millis(500), ..FAIR },
        ),
    ];
    for (name, weather) in weathers {
        let world = hour_of(weather, 7);
        let status = world.host().client.status(world.now);
        let dials = dials(&world) - 1;
        eprintln!("{name}: {dials} carriers tried in an hour, {} taken", status.migrations);
        assert!(dials <= 20, "{name}: {dials} dials");
        assert!(status.migrations <= 3, "{name}: {} migrations", status.migrations);
        assert!(!world.host().events.contains(&ClientEvent::Restarted), "{name}");
        let switches = world.server.status(world.now).peers[0].migrations;
        eprintln!("{name}: the server switched {switches} times");
        assert!(
            switches <= dials as u64,
            "{name}: the server changed carriers {switches} times, {dials} were tried"
        );
    }
}

#[test]
fn a_line_that_loses_more_and_more_costs_one_port_a_minute_at_most() {
    let mut world = World::new(LINE, 3);
    world.open(false, 0, 10 * FILE);
    world.run_for(Duration::from_secs(20));
    let before = dials(&world);
    world.set_weather(Profile { loss: Loss::Random(0.4), ..LINE });
    world.run_for(3 * MINUTE);
    let dials = dials(&world) - before;
    assert!((1..=3).contains(&dials), "{dials} carriers tried");
}

#[test]
fn a_carrier_that_alone_loses_much_is_replaced_before_it_dies_and_the_rate_comes_back() {
    for (seed, load) in [(1, Load::Download), (2, Load::Download), (3, Load::Upload), (4, Load::Upload)] {
        let mut world = World::new(LINE, seed);
        let (upload, download) = if load == Load::Upload { (FILE, 0) } else { (0, FILE) };
        let port = world.open(false, upload, download);
        let received = |world: &World| match load {
            Load::Download => world.host().apps.connections[&port].reader.received,
            Load::Upload => world.targets.sides[&port].reader.received,
        };
        let rate = |world: &mut World| {
            let before = received(world);
            world.run_for(Duration::from_secs(5));
            (received(world) - before) / 5
        };
        // Nothing is replaced for its losses in a session's first minute.
        world.run_for(MINUTE);
        let (usual, asked) = (rate(&mut world), dials(&world));
        world.police_tuple(0.4);
        world.run_for(Duration::from_secs(3));
        let policed = rate(&mut world);
        let why = |world: &World| world.host().client.status(world.now).why;
        let is_replaced = world.run_until(MINUTE / 4, |world| why(world).lossy == 1);
        assert!(is_replaced, "seed {seed}: {:?}", why(&world));
        world.run_for(Duration::from_secs(3));
        let after = rate(&mut world);
        eprintln!("seed {seed}: {usual} bytes a second, then {policed}, then {after}");
        assert!(10 * after >= 9 * usual, "seed {seed}: {usual} bytes a second became {after}");
        assert!(why(&world).silent <= 1 && dials(&world) - asked <= 2, "seed {seed}: {:?}", why(&world));
        assert!(!world.host().events.contains(&ClientEvent::Restarted), "seed {seed}");
    }
}

#[test]
fn addresses_race_and_the_first_that_answers_carries() {
    let dead: SocketAddr = "192.0.2.200:443".parse().unwrap();
    let dead_v6: SocketAddr = "[2001:db8:9::99]:443".parse().unwrap();
    for seed in 0..20 {
        let mut world = World::connecting(FAIR, seed);
        let server = world.server_address();
        world.set_servers(vec![vec![dead, server, dead_v6]]);
        let begun = world.now;
        world.come_up();
        let took = world.now - begun;
        // The dead of the other family has the second turn.
        assert!(took <= Duration::from_millis(2 * 250 + 310), "seed {seed}: {took:?}");
        world.open(false, 10_000, 10_000);
        world.finish(MINUTE);
        assert_eq!(world.host().client.status(world.now).carriers[0].remote, server);
    }
}

#[test]
fn a_first_carrier_that_dies_before_its_answer_leaves_its_addresses_to_the_next() {
    let mut world = World::connecting(FAIR, 6);
    let is_known = world.run_until(MINUTE, |world| world.server.status(world.now).peers[0].session.is_some());
    assert!(is_known && !world.host().is_up());
    // The server knows the session now, and the client does not know that.
    world.kill_tuple(0);
    world.come_up();
    let addresses = &world.host().client.status(world.now).addresses;
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    world.open(false, 10_000, 10_000);
    world.finish(MINUTE);
}

#[test]
fn another_server_is_asked_at_the_start_and_after_dead_after_only() {
    let other: SocketAddr = "192.0.2.200:443".parse().unwrap();
    let mut world = World::connecting(FAIR, 4);
    let server = world.server_address();
    world.set_servers(vec![vec![server], vec![other]]);
    world.come_up();
    world.open(false, 0, FILE);
    world.run_for(Duration::from_secs(1));
    let asked = |world: &World| {
        let to_other =
            |event: &&ClientEvent| matches!(event, ClientEvent::Dial { remote, .. } if *remote == other);
        world.host().events.iter().filter(to_other).count()
    };
    world.set_blackout([true; 2]);
    let before = asked(&world);
    world.run_for(9 * MINUTE);
    assert_eq!(asked(&world), before, "asked although there were flows to lose");
    world.run_for(3 * MINUTE);
    assert!(world.host().events.contains(&ClientEvent::Restarted));
    assert!(asked(&world) > before, "never asked");
}

#[test]
fn a_client_that_slept_longer_than_dead_after_keeps_the_flows_that_the_server_still_has() {
    for seed in 0..10 {
        let mut world = World::new(lossy(0.02), seed);
        world.open(false, 300_000, 3_000_000);
        world.run_for(Duration::from_millis(400));
        assert!(!world.host().apps.is_done(), "seed {seed}");
        world.host_mut().fall_asleep();
        world.run_for(30 * MINUTE);
        let (now, host) = (world.now, world.host_mut());
        host.wake().for_each(|packet| host.handle_packet(packet, now));
        world.finish(MINUTE);
        assert!(!world.host().events.contains(&ClientEvent::Restarted), "seed {seed}");
    }
}

#[test]
fn a_flow_whose_app_reads_nothing_outlives_a_long_sleep() {
    let mut world = World::new(FAIR, 8);
    let port = world.open(false, 0, 3_000_000);
    let stop = |world: &mut World, stopped| {
        let connection = world.host_mut().apps.connections.get_mut(&port).expect("it was opened");
        connection.reader.stopped = stopped;
    };
    world.run_for(Duration::from_millis(300));
    stop(&mut world, true);
    world.run_for(MINUTE);
    let received = world.host().apps.connections[&port].reader.received;
    assert!((1..3_000_000).contains(&received), "{received}");
    world.host_mut().fall_asleep();
    world.run_for(20 * MINUTE);
    world.host_mut().wake().for_each(drop);
    world.run_for(Duration::from_secs(1));
    stop(&mut world, false);
    world.finish(MINUTE);
}

#[test]
fn a_client_that_slept_in_an_outage_waits_for_its_network_before_it_gives_flows_up() {
    for seed in 0..4 {
        let mut world = World::new(FAIR, seed);
        world.open(false, 300_000, 3_000_000);
        world.run_for(Duration::from_millis(400));
        world.set_blackout([true; 2]);
        world.run_for(Duration::from_secs(5));
        world.host_mut().fall_asleep();
        world.run_for(30 * MINUTE);
        world.host_mut().wake().for_each(drop);
        world.run_for(Duration::from_secs(2));
        // A link, but no way to the server yet.
        let now = world.now;
        world.host_mut().client.handle_network_change(None, now);
        world.run_for(Duration::from_secs(40));
        let now = world.now;
        world.host_mut().tell_of_network(now);
        world.run_for(Duration::from_secs(8));
        world.set_blackout([false; 2]);
        world.finish(MINUTE);
        assert!(!world.host().events.contains(&ClientEvent::Restarted), "seed {seed}");
    }
}

#[test]
fn a_client_that_slept_and_whose_server_is_gone_gives_its_flows_up() {
    let mut world = World::new(FAIR, 5);
    world.open(false, 50_000_000, 0);
    world.run_for(Duration::from_millis(400));
    world.set_blackout([true; 2]);
    world.run_for(5 * MINUTE);
    world.host_mut().fall_asleep();
    world.run_for(30 * MINUTE);
    world.host_mut().wake().for_each(drop);
    world.run_for(Duration::from_secs(5));
    let now = world.now;
    world.host_mut().tell_of_network(now);
    world.run_for(Duration::from_secs(9));
    assert!(!world.host().events.contains(&ClientEvent::Restarted), "it did not ask first");
    world.run_for(Duration::from_secs(2));
    assert!(world.host().events.contains(&ClientEvent::Restarted));
}

#[test]
fn when_both_ends_restart_new_flows_work_and_old_ones_are_reset() {
    for seed in 0..10 {
        let mut world = World::new(lossy(0.01), seed);
        world.open(false, 500_000_000, 0);
        world.run_for(Duration::from_secs(1));
        world.restart_server();
        world.restart_client();
        world.come_up();
        world.forget_connections();
        world.open(false, 10_000, 10_000);
        world.finish(MINUTE);
    }
}

#[test]
fn an_idle_tunnel_sends_ten_packets_a_minute_at_most_and_wakes_for_nothing_else() {
    for seed in 0..5 {
        let mut world = World::new(FAIR, seed);
        world.open(false, 20_000, 20_000);
        world.finish(MINUTE);
        world.run_for(MINUTE);
        for minute in 0..60 {
            let before = (world.sent(), world.wakeups);
            world.run_for(MINUTE);
            let sent = [0, 1].map(|end| world.sent()[end] - before.0[end]);
            let wakeups = [0, 1].map(|end| world.wakeups[end] - before.1[end]);
            let whole = format!("seed {seed}, minute {minute}: sent {sent:?}, woken {wakeups:?}");
            assert!(sent.iter().sum::<u64>() <= 10, "{whole}");
            // The client's timer goes off to send a packet; what the server sends are answers.
            assert!(wakeups[0] <= sent[0] && wakeups[1] == 0, "{whole}");
        }
    }
}

/// What most lines are: 20 Mbit/s, 100 ms, a queue of as much.
const LINE: Profile = Profile { rate: Some(20_000_000), queue: Duration::from_millis(100), ..FAIR };

/// More than is ever sent.
const FILE: u64 = 500_000_000;
