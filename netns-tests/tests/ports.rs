//! A server on several ports, ranges of them and both versions of IP at once.
//!
//! ```text
//!   client ── router ── server: 0.0.0.0:443, 0.0.0.0:4000-4100, [::]:4100-4102
//! ```

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER, SERVER_V6};
use netns_tests::scenario::scenario;
use netns_tests::sockets;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};

const LISTEN: &str = "listen = [\"0.0.0.0:443\", \"0.0.0.0:4000-4100\", \"[::]:4100-4102\"]";

/// Where the server is, and where it is not.
const OPEN: [(bool, u16); 6] =
    [(true, 443), (true, 4000), (true, 4050), (true, 4100), (false, 4100), (false, 4102)];
const SHUT: [(bool, u16); 5] = [(true, 3999), (true, 4101), (false, 443), (false, 4099), (false, 4103)];

#[test]
fn a_server_on_several_ports_and_ranges_is_found_on_each() {
    scenario("a_server_on_several_ports_and_ranges_is_found_on_each", Setup::PLAIN, |topology| {
        let vpn = Vpn::prepare(topology)?;
        let config = vpn.server_config().replace(&format!("listen = [\"0.0.0.0:{PORT}\"]"), LISTEN);
        ensure!(config.contains(LISTEN), "{config}");
        vpn.write("server.toml", &config)?;
        let _serve = vpn.serve(topology)?;
        for (is_v4, port) in OPEN {
            let server = SocketAddr::new(address(is_v4), port).to_string();
            let config = vpn.client_config(0, "").replace(&format!("{SERVER}:{PORT}"), &server);
            std::fs::write(vpn.client_path(0), config)?;
            vpn.up(topology, 0, "")?;
            let remote = vpn.carrier(topology.client())?.map(|(_, remote)| remote);
            ensure!(remote.as_ref() == Some(&server), "{remote:?} instead of {server}");
            vpn.down(topology, 0)?.expect_code(0)?;
            // To a kernel it looks like any listener.
            sockets::connect(topology.client(), address(is_v4), port, LIMIT)?;
        }
        for (is_v4, port) in SHUT {
            expect_refused(topology, is_v4, port)?;
        }
        Ok(())
    });
}

/// Nobody holds this port: the kernel says so.
fn expect_refused(topology: &Topology, is_v4: bool, port: u16) -> Result<()> {
    let outcome = sockets::connect(topology.client(), address(is_v4), port, LIMIT);
    let refused = outcome.as_ref().err().and_then(|error| error.downcast_ref::<std::io::Error>());
    let is_refused = refused.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    ensure!(is_refused, "{}:{port}: {outcome:?}", address(is_v4));
    Ok(())
}

fn address(is_v4: bool) -> IpAddr {
    if is_v4 { SERVER.into() } else { SERVER_V6.into() }
}

const LIMIT: Duration = Duration::from_secs(10);
