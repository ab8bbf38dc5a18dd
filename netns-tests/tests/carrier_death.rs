//! A network that stalls the flow: the carrier dies, the download does not.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 100 ms, then ✗ ]── router ── server ── target
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::SERVER;
use netns_tests::emulator::Profile;
use netns_tests::topology::Setup;
use netns_tests::tunnel::tunnel_scenario;
use netns_tests::vpn::PORT;
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 20 << 20;

#[test]
fn a_download_survives_the_death_of_its_five_tuple() {
    let setup = Setup::link(Profile::long_line(50_000_000, Duration::from_millis(100), 0.0));
    tunnel_scenario("a_download_survives_the_death_of_its_five_tuple", setup, SIZE, |tunnel| {
        tunnel.download_through(|| {
            let (topology, vpn) = (tunnel.topology, &tunnel.vpn);
            let killed = topology.link().kill_newest_tcp_flow()?;
            ensure!(
                killed.ends.iter().any(|end| end.ip() == SERVER && end.port() == PORT),
                "{killed:?} is not the carrier"
            );
            let migrations = || -> Result<Option<u64>> {
                Ok(vpn.tunnel(topology.client())?["migrations"].as_u64().filter(|n| *n > 0))
            };
            wait::until("a migration in status --json", LIMIT, migrations)?;
            let (local, _) = vpn.carrier(topology.client())?.context("no carrier in status --json")?;
            let is_dead = killed.ends.iter().any(|end| end.to_string() == local);
            ensure!(!is_dead, "the dead carrier {local} is still the first");
            Ok(())
        })?;
        Ok(())
    });
}
