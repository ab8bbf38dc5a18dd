//! When a client opens carriers, and when it does not.

use std::time::Duration;

use link_emulator::Direction as Way;
use vpn::carrier::{Kind, parse};
use vpn::session::ClientEvent;

use super::MINUTE;
use super::weather::FAIR;
use super::world::World;

#[test]
fn a_client_asks_for_its_first_carrier_once() {
    let mut world = World::connecting(FAIR, 1);
    world.run_for(Duration::from_millis(90));
    assert_eq!(world.host().events, [dial(&world)]);
}

#[test]
fn a_client_that_is_closed_while_it_dials_says_nothing_more() {
    // Before it was given a port, before the SYN is answered, before message 2 comes.
    for millis in [0, 50, 150] {
        let mut world = World::connecting(FAIR, 2);
        if millis > 0 {
            world.run_for(Duration::from_millis(millis));
        }
        let (now, before) = (world.now, world.line.stats(Way::Out).received);
        world.host_mut().client.close(now);
        world.run_for(MINUTE);
        assert_eq!(world.line.stats(Way::Out).received, before, "closed after {millis} ms");
        let expected = [dial(&world), ClientEvent::Retired(world.host().local())];
        assert_eq!(world.host().events, expected, "closed after {millis} ms");
        assert_eq!(world.host().load().carriers, 0, "closed after {millis} ms");
    }
}

#[test]
fn a_client_that_is_closed_while_it_changes_carriers_says_goodbye_and_opens_no_other() {
    // Before the SYN is answered, and before message 2 comes.
    for millis in [50, 150] {
        let mut world = World::new(FAIR, 3);
        world.open(false, 0, 50_000_000);
        world.run_for(Duration::from_millis(300));
        world.kill_tuple(0);
        let is_dialing = world.run_until(MINUTE, |world| world.host().load().carriers == 2);
        assert!(is_dialing, "no other carrier");
        world.run_for(Duration::from_millis(millis));
        assert_eq!(world.host().load().carriers, 2, "it was to be dialing still");
        let (now, before) = (world.now, world.line.stats(Way::Out).received);
        world.host_mut().client.close(now);
        world.run_for(MINUTE);
        let said = world.line.stats(Way::Out).received - before;
        assert_eq!(said, GOODBYES + 1, "goodbyes and a FIN, closed after {millis} ms");
        assert_eq!(world.host().client.status(world.now).migrations, 0);
        let events = &world.host().events;
        assert!(!events.contains(&ClientEvent::Recovered), "closed after {millis} ms: {events:?}");
    }
}

/// The first carrier of the world's host.
fn dial(world: &World) -> ClientEvent {
    ClientEvent::Dial { attempt: 1, remote: world.server_address() }
}

#[test]
fn both_ends_say_fin_whichever_ends_the_session() {
    for server_ends in [false, true] {
        let mut world = World::new(FAIR, 4);
        let before = fins(&world);
        assert_eq!(before, [0, 0]);
        let now = world.now;
        if server_ends {
            world.server.close()
        } else {
            world.host_mut().client.close(now)
        }
        // A client keeps a carrier for what is late, and ends it then.
        world.run_for(Duration::from_secs(15));
        assert_eq!(fins(&world).map(|fins| fins > 0), [true; 2], "the server ends it: {server_ends}");
    }
}

/// Packets with FIN each way, of the latest.
fn fins(world: &World) -> [usize; 2] {
    Way::BOTH.map(|way| {
        let parsed = world.captured.all(way).map(|packet| parse(packet).expect("one of ours"));
        parsed.filter(|segment| segment.kind() == Kind::Fin).count()
    })
}

/// None of them is acknowledged.
const GOODBYES: u64 = 3;
