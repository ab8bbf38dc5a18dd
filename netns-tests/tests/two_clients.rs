//! Two clients at once, each with its own key, addresses and link.
//!
//! ```text
//!   client 0 ──[ 20 ms ]──┐
//!                         ├── router ── server ── target
//!   client 1 ──[ 20 ms ]──┘
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER_BACK, TARGET, tunnel_client};
use netns_tests::emulator::Profile;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::Setup;
use netns_tests::vpn::Vpn;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn two_clients_share_a_server_and_not_an_address() {
    let profile = Profile { delay: Duration::from_millis(10), ..Profile::CLEAR };
    scenario("two_clients_share_a_server_and_not_an_address", Setup::link(profile).clients(2), |topology| {
        let services = Services::start(topology, 20 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        for (n, client) in (0..).zip(&topology.clients) {
            vpn.up(topology, usize::from(n), "")?;
            let addresses = client.ip("-o address show dev vpn0")?;
            let (v4, v6) = tunnel_client(n);
            ensure!(
                addresses.contains(&format!("{v4}/")) && addresses.contains(&format!("{v6}/")),
                "{addresses}"
            );
        }
        let downloads = topology
            .clients
            .iter()
            .map(|client| services.start_download(client, TARGET, LIMIT))
            .collect::<Result<Vec<_>>>()?;
        for (client, download) in topology.clients.iter().zip(downloads) {
            services.finish_download(client, download, LIMIT)?;
            services.upload(client, TARGET, LIMIT)?;
            ensure!(services::seen_from(client, TARGET, LIMIT)? == SERVER_BACK);
            ensure!(services::ping(client, TARGET, 5)?.0 > 0.5, "{} gets no answers", client.role());
        }
        // One leaves, the other does not notice.
        vpn.down(topology, 0)?.expect_code(0)?;
        services.download(&topology.clients[1], TARGET, LIMIT)?;
        vpn.down(topology, 1)?.expect_code(0)?;
        Ok(())
    });
}
