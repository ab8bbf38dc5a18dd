//! How soon a flow goes on when the path is there again.

use std::time::Duration;

use link_emulator::Middlebox;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use vpn::carrier::Mode;
use vpn::session::ClientEvent;

use super::transition::duration;
use super::weather::FAIR;
use super::world::World;

/// An outage in the middle of a transfer.
#[derive(Clone, Copy, Debug)]
struct Outage {
    /// Which ways pass nothing, up and down.
    ways: [bool; 2],
    /// What is left of the 4-tuples that were there before.
    loss: Loss,
    mode: Option<Mode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// All work again.
    Nothing,
    /// None ever works again.
    Killed,
    /// The table of a strict connection tracker: only who says SYN passes.
    Forgotten,
}

impl Outage {
    const fn of(ways: [bool; 2]) -> Self {
        Self { ways, loss: Loss::Nothing, mode: None }
    }

    /// How long after the path's return the first new byte is at its reader.
    fn goes_on_after(self, load: Load, seed: u64) -> Duration {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::with_settings(FAIR, seed, |client, _| client.mode = self.mode);
        world.come_up();
        let (upload, download) = if load == Load::Upload { (FILE, 0) } else { (0, FILE) };
        let port = world.open(false, upload, download);
        world.run_for(Duration::from_millis(rng.random_range(300..900)));
        world.set_blackout(self.ways);
        world.run_for(duration(&mut rng, Duration::from_secs(1), Duration::from_secs(60)));
        match self.loss {
            Loss::Nothing => {}
            Loss::Killed => world.kill_live_tuples(),
            Loss::Forgotten => world.line.set_middleboxes(&[Middlebox::RequireHandshake], world.now),
        }
        let received = |world: &World| match load {
            Load::Download => world.host().apps.connections[&port].reader.received,
            Load::Upload => world.targets.sides[&port].reader.received,
        };
        // What is on its way where the line is clear counts for nothing.
        world.run_for(Duration::from_millis(100));
        let (before, returned) = (received(&world), world.now);
        assert!(before > 0, "seed {seed}: nothing was under way");
        world.set_blackout([false; 2]);
        let goes_on = world.run_until(Duration::from_secs(30), |world| received(world) > before);
        assert!(goes_on, "seed {seed}: nothing within 30 s");
        assert!(!world.host().events.contains(&ClientEvent::Restarted), "seed {seed}");
        world.now - returned
    }

    fn check(self, limit: Duration) {
        for load in [Load::Download, Load::Upload] {
            let times = (0..20).map(|seed| (self.goes_on_after(load, seed), seed));
            let mut times: Vec<_> = times.collect();
            times.sort_unstable();
            let ((median, _), (worst, seed)) = (times[10], times[19]);
            eprintln!("{load:?}, {self:?}: {median:?} in the median, {worst:?} at worst");
            assert!(worst <= limit, "{load:?}, {self:?}, seed {seed}: {worst:?}");
        }
    }
}

/// Which way the data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Download,
    Upload,
}

#[test]
fn data_goes_on_within_a_round_trip_and_a_little_when_the_path_returns() {
    Outage::of([true; 2]).check(ROUND_TRIP + NOTICE);
}

#[test]
fn data_goes_on_within_a_round_trip_and_a_little_when_the_way_up_returns() {
    Outage::of([true, false]).check(ROUND_TRIP + NOTICE);
}

#[test]
fn data_goes_on_within_two_round_trips_and_a_little_when_the_way_down_returns() {
    Outage::of([false, true]).check(2 * ROUND_TRIP + NOTICE);
}

#[test]
fn data_goes_on_within_a_second_when_the_path_returns_and_every_four_tuple_is_dead() {
    for ways in [[true, true], [true, false], [false, true]] {
        Outage { loss: Loss::Killed, ..Outage::of(ways) }.check(Duration::from_secs(1));
    }
}

#[test]
fn data_goes_on_within_a_second_when_the_path_returns_with_a_tracker_that_knows_nobody() {
    for mode in [None, Some(Mode::HandshakeAdvance), Some(Mode::HandshakeFixed)] {
        let outage = Outage { loss: Loss::Forgotten, mode, ..Outage::of([true; 2]) };
        outage.check(Duration::from_secs(1));
    }
}

#[test]
fn data_goes_on_within_a_second_whatever_the_mode_when_every_four_tuple_is_dead() {
    for mode in Mode::ALL {
        let outage = Outage { loss: Loss::Killed, mode: Some(mode), ..Outage::of([true; 2]) };
        outage.check(Duration::from_secs(1));
    }
}

/// Of [`FAIR`].
const ROUND_TRIP: Duration = Duration::from_millis(100);

/// What it may take to find that the path is back: pings go out every quarter of a second.
const NOTICE: Duration = Duration::from_millis(300);

/// More than is ever sent.
const FILE: u64 = 500_000_000;
