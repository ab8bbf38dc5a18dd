//! A box that meddles in the connections of others: forged resets, ends, beginnings and data.

use crate::craft::Bare;
use crate::ip::{Flow, TCP};
use crate::line::Direction;
use crate::middlebox::packet::Packet;
use crate::middlebox::{MAX_FLOWS, Segment, Station, Towards};
use crate::stats::Cause;
use crate::table::Table;
use crate::tcp::{ACK, FIN, PSH, RST, SYN, TcpHeader, is_after};

/// [`Middlebox::Forge`](crate::Middlebox::Forge).
#[derive(Debug)]
pub(crate) struct Forge {
    segment: Segment,
    towards: Towards,
    after: u64,
    every: Option<u64>,
    flows: Table<Flow, Watched>,
}

/// What the box knows of a flow.
#[derive(Debug, Default)]
struct Watched {
    packets: u64,
    /// For each direction, the sequence number that its receiver expects next: behind all that went there, or, if nothing has,
    /// what the receiver has acknowledged; `None` as long as neither is known.
    next: [Option<u32>; 2],
    /// For each direction, the last window advertised there.
    window: [u16; 2],
}

impl Forge {
    pub(crate) fn new(segment: Segment, towards: Towards, after: u64, every: Option<u64>) -> Self {
        Self { segment, towards, after, every, flows: Table::new(MAX_FLOWS) }
    }

    const fn is_time(&self, packets: u64) -> bool {
        match self.every {
            Some(every) if every > 0 && packets > self.after => (packets - self.after).is_multiple_of(every),
            _ => packets == self.after,
        }
    }

    const fn directions(&self) -> &'static [Direction] {
        match self.towards {
            Towards::Client => &[Direction::In],
            Towards::Router => &[Direction::Out],
            Towards::Both => &Direction::BOTH,
        }
    }
}

impl Station for Forge {
    fn handle(&mut self, packet: &mut Packet<'_>) -> Result<(), Cause> {
        let flow = packet.flow().filter(|flow| flow.protocol == TCP && !packet.is_forged());
        let (Some(flow), Some(segment)) = (flow, packet.intact_tcp()) else {
            return Ok(());
        };
        let watched = self.flows.entry(flow, Watched::default);
        watched.watch(packet.direction, &segment);
        let packets = watched.packets;
        if !self.is_time(packets) {
            return Ok(());
        }
        for direction in self.directions() {
            let forged = self
                .flows
                .get(&flow)
                .and_then(|watched| watched.forge(self.segment, packet.direction, *direction, packet.ends));
            if let Some(forged) = forged {
                packet.forge(*direction, &forged);
            }
        }
        Ok(())
    }
}

impl Watched {
    fn watch(&mut self, direction: Direction, segment: &TcpHeader) {
        self.packets += 1;
        self.window[direction.index()] = segment.window;
        let end = segment.end();
        let next = &mut self.next[direction.index()];
        // A SYN begins anew, also on a flow that is known.
        if segment.is_syn() || segment.is_syn_ack() || next.is_none_or(|next| is_after(end, next)) {
            *next = Some(end);
        }
        if segment.has(ACK) {
            self.next[direction.reverse().index()].get_or_insert(segment.ack);
        }
    }

    /// A segment that goes in `direction`, made after seeing one that goes in `seen` between `ends`.
    fn forge(
        &self,
        segment: Segment,
        seen: Direction,
        direction: Direction,
        ends: Option<(std::net::SocketAddr, std::net::SocketAddr)>,
    ) -> Option<Vec<u8>> {
        let (source, destination) =
            if seen == direction { ends? } else { ends.map(|(source, destination)| (destination, source))? };
        let own_window = self.window[direction.index()];
        let (flag, window) = match segment {
            Segment::Reset => (RST, 0),
            Segment::Fin => (FIN, own_window),
            Segment::Syn => (SYN, own_window),
            Segment::Data | Segment::StrayData => (PSH, own_window),
        };
        // To a SYN the other end has said nothing yet: its number is zero, as in the reset of a closed port.
        let next = self.next[direction.index()].unwrap_or(0);
        let seq = match segment {
            Segment::Reset | Segment::Fin | Segment::Data => next,
            Segment::Syn | Segment::StrayData => next.wrapping_add(FAR),
        };
        let acknowledged = self.next[direction.reverse().index()].filter(|_| segment != Segment::Syn);
        let (flags, ack) = acknowledged.map_or((flag, 0), |ack| (flag | ACK, ack));
        let payload = match segment {
            Segment::Data | Segment::StrayData => noise(self.packets),
            Segment::Reset | Segment::Fin | Segment::Syn => Vec::new(),
        };
        Bare { source, destination, seq, ack, flags, window }.packet(&payload)
    }
}

/// Bytes that look random, others for each seed (SplitMix64).
fn noise(seed: u64) -> Vec<u8> {
    let word = |place: u64| {
        let mut word =
            seed.wrapping_mul(NOISE as u64).wrapping_add(place).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)).to_le_bytes()
    };
    (1..).flat_map(word).take(NOISE).collect()
}

/// Farther than the largest window (RFC 7323, section 2.2), and nobody's past.
const FAR: u32 = 0x6000_0000;

/// Bytes of forged data: about a small packet of anybody.
const NOISE: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::Layer;
    use crate::testing::{ENDS, Rig, Tcp, address, damaged, ends, handshake, has_valid_checksums, udp};
    use crate::{End, Line, Middlebox, Profile};

    fn rig(segment: Segment, towards: Towards, after: u64, every: Option<u64>) -> Rig {
        Rig::new(Line::new(Profile::CLEAR).with(Middlebox::Forge { segment, towards, after, every }))
    }

    fn parse(packet: &[u8]) -> TcpHeader {
        TcpHeader::parse(packet, &Layer::Ip.parse(packet).unwrap()).unwrap()
    }

    /// A handshake and some data each way: 6 packets. The client stands at 1201, the server at 5301.
    fn talk(client: &str, server: &str) -> Vec<(Direction, Vec<u8>)> {
        let out = |flags| Tcp::between(client, server, Direction::Out, flags);
        let inward = |flags| Tcp::between(client, server, Direction::In, flags);
        let mut talk = vec![
            (Direction::Out, out(SYN).at(1000, 0).packet()),
            (Direction::In, inward(SYN | ACK).at(5000, 1001).packet()),
            (Direction::Out, out(ACK).at(1001, 5001).packet()),
        ];
        talk.push((Direction::Out, out(ACK).at(1001, 5001).payload(200).packet()));
        talk.push((Direction::In, inward(ACK).at(5001, 1201).payload(300).window(77).packet()));
        talk.push((Direction::Out, out(ACK).at(1201, 5301).packet()));
        talk
    }

    #[test]
    fn a_forged_reset_has_the_number_that_its_receiver_expects() {
        for place in [End::Client, End::Router] {
            for (client, server) in ENDS {
                let mut rig = rig(Segment::Reset, Towards::Both, 6, None);
                let now = rig.now();
                let boxes = [Middlebox::Forge {
                    segment: Segment::Reset,
                    towards: Towards::Both,
                    after: 6,
                    every: None,
                }];
                rig.emulator = crate::Emulator::new(
                    Line { middleboxes: boxes.to_vec(), place, ..Line::new(Profile::CLEAR) },
                    Layer::Ip,
                    1,
                    now,
                );
                let mut talk = talk(client, server);
                let (direction, last) = talk.pop().unwrap();
                for (direction, packet) in talk {
                    assert!(rig.passes(direction, &packet));
                }
                let mut out = rig.pass(direction, &last);
                assert!(out.contains(&(direction, last.clone())), "what triggers it passes");
                out.retain(|(_, packet)| *packet != last);
                out.sort_by_key(|(direction, _)| direction.index());
                let [(Direction::Out, to_server), (Direction::In, to_client)] = out.as_slice() else {
                    panic!("{out:?}")
                };
                let (one, other) = ends(&last);
                assert_eq!((ends(to_server), ends(to_client)), ((one, other), (other, one)));
                for (packet, seq, ack) in [(to_server, 1201, 5301), (to_client, 5301, 1201)] {
                    let segment = parse(packet);
                    assert!(has_valid_checksums(packet));
                    assert_eq!((segment.seq, segment.ack, segment.flags), (seq, ack, RST | ACK));
                }
                assert_eq!(Direction::BOTH.map(|direction| rig.stats(direction).forged), [1, 1]);
            }
        }
    }

    #[test]
    fn a_syn_is_answered_with_its_number_acknowledged() {
        for (client, server) in ENDS {
            let mut rig = rig(Segment::Reset, Towards::Both, 1, None);
            let (direction, syn) = talk(client, server).remove(0);
            let out = rig.pass(direction, &syn);
            let [to_server, to_client] = Direction::BOTH.map(|to| {
                let forged = out.iter().find(|(direction, packet)| *direction == to && *packet != syn);
                forged.map(|(_, packet)| packet).unwrap()
            });
            assert_eq!(out.len(), 3, "the SYN passes");
            assert_eq!((ends(to_server), ends(to_client)), (ends(&syn), (address(server), address(client))));
            assert!(has_valid_checksums(to_server) && has_valid_checksums(to_client));
            let segment = parse(to_client);
            assert_eq!((segment.seq, segment.ack, segment.flags), (0, 1001, RST | ACK));
            let segment = parse(to_server);
            assert_eq!((segment.seq, segment.ack, segment.flags), (1001, 0, RST), "nothing to acknowledge");
        }
    }

    #[test]
    fn a_forged_fin_comes_again_and_again_and_to_one_end_only() {
        let mut rig = rig(Segment::Fin, Towards::Client, 5, Some(3));
        let mut forged = Vec::new();
        let [(client, server), _] = ENDS;
        for (n, (direction, packet)) in (1..).zip(talk(client, server)) {
            let out = rig.pass(direction, &packet);
            forged
                .extend(out.into_iter().filter(|(_, other)| *other != packet).map(|(_, packet)| (n, packet)));
        }
        for n in 7..=14 {
            let packet = Tcp::new(Direction::Out, ACK).at(1201, 5301).packet();
            let out = rig.pass(Direction::Out, &packet);
            forged
                .extend(out.into_iter().filter(|(_, other)| *other != packet).map(|(_, packet)| (n, packet)));
        }
        assert_eq!(forged.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [5, 8, 11, 14]);
        let fin = parse(&forged[0].1);
        assert_eq!((fin.seq, fin.ack, fin.flags, fin.window), (5301, 1201, FIN | ACK, 77));
        assert_eq!(rig.stats(Direction::In).forged, 4);
        assert_eq!(rig.stats(Direction::Out).forged, 0);
    }

    #[test]
    fn forged_beginnings_and_data_stand_where_they_are_asked_for() {
        let [(client, server), _] = ENDS;
        for (segment, flags, seq, payload) in [
            (Segment::Syn, SYN, 5301 + FAR, 0),
            (Segment::Data, PSH | ACK, 5301, 200),
            (Segment::StrayData, PSH | ACK, 5301 + FAR, 200),
        ] {
            let mut rig = rig(segment, Towards::Client, 6, Some(1));
            for (direction, packet) in talk(client, server).drain(..5) {
                assert!(rig.passes(direction, &packet));
            }
            let mut last = Vec::new();
            for n in 0..2 {
                let ack = Tcp::new(Direction::Out, ACK).at(1201, 5301).packet();
                let out = rig.pass(Direction::Out, &ack);
                let forged: Vec<_> = out.into_iter().filter(|(_, packet)| *packet != ack).collect();
                let [(Direction::In, forged)] = forged.as_slice() else { panic!("{segment:?}: {forged:?}") };
                assert!(has_valid_checksums(forged));
                let parsed = parse(forged);
                assert_eq!((parsed.flags, parsed.seq, parsed.payload), (flags, seq, payload));
                assert_eq!(*forged == last, n > 0 && payload == 0, "other bytes each time");
                last.clone_from(forged);
            }
        }
    }

    #[test]
    fn a_damaged_segment_is_not_counted_and_its_numbers_are_not_believed() {
        let mut rig = rig(Segment::Reset, Towards::Both, 6, None);
        let [(client, server), _] = ENDS;
        let mut talk = talk(client, server);
        let (direction, last) = talk.pop().unwrap();
        for (direction, packet) in talk {
            assert!(rig.passes(direction, &packet));
        }
        for direction in Direction::BOTH {
            let damaged = damaged(&Tcp::new(direction, ACK).at(9000, 9000).payload(100));
            assert!(rig.passes(direction, &damaged));
        }
        let out = rig.pass(direction, &last);
        let forged: Vec<_> = out.iter().filter(|(_, packet)| *packet != last).collect();
        assert_eq!(forged.len(), 2);
        for (direction, packet) in forged {
            let (seq, ack) = if *direction == Direction::Out { (1201, 5301) } else { (5301, 1201) };
            assert_eq!((parse(packet).seq, parse(packet).ack), (seq, ack));
        }
    }

    #[test]
    fn counts_each_flow_for_itself_and_no_udp() {
        let mut rig = rig(Segment::Reset, Towards::Router, 2, None);
        for port in 1..10 {
            let client = format!("10.0.0.2:{port}");
            let syn = Tcp::between(&client, ENDS[0].1, Direction::Out, SYN).packet();
            assert_eq!(rig.pass(Direction::Out, &syn).len(), 1);
            assert_eq!(rig.pass(Direction::Out, &udp(&client, ENDS[0].1, 60)).len(), 1);
        }
        let (direction, syn_ack) = &handshake(None)[1];
        assert!(rig.passes(*direction, syn_ack), "an unknown flow, its first packet");
    }

    #[test]
    fn what_is_forged_is_not_counted_by_another_and_gets_no_answer() {
        let forge = |after| Middlebox::Forge {
            segment: Segment::Reset,
            towards: Towards::Router,
            after,
            every: None,
        };
        let narrow = Middlebox::Mtu { size: 39, icmp: true };
        let mut rig = Rig::new(Line::new(Profile::CLEAR).with(forge(2)).with(forge(3)).with(narrow));
        let [(client, server), _] = ENDS;
        let out: Vec<_> = talk(client, server).into_iter().filter(|(to, _)| *to == Direction::Out).collect();
        for (n, (direction, packet)) in (1..).zip(&out[..3]) {
            rig.pass(*direction, packet);
            assert_eq!(rig.stats(Direction::Out).forged, n - 1, "the second counts without the first one's");
            assert_eq!(rig.stats(Direction::In).forged, n, "the sender is told of its own packets only");
        }
    }

    #[test]
    fn two_of_them_do_not_answer_each_other() {
        let forge =
            Middlebox::Forge { segment: Segment::Reset, towards: Towards::Both, after: 1, every: Some(1) };
        let mut rig = Rig::new(Line::new(Profile::CLEAR).with(forge.clone()).with(forge));
        let [(client, server), _] = ENDS;
        for (direction, packet) in talk(client, server) {
            assert!(rig.pass(direction, &packet).len() <= 5);
        }
        assert!(rig.stats(Direction::Out).forged > 5);
    }
}
