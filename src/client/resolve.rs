//! The server's name becomes addresses, once, before anything of the host is changed.

use std::net::{SocketAddr, ToSocketAddrs as _};

use crate::failure::{ExitCode, Failure};

/// The addresses of `host`, an address or a name, with `port`.
pub(super) fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let unreachable = |why: String| Failure::new(ExitCode::Unreachable, why);
    let found = (host, port).to_socket_addrs().map_err(|error| {
        unreachable(format!("the server's name {host} cannot be resolved: {error}: check `server`"))
    })?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found.take(ADDRESSES_MAX) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(unreachable(format!("the server's name {host} has no address: check `server`")));
    }
    Ok(addresses)
}

/// Our choice: more addresses of one name are not tried.
const ADDRESSES_MAX: usize = 16;
