//! The server's names become addresses, once, before anything of the host is changed.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::vec;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::config::{Endpoint, Endpoints, Host};
use crate::failure::{ExitCode, Failure};

/// The addresses of each of `servers`, in their order. A name without any is passed over if another has one.
pub(super) async fn resolve(servers: &Endpoints) -> Result<Vec<Vec<SocketAddr>>, Failure> {
    // All of them are asked before the first is waited for.
    let asked: Vec<_> = servers.iter().map(Asked::start).collect();
    let (mut addresses, mut failures) = (Vec::new(), Vec::new());
    for asked in asked {
        match asked.finish().await {
            Ok(found) => addresses.push(found),
            Err(why) => failures.push(why),
        }
    }
    if addresses.is_empty() {
        return Err(failures.swap_remove(0));
    }
    failures.iter().for_each(|why| tracing::info!(%why, "passed over"));
    Ok(addresses)
}

/// All addresses of all servers, each once, where it comes first.
pub(super) fn distinct(servers: &[Vec<SocketAddr>]) -> Vec<SocketAddr> {
    let mut distinct = Vec::new();
    for address in servers.iter().flatten() {
        if !distinct.contains(address) {
            distinct.push(*address);
        }
    }
    distinct
}

/// A server whose addresses are known, or will be.
#[derive(Debug)]
enum Asked {
    Address(SocketAddr),
    Name(String, JoinHandle<io::Result<vec::IntoIter<SocketAddr>>>),
}

impl Asked {
    /// The system's resolver blocks for as long as it likes, so each name has a thread of its own; one that is not waited for
    /// any more ends by itself.
    fn start(server: &Endpoint) -> Self {
        let port = server.ports.first;
        match &server.host {
            Host::Address(address) => Self::Address((*address, port).into()),
            Host::Name(name) => {
                let asked = (name.clone(), port);
                Self::Name(name.clone(), spawn_blocking(move || asked.to_socket_addrs()))
            }
        }
    }

    async fn finish(self) -> Result<Vec<SocketAddr>, Failure> {
        let (name, found) = match self {
            Self::Address(address) => return Ok(vec![address]),
            Self::Name(name, found) => (name, found.await),
        };
        let unreachable = |why| {
            let what = format!("the server's name {name} {why}: check `server`");
            Failure::new(ExitCode::Unreachable, what)
        };
        let found = found.map_err(io::Error::from).flatten();
        let found = found.map_err(|error| unreachable(format!("cannot be resolved: {error}")))?;
        let found: Vec<_> = found.take(ADDRESSES_MAX).collect();
        if found.is_empty() {
            return Err(unreachable("has no address".to_owned()));
        }
        Ok(found)
    }
}

/// Our choice: more addresses of one name are not tried.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_order_of_a_list_and_each_address_once() {
        let servers =
            r#"["[2001:db8::9]:443", "127.0.0.1:80", "localhost:80", "[2001:db8::9]:443", "192.0.2.9:1"]"#;
        let servers: Endpoints = serde_json::from_str(servers).unwrap();
        let mut found = distinct(&resolve(&servers).await.unwrap());
        // What else a host calls localhost is its own affair.
        found.retain(|address| *address != "[::1]:80".parse().unwrap());
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["[2001:db8::9]:443", "127.0.0.1:80", "192.0.2.9:1"]);
    }
}
