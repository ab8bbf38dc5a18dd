//! Every packet of a whole session, from `up` to `down`, as a router on the way sees it: no reset, and every checksum right.
//!
//! ```text
//!   client ──[ 20 ms, 1 % loss ]── (tcpdump -vv) router (tcpdump -vv) ── server ── target
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::TARGET;
use netns_tests::emulator::{Loss, Profile};
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
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
        let fins = capture.finish(&topology.router, "tcp[tcpflags] & tcp-fin != 0")?;
        ensure!(!fins.is_empty(), "no FIN was seen");
        Ok(())
    });
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
