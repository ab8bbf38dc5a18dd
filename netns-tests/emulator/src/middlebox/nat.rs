//! A NAT that can forget its mappings.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::craft::{ICMP_HEADER, is_icmp_error};
use crate::ip::{Flow, Layer};
use crate::line::Direction;
use crate::middlebox::packet::Packet;
use crate::middlebox::rewrite::{Role, rewrite, rewrite_quoted};
use crate::middlebox::{MAX_FLOWS, Station};
use crate::stats::Cause;
use crate::table::Table;

/// [`Middlebox::Nat`](crate::Middlebox::Nat). Every flow has a mapping of its own, also two of one port to different remotes.
#[derive(Debug)]
pub(crate) struct Nat {
    every: Option<Duration>,
    addresses: Vec<IpAddr>,
    last: Instant,
    /// Counts the times it was rebound.
    generation: u64,
    random: StdRng,
    /// By the flow as the client sees it.
    mappings: Table<Flow, Mapping>,
    /// By the flow as the world sees it: the client's end.
    clients: Table<Flow, SocketAddr>,
}

/// The source that the world sees.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    outside: SocketAddr,
    remote: SocketAddr,
    /// `None` if the flow was rebound alone since.
    generation: Option<u64>,
}

impl Nat {
    pub(crate) fn new(every: Option<Duration>, addresses: Vec<IpAddr>, seed: u64, now: Instant) -> Self {
        Self {
            every,
            addresses,
            last: now,
            generation: 0,
            random: StdRng::seed_from_u64(seed),
            mappings: Table::new(MAX_FLOWS),
            clients: Table::new(MAX_FLOWS),
        }
    }

    fn rebind_on_schedule(&mut self, now: Instant) {
        let Some(every) = self.every.filter(|every| !every.is_zero()) else {
            return;
        };
        while now.saturating_duration_since(self.last) >= every {
            self.last += every;
            self.generation += 1;
        }
    }

    /// The source that the world shall see of a flow from `client`; a new one if there is none or it was rebound.
    fn outside_of(&mut self, protocol: u8, client: SocketAddr, remote: SocketAddr) -> SocketAddr {
        let flow = Flow::new(protocol, client, remote);
        let before = self.mappings.get(&flow).copied();
        if let Some(mapping) = before.filter(|mapping| mapping.generation == Some(self.generation)) {
            return mapping.outside;
        }
        if let Some(old) = before {
            self.clients.remove(&Flow::new(protocol, old.outside, remote));
        }
        let outside = self.choose(protocol, client, remote, before);
        let mapping = Mapping { outside, remote, generation: Some(self.generation) };
        if let Some((gone, mapping)) = self.mappings.insert(flow, mapping) {
            self.clients.remove(&Flow::new(gone.protocol, mapping.outside, mapping.remote));
        }
        self.clients.insert(Flow::new(protocol, outside, remote), client);
        outside
    }

    /// A new flow keeps its port if it can; one that was rebound gets another.
    fn choose(
        &mut self,
        protocol: u8,
        client: SocketAddr,
        remote: SocketAddr,
        before: Option<Mapping>,
    ) -> SocketAddr {
        let address = self.address(client.ip());
        let mut port =
            before.map_or_else(|| client.port(), |_| self.random.random_range(FIRST_PORT..=u16::MAX));
        for _ in 0..PORTS_TO_TRY {
            let outside = SocketAddr::new(address, port);
            let is_free = !self.clients.contains(&Flow::new(protocol, outside, remote));
            if is_free && before.is_none_or(|before| before.outside.port() != port) {
                break;
            }
            port = self.random.random_range(FIRST_PORT..=u16::MAX);
        }
        SocketAddr::new(address, port)
    }

    /// The address of the outside in this generation for a client at `own`.
    fn address(&self, own: IpAddr) -> IpAddr {
        let of_family: Vec<IpAddr> =
            self.addresses.iter().copied().filter(|address| address.is_ipv4() == own.is_ipv4()).collect();
        let Some(times) = self.generation.checked_sub(1).filter(|_| !of_family.is_empty()) else {
            return own;
        };
        let turn = times % of_family.len() as u64;
        usize::try_from(turn).ok().and_then(|turn| of_family.get(turn)).copied().unwrap_or(own)
    }

    /// The client's end of a flow that comes in from `remote`.
    fn client_of(&mut self, protocol: u8, outside: SocketAddr, remote: SocketAddr) -> Option<SocketAddr> {
        let client = *self.clients.get(&Flow::new(protocol, outside, remote))?;
        let mapping = self.mappings.get(&Flow::new(protocol, client, remote))?;
        (mapping.generation == Some(self.generation)).then_some(client)
    }

    fn translate(&mut self, packet: &mut Packet<'_>, ends: (SocketAddr, SocketAddr)) -> Result<(), Cause> {
        let (source, destination) = ends;
        let protocol = packet.header.protocol;
        let (role, old, new) = match packet.direction {
            Direction::Out => (Role::Source, source, self.outside_of(protocol, source, destination)),
            Direction::In => {
                let client = self.client_of(protocol, destination, source).ok_or(Cause::Unmapped)?;
                (Role::Destination, destination, client)
            }
        };
        if old != new {
            let header = packet.header;
            rewrite(packet.bytes_mut(), &header, role, old, new);
            packet.stats.translated += 1;
            packet.reread();
        }
        Ok(())
    }

    /// Translates the packet that an ICMP error quotes: it went the other way, so its other end is the client's.
    fn translate_quoted(&mut self, packet: &mut Packet<'_>) -> Result<(), Cause> {
        let at = packet.header.transport + ICMP_HEADER;
        let Some(quoted) = packet.bytes().get(at..packet.header.end) else {
            return Ok(());
        };
        let Some(header) = Layer::Ip.parse(quoted) else {
            return Ok(());
        };
        let Some((source, destination)) = header.ends(quoted) else {
            return Ok(());
        };
        let (role, old, new) = match packet.direction {
            Direction::Out => {
                let mapping = self.mappings.get(&Flow::new(header.protocol, destination, source));
                let live = mapping.filter(|mapping| mapping.generation == Some(self.generation));
                (Role::Destination, destination, live.ok_or(Cause::Unmapped)?.outside)
            }
            Direction::In => {
                let client = self.client_of(header.protocol, source, destination).ok_or(Cause::Unmapped)?;
                (Role::Source, source, client)
            }
        };
        if old != new {
            let outer = packet.header;
            rewrite_quoted(packet.bytes_mut(), &outer, &header, role, old, new);
            packet.stats.translated += 1;
        }
        Ok(())
    }
}

impl Station for Nat {
    fn handle(&mut self, packet: &mut Packet<'_>) -> Result<(), Cause> {
        self.rebind_on_schedule(packet.now);
        if let Some(ends) = packet.ends {
            self.translate(packet, ends)
        } else if is_icmp_error(packet.bytes(), &packet.header) {
            self.translate_quoted(packet)
        } else {
            Ok(())
        }
    }

    fn rebind(&mut self, now: Instant) {
        self.rebind_on_schedule(now);
        self.generation += 1;
    }

    fn rebind_flow(&mut self, flow: &Flow) {
        if let Some(mapping) = self.mappings.get_mut(flow) {
            mapping.generation = None;
        }
    }
}

/// The lowest port that is given to a rebound flow; those below belong to services.
const FIRST_PORT: u16 = 1024;

/// How often a port is drawn before one that is taken is used twice: with 65,536 flows to one remote, half of all are free.
const PORTS_TO_TRY: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::ip::UDP;
    use crate::tcp::ACK;
    use crate::testing::{
        CLIENT, ENDS, IP_CHECKSUM, MILLISECOND, Rig, SERVER, Tcp, address, ends, flow, has_valid_checksums,
        icmp, transport_checksum_at, udp,
    };
    use crate::{Line, Middlebox, Profile};

    const OUTSIDE: &str = "10.0.0.77";
    const OUTSIDE_V6: &str = "2001:db8:1::77";

    fn rig(addresses: &[&str], every: Option<Duration>) -> Rig {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Rig::new(Line::new(Profile::CLEAR).with(Middlebox::Nat { every, addresses }))
    }

    fn rebind(rig: &mut Rig) {
        let now = rig.now();
        rig.emulator.rebind(now);
    }

    /// The one packet that comes out, with valid checksums.
    fn pass(rig: &mut Rig, direction: Direction, packet: &[u8]) -> Vec<u8> {
        let out = rig.pass(direction, packet);
        let [(_, passed)] = out.as_slice() else { panic!("{out:?}") };
        assert!(has_valid_checksums(passed), "{passed:02x?}");
        assert_eq!(passed.len(), packet.len());
        passed.clone()
    }

    /// A TCP and a UDP packet of each family from the client.
    fn packets() -> Vec<Vec<u8>> {
        ENDS.into_iter()
            .flat_map(|(client, server)| {
                let segment = Tcp::between(client, server, Direction::Out, ACK).at(7, 9).payload(333);
                [segment.packet(), udp(client, server, 777)]
            })
            .collect()
    }

    /// The packet with its two ends exchanged: checksums do not change by that.
    fn answer(packet: &[u8]) -> Vec<u8> {
        let header = Layer::Ip.parse(packet).unwrap();
        let mut answer = packet.to_vec();
        let (at, length) = if header.is_ipv6 { (8, 16) } else { (12, 4) };
        answer[at..at + 2 * length].rotate_left(length);
        answer[header.transport..header.transport + 4].rotate_left(2);
        assert!(has_valid_checksums(&answer));
        answer
    }

    #[test]
    fn a_flow_keeps_its_source_until_the_nat_is_rebound() {
        let mut rig = rig(&[OUTSIDE, OUTSIDE_V6], None);
        for packet in packets() {
            assert!(rig.passes(Direction::Out, &packet));
            assert!(rig.passes(Direction::In, &answer(&packet)));
        }
        assert_eq!(rig.stats(Direction::Out).translated, 0);
    }

    #[test]
    fn a_rebound_flow_has_another_port_and_valid_checksums_both_ways() {
        let mut rig = rig(&[], None);
        for packet in packets() {
            assert!(rig.passes(Direction::Out, &packet));
            rebind(&mut rig);
            let passed = pass(&mut rig, Direction::Out, &packet);
            let ((before, remote), (after, to)) = (ends(&packet), ends(&passed));
            assert_eq!((before.ip(), remote), (after.ip(), to));
            assert_ne!(before.port(), after.port());
            assert!(after.port() >= FIRST_PORT);
            assert_eq!(passed, pass(&mut rig, Direction::Out, &packet), "the mapping stays");
            assert_eq!(pass(&mut rig, Direction::In, &answer(&passed)), answer(&packet));
        }
        assert_eq!(rig.stats(Direction::Out).translated, 8);
        assert_eq!(rig.stats(Direction::In).translated, 4);
    }

    #[test]
    fn the_address_changes_in_turn_if_there_are_some() {
        let v6 = [OUTSIDE_V6; 3];
        for (packet, expected) in packets()
            .iter()
            .zip([[OUTSIDE, "10.0.0.78", OUTSIDE], v6].into_iter().flat_map(|turns| [turns; 2]))
        {
            let mut rig = rig(&[OUTSIDE, OUTSIDE_V6, "10.0.0.78"], None);
            assert!(rig.passes(Direction::Out, packet));
            for outside in expected {
                rebind(&mut rig);
                let passed = pass(&mut rig, Direction::Out, packet);
                assert_eq!(ends(&passed).0.ip(), outside.parse::<IpAddr>().unwrap());
                assert_eq!(pass(&mut rig, Direction::In, &answer(&passed)), answer(packet));
            }
        }
    }

    #[test]
    fn packets_to_the_old_mapping_are_dropped() {
        for packet in packets() {
            let mut rig = rig(&[OUTSIDE, OUTSIDE_V6], None);
            let old = answer(&packet);
            assert!(rig.passes(Direction::Out, &packet));
            assert!(rig.passes(Direction::In, &old));
            rebind(&mut rig);
            assert!(rig.pass(Direction::In, &old).is_empty(), "before the client sends again");
            let between = answer(&pass(&mut rig, Direction::Out, &packet));
            assert!(rig.pass(Direction::In, &old).is_empty(), "and after");
            rebind(&mut rig);
            pass(&mut rig, Direction::Out, &packet);
            assert!(rig.pass(Direction::In, &between).is_empty());
            assert_eq!(rig.stats(Direction::In).unmapped, 3);
        }
    }

    #[test]
    fn nothing_comes_in_that_did_not_go_out() {
        let mut rig = rig(&[], None);
        for packet in packets() {
            assert!(rig.pass(Direction::In, &answer(&packet)).is_empty());
        }
        let ping = icmp(address(SERVER).ip(), address(CLIENT).ip(), 8, &[]);
        assert!(rig.passes(Direction::In, &ping), "a NAT of TCP and UDP only");
    }

    #[test]
    fn a_schedule_rebinds_by_itself() {
        let mut rig = rig(&[], Some(MILLISECOND * 100));
        let mut ports = Vec::new();
        for _ in 0..10 {
            ports.push(ends(&pass(&mut rig, Direction::Out, &udp(CLIENT, SERVER, 60))).0.port());
            rig.wait(MILLISECOND * 50);
        }
        assert_eq!(ports[0], 40000);
        assert!(ports.chunks(2).all(|pair| pair[0] == pair[1]), "{ports:?}");
        assert_eq!(ports.into_iter().collect::<HashSet<_>>().len(), 5);
    }

    #[test]
    fn one_flow_can_be_rebound_alone() {
        let mut rig = rig(&[], None);
        let others = udp("10.0.0.2:40001", SERVER, 60);
        let own = udp(CLIENT, SERVER, 60);
        assert!(rig.passes(Direction::Out, &own) && rig.passes(Direction::Out, &others));
        rig.emulator.rebind_flow(&flow(UDP));
        assert!(rig.pass(Direction::In, &answer(&own)).is_empty());
        assert_ne!(ends(&pass(&mut rig, Direction::Out, &own)).0.port(), 40000);
        assert!(rig.passes(Direction::Out, &others));
    }

    #[test]
    fn a_new_flow_after_a_rebinding_keeps_its_port_and_has_the_new_address() {
        let mut rig = rig(&[OUTSIDE], None);
        rebind(&mut rig);
        let passed = pass(&mut rig, Direction::Out, &udp(CLIENT, SERVER, 60));
        assert_eq!(ends(&passed).0, format!("{OUTSIDE}:40000").parse().unwrap());
    }

    #[test]
    fn two_flows_never_share_a_mapping() {
        let mut rig = rig(&[], None);
        let client = |n: u32| format!("10.0.{}.2:{}", n % 256, 40000 + n / 256);
        for _ in 0..3 {
            let outside: HashSet<_> = (0..2000)
                .map(|n| ends(&pass(&mut rig, Direction::Out, &udp(&client(n), SERVER, 60))).0)
                .collect();
            assert_eq!(outside.len(), 2000);
            rebind(&mut rig);
        }
    }

    #[test]
    fn a_mapping_that_is_used_outlives_any_number_of_short_flows() {
        for used in Direction::BOTH {
            let mut rig = rig(&[], None);
            let (live, idle) = (udp(CLIENT, SERVER, 60), udp("10.0.0.2:40001", SERVER, 60));
            assert!(rig.passes(Direction::Out, &live) && rig.passes(Direction::Out, &idle));
            for n in 0..MAX_FLOWS {
                let client = format!("10.1.{}.{}:5000", n / 256, n % 256);
                assert!(rig.passes(Direction::Out, &udp(&client, SERVER, 60)));
                if n % 1000 == 0 {
                    let packet = if used == Direction::Out { live.clone() } else { answer(&live) };
                    assert!(rig.passes(used, &packet), "{n}");
                }
            }
            assert!(rig.passes(Direction::In, &answer(&live)), "used by what goes {used:?}");
            assert!(rig.pass(Direction::In, &answer(&idle)).is_empty());
        }
    }

    #[test]
    fn a_partial_checksum_stays_the_sum_of_the_pseudo_header() {
        let mut rig = rig(&[OUTSIDE, OUTSIDE_V6], None);
        rebind(&mut rig);
        for mut packet in packets() {
            let at = transport_checksum_at(&packet);
            let partial = |packet: &[u8]| {
                let header = Layer::Ip.parse(packet).unwrap();
                u16::try_from(crate::checksum::pseudo_header(packet, &header)).unwrap().to_be_bytes()
            };
            let field = partial(&packet);
            packet[at..at + 2].copy_from_slice(&field);
            let out = rig.pass(Direction::Out, &packet);
            rebind(&mut rig);
            let again = rig.pass(Direction::Out, &packet);
            for (_, passed) in [&out[0], &again[0]] {
                assert_ne!(ends(passed).0.ip(), ends(&packet).0.ip());
                assert_eq!(passed[at..at + 2], partial(passed));
            }
            assert_ne!(ends(&again[0].1).0.port(), 40000);
        }
    }

    #[test]
    fn a_full_checksum_that_looks_like_a_partial_one_stays_valid() {
        let mut rig = rig(&[OUTSIDE], None);
        rebind(&mut rig);
        let mut packet = udp(CLIENT, SERVER, 60);
        let at = transport_checksum_at(&packet);
        let pseudo = crate::checksum::pseudo_header(&packet, &Layer::Ip.parse(&packet).unwrap());
        // The last two bytes of the payload make the full checksum what we want it to be.
        let wanted = u16::try_from(pseudo).unwrap();
        packet[58..60].fill(0);
        packet[at..at + 2].copy_from_slice(&wanted.to_be_bytes());
        let rest = crate::checksum::checksum(&packet[20..], pseudo);
        packet[58..60].copy_from_slice(&rest.to_be_bytes());
        assert!(has_valid_checksums(&packet));
        pass(&mut rig, Direction::Out, &packet);
    }

    #[test]
    fn udp_without_a_checksum_gets_none() {
        let mut rig = rig(&[OUTSIDE], None);
        rebind(&mut rig);
        let mut packet = udp(CLIENT, SERVER, 60);
        packet[26..28].fill(0);
        let out = rig.pass(Direction::Out, &packet);
        assert_eq!(out[0].1[26..28], [0, 0]);
        assert_eq!(ends(&out[0].1).0.ip(), OUTSIDE.parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_checksum_of_udp_never_becomes_the_zero_that_says_there_is_none() {
        let mut rig = rig(&[OUTSIDE], None);
        rebind(&mut rig);
        let mut full = 0;
        for tail in 0..=u16::MAX {
            let mut packet = udp(CLIENT, SERVER, 60);
            packet[26..28].fill(0);
            packet[58..60].copy_from_slice(&tail.to_be_bytes());
            let header = Layer::Ip.parse(&packet).unwrap();
            let sum =
                crate::checksum::checksum(&packet[20..], crate::checksum::pseudo_header(&packet, &header));
            packet[26..28].copy_from_slice(&if sum == 0 { [0xff; 2] } else { sum.to_be_bytes() });
            let passed = pass(&mut rig, Direction::Out, &packet);
            assert_ne!(passed[26..28], [0, 0], "{tail}");
            full += u32::from(passed[26..28] == [0xff, 0xff]);
        }
        assert!(full > 0);
    }

    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let mut rig = rig(&[OUTSIDE], None);
        rebind(&mut rig);
        for at in [IP_CHECKSUM, 36] {
            let mut packet = Tcp::new(Direction::Out, ACK).payload(100).packet();
            packet[at] ^= 0x10;
            let out = rig.pass(Direction::Out, &packet);
            assert!(!has_valid_checksums(&out[0].1));
        }
    }

    #[test]
    fn an_error_about_a_translated_packet_finds_its_sender() {
        for (kind_v4, kind_v6) in [(3, 1), (11, 3), (3, 2)] {
            let mut rig = rig(&[OUTSIDE, OUTSIDE_V6], None);
            for packet in packets() {
                rig.pass(Direction::Out, &packet);
                rebind(&mut rig);
                let passed = pass(&mut rig, Direction::Out, &packet);
                let (outside, remote) = ends(&passed);
                let kind = if remote.is_ipv4() { kind_v4 } else { kind_v6 };
                let from_afar = icmp(remote.ip(), outside.ip(), kind, &passed[..passed.len().min(500)]);
                let told = pass(&mut rig, Direction::In, &from_afar);
                let client = ends(&packet).0;
                let header = Layer::Ip.parse(&told).unwrap();
                assert_eq!(header.destination(&told), Some(client.ip()));
                let quoted = &told[header.transport + ICMP_HEADER..];
                let before_checksum = if remote.is_ipv4() { 20 + 6 } else { 40 + 6 };
                assert_eq!(quoted[..before_checksum], packet[..before_checksum]);

                let back = answer(&packet);
                let from_client = icmp(client.ip(), remote.ip(), kind, &back[..100]);
                let told = pass(&mut rig, Direction::Out, &from_client);
                let header = Layer::Ip.parse(&told).unwrap();
                assert_eq!(header.source(&told), Some(outside.ip()));
                let quoted = Layer::Ip.parse(&told[header.transport + 8..]).unwrap();
                assert_eq!(quoted.ends(&told[header.transport + 8..]), Some((remote, outside)));
                rebind(&mut rig);
                assert!(rig.pass(Direction::In, &from_afar).is_empty(), "the mapping is gone");
            }
        }
    }
}
