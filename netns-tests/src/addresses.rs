//! Who has which address: documentation prefixes for the world, private ones for the clients' networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The server, as clients find it.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The server's IPv6 address.
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 2);
/// The router, on the server's side.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The target, reached from clients by the router and from the server by a wire of their own.
pub const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The target's IPv6 address.
pub const TARGET_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 0x10);
/// The target on the wire it shares with the server; clients reach it by the router too.
pub const TARGET_BACK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The server on the wire it shares with the target: who the target sees when a flow comes through the tunnel.
pub const SERVER_BACK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The same in IPv6.
pub const SERVER_BACK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x300, 0, 0, 0, 0, 1);
/// A host that is not there: the server and the router know that its network is unreachable.
pub const UNREACHABLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
/// The same in IPv6.
pub const UNREACHABLE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 1, 0, 0, 1);
/// The server's address in the tunnel.
pub const TUNNEL_SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The same in IPv6.
pub const TUNNEL_SERVER_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);

/// The address of client `n`, counted from 0, outside the tunnel.
#[must_use]
pub const fn client(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, n + 1, 2)
}

/// The gateway of client `n`.
#[must_use]
pub const fn client_gateway(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, n + 1, 1)
}

/// The IPv6 address of client `n` outside the tunnel.
#[must_use]
pub const fn client_v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, n as u16 + 1, 0, 0, 0, 0, 2)
}

/// The IPv6 gateway of client `n`.
#[must_use]
pub const fn client_gateway_v6(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, n as u16 + 1, 0, 0, 0, 0, 1)
}

/// The addresses of client `n` inside the tunnel.
#[must_use]
pub const fn tunnel_client(n: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 77, 0, n + 2), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, n as u16 + 2))
}

/// The URL of `path` on `host` by HTTP on `port`.
#[must_use]
pub fn url(host: impl Into<IpAddr>, port: u16, path: &str) -> String {
    match host.into() {
        IpAddr::V4(host) => format!("http://{host}:{port}{path}"),
        IpAddr::V6(host) => format!("http://[{host}]:{port}{path}"),
    }
}
