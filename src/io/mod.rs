//! Raw packets in and out: thin wrappers around sockets, the TUN device and timers, without protocol decisions.
//!
//! The only place with `unsafe`; the system calls that need it stand in `sys.rs`, one each.
//!
//! - [`PacketSocket`] taps what arrives for our ports, before any firewall, one IP packet at a time.
//! - [`Doors`] are taps for SYNs alone.
//! - [`RawSocket`] sends whole IP packets.
//! - [`PortGuard`] keeps the kernel silent on a port and others off it.
//! - [`gso`] cuts what the kernel or the card merged.
//! - [`Lots`] is memory that comes page by page and goes again.
//! - [`TunDevice`], [`Timer`], [`LocalAddresses`], [`local_networks`], [`source_for`], [`mtu_at`],
//!   [`missing_rights`].

mod capability;
mod clock;
mod doors;
mod filter;
pub mod gso;
mod guard;
mod local;
mod lots;
mod packet_socket;
mod poller;
mod raw_socket;
mod route;
mod sys;
mod timer;
mod tun_device;
mod wire;

pub use capability::missing_rights;
pub use clock::{now, wall};
pub use doors::Doors;
pub use filter::{PortFilter, Segments};
pub use guard::PortGuard;
pub use local::{LocalAddresses, local_networks};
pub use lots::Lots;
pub use packet_socket::{PacketSocket, ReceiveStats};
pub use poller::{Poller, Readiness};
pub use raw_socket::{RawSocket, SendStats};
pub use route::{mtu_at, source_for};
pub use timer::Timer;
pub use tun_device::{TUN_MTU, TunDevice};
pub use wire::Wire;

use std::net::{IpAddr, SocketAddr};

/// An IP version; sockets that carry raw packets exist once for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The versions that `addresses` need, each once.
    pub fn all_of(addresses: &[SocketAddr]) -> Vec<Self> {
        let needed = |family: &Self| addresses.iter().any(|address| Self::of(address.ip()) == *family);
        [Self::V4, Self::V6].into_iter().filter(needed).collect()
    }

    /// The version of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}
