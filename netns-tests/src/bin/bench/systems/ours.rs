//! Our own: a full tunnel, with nothing set but keys and addresses.

use anyhow::Result;
use netns_tests::process::Process;
use netns_tests::topology::Topology;
use netns_tests::vpn::Vpn;

/// Starts both ends; gives back whom to ask, and the server's process.
pub(crate) fn start(topology: &Topology) -> Result<(Vpn, Process)> {
    let vpn = Vpn::prepare(topology)?;
    let serve = vpn.serve(topology)?;
    vpn.up(topology, 0, "")?;
    Ok((vpn, serve))
}
