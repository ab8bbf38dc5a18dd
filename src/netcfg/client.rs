//! A client's host: traffic for the tunnel's routes goes into the TUN, our own packets and the excluded stay outside.
//!
//! wg-quick's recipe, for IPv4 and IPv6:
//!
//! ```text
//! P    lookup main suppress_prefixlength 0     the LAN and every other specific route (if `lan`)
//! P+1  not fwmark MARK lookup TABLE            routes into the TUN, `throw` for what is excluded
//! ```

use std::path::Path;

use anyhow::Result;
use ipnetwork::IpNetwork;

use super::{
    change::Change,
    journal::Journal,
    netlink::{Netlink, Rule, Target},
    nft,
    numbers::free_priorities,
    plan::{ClientPlan, check_interface},
    sysctl::{self, IPV4_CONF, IPV6_CONF},
};

/// Sets the host up for a client whose TUN device is there and up. Returns what was set up, and notes for the user: what was
/// left out and why.
///
/// # Errors
/// What failed, in one sentence; then undo the journal.
pub async fn apply_client(plan: &ClientPlan, journal: &mut Journal) -> Result<(ClientHost, Vec<String>)> {
    check_interface(&plan.interface)?;
    let mut notes = Vec::new();
    let netlink = Netlink::open()?;
    let has_ipv6 = enable_ipv6(plan, &mut notes)?;
    let is_usable = |network: &IpNetwork| has_ipv6 || network.is_ipv4();

    let mut routes = Routes::of(plan);
    routes.throw.retain(is_usable);
    routes.device.retain(is_usable);
    let addresses = plan.addresses.iter().copied().filter(is_usable).collect();
    let rules = rules(plan, has_ipv6, &netlink).await?;
    let host = ClientHost { index: plan.index, table: plan.table, addresses, routes, rules };

    host.add_addresses(&netlink).await?;
    // Answers may come from anywhere; the default of many distributions is strict, which would drop them.
    sysctl::write(&Path::new(IPV4_CONF).join(&plan.interface).join("rp_filter"), "2")?;
    for network in &host.routes.throw {
        journal.record(Change::ThrowRoute { table: plan.table, network: *network })?;
    }
    host.add_routes(&netlink).await?;
    masquerade(plan, journal, &mut notes)?;
    for rule in &host.rules {
        journal.record(Change::Rule(*rule))?;
    }
    host.add_rules(&netlink).await?;
    Ok((host, notes))
}

/// What a client has on the host besides its device, to be put back when somebody takes it away. All of it is in the journal,
/// or goes with the device.
#[derive(Debug)]
pub struct ClientHost {
    index: u32,
    table: u32,
    addresses: Vec<IpNetwork>,
    routes: Routes,
    rules: Vec<Rule>,
}

impl ClientHost {
    /// Puts back what is missing and says how many things that were: none while the device is down, which keeps neither routes
    /// nor IPv6 addresses.
    ///
    /// # Errors
    /// What could not be put back, in one sentence.
    pub async fn restore(&self) -> Result<usize> {
        let netlink = Netlink::open()?;
        if !netlink.is_up(self.index).await? {
            return Ok(0);
        }
        let addresses = self.add_addresses(&netlink).await?;
        let routes = self.add_routes(&netlink).await?;
        Ok(addresses + routes + self.add_rules(&netlink).await?)
    }

    async fn add_addresses(&self, netlink: &Netlink) -> Result<usize> {
        let mut added = 0;
        for address in &self.addresses {
            added += usize::from(netlink.add_address(self.index, *address, false).await?);
        }
        Ok(added)
    }

    async fn add_routes(&self, netlink: &Netlink) -> Result<usize> {
        let mut added = 0;
        for network in &self.routes.throw {
            added += usize::from(netlink.add_route(self.table, *network, Target::Throw).await?);
        }
        for network in &self.routes.device {
            added += usize::from(netlink.add_route(self.table, *network, Target::Device(self.index)).await?);
        }
        Ok(added)
    }

    async fn add_rules(&self, netlink: &Netlink) -> Result<usize> {
        let mut added = 0;
        for rule in &self.rules {
            added += usize::from(netlink.add_rule(*rule).await?);
        }
        Ok(added)
    }
}

/// The routes of our table, each network once.
#[derive(Debug, PartialEq, Eq)]
struct Routes {
    throw: Vec<IpNetwork>,
    device: Vec<IpNetwork>,
}

impl Routes {
    fn of(plan: &ClientPlan) -> Self {
        let throw = unique(plan.exclude.iter());
        let mut device = unique(plan.routes.iter().chain(&plan.addresses));
        device.retain(|network| !throw.contains(network));
        Self { throw, device }
    }
}

/// Host bits cleared, sorted, without doubles.
fn unique<'a>(networks: impl Iterator<Item = &'a IpNetwork>) -> Vec<IpNetwork> {
    let cleared = networks.filter_map(|network| IpNetwork::new(network.network(), network.prefix()).ok());
    let mut unique: Vec<_> = cleared.collect();
    unique.sort_unstable();
    unique.dedup();
    unique
}

/// Says whether IPv6 is used here, and switches it on for our own device if a default took it away.
fn enable_ipv6(plan: &ClientPlan, notes: &mut Vec<String>) -> Result<bool> {
    let mut wanted = plan.addresses.iter().chain(&plan.routes).filter(|network| network.is_ipv6());
    let is_wanted = wanted.next().is_some();
    if !sysctl::is_ipv6_enabled(&plan.interface)? {
        if is_wanted {
            notes.push("IPv6 is disabled on this host: the tunnel carries IPv4 only".to_owned());
        }
        return Ok(false);
    }
    if is_wanted {
        // Without it IPv6 would go on outside the tunnel.
        sysctl::write(&Path::new(IPV6_CONF).join(&plan.interface).join("disable_ipv6"), "0")?;
    }
    Ok(true)
}

fn masquerade(plan: &ClientPlan, journal: &mut Journal, notes: &mut Vec<String>) -> Result<()> {
    let name = nft::table_name(&plan.interface);
    let ruleset = nft::client_ruleset(&plan.interface, &plan.addresses);
    if !nft::is_installed() {
        notes.push(
            "nft is not installed: containers and other hosts behind this one cannot use the tunnel"
                .to_owned(),
        );
        return Ok(());
    }
    journal.record(Change::NftTable { name })?;
    if let Err(error) = nft::run(&ruleset) {
        notes.push(format!("containers and other hosts behind this one cannot use the tunnel: {error:#}"));
    }
    Ok(())
}

/// The rules of both IP versions, in front of everybody else's.
async fn rules(plan: &ClientPlan, has_ipv6: bool, netlink: &Netlink) -> Result<Vec<Rule>> {
    let (lan_priority, tunnel_priority) = free_priorities(netlink).await?;
    let families: &[bool] = if has_ipv6 { &[false, true] } else { &[false] };
    let rules = families.iter().flat_map(|&v6| {
        let lan = Rule::MainWithoutDefault { v6, priority: lan_priority };
        let tunnel = Rule::Tunnel { v6, priority: tunnel_priority, mark: plan.mark, table: plan.table };
        plan.lan.then_some(lan).into_iter().chain([tunnel])
    });
    Ok(rules.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(networks: &[&str]) -> Vec<IpNetwork> {
        networks.iter().map(|network| network.parse().unwrap()).collect()
    }

    #[test]
    fn an_exclude_wins_over_the_same_route_and_the_tunnel_network_is_routed() {
        let plan = ClientPlan {
            interface: "vpn0".to_owned(),
            index: 1,
            addresses: networks(&["10.77.0.2/24", "fd77::2/64"]),
            routes: networks(&["0.0.0.0/0", "10.0.0.1/8", "10.0.0.0/8", "10.77.0.0/24"]),
            exclude: networks(&["10.0.0.0/8", "192.168.1.7/24"]),
            lan: true,
            mark: 1,
            table: 1,
        };
        let routes = Routes::of(&plan);
        assert_eq!(routes.throw, networks(&["10.0.0.0/8", "192.168.1.0/24"]));
        assert_eq!(routes.device, networks(&["0.0.0.0/0", "10.77.0.0/24", "fd77::/64"]));
    }
}
