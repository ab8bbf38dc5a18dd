//! No tunnel: the kernels' TCP from the client to the target by the router.
//!
//! Which congestion control it uses is decided by the routes; a namespace could not choose one by sysctl that the host does not
//! allow to everybody, but it can by route.

use anyhow::Result;
use netns_tests::addresses::client_gateway;
use netns_tests::topology::Topology;

/// Makes both kernels use `congestion` between client and target.
pub(crate) fn use_congestion_control(topology: &Topology, congestion: &str) -> Result<()> {
    let gateway = client_gateway(0);
    topology.client().ip(&format!("route replace default via {gateway} congctl {congestion}"))?;
    topology.target.ip(&format!("route replace default via {ROUTER_AT_TARGET} congctl {congestion}"))?;
    Ok(())
}

/// Why the kernel has no BBR; asking for it loads its module, where there is one.
pub(crate) fn obstacle_to_bbr() -> Option<String> {
    let has_bbr = || {
        std::fs::read_to_string(AVAILABLE)
            .is_ok_and(|available| available.split_whitespace().any(|name| name == "bbr"))
    };
    if !has_bbr() {
        // Without the module or without modprobe there is no BBR, which is looked at next.
        drop(std::process::Command::new("modprobe").args(["-q", "tcp_bbr"]).status());
    }
    (!has_bbr()).then(|| "the kernel has no tcp_bbr".to_owned())
}

const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

/// The router, on the target's side.
const ROUTER_AT_TARGET: &str = "192.0.2.1";
