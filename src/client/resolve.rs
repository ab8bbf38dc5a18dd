//! The server's name becomes addresses, once, before anything of the host is changed.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};

use crate::failure::{ExitCode, Failure};

/// The addresses of `host`, an address or a name, with `port`. The system's resolver blocks for as long as it likes,
/// so it has a thread of its own; one that is not waited for any more ends by itself.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let unreachable = |why: String| Failure::new(ExitCode::Unreachable, why);
    let asked = (host.to_owned(), port);
    let found = tokio::task::spawn_blocking(move || asked.to_socket_addrs()).await;
    let found = found.map_err(io::Error::from).flatten().map_err(|error| {
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
