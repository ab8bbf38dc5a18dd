//! Our own: a full tunnel, with nothing set but keys and addresses.

use anyhow::Result;
use netns_tests::process::Process;
use netns_tests::topology::Topology;
use netns_tests::vpn::Vpn;

/// Starts both ends, with more lines at the end of both configs; gives back whom to ask, and the server's process.
pub(crate) fn start(topology: &Topology, config: &str) -> Result<(Vpn, Process)> {
    let vpn = Vpn::prepare(topology)?;
    vpn.write("server.toml", &format!("{}{config}", vpn.server_config()))?;
    std::fs::write(vpn.client_path(0), format!("{}{config}", vpn.client_config(0, "")))?;
    let serve = vpn.serve(topology)?;
    vpn.up(topology, 0, "")?;
    Ok((vpn, serve))
}
