//! The kernel merges and cuts packets on their way, and leaves checksums to whoever is next; files are right all the same.
//!
//! ```text
//!   client eth0 ──── client0 router server ──── eth0 server ── target
//!      on, off, changed under a tunnel that is up
//! ```

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER, SERVER_V6, TARGET, TARGET_V6};
use netns_tests::node::Node;
use netns_tests::scenario::scenario;
use netns_tests::services::Services;
use netns_tests::topology::Setup;
use netns_tests::vpn::{PORT, Vpn};

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 10 << 20;

/// What the ends of a wire do: all that there is, nothing, and the mixed cases that drivers have.
const OFFLOADS: [&str; 5] = [
    "tso on gso on gro on tx on rx on",
    "tso off gso off gro off tx off rx off",
    "tso off gso on gro on tx on rx on",
    "tso off gso off gro on tx off rx on",
    "tso on gso on gro off tx on rx off",
];

#[test]
fn files_are_right_whatever_the_kernel_offloads() {
    scenario("files_are_right_whatever_the_kernel_offloads", Setup::PLAIN, |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        wait_for_more(topology.client())?;
        wait_for_more(&topology.server)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        for ends in OFFLOADS {
            for middle in [OFFLOADS[0], OFFLOADS[1]] {
                for (node, interface, offloads) in [
                    (topology.client(), "eth0", ends),
                    (&topology.server, "eth0", ends),
                    (&topology.router, "client0", middle),
                    (&topology.router, "server", middle),
                ] {
                    set_offloads(node, interface, offloads)?;
                }
                services.download(topology.client(), TARGET, LIMIT)?;
                services.upload(topology.client(), TARGET_V6, LIMIT)?;
            }
        }
        // A change that the carrier does not live through would end it nearly every time; on a busy machine, one may stall by itself.
        let migrations = vpn.migrations(topology.client())?;
        ensure!(migrations < OFFLOADS.len() as u64, "{migrations} migrations");
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn packets_that_the_receivers_kernel_has_merged_are_cut_again() {
    merged_packets_are_cut("packets_that_the_receivers_kernel_has_merged_are_cut_again", SERVER.into());
}

#[test]
fn packets_over_ipv6_that_the_receivers_kernel_has_merged_are_cut_again() {
    let name = "packets_over_ipv6_that_the_receivers_kernel_has_merged_are_cut_again";
    merged_packets_are_cut(name, SERVER_V6.into());
}

/// Files both ways through a tunnel to `server` while both ends receive what their kernels have merged.
fn merged_packets_are_cut(name: &str, server: IpAddr) {
    scenario(name, Setup::PLAIN, |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare_for(topology, server)?;
        for (sender, receiver) in [("client0", topology.client()), ("server", &topology.server)] {
            // A veth merges only what its other end sends one by one.
            set_offloads(&topology.router, sender, "tso off gso off tx off")?;
            set_offloads(receiver, "eth0", "gro on")?;
            wait_for_more(receiver)?;
        }
        let nodes = [(topology.client(), "src"), (&topology.server, "dst")];
        let large = format!("tcp port {PORT} and host {server} and greater 2000");
        let captures = nodes.map(|(node, _)| node.capture("eth0", &large));
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        services.download(topology.client(), TARGET, LIMIT)?;
        services.upload(topology.client(), TARGET, LIMIT)?;
        for (capture, (node, way)) in captures.into_iter().zip(nodes) {
            let merged = capture?.finish(node, &format!("{way} {server}"))?.len();
            ensure!(merged > 100, "{} has received only {merged} merged packets", node.role());
        }
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

/// Has the kernel wait for a fifth of a millisecond for more packets to merge: on an idle host each would come alone.
fn wait_for_more(receiver: &Node) -> Result<()> {
    for (file, value) in [("gro_flush_timeout", "200000"), ("napi_defer_hard_irqs", "2")] {
        let path = format!("/sys/class/net/eth0/{file}");
        receiver.program("tee")?.arg(path).input(value).output()?;
    }
    Ok(())
}

/// `offloads` are words as ethtool takes them.
fn set_offloads(node: &Node, interface: &str, offloads: &str) -> Result<()> {
    node.run(&format!("ethtool -K {interface} {offloads}"))?;
    Ok(())
}
