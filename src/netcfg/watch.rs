//! Watches the host by netlink: links, addresses and routes that come and go, and who touches what is ours.
//!
//! The kernel tells of much that changes nothing: an address that was advertised again, a counter of a link. So the links and
//! addresses are remembered and only differences count. What happens to our own device and table is told apart: there, only
//! what is *taken away* matters, so that putting it back is no change.

use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{LinkFlags, LinkMessage},
        route::{RouteAttribute, RouteFlags, RouteMessage, RouteType},
        rule::{RuleAttribute, RuleMessage},
    },
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::time::{Instant, sleep_until};

use super::netlink::{Netlink, table_of};

/// What is ours, and to be put back when it is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// The index of our TUN device.
    pub device: u32,
    /// Our routing table; 0 for none.
    pub table: u32,
}

/// What changed since the last time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostChange {
    /// A link, an address or a route that is not ours: packets may have another way now, or one at last.
    pub network: bool,
    /// Something of ours was taken away, or our device is up again.
    pub own: bool,
}

/// A netlink socket that hears of every change, and what is known of the host.
#[derive(Debug)]
pub struct Watch {
    socket: Socket,
    known: Known,
    pending: HostChange,
    due: Option<Instant>,
    /// When the last change was told.
    told: Option<Instant>,
}

impl Watch {
    /// Begins to watch this network namespace.
    ///
    /// # Errors
    /// Netlink is not available.
    pub async fn open() -> Result<Self> {
        // First the socket, then the look around: what changes in between is seen twice and not missed.
        let socket = Socket::open().context("cannot open a netlink socket to watch the network")?;
        let netlink = Netlink::open()?;
        let mut known = Known::default();
        for link in netlink.links().await? {
            known.on_new_link(&link);
        }
        for address in netlink.addresses().await? {
            known.on_new_address(&address);
        }
        Ok(Self { socket, known, pending: HostChange::default(), due: None, told: None })
    }

    /// From now on this is ours.
    pub fn set_own(&mut self, own: Own) {
        self.known.own = Some(own);
    }

    /// The next change, with everything that comes within 50 ms of it. Cancel-safe.
    pub async fn next(&mut self) -> HostChange {
        loop {
            let due = self.due;
            tokio::select! {
                biased;
                () = reached(due) => {
                    self.due = None;
                    self.told = Some(Instant::now());
                    return std::mem::take(&mut self.pending);
                }
                () = self.socket.recv() => {
                    let change = self.known.handle(&self.socket.datagram);
                    self.on_change(change);
                }
            }
        }
    }

    fn on_change(&mut self, change: HostChange) {
        self.pending.network |= change.network;
        self.pending.own |= change.own;
        if self.pending != HostChange::default() && self.due.is_none() {
            let soon = Instant::now() + GATHER_FOR;
            self.due = Some(self.told.map_or(soon, |told| soon.max(told + AT_MOST_EVERY)));
        }
    }
}

async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => future::pending().await,
    }
}

struct Socket {
    socket: TokioSocket,
    datagram: Vec<u8>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

impl Socket {
    fn open() -> std::io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let groups = GROUPS.iter().fold(0, |groups, group| groups | 1 << (*group as u32 - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM_MAX) })
    }

    /// Waits for the next datagram; an empty one stands for what was missed. Cancel-safe.
    async fn recv(&mut self) {
        self.datagram.clear();
        if let Err(error) = self.socket.recv(&mut self.datagram).await {
            // The queue in the kernel was too short (ENOBUFS): anything may have happened.
            tracing::debug!(%error, "some changes of the network were missed");
            self.datagram.clear();
        }
    }
}

/// What is known of the host. Sans-IO: datagrams in, differences out.
#[derive(Debug, Default)]
struct Known {
    own: Option<Own>,
    /// Whether a link can carry packets.
    links: BTreeMap<u32, bool>,
    addresses: BTreeSet<(u32, IpAddr)>,
}

impl Known {
    /// Takes a datagram of messages; what cannot be read may be anything.
    fn handle(&mut self, datagram: &[u8]) -> HostChange {
        let mut change = HostChange::default();
        let mut rest = datagram;
        if rest.is_empty() {
            return self.on_missed();
        }
        while !rest.is_empty() {
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
                return self.on_missed();
            };
            let length =
                usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(ALIGNMENT);
            rest = rest.get(length.max(ALIGNMENT)..).unwrap_or_default();
            if let NetlinkPayload::InnerMessage(message) = message.payload {
                let this = self.handle_message(&message);
                change.network |= this.network;
                change.own |= this.own;
            }
        }
        change
    }

    /// Anything may have happened: nothing is known any more, so whatever is told next is news.
    fn on_missed(&mut self) -> HostChange {
        self.links.clear();
        self.addresses.clear();
        HostChange { network: true, own: true }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "netlink tells of much else")]
    fn handle_message(&mut self, message: &RouteNetlinkMessage) -> HostChange {
        let (differs, is_own, is_loss) = match message {
            RouteNetlinkMessage::NewLink(link) => {
                let differs = self.on_new_link(link);
                // Our device has lost its routes while it was down.
                (differs, self.is_own_device(link.header.index), is_up(link))
            }
            RouteNetlinkMessage::DelLink(link) => {
                let index = link.header.index;
                // Another message about the addresses does not always come.
                self.addresses.retain(|(device, _)| *device != index);
                (self.links.remove(&index).is_some(), self.is_own_device(index), false)
            }
            RouteNetlinkMessage::NewAddress(address) => {
                (self.on_new_address(address), self.is_own_device(address.header.index), false)
            }
            RouteNetlinkMessage::DelAddress(address) => {
                (self.on_lost_address(address), self.is_own_device(address.header.index), true)
            }
            RouteNetlinkMessage::NewRoute(route) => (decides(route), self.is_own_route(route), false),
            RouteNetlinkMessage::DelRoute(route) => (decides(route), self.is_own_route(route), true),
            RouteNetlinkMessage::DelRule(rule) => (self.is_own_rule(rule), self.is_own_rule(rule), true),
            _ => (false, false, false),
        };
        HostChange { network: differs && !is_own, own: differs && is_own && is_loss }
    }

    fn on_new_link(&mut self, link: &LinkMessage) -> bool {
        let up = is_up(link);
        self.links.insert(link.header.index, up) != Some(up)
    }

    fn on_new_address(&mut self, message: &AddressMessage) -> bool {
        address_of(message).is_some_and(|address| self.addresses.insert((message.header.index, address)))
    }

    fn on_lost_address(&mut self, message: &AddressMessage) -> bool {
        let Some(address) = address_of(message) else { return false };
        // The kernel tells it once, so it is news even of an address that was not known.
        self.addresses.remove(&(message.header.index, address));
        true
    }

    fn is_own_device(&self, index: u32) -> bool {
        self.own.is_some_and(|own| own.device == index)
    }

    fn is_own_route(&self, route: &RouteMessage) -> bool {
        let device = route.attributes.iter().find_map(|attribute| {
            if let RouteAttribute::Oif(index) = attribute { Some(*index) } else { None }
        });
        let table = table_of(route);
        self.own.is_some_and(|own| own.table == table || Some(own.device) == device)
    }

    fn is_own_rule(&self, rule: &RuleMessage) -> bool {
        let table = rule.attributes.iter().find_map(|attribute| {
            if let RuleAttribute::Table(table) = attribute { Some(*table) } else { None }
        });
        // The rule before ours asks the main table, as others may: whether it is ours shows when it is put back.
        let is_lan = |table| table == MAIN_TABLE;
        self.own.is_some_and(|own| {
            own.table != 0 && table.is_some_and(|table| table == own.table || is_lan(table))
        })
    }
}

fn is_up(link: &LinkMessage) -> bool {
    link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp)
}

fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    // On a link between two hosts `Address` is the other's.
    let local = message.attributes.iter().find_map(|attribute| {
        if let AddressAttribute::Local(address) = attribute { Some(*address) } else { None }
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| {
            if let AddressAttribute::Address(address) = attribute { Some(*address) } else { None }
        })
    })
}

/// Whether a route decides where packets leave, or that they do not: unlike those to the host's own addresses, and what the
/// kernel remembers of single destinations.
fn decides(route: &RouteMessage) -> bool {
    let others = [RouteType::Local, RouteType::Broadcast, RouteType::Anycast, RouteType::Multicast];
    !others.contains(&route.header.kind) && !route.header.flags.contains(RouteFlags::Cloned)
}

const GROUPS: [MulticastGroup; 7] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Our choice: a new uplink comes as link, addresses and routes, one soon after the other.
const GATHER_FOR: Duration = Duration::from_millis(50);

/// Our choice: a host whose network never rests is not followed more often.
const AT_MOST_EVERY: Duration = Duration::from_millis(300);

/// Above the kernel's largest (`NLMSG_GOODSIZE` of netlink.h is a page, dumps have up to 32 KiB).
const DATAGRAM_MAX: usize = 64 << 10;

/// `NLMSG_ALIGNTO`.
const ALIGNMENT: usize = 4;

/// `RT_TABLE_MAIN`.
const MAIN_TABLE: u32 = 254;

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkHeader};

    use super::*;

    const OWN: Own = Own { device: 7, table: 1000 };

    fn known() -> Known {
        let mut known = Known { own: Some(OWN), ..Known::default() };
        known.handle_message(&link(2, true));
        known.handle_message(&link(7, true));
        known.handle_message(&RouteNetlinkMessage::NewAddress(address(2)));
        known.handle_message(&RouteNetlinkMessage::NewAddress(address(7)));
        known
    }

    fn link(index: u32, up: bool) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        if up {
            link.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        }
        RouteNetlinkMessage::NewLink(link)
    }

    fn address(index: u32) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.attributes = vec![AddressAttribute::Local("192.0.2.1".parse().unwrap())];
        message
    }

    fn route(table: u32, device: u32) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        route.attributes = vec![RouteAttribute::Table(table), RouteAttribute::Oif(device)];
        route
    }

    fn rule(table: u32) -> RouteNetlinkMessage {
        let mut rule = RuleMessage::default();
        rule.attributes = vec![RuleAttribute::Table(table)];
        RouteNetlinkMessage::DelRule(rule)
    }

    const NOTHING: HostChange = HostChange { network: false, own: false };
    const NETWORK: HostChange = HostChange { network: true, own: false };
    const OWNED: HostChange = HostChange { network: false, own: true };

    #[test]
    fn tells_of_what_differs_and_only_once() {
        use RouteNetlinkMessage as Message;
        let mut known = known();
        for (message, expected) in [
            (link(2, true), NOTHING),
            (link(2, false), NETWORK),
            (link(2, false), NOTHING),
            (link(2, true), NETWORK),
            (Message::NewAddress(address(2)), NOTHING),
            (Message::DelAddress(address(2)), NETWORK),
            (Message::NewAddress(address(2)), NETWORK),
            (Message::NewRoute(route(254, 2)), NETWORK),
            (Message::DelRoute(route(254, 2)), NETWORK),
            (rule(5), NOTHING),
        ] {
            assert_eq!(known.handle_message(&message), expected, "{message:?}");
        }
    }

    #[test]
    fn of_what_is_ours_it_tells_of_losses_only() {
        use RouteNetlinkMessage as Message;
        let mut known = known();
        for (message, expected) in [
            (Message::DelRoute(route(1000, 7)), OWNED),
            (Message::NewRoute(route(1000, 7)), NOTHING),
            (Message::NewRoute(route(254, 7)), NOTHING),
            (Message::DelAddress(address(7)), OWNED),
            (Message::NewAddress(address(7)), NOTHING),
            (link(7, false), NOTHING),
            (link(7, true), OWNED),
            (link(7, true), NOTHING),
            (rule(1000), OWNED),
            (rule(254), OWNED),
        ] {
            assert_eq!(known.handle_message(&message), expected, "{message:?}");
        }
    }

    #[test]
    fn routes_to_the_hosts_own_addresses_decide_nothing() {
        for kind in [RouteType::Local, RouteType::Broadcast, RouteType::Multicast] {
            let mut route = route(255, 2);
            route.header.kind = kind;
            let change = known().handle_message(&RouteNetlinkMessage::NewRoute(route));
            assert_eq!(change, NOTHING);
        }
        let mut cloned = route(254, 2);
        cloned.header.flags = RouteFlags::Cloned;
        assert_eq!(known().handle_message(&RouteNetlinkMessage::NewRoute(cloned)), NOTHING);
    }

    #[test]
    fn what_was_missed_or_cannot_be_read_may_be_anything() {
        let anything = HostChange { network: true, own: true };
        assert_eq!(known().handle(&[]), anything);
        assert_eq!(known().handle(&[0xff; 40]), anything);
        assert_eq!(known().handle(&[0; 15]), anything);
    }

    #[test]
    fn after_something_was_missed_what_is_told_is_news_even_if_it_was_known_before() {
        use RouteNetlinkMessage as Message;
        let mut known = known();
        known.handle(&[]);
        for (message, expected) in [
            (link(7, true), OWNED),
            (link(2, true), NETWORK),
            (link(2, true), NOTHING),
            (Message::DelAddress(address(7)), OWNED),
            (Message::NewAddress(address(2)), NETWORK),
        ] {
            assert_eq!(known.handle_message(&message), expected, "{message:?}");
        }
    }

    #[test]
    fn reads_every_message_of_a_datagram() {
        let mut datagram = Vec::new();
        for message in [link(2, false), RouteNetlinkMessage::DelRoute(route(1000, 7))] {
            let mut header = NetlinkHeader::default();
            header.flags = NLM_F_REQUEST;
            let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
            message.finalize();
            let start = datagram.len();
            datagram.resize(start + message.buffer_len(), 0);
            message.serialize(&mut datagram[start..]);
        }
        assert_eq!(known().handle(&datagram), HostChange { network: true, own: true });
    }
}
