//! What happens around a tunnel on its own host: others touch its device, its routes and its rules.
//!
//! ```text
//!   client ── router ── server ── target
//!     eth1 ─────┘
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER_BACK, TARGET, TARGET_V6};
use netns_tests::emulator::Profile;
use netns_tests::host_state::HostState;
use netns_tests::node::Node;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::Setup;
use netns_tests::vpn::Vpn;
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(20);
/// About as fast as the bare wire to the second router: the old carrier answers before the new one can.
const RTT: Duration = Duration::from_millis(1);

/// A second, and what a busy machine takes to ask.
const MOVED_WITHIN: Duration = Duration::from_millis(1500);

#[test]
fn what_others_take_away_of_the_tunnel_is_put_back() {
    scenario("what_others_take_away_of_the_tunnel_is_put_back", Setup::PLAIN, |topology| {
        let _services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        let client = topology.client();
        let before = HostState::of(client)?;
        vpn.up(topology, 0, "--exclude 192.0.2.77/32")?;
        let ours = routing(client)?;
        let table = table_of(client)?;
        for harm in [
            vec!["link set vpn0 down".to_owned(), "link set vpn0 up".to_owned()],
            vec![format!("-4 route flush table {table}"), format!("-6 route flush table {table}")],
            vec![format!("-4 rule del table {table}"), format!("-6 rule del table {table}")],
            vec!["address flush dev vpn0".to_owned()],
        ] {
            for line in &harm {
                client.ip(line)?;
            }
            wait::until(&format!("everything to be back after {harm:?}"), LIMIT, || {
                Ok((routing(client)? == ours).then_some(()))
            })?;
            ensure!(services::seen_from(client, TARGET, LIMIT)? == SERVER_BACK, "after {harm:?}");
        }
        // What was put back goes with the rest.
        vpn.down(topology, 0)?.expect_code(0)?;
        before.expect_unchanged(client)
    });
}

#[test]
fn a_download_moves_to_a_new_uplink_at_once() {
    let name = "a_download_moves_to_a_new_uplink_at_once";
    scenario(name, Setup::link(Profile::long_line(50_000_000, RTT, 0.0)), |topology| {
        let services = Services::start(topology, 10 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        let client = topology.client();
        topology.join((client, "eth1", "10.1.1.2/24"), ("second", "10.1.1.1/24"))?;
        vpn.up(topology, 0, "")?;
        services.download_through(client, TARGET, LIMIT, || {
            let begun = wait::now();
            client.ip("route replace default via 10.1.1.1 dev eth1")?;
            let moved = |local: &str, _: &str| local.starts_with("10.1.1.2:");
            vpn.wait_for_carrier(client, "a carrier by the new uplink", moved)?;
            let took = begun.elapsed();
            ensure!(took < MOVED_WITHIN, "the carrier moved after {took:?}");
            Ok(())
        })?;
        let tunnel = vpn.tunnel(client)?;
        ensure!(tunnel["migrated"]["last"] == "moved" && tunnel["flows"]["total"] != 0, "{tunnel}");
        ensure!(tunnel["network"] == "gateway 02:00:00:00:00:01", "{tunnel}");
        vpn.down(topology, 0)?.expect_code(0)?;
        // What won in this network is tried first the next time.
        let remembered = client.run("cat /var/lib/vpn/client.client.json")?;
        ensure!(
            remembered.contains("02:00:00:00:00:01") && remembered.contains("handshake+advance"),
            "{remembered}"
        );
        Ok(())
    });
}

/// Where packets go, and all that decides it.
fn routing(node: &Node) -> Result<Vec<String>> {
    let table = table_of(node).unwrap_or_default();
    let questions = [
        format!("route get {TARGET}"),
        format!("route get {TARGET_V6}"),
        format!("-4 route show table {table}"),
        format!("-6 route show table {table}"),
        "-4 rule show".to_owned(),
        "-6 rule show".to_owned(),
        "-brief -4 address show dev vpn0".to_owned(),
        "-brief -6 address show dev vpn0 scope global".to_owned(),
    ];
    // A question that is not answered, because there is no such table, is an answer, too.
    Ok(questions.iter().map(|question| node.ip(question).unwrap_or_default()).collect())
}

/// The tunnel's routing table, as its rule names it.
fn table_of(node: &Node) -> Result<String> {
    let rules = node.ip("-4 rule show")?;
    let words = rules.lines().find(|line| line.contains("fwmark")).unwrap_or_default().split_whitespace();
    let table = words.skip_while(|word| *word != "lookup").nth(1).unwrap_or_default().to_owned();
    ensure!(!table.is_empty(), "no rule of the tunnel: {rules}");
    Ok(table)
}
