//! What a whole tunnel takes of the heap, counted where it is taken: the bound on bytes holds for memory, too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use link_emulator::Direction as Way;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::stranger::Attack;
use super::weather::FAIR;
use super::world::World;

/// The system's allocator, which counts for each thread what it holds: a world lives in one thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    // A thread that ends frees what it has after its counters are gone.
    let _gone = HELD.try_with(|held| {
        held.set(held.get() + change);
        PEAK.try_with(|peak| peak.set(peak.get().max(held.get())))
    });
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call goes to the system's allocator as it came; counting neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(signed(size) - signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The most that `work` held at any time beyond what was held before.
fn peak_of(work: impl FnOnce()) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    work();
    usize::try_from(PEAK.get() - before).expect("a peak is not below the start")
}

#[test]
fn readers_that_stopped_cost_no_more_memory_than_the_sessions_bound() {
    let mut world = World::with_settings(FAIR, 1, |client, server| {
        (client.session_buffer, server.session_buffer) = (SESSION, SESSION);
        (client.process_buffer, server.process_buffer) = (SESSION + FLOWS * FLOW, 2 * SESSION);
    });
    world.come_up();
    let peak = peak_of(|| {
        for _ in 0..FLOWS {
            let port = world.open(false, 0, 4_000_000);
            world.host_mut().apps.connections.get_mut(&port).expect("just opened").reader.stopped = true;
        }
        world.run_for(Duration::from_secs(30));
    });
    let stopped = world.host().apps.connections.values();
    assert!(stopped.clone().all(|connection| connection.established), "every flow is open");
    assert!(stopped.clone().all(|connection| connection.outcome.is_none()), "and waits for its reader");
    let held = world.bounds.peak.client_session.max(world.bounds.peak.server_session);
    assert!(held > SESSION / 4, "the sessions were to be filled, and held {held} bytes");
    assert!(peak < BOUND, "{peak} bytes at most, of {BOUND}");
}

#[test]
fn strangers_leave_nothing_in_memory_however_many_they_are() {
    let mut world = World::new(FAIR, 2);
    let mut rng = StdRng::seed_from_u64(2);
    let before = world.server.load();
    let mut answer = Vec::with_capacity(2048);
    for attack in Attack::OF_STRANGERS {
        let Some(recorded) = world.captured.choose(Way::Out, &mut rng) else { panic!("nothing travelled") };
        let mut packets: Vec<_> = (0..1000).map(|_| attack.packet(&recorded, &mut rng)).collect();
        // The answers of one batch wait at once, as they do where the network is slow.
        let peak = peak_of(|| {
            for number in 0..100_000_usize {
                let index = number % packets.len();
                let packet = &mut packets[index];
                vary_source(packet, number);
                world.server.handle_packet(packet, world.now);
                if index + 1 == packets.len() {
                    while world.server.poll_transmit(&mut answer, world.now) {}
                }
            }
        });
        assert!(peak < STRANGERS, "{}: {peak} bytes at most", attack.name());
    }
    assert_eq!(world.server.load(), before);
}

/// Another port and, of one network, another address.
fn vary_source(packet: &mut [u8], number: usize) {
    let low = u16::try_from(number % 65_536).expect("16 bits");
    if packet.len() < 22 {
        return;
    }
    packet[14..16].copy_from_slice(&low.to_be_bytes());
    packet[20..22].copy_from_slice(&low.wrapping_mul(31).to_be_bytes());
}

/// A thousand SYN-ACKs that wait, in a queue that doubles.
const STRANGERS: usize = 512 * 1024;

const MIB: usize = 1 << 20;

/// Of each end. An eighth of it is for first windows, of 64 KiB each.
const SESSION: usize = 32 * MIB;
const FLOWS: usize = SESSION / 8 / (64 * 1024);

/// The buffers of a flow at the client.
const FLOW: usize = 512 * 1024;

/// The test's own: two buffers of an app's socket, and packets that travel.
const APP: usize = 2 * 64 * 1024;
const TRAVELLING: usize = 4 * MIB;

/// Both sessions full; what the targets have to send is twice as much.
const BOUND: usize = 2 * SESSION + FLOWS * (FLOW + APP) + TRAVELLING;
