//! The kernels keep quiet about a TCP connection that they know nothing of.
//!
//! ```text
//!   client ──[ 40 ms, 1 % loss ]── (tcpdump) router (tcpdump) ── server ── target
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::TARGET;
use netns_tests::emulator::{Loss, Profile};
use netns_tests::scenario::scenario;
use netns_tests::services::Services;
use netns_tests::topology::Setup;
use netns_tests::vpn::Vpn;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn no_reset_is_on_the_wire_while_both_ends_live() {
    let profile = Profile { delay: Duration::from_millis(20), loss: Loss::Random(0.01), ..Profile::CLEAR };
    scenario("no_reset_is_on_the_wire_while_both_ends_live", Setup::link(profile), |topology| {
        let services = Services::start(topology, 20 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let router = &topology.router;
        let captures = ["client0", "server"].map(|interface| router.capture(interface, RESET_OR_SYN));
        let captures = captures.into_iter().collect::<Result<Vec<_>>>()?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        services.download(topology.client(), TARGET, LIMIT)?;
        services.upload(topology.client(), TARGET, LIMIT)?;
        for capture in captures {
            let packets = capture.finish(router, "")?;
            let resets: Vec<_> = packets.iter().filter(|packet| packet.contains("Flags [R")).collect();
            ensure!(resets.is_empty(), "{resets:#?}");
            // The capture has seen the connection, so an empty list means something.
            ensure!(
                packets.iter().any(|packet| packet.contains("Flags [S.]")),
                "no handshake was captured: {packets:#?}"
            );
        }
        Ok(())
    });
}

const RESET_OR_SYN: &str = "tcp[tcpflags] & (tcp-rst|tcp-syn) != 0";
