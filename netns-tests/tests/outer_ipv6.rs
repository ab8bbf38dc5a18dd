//! A server reached over IPv6: everything that works over IPv4 works there, too.
//!
//! ```text
//!   client ──[ 40 ms, IPv6 ]── router (strict conntrack) ── server [2001:db8:100::2]:443 ── target
//!     no IPv4 of its own
//! ```

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{
    SERVER, SERVER_BACK, SERVER_BACK_V6, SERVER_V6, TARGET, TARGET_V6, client, client_gateway, client_v6,
};
use netns_tests::emulator::Profile;
use netns_tests::host_state::HostState;
use netns_tests::process::Process;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 5 << 20;

fn link(loss: f64) -> Setup {
    Setup::link(Profile::long_line(50_000_000, Duration::from_millis(40), loss))
}

#[test]
fn a_full_tunnel_works_over_ipv6_alone() {
    scenario("a_full_tunnel_works_over_ipv6_alone", link(0.02), |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = prepare(topology)?;
        remove_ipv4(topology)?;
        be_strict(topology)?;
        let before = HostState::of(topology.client())?;
        let capture = topology.router.capture("server", "ip6 and tcp port 443")?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        for (host, seen_from) in
            [(IpAddr::from(TARGET), IpAddr::from(SERVER_BACK)), (TARGET_V6.into(), SERVER_BACK_V6.into())]
        {
            let seen = services::seen_from(topology.client(), host, LIMIT)?;
            ensure!(seen == seen_from, "{host} sees {seen}");
            services.download(topology.client(), host, LIMIT)?;
            services.upload(topology.client(), host, LIMIT)?;
            let (answered, _) = services::ping(topology.client(), host, 10)?;
            ensure!(answered >= 0.5, "{host} answered {answered} of the pings");
        }
        expect_ordinary_packets(&capture.finish_verbosely(&topology.router)?)?;
        let invalid = topology.router.run("nft list chain inet strict forward")?;
        ensure!(invalid.contains("packets 0 "), "the router found packets invalid: {invalid}");
        vpn.down(topology, 0)?.expect_code(0)?;
        before.expect_unchanged(topology.client())
    });
}

#[test]
fn a_download_survives_the_death_of_its_carrier_over_ipv6() {
    scenario("a_download_survives_the_death_of_its_carrier_over_ipv6", link(0.0), |topology| {
        let services = Services::start(topology, 2 * SIZE)?;
        let vpn = prepare(topology)?;
        remove_ipv4(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        services.download_through(topology.client(), TARGET, LIMIT, || {
            let killed = topology.link().kill_newest_tcp_flow()?;
            ensure!(
                killed.ends.iter().any(|end| end.ip() == SERVER_V6 && end.port() == PORT),
                "{killed:?} is not the carrier"
            );
            vpn.wait_for_carrier(topology.client(), "another carrier", |local, _| {
                !killed.ends.iter().any(|end| end.to_string() == local)
            })?;
            Ok(())
        })?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn a_download_moves_from_ipv6_to_ipv4_of_the_same_name() {
    scenario("a_download_moves_from_ipv6_to_ipv4_of_the_same_name", link(0.0), |topology| {
        let services = Services::start(topology, 2 * SIZE)?;
        let vpn = prepare(topology)?;
        let _resolver = start_resolver(topology)?;
        let config = vpn.client_config(0, "").replace(&format!("{SERVER}:"), &format!("{NAME}:"));
        vpn.write("client0/client.toml", &config)?;
        loses_ipv6_in_mid_download(topology, &services, &vpn)
    });
}

#[test]
fn a_client_takes_the_server_of_a_list_that_answers() {
    scenario("a_client_takes_the_server_of_a_list_that_answers", link(0.0), |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = prepare(topology)?;
        let list = format!("[\"[{NOBODY}]:{PORT}\", \"{SERVER}:{PORT}\"]");
        let config = vpn.client_config(0, "").replace(&format!("\"{SERVER}:{PORT}\""), &list);
        vpn.write("client0/client.toml", &config)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        services.download(topology.client(), TARGET_V6, LIMIT)?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn a_client_without_ipv6_takes_the_ipv4_address_of_a_name() {
    scenario("a_client_without_ipv6_takes_the_ipv4_address_of_a_name", link(0.0), |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = prepare(topology)?;
        let _resolver = start_resolver(topology)?;
        let config = vpn.client_config(0, "").replace(&format!("{SERVER}:"), &format!("{NAME}:"));
        vpn.write("client0/client.toml", &config)?;
        topology.client().ip(&format!("address del {}/64 dev eth0", client_v6(0)))?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        services.download(topology.client(), TARGET_V6, LIMIT)?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

/// Keys and configs; the server listens on both versions of IP, the client knows its IPv6 address only.
fn prepare(topology: &Topology) -> Result<Vpn> {
    let vpn = Vpn::prepare(topology)?;
    let listen = format!("[\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]");
    vpn.write("server.toml", &vpn.server_config().replace(&format!("[\"0.0.0.0:{PORT}\"]"), &listen))?;
    let config = vpn.client_config(0, "").replace(&format!("{SERVER}:"), &format!("[{SERVER_V6}]:"));
    vpn.write("client0/client.toml", &config)?;
    Ok(vpn)
}

/// Takes the client's IPv4 address away, and with it every route.
fn remove_ipv4(topology: &Topology) -> Result<()> {
    topology.client().ip(&format!("neighbour del {} dev eth0", client_gateway(0)))?;
    topology.client().ip(&format!("address del {}/24 dev eth0", client(0)))?;
    let left = topology.client().ip("-4 route show table main")?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

/// Has the router check the TCP of every packet it forwards: checksums, windows and the handshake, and drop what is wrong.
fn be_strict(topology: &Topology) -> Result<()> {
    let rules = "table inet strict { chain forward { type filter hook forward priority 0; ct state invalid counter drop; }; }";
    topology.router.program("nft")?.arg("-f").arg("-").input(rules).output()?;
    topology.router.set_sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")?;
    topology.router.set_sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "0")
}

/// The carrier's packets as tcpdump explains them: each with a flow label and a hop limit, small enough, none a RST.
fn expect_ordinary_packets(packets: &[String]) -> Result<()> {
    let headers = |part: &str| packets.iter().filter(|packet| packet.contains(part)).count();
    let ip = headers("next-header TCP (6)");
    ensure!(ip > 1000, "only {ip} packets were captured");
    ensure!(headers("Flags [S.]") > 0, "no handshake was captured");
    ensure!(headers("Flags [R") == 0, "a reset is on the wire");
    ensure!(headers("flowlabel 0x") == ip, "{} of {ip} packets have a flow label", headers("flowlabel 0x"));
    ensure!(headers("(incorrect") == 0, "{} of {ip} checksums are wrong", headers("(incorrect"));
    for header in packets.iter().filter(|packet| packet.contains("next-header TCP (6)")) {
        let payload = header.split("payload length: ").nth(1).and_then(|rest| rest.split(')').next());
        let length = payload.and_then(|length| length.parse::<u32>().ok()).unwrap_or(u32::MAX);
        ensure!(length <= 1460, "more than 1500 bytes: {header}");
    }
    Ok(())
}

fn loses_ipv6_in_mid_download(topology: &Topology, services: &Services, vpn: &Vpn) -> Result<()> {
    let _serve = vpn.serve(topology)?;
    vpn.up(topology, 0, "")?;
    let (_, remote) = vpn.carrier(topology.client())?.unwrap_or_default();
    ensure!(remote == format!("[{SERVER_V6}]:{PORT}"), "the carrier goes to {remote}");
    services.download_through(topology.client(), TARGET, LIMIT, || {
        topology.router.ip(&format!("route add blackhole {SERVER_V6}"))?;
        vpn.wait_for_carrier(topology.client(), "a carrier over IPv4", |_, remote| {
            remote == format!("{SERVER}:{PORT}")
        })?;
        Ok(())
    })?;
    vpn.down(topology, 0)?.expect_code(0)?;
    Ok(())
}

/// A resolver on the client that knows the server's name with both addresses.
fn start_resolver(topology: &Topology) -> Result<Process> {
    services::start_resolver(topology.client(), NAME, &[SERVER.into(), SERVER_V6.into()])
}

/// The server's name.
const NAME: &str = "server.test";

/// An address in the server's network that nobody has.
const NOBODY: &str = "2001:db8:100::77";
