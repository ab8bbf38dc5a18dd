//! Datagrams beside the streams: each is to arrive unchanged and once, or not at all.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use vpn::egress::EgressPolicy;

use super::app::addresses_of_client;
use super::weather::FAIR;
use super::world::{SERVER_TUNNEL_ADDRESS, World};

/// All datagrams of a run.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    /// Sent and not seen again, by their number.
    on_the_way: BTreeMap<u64, Vec<u8>>,
    next: u64,
    pub(crate) arrived: u64,
    /// How often a sender learned so.
    pub(crate) told: u64,
}

impl Datagrams {
    /// Sends one datagram of each kind: UDP up and down, over IPv4 and IPv6, and a ping to the server.
    pub(crate) fn send(&mut self, world: &mut World, length: usize) {
        let (v4, v6) = addresses_of_client();
        let far_v4 = Ipv4Addr::new(198, 51, 100, 53);
        let far_v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);
        for (source, destination) in [(v4, far_v4), (v4, SERVER_TUNNEL_ADDRESS)] {
            let kind = if destination == far_v4 { Kind::Udp } else { Kind::Echo };
            self.send_up(world, |number| emit_v4(source, destination, kind, number, length));
        }
        self.send_up(world, |number| emit_v6(v6, far_v6, number, length));
        self.send_down(world, |number| emit_v4(far_v4, v4, Kind::Udp, number, length));
        self.send_down(world, |number| emit_v6(far_v6, v6, number, length));
    }

    /// Takes what arrived at either end, and answers pings.
    pub(crate) fn collect(&mut self, world: &mut World) {
        for packet in std::mem::take(&mut world.server_tun) {
            if is_error(&packet) {
                self.note_error(&packet);
                continue;
            }
            self.note(&packet);
            if packet[0] >> 4 == 4 && packet[9] == 1 && packet[20] == 8 {
                let length = packet.len() - 28;
                let (v4, _) = addresses_of_client();
                let answer = |number| emit_v4(SERVER_TUNNEL_ADDRESS, v4, Kind::EchoReply, number, length);
                self.send_down(world, answer);
            }
        }
        let hosts = world.hosts.iter_mut();
        let arrived: Vec<_> = hosts.flat_map(|host| std::mem::take(&mut host.apps.datagrams)).collect();
        for packet in arrived {
            if is_error(&packet) {
                self.note_error(&packet);
            } else {
                self.note(&packet);
            }
        }
    }

    /// How many have not arrived, or not yet.
    pub(crate) fn missing(&self) -> usize {
        self.on_the_way.len()
    }

    /// Those that have not arrived by now are lost.
    pub(crate) fn give_up(&mut self) {
        self.on_the_way.clear();
    }

    fn send_up(&mut self, world: &mut World, emit: impl FnOnce(u64) -> Vec<u8>) {
        let packet = self.number(emit);
        let now = world.now;
        let host = world.host_mut();
        if !host.is_asleep() {
            host.client.handle_tun(&packet, now);
        }
    }

    fn send_down(&mut self, world: &mut World, emit: impl FnOnce(u64) -> Vec<u8>) {
        let packet = self.number(emit);
        world.server.handle_tun(&packet, world.now);
    }

    fn number(&mut self, emit: impl FnOnce(u64) -> Vec<u8>) -> Vec<u8> {
        self.next += 1;
        let packet = emit(self.next);
        self.on_the_way.insert(self.next, packet.clone());
        packet
    }

    fn note_error(&mut self, packet: &[u8]) {
        let (mtu, quote) = match packet[0] >> 4 {
            4 if packet[21] == 4 => (u32::from(u16::from_be_bytes([packet[26], packet[27]])), &packet[28..]),
            6 if packet[40] == 2 => {
                (u32::from_be_bytes(*packet[44..].first_chunk().expect("a whole message")), &packet[48..])
            }
            // About a connection.
            _ => return,
        };
        let sent = self.on_the_way.remove(&number_of(quote)).expect("told once, of what was sent");
        let mtu = usize::try_from(mtu).expect("small");
        assert!(SIZES.contains(&mtu), "told of packets of {mtu} bytes");
        let is_v6 = sent[0] >> 4 == 6;
        assert!(
            sent.len() > mtu && (is_v6 || sent.len() <= 1500),
            "told that {} bytes are too many",
            sent.len()
        );
        self.told += 1;
    }

    fn note(&mut self, packet: &[u8]) {
        let number = number_of(packet);
        let sent = self.on_the_way.remove(&number);
        let sent =
            sent.unwrap_or_else(|| panic!("datagram {number} arrived twice, or was given up or never sent"));
        assert!(sent == packet, "datagram {number} was changed");
        self.arrived += 1;
    }
}

/// The number that a datagram, or what an ICMP error quotes of it, begins with.
fn number_of(packet: &[u8]) -> u64 {
    let header = if packet[0] >> 4 == 4 { 28 } else { 48 };
    let number = packet.get(header..).and_then(|payload| payload.first_chunk()).copied();
    u64::from_be_bytes(number.expect("a datagram of ours"))
}

/// Whether it is an ICMP error.
fn is_error(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => packet[9] == 1 && packet[20] == 3,
        _ => packet[6] == 58 && packet[40] < 128,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Udp,
    Echo,
    EchoReply,
}

/// Headers without checksums, which the tunnel carries as they are; then the number and `length` bytes.
fn emit_v4(source: Ipv4Addr, destination: Ipv4Addr, kind: Kind, number: u64, length: usize) -> Vec<u8> {
    let total = 20 + 8 + length.max(8);
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&u16::try_from(total).expect("a packet").to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0x40, 0, 64, if kind == Kind::Udp { 17 } else { 1 }, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    match kind {
        Kind::Udp => packet.extend_from_slice(&udp_header(total - 20)),
        Kind::Echo => packet.extend_from_slice(&[8, 0, 0, 0, 0, 1, 0, 1]),
        Kind::EchoReply => packet.extend_from_slice(&[0, 0, 0, 0, 0, 1, 0, 1]),
    }
    fill(packet, total, number)
}

fn emit_v6(source: Ipv6Addr, destination: Ipv6Addr, number: u64, length: usize) -> Vec<u8> {
    let payload = 8 + length.max(8);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&u16::try_from(payload).expect("a packet").to_be_bytes());
    packet.extend_from_slice(&[17, 64]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(&udp_header(payload));
    fill(packet, 40 + payload, number)
}

fn udp_header(length: usize) -> [u8; 8] {
    let [high, low] = u16::try_from(length).expect("a packet").to_be_bytes();
    [0x30, 0x39, 0x30, 0x3a, high, low, 0, 0]
}

fn fill(mut packet: Vec<u8>, total: usize, number: u64) -> Vec<u8> {
    packet.extend_from_slice(&number.to_be_bytes());
    let bytes = number.to_le_bytes();
    packet.extend(bytes.iter().cycle().take(total - packet.len()));
    packet
}

#[test]
fn datagrams_reach_the_servers_own_address_where_that_is_allowed() {
    let (own, _) = addresses_of_client();
    let arrived = |allow: &[&str]| {
        let allow = allow.iter().map(|entry| entry.parse().expect("an entry")).collect();
        let mut world = World::with_settings(FAIR, 1, |_, server| {
            server.egress = EgressPolicy::new(allow, Vec::new(), []);
        });
        world.come_up();
        let packet = emit_v4(own, SERVER_TUNNEL_ADDRESS, Kind::Udp, 1, 100);
        let now = world.now;
        world.host_mut().client.handle_tun(&packet, now);
        world.run_for(Duration::from_secs(1));
        let denied = world.server.status(world.now).drops.denied;
        (world.server_tun.contains(&packet), denied)
    };
    assert_eq!(arrived(&[]), (false, 1));
    assert_eq!(arrived(&["10.77.0.1/32:12345"]), (false, 1));
    assert_eq!(arrived(&["10.77.0.1/32:12346"]), (true, 0));
    assert_eq!(arrived(&["10.77.0.1/32"]), (true, 0));
}

#[test]
fn the_fragments_of_the_largest_datagram_all_arrive_over_an_idle_tunnel() {
    let (own, _) = addresses_of_client();
    let far = Ipv4Addr::new(198, 51, 100, 53);
    let mut world = World::new(FAIR, 1);
    world.run_for(Duration::from_secs(30));
    let fragments: Vec<_> = (0..45)
        .map(|number| {
            let mut packet = emit_v4(far, own, Kind::Udp, number, 1472);
            // More fragments, and a router may cut them.
            packet[6] = 0x20;
            packet
        })
        .collect();
    for fragment in &fragments {
        world.server.handle_tun(fragment, world.now);
    }
    world.run_for(Duration::from_secs(2));
    let arrived = &world.host().apps.datagrams;
    assert_eq!(arrived.len(), fragments.len());
    assert!(fragments.iter().all(|fragment| arrived.contains(fragment)));
}

/// What senders are told: what one packet of the tunnel carries over the smallest path and over Ethernet, in IPv4 or IPv6.
const SIZES: std::ops::RangeInclusive<usize> = 1193..=1433;
