//! How often flows want to be woken.

use super::*;

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
