//! Addresses, routes and rules by netlink (rtnetlink(7)): questions and commands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::{
    Error, Handle, IpVersion, RouteMessageBuilder, new_connection_with_strict_check,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::{LinkFlags, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
    },
};
use serde::{Deserialize, Serialize};

use crate::io::Family;

/// A connection to the kernel's routing, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Netlink {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

/// A policy rule of ours (ip-rule(8)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// `lookup main suppress_prefixlength 0`: the main table without its default route.
    MainWithoutDefault {
        /// True = IPv6.
        v6: bool,
        /// Lower is asked first.
        priority: u32,
    },
    /// `not fwmark MARK lookup TABLE`: everything but our own packets.
    Tunnel {
        /// True = IPv6.
        v6: bool,
        /// Lower is asked first.
        priority: u32,
        /// The mark on our own packets.
        mark: u32,
        /// Our table.
        table: u32,
    },
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Into the device of this index.
    Device(u32),
    /// `throw`: this table has no answer, the next rule decides.
    Throw,
}

/// Where packets leave this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// The index of the device.
    pub(super) device: u32,
    /// The next host, if it is not the destination itself.
    pub(super) gateway: Option<IpAddr>,
    /// The address that packets leave with.
    pub(super) source: Option<IpAddr>,
}

impl Way {
    fn of(route: &RouteMessage) -> Option<Self> {
        let (mut device, mut gateway, mut source) = (None, None, None);
        for attribute in &route.attributes {
            if let RouteAttribute::Oif(index) = attribute {
                device = Some(*index);
            } else if let RouteAttribute::Gateway(address) = attribute {
                gateway = ip_of(address);
            } else if let RouteAttribute::PrefSource(address) = attribute {
                source = ip_of(address);
            }
        }
        Some(Self { device: device?, gateway, source })
    }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    if let RouteAddress::Inet(address) = address {
        return Some((*address).into());
    }
    if let RouteAddress::Inet6(address) = address { Some((*address).into()) } else { None }
}

impl Netlink {
    /// Opens a connection, driven by a task of the current runtime.
    pub(super) fn open() -> Result<Self> {
        let (connection, handle, _) =
            new_connection_with_strict_check().context("cannot open a netlink socket to set up routes")?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Lists the links.
    pub(super) async fn links(&self) -> Result<Vec<LinkMessage>> {
        self.handle.link().get().execute().try_collect().await.context("cannot list the links")
    }

    /// Whether a device is there and up.
    pub(super) async fn is_up(&self, index: u32) -> Result<bool> {
        let links = self.links().await?;
        let link = links.iter().find(|link| link.header.index == index);
        Ok(link.is_some_and(|link| link.header.flags.contains(LinkFlags::Up)))
    }

    /// Lists the addresses.
    pub(super) async fn addresses(&self) -> Result<Vec<AddressMessage>> {
        self.handle.address().get().execute().try_collect().await.context("cannot list the addresses")
    }

    /// The way that a packet with `mark` would take to `destination`: the device and the gateway, if there is one.
    pub(super) async fn way_to(&self, destination: IpAddr, mark: u32) -> Result<Option<Way>> {
        let mut question = RouteMessage::default();
        question.header.address_family = address_family(Family::of(destination));
        question.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        question.attributes =
            vec![RouteAttribute::Destination(destination.into()), RouteAttribute::Mark(mark)];
        let answers: Result<Vec<RouteMessage>, _> =
            self.handle.route().get(question).execute().try_collect().await;
        // No route is an answer, too.
        let Ok(answers) = answers else { return Ok(None) };
        Ok(answers.first().and_then(Way::of))
    }

    /// The hardware address of a neighbour, if the kernel knows it.
    pub(super) async fn hardware_address(&self, device: u32, neighbour: IpAddr) -> Result<Option<Vec<u8>>> {
        let family = address_family(Family::of(neighbour));
        let request = self.handle.neighbours().get().set_address_family(family);
        let list: Vec<_> = request.execute().try_collect().await.context("cannot list the neighbours")?;
        let wanted = match neighbour {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        };
        let is_wanted = NeighbourAttribute::Destination(wanted);
        let mut entries = list
            .into_iter()
            .filter(|entry| entry.header.ifindex == device && entry.attributes.contains(&is_wanted));
        let attributes = entries.next().map(|entry| entry.attributes).unwrap_or_default();
        let address = attributes.into_iter().find_map(|attribute| {
            if let NeighbourAttribute::LinkLayerAddress(address) = attribute { Some(address) } else { None }
        });
        Ok(address.filter(|address| !address.is_empty()))
    }

    /// Adds an address to a device. IPv6 skips duplicate detection, for which a tunnel has nobody to ask. Says whether it was
    /// missing.
    pub(super) async fn add_address(&self, index: u32, address: IpNetwork, with_route: bool) -> Result<bool> {
        let mut request = self.handle.address().add(index, address.ip(), address.prefix());
        let mut flags = AddressFlags::empty();
        flags.set(AddressFlags::Nodad, address.is_ipv6());
        flags.set(AddressFlags::Noprefixroute, !with_route);
        request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        was_missing(request.execute().await)
            .with_context(|| format!("cannot give the tunnel the address {address}"))
    }

    /// Adds a route to a table. Says whether it was missing.
    pub(super) async fn add_route(&self, table: u32, network: IpNetwork, target: Target) -> Result<bool> {
        let message = route(table, network, target);
        was_missing(self.handle.route().add(message).execute().await)
            .with_context(|| format!("cannot add the route {network} to table {table}"))
    }

    /// Deletes a route; one that is gone is fine.
    pub(super) async fn delete_route(&self, table: u32, network: IpNetwork, target: Target) -> Result<()> {
        let result = self.handle.route().del(route(table, network, target)).execute().await;
        tolerate_gone(result).with_context(|| format!("cannot delete the route {network} from table {table}"))
    }

    /// Adds a rule. Says whether it was missing.
    pub(super) async fn add_rule(&self, rule: Rule) -> Result<bool> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule.message();
        was_missing(request.execute().await).with_context(|| format!("cannot add the policy rule {rule:?}"))
    }

    /// Deletes a rule; one that is gone is fine.
    pub(super) async fn delete_rule(&self, rule: Rule) -> Result<()> {
        let result = self.handle.rule().del(rule.message()).execute().await;
        tolerate_gone(result).with_context(|| format!("cannot delete the policy rule {rule:?}"))
    }

    /// Lists the rules of one IP version; none if the kernel lacks it.
    pub(super) async fn rules(&self, family: Family) -> Result<Vec<RuleSummary>> {
        let messages: Result<Vec<_>, _> =
            self.handle.rule().get(version(family)).execute().try_collect().await;
        match messages {
            Ok(messages) => Ok(messages.iter().map(RuleSummary::of).collect()),
            Err(error) if is_unsupported(&error) => Ok(Vec::new()),
            Err(error) => Err(error).context("cannot list the policy rules"),
        }
    }

    /// True if a table has routes of one IP version.
    pub(super) async fn has_routes(&self, table: u32, family: Family) -> Result<bool> {
        let mut query = RouteMessage::default();
        query.header.address_family = address_family(family);
        query.attributes.push(RouteAttribute::Table(table));
        let routes: Result<Vec<RouteMessage>, _> =
            self.handle.route().get(query).execute().try_collect().await;
        match routes {
            Ok(routes) => Ok(routes.iter().any(|route| table_of(route) == table)),
            Err(error) if is_gone(&error) || is_unsupported(&error) => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot list the routes of table {table}")),
        }
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Rule {
    fn message(self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.action = RuleAction::ToTable;
        let (v6, priority, table) = match self {
            Self::MainWithoutDefault { v6, priority } => {
                message.attributes.push(RuleAttribute::SuppressPrefixLen(0));
                (v6, priority, MAIN_TABLE)
            }
            Self::Tunnel { v6, priority, mark, table } => {
                message.header.flags = RuleFlags::Invert;
                message.attributes.push(RuleAttribute::FwMark(mark));
                (v6, priority, table)
            }
        };
        message.header.family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.attributes.push(RuleAttribute::Priority(priority));
        message.attributes.push(RuleAttribute::Table(table));
        message
    }
}

/// What the search for free numbers asks of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct RuleSummary {
    pub(super) priority: u32,
    pub(super) mark: Option<u32>,
    pub(super) table: u32,
}

impl RuleSummary {
    fn of(message: &RuleMessage) -> Self {
        let mut summary = Self { table: u32::from(message.header.table), ..Self::default() };
        for attribute in &message.attributes {
            if let RuleAttribute::Priority(priority) = attribute {
                summary.priority = *priority;
            }
            if let RuleAttribute::FwMark(mark) = attribute {
                summary.mark = Some(*mark);
            }
            if let RuleAttribute::Table(table) = attribute {
                summary.table = *table;
            }
        }
        summary
    }
}

fn route(table: u32, network: IpNetwork, target: Target) -> RouteMessage {
    let mut message = match (network.network(), network.prefix()) {
        (IpAddr::V4(address), prefix) => {
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, prefix).build()
        }
        (IpAddr::V6(address), prefix) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, prefix).build()
        }
    };
    // The attribute alone: the header has room for tables below 256 only.
    message.header.table = 0;
    message.attributes.push(RouteAttribute::Table(table));
    match target {
        Target::Device(index) => {
            message.header.scope = if network.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
            message.attributes.push(RouteAttribute::Oif(index));
        }
        Target::Throw => message.header.kind = RouteType::Throw,
    }
    message
}

/// The table that a route is in.
pub(super) fn table_of(route: &RouteMessage) -> u32 {
    let attribute = route
        .attributes
        .iter()
        .find_map(|attribute| if let RouteAttribute::Table(table) = attribute { Some(*table) } else { None });
    attribute.unwrap_or(u32::from(route.header.table))
}

/// Whether something had to be added; what is there already is fine.
fn was_missing(result: Result<(), Error>) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if raw_error(&error) == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

fn tolerate_gone(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| if is_gone(&error) || is_unsupported(&error) { Ok(()) } else { Err(error) })
}

/// What the kernel answers when a route, rule, table or device is not there.
fn is_gone(error: &Error) -> bool {
    matches!(raw_error(error), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV))
}

/// What the kernel answers when it has no IPv6.
fn is_unsupported(error: &Error) -> bool {
    matches!(raw_error(error), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

fn raw_error(error: &Error) -> Option<i32> {
    if let Error::NetlinkError(message) = error { Some(message.raw_code().abs()) } else { None }
}

fn version(family: Family) -> IpVersion {
    match family {
        Family::V4 => IpVersion::V4,
        Family::V6 => IpVersion::V6,
    }
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// `RT_TABLE_MAIN`.
const MAIN_TABLE: u32 = 254;
