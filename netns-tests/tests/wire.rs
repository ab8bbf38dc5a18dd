//! Every packet of a whole session, from `up` to `down`, as a router on the way sees it: no reset, and every checksum right.
//!
//! ```text
//!   client ──[ 20 ms, 1 % loss ]── (tcpdump -vv) router (tcpdump -vv) ── server ── target
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER, TARGET};
use netns_tests::emulator::{Loss, Profile};
use netns_tests::scenario::scenario;
use netns_tests::services::{self, IPERF_PORT, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn every_packet_of_a_session_has_right_checksums_and_none_is_a_reset() {
    let profile = Profile { delay: Duration::from_millis(10), loss: Loss::Random(0.01), ..Profile::CLEAR };
    let name = "every_packet_of_a_session_has_right_checksums_and_none_is_a_reset";
    scenario(name, Setup::link(profile), |topology| {
        let router = &topology.router;
        let filter = format!("tcp port {PORT}");
        let captures = ["client0", "server"].map(|interface| router.capture(interface, &filter));
        let captures = captures.into_iter().collect::<Result<Vec<_>>>()?;
        whole_session(topology)?;
        for capture in captures {
            expect_sound(&capture.finish_verbosely(router)?)?;
        }
        Ok(())
    });
}

#[test]
fn a_tunnel_that_is_taken_down_ends_its_connection_as_tcp_does() {
    let name = "a_tunnel_that_is_taken_down_ends_its_connection_as_tcp_does";
    scenario(name, Setup::PLAIN, |topology| {
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        let capture = topology.router.capture("client0", &format!("tcp port {PORT}"))?;
        vpn.up(topology, 0, "")?;
        vpn.down(topology, 0)?.expect_code(0)?;
        let packets = capture.finish(&topology.router, "")?;
        let flagged = |flags: &str| packets.iter().filter(|line| line.contains(flags)).count();
        ensure!(flagged("[F.]") == 2 && flagged("[R") == 0, "not a FIN each way: {packets:#?}");
        let last = packets.last().is_some_and(|line| line.contains("[.]"));
        ensure!(last, "the last FIN is not acknowledged: {packets:#?}");
        Ok(())
    });
}

#[test]
fn the_servers_syn_ack_is_what_the_kernel_answers_to_the_same_syn() {
    scenario("the_servers_syn_ack_is_what_the_kernel_answers_to_the_same_syn", Setup::PLAIN, |topology| {
        // As on the servers that ours resembles: the window's scale follows from it.
        topology.server.set_sysctl("net/ipv4/tcp_rmem", "4096 131072 33554432")?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        let _kernel = services::serve_iperf(&topology.server, SERVER)?;
        let ours = format!("\"{SERVER}:{PORT}\"");
        let both = format!("[{ours}, \"{SERVER}:{IPERF_PORT}\"]");
        let config = vpn.write("client0/both.toml", &vpn.client_config(0, "").replace(&ours, &both))?;
        let capture = topology.router.capture("client0", "tcp")?;
        vpn.program(topology.client())?.arg("probe").arg(config).run(LIMIT)?.expect_code(0)?;
        let lines = capture.finish_verbosely(&topology.router)?;
        let [ours, kernels] = [PORT, IPERF_PORT].map(|port| syn_acks(&lines, port));
        ensure!(!ours.is_empty() && ours == kernels, "ours {ours:#?}, the kernel's {kernels:#?}");
        Ok(())
    });
}

/// The SYN-ACKs from this port, without what is drawn for each connection; each that looks the same once.
fn syn_acks(lines: &[String], port: u16) -> BTreeSet<String> {
    let from = format!("{SERVER}.{port} > ");
    let answers =
        lines.windows(2).filter(|pair| pair[1].trim().starts_with(&from) && pair[1].contains("[S.]"));
    let seen = answers.filter_map(|pair| {
        let (_, header) = pair[0].split_once(" IP ")?;
        let (_, window) = pair[1].split_once(", win ")?;
        Some(format!("{header} {window}"))
    });
    seen.collect()
}

fn whole_session(topology: &Topology) -> Result<()> {
    let services = Services::start(topology, 2 << 20)?;
    let vpn = Vpn::prepare(topology)?;
    let serve = vpn.serve(topology)?;
    vpn.up(topology, 0, "")?;
    services.download(topology.client(), TARGET, LIMIT)?;
    services.upload(topology.client(), TARGET, LIMIT)?;
    services::dig(topology.client(), 3)?;
    services::ping(topology.client(), TARGET, 5)?;
    vpn.down(topology, 0)?.expect_code(0)?;
    serve.signal(rustix::process::Signal::TERM)?;
    serve.finish(LIMIT)?.expect_code(0)?;
    Ok(())
}

/// tcpdump prints two lines for a packet, the second with the flags and what it found of the TCP checksum.
fn expect_sound(lines: &[String]) -> Result<()> {
    let packets = lines.iter().filter(|line| line.contains("Flags ["));
    let (sound, unsound): (Vec<_>, Vec<_>) = packets.partition(|line| line.contains("(correct)"));
    ensure!(unsound.is_empty(), "TCP checksums: {unsound:#?}");
    let headers: Vec<_> = lines.iter().filter(|line| line.contains("bad cksum")).collect();
    ensure!(headers.is_empty(), "IP checksums: {headers:#?}");
    let resets: Vec<_> = sound.iter().filter(|line| line.contains("Flags [R")).collect();
    ensure!(resets.is_empty(), "{resets:#?}");
    ensure!(sound.len() > 2000, "only {} packets were captured", sound.len());
    Ok(())
}
