//! What both ends say of each flow.

use std::collections::BTreeMap;
use std::time::Duration;

use link_emulator::Profile;
use vpn::session::{FlowState, FlowStatus, FlowTraffic};

use super::target::Manner;
use super::weather::FAIR;
use super::world::World;

/// The flows by their target's port, as the client and as the server lists them.
fn lists(world: &World) -> [BTreeMap<u16, FlowStatus>; 2] {
    let of_client = world.host().client.flows(usize::MAX, world.now);
    let mut of_peers = world.server.flows(usize::MAX, world.now);
    let (name, of_server) = of_peers.pop().expect("a peer with a session");
    assert_eq!((name.as_str(), of_peers.len()), ("alice", 0));
    [of_client, of_server].map(|list| {
        assert_eq!(list.unlisted, 0);
        list.flows.into_iter().map(|flow| (flow.target.port(), flow)).collect()
    })
}

fn traffic(flow: &FlowStatus) -> FlowTraffic {
    flow.traffic.expect("a flow that goes through the tunnel")
}

#[test]
fn both_ends_say_how_far_each_flow_has_come_and_what_moved() {
    let mut world = World::new(SLOW, 1);
    let open = world.open_to(Manner::Serve, false, 5000, 7000, false);
    world.run_for(Duration::from_secs(10));
    let silent = world.open_special(Manner::Silent);
    let down = world.open(true, 100, 1 << 30);
    let up = world.open(false, 1 << 30, 100);
    world.run_for(Duration::from_secs(5));
    let [here, there] = lists(&world);
    for (port, state) in [
        (open, FlowState::Open),
        (silent, FlowState::Connecting),
        (down, FlowState::AppFinished),
        (up, FlowState::TargetFinished),
    ] {
        let (here, there) = (here[&port], there[&port]);
        assert_eq!([here.state, there.state], [state; 2]);
        assert_eq!([here.target, there.target], [world.targets.plans[&port].target; 2]);
        assert!(here.is_from_client && there.is_from_client);
        assert!(here.source.is_some_and(|source| source.ip().to_string().ends_with('2')), "{here:?}");
        assert_eq!(there.source, None);
        let age = if port == open { 15_000 } else { 5000 };
        let age = Duration::from_millis(age);
        assert_eq!(here.age, age);
        // The question was half a round trip on its way.
        let later = [100, 45].map(Duration::from_millis);
        assert!((age - later[0]..age - later[1]).contains(&there.age), "{there:?}");
    }
    let idle = FlowTraffic { sent: 5000, received: 7000, sent_lately: 0, received_lately: 0 };
    assert_eq!(here[&open].traffic, Some(idle));
    let idle = FlowTraffic { sent: 7000, received: 5000, sent_lately: 0, received_lately: 0 };
    assert_eq!(there[&open].traffic, Some(idle));
    for (sender, receiver) in [(here[&up], there[&up]), (there[&down], here[&down])] {
        let (sender, receiver) = (traffic(&sender), traffic(&receiver));
        assert_eq!((sender.received, receiver.sent, sender.received_lately), (100, 100, 0));
        assert!(receiver.received > 1 << 20 && receiver.received <= sender.sent, "{sender:?} {receiver:?}");
        assert!(receiver.received_lately > 100_000, "{receiver:?}");
    }
    // What the whole session moves is what its flows move.
    let mux = world.host().client.status(world.now).session.mux;
    let sums =
        here.values().map(traffic).fold((0, 0), |sum, flow| (sum.0 + flow.sent, sum.1 + flow.received));
    assert_eq!(sums, (mux.sent_bytes, mux.received_bytes));
}

#[test]
fn a_flow_from_the_servers_side_is_listed_as_one() {
    let mut world = World::new(FAIR, 5);
    let port = world.open_inbound(Manner::Serve, false, 300, 1 << 30);
    world.run_for(Duration::from_secs(1));
    let [here, there] = lists(&world).map(|flows| flows[&port]);
    assert!(!here.is_from_client && !there.is_from_client);
    // The app is beyond the server, and has said all that it had to say.
    assert_eq!([here.state, there.state], [FlowState::AppFinished; 2]);
    assert_eq!((here.source, there.source.is_some()), (None, true));
    assert_eq!((traffic(&here).received, traffic(&there).sent), (300, 300));
    assert!(traffic(&here).sent_lately > 0, "{here:?}");
}

#[test]
fn a_rate_is_what_arrived_in_the_last_second() {
    let mut world = World::new(SLOW, 2);
    let port = world.open(false, 0, 1 << 30);
    world.run_for(Duration::from_secs(10));
    let before = traffic(&lists(&world)[0][&port]);
    world.run_for(Duration::from_secs(1));
    let after = traffic(&lists(&world)[0][&port]);
    let moved = after.received - before.received;
    let difference = moved.abs_diff(after.received_lately);
    assert!(
        moved > 500_000 && difference * 20 < moved,
        "{moved} bytes in a second, and the rate is {}",
        after.received_lately
    );
}

#[test]
fn a_flow_whose_app_has_not_read_the_end_is_listed_until_it_has() {
    let mut world = World::new(FAIR, 3);
    let port = world.open(false, 10, 200_000);
    let stop = |world: &mut World, is_stopped| {
        let connection = world.host_mut().apps.connections.get_mut(&port).expect("just opened");
        connection.reader.stopped = is_stopped;
    };
    stop(&mut world, true);
    world.run_for(Duration::from_secs(10));
    let [here, there] = lists(&world);
    assert!(there.is_empty(), "{there:?}");
    let flow = here[&port];
    assert_eq!((flow.state, flow.traffic), (FlowState::Closing, None));
    assert_eq!((flow.target, flow.age), (world.targets.plans[&port].target, Duration::from_secs(10)));
    assert_eq!(world.host().client.status(world.now).session.flows_open, 1);
    stop(&mut world, false);
    world.finish(Duration::from_secs(60));
    world.run_until(Duration::from_secs(60), |world| lists(world)[0].is_empty());
    assert_eq!(lists(&world), [BTreeMap::new(), BTreeMap::new()]);
}

#[test]
fn lists_no_more_than_it_is_asked_for_and_counts_the_others() {
    let mut world = World::new(FAIR, 4);
    for _ in 0..10 {
        world.open_to(Manner::Serve, false, 10, 10, false);
    }
    world.run_for(Duration::from_secs(2));
    for most in [0, 1, 9, 10, 11] {
        let (_, there) = world.server.flows(most, world.now).remove(0);
        for list in [world.host().client.flows(most, world.now), there] {
            assert_eq!(list.flows.len(), most.min(10));
            assert_eq!(list.flows.len() + list.unlisted, 10);
        }
    }
}

/// A megabyte a second.
const SLOW: Profile = Profile { rate: Some(8_000_000), queue: Duration::from_millis(50), ..FAIR };
