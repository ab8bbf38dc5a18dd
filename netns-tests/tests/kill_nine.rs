//! `kill -9` of each end: what is left harms nobody, the next command removes it, and data flows again.
//!
//! ```text
//!   client ──[ 40 ms ]── router ── server ── target
//!     ✗ then                         ✗
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER_BACK, TARGET, client};
use netns_tests::emulator::Profile;
use netns_tests::host_state::HostState;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, PROGRAM, Vpn};
use netns_tests::wait;
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(60);

fn link() -> Setup {
    Setup::link(Profile { delay: Duration::from_millis(20), ..Profile::CLEAR })
}

#[test]
fn the_host_has_its_network_back_after_kill_nine_of_the_client() {
    scenario("the_host_has_its_network_back_after_kill_nine_of_the_client", link(), |topology| {
        let _services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        let before = HostState::of(topology.client())?;
        vpn.up(topology, 0, "")?;
        kill_client(topology, &vpn)?;
        // The device went with the process; rules that lead into an empty table lead nowhere.
        ensure!(services::seen_from(topology.client(), TARGET, LIMIT)? == client(0));
        vpn.down(topology, 0)?.expect_code(0)?;
        before.expect_unchanged(topology.client())
    });
}

#[test]
fn the_next_up_removes_what_kill_nine_left() {
    scenario("the_next_up_removes_what_kill_nine_left", link(), |topology| {
        let services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        let before = HostState::of(topology.client())?;
        vpn.up(topology, 0, "")?;
        let up = HostState::of(topology.client())?;
        kill_client(topology, &vpn)?;
        vpn.up(topology, 0, "")?;
        expect_same_rules(&up, topology)?;
        services.download(topology.client(), TARGET, LIMIT)?;
        ensure!(services::seen_from(topology.client(), TARGET, LIMIT)? == SERVER_BACK);
        vpn.down(topology, 0)?.expect_code(0)?;
        before.expect_unchanged(topology.client())
    });
}

#[test]
fn data_flows_again_after_kill_nine_of_the_server() {
    scenario("data_flows_again_after_kill_nine_of_the_server", link(), |topology| {
        let services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let before = HostState::of(&topology.server)?;
        let serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        services.download(topology.client(), TARGET, LIMIT)?;
        serve.signal(Signal::KILL)?;
        serve.finish(LIMIT)?;
        ensure!(!topology.server.is_listening(PORT)?, "the port is still taken");
        let serve = vpn.serve(topology)?;
        // The same `up` goes on: the client finds the new server by itself.
        wait::until("the client to use the new server", LIMIT, || {
            Ok(services::seen_from(topology.client(), TARGET, Duration::from_secs(5))
                .ok()
                .filter(|seen| *seen == SERVER_BACK))
        })?;
        services.download(topology.client(), TARGET, LIMIT)?;
        vpn.down(topology, 0)?.expect_code(0)?;
        serve.signal(Signal::TERM)?;
        serve.finish(LIMIT)?.expect_code(0)?;
        before.expect_unchanged(&topology.server)
    });
}

fn kill_client(topology: &Topology, vpn: &Vpn) -> Result<()> {
    ensure!(topology.client().signal_all(PROGRAM, Signal::KILL)? > 0, "no vpn runs in the background");
    vpn.wait_for_end(topology.client())?;
    // The kernel removes the device a moment after the process; who connects in between has its address for good.
    wait::until("the device to go with its process", LIMIT, || {
        Ok((!topology.client().ip("-brief link")?.contains("vpn0")).then_some(()))
    })
}

/// The second `up` stands alone: no rule, table or route of the first is beside its own.
fn expect_same_rules(first: &HostState, topology: &Topology) -> Result<()> {
    let second = HostState::of(topology.client())?;
    for question in ["ip rule", "ip -6 rule", "nft list ruleset"] {
        let count = |state: &HostState| state.answer(question).lines().count();
        ensure!(
            count(first) == count(&second),
            "{question}: {} lines, then {}",
            count(first),
            count(&second)
        );
    }
    Ok(())
}
