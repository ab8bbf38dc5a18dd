//! Addresses change while data flows: the client's, the server's, and the whole uplink goes away for a while.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 40 ms ]── router ── server ── target
//!     10.0.1.2, then 10.0.1.77                  198.51.100.2, then 198.51.100.3
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::ensure;
use netns_tests::addresses::{SERVER, SERVER_V6, TARGET, client, client_gateway, client_v6};
use netns_tests::emulator::Profile;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::Setup;
use netns_tests::vpn::{PORT, Vpn};
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 10 << 20;

fn link() -> Setup {
    Setup::link(Profile::long_line(50_000_000, Duration::from_millis(40), 0.0))
}

#[test]
fn a_download_survives_a_new_address_and_port_of_the_client() {
    scenario("a_download_survives_a_new_address_and_port_of_the_client", link(), |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        let (old, _) = vpn.carrier(topology.client())?.unwrap_or_default();
        services.download_through(topology.client(), TARGET, LIMIT, || {
            // Nobody has the old address any more, and the router asks for whoever has it.
            topology.router.ip(&format!("neighbour del {} dev client0", client(0)))?;
            topology.client().ip(&format!("address del {}/24 dev eth0", client(0)))?;
            topology.client().ip("address add 10.0.1.77/24 dev eth0")?;
            topology.client().ip(&format!("route add default via {}", client_gateway(0)))?;
            let moved = |local: &str, _: &str| local.starts_with("10.0.1.77:");
            let (new, _) =
                vpn.wait_for_carrier(topology.client(), "a carrier from the new address", moved)?;
            ensure!(port_of(&new) != port_of(&old), "the port is still that of {old}");
            Ok(())
        })?;
        // Both ends agree on where the client is.
        let server = vpn.tunnel(&topology.server)?;
        let remote = server["peers"][0]["remote"].as_str().unwrap_or_default().to_owned();
        ensure!(remote.starts_with("10.0.1.77:"), "for the server the client is at {remote}");
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn a_download_survives_a_new_ipv6_address_of_the_client() {
    scenario("a_download_survives_a_new_ipv6_address_of_the_client", link(), |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare_for(topology, SERVER_V6)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        services.download_through(topology.client(), TARGET, LIMIT, || {
            // The kernel sends nothing from an IPv6 address that this host no longer has.
            topology.client().ip(&format!("address del {}/64 dev eth0", client_v6(0)))?;
            topology.client().ip("address add 2001:db8:1::77/64 dev eth0")?;
            let moved = |local: &str, _: &str| local.starts_with("[2001:db8:1::77]:");
            vpn.wait_for_carrier(topology.client(), "a carrier from the new address", moved)?;
            Ok(())
        })?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn a_download_survives_the_loss_of_one_of_the_servers_addresses() {
    scenario("a_download_survives_the_loss_of_one_of_the_servers_addresses", link(), |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        let _resolver = services::start_resolver(topology.client(), NAME, &[SERVER.into(), SECOND.into()])?;
        let config = vpn.client_config(0, "").replace(&format!("{SERVER}:"), &format!("{NAME}:"));
        vpn.write("client0/client.toml", &config)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        services.download_through(topology.client(), TARGET, LIMIT, || {
            topology.move_server(SECOND)?;
            let moved = |_: &str, remote: &str| remote == format!("{SECOND}:{PORT}");
            vpn.wait_for_carrier(topology.client(), "a carrier to the second address", moved)?;
            Ok(())
        })?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn a_download_survives_an_uplink_that_goes_down_and_comes_back() {
    scenario("a_download_survives_an_uplink_that_goes_down_and_comes_back", link(), |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        services.download_through(topology.client(), TARGET, LIMIT, || {
            topology.client().ip("link set eth0 down")?;
            wait::until("the client to notice", LIMIT, || {
                Ok((vpn.tunnel(topology.client())?["state"] == "recovering").then_some(()))
            })?;
            topology.client().ip("link set eth0 up")?;
            topology.client().ip(&format!("route add default via {}", client_gateway(0)))?;
            Ok(())
        })?;
        ensure!(services::ping(topology.client(), TARGET, 3)?.0 > 0.5, "pings do not pass");
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

fn port_of(end: &str) -> Option<&str> {
    end.rsplit_once(':').map(|(_, port)| port)
}

/// The server's other address.
const SECOND: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);

/// The name that has both.
const NAME: &str = "server.test";
