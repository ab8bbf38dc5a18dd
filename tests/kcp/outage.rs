//! What KCP does while nothing gets through, and when the path is back.

use crate::harness::app::App;
use crate::harness::cells::{config, ours};
use crate::harness::ours::Sending;
use crate::harness::world::{Engine, World};
use crate::harness::{ms, seconds};
use link_emulator::{Loss, Profile};
use vpn::kcp::{Config, CongestionKind, Nodelay};

/// 10 Mbit/s and 100 ms, with a queue of as much.
fn line(loss: f64) -> Profile {
    Profile { queue: ms(100), ..Profile::long_line(10_000_000, ms(100), loss) }
}

fn sending(bytes: u64, loss: f64) -> World {
    World::pair(line(loss), 1, ours(), [App::sender(bytes), App::listener()])
}

#[test]
fn goes_on_within_a_round_trip_when_the_path_is_back() {
    let mut world = sending(u64::MAX / 2, 0.0);
    world.run(seconds(2));
    world.link.set_blackout(true);
    world.run(seconds(30));
    let before = world.hosts[1].app.received();
    let sent = world.stats()[0].retransmitted;
    assert!(sent < 400, "{sent} sent into the dark");
    world.link.set_blackout(false);
    let now = world.now;
    for host in &mut world.hosts {
        host.end.on_path_restored(now);
    }
    world.run(ms(160));
    assert!(world.hosts[1].app.received() > before, "{:?}", world.stats());
    let at = world.hosts[1].app.received();
    world.run(seconds(1));
    assert!(world.hosts[1].app.received() - at > 800_000, "{:?}", world.stats());
}

#[test]
fn sends_nothing_again_when_a_pause_ends() {
    let mut world = sending(0, 0.0);
    for _ in 0..10 {
        world.hosts[0].app.add(20_000);
        // Sent, and on its way: then a packet that the peer sent by itself arrives.
        world.run(ms(20));
        let now = world.now;
        world.hosts[0].end.on_path_restored(now);
        world.run(seconds(2));
    }
    let stats = world.stats()[0];
    assert_eq!(world.hosts[1].app.received(), 200_000);
    assert_eq!((stats.retransmitted, stats.spurious, stats.lost), (0, 0, 0), "{stats:?}");
}

#[test]
fn goes_on_across_the_wrap_of_ts() {
    let mut world = sending(2_000_000, 0.05);
    world.now += ms(1 << 32) - ms(500);
    world.finish(seconds(20), "across the wrap");
    let stats = world.stats()[0];
    assert!(stats.srtt.is_some_and(|srtt| srtt < ms(250)), "{stats:?}");
    assert_eq!(stats.bad_acks, 0);
}

#[test]
fn survives_a_blackout_that_nobody_reports() {
    let mut world = sending(3_000_000, 0.05);
    world.run(seconds(1));
    world.link.set_blackout(true);
    world.run(seconds(60));
    world.link.set_blackout(false);
    world.finish(seconds(20), "after a blackout");
    assert_eq!(world.hosts[1].app.received(), 3_000_000);
}

#[test]
fn recovers_a_single_lost_segment_in_about_a_round_trip() {
    let profile = Profile { delay: ms(50), ..Profile::CLEAR };
    let mut world = World::pair(profile, 1, ours(), [App::sender(0), App::listener()]);
    for _ in 0..20 {
        world.hosts[0].app.add(100);
        world.run(ms(150));
    }
    world.link.set_blackout(true);
    world.hosts[0].app.add(100);
    world.run(ms(1));
    world.link.set_blackout(false);
    world.run(ms(180));
    assert_eq!(world.hosts[1].app.received(), 2100, "{:?}", world.stats());
}

/// Both ways at once over a line that loses, reorders and duplicates.
fn deliver(congestion: CongestionKind, seed: u64) {
    let loss = Loss::Random((seed % 5) as f64 * 0.05);
    let duplicate = (seed % 3) as f64 * 0.02;
    let jitter = link_emulator::Jitter::unordered(ms(seed % 4 * 10));
    let line = Profile::long_line(20_000_000, ms(40), 0.0);
    let profile = Profile { loss, duplicate, jitter, queue: ms(40), ..line };
    let pick = |of: [u16; 4], by: u64| of[usize::try_from(by % 4).unwrap_or(0)];
    let config = Config {
        nodelay: if seed.is_multiple_of(2) { Nodelay::On } else { Nodelay::Off },
        fast_resend: u32::try_from(seed % 4).unwrap_or(0),
        send_window: pick([65_535, 300, 20, 1000], seed / 2),
        receive_window: pick([65_535, 1000, 20, 300], seed / 3),
        receive_buffer: 200_000,
        congestion,
        ..config()
    };
    let apps = [App::sender(300_000), App::in_pieces(100_000, 700)];
    let mut world = World::pair(profile, seed, [Engine::Ours(config, Sending::Pulled); 2], apps);
    let context = format!("{congestion:?}, seed {seed}");
    world.finish(seconds(120), &context);
    assert_eq!([0, 1].map(|end: usize| world.hosts[end].app.received()), [100_000, 300_000], "{context}");
    // What the last acks started ends by itself.
    world.run(seconds(1));
    for host in &world.hosts {
        assert_eq!(host.end.poll_timeout(), None, "{context}: {:?}", host.end.stats());
    }
}

#[test]
fn delivers_every_byte_once_and_in_order_over_bad_links() {
    for seed in 0..100 {
        for congestion in [CongestionKind::Bbr, CongestionKind::Loss, CongestionKind::None] {
            deliver(congestion, seed);
        }
    }
}
