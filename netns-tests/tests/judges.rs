//! What tshark makes of a whole tunnel, from `up` to `down`, seen by a strict router: one sound connection.
//!
//! ```text
//!   client ──[ 20 Mbit/s, 40 ms ]── router (tcpdump) ── server ── target
//!                              masquerade, be_liberal=0, loose=0, ct state invalid drop
//! ```

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::TARGET;
use netns_tests::emulator::Profile;
use netns_tests::firewall;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 4 << 20;

#[test]
fn tshark_sees_one_sound_connection_without_loss() {
    judged("tshark_sees_one_sound_connection_without_loss", 0.0);
}

#[test]
fn tshark_sees_nothing_but_holes_at_two_percent_loss() {
    judged("tshark_sees_nothing_but_holes_at_two_percent_loss", 0.02);
}

fn judged(name: &str, loss: f64) {
    scenario(
        name,
        Setup::link(Profile::long_line(20_000_000, Duration::from_millis(40), loss)),
        |topology| {
            firewall::raise(&topology.router, false)?;
            let services = Services::start(topology, SIZE)?;
            let vpn = Vpn::prepare(topology)?;
            let _serve = vpn.serve(topology)?;
            let capture = one_connection(topology, &services, &vpn)?;
            let invalid = firewall::invalid(&topology.router)?;
            ensure!(invalid == 0, "{invalid} packets were invalid");
            let judge = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/judge");
            topology
                .router
                .program(judge)?
                .args(["--only", "tshark"])
                .arg(capture)
                .run(LIMIT)?
                .expect_code(0)?;
            Ok(())
        },
    );
}

/// The capture of a tunnel that kept its carrier from its beginning to its end: a busy machine may stall one.
fn one_connection(topology: &Topology, services: &Services, vpn: &Vpn) -> Result<PathBuf> {
    let mut migrations = 0;
    for _ in 0..ATTEMPTS {
        let capture = topology.router.capture("server", &format!("tcp port {PORT}"))?;
        vpn.up(topology, 0, "")?;
        services.download(topology.client(), TARGET, LIMIT)?;
        services.upload(topology.client(), TARGET, LIMIT)?;
        services::ping(topology.client(), TARGET, 3)?;
        migrations = vpn.migrations(topology.client())?;
        vpn.down(topology, 0)?.expect_code(0)?;
        let file = capture.finish_file()?;
        if migrations == 0 {
            return Ok(file);
        }
    }
    anyhow::bail!("{migrations} migrations in the last of {ATTEMPTS} attempts")
}

const ATTEMPTS: u32 = 3;
