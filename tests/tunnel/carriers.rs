//! When a client opens carriers, and when it does not.

use std::collections::BTreeSet;
use std::time::Duration;

use link_emulator::Direction as Way;
use vpn::carrier::{Flags, Kind, Mode, Repr, Seq, SynOptions, parse};
use vpn::session::{ClientEvent, ClientState};

use super::MINUTE;
use super::weather::{FAIR, lossy};
use super::world::World;

#[test]
fn a_client_asks_for_its_first_carrier_once() {
    let mut world = World::connecting(FAIR, 1);
    world.run_for(Duration::from_millis(90));
    assert_eq!(world.host().events, [dial(&world)]);
}

#[test]
fn a_client_that_is_closed_while_it_dials_ends_what_stands_and_says_nothing_more() {
    // Before it was given a port, before the SYN is answered, before message 2 comes.
    for millis in [0, 50, 150] {
        let mut world = World::connecting(FAIR, 2);
        if millis > 0 {
            world.run_for(Duration::from_millis(millis));
        }
        let (now, before) = (world.now, world.line.stats(Way::Out).received);
        world.host_mut().client.close(now);
        world.run_for(MINUTE);
        let fins = u64::from(millis == 150);
        assert_eq!(world.line.stats(Way::Out).received, before + fins, "closed after {millis} ms");
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
        let fins = 1 + u64::from(millis == 150);
        assert_eq!(said, GOODBYES + fins, "goodbyes and FINs, closed after {millis} ms");
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
            world.server.close(world.now)
        } else {
            world.host_mut().client.close(now)
        }
        // A client keeps a carrier for what is late, and ends it then.
        world.run_for(Duration::from_secs(15));
        assert_eq!(fins(&world).map(|fins| fins > 0), [true; 2], "the server ends it: {server_ends}");
    }
}

#[test]
fn both_fins_are_acknowledged_when_a_client_leaves() {
    let mut world = World::new(FAIR, 5);
    let now = world.now;
    world.host_mut().client.close(now);
    assert!(!world.host().client.has_left(), "nothing has been said yet");
    let has_left = world.run_until(Duration::from_secs(1), |world| world.host().client.has_left());
    assert!(has_left, "the server's FIN did not come");
    world.run_for(Duration::from_secs(1));
    for way in Way::BOTH {
        let segments = |way: Way| world.captured.all(way).map(|packet| parse(packet).expect("one of ours"));
        let fin = segments(way).find(|segment| segment.kind() == Kind::Fin).expect("a FIN each way");
        let acked = segments(way.reverse()).any(|segment| segment.ack == fin.seq.advanced_by(1));
        assert!(acked, "nobody acknowledges the FIN that went {way:?}");
    }
}

/// Packets with FIN each way, of the latest.
fn fins(world: &World) -> [usize; 2] {
    Way::BOTH.map(|way| {
        let parsed = world.captured.all(way).map(|packet| parse(packet).expect("one of ours"));
        parsed.filter(|segment| segment.kind() == Kind::Fin).count()
    })
}

#[test]
fn a_goodbye_on_a_carrier_that_was_left_ends_nothing() {
    let mut world = World::new(FAIR, 6);
    world.open(false, 0, 1 << 30);
    world.run_for(Duration::from_secs(1));
    let old = world.host().local();
    world.kill_tuple_one_way(Way::Out);
    let has_moved = |world: &World| world.host().client.status(world.now).migrations == 1;
    assert!(world.run_until(MINUTE, has_moved));
    let events = world.host().events.len();
    world.server.close(world.now);
    let (mut packet, mut delivered) = (Vec::new(), 0);
    while world.server.poll_transmit(&mut packet, world.now) {
        let segment = parse(&packet).expect("one of ours");
        if segment.destination == old && segment.kind() == Kind::Data {
            world.deliver_down(packet.clone());
            delivered += 1;
        }
    }
    assert!(delivered > 0, "nothing was said on the old carrier");
    assert_eq!(world.host().client.status(world.now).state, ClientState::Up);
    world.run_for(Duration::from_millis(1));
    let events = &world.host().events[events..];
    let asks = |event: &ClientEvent| matches!(event, ClientEvent::Dial { .. } | ClientEvent::Suspect);
    assert!(!events.iter().any(asks), "{events:?}");
}

#[test]
fn a_host_that_leaves_takes_no_carrier_of_the_next_with_it() {
    let mut world = World::new(FAIR, 7);
    world.second_host();
    let is_pending = |world: &World| world.server.load().carriers == 2;
    assert!(world.run_until(MINUTE, is_pending) && !world.host().is_up());
    let now = world.now;
    world.hosts[0].client.close(now);
    world.run_for(Duration::from_secs(1));
    assert!(world.host().is_up(), "{}", world.describe());
    let dials = world.host().events.iter().filter(|event| matches!(event, ClientEvent::Dial { .. })).count();
    assert_eq!(dials, 1, "its first carrier was to carry");
}

/// None of them is acknowledged.
const GOODBYES: u64 = 3;

#[test]
fn a_syn_on_a_carrier_that_was_just_heard_gets_an_ack_and_much_later_a_syn_ack() {
    let mut world = World::new(FAIR, 4);
    world.run_for(Duration::from_secs(1));
    let before = answers(&world);
    assert_eq!(before[0], 1, "its own handshake's");
    world.deliver_up(syn(&world));
    world.run_for(Duration::from_millis(10));
    assert_eq!(answers(&world), [before[0], before[1] + 1]);
    assert_eq!(world.server.status(world.now).injected.syns, 1);
    world.set_blackout([true, true]);
    world.run_for(MINUTE / 2);
    let before = answers(&world);
    world.deliver_up(syn(&world));
    world.run_for(Duration::from_millis(10));
    assert_eq!(answers(&world), [before[0] + 1, before[1]], "who is silent may have begun anew");
}

/// A SYN from the current host's port, with other numbers.
pub(crate) fn syn(world: &World) -> Vec<u8> {
    let (source, destination) = (world.host().local(), world.server_address());
    let repr = Repr {
        source,
        destination,
        seq: Seq(77),
        ack: Seq(0),
        flags: Flags::SYN,
        window: 64_240,
        options: SynOptions::windows(1460, 8),
        hop_limit: 128,
        flow_label: 0,
        ip_id: 0,
    };
    let mut packet = vec![0; repr.header_len()];
    repr.emit(&mut packet).expect("a packet");
    packet
}

/// How many SYN-ACKs and how many ACKs without payload the server has sent, as far as they are remembered.
fn answers(world: &World) -> [usize; 2] {
    let packets: BTreeSet<_> = world.captured.all(Way::In).collect();
    let kinds: Vec<_> = packets.into_iter().map(|packet| parse(packet).expect("ours").kind()).collect();
    [Kind::SynAck, Kind::Acknowledgement].map(|kind| kinds.iter().filter(|it| **it == kind).count())
}

#[test]
fn every_mode_carries_flows_over_a_bad_line() {
    for mode in Mode::ALL {
        let mut world = World::with_settings(FAIR, 11, |client, _| client.mode = Some(mode));
        world.come_up();
        world.set_weather(lossy(0.1));
        world.open(false, 200_000, 200_000);
        world.open(true, 1, 400_000);
        world.finish(10 * MINUTE);
        let status = world.host().client.status(world.now);
        assert!(status.carriers.iter().all(|carrier| carrier.mode == mode), "{mode}: {status:?}");
    }
}
