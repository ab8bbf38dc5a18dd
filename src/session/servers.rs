//! The addresses of the servers, and which of them the next carrier goes to.
//!
//! A server may have many addresses: they lead to the same sessions, so a carrier may move between them at any time. Another
//! server of the list knows nothing of our flows, and is asked only while there are none to lose: before the tunnel is up, and
//! when an outage was so long that they were given up.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use rand::RngExt as _;
use rand::rngs::StdRng;

/// One address of a server, and the ports that it listens on there, each as good as any other.
///
/// Each carrier goes to one of them that is drawn for it: who cuts flows to a port meets another the next time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerAddress {
    /// The address.
    pub address: IpAddr,
    /// The first port.
    pub first: u16,
    /// The last port, not below the first.
    pub last: u16,
}

impl ServerAddress {
    /// The address with its first port.
    pub const fn with_first_port(self) -> SocketAddr {
        SocketAddr::new(self.address, self.first)
    }

    fn covers(self, remote: SocketAddr) -> bool {
        self.address == remote.ip() && (self.first..=self.last).contains(&remote.port())
    }

    fn draw(self, rng: &mut StdRng) -> SocketAddr {
        // What leaves no choice leaves the generator alone.
        let port = if self.first < self.last { rng.random_range(self.first..=self.last) } else { self.first };
        SocketAddr::new(self.address, port)
    }
}

impl From<SocketAddr> for ServerAddress {
    fn from(address: SocketAddr) -> Self {
        Self { address: address.ip(), first: address.port(), last: address.port() }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.with_first_port())?;
        if self.first < self.last { write!(f, "-{}", self.last) } else { Ok(()) }
    }
}

/// All addresses in the order in which they are asked, and the server in use.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    addresses: Vec<Address>,
    /// The address whose turn it is, among those that may be asked.
    turn: usize,
    /// The server that carries the session, by its place in the list.
    in_use: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    server: usize,
    address: ServerAddress,
}

impl Servers {
    /// From now on these are the addresses of each server; one that is named twice counts where it comes first. The server in
    /// use keeps its place in the list, whatever addresses it has now.
    pub(crate) fn set(&mut self, servers: Vec<Vec<ServerAddress>>) {
        self.addresses.clear();
        for (server, found) in servers.into_iter().enumerate() {
            for address in interleaved(found) {
                if self.addresses.iter().all(|known| known.address != address) {
                    self.addresses.push(Address { server, address });
                }
            }
        }
    }

    /// How many addresses may be asked.
    pub(crate) fn count(&self) -> usize {
        self.candidates().count()
    }

    /// Where the next carrier goes; `None` if no address is known at all.
    pub(crate) fn peek(&self) -> Option<IpAddr> {
        let turn = self.turn.checked_rem(self.count())?;
        self.candidates().nth(turn).map(|known| known.address)
    }

    /// The same with a port that is drawn for it, and another address the next time; `None` if none is known at all.
    pub(crate) fn next_address(&mut self, rng: &mut StdRng) -> Option<SocketAddr> {
        let turn = self.turn.checked_rem(self.count())?;
        self.turn = turn + 1;
        self.candidates().nth(turn).map(|known| known.draw(rng))
    }

    /// The address of `remote` with a port that is drawn anew, if it may be asked.
    pub(crate) fn again(&self, remote: SocketAddr, rng: &mut StdRng) -> Option<SocketAddr> {
        self.candidates().find(|known| known.covers(remote)).map(|known| known.draw(rng))
    }

    /// Whether both are the same address, with whatever port of it.
    pub(crate) fn is_same(&self, one: SocketAddr, other: SocketAddr) -> bool {
        self.candidates().any(|known| known.covers(one) && known.covers(other))
    }

    /// The session is carried by the server with this address: no other is asked, and it is asked first.
    pub(crate) fn on_carried_by(&mut self, address: SocketAddr) {
        let found = self.addresses.iter().find(|known| known.address.covers(address));
        self.in_use = found.map(|known| known.server);
        let turn = self.candidates().position(|known| known.covers(address));
        self.turn = turn.unwrap_or(0);
    }

    /// Every flow was given up: whichever server answers is as good.
    pub(crate) fn on_given_up(&mut self) {
        self.in_use = None;
    }

    fn candidates(&self) -> impl Iterator<Item = ServerAddress> {
        // A server that the list does not name any more is no reason to ask nobody.
        let in_use = self.in_use.filter(|server| self.addresses.iter().any(|known| known.server == *server));
        let known = self.addresses.iter().filter(move |known| in_use.is_none_or(|it| it == known.server));
        known.map(|known| known.address)
    }
}

/// The families in turn, the first address first (RFC 8305 §4).
fn interleaved(addresses: Vec<ServerAddress>) -> Vec<ServerAddress> {
    let first_is_v6 = addresses.first().is_some_and(|known| known.address.is_ipv6());
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|known| known.address.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut interleaved: Vec<_> =
        first.into_iter().flat_map(|address| [Some(address), second.next()]).flatten().collect();
    interleaved.extend(second);
    interleaved
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn remote(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn address(text: &str) -> ServerAddress {
        remote(text).into()
    }

    fn rng() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    /// The next `count`, by the last digit of their ports.
    fn turns(servers: &mut Servers, count: usize) -> Vec<u16> {
        (0..count).map(|_| servers.next_address(&mut rng()).unwrap().port() % 10).collect()
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
        servers.on_carried_by(remote("[2001:db8::1]:442"));
        let mut asked = turns(&mut servers, 6);
        asked.sort_unstable();
        assert_eq!(asked, [1, 1, 1, 2, 2, 2]);
        servers.on_carried_by(remote("192.0.2.9:443"));
        assert_eq!(turns(&mut servers, 2), [3, 3]);
    }

    #[test]
    fn asks_every_server_again_when_the_flows_were_given_up() {
        let mut servers = two();
        servers.on_carried_by(remote("192.0.2.9:443"));
        servers.on_given_up();
        let mut asked = turns(&mut servers, 3);
        asked.sort_unstable();
        assert_eq!(asked, [1, 2, 3]);
    }

    #[test]
    fn asks_first_what_answered_last() {
        let mut servers = two();
        servers.on_carried_by(remote("[2001:db8::1]:442"));
        assert_eq!(turns(&mut servers, 3), [2, 1, 2]);
    }

    #[test]
    fn asks_the_families_in_turn() {
        let mut servers = Servers::default();
        let name = ["[2001:db8::1]:1", "[2001:db8::1]:2", "[2001:db8::1]:3", "192.0.2.1:4", "192.0.2.1:5"];
        servers.set(vec![name.map(address).to_vec(), vec![address("192.0.2.9:6")]]);
        assert_eq!(turns(&mut servers, 6), [1, 4, 2, 5, 3, 6]);
    }

    #[test]
    fn has_nowhere_to_go_without_addresses() {
        let mut servers = Servers::default();
        servers.set(vec![vec![]]);
        assert_eq!(servers.count(), 0);
        assert_eq!(servers.next_address(&mut rng()), None);
    }

    #[test]
    fn draws_a_port_of_the_range_for_each_carrier_and_knows_them_all_for_one_address() {
        let range = ServerAddress { last: 4100, ..address("192.0.2.1:4000") };
        let mut servers = Servers::default();
        servers.set(vec![vec![address("192.0.2.9:443")], vec![range, address("192.0.2.1:80")]]);
        let mut rng = rng();
        servers.on_carried_by(remote("192.0.2.1:4077"));
        let drawn: Vec<_> = (0..400).map(|_| servers.next_address(&mut rng).unwrap().port()).collect();
        let mut ports: Vec<_> = drawn.iter().copied().filter(|port| *port != 80).collect();
        assert_eq!(ports.len(), 200, "the other server is not asked");
        ports.sort_unstable();
        ports.dedup();
        assert!(ports.len() > 70 && range.first <= ports[0] && ports[ports.len() - 1] <= range.last);
        let again = servers.again(remote("192.0.2.1:4001"), &mut rng).unwrap();
        assert!(range.covers(again) && servers.is_same(again, remote("192.0.2.1:4100")));
        assert!(!servers.is_same(again, remote("192.0.2.1:80")));
        assert_eq!(servers.again(remote("192.0.2.9:443"), &mut rng), None);
        assert_eq!(range.to_string(), "192.0.2.1:4000-4100");
        assert_eq!(address("[2001:db8::1]:443").to_string(), "[2001:db8::1]:443");
    }
}
