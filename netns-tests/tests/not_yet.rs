//! What the documentation promises and later issues build; each is on the list of expected failures until then.
//!
//! ```text
//!   client ──[ 40 ms ]── router ── server ── target
//!     prefaces, several carriers, fast connects
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER, SERVER_BACK, TARGET};
use netns_tests::emulator::Profile;
use netns_tests::services::{self, Services};
use netns_tests::sockets;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};
use netns_tests::{firewall, scenario::scenario};

const LIMIT: Duration = Duration::from_secs(20);
const SIZE: usize = 1 << 20;

#[test]
fn a_preface_is_the_first_thing_on_the_wire() {
    let config = "[carrier]\npreface = \"http\"\npreface_host = \"example.org\"";
    configured("a_preface_is_the_first_thing_on_the_wire", config, |topology, vpn| {
        let capture = topology.router.capture("client0", &format!("tcp dst port {PORT}"))?;
        vpn.up(topology, 0, "")?;
        ensure!(services::seen_from(topology.client(), TARGET, LIMIT)? == SERVER_BACK);
        let first = capture.finish_first_data(&topology.router)?;
        ensure!(first.contains("Host: example.org"), "the connection begins with {first}");
        Ok(())
    });
}

#[test]
fn two_carriers_carry_at_once() {
    configured("two_carriers_carry_at_once", "[carrier]\ncarriers = 2", |topology, vpn| {
        vpn.up(topology, 0, "")?;
        let carriers = vpn.tunnel(topology.client())?["carriers"].clone();
        ensure!(carriers.as_array().is_some_and(|carriers| carriers.len() == 2), "{carriers}");
        Ok(())
    });
}

#[test]
fn a_server_listens_on_a_range_of_ports() {
    prepared("a_server_listens_on_a_range_of_ports", "", |topology, vpn| {
        let config = vpn.server_config().replace(&format!("0.0.0.0:{PORT}"), "0.0.0.0:4000-4003");
        vpn.write("server.toml", &config)?;
        let _serve = vpn.serve_on(topology, 4000)?;
        for port in ["4000", "4003", "4000-4003"] {
            let config =
                vpn.client_config(0, "").replace(&format!("{SERVER}:{PORT}"), &format!("{SERVER}:{port}"));
            vpn.write("client0/client.toml", &config)?;
            vpn.up(topology, 0, "")?;
            vpn.down(topology, 0)?.expect_code(0)?;
        }
        Ok(())
    });
}

#[test]
fn a_fast_connect_does_not_wait_for_the_target() {
    let config = "connect = \"fast\"";
    configured("a_fast_connect_does_not_wait_for_the_target", config, |topology, vpn| {
        vpn.up(topology, 0, "")?;
        let slow = Profile { delay: Duration::from_millis(500), ..Profile::CLEAR };
        topology.link().set_profiles([slow; 2])?;
        let begun = netns_tests::wait::now();
        sockets::connect(topology.client(), TARGET, services::HTTP_PORT, LIMIT)?;
        ensure!(begun.elapsed() < Duration::from_millis(500), "connected after {:?}", begun.elapsed());
        Ok(())
    });
}

/// Runs `body` with a running server and a client that has more lines in its config; as [`prepared`].
fn configured(name: &str, client: &str, body: impl FnOnce(&Topology, &Vpn) -> Result<()>) {
    prepared(name, client, |topology, vpn| {
        let _serve = vpn.serve(topology)?;
        body(topology, vpn)
    });
}

/// Runs `body` with a client that has more lines in its config, and services on the target; a router between them picks up
/// connections in their middle, but passes nothing invalid.
fn prepared(name: &str, client: &str, body: impl FnOnce(&Topology, &Vpn) -> Result<()>) {
    scenario(name, line(), |topology| {
        firewall::raise(&topology.router, true)?;
        let _services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        vpn.write("client0/client.toml", &vpn.client_config(0, client))?;
        body(topology, &vpn)
    });
}

fn line() -> Setup {
    Setup::link(Profile { delay: Duration::from_millis(20), ..Profile::CLEAR })
}
