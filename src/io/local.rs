//! The addresses of this host, to tell our packets from those of connections that only pass through.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use ipnetwork::IpNetwork;

/// The set of this host's addresses, read again when an unknown one appears.
#[derive(Debug, Default)]
pub struct LocalAddresses {
    addresses: HashSet<IpAddr>,
    refreshed: Option<Instant>,
}

impl LocalAddresses {
    /// An empty set; the first question fills it.
    pub fn new() -> Self {
        Self::default()
    }

    /// True if `address` belongs to this host. An unknown address makes the set be read again, at most once a second.
    pub fn is_local(&mut self, address: IpAddr, now: Instant) -> bool {
        is_loopback(address) || self.addresses.contains(&address) || {
            self.may_refresh(now) && {
                self.refresh(now);
                self.addresses.contains(&address)
            }
        }
    }

    /// Reads the addresses of all interfaces (getifaddrs(3)): after a change that netlink told of, or on demand.
    pub fn refresh(&mut self, now: Instant) {
        self.addresses = local_networks().iter().map(IpNetwork::ip).collect();
        self.refreshed = Some(now);
    }

    fn may_refresh(&self, now: Instant) -> bool {
        self.refreshed.is_none_or(|last| now.saturating_duration_since(last) >= REFRESH_INTERVAL)
    }
}

/// The addresses of all interfaces, each with the length of its network (getifaddrs(3)).
pub fn local_networks() -> Vec<IpNetwork> {
    let networks = pnet::datalink::interfaces().into_iter().flat_map(|interface| interface.ips);
    networks.filter(|network| !network.ip().is_unspecified()).collect()
}

fn is_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address == Ipv6Addr::LOCALHOST,
    }
}

/// Our choice: a stranger's packets to foreign addresses cost one walk over the interfaces a second.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the tests need any instant to start from")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn all_of_127_and_the_v6_loopback_are_local() {
        let mut local = LocalAddresses::new();
        for address in ["127.0.0.1", "127.9.8.7", "::1"] {
            assert!(local.is_local(address.parse().unwrap(), start()), "{address}");
        }
    }

    #[test]
    fn an_unknown_address_refreshes_at_most_once_a_second() {
        let (mut local, start) = (LocalAddresses::new(), start());
        let stranger = "203.0.113.77".parse().unwrap();
        assert!(!local.is_local(stranger, start));
        assert_eq!(local.refreshed, Some(start));
        assert!(!local.is_local(stranger, start + Duration::from_millis(999)));
        assert_eq!(local.refreshed, Some(start));
        assert!(!local.is_local(stranger, start + Duration::from_secs(1)));
        assert_eq!(local.refreshed, Some(start + Duration::from_secs(1)));
    }
}
