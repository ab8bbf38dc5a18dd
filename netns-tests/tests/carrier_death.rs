//! A network that stalls the flow: the carrier dies, the download does not.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 100 ms, then ✗ ]── router ── server ── target
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{SERVER, TARGET};
use netns_tests::emulator::Profile;
use netns_tests::scenario::scenario;
use netns_tests::services::Services;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 20 << 20;

/// A fifth of the file: the download is well under way, and long from done.
const UNDER_WAY: u64 = SIZE as u64 / 5;

#[test]
fn a_download_survives_the_death_of_its_five_tuple() {
    download_through("a_download_survives_the_death_of_its_five_tuple", |topology, vpn| {
        let killed = topology.link().kill_newest_tcp_flow()?;
        ensure!(
            killed.ends.iter().any(|end| end.ip() == SERVER && end.port() == PORT),
            "{killed:?} is not the carrier"
        );
        let migrations = move || -> Result<Option<u64>> {
            Ok(vpn.tunnel(topology.client())?["migrations"].as_u64().filter(|n| *n > 0))
        };
        wait::until("a migration in status --json", LIMIT, migrations)?;
        let status = vpn.tunnel(topology.client())?;
        let local = status["carriers"][0]["local"].as_str().context("no carrier in status --json")?;
        ensure!(
            !killed.ends.iter().any(|end| end.to_string() == local),
            "the dead carrier {local} is still the first"
        );
        Ok(())
    });
}

#[test]
fn a_download_survives_a_blackout_of_five_seconds() {
    download_through("a_download_survives_a_blackout_of_five_seconds", |topology, _| {
        topology.link().set_blackout(true)?;
        // The blackout's length is what is tested here, so this waits for time.
        let begun = wait::now();
        wait::until("the end of the blackout", LIMIT, || {
            Ok((begun.elapsed() >= Duration::from_secs(5)).then_some(()))
        })?;
        topology.link().set_blackout(false)
    });
}

/// Downloads a file, does `harm` while it is under way, and checks that the same curl gets the rest.
fn download_through(name: &str, harm: impl FnOnce(&Topology, &Vpn) -> Result<()>) {
    let profile = Profile::long_line(50_000_000, Duration::from_millis(100), 0.0);
    scenario(name, Setup::link(profile), |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        let curl = services.start_download(topology.client(), TARGET, LIMIT)?;
        wait::until("the download to be under way", LIMIT, || {
            Ok((services.downloaded(topology.client()) >= UNDER_WAY).then_some(()))
        })?;
        harm(topology, &vpn)?;
        services.finish_download(topology.client(), curl, LIMIT)?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}
