//! Ours and the crate `kcp` talk to each other: every byte comes once, in order, and nothing stands still.
//!
//! An ikcp knows nothing of repeated acks, of early copies, of spans beyond its window or of packets that are paced, and ours
//! must bear its ticks and its RTO.

use std::time::Duration;

use link_emulator::{Jitter, Loss, Profile, Reorder};
use vpn::kcp::{Config, CongestionKind, Mode};

use crate::harness::app::{App, Messages};
use crate::harness::cells::{Race, config, crate_fast};
use crate::harness::ikcp::Knobs;
use crate::harness::ours::Sending;
use crate::harness::world::{End, Engine, World};
use crate::harness::{MSS, OVERHEAD, ms, seconds};

/// 50 Mbit/s and 40 ms, that loses up to a fifth, duplicates, and lets packets overtake, as the seed says.
///
/// Its queue holds a whole window: what the crate sends at once would otherwise be lost at once, too, time after time.
fn line(seed: u64) -> Profile {
    Profile {
        loss: Loss::Random([0.0, 0.01, 0.05, 0.1, 0.2][index(seed, 5)]),
        duplicate: [0.0, 0.02, 0.1][index(seed / 2, 3)],
        jitter: [Jitter::NONE, Jitter::unordered(ms(10)), Jitter::unordered(ms(30))][index(seed / 3, 3)],
        reorder: [Reorder::NONE, Reorder::new(0.05, 3), Reorder::new(0.01, 30)][index(seed / 5, 3)],
        queue: ms(100),
        ..Profile::long_line(50_000_000, ms(40), 0.0)
    }
}

fn index(seed: u64, of: u64) -> usize {
    usize::try_from(seed % of).unwrap_or(0)
}

/// What ours is set up as beside each preset, and as the tunnel does it.
fn ours(mode: Option<Mode>) -> Config {
    let tunnel = Config { receive_window: 1024, send_window: 1024, ..config() };
    mode.map_or(tunnel, |mode| Config {
        mss: MSS,
        overhead: OVERHEAD,
        ..mode.config().with_windows(256, 256)
    })
}

fn modes() -> impl Iterator<Item = Option<Mode>> {
    [None].into_iter().chain(Mode::ALL.map(Some))
}

/// Ours at one end, the crate at the other: at the first when the seed is odd.
fn meet(ours: Engine, knobs: Knobs, profile: Profile, apps: [App; 2], seed: u64) -> World {
    let (mut engines, mut apps) = ([ours, Engine::Ikcp(knobs)], apps);
    if seed % 2 == 1 {
        engines.reverse();
        apps.reverse();
    }
    World::pair(profile, seed, engines, apps)
}

/// Runs until both are done; ours at least has to become idle then.
fn finish(mut world: World, limit: Duration, context: &str) -> World {
    world.finish(limit, context);
    world.run(seconds(1));
    for host in &world.hosts {
        match &host.end {
            End::Ours(ours) => {
                assert_eq!(ours.poll_timeout(), None, "{context}: {:?}", ours.stats());
                let stats = ours.stats();
                let nonsense = (stats.malformed, stats.bad_una, stats.bad_acks, stats.unassembled);
                assert_eq!(nonsense, (0, 0, 0, 0), "{context}: {stats:?}");
            }
            End::Ikcp(ikcp) => assert!(!ikcp.is_dead(), "{context}: the crate gave up"),
        }
    }
    world
}

#[test]
fn a_stream_passes_both_ways_whatever_the_preset() {
    for seed in 0..12 {
        for mode in modes() {
            for nc in [true, false] {
                let stream = seed % 3 != 0;
                let knobs = Knobs { stream, nc, windows: 256, ..Knobs::preset(mode.unwrap_or(Mode::Fast3)) };
                let congestion = if nc { ours(mode).congestion } else { CongestionKind::Loss };
                let sending = [Sending::Stream, Sending::Messages][index(seed / 2, 2)];
                let engine = Engine::Ours(Config { congestion, ..ours(mode) }, sending);
                let apps = [App::in_pieces(250_000, 700), App::in_pieces(250_000, 1000)];
                // With each loss the crate's window falls to one segment.
                let limit = if nc { MINUTE } else { 3 * MINUTE };
                let context =
                    format!("seed {seed}, {mode:?}, nc {nc}, {sending:?}, the crate's stream {stream}");
                let world = finish(meet(engine, knobs, line(seed), apps, seed), limit, &context);
                assert!(world.hosts.iter().all(|host| host.app.received() == 250_000), "{context}");
            }
        }
    }
}

#[test]
fn messages_of_many_fragments_arrive_whole_both_ways() {
    for seed in 0..12 {
        for mode in modes() {
            let knobs = Knobs { windows: 256, ..Knobs::preset(mode.unwrap_or(Mode::Fast3)) };
            // The crate refuses to send 128 fragments, as does ours; each end has another longest message.
            let longest = [[1, 2000, 127 * MSS][index(seed, 3)], [127 * MSS, 700, 3 * MSS][index(seed, 3)]];
            let count = longest.map(|longest| 40.max(200_000 / longest as u64).min(300));
            let (mine, theirs) = (longest, [longest[1], longest[0]]);
            let apps = [
                App::Messages(Messages::new(count[0], mine)),
                App::Messages(Messages::new(count[1], theirs)),
            ];
            let context = format!("seed {seed}, {mode:?}, messages of up to {longest:?} bytes");
            let engine = Engine::Ours(ours(mode), Sending::Messages);
            let world = finish(meet(engine, knobs, line(seed), apps, seed), MINUTE, &context);
            let mut received: Vec<u64> = world.hosts.iter().map(|host| messages(&host.app)).collect();
            if seed % 2 == 1 {
                received.reverse();
            }
            assert_eq!(received, [count[1], count[0]], "{context}");
        }
    }
}

fn messages(app: &App) -> u64 {
    let App::Messages(messages) = app else { panic!("{app:?} sends no messages") };
    messages.received()
}

#[test]
fn a_reader_that_stops_is_waited_for_and_asked() {
    for seed in 0..16 {
        let knobs = Knobs::preset(Mode::Fast3);
        let config = Config { send_window: 128, receive_window: 128, ..ours(None) };
        let engine = Engine::Ours(config, Sending::Stream);
        let mut world = meet(engine, knobs, line(seed), [App::listener(), App::listener()], seed);
        let both_ways = seed % 4 >= 2;
        for stopped in [0, 1] {
            world.hosts[1 - stopped].app.add(400_000);
            world.hosts[stopped].app.add(if both_ways { 400_000 } else { 0 });
            world.hosts[stopped].is_reading = false;
            world.run(seconds(30));
            let sent = world.hosts.iter().map(|host| host.sent_bytes).collect::<Vec<_>>();
            world.run(seconds(30));
            // A window's worth was taken and is held; the rest has not been acknowledged.
            if let Some(stats) = world.hosts[stopped].end.stats() {
                let held = stats.receive_buffered;
                assert!(
                    held > 0 && held <= usize::from(config.receive_window) * MSS,
                    "seed {seed}: {stats:?}"
                );
            }
            assert!(!world.is_done(), "seed {seed}: all was acknowledged, and nobody reads");
            // What waits costs a question now and then, and its answer. The crate believes a window that was overtaken by
            // a closed one, and sends what it lets it send again and again.
            let (waiting, other) = (&world.hosts[1 - stopped], &world.hosts[stopped]);
            if matches!(waiting.end, End::Ours(_)) && !both_ways {
                let asked = [waiting.sent_bytes - sent[1 - stopped], other.sent_bytes - sent[stopped]];
                assert!(
                    asked.iter().all(|bytes| (24..240).contains(bytes)),
                    "seed {seed}: {asked:?} bytes in 30 s"
                );
            }
            world.hosts[stopped].is_reading = true;
            world = finish(world, PATIENCE, &format!("seed {seed}, end {stopped} reads again"));
        }
        let context = format!("seed {seed}");
        let expected = if both_ways { 800_000 } else { 400_000 };
        assert!(world.hosts.iter().all(|host| host.app.received() == expected), "{context}");
    }
}

#[test]
fn the_clocks_of_both_may_wrap() {
    // What the clocks show a little before they wrap around, or go past half of their range.
    let (whole, half) = (u32::MAX - 99, (1 << 31) - 100);
    for [mine, theirs] in [[whole, whole], [half, half], [whole, half], [half, whole]] {
        for seed in 0..6 {
            let knobs = Knobs { clock: theirs.wrapping_sub(mine), ..Knobs::preset(Mode::Fast2) };
            let apps = [App::sender(1_000_000), App::sender(1_000_000)];
            let context = format!("clocks {mine} and {theirs}, seed {seed}");
            let mut world = meet(Engine::Ours(ours(None), Sending::Messages), knobs, line(seed), apps, seed);
            world.now += ms(u64::from(mine));
            world.run(ms(100));
            let received = |world: &World| [0, 1].map(|end: usize| world.hosts[end].app.received());
            assert!(received(&world).iter().all(|bytes| *bytes < 1_000_000), "{context}: over before it");
            assert_eq!(received(&finish(world, MINUTE, &context)), [1_000_000; 2], "{context}");
        }
    }
}

#[test]
fn an_ikcp_peer_is_not_slowed_down_by_what_it_does_not_know() {
    // The same echoes, asked for by the crate: answered by itself, and by ours with all that an ikcp does not do.
    let race = Race::of_ikcp(true);
    let answerer = Engine::Ours(ours(None), Sending::Messages);
    let [among_themselves, with_ours] = [crate_fast(), [crate_fast()[0], answerer]].map(|engines| {
        let runs = (1..=10).map(|seed| race.run(engines, seed).average);
        runs.sum::<Duration>() / 10
    });
    assert!(with_ours <= among_themselves, "{with_ours:?}, among themselves {among_themselves:?}");
}

const MINUTE: Duration = Duration::from_secs(60);

/// What the crate has sent in vain, because its peer's window was closed, it sends ever more rarely, and there is no longest
/// RTO of a segment.
const PATIENCE: Duration = Duration::from_secs(1000);
