//! Nothing is left at the end, whatever was taken away before: devices, the uplink, the whole host.
//!
//! ```text
//!   client ─┬─ router ── server ── target
//!   guest ──┘   all of them as before; the guest is gone
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER_BACK, TARGET, client, client_gateway, client_gateway_v6, client_v6};
use netns_tests::host_state::HostState;
use netns_tests::node::Node;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::Setup;
use netns_tests::vpn::{PROGRAM, Vpn};
use netns_tests::wait;
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_host_that_leaves_takes_everything_with_it() {
    scenario("a_host_that_leaves_takes_everything_with_it", Setup::PLAIN, |topology| {
        let _services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let serve = vpn.serve(topology)?;
        for ends_itself in [true, false] {
            let guest = topology.guest("guest")?;
            topology.join((&guest, "eth0", "10.0.9.2/24"), ("guest", "10.0.9.1/24"))?;
            guest.ip("route add default via 10.0.9.1")?;
            vpn.try_up(&guest, &vpn.client_path(0), "")?.expect_code(0)?;
            ensure!(services::seen_from(&guest, TARGET, LIMIT)? == SERVER_BACK);
            if ends_itself {
                vpn.program(&guest)?.arg("down").arg(vpn.client_path(0)).run(LIMIT)?.expect_code(0)?;
                ensure!(guest.pids_of(PROGRAM)?.is_empty(), "a vpn still runs on the guest");
            }
            drop(guest);
            // The kernel removes a wire when one of its ends goes, which is when nothing holds the namespace any more.
            wait::until("the guest's namespace to go", LIMIT, || {
                Ok((!topology.router.ip("-brief link")?.contains("guest")).then_some(()))
            })?;
        }
        end(serve)
    });
}

#[test]
fn a_client_whose_device_is_deleted_ends_and_undoes_everything() {
    scenario("a_client_whose_device_is_deleted_ends_and_undoes_everything", Setup::PLAIN, |topology| {
        let _services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let serve = vpn.serve(topology)?;
        let before = HostState::of(topology.client())?;
        vpn.up(topology, 0, "")?;
        topology.client().ip("link del vpn0")?;
        vpn.wait_for_end(topology.client())?;
        before.expect_unchanged(topology.client())?;
        ensure!(services::seen_from(topology.client(), TARGET, LIMIT)? == client(0));
        // And the next one works.
        vpn.up(topology, 0, "")?;
        ensure!(services::seen_from(topology.client(), TARGET, LIMIT)? == SERVER_BACK);
        vpn.down(topology, 0)?.expect_code(0)?;
        before.expect_unchanged(topology.client())?;
        end(serve)
    });
}

#[test]
fn a_server_whose_device_is_deleted_ends_and_undoes_everything() {
    scenario("a_server_whose_device_is_deleted_ends_and_undoes_everything", Setup::PLAIN, |topology| {
        let vpn = Vpn::prepare(topology)?;
        let before = HostState::of(&topology.server)?;
        let serve = vpn.serve(topology)?;
        topology.server.ip("link del vpns0")?;
        serve.finish(LIMIT)?.expect_code(1)?.expect_text("vpns0")?;
        before.expect_unchanged(&topology.server)
    });
}

#[test]
fn a_client_without_its_uplink_goes_down_as_cleanly() {
    scenario("a_client_without_its_uplink_goes_down_as_cleanly", Setup::PLAIN, |topology| {
        let vpn = Vpn::prepare(topology)?;
        let server = HostState::of(&topology.server)?;
        let serve = vpn.serve(topology)?;
        let before = HostState::of(topology.client())?;
        vpn.up(topology, 0, "")?;
        topology.client().ip("link set eth0 down")?;
        vpn.down(topology, 0)?.expect_code(0)?;
        bring_back(topology.client())?;
        before.expect_unchanged(topology.client())?;
        end(serve)?;
        server.expect_unchanged(&topology.server)
    });
}

/// The uplink as it was: with it the kernel has forgotten its IPv6 address and every route.
fn bring_back(client: &Node) -> Result<()> {
    client.ip("link set eth0 up")?;
    client.ip(&format!("address add {}/64 dev eth0", client_v6(0)))?;
    client.wait_for_interfaces()?;
    client.ip(&format!("route add default via {} congctl cubic", client_gateway(0)))?;
    client.ip(&format!("route add default via {} congctl cubic", client_gateway_v6(0)))?;
    Ok(())
}

fn end(serve: netns_tests::process::Process) -> Result<()> {
    serve.signal(Signal::TERM)?;
    serve.finish(LIMIT)?.expect_code(0)?;
    Ok(())
}
