//! What is not ours: other hosts' connections to our port pass untouched, and strangers learn nothing.
//!
//! ```text
//!   client 1 ──┐                            ┌── vpn serve: SYN-ACK, then silence
//!              ├── router ── server (routes) ┤
//!   client 0 ──┘                            └── target: an ordinary server on the same port 443
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER, TARGET, TARGET_BACK, url};
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn another_hosts_connection_through_the_server_to_our_port_is_untouched() {
    let setup = Setup::PLAIN.clients(2);
    scenario("another_hosts_connection_through_the_server_to_our_port_is_untouched", setup, |topology| {
        let _services = Services::start(topology, 1 << 20)?;
        // The server is a router for client 1's way to the target's other address, where somebody listens on our port.
        topology.router.ip(&format!("route replace {TARGET_BACK} via {SERVER}"))?;
        topology.server.set_sysctl("net/ipv4/ip_forward", "1")?;
        let listener = format!("iperf3 -s -p {PORT}");
        let _iperf =
            topology.target.program("iperf3")?.words(listener.trim_start_matches("iperf3 ")).start()?;
        topology.target.wait_for_listener(PORT, LIMIT)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        let words = format!("-c {TARGET_BACK} -p {PORT} -n 20M");
        topology.clients[1].program("iperf3")?.words(&words).run(LIMIT)?.expect_code(0)?;
        topology.clients[1].program("iperf3")?.words(&words).arg("-R").run(LIMIT)?.expect_code(0)?;
        // And the tunnel still works beside it.
        services::seen_from(topology.client(), TARGET, LIMIT)?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn a_stranger_gets_a_syn_ack_and_nothing_else() {
    scenario("a_stranger_gets_a_syn_ack_and_nothing_else", Setup::PLAIN.clients(2), |topology| {
        let vpn = Vpn::prepare(topology)?;
        let serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        let capture = topology.router.capture("client1", &format!("tcp and src {SERVER}"))?;
        expect_silence(topology, "")?;
        expect_silence(topology, &"x".repeat(1000))?;
        let packets = capture.finish(&topology.router, "")?;
        ensure!(!packets.is_empty(), "not even a SYN-ACK");
        let other: Vec<_> = packets.iter().filter(|packet| !packet.contains("Flags [S.]")).collect();
        ensure!(other.is_empty(), "{other:#?}");
        let (_, log) = serve.logs()?;
        ensure!(log.lines().count() < 20, "strangers are logged: {log}");
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

/// An ordinary TCP client connects to our port, says `body`, and waits in vain.
fn expect_silence(topology: &Topology, body: &str) -> Result<()> {
    let limit = Duration::from_secs(2);
    let curl = services::curl(&topology.clients[1], &url(SERVER, PORT, "/"), limit)?.arg("--data").arg(body);
    let curl = curl.run(LIMIT)?.expect_code(28)?;
    ensure!(curl.stdout.is_empty(), "an answer: {}", curl.stdout);
    Ok(())
}
