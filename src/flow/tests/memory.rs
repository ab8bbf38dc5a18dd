//! What flows take of memory, and give back.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use super::*;
use crate::flow::memory::Memory;
use crate::flow::socket::FLOW_BYTES;

/// Memory that tells what was asked of it.
#[derive(Debug, Clone, Default)]
struct Witness {
    lent: Arc<Mutex<usize>>,
    most: usize,
    discarded: Discarded,
}

type Discarded = Arc<Mutex<Vec<(usize, Range<usize>)>>>;

impl Memory for Witness {
    fn lend(&mut self, size: usize) -> Option<&'static mut [u8]> {
        let mut lent = self.lent.lock().unwrap();
        if *lent == self.most {
            return None;
        }
        *lent += 1;
        Some(Box::leak(vec![0; size].into_boxed_slice()))
    }

    fn discard(&mut self, lot: usize, range: Range<usize>) {
        self.discarded.lock().unwrap().push((lot, range));
    }
}

fn witnessed(limits: FlowLimits, most: usize) -> (World, Witness) {
    let mut world = World::new(limits);
    let witness = Witness { most, ..Witness::default() };
    world.flows.set_memory(Box::new(witness.clone()));
    (world, witness)
}

/// Carries `length` bytes each way and says what was taken most.
fn carry(world: &mut World, app: SocketHandle, id: FlowId, length: usize) -> usize {
    let (up, down) = (pattern(length, 1), pattern(length, 2));
    let (mut up_seen, mut down_seen) = (Vec::new(), Vec::new());
    let (mut up_sent, mut down_sent, mut most) = (0, 0, 0);
    while up_seen.len() < length || down_seen.len() < length {
        up_sent += world.app(app).send_slice(&up[up_sent..]).unwrap();
        down_sent += world.flows.write(id, &down[down_sent..], world.now);
        most = most.max(world.flows.stats().memory);
        world.settle();
        up_seen.extend(world.read_all(id));
        while world.app(app).can_recv() {
            let got = world.app(app).recv(|bytes| (bytes.len(), bytes.to_vec()));
            down_seen.extend(got.unwrap());
        }
        world.settle();
    }
    assert!(up_seen == up && down_seen == down);
    most
}

#[test]
fn a_flow_that_rests_gives_its_pages_back_and_goes_on() {
    let (mut world, witness) = witnessed(FlowLimits::default(), 9);
    let (app, id) = world.connected(TARGET);
    for _ in 0..3 {
        assert_eq!(world.flows.stats().memory, FLOW_BYTES);
        let most = carry(&mut world, app, id, 1_000_000);
        assert!((300_000..600_000).contains(&most), "{most}");
        world.pass(5000 * MS);
    }
    assert_eq!((world.flows.stats().memory, world.flows.stats().rested), (FLOW_BYTES, 3));
    assert_eq!(world.flows.poll_timeout(), None, "who rests is not asked again");
    assert_eq!(*witness.discarded.lock().unwrap(), vec![(0, 0..512 * 1024); 3]);
}

#[test]
fn a_flow_that_says_a_word_now_and_then_takes_the_pages_of_words() {
    let (mut world, witness) = witnessed(FlowLimits::default(), 9);
    let (app, id) = world.connected(TARGET);
    for _ in 0..1000 {
        carry(&mut world, app, id, 3);
        world.pass(100 * MS);
    }
    assert_eq!(world.flows.stats().memory, FLOW_BYTES);
    assert!(witness.discarded.lock().unwrap().is_empty());
}

#[test]
fn what_is_not_read_or_not_acknowledged_keeps_its_pages() {
    let (mut world, witness) = witnessed(FlowLimits::default(), 9);
    let (app, id) = world.connected(TARGET);
    let sent = world.app(app).send_slice(&pattern(90_000, 3)).unwrap();
    world.settle();
    world.pass(10_000 * MS);
    assert!(world.flows.stats().memory > FLOW_BYTES + 80_000);
    assert!(witness.discarded.lock().unwrap().is_empty());
    assert_eq!(world.read_all(id), pattern(sent, 3));
    // More than the app's window holds.
    assert!(world.flows.write(id, &pattern(200_000, 4), world.now) == 200_000);
    world.settle();
    world.pass(10_000 * MS);
    assert_eq!(*witness.discarded.lock().unwrap(), [(0, 0..256 * 1024)]);
}

#[test]
fn sockets_are_used_again() {
    let (mut world, witness) = witnessed(FlowLimits::default(), 1);
    for round in 0..20 {
        let (app, id) = world.connected(if round % 2 == 0 { TARGET } else { "[2001:db8::7]:443" });
        carry(&mut world, app, id, 10_000 * (round + 1));
        match round % 3 {
            0 => world.app(app).abort(),
            1 => world.flows.reset(id, world.now),
            _ => {
                world.app(app).close();
                world.settle();
                world.flows.finish(id, world.now);
            }
        }
        world.settle();
        assert_eq!(world.flows.stats().flows, 0, "round {round}");
        world.take_events();
    }
    assert_eq!(*witness.lent.lock().unwrap(), 1);
}

#[test]
fn a_socket_that_rested_and_ended_is_counted_from_its_start_again() {
    let (mut world, witness) = witnessed(FlowLimits::default(), 1);
    let (app, id) = world.connected(TARGET);
    carry(&mut world, app, id, 1_000_000);
    world.pass(5000 * MS);
    world.app(app).abort();
    world.settle();
    world.take_events();
    let discarded = witness.discarded.lock().unwrap().len();
    let (app, id) = world.connected(TARGET);
    let sent = world.app(app).send_slice(&pattern(100_000, 3)).unwrap();
    world.settle();
    assert!(world.flows.stats().memory > FLOW_BYTES + 80_000, "{:?}", world.flows.stats());
    assert_eq!(world.read_all(id), pattern(sent, 3));
    world.settle();
    world.pass(5000 * MS);
    assert_eq!(world.flows.stats().memory, FLOW_BYTES);
    assert_eq!(witness.discarded.lock().unwrap().len(), discarded + 1);
}

#[test]
fn after_a_burst_of_flows_short_ones_meet_pages_that_are_there() {
    const BURST: usize = 400;
    let (mut world, witness) = witnessed(FlowLimits::default(), BURST);
    let ids: Vec<_> = (0..BURST).map(|_| world.connected(TARGET).1).collect();
    ids.into_iter().for_each(|id| world.flows.reset(id, world.now));
    world.settle();
    world.take_events();
    let discarded = witness.discarded.lock().unwrap().len();
    for _ in 0..50 {
        let (app, id) = world.connected(TARGET);
        carry(&mut world, app, id, 1000);
        world.flows.reset(id, world.now);
        world.settle();
        world.take_events();
    }
    assert_eq!(witness.discarded.lock().unwrap().len(), discarded);
}

#[test]
fn a_connect_for_which_there_is_no_memory_is_refused() {
    let (mut world, _) = witnessed(FlowLimits::default(), 1);
    world.connected(TARGET);
    let app = world.connect(TARGET);
    world.settle();
    let id = world.expect_connect();
    world.flows.accept(id, world.now);
    world.settle();
    assert_eq!(world.app(app).state(), State::Closed);
    let limits = FlowLimits { memory: 2 * FLOW_BYTES, ..FlowLimits::default() };
    let mut world = World::new(limits);
    world.connected(TARGET);
    world.connected(TARGET);
    let app = world.connect(TARGET);
    world.settle();
    assert_eq!(world.app(app).state(), State::Closed);
    assert_eq!((world.flows.stats().flows, world.flows.stats().limited), (2, 1));
}

#[test]
fn many_flows_share_a_bound_that_is_too_small_for_all_and_all_come_through() {
    let limits = FlowLimits { memory: 10 * FLOW_BYTES + 400_000, ..FlowLimits::default() };
    let (mut world, _) = witnessed(limits, 10);
    let ends: Vec<_> = (0..10).map(|_| world.connected(TARGET)).collect();
    let (up, down) = (pattern(300_000, 5), pattern(300_000, 6));
    let mut progress = vec![(0, 0, Vec::new(), Vec::new()); ends.len()];
    for round in 0.. {
        assert!(round < 2000, "{:?}", world.flows.stats());
        for (&(app, id), (up_sent, down_sent, up_seen, down_seen)) in ends.iter().zip(&mut progress) {
            *up_sent += world.app(app).send_slice(&up[*up_sent..]).unwrap();
            *down_sent += world.flows.write(id, &down[*down_sent..], world.now);
            world.settle();
            assert!(world.flows.stats().memory <= limits.memory);
            // At first nobody reads.
            if round > 5 {
                up_seen.extend(world.read_all(id));
                while world.app(app).can_recv() {
                    let got = world.app(app).recv(|bytes| (bytes.len(), bytes.to_vec()));
                    down_seen.extend(got.unwrap());
                }
                world.settle();
            }
        }
        world.pass(100 * MS);
        if progress.iter().all(|(_, _, up_seen, down_seen)| up_seen.len() + down_seen.len() == 600_000) {
            break;
        }
    }
    assert!(progress.iter().all(|(_, _, up_seen, down_seen)| *up_seen == up && *down_seen == down));
    assert!(world.flows.stats().dropped_for_memory > 0);
    world.pass(5000 * MS);
    assert_eq!(world.flows.stats().memory, 10 * FLOW_BYTES);
}

#[test]
fn a_group_that_takes_nothing_has_its_part_and_another_is_unharmed() {
    for memory in [8 << 20, 128 << 20] {
        let limits = FlowLimits { memory, memory_of_group: memory / 4, ..FlowLimits::default() };
        let mut world = World::new(limits);
        let joined = |world: &mut World, group| {
            world.take_events();
            let app = world.connect(TARGET);
            world.settle();
            let id = world.expect_connect();
            let has_room = world.flows.join(id, group);
            if has_room {
                world.flows.accept(id, world.now);
            } else {
                world.flows.refuse(id, Refusal::Silent, world.now);
                world.kernel.sockets.remove(app);
            }
            world.settle();
            has_room.then_some((app, id))
        };
        // Nobody reads what these say: each goes on until no more is taken.
        let mut stuck = Vec::new();
        while let Some((app, id)) = joined(&mut world, 3) {
            for _ in 0..4 {
                let _ = world.app(app).send_slice(&[0; 100_000]).unwrap();
                world.settle();
            }
            stuck.push(id);
        }
        let held = world.flows.stats().memory;
        assert!(stuck.len() >= 5 && held <= memory / 4 && held > memory / 4 - 2 * FLOW_BYTES, "{held}");
        let (app, id) = joined(&mut world, 0).unwrap();
        let most = carry(&mut world, app, id, 1_000_000);
        assert!(most > held + 300_000 && world.flows.stats().dropped_for_memory > 0, "{most}");
        // What is over leaves room for others of the same group.
        world.flows.reset(stuck[0], world.now);
        world.settle();
        assert!(joined(&mut world, 3).is_some());
    }
}

#[test]
fn flows_of_a_group_at_its_bound_take_turns_with_its_memory() {
    let limits = FlowLimits { memory: 8 << 20, memory_of_group: 1 << 20, ..FlowLimits::default() };
    let mut world = World::new(limits);
    let ends: Vec<_> = (0..20)
        .map(|_| {
            let app = world.connect(TARGET);
            world.settle();
            let id = world.expect_connect();
            assert!(world.flows.join(id, 0));
            world.flows.accept(id, world.now);
            world.settle();
            (app, id)
        })
        .collect();
    // Each fills its rings, which together would be ten times what they may have.
    for (app, id) in ends {
        carry(&mut world, app, id, 600_000);
        assert!(world.flows.stats().memory <= 1 << 20, "{:?}", world.flows.stats());
    }
    assert_eq!(world.flows.stats().dropped_for_memory, 0);
}
