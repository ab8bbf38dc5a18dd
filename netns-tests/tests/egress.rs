//! What clients may reach through the server: not the server itself, and what its administrator says.
//!
//! ```text
//!   client ──── router ──── server (:8080, itself) ── target (:8080, :8081)
//! ```

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netns_tests::addresses::{SERVER, SERVER_BACK, TARGET, TUNNEL_SERVER};
use netns_tests::scenario::scenario;
use netns_tests::sockets;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::Vpn;

const LIMIT: Duration = Duration::from_secs(10);
const PORT: u16 = 8080;
const DENIED: u16 = 8081;

#[test]
fn the_servers_own_services_are_not_for_its_clients() {
    scenario("the_servers_own_services_are_not_for_its_clients", Setup::PLAIN, |topology| {
        let _listeners = listen(topology)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        for address in [SERVER, SERVER_BACK, TUNNEL_SERVER] {
            expect_denied(topology, address, PORT)?;
        }
        expect_allowed(topology, TARGET, PORT)?;
        expect_allowed(topology, TARGET, DENIED)?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn the_administrator_allows_and_denies() {
    scenario("the_administrator_allows_and_denies", Setup::PLAIN, |topology| {
        let _listeners = listen(topology)?;
        let vpn = Vpn::prepare(topology)?;
        let egress =
            format!("[egress]\nallow = [\"{SERVER}/32:{PORT}\"]\ndeny = [\"{TARGET}/32:{DENIED}\"]\n");
        vpn.write("server.toml", &vpn.server_config().replacen("[[peer]]", &(egress + "[[peer]]"), 1))?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        expect_allowed(topology, SERVER, PORT)?;
        expect_denied(topology, SERVER_BACK, PORT)?;
        expect_allowed(topology, TARGET, PORT)?;
        expect_denied(topology, TARGET, DENIED)?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

fn listen(topology: &Topology) -> Result<Vec<std::net::TcpListener>> {
    let mut listeners = vec![sockets::listen(&topology.server, Ipv4Addr::UNSPECIFIED, PORT)?];
    // The server reaches itself: what a client sees is the policy, and not a closed port.
    for address in [SERVER, SERVER_BACK] {
        sockets::connect(&topology.server, address, PORT, LIMIT)?;
    }
    for port in [PORT, DENIED] {
        listeners.push(sockets::listen(&topology.target, TARGET, port)?);
    }
    Ok(listeners)
}

fn expect_allowed(topology: &Topology, host: impl Into<IpAddr>, port: u16) -> Result<()> {
    let host = host.into();
    sockets::connect(topology.client(), host, port, LIMIT).with_context(|| format!("{host}:{port}"))?;
    Ok(())
}

/// The app is told at once, as by a host that does not listen.
fn expect_denied(topology: &Topology, host: impl Into<IpAddr>, port: u16) -> Result<()> {
    let host = host.into();
    let Err(error) = sockets::connect(topology.client(), host, port, LIMIT) else {
        bail!("{host}:{port} was reached");
    };
    let error = error.downcast_ref::<std::io::Error>().context("not from connect")?;
    ensure!(error.kind() == ErrorKind::ConnectionRefused, "{host}:{port}: {error}");
    Ok(())
}
