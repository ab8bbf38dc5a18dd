//! Nothing passes for a while, both ways or one way: the same connection goes on, soon after the line is back.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 100 ms, 30 s of nothing; out or in only ]── router ── server ── target
//! ```

use std::time::Duration;

use anyhow::Result;
use netns_tests::emulator::{Direction, Profile};
use netns_tests::services::HTTP_PORT;
use netns_tests::topology::Setup;
use netns_tests::tunnel::tunnel_scenario;
use netns_tests::wait;

const SIZE: usize = 8 << 20;

/// A quarter of the file.
const UNDER_WAY: u64 = SIZE as u64 / 4;

/// After half a minute of silence a kernel's TCP tries again up to half a minute later. Here it is a second, on a quiet machine.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_download_survives_a_blackout_of_thirty_seconds() {
    let both = &Direction::BOTH;
    survives("a_download_survives_a_blackout_of_thirty_seconds", both, Duration::from_secs(30));
}

#[test]
fn a_download_survives_a_blackout_of_the_way_out() {
    survives("a_download_survives_a_blackout_of_the_way_out", &[Direction::Out], Duration::from_secs(6));
}

#[test]
fn a_download_survives_a_blackout_of_the_way_in() {
    survives("a_download_survives_a_blackout_of_the_way_in", &[Direction::In], Duration::from_secs(6));
}

#[test]
fn an_outage_longer_than_dead_after_resets_what_was_open_and_new_connections_work() {
    let name = "an_outage_longer_than_dead_after_resets_what_was_open_and_new_connections_work";
    let profile = Profile::long_line(50_000_000, Duration::from_millis(100), 0.0);
    tunnel_scenario(name, Setup::link(profile), SIZE, |tunnel| {
        tunnel.vpn.down(tunnel.topology, 0)?.expect_code(0)?;
        let config = tunnel.vpn.client_config(0, "[carrier]\ndead_after = \"2s\"");
        tunnel.vpn.write("client0/client.toml", &config)?;
        tunnel.vpn.up(tunnel.topology, 0, "")?;
        let curl = tunnel.begin_download(UNDER_WAY)?;
        tunnel.topology.link().set_blackout(true)?;
        // While the line is still dark: nobody waits for it any more.
        curl.finish(Duration::from_secs(20))?.expect_text("reset")?;
        tunnel.topology.link().set_blackout(false)?;
        tunnel.download()?;
        wait::until("the server to end the old connection to the target", SOON, || {
            let connections = format!("ss -Htn state established dport = :{HTTP_PORT}");
            Ok(tunnel.topology.server.run(&connections)?.trim().is_empty().then_some(()))
        })
    });
}

fn survives(name: &str, directions: &[Direction], length: Duration) {
    let profile = Profile::long_line(50_000_000, Duration::from_millis(100), 0.0);
    tunnel_scenario(name, Setup::link(profile), SIZE, |tunnel| {
        let link = tunnel.topology.link();
        let blackout =
            |begins| directions.iter().try_for_each(|direction| link.set_blackout_of(*direction, begins));
        tunnel.download_through(|| {
            blackout(true)?;
            wait::pass(length);
            let before = tunnel.services.downloaded(tunnel.client());
            blackout(false)?;
            tunnel.services.wait_for_download(tunnel.client(), before + 1, SOON)
        })?;
        expect_dark(&link.stats()?.map(|stats| stats.blackout), directions)
    });
}

/// Packets were lost in the directions that were dark, and only there.
fn expect_dark(lost: &[u64; 2], directions: &[Direction]) -> Result<()> {
    for direction in Direction::BOTH {
        let lost = lost[direction.index()];
        let dark = directions.contains(&direction);
        anyhow::ensure!((lost > 0) == dark, "{direction:?} has lost {lost} packets in the dark");
    }
    Ok(())
}
