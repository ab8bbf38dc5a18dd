//! Who may be the source and who the destination of a packet inside the tunnel.
//!
//! ```text
//!   client ══ tunnel ══ server ── (tcpdump) target
//!     10.77.0.2, and 10.99.0.1 of its own          10.77.0.99: nobody
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER_BACK, TARGET, TARGET_V6, tunnel_client};
use netns_tests::node::Node;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::Setup;
use netns_tests::vpn::Vpn;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_foreign_source_becomes_the_clients_own_or_does_not_pass() {
    scenario("a_foreign_source_becomes_the_clients_own_or_does_not_pass", Setup::PLAIN, |topology| {
        let _services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        let client = topology.client();
        for foreign in [FOREIGN, FOREIGN_V6] {
            client.ip(&format!("address add {foreign} dev lo"))?;
        }
        // Masqueraded by the tunnel's own table: a container's packets work like this.
        ping_from(client, FOREIGN, &TARGET.to_string())?.expect_code(0)?;
        ping_from(client, FOREIGN_V6, &TARGET_V6.to_string())?.expect_code(0)?;
        ensure!(services::seen_from(client, TARGET, LIMIT)? == SERVER_BACK);
        // Without the table they are refused and counted, and nobody behind the tunnel sees them.
        let before = drops(&vpn, client, "inner")?;
        let capture = topology.target.capture("eth1", "icmp or icmp6")?;
        client.run("nft delete table inet vpn-vpn0")?;
        client.run("conntrack -F")?;
        ping_from(client, FOREIGN, &TARGET.to_string())?.expect_code(1)?;
        ping_from(client, FOREIGN_V6, &TARGET_V6.to_string())?.expect_code(1)?;
        let counted = drops(&vpn, client, "inner")? - before;
        ensure!(counted >= 6, "{counted} of 6 pings were counted");
        ping_from(client, &tunnel_client(0).0.to_string(), &TARGET.to_string())?.expect_code(0)?;
        let seen = capture.finish(&topology.target, "icmp[icmptype] == icmp-echo")?;
        ensure!(seen.len() == 3, "the target was pinged by others than the tunnel: {seen:#?}");
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn a_packet_to_a_tunnel_address_of_nobody_is_counted_and_sent_to_nobody() {
    let name = "a_packet_to_a_tunnel_address_of_nobody_is_counted_and_sent_to_nobody";
    scenario(name, Setup::PLAIN.clients(2), |topology| {
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        let capture = topology.client().capture("vpn0", "icmp or icmp6")?;
        let before = drops(&vpn, &topology.server, "unrouted")?;
        // The second client is known, but not there; of the others nobody has ever heard.
        let (absent, absent_v6) = tunnel_client(1);
        for address in
            [absent.to_string(), absent_v6.to_string(), "10.77.0.99".to_owned(), "fd77::99".to_owned()]
        {
            ping_from(&topology.server, "vpns0", &address)?.expect_code(1)?;
        }
        let counted = drops(&vpn, &topology.server, "unrouted")? - before;
        ensure!(counted >= 12, "{counted} of 12 pings were counted");
        let (present, present_v6) = tunnel_client(0);
        ping_from(&topology.server, "vpns0", &present.to_string())?.expect_code(0)?;
        ping_from(&topology.server, "vpns0", &present_v6.to_string())?.expect_code(0)?;
        let strangers = format!("not host {present} and not host {present_v6}");
        let seen = capture.finish(topology.client(), &strangers)?;
        ensure!(seen.is_empty(), "the client was sent {seen:#?}");
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

/// Three pings from an address or an interface.
fn ping_from(node: &Node, source: &str, destination: &str) -> Result<netns_tests::process::Finished> {
    node.program("ping")?.words(&format!("-n -q -c 3 -i 0.05 -W 1 -I {source} {destination}")).run(LIMIT)
}

/// How many packets `vpn` on `node` has dropped for `reason`.
fn drops(vpn: &Vpn, node: &Node, reason: &str) -> Result<u64> {
    Ok(vpn.tunnel(node)?["drops"][reason].as_u64().unwrap_or(0))
}

/// An address of the client's that the server did not give it.
const FOREIGN: &str = "10.99.0.1";
/// The same in IPv6.
const FOREIGN_V6: &str = "fd99::1";
