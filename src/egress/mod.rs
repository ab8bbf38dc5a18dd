//! What clients may reach through the server: the egress policy.
//!
//! The same check stands before a TCP socket to a target and before a datagram. The host that
//! runs the server is not for its clients: its own addresses, loopback, link-local addresses
//! (clouds keep their metadata there) and the like are denied unless an entry allows them; its
//! LAN and the Internet are allowed unless an entry denies them. Knows addresses only.

mod entry;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

pub use entry::{Entry, EntryError};

/// Which destinations clients may reach.
///
/// The most specific entry that matches decides: the longer prefix first, then an entry with a
/// port before one without. At a tie an entry of the user wins over a built-in one, and then a
/// denial wins over a permission. What no entry matches is allowed.
#[derive(Clone, Debug, Default)]
pub struct EgressPolicy {
    allow: Vec<Entry>,
    deny: Vec<Entry>,
    own: HashSet<IpAddr>,
}

impl EgressPolicy {
    /// Builds the policy of a host whose addresses are `own`, as in [`set_own`](Self::set_own).
    pub fn new(allow: Vec<Entry>, deny: Vec<Entry>, own: impl IntoIterator<Item = IpNetwork>) -> Self {
        let mut policy = Self { allow, deny, own: HashSet::new() };
        policy.set_own(own);
        policy
    }

    /// Replaces the host's own addresses.
    ///
    /// Each is given with the length of its network, from which follow the addresses of the
    /// network that the host answers too: IPv4 broadcast, IPv6 subnet-router anycast (RFC 4291
    /// section 2.6.1). An address alone has the full length.
    pub fn set_own(&mut self, own: impl IntoIterator<Item = IpNetwork>) {
        self.own = own.into_iter().flat_map(answered_by).collect();
    }

    /// Whether a client may reach `destination` at `port`; `None` where there are no ports.
    ///
    /// An IPv4-mapped IPv6 address needs both itself and the address within to be allowed.
    pub fn allows(&self, destination: IpAddr, port: Option<u16>) -> bool {
        let verdict = self.matching(destination, port).max().is_none_or(|rank| !rank.denies);
        verdict && mapped(destination).is_none_or(|inner| self.allows(inner, port))
    }

    fn matching(&self, destination: IpAddr, port: Option<u16>) -> impl Iterator<Item = Rank> {
        let own = self.own.contains(&destination).then(|| Rank::built_in(full_length(destination)));
        let built_in = DENIED
            .iter()
            .filter(move |(network, length)| covers(*network, *length, destination))
            .map(|(_, length)| Rank::built_in(*length));
        let allow = entries(&self.allow, false, destination, port);
        let deny = entries(&self.deny, true, destination, port);
        own.into_iter().chain(built_in).chain(allow).chain(deny)
    }
}

/// How much an entry that matches weighs; the order of the fields is the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    length: u8,
    names_port: bool,
    by_user: bool,
    denies: bool,
}

impl Rank {
    fn built_in(length: u8) -> Self {
        Self { length, names_port: false, by_user: false, denies: true }
    }
}

fn entries(
    list: &[Entry],
    denies: bool,
    destination: IpAddr,
    port: Option<u16>,
) -> impl Iterator<Item = Rank> {
    list.iter().filter(move |entry| entry.matches(destination, port)).map(move |entry| Rank {
        length: entry.network().prefix(),
        names_port: entry.port().is_some(),
        by_user: true,
        denies,
    })
}

fn covers(network: IpAddr, length: u8, address: IpAddr) -> bool {
    IpNetwork::new(network, length).is_ok_and(|network| network.contains(address))
}

fn full_length(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn mapped(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => address.to_ipv4_mapped().map(IpAddr::V4),
    }
}

/// The addresses a host answers to that holds this one; /31 and /127 have no others (RFC 3021,
/// RFC 6164).
fn answered_by(own: IpNetwork) -> impl Iterator<Item = IpAddr> {
    let others = match own {
        IpNetwork::V4(own) if own.prefix() < 31 => [Some(own.network().into()), Some(own.broadcast().into())],
        IpNetwork::V6(own) if own.prefix() < 127 => [Some(own.network().into()), None],
        IpNetwork::V4(_) | IpNetwork::V6(_) => [None, None],
    };
    std::iter::once(own.ip()).chain(others.into_iter().flatten())
}

/// What is denied unless an entry allows it, from the special-purpose registries of RFC 6890.
const DENIED: [(IpAddr, u8); 11] = [
    // "This network": Linux takes 0.0.0.0 for the host itself.
    (v4(0, 0, 0, 0), 8),
    // Loopback.
    (v4(127, 0, 0, 0), 8),
    // Link-local; 169.254.169.254 is the metadata service of most clouds.
    (v4(169, 254, 0, 0), 16),
    // Multicast.
    (v4(224, 0, 0, 0), 4),
    // Limited broadcast.
    (v4(255, 255, 255, 255), 32),
    // Unspecified: Linux takes it for the host itself.
    (v6([0, 0, 0, 0, 0, 0, 0, 0]), 128),
    // Loopback.
    (v6([0, 0, 0, 0, 0, 0, 0, 1]), 128),
    // IPv4-mapped: a way around the entries for IPv4.
    (v6([0, 0, 0, 0, 0, 0xffff, 0, 0]), 96),
    // Link-local.
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10),
    // Multicast.
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8),
    // The metadata service of AWS over IPv6 ("Instance metadata and user data").
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]), 128),
];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(s: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(allow: &[&str], deny: &[&str], own: &[&str]) -> EgressPolicy {
        let entries = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        let own = own.iter().map(|text| text.parse().unwrap());
        EgressPolicy::new(entries(allow), entries(deny), own)
    }

    fn check(policy: &EgressPolicy, table: &[(&str, Option<u16>, bool)]) {
        for (address, port, expected) in table {
            let allowed = policy.allows(address.parse().unwrap(), *port);
            assert_eq!(allowed, *expected, "{address} port {port:?}");
        }
    }

    #[test]
    fn denies_the_host_and_allows_the_lan_and_the_internet() {
        let policy = policy(&[], &[], &["192.168.1.2/24", "2001:db8::2/64"]);
        check(
            &policy,
            &[
                ("1.1.1.1", Some(443), true),
                ("192.168.1.3", Some(22), true),
                ("10.0.0.1", None, true),
                ("2001:db8::3", Some(80), true),
                ("fd00::1", Some(80), true),
                ("192.168.1.2", Some(22), false),
                ("192.168.1.2", None, false),
                ("192.168.1.255", Some(9), false),
                ("192.168.1.0", Some(9), false),
                ("2001:db8::2", Some(22), false),
                ("2001:db8::", Some(22), false),
                ("127.0.0.1", Some(80), false),
                ("127.255.0.9", Some(80), false),
                ("0.0.0.0", Some(80), false),
                ("169.254.169.254", Some(80), false),
                ("224.0.0.251", Some(5353), false),
                ("239.255.255.250", Some(1900), false),
                ("255.255.255.255", Some(67), false),
                ("::", Some(80), false),
                ("::1", Some(80), false),
                ("::ffff:1.1.1.1", Some(80), false),
                ("fe80::1", Some(80), false),
                ("ff02::1", None, false),
                ("fd00:ec2::254", Some(80), false),
            ],
        );
    }

    #[test]
    fn lets_the_longer_prefix_decide() {
        let policy = policy(&["10.1.0.0/16", "10.1.2.3/32:25"], &["10.0.0.0/8", "10.1.2.0/24"], &[]);
        check(
            &policy,
            &[
                ("10.2.0.1", Some(80), false),
                ("10.1.0.1", Some(80), true),
                ("10.1.2.1", Some(80), false),
                ("10.1.2.3", Some(80), false),
                ("10.1.2.3", Some(25), true),
                ("10.1.2.3", None, false),
            ],
        );
    }

    #[test]
    fn lets_a_port_decide_between_equal_prefixes_and_a_denial_win_a_tie() {
        let policy = policy(
            &["10.0.0.0/8:80", "11.0.0.0/8", "12.0.0.0/8"],
            &["10.0.0.0/8", "11.0.0.0/8:25", "12.0.0.0/8", "0.0.0.0/0:25"],
            &[],
        );
        check(
            &policy,
            &[
                ("10.0.0.1", Some(80), true),
                ("10.0.0.1", Some(81), false),
                ("11.0.0.1", Some(25), false),
                ("11.0.0.1", Some(80), true),
                ("12.0.0.1", Some(80), false),
                ("1.1.1.1", Some(25), false),
                ("1.1.1.1", Some(26), true),
                ("1.1.1.1", None, true),
            ],
        );
    }

    #[test]
    fn opens_a_built_in_denial_only_for_an_entry_as_specific() {
        let own = &["192.168.1.2/24"];
        let opened = policy(&["127.0.0.0/8", "192.168.1.2/32:53", "169.254.1.1/32"], &[], own);
        check(
            &opened,
            &[
                ("127.0.0.1", Some(80), true),
                ("192.168.1.2", Some(53), true),
                ("192.168.1.2", Some(22), false),
                ("169.254.1.1", Some(80), true),
                ("169.254.169.254", Some(80), false),
            ],
        );
        let wide = policy(&["0.0.0.0/0", "192.168.0.0/16"], &[], own);
        check(&wide, &[("127.0.0.1", Some(80), false), ("192.168.1.2", Some(22), false)]);
    }

    #[test]
    fn judges_the_address_within_an_ipv4_mapped_one() {
        let policy = policy(&["::ffff:0:0/96"], &["10.0.0.0/8"], &[]);
        check(
            &policy,
            &[
                ("::ffff:1.1.1.1", Some(80), true),
                ("::ffff:10.0.0.1", Some(80), false),
                ("::ffff:127.0.0.1", Some(80), false),
            ],
        );
    }

    #[test]
    fn follows_the_own_addresses_when_they_change() {
        let mut policy = policy(&[], &[], &["192.0.2.1/32"]);
        policy.set_own(["192.0.2.9".parse().unwrap()]);
        check(
            &policy,
            &[("192.0.2.1", Some(1), true), ("192.0.2.9", Some(1), false), ("192.0.2.255", Some(1), true)],
        );
    }

    prop_compose! {
        fn network()(address in any::<u32>(), length in 0u8..=32) -> IpNetwork {
            IpNetwork::new(IpAddr::from(Ipv4Addr::from(address)), length).unwrap()
        }
    }

    proptest! {
        #[test]
        fn a_denied_network_is_closed_and_its_hosts_can_be_opened_again(
            network in network(), offset in any::<u32>(), port in any::<u16>(),
        ) {
            let IpNetwork::V4(v4) = network else { unreachable!("built as IPv4") };
            let host = Ipv4Addr::from(u32::from(v4.ip()) ^ (offset & !u32::from(v4.mask())));
            let deny = vec![Entry::new(network, None)];
            let closed = EgressPolicy::new(vec![], deny.clone(), []);
            prop_assert!(!closed.allows(host.into(), Some(port)));
            let allow = vec![Entry::new(IpNetwork::from(IpAddr::from(host)), Some(port))];
            let opened = EgressPolicy::new(allow, deny, []);
            prop_assert!(opened.allows(host.into(), Some(port)));
            prop_assert!(!opened.allows(host.into(), None) );
        }

        #[test]
        fn an_own_address_is_never_reached_by_a_wider_permission(
            own in any::<u32>(), length in 0u8..32, port in any::<u16>(),
        ) {
            let own = IpAddr::from(Ipv4Addr::from(own));
            let allow = vec![Entry::new(IpNetwork::new(own, length).unwrap(), Some(port))];
            let policy = EgressPolicy::new(allow, vec![], [IpNetwork::from(own)]);
            prop_assert!(!policy.allows(own, Some(port)));
        }

        #[test]
        fn the_order_of_entries_does_not_matter(
            networks in proptest::collection::vec((network(), any::<bool>()), 0..8), to in any::<u32>(),
        ) {
            let split = |list: &[(IpNetwork, bool)]| {
                let of = |denies| list.iter().filter(|(_, d)| *d == denies)
                    .map(|(network, _)| Entry::new(*network, None)).collect::<Vec<_>>();
                EgressPolicy::new(of(false), of(true), [])
            };
            let reversed: Vec<_> = networks.iter().rev().copied().collect();
            let to = IpAddr::from(Ipv4Addr::from(to));
            prop_assert_eq!(split(&networks).allows(to, None), split(&reversed).allows(to, None));
        }
    }
}
