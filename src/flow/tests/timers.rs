//! How often flows want to be woken.

use super::*;

/// Lets every timer run until `until`, with nobody asking anything in between.
fn run(world: &mut World, until: Instant) {
    while let Some(due) = world.flows.poll_timeout().filter(|due| *due <= until) {
        world.now = world.now.max(due);
        world.flows.handle_timeout(world.now);
    }
    world.now = until;
    world.events.extend(std::iter::from_fn(|| world.flows.poll_event()));
}

#[test]
fn a_held_connect_that_nobody_repeats_any_more_is_let_go_two_minutes_after_the_last_time() {
    let (mut world, second) = (world(), 1000 * MS);
    let syn = segment("10.0.0.1:9", TARGET, TcpFlags::SYN, 5, 0, b"");
    world.flows.handle_packet(&syn, world.now);
    let id = world.expect_held();
    // As Linux asks, and then not again.
    for after in [1, 2, 4, 8, 16, 32, 64] {
        let until = world.now + after * second;
        run(&mut world, until);
        world.flows.handle_packet(&syn, world.now);
    }
    let last = world.now;
    run(&mut world, last + 119 * second);
    assert_eq!((world.take_events(), world.flows.stats().held), (vec![], 1));
    run(&mut world, last + 120 * second);
    assert_eq!(world.take_events(), [Event::Reset { id }]);
    assert_eq!((world.flows.stats().held, world.flows.stats().memory), (0, 0));
    assert_eq!((world.flows.poll_timeout(), world.flows.poll_packet(world.now)), (None, None));
}

#[test]
fn a_sleep_lets_no_held_connect_go() {
    let (mut world, second) = (world(), 1000 * MS);
    let syn = segment("10.0.0.1:9", TARGET, TcpFlags::SYN, 5, 0, b"");
    world.flows.handle_packet(&syn, world.now);
    let id = world.expect_held();
    world.now += 3600 * second;
    world.flows.on_stood_still(3600 * second, world.now);
    let woken = world.now;
    run(&mut world, woken + 119 * second);
    assert_eq!(world.take_events(), []);
    run(&mut world, woken + 121 * second);
    assert_eq!(world.take_events(), [Event::Reset { id }]);
}

#[test]
fn many_held_connects_are_looked_at_once_a_minute() {
    let mut world = world();
    for port in 1..=1000 {
        let syn = segment(&format!("10.0.0.1:{port}"), TARGET, TcpFlags::SYN, 5, 0, b"");
        world.flows.handle_packet(&syn, world.now);
    }
    let mut wakes = 0;
    while let Some(due) = world.flows.poll_timeout() {
        assert!(due - world.now > 59_000 * MS, "{:?}", due - world.now);
        world.now = due;
        world.flows.handle_timeout(world.now);
        wakes += 1;
    }
    assert_eq!((wakes, world.flows.stats().flows), (2, 0));
}

#[test]
fn the_timers_of_many_flows_run_together_and_soon_none_is_left() {
    let mut world = world();
    let mut ids = Vec::new();
    for number in 0..1000 {
        ids.push(world.connected(TARGET));
        world.now += MS;
        if number % 50 == 0 {
            world.pass(MS);
        }
    }
    // Each says something at a time of its own, and it is acknowledged at once.
    for (_, id) in &ids {
        assert_eq!(world.flows.write(*id, b"x", world.now), 1);
        world.settle();
        world.now += MS;
    }
    let (mut wakes, begun) = (0, world.now);
    while let Some(due) = world.flows.poll_timeout() {
        world.now = world.now.max(due);
        world.flows.handle_timeout(world.now);
        world.settle();
        wakes += 1;
        assert!(wakes < 100, "{:?} after the last word", world.now - begun);
    }
    assert!(world.now - begun < 4000 * MS, "{:?}", world.now - begun);
    assert_eq!(world.flows.stats().flows, 1000);
}

#[test]
fn what_is_not_acknowledged_is_sent_again_within_a_moment_of_its_time() {
    let mut world = world();
    let (_, id) = world.connected(TARGET);
    // The timer of the handshake runs once for nothing.
    world.pass(3000 * MS);
    world.now += 17 * MS;
    world.flows.write(id, b"lost", world.now);
    let sent = world.now;
    assert!(world.flows.poll_packet(world.now).is_some());
    let due = world.flows.poll_timeout().unwrap();
    assert!((1000 * MS..=1050 * MS).contains(&(due - sent)), "{:?}", due - sent);
    world.now = due;
    world.flows.handle_timeout(world.now);
    assert!(world.flows.poll_packet(world.now).is_some());
}
