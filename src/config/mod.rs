//! The configuration files of the client and of the server.
//!
//! Both are TOML. Every key has a default but keys and addresses; an unknown key is an error; a
//! value whose feature is not built yet is refused by name (`unbuilt.rs`). An error says the
//! file, line and column, the key, and what to do.

mod choice;
mod client;
mod document;
mod duration;
mod endpoint;
mod error;
mod inbound;
mod interface;
mod keys;
mod limits;
mod network;
mod server;
mod size;
mod text;
mod unbuilt;
mod warning;

pub use choice::{Congestion, Connect, Mode, Preface};
pub use client::{Carrier, ClientConfig, ClientDns, ClientTunnel, Inbound, Kcp};
pub use endpoint::{Endpoint, Endpoints, Host, Listen, Ports};
pub use error::ConfigError;
pub use inbound::Allowed;
pub use interface::InterfaceName;
pub use limits::{Limits, Metrics};
pub use network::parse_network;
pub use server::{Egress, Peer, ServerConfig, ServerTunnel};
pub use size::ByteSize;
pub use warning::Warning;

/// The most addresses, and the most resolvers, that a server can tell a client.
pub const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests;
