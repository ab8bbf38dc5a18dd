//! Datagrams that fit no packet of the tunnel, and what senders are told of its size.
//!
//! ```text
//!   client ──[ 40 ms ]── router ── server ── target
//!     ping -s 3000, ping -M do, dig                  dnsmasq
//! ```

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{TARGET, TARGET_V6, tunnel_client};
use netns_tests::emulator::Profile;
use netns_tests::node::Node;
use netns_tests::process::Finished;
use netns_tests::services::{self, BIG_NAME};
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn a_ping_larger_than_the_path_is_answered() {
    datagrams("a_ping_larger_than_the_path_is_answered", |tunnel| {
        let (client, server) = (tunnel.client(), &tunnel.topology.server);
        for host in [IpAddr::from(TARGET), IpAddr::from(TARGET_V6)] {
            answered(client, host, 56).context("a small ping")?;
            answered(server, host, LARGE).context("beside the tunnel")?;
        }
        // The first: a kernel that was told of a smaller path would send the next in pieces …
        answered(client, TARGET.into(), LARGE).context("a ping larger than the path of the tunnel")?;
        // … as it must with IPv6, whose packets no router cuts: the first is answered with "too big".
        ping(client, TARGET_V6.into(), LARGE, "dont")?.expect_code(1)?.expect_text("Packet too big")?;
        // So may the first answer be.
        ping(client, TARGET_V6.into(), LARGE, "dont -i 0.3 -c 5")?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn a_name_with_a_large_answer_is_resolved_by_udp() {
    datagrams("a_name_with_a_large_answer_is_resolved_by_udp", |tunnel| {
        services::dig(tunnel.client(), 3).context("a small answer")?;
        large_answer(&tunnel.topology.server).context("beside the tunnel")?;
        large_answer(tunnel.client()).context("a large answer through the tunnel")
    });
}

#[test]
fn an_app_that_asks_how_large_its_packets_may_be_is_told() {
    datagrams("an_app_that_asks_how_large_its_packets_may_be_is_told", |tunnel| {
        wait::until("packets as large as the path carries", LIMIT, || {
            Ok((tunnel.vpn.tunnel(tunnel.client())?["carriers"][0]["path_mtu"] == 1500).then_some(()))
        })?;
        let (address, address_v6) = tunnel_client(0);
        let (client, server) = (tunnel.client(), &tunnel.topology.server);
        for (node, host) in [
            (client, IpAddr::from(TARGET)),
            (client, IpAddr::from(TARGET_V6)),
            (server, IpAddr::from(address)),
            (server, IpAddr::from(address_v6)),
        ] {
            let headers = if host.is_ipv4() { 28 } else { 48 };
            // The first is answered by us, the second by the kernel, which has learned it.
            for _ in 0..2 {
                let told = ping(node, host, 1500 - headers, "do")?.expect_code(1)?;
                let text = format!("{}{}", told.stdout, told.stderr);
                let told = ["mtu=", "mtu = ", "mtu: "].map(|word| format!("{word}{INNER}"));
                ensure!(told.iter().any(|told| text.contains(told)), "{text}");
            }
            ping(node, host, INNER - headers, "do")?.expect_code(0).context("what fits")?;
        }
        Ok(())
    });
}

/// One ping with so many bytes, in pieces where it must be.
fn answered(node: &Node, host: IpAddr, size: usize) -> Result<()> {
    ping(node, host, size, "dont")?.expect_code(0)?;
    Ok(())
}

fn ping(node: &Node, host: IpAddr, size: usize, cutting: &str) -> Result<Finished> {
    let words = format!("-n -c 1 -W 2 -M {cutting} -s {size} {host}");
    node.program("ping")?.words(&words).run(LIMIT)
}

/// An answer in one datagram of several packets.
fn large_answer(node: &Node) -> Result<()> {
    let words = format!("{BIG_NAME} TXT +notcp +ignore +bufsize=4096 +time=2 +tries=1");
    let answer = services::dig_with(node, TARGET, &words)?;
    ensure!(answer.stdout.matches('x').count() > 3000, "{} bytes", answer.stdout.len());
    Ok(())
}

fn datagrams(name: &str, body: impl FnOnce(&mut Tunnel<'_>) -> Result<()>) {
    let line = Setup::link(Profile { delay: Duration::from_millis(20), ..Profile::CLEAR });
    tunnel_scenario(name, line, 1, body);
}

/// What no packet of the tunnel holds whole.
const LARGE: usize = 3000;

/// What one holds over a path of 1500 bytes: without IP, TCP, the seal and a frame's header.
const INNER: usize = 1500 - 40 - 24 - 3;
