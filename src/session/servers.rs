//! The addresses of the servers, and which of them the next carrier goes to.
//!
//! A server may have many addresses: they lead to the same sessions, so a carrier may move between them at any time. Another
//! server of the list knows nothing of our flows, and is asked only while there are none to lose: before the tunnel is up, and
//! when an outage was so long that they were given up.

use std::net::SocketAddr;

/// All addresses in the order of the configuration, and the server in use.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    addresses: Vec<Address>,
    /// How many were handed out.
    turns: usize,
    /// The server that carries the session, by its place in the list.
    in_use: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    server: usize,
    address: SocketAddr,
}

impl Servers {
    /// From now on these are the addresses of each server; one that is named twice counts where it comes first.
    pub(crate) fn set(&mut self, servers: Vec<Vec<SocketAddr>>) {
        let mut addresses: Vec<Address> = Vec::new();
        for (server, found) in servers.into_iter().enumerate() {
            for address in found {
                if addresses.iter().all(|known| known.address != address) {
                    addresses.push(Address { server, address });
                }
            }
        }
        // The server in use keeps its place in the list, whatever addresses it has now.
        self.addresses = addresses;
    }

    /// Whether there is nowhere to go.
    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Where the next carrier goes, in turn; `None` if no address is known at all.
    pub(crate) fn next_address(&mut self) -> Option<SocketAddr> {
        let may_be_asked = |known: &&Address| self.in_use.is_none_or(|server| server == known.server);
        let candidates: Vec<&Address> = self.addresses.iter().filter(may_be_asked).collect();
        let address = candidates.get(self.turns.checked_rem(candidates.len())?)?.address;
        self.turns += 1;
        Some(address)
    }

    /// The session is carried by the server with this address: no other is asked.
    pub(crate) fn on_carried_by(&mut self, address: SocketAddr) {
        self.in_use = self.addresses.iter().find(|known| known.address == address).map(|known| known.server);
    }

    /// Every flow was given up: whichever server answers is as good.
    pub(crate) fn on_given_up(&mut self) {
        self.in_use = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// The next `count`, by the last digit of their ports.
    fn turns(servers: &mut Servers, count: usize) -> Vec<u16> {
        (0..count).map(|_| servers.next_address().unwrap().port() % 10).collect()
    }

    /// One with two addresses, and another.
    fn two() -> Servers {
        let first = vec![address("192.0.2.1:441"), address("[2001:db8::1]:442")];
        let mut servers = Servers::default();
        servers.set(vec![first, vec![address("192.0.2.9:443"), address("192.0.2.1:441")]]);
        servers
    }

    #[test]
    fn asks_every_server_in_turn_until_one_carries_the_session() {
        assert_eq!(turns(&mut two(), 7), [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn stays_with_the_server_in_use_through_an_outage() {
        let mut servers = two();
        servers.on_carried_by(address("[2001:db8::1]:442"));
        let mut asked = turns(&mut servers, 6);
        asked.sort_unstable();
        assert_eq!(asked, [1, 1, 1, 2, 2, 2]);
        servers.on_carried_by(address("192.0.2.9:443"));
        assert_eq!(turns(&mut servers, 2), [3, 3]);
    }

    #[test]
    fn asks_every_server_again_when_the_flows_were_given_up() {
        let mut servers = two();
        servers.on_carried_by(address("192.0.2.9:443"));
        servers.on_given_up();
        let mut asked = turns(&mut servers, 3);
        asked.sort_unstable();
        assert_eq!(asked, [1, 2, 3]);
    }

    #[test]
    fn has_nowhere_to_go_without_addresses() {
        let mut servers = Servers::default();
        servers.set(vec![vec![]]);
        assert!(servers.is_empty());
        assert_eq!(servers.next_address(), None);
    }
}
