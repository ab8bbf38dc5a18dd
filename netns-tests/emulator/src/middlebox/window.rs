//! A firewall that knows which sequence numbers the ends of a TCP connection may use.
//!
//! The bounds are those of conntrack with `be_liberal=0` (Linux 6.1 and later), after "Real Stateful TCP Packet Filtering in IP
//! Filter" by Guido van Rooij. A segment from one end must
//!
//! - begin at or before the right edge of the highest window that the other end has offered; one that ends within one window more
//!   still passes if its acknowledgement is recent,
//! - acknowledge nothing that the other end has not sent.
//!
//! What is too *old* (data that was acknowledged long ago, a very late acknowledgement) passes and changes nothing. The window in a
//! SYN or SYN-ACK is not scaled, so until the server's next segment the client may send 64 KiB only. A SYN passes always; a
//! SYN-ACK that answers it begins the connection anew, also on a 5-tuple that is known. A segment with a wrong checksum passes and
//! changes nothing: what to think of it is left to its receiver.

use crate::ip::{Flow, TCP};
use crate::line::Direction;
use crate::middlebox::packet::Packet;
use crate::middlebox::{MAX_FLOWS, Station};
use crate::stats::Cause;
use crate::table::Table;
use crate::tcp::{ACK, RST, TcpHeader, is_after};

/// [`Middlebox::RequireWindow`](crate::Middlebox::RequireWindow).
#[derive(Debug)]
pub(crate) struct RequireWindow {
    connections: Table<Flow, Connection>,
}

impl RequireWindow {
    pub(crate) fn new() -> Self {
        Self { connections: Table::new(MAX_FLOWS) }
    }
}

impl Station for RequireWindow {
    fn handle(&mut self, packet: &mut Packet<'_>) -> Result<(), Cause> {
        let flow = packet.flow().filter(|flow| flow.protocol == TCP);
        let (Some(flow), Some(segment)) = (flow, packet.intact_tcp()) else {
            return Ok(());
        };
        let connection = self.connections.entry(flow, Connection::default);
        if connection.accepts(packet.direction, &segment) { Ok(()) } else { Err(Cause::OutOfWindow) }
    }
}

/// What the box knows of a connection.
#[derive(Debug, Default)]
struct Connection {
    /// A SYN that may still be answered.
    syn: Option<(Direction, Side)>,
    /// The sides by the direction in which they send; `None` while the handshake was not seen.
    sides: Option<[Side; 2]>,
    /// Whether there was a packet before the first SYN: such a connection cannot be judged.
    is_old: bool,
}

impl Connection {
    fn accepts(&mut self, direction: Direction, segment: &TcpHeader) -> bool {
        if segment.is_syn() {
            self.syn = Some((direction, Side::opening(segment)));
            return true;
        }
        if segment.is_syn_ack() {
            return self.answer(direction, segment);
        }
        let Some(sides) = &mut self.sides else {
            // Nothing was offered yet: whoever sent a SYN has to wait, the other end may refuse.
            let is_waiting = self.syn.is_some_and(|(opened, _)| opened == direction);
            self.is_old |= self.syn.is_none();
            return self.is_old || !is_waiting || segment.has(RST);
        };
        if self.syn.is_some_and(|(opened, side)| opened == direction && segment.seq == side.end) {
            self.syn = None;
        }
        let [out, inward] = sides;
        match direction {
            Direction::Out => out.accepts(inward, segment),
            Direction::In => inward.accepts(out, segment),
        }
    }

    /// Takes a SYN-ACK: the beginning, if it answers the SYN. Another one is for the ends to judge.
    fn answer(&mut self, direction: Direction, segment: &TcpHeader) -> bool {
        match self.syn {
            Some((opened, first)) if opened != direction && segment.ack == first.end => {
                let (mut first, mut second) = (first, Side::opening(segment));
                if first.scale.is_none() || second.scale.is_none() {
                    (first.scale, second.scale) = (None, None);
                }
                first.allowed = segment.ack.wrapping_add(u32::from(segment.window));
                second.highest_ack = Some(segment.ack);
                self.sides = Some(match direction {
                    Direction::Out => [second, first],
                    Direction::In => [first, second],
                });
                true
            }
            _ => self.sides.is_some() || self.is_old,
        }
    }
}

/// One end of a connection, as far as it has shown itself.
#[derive(Debug, Clone, Copy)]
struct Side {
    /// Behind the highest sequence number sent.
    end: u32,
    /// The right edge of the highest window that the other end has offered.
    allowed: u32,
    /// The largest window that this end has offered.
    window: u32,
    scale: Option<u8>,
    takes_sack: bool,
    highest_ack: Option<u32>,
}

impl Side {
    /// What a SYN or SYN-ACK shows of its sender.
    fn opening(segment: &TcpHeader) -> Self {
        let end = segment.end();
        Self {
            end,
            allowed: end,
            window: u32::from(segment.window).max(1),
            scale: segment.scale,
            takes_sack: segment.sack_permitted,
            highest_ack: None,
        }
    }

    /// Judges a segment of this end, and learns from it what both may do next.
    fn accepts(&mut self, other: &mut Self, segment: &TcpHeader) -> bool {
        let end = segment.end();
        let (ack, sack) = self.acknowledged(other, segment);
        if segment.has(RST) && other.highest_ack.is_some_and(|acked| is_after(acked, segment.seq)) {
            return false;
        }
        let is_recent_end = is_after(end, self.end.wrapping_sub(other.window).wrapping_sub(1));
        let slack = self.window.max(LEAST_ACK_WINDOW);
        let is_recent_ack = is_after(sack, other.end.wrapping_sub(slack).wrapping_sub(1));
        let acks_what_was_sent = !is_after(sack, other.end);
        if is_after(segment.seq, self.allowed) {
            let overshot = end.wrapping_sub(self.allowed).wrapping_add(1);
            let passes = is_recent_end && is_recent_ack && acks_what_was_sent && overshot <= other.window;
            if passes {
                self.end = end;
            }
            return passes;
        }
        if acks_what_was_sent && is_recent_end && is_recent_ack {
            self.learn(other, segment, ack, sack);
        }
        acks_what_was_sent
    }

    /// What a segment acknowledges, plainly and with selective acknowledgements. One that says nothing acknowledges all.
    fn acknowledged(&self, other: &Self, segment: &TcpHeader) -> (u32, u32) {
        if !segment.has(ACK) || (segment.has(RST) && segment.ack == 0) {
            return (other.end, other.end);
        }
        let sack = segment.sack.filter(|sack| other.takes_sack && is_after(*sack, segment.ack));
        (segment.ack, sack.unwrap_or(segment.ack))
    }

    fn learn(&mut self, other: &mut Self, segment: &TcpHeader, ack: u32, sack: u32) {
        let window = u32::from(segment.window) << self.scale.unwrap_or(0);
        let end = segment.end();
        self.window = self.window.max(window.saturating_add(sack.wrapping_sub(ack)));
        if is_after(end, self.end) {
            self.end = end;
        }
        if segment.has(ACK) && self.highest_ack.is_none_or(|highest| is_after(ack, highest)) {
            self.highest_ack = Some(ack);
        }
        // The first byte over the edge is the last that passes, so the other end's window was larger than it seemed.
        if is_after(end, self.allowed) {
            other.window = other.window.saturating_add(end.wrapping_sub(self.allowed));
        }
        let edge = sack.wrapping_add(window.max(1));
        if is_after(edge, other.allowed) {
            other.allowed = edge;
        }
    }
}

/// How far back an acknowledgement may lie at least: conntrack's `MAXACKWINCONST`.
const LEAST_ACK_WINDOW: u32 = 66_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::SYN;
    use crate::testing::{ENDS, Rig, Tcp, damaged, handshake, offloaded};
    use crate::{Line, Middlebox, Profile};

    const PAYLOAD: u32 = 1400;

    fn rig() -> Rig {
        Rig::new(Line::new(Profile::CLEAR).with(Middlebox::RequireWindow))
    }

    fn opened(scale: Option<u8>) -> Rig {
        let mut rig = rig();
        for (direction, packet) in handshake(scale) {
            assert!(rig.passes(direction, &packet));
        }
        rig
    }

    /// Data number `n` of one end, which has seen `acked` packets of the other.
    fn data(direction: Direction, n: u32, acked: u32) -> Vec<u8> {
        let (own, other) = if direction == Direction::Out { (1001, 5001) } else { (5001, 1001) };
        Tcp::new(direction, ACK).at(own + n * PAYLOAD, other + acked * PAYLOAD).payload(1400).packet()
    }

    fn ack(direction: Direction, n: u32, acked: u32) -> Vec<u8> {
        let (own, other) = if direction == Direction::Out { (1001, 5001) } else { (5001, 1001) };
        Tcp::new(direction, ACK).at(own + n * PAYLOAD, other + acked * PAYLOAD).packet()
    }

    /// Sends `count` packets each way in turn, without ever acknowledging, and counts those that pass.
    fn frozen(scale: Option<u8>, count: u32) -> [usize; 2] {
        let mut rig = opened(scale);
        let mut passed = [0; 2];
        for n in 0..count {
            for direction in Direction::BOTH {
                passed[direction.index()] += usize::from(rig.passes(direction, &data(direction, n, 0)));
            }
        }
        passed
    }

    // The figures of the following tests are what a router with nf_conntrack_tcp_be_liberal=0 and a rule that drops what is
    // invalid was measured to do (Linux 6.18, segments of 1400 bytes, windows of 65535).

    #[test]
    fn a_frozen_acknowledgement_blocks_both_ends_as_conntrack_does() {
        assert_eq!(frozen(None, 8000), [93, 47]);
        assert_eq!(frozen(Some(7), 8000), [8000, 5992]);
        assert_eq!(frozen(Some(14), 8000), [8000, 8000]);
    }

    #[test]
    fn one_end_alone_stops_at_the_unscaled_window_of_the_syn_ack() {
        let mut rig = opened(Some(14));
        let passed = (0..8000).filter(|n| rig.passes(Direction::Out, &data(Direction::Out, *n, 0))).count();
        assert_eq!(passed, 93);
        assert_eq!(rig.stats(Direction::Out).out_of_window, 7907);
    }

    #[test]
    fn the_segment_that_crosses_the_edge_widens_the_window_beyond_it() {
        let mut rig = opened(None);
        assert!((0..93).all(|n| rig.passes(Direction::Out, &data(Direction::Out, n, 0))));
        // Segment 46 crossed the edge by 265 bytes, so two windows end at 2 * 65,535 + 265.
        let rest =
            |size: u32| Tcp::new(Direction::Out, ACK).at(1001 + 93 * PAYLOAD, 5001).payload(size as usize);
        assert!(!rig.passes(Direction::Out, &rest(2 * 65_535 + 265 - 93 * PAYLOAD).packet()));
        assert!(rig.passes(Direction::Out, &rest(2 * 65_535 + 264 - 93 * PAYLOAD).packet()));
    }

    #[test]
    fn one_segment_of_the_server_after_the_handshake_makes_its_window_known() {
        let mut rig = opened(Some(7));
        assert!(rig.passes(Direction::In, &ack(Direction::In, 0, 0)));
        assert!((0..5000).all(|n| rig.passes(Direction::Out, &data(Direction::Out, n, 0))));
    }

    #[test]
    fn a_connection_that_acknowledges_the_highest_it_has_seen_passes_with_holes_in_it() {
        let mut rig = opened(Some(7));
        let is_lost = |n| n % 10 == 3;
        for n in 0..20_000 {
            let highest = if n > 0 && is_lost(n - 1) { n - 1 } else { n };
            for direction in Direction::BOTH {
                assert!(is_lost(n) || rig.passes(direction, &data(direction, n, highest)), "{n}");
            }
        }
    }

    #[test]
    fn an_acknowledgement_of_what_was_not_sent_is_dropped() {
        let mut rig = opened(Some(7));
        assert!(rig.passes(Direction::Out, &data(Direction::Out, 0, 0)));
        assert!(rig.passes(Direction::In, &ack(Direction::In, 0, 1)));
        assert!(!rig.passes(Direction::In, &ack(Direction::In, 0, 2)));
        assert!(!rig.passes(Direction::In, &data(Direction::In, 0, 2)));
        assert_eq!(rig.stats(Direction::In).out_of_window, 2);
    }

    #[test]
    fn a_sequence_number_from_nowhere_is_dropped() {
        let mut rig = opened(Some(7));
        assert!(rig.passes(Direction::In, &data(Direction::In, 0, 0)));
        for seq in [0x4000_0000, 0x7000_0000] {
            assert!(!rig.passes(Direction::In, &Tcp::new(Direction::In, ACK).at(seq, 1001).packet()));
        }
    }

    #[test]
    fn what_is_too_old_passes_and_changes_nothing() {
        let mut rig = opened(None);
        for n in 0..1000 {
            assert!(rig.passes(Direction::Out, &data(Direction::Out, n, 0)));
            assert!(rig.passes(Direction::In, &ack(Direction::In, 0, n + 1)));
        }
        assert!(rig.passes(Direction::Out, &data(Direction::Out, 0, 0)), "a late copy");
        assert!(rig.passes(Direction::In, &ack(Direction::In, 0, 1)), "a late acknowledgement");
        assert!(rig.passes(Direction::Out, &data(Direction::Out, 1000, 0)));
    }

    #[test]
    fn a_damaged_segment_passes_and_changes_nothing() {
        let mut rig = opened(Some(7));
        let sent = Tcp::new(Direction::Out, ACK).at(1001, 5001).payload(1400);
        assert!(rig.passes(Direction::Out, &damaged(&sent)));
        assert!(!rig.passes(Direction::In, &ack(Direction::In, 0, 1)), "nothing was sent yet");
        assert!(rig.passes(Direction::Out, &damaged(&sent.clone().at(0x4000_0000, 0x4000_0000))));
        assert!(rig.passes(Direction::Out, &sent.packet()));
        assert!(rig.passes(Direction::In, &ack(Direction::In, 0, 1)));
    }

    #[test]
    fn a_partial_checksum_is_as_good_as_a_full_one() {
        for (client, server) in ENDS {
            let mut rig = rig();
            let segment = |direction, flags| Tcp::between(client, server, direction, flags);
            let syn = segment(Direction::Out, SYN).at(1000, 0);
            let syn_ack = segment(Direction::In, SYN | ACK).at(5000, 1001);
            assert!(rig.passes(Direction::Out, &offloaded(&syn)));
            assert!(rig.passes(Direction::In, &offloaded(&syn_ack)));
            assert!(!rig.passes(Direction::In, &segment(Direction::In, ACK).at(5001, 2401).packet()));
            let data = segment(Direction::Out, ACK).at(1001, 5001).payload(1400);
            assert!(rig.passes(Direction::Out, &offloaded(&data)));
            assert!(rig.passes(Direction::In, &segment(Direction::In, ACK).at(5001, 2401).packet()));
        }
    }

    #[test]
    fn a_reset_with_a_number_that_was_acknowledged_is_dropped() {
        let mut rig = opened(Some(7));
        for n in 0..3 {
            assert!(rig.passes(Direction::In, &data(Direction::In, n, 0)));
            assert!(rig.passes(Direction::Out, &ack(Direction::Out, 0, n + 1)));
        }
        let reset = |seq| Tcp::new(Direction::In, RST | ACK).at(seq, 1001).packet();
        assert!(!rig.passes(Direction::In, &reset(5001)));
        assert!(rig.passes(Direction::In, &reset(5001 + 3 * PAYLOAD)));
    }

    #[test]
    fn a_new_handshake_on_the_same_ports_begins_anew() {
        let mut rig = opened(Some(7));
        assert!(rig.passes(Direction::Out, &data(Direction::Out, 0, 0)));
        let late = data(Direction::Out, 1, 0);
        let syn = Tcp::new(Direction::Out, SYN).at(0x8000_0000, 0).scale(7).packet();
        let syn_ack = Tcp::new(Direction::In, SYN | ACK).at(0xc000_0000, 0x8000_0001).scale(7).packet();
        assert!(rig.passes(Direction::Out, &syn));
        assert!(rig.passes(Direction::Out, &late), "what is still under way");
        assert!(rig.passes(Direction::In, &syn_ack));
        let data = |n| Tcp::new(Direction::Out, ACK).at(0x8000_0001 + n * PAYLOAD, 0xc000_0001).payload(1400);
        let answer = |n| Tcp::new(Direction::In, ACK).at(0xc000_0001, 0x8000_0001 + n * PAYLOAD);
        for n in 0..200 {
            assert!(rig.passes(Direction::Out, &data(n).packet()), "{n}");
            assert!(rig.passes(Direction::In, &answer(n + 1).packet()), "{n}");
        }
        assert!(rig.passes(Direction::In, &syn_ack), "a late copy of the answer");
        assert!(rig.passes(Direction::Out, &data(200).packet()), "does not set anything back");
        assert!(!rig.passes(Direction::Out, &late), "the old numbers are gone");
    }

    #[test]
    fn nothing_but_an_answer_follows_a_syn() {
        let mut rig = rig();
        assert!(rig.passes(Direction::Out, &handshake(None)[0].1));
        assert!(!rig.passes(Direction::Out, &data(Direction::Out, 0, 0)));
        assert!(!rig.passes(Direction::In, &Tcp::new(Direction::In, SYN | ACK).at(1, 2).packet()));
        assert!(rig.passes(Direction::In, &Tcp::new(Direction::In, RST | ACK).at(0, 1001).packet()));
    }

    #[test]
    fn a_connection_whose_beginning_it_did_not_see_passes_until_it_begins_anew() {
        let mut rig = rig();
        for seq in [0, 0x5000_0000, 0xa000_0000] {
            assert!(rig.passes(Direction::Out, &Tcp::new(Direction::Out, ACK).at(seq, !seq).packet()));
        }
        for (direction, packet) in handshake(None) {
            assert!(rig.passes(direction, &packet));
        }
        assert!(!rig.passes(Direction::In, &ack(Direction::In, 0, 9)));
    }

    #[test]
    fn a_selective_acknowledgement_counts_if_its_sender_may_send_one() {
        let mut rig = rig();
        let syn = Tcp { options: vec![4, 2, 1, 1], ..Tcp::new(Direction::Out, SYN).at(1000, 0) };
        let syn_ack = Tcp { options: vec![4, 2, 1, 1], ..Tcp::new(Direction::In, SYN | ACK).at(5000, 1001) };
        assert!(rig.passes(Direction::Out, &syn.packet()));
        assert!(rig.passes(Direction::In, &syn_ack.packet()));
        // The first of 40 is lost behind the box. What the receiver has got behind it moves its window, and counts as part of it.
        assert!((0..40).all(|n| rig.passes(Direction::Out, &data(Direction::Out, n, 0))));
        let right: u32 = 1001 + 40 * PAYLOAD;
        let mut options = vec![1, 1, 5, 10];
        options.extend((1001 + PAYLOAD).to_be_bytes());
        options.extend(right.to_be_bytes());
        assert!(
            rig.passes(
                Direction::In,
                &Tcp { options, ..Tcp::new(Direction::In, ACK).at(5001, 1001) }.packet()
            )
        );
        let passed = (40..200).filter(|n| rig.passes(Direction::Out, &data(Direction::Out, *n, 0))).count();
        assert_eq!(passed, (65_535_usize + 65_535 + 39 * 1400).div_ceil(1400));
    }
}
