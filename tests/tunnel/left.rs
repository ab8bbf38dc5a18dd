//! What becomes of carriers that were left, and of servers that lost the race: each is told, and keeps nothing.
//!
//! ```text
//!   client ──┬── near ── server A
//!            └── far ─── server B, or another address of A
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use vpn::carrier::{Kind, Segment, parse};
use vpn::crypto::Timestamp;
use vpn::session::{Client, ClientEvent, ClientState, Server};

use super::world::settings;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// A client and servers that each answer at some addresses, and nothing in between but time.
struct Town {
    now: Instant,
    start: Instant,
    client: Client,
    servers: Vec<Server>,
    /// Each leads to a server, in half a round trip.
    ways: Vec<(SocketAddr, usize, Duration)>,
    /// When it arrives, and at which server; at the client if there is none.
    flying: Vec<(Instant, Option<usize>, Vec<u8>)>,
    /// What travelled, by which end.
    seen: Vec<(bool, Segment)>,
    /// Where the client dials from.
    local: SocketAddr,
    is_up: bool,
    /// The most sessions that each server had.
    most: Vec<usize>,
}

impl Town {
    /// The address of each way, to which server it leads and how long it is; the client takes each for a server of its own.
    fn new(ways: &[(&str, usize, u64)], seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (client, server) = settings(&mut rng);
        let now = start();
        let address = |address: &str| -> SocketAddr { address.parse().expect("an address") };
        let ways = ways.iter().map(|(at, server, ms)| (address(at), *server, Duration::from_millis(*ms)));
        let ways: Vec<_> = ways.collect();
        let count = ways.iter().map(|(_, server, _)| server + 1).max().expect("a way");
        let mut town = Self {
            now,
            start: now,
            client: Client::new(client, rng.random(), now),
            servers: (0..count).map(|_| Server::new(server.clone(), rng.random(), now)).collect(),
            flying: Vec::new(),
            seen: Vec::new(),
            local: address("192.0.2.2:40000"),
            is_up: false,
            most: vec![0; count],
            ways,
        };
        let servers = town.ways.iter().map(|(address, ..)| vec![*address]).collect();
        town.client.set_servers(servers, now);
        town
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let now = self.now;
            let servers = self.servers.iter().filter_map(|server| server.poll_timeout(now));
            let flying = self.flying.iter().map(|(at, ..)| *at);
            let next = servers.chain(flying).chain(self.client.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = next.max(now + Duration::from_micros(1));
            self.deliver();
        }
        self.now = end;
    }

    fn settle(&mut self) {
        let now = self.now;
        self.client.handle_timeout(now);
        while let Some(event) = self.client.poll_event() {
            match event {
                ClientEvent::Dial { attempt, .. } => {
                    self.local.set_port(self.local.port() + 1);
                    let wall = Duration::from_secs(1_700_000_000) + (now - self.start);
                    self.client.dial(attempt, self.local, Timestamp::from_unix(wall), now);
                }
                ClientEvent::Up { .. } => self.is_up = true,
                ClientEvent::Retired(_)
                | ClientEvent::Suspect
                | ClientEvent::Recovered
                | ClientEvent::Restarted
                | ClientEvent::Broken(_)
                | ClientEvent::Closed(_)
                | ClientEvent::Ended(_) => {}
            }
        }
        let mut packet = Vec::new();
        while self.client.poll_transmit(&mut packet, now) {
            let segment = parse(&packet).expect("a packet");
            let way = self.ways.iter().find(|(address, ..)| *address == segment.destination);
            let (_, server, delay) = way.expect("a way");
            self.flying.push((now + *delay, Some(*server), packet.clone()));
            self.seen.push((true, segment));
        }
        for server in &mut self.servers {
            server.handle_timeout(now);
            while server.poll_event().is_some() {}
            while server.poll_transmit(&mut packet, now) {
                let segment = parse(&packet).expect("a packet");
                let way = self.ways.iter().find(|(address, ..)| *address == segment.source);
                let (.., delay) = way.expect("a way");
                self.flying.push((now + *delay, None, packet.clone()));
                self.seen.push((false, segment));
            }
        }
        for (most, server) in self.most.iter_mut().zip(&self.servers) {
            *most = server.load().sessions.max(*most);
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (due, flying): (Vec<_>, Vec<_>) = self.flying.drain(..).partition(|(at, ..)| *at <= now);
        self.flying = flying;
        for (_, server, mut packet) in due {
            match server {
                Some(server) => self.servers[server].handle_packet(&mut packet, now),
                None => self.client.handle_packet(&mut packet, now),
            }
        }
    }

    fn sessions(&self) -> Vec<usize> {
        self.servers.iter().map(|server| server.load().sessions).collect()
    }

    fn is_up_now(&self) -> bool {
        self.is_up && self.client.status(self.now).state == ClientState::Up
    }

    /// The FINs between these two ends, and whether the last of each end was acknowledged: the client's, and the server's.
    fn fins(&self, local: SocketAddr) -> [(usize, bool); 2] {
        [true, false].map(|is_client| {
            let of = |by_client: bool| {
                self.seen.iter().enumerate().filter(move |(_, (by, segment))| {
                    let end = if by_client { segment.source } else { segment.destination };
                    *by == by_client && end == local
                })
            };
            let fins: Vec<_> = of(is_client).filter(|(_, (_, it))| it.kind() == Kind::Fin).collect();
            let is_acked = fins.last().is_some_and(|(at, (_, fin))| {
                let ack = fin.end().advanced_by(1);
                of(!is_client).any(|(later, (_, it))| later > *at && it.ack == ack)
            });
            (fins.len(), is_acked)
        })
    }
}

#[test]
fn a_server_that_lost_the_race_is_told_and_keeps_nothing() {
    for seed in 0..20 {
        // The second is asked 250 ms later and is so much nearer: both answer, and either may win.
        let near = 250 + 5 * (seed % 10);
        let mut town = Town::new(&[("203.0.113.9:443", 0, 300), ("203.0.113.10:443", 1, near)], seed);
        town.run_for(Duration::from_secs(6));
        assert!(town.is_up_now(), "seed {seed}");
        assert_eq!(town.most, [1, 1], "seed {seed}: the race was none");
        let sessions = town.sessions();
        assert_eq!(sessions.iter().sum::<usize>(), 1, "seed {seed}: {sessions:?}");
        let remote = town.client.remote().expect("up");
        let winner = town.ways.iter().position(|(address, ..)| *address == remote).expect("a way");
        assert_eq!(sessions[winner], 1, "seed {seed}");
        town.run_for(Duration::from_secs(30));
        let loads: Vec<_> = town.servers.iter().map(|server| server.load().carriers).collect();
        assert_eq!((loads[winner], loads[1 - winner]), (1, 0), "seed {seed}");
        assert!(town.is_up_now(), "seed {seed}");
    }
}

#[test]
fn a_server_that_is_named_twice_keeps_the_session_that_won() {
    for seed in 0..20 {
        let near = 250 + 5 * (seed % 10);
        let mut town = Town::new(&[("203.0.113.9:443", 0, 300), ("203.0.113.10:443", 0, near)], seed);
        town.run_for(Duration::from_secs(60));
        assert!(town.is_up_now(), "seed {seed}");
        let load = town.servers[0].load();
        assert_eq!((load.sessions, load.carriers), (1, 1), "seed {seed}: {load:?}");
        let status = town.client.status(town.now);
        assert_eq!((status.migrations, status.drops.frame), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_carrier_that_was_left_ends_with_a_fin_each_way_and_the_session_goes_on() {
    for seed in 0..20 {
        let mut town = Town::new(&[("203.0.113.9:443", 0, 40)], seed);
        town.run_for(Duration::from_secs(5));
        assert!(town.is_up_now(), "seed {seed}");
        let left = town.local;
        let elsewhere: IpAddr = [198, 18, 0, 2].into();
        town.local.set_ip(elsewhere);
        town.client.handle_network_change(Some(elsewhere), town.now);
        town.run_for(Duration::from_secs(9));
        assert_eq!(town.client.status(town.now).migrations, 1, "seed {seed}");
        assert_eq!(town.fins(left), [(0, false); 2], "seed {seed}: what is on its way is still opened");
        town.run_for(Duration::from_secs(6));
        assert_eq!(town.fins(left), [(1, true); 2], "seed {seed}");
        assert_eq!(town.fins(town.local), [(0, false); 2], "seed {seed}");
        town.run_for(Duration::from_secs(40));
        assert!(town.is_up_now(), "seed {seed}");
        let status = town.client.status(town.now);
        assert_eq!((status.outside.injected_fins, status.outside.injected_resets), (0, 0), "seed {seed}");
        let status = town.servers[0].status(town.now);
        assert_eq!(status.injected.fins, 0, "seed {seed}");
        let load = (town.servers[0].load(), town.client.load());
        assert_eq!((load.0.sessions, load.0.carriers, load.1.carriers), (1, 1, 1), "seed {seed}: {load:?}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a virtual clock must start somewhere")]
fn start() -> Instant {
    Instant::now()
}
