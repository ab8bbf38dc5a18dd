//! The host: addresses, routes, policy rules, NAT and sysctls of a tunnel, and the journal that takes them back.
//!
//! Everything goes into places of our own: a routing table and a mark that nobody uses ([`free_number`]), rules in front of
//! the others, an nftables table named after the interface. Existing rules are never touched. Addresses and device routes
//! vanish with the TUN; everything else is in the [`Journal`] before it is done.
//!
//! [`Watch`] tells when links, addresses and routes change, and when somebody took away what is ours: [`ClientHost`] puts it back.
//!
//! What [`apply_client`] does, and why in this order: addresses and routes first, then NAT, the rules last, because from them on
//! traffic takes the new way. If it fails in between, undo the journal.

mod change;
mod client;
mod journal;
mod netlink;
mod network;
mod nft;
mod numbers;
mod plan;
mod resolvers;
mod server;
mod sysctl;
mod watch;

pub use change::Change;
pub use client::{ClientHost, apply_client};
pub use journal::{Journal, Opened};
pub use network::network_name;
pub use numbers::free_number;
pub use plan::{ClientPlan, ServerPlan};
pub use resolvers::host_resolvers;
pub use server::apply_server;
pub use watch::{HostChange, Own, Watch};
