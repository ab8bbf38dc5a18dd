//! What a tunnel wants of the host.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use anyhow::{Result, ensure};
use ipnetwork::IpNetwork;

/// What a client wants.
#[derive(Debug, Clone)]
pub struct ClientPlan {
    /// Name of the TUN device.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// Our addresses, with the server's prefix lengths.
    pub addresses: Vec<IpNetwork>,
    /// Where the tunnel leads.
    pub routes: Vec<IpNetwork>,
    /// What stays outside; wins over a route of the same length.
    pub exclude: Vec<IpNetwork>,
    /// Keep the routes of the main table, but for its default route, in front of the tunnel.
    pub lan: bool,
    /// The mark on our own packets, which stay outside ([`super::free_number`]).
    pub mark: u32,
    /// Our routing table ([`super::free_number`]).
    pub table: u32,
}

/// What a server wants.
#[derive(Debug, Clone)]
pub struct ServerPlan {
    /// Name of the TUN device.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// The server's tunnel addresses with the tunnel networks' lengths.
    pub addresses: Vec<IpNetwork>,
    /// Masquerade what the clients send to the world.
    pub masquerade: bool,
    /// The mark on our own packets.
    pub mark: u32,
    /// Where we listen, an unspecified address for all of its version of IP.
    pub listen: Vec<(IpAddr, RangeInclusive<u16>)>,
}

/// Refuses interface names that mean something else in a path or in an nftables rule set (`*` is a wildcard there).
pub(super) fn check_interface(name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.@+".contains(&byte);
    let is_fine = name.bytes().all(is_plain) && !matches!(name, "" | "." | ".." | "all" | "default");
    ensure!(is_fine, "the interface name {name:?} is not usable: use letters, digits, '-', '_' and '.'");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_names_that_mean_something_else_in_paths_or_rules() {
        for name in ["", "..", "all", "default", "vpn*", "a\"b", "a/b", "a b", "a;b"] {
            assert!(check_interface(name).is_err(), "{name}");
        }
        for name in ["vpn0", "eth0.5", "wg-home_1"] {
            assert!(check_interface(name).is_ok(), "{name}");
        }
    }
}
