//! Our own: a full tunnel, with nothing set but keys, addresses and what is measured.

use anyhow::Result;
use netns_tests::process::Process;
use netns_tests::topology::Topology;
use netns_tests::vpn::Vpn;

/// Starts both ends, the client with these lines in its `[tunnel]`; gives back whom to ask, and the server's process.
pub(crate) fn start(topology: &Topology, tunnel: &str) -> Result<(Vpn, Process)> {
    let vpn = Vpn::prepare(topology)?;
    vpn.write("client0/client.toml", &vpn.client_config(0, tunnel))?;
    let serve = vpn.serve(topology)?;
    vpn.up(topology, 0, "")?;
    Ok((vpn, serve))
}
