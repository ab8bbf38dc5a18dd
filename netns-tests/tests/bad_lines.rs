//! Files both ways over lines that do worse than lose a packet now and then: the right bytes, whatever happens to packets.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 40 ms, and: 20 % loss, bursts, reordering, copies, flipped bits ]── router ── server ── target
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::emulator::{Jitter, Loss, Profile, Reorder, Stats};
use netns_tests::topology::Setup;
use netns_tests::tunnel::tunnel_scenario;

const SIZE: usize = 5 << 20;

fn line() -> Profile {
    Profile::long_line(50_000_000, Duration::from_millis(40), 0.0)
}

#[test]
fn files_are_right_both_ways_at_twenty_percent_loss() {
    let profile = Profile { loss: Loss::Random(0.2), ..line() };
    files_both_ways("files_are_right_both_ways_at_twenty_percent_loss", profile, |stats| {
        [stats.lost, 0, 0, 0]
    });
}

#[test]
fn files_are_right_both_ways_when_losses_come_in_bursts() {
    let profile = Profile { loss: Loss::bursts(0.05, 20.0), ..line() };
    files_both_ways("files_are_right_both_ways_when_losses_come_in_bursts", profile, |stats| {
        [stats.lost, 0, 0, 0]
    });
}

#[test]
fn files_are_right_both_ways_when_packets_overtake_one_another() {
    let jitter = Jitter::unordered(Duration::from_millis(10));
    let profile = Profile { reorder: Reorder::new(0.1, 20), jitter, ..line() };
    files_both_ways("files_are_right_both_ways_when_packets_overtake_one_another", profile, |stats| {
        [0, stats.reordered, 0, 0]
    });
}

#[test]
fn files_are_right_both_ways_when_packets_arrive_twice() {
    let profile = Profile { duplicate: 0.2, ..line() };
    files_both_ways("files_are_right_both_ways_when_packets_arrive_twice", profile, |stats| {
        [0, 0, stats.duplicated, 0]
    });
}

#[test]
fn files_are_right_both_ways_when_bits_flip() {
    let profile = Profile { corrupt: 0.05, ..line() };
    files_both_ways("files_are_right_both_ways_when_bits_flip", profile, |stats| [0, 0, 0, stats.corrupted]);
}

#[test]
fn files_are_right_both_ways_when_everything_happens_at_once() {
    let profile = Profile {
        loss: Loss::bursts(0.05, 5.0),
        jitter: Jitter::unordered(Duration::from_millis(5)),
        reorder: Reorder::new(0.05, 10),
        duplicate: 0.05,
        corrupt: 0.02,
        ..line()
    };
    files_both_ways("files_are_right_both_ways_when_everything_happens_at_once", profile, all_harm);
}

/// `harm` picks what the line must have done in each direction; what it gives as zero, the line must not have done.
fn files_both_ways(name: &str, profile: Profile, harm: fn(&Stats) -> [u64; 4]) {
    tunnel_scenario(name, Setup::link(profile), SIZE, |tunnel| {
        tunnel.download()?;
        tunnel.upload()?;
        for stats in tunnel.topology.link().stats()? {
            expect_harm(&stats, harm(&stats))?;
        }
        Ok(())
    });
}

fn expect_harm(stats: &Stats, wanted: [u64; 4]) -> Result<()> {
    let wanted_only = all_harm(stats) == wanted && wanted != [0; 4];
    ensure!(wanted_only, "the line did not do what was asked of it: {stats:?}");
    // Half of the packets of one file carry data, the others acknowledge; a line that does its worst meets many of both.
    ensure!(
        wanted.iter().all(|count| *count == 0 || *count > MANY),
        "the line did hardly any harm: {stats:?}"
    );
    Ok(())
}

fn all_harm(stats: &Stats) -> [u64; 4] {
    [stats.lost, stats.reordered, stats.duplicated, stats.corrupted]
}

/// Of the more than 4,000 packets that each direction carries, 2 % are 80.
const MANY: u64 = 40;
