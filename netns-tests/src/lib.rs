//! Network namespaces, a link emulator and process control for testing `vpn` between real kernels.
//!
//! ```text
//!   client 0 ──[ link 0 ]──┐
//!                          ├── router ────── server
//!   client 1 ──[ link 1 ]──┘      │             │
//!                                 └── target ───┘
//! ```
//!
//! Each box is a network namespace with a mount namespace of its own; each `[ link ]` joins two veth ends in user space, through
//! the [`emulator`]. The way from a client to the target leads through the link, beside the server or through its tunnel.
//! A [`scenario`] builds the topology, runs a body against it, keeps logs and a capture if it fails, and removes everything.

pub mod addresses;
pub mod cleanup;
pub mod expected;
pub mod firewall;
pub mod flood;
pub mod host_state;
pub mod link;
pub mod logs;
pub mod namespace;
pub mod node;
pub mod probe;
pub mod process;
pub mod scenario;
pub mod services;
pub mod sockets;
pub mod ssh;
mod sys;
pub mod table;
pub mod topology;
pub mod tunnel;
pub mod vpn;
pub mod wait;

pub use link_emulator as emulator;
