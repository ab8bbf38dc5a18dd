//! A scenario that begins with a tunnel that is up and a target that has a file.

use std::time::Duration;

use anyhow::Result;

use crate::addresses::TARGET;
use crate::node::Node;
use crate::process::{Finished, Process};
use crate::scenario::scenario;
use crate::services::Services;
use crate::topology::{Setup, Topology};
use crate::vpn::Vpn;

/// What runs when the body of the scenario begins.
#[derive(Debug)]
pub struct Tunnel<'a> {
    /// The network.
    pub topology: &'a Topology,
    /// What the target offers.
    pub services: Services,
    /// The program under test.
    pub vpn: Vpn,
    /// The running `vpn serve`.
    pub serve: Process,
}

/// Runs `body` as a [`scenario`] with a file of `size` bytes on the target and the tunnel of the first client up; takes the
/// tunnel down after it.
///
/// # Panics
/// As [`scenario`].
pub fn tunnel_scenario(
    name: &str,
    setup: Setup,
    size: usize,
    body: impl FnOnce(&mut Tunnel<'_>) -> Result<()>,
) {
    scenario(name, setup, |topology| {
        let services = Services::start(topology, size)?;
        let vpn = Vpn::prepare(topology)?;
        let serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "")?;
        let mut tunnel = Tunnel { topology, services, vpn, serve };
        body(&mut tunnel)?;
        tunnel.vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

impl Tunnel<'_> {
    /// The first client, whose tunnel is up.
    #[must_use]
    pub fn client(&self) -> &Node {
        self.topology.client()
    }

    /// Fetches the target's file through the tunnel and compares its checksum.
    ///
    /// # Errors
    /// If it cannot be fetched, or is another.
    pub fn download(&self) -> Result<Finished> {
        self.services.download(self.client(), TARGET, LIMIT)
    }

    /// Puts the file to the target through the tunnel and compares its checksum.
    ///
    /// # Errors
    /// If it cannot be put, or another arrives.
    pub fn upload(&self) -> Result<Finished> {
        self.services.upload(self.client(), TARGET, LIMIT)
    }

    /// Starts a download and waits until its first `size` bytes have arrived.
    ///
    /// # Errors
    /// If they do not.
    pub fn begin_download(&self, size: u64) -> Result<Process> {
        let curl = self.services.start_download(self.client(), TARGET, LIMIT)?;
        self.services.wait_for_download(self.client(), size, LIMIT)?;
        Ok(curl)
    }

    /// Does `harm` when a fifth of a download has arrived; the same curl gets the rest, and the checksum is right.
    ///
    /// # Errors
    /// If `harm` fails, or the download.
    pub fn download_through(&self, harm: impl FnOnce() -> Result<()>) -> Result<Finished> {
        self.services.download_through(self.client(), TARGET, LIMIT, harm)
    }
}

/// A minute and a half: a file takes seconds, a blackout half a minute, and the machine may be busy.
const LIMIT: Duration = Duration::from_secs(90);
