//! A download that something happens to while it is under way.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::services::Services;
use crate::topology::Topology;
use crate::vpn::Vpn;
use crate::wait;

/// Starts a download from `host` on the first client, does `harm` when a fifth of it has arrived, and checks that the same curl
/// gets the rest of the file.
///
/// # Errors
/// If something takes longer than a minute, `harm` fails, or the file is another.
pub fn download_through(
    topology: &Topology,
    services: &Services,
    host: impl Into<IpAddr>,
    harm: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let client = topology.client();
    let size = std::fs::metadata(services.file())?.len();
    let curl = services.start_download(client, host, LIMIT)?;
    wait::until("the download to be under way", LIMIT, || {
        Ok((services.downloaded(client) >= size / 5).then_some(()))
    })?;
    harm()?;
    services.finish_download(client, curl, LIMIT).context("after the harm")?;
    Ok(())
}

/// Waits until the first client's carrier in use is one that `is_wanted`, and gives back its ends, local and remote.
///
/// # Errors
/// If it is not after a minute.
pub fn wait_for_carrier(
    topology: &Topology,
    vpn: &Vpn,
    what: &str,
    is_wanted: impl Fn(&str, &str) -> bool,
) -> Result<(String, String)> {
    let mut last = None;
    let found = wait::until(what, LIMIT, || {
        last = carrier(topology, vpn)?;
        Ok(last.clone().filter(|(local, remote)| is_wanted(local, remote)))
    });
    found.with_context(|| format!("the carrier is {last:?}"))
}

/// The ends of the first client's carrier in use, local and remote; `None` while there is none.
///
/// # Errors
/// If `vpn status` fails.
pub fn carrier(topology: &Topology, vpn: &Vpn) -> Result<Option<(String, String)>> {
    let tunnel = vpn.tunnel(topology.client())?;
    let end = |which: &str| Some(tunnel["carriers"][0][which].as_str()?.to_owned());
    Ok(end("local").zip(end("remote")))
}

/// What anything here may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
