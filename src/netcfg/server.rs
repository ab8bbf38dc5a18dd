//! A server's host: addresses on the TUN, forwarding, masquerading.
//!
//! Forwarding is set for all interfaces: which one leads out may change, and IPv6 has no working switch for one interface on
//! the kernels we support. A host that forwards IPv6 ignores router advertisements and at once loses the default route that
//! it learned from them, unless `accept_ra` is 2; so interfaces that listen to them (1) are set to 2 first. Both switches drag
//! other parameters along, which are written down before and restored after.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ipnetwork::IpNetwork;

use super::{
    change::Change,
    journal::Journal,
    netlink::Netlink,
    nft,
    plan::{ServerPlan, check_interface},
    sysctl::{self, IPV4_CONF, IPV6_CONF},
};

/// Sets the host up for a server whose TUN device is there and up. Returns notes for the user: what was left out and why.
///
/// # Errors
/// What failed, in one sentence; then undo the journal.
pub async fn apply_server(plan: &ServerPlan, journal: &mut Journal) -> Result<Vec<String>> {
    check_interface(&plan.interface)?;
    let mut notes = Vec::new();
    let netlink = Netlink::open()?;
    let has_ipv6 = sysctl::is_ipv6_enabled(&plan.interface)?;
    if !has_ipv6 && plan.addresses.iter().any(IpNetwork::is_ipv6) {
        notes.push("IPv6 is disabled on this host: the tunnel carries IPv4 only".to_owned());
    }
    let addresses: Vec<_> =
        plan.addresses.iter().copied().filter(|address| has_ipv6 || address.is_ipv4()).collect();
    if addresses.iter().any(IpNetwork::is_ipv6) {
        sysctl::write(&Path::new(IPV6_CONF).join(&plan.interface).join("disable_ipv6"), "0")?;
    }
    for address in &addresses {
        netlink.add_address(plan.index, *address, true).await?;
    }
    if addresses.iter().any(IpNetwork::is_ipv4) {
        forward(IPV4_CONF, &["accept_redirects"], &plan.interface, journal)?;
    }
    if addresses.iter().any(IpNetwork::is_ipv6) {
        keep_router_advertisements(&plan.interface, journal)?;
        forward(IPV6_CONF, &[], &plan.interface, journal)?;
    }
    if plan.masquerade {
        masquerade(plan, &addresses, journal)?;
    }
    Ok(notes)
}

/// Switches forwarding on for all interfaces, if it is off; `dragged` are parameters of `all` that the kernel changes with it.
fn forward(conf: &str, dragged: &[&str], own: &str, journal: &mut Journal) -> Result<()> {
    let all = Path::new(conf).join("all");
    let switch = all.join("forwarding");
    let Some(before) = sysctl::read(&switch)?.filter(|value| value != "1") else {
        return Ok(());
    };
    let mut snapshots: Vec<PathBuf> = dragged.iter().map(|name| all.join(name)).collect();
    snapshots.push(Path::new(conf).join("default/forwarding"));
    // Undone after the switch itself, because undoing goes backwards.
    let interfaces = sysctl::interfaces(conf)?.into_iter().filter(|folder| !folder.ends_with(own));
    snapshots.extend(interfaces.map(|folder| folder.join("forwarding")));
    for path in snapshots {
        if let Some(value) = sysctl::read(&path)? {
            journal.record(Change::SysctlSnapshot { path, value })?;
        }
    }
    set(&switch, &before, "1", journal)
}

fn keep_router_advertisements(own: &str, journal: &mut Journal) -> Result<()> {
    for folder in sysctl::interfaces(IPV6_CONF)? {
        let path = folder.join("accept_ra");
        if !folder.ends_with(own) && sysctl::read(&path)?.as_deref() == Some("1") {
            set(&path, "1", "2", journal)?;
        }
    }
    Ok(())
}

fn set(path: &Path, before: &str, after: &str, journal: &mut Journal) -> Result<()> {
    journal.record(Change::Sysctl {
        path: path.to_owned(),
        before: before.to_owned(),
        after: after.to_owned(),
    })?;
    sysctl::write(path, after).map(|_| ())
}

fn masquerade(plan: &ServerPlan, addresses: &[IpNetwork], journal: &mut Journal) -> Result<()> {
    ensure!(
        nft::is_installed(),
        "masquerading needs the program nft: install the package nftables, or set tunnel.masquerade = false"
    );
    journal.record(Change::NftTable { name: nft::table_name(&plan.interface) })?;
    nft::run(&nft::server_ruleset(&plan.interface, addresses, &plan.listen))
}
