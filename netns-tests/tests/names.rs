//! The server's name: remembered for the day without DNS, and asked again when the server has moved.
//!
//! ```text
//!   client ── router ── server ── target
//!     resolver              198.51.100.2, then 198.51.100.3
//! ```

use std::net::Ipv4Addr;

use anyhow::ensure;
use netns_tests::addresses::{SERVER, SERVER_V6, TARGET};
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};

#[test]
fn a_tunnel_comes_up_without_dns_by_what_it_remembers() {
    named("a_tunnel_comes_up_without_dns_by_what_it_remembers", |topology, vpn| {
        let path = vpn.client_path(0);
        let resolver = services::start_resolver(topology.client(), NAME, &[SERVER_V6.into(), SERVER.into()])?;
        vpn.up(topology, 0, "")?;
        vpn.down(topology, 0)?.expect_code(0)?;
        drop(resolver);
        let up = vpn.try_up(topology.client(), &path, "")?.expect_code(0)?;
        up.expect_text("using the addresses it had last")?;
        vpn.down(topology, 0)?.expect_code(0)?;
        // What is damaged is as good as nothing: the name is named.
        topology.client().program("tee")?.arg("/var/lib/vpn/client.client.json").input("{").output()?;
        let failed = vpn.try_up(topology.client(), &path, "")?.expect_code(4)?;
        failed.expect_text(&format!("the server's name {NAME} cannot be resolved"))?;
        topology.client().run("rm -r /var/lib/vpn")?;
        Ok(())
    });
}

#[test]
fn a_server_that_moved_in_an_outage_is_found_by_its_name() {
    named("a_server_that_moved_in_an_outage_is_found_by_its_name", |topology, vpn| {
        let _services = Services::start(topology, 1 << 20)?;
        let resolver = services::start_resolver(topology.client(), NAME, &[SERVER.into()])?;
        vpn.up(topology, 0, "")?;
        drop(resolver);
        let _resolver = services::start_resolver(topology.client(), NAME, &[SECOND.into()])?;
        topology.move_server(SECOND)?;
        let moved = |_: &str, remote: &str| remote == format!("{SECOND}:{PORT}");
        vpn.wait_for_carrier(topology.client(), "a carrier to the new address", moved)?;
        ensure!(services::ping(topology.client(), TARGET, 3)?.0 > 0.5, "pings do not pass");
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

/// Runs `body` with a server that the client knows by its name.
fn named(name: &str, body: impl FnOnce(&Topology, &Vpn) -> anyhow::Result<()>) {
    scenario(name, Setup::PLAIN, |topology| {
        let vpn = Vpn::prepare(topology)?;
        let config = vpn.client_config(0, "").replace(&format!("{SERVER}:"), &format!("{NAME}:"));
        vpn.write("client0/client.toml", &config)?;
        let _serve = vpn.serve(topology)?;
        body(topology, &vpn)
    });
}

const NAME: &str = "server.test";

/// The server's other address.
const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
