//! Both directions of a line with the boxes on it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ip::{Flow, Layer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::frame::Frame;
use crate::lane::Lane;
use crate::line::{Direction, End, Line};
use crate::middlebox::{Chain, Middlebox};
use crate::pool::Pool;
use crate::profile::Profile;
use crate::stats::{Cause, Stats};

/// Both directions of one line and its boxes; the head of the crate says how it is used.
#[derive(Debug)]
pub struct Emulator {
    layer: Layer,
    lanes: [Lane; 2],
    place: End,
    chain: Chain,
    /// What has passed the boxes at the end of its way, and when.
    passed: VecDeque<(Instant, Direction, Frame)>,
    pool: Pool,
}

impl Emulator {
    /// A line for frames of `layer`; `seed` decides every random choice, and schedules begin now.
    #[must_use]
    pub fn new(line: Line, layer: Layer, seed: u64, now: Instant) -> Self {
        // Each lane draws from a generator of its own, so the losses of one do not depend on the traffic of the other.
        let mut seeds = StdRng::seed_from_u64(seed);
        let lanes = line.profiles.map(|profile| Lane::new(layer, profile, seeds.random(), now));
        Self {
            layer,
            lanes,
            place: line.place,
            chain: Chain::new(layer, &line.middleboxes, seeds, now),
            passed: VecDeque::new(),
            pool: Pool::default(),
        }
    }

    /// Takes a frame that arrives at the line. Times must not run backwards from call to call.
    pub fn handle_frame(&mut self, direction: Direction, bytes: &[u8], now: Instant) {
        self.advance(now);
        let lane = &mut self.lanes[direction.index()];
        lane.stats.received += 1;
        lane.stats.received_bytes += self.layer.wire_bytes(bytes) as u64;
        let frame = Frame { bytes: self.pool.copy(bytes), is_forged: false };
        if self.place.is_first_for(direction) {
            self.pass_boxes(direction, frame, now);
        } else {
            lane.enqueue(frame, now, &mut self.pool);
        }
    }

    /// The next frame that is due, in the order of its time; `None` when nothing is.
    pub fn poll_frame(&mut self, now: Instant) -> Option<(Direction, Vec<u8>)> {
        self.advance(now);
        let (_, direction, frame) = self.passed.pop_front()?;
        let lane = &mut self.lanes[direction.index()];
        lane.waiting -= 1;
        lane.stats.forwarded += 1;
        lane.stats.forwarded_bytes += self.layer.wire_bytes(&frame.bytes) as u64;
        Some((direction, frame.bytes))
    }

    /// Gives a buffer of [`Emulator::poll_frame`] back to be used again; nothing is lost if it is not.
    pub fn recycle(&mut self, frame: Vec<u8>) {
        self.pool.recycle(frame);
    }

    /// When the next frame is due; `None` when none is under way.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let passed = self.passed.front().map(|(at, ..)| *at);
        passed.or_else(|| self.lanes.iter().filter_map(Lane::due).min())
    }

    /// Changes what a direction does from now on; frames under way keep their time.
    pub fn set_profile(&mut self, direction: Direction, profile: Profile, now: Instant) {
        self.advance(now);
        self.lanes[direction.index()].set_profile(profile, now);
    }

    /// The profile of a direction.
    #[must_use]
    pub const fn profile(&self, direction: Direction) -> Profile {
        self.lanes[direction.index()].profile()
    }

    /// Begins or ends a blackout of one direction: everything that would begin its way over the lane meanwhile is dropped, also
    /// what a box has made up. Boxes in front of the lane see it all the same.
    pub fn set_blackout(&mut self, direction: Direction, blackout: bool) {
        self.lanes[direction.index()].blackout = blackout;
    }

    /// Makes a flow slower than the others by `extra`, both ways, from now on; zero ends that. The flow keeps its order.
    ///
    /// The flow is given as it is on the line: with boxes at the router's end as the client sees it.
    pub fn set_flow_delay(&mut self, flow: Flow, extra: Duration) {
        self.lanes.iter_mut().for_each(|lane| lane.set_flow_delay(flow, extra));
    }

    /// Puts other boxes on the line, which know nothing of earlier packets; what has arrived at the old ones is past them.
    pub fn set_middleboxes(&mut self, middleboxes: &[Middlebox], now: Instant) {
        self.advance(now);
        self.chain.set_boxes(middleboxes, now);
    }

    /// Drops every packet of `flow`, both ways and until it is revived, in front of the boxes: the flow is the client's.
    pub fn kill_flow(&mut self, flow: Flow) {
        self.chain.kill(flow, [true; 2]);
    }

    /// Drops every packet of `flow` in one direction only, otherwise as [`Emulator::kill_flow`].
    pub fn kill_flow_one_way(&mut self, flow: Flow, direction: Direction) {
        let mut directions = [false; 2];
        directions[direction.index()] = true;
        self.chain.kill(flow, directions);
    }

    /// Lets a flow live again that [`Emulator::kill_flow`] has killed.
    pub fn revive_flow(&mut self, flow: &Flow) {
        self.chain.revive(flow);
    }

    /// The TCP flow, as the client sees it, that last sent something past all boxes, which they had not made up, and is not killed.
    #[must_use]
    pub const fn newest_tcp_flow(&self) -> Option<Flow> {
        self.chain.newest_tcp()
    }

    /// Rebinds every flow of each [`Middlebox::Nat`]: the next packet from the client gets a new mapping, the old one is gone.
    pub fn rebind(&mut self, now: Instant) {
        self.advance(now);
        self.chain.rebind(now);
    }

    /// Rebinds one flow, given as the client sees it.
    pub fn rebind_flow(&mut self, flow: &Flow) {
        self.chain.rebind_flow(flow);
    }

    /// What happened to the frames of a direction so far.
    #[must_use]
    pub const fn stats(&self, direction: Direction) -> Stats {
        self.lanes[direction.index()].stats
    }

    /// The frames of a direction that have entered and neither come out nor been dropped.
    #[must_use]
    pub fn in_flight(&self, direction: Direction) -> usize {
        self.lanes[direction.index()].in_flight()
    }

    /// Moves what is due out of the lanes, in the order of time: what a box sees does not depend on how late somebody asks.
    fn advance(&mut self, now: Instant) {
        while let Some(direction) = self.next_lane() {
            let lane = &mut self.lanes[direction.index()];
            let Some((due, frame)) = lane.poll(now) else {
                return;
            };
            if self.place.is_first_for(direction) {
                self.arrive(direction, frame, due);
            } else {
                self.pass_boxes(direction, frame, due);
            }
        }
    }

    /// Leads a frame through the boxes, and whatever they have made up because of it.
    fn pass_boxes(&mut self, direction: Direction, mut frame: Frame, now: Instant) {
        let stats = &mut self.lanes[direction.index()].stats;
        let verdict = self.chain.handle(direction, &mut frame, now, stats);
        self.leave_boxes(direction, frame, verdict, now);
        while let Some((direction, next, mut frame)) = self.chain.next_forged() {
            let stats = &mut self.lanes[direction.index()].stats;
            stats.forged += 1;
            let verdict = self.chain.handle_from(direction, next, &mut frame, now, stats);
            self.leave_boxes(direction, frame, verdict, now);
        }
    }

    fn leave_boxes(&mut self, direction: Direction, frame: Frame, verdict: Result<(), Cause>, now: Instant) {
        let lane = &mut self.lanes[direction.index()];
        match verdict {
            Err(cause) => lane.drop(frame, cause, &mut self.pool),
            Ok(()) if self.place.is_first_for(direction) => lane.enqueue(frame, now, &mut self.pool),
            Ok(()) if lane.is_full() => lane.drop(frame, Cause::Overflow, &mut self.pool),
            Ok(()) => self.arrive(direction, frame, now),
        }
    }

    fn arrive(&mut self, direction: Direction, frame: Frame, now: Instant) {
        self.lanes[direction.index()].waiting += 1;
        self.passed.push_back((now, direction, frame));
    }

    fn next_lane(&self) -> Option<Direction> {
        let due = |direction: &Direction| self.lanes[direction.index()].due();
        Direction::BOTH.into_iter().filter(|direction| due(direction).is_some()).min_by_key(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::TCP;
    use crate::lane::MAX_IN_FLIGHT;
    use crate::loss::Loss;
    use crate::middlebox::{Segment, Towards};
    use crate::tcp::{ACK, SYN};
    use crate::testing::{
        CLIENT, MILLISECOND, Rig, SERVER, Tcp, address, ethernet, flow, handshake, numbered, udp,
    };

    #[test]
    fn a_killed_flow_stays_dead_both_ways_while_others_pass() {
        let mut rig = Rig::new(Line::new(Profile::CLEAR));
        let packet = |direction, port: u16| {
            Tcp::between(&format!("10.0.0.2:{port}"), SERVER, direction, ACK).payload(10).packet()
        };
        assert_eq!(rig.emulator.newest_tcp_flow(), None);
        assert!(rig.passes(Direction::Out, &packet(Direction::Out, 40000)));
        assert!(rig.passes(Direction::Out, &udp("10.0.0.2:9", SERVER, 60)));
        assert_eq!(rig.emulator.newest_tcp_flow(), Some(flow(TCP)));
        rig.emulator.kill_flow(flow(TCP));
        assert_eq!(rig.emulator.newest_tcp_flow(), None);
        for direction in Direction::BOTH {
            assert!(rig.pass(direction, &packet(direction, 40000)).is_empty());
            assert_eq!(rig.stats(direction).killed, 1);
            assert!(rig.passes(direction, &packet(direction, 40001)));
        }
        assert_ne!(rig.emulator.newest_tcp_flow(), Some(flow(TCP)));
        rig.emulator.revive_flow(&flow(TCP));
        assert!(rig.passes(Direction::In, &packet(Direction::In, 40000)));
    }

    #[test]
    fn the_newest_flow_is_one_that_passes_the_boxes_itself() {
        let forge =
            Middlebox::Forge { segment: Segment::Reset, towards: Towards::Client, after: 1, every: Some(1) };
        let line = Line::new(Profile::CLEAR)
            .with(Middlebox::Nat { every: None, addresses: vec![address("10.0.0.77:0").ip()] })
            .with(forge)
            .with(Middlebox::RequireHandshake);
        let mut rig = Rig::new(line);
        let now = rig.now();
        rig.emulator.rebind(now);
        let [(_, syn), _, (_, ack)] = handshake(None);
        let out = rig.pass(Direction::Out, &ack);
        assert_eq!(out.iter().map(|(direction, _)| *direction).collect::<Vec<_>>(), [Direction::In]);
        assert_eq!(rig.emulator.newest_tcp_flow(), None, "its packet was dropped, and the other one forged");
        assert_eq!(rig.pass(Direction::Out, &syn).len(), 2);
        assert_eq!(rig.emulator.newest_tcp_flow(), Some(flow(TCP)), "as the client sees it");
    }

    #[test]
    fn what_has_arrived_is_past_the_boxes_when_they_change() {
        let slow = Profile { delay: MILLISECOND * 10, ..Profile::CLEAR };
        let mut rig = Rig::new(Line::new(slow));
        let packet = udp(CLIENT, SERVER, 60);
        for _ in 0..2 {
            rig.send(Direction::Out, &packet);
            rig.wait(MILLISECOND * 5);
        }
        let now = rig.now();
        rig.emulator.set_middleboxes(&[Middlebox::DropUdp], now);
        rig.wait(MILLISECOND * 10);
        assert_eq!(rig.take().len(), 1);
        assert_eq!(rig.stats(Direction::Out).udp, 1);
    }

    #[test]
    fn what_has_arrived_is_past_a_nat_when_it_is_rebound() {
        let slow = Profile { delay: MILLISECOND * 10, ..Profile::CLEAR };
        let mut rig = Rig::new(Line::new(slow).with(Middlebox::NAT));
        let packet = udp(CLIENT, SERVER, 60);
        for _ in 0..2 {
            rig.send(Direction::Out, &packet);
            rig.wait(MILLISECOND * 10);
        }
        let now = rig.now();
        rig.emulator.rebind(now);
        assert_eq!(rig.take(), [(Direction::Out, packet.clone()), (Direction::Out, packet)]);
    }

    #[test]
    fn what_a_box_has_made_up_before_a_profile_is_set_keeps_its_time() {
        let slow = Profile { delay: MILLISECOND * 10, ..Profile::CLEAR };
        let mut rig = Rig::new(Line::new(slow).with(Middlebox::Mtu { size: 50, icmp: true }));
        rig.send(Direction::Out, &udp(CLIENT, SERVER, 60));
        rig.wait(MILLISECOND * 15);
        let now = rig.now();
        rig.emulator.set_profile(Direction::In, Profile { delay: MILLISECOND * 100, ..Profile::CLEAR }, now);
        rig.wait(MILLISECOND * 5);
        assert_eq!(rig.take().len(), 1);
    }

    #[test]
    fn boxes_see_what_the_line_has_left_over_only_on_the_far_side() {
        let lossy = Profile { loss: Loss::Random(1.0), ..Profile::CLEAR };
        for (place, [out, inward]) in [(End::Router, [0, 1]), (End::Client, [1, 0])] {
            let mut rig = Rig::new(Line::new(lossy).with(Middlebox::DropUdp).at(place));
            for direction in Direction::BOTH {
                rig.send(direction, &udp(CLIENT, SERVER, 60));
            }
            assert_eq!(rig.stats(Direction::Out).udp, out, "{place:?}");
            assert_eq!(rig.stats(Direction::In).udp, inward, "{place:?}");
        }
    }

    #[test]
    fn boxes_see_what_a_blackout_drops_only_in_front_of_it() {
        for (place, udp_dropped) in [(End::Router, [0, 1]), (End::Client, [1, 0])] {
            let mut rig = Rig::new(Line::new(Profile::CLEAR).with(Middlebox::DropUdp).at(place));
            for (direction, dropped) in Direction::BOTH.into_iter().zip(udp_dropped) {
                rig.emulator.set_blackout(direction, true);
                assert!(rig.pass(direction, &udp(CLIENT, SERVER, 60)).is_empty());
                assert!(rig.pass(direction, &Tcp::new(direction, ACK).packet()).is_empty());
                let stats = rig.stats(direction);
                assert_eq!((stats.udp, stats.blackout), (dropped, 2 - dropped), "{place:?}, {direction:?}");
            }
        }
    }

    #[test]
    fn what_a_box_makes_up_does_not_cross_a_blackout() {
        let polite = Middlebox::Mtu { size: 50, icmp: true };
        for (place, sent) in [(End::Router, Direction::Out), (End::Client, Direction::In)] {
            let mut rig = Rig::new(Line::new(Profile::CLEAR).with(polite.clone()).at(place));
            rig.emulator.set_blackout(sent.reverse(), true);
            assert!(rig.pass(sent, &udp(CLIENT, SERVER, 60)).is_empty(), "{place:?}");
            let stats = rig.stats(sent.reverse());
            assert_eq!((stats.forged, stats.blackout), (1, 1), "{place:?}");
            rig.emulator.set_blackout(sent.reverse(), false);
            assert_eq!(rig.pass(sent, &udp(CLIENT, SERVER, 60)).len(), 1, "{place:?}");
        }
    }

    #[test]
    fn a_box_behind_the_line_sees_packets_when_they_arrive_there() {
        let slow = Profile { delay: MILLISECOND * 100, ..Profile::CLEAR };
        let kill = Middlebox::KillFlow { after_bytes: None, after_time: Some(MILLISECOND * 10) };
        let mut rig = Rig::new(Line::new(slow).with(kill));
        rig.send(Direction::Out, &Tcp::new(Direction::Out, SYN).packet());
        rig.wait(MILLISECOND * 105);
        // Nobody has asked for the first packet yet, but it was at the box 5 ms ago.
        rig.send(Direction::In, &Tcp::new(Direction::In, ACK).packet());
        rig.wait(MILLISECOND * 6);
        rig.send(Direction::In, &Tcp::new(Direction::In, ACK).packet());
        assert_eq!(rig.stats(Direction::In).killed, 1);
        assert_eq!(rig.take().len(), 1);
        rig.wait(MILLISECOND * 100);
        assert_eq!(rig.take().len(), 1);
    }

    #[test]
    fn packets_meet_the_boxes_in_the_order_of_their_way() {
        let line = Line::new(Profile::CLEAR)
            .with(Middlebox::Mtu { size: 100, icmp: false })
            .with(Middlebox::DropUdp);
        let mut rig = Rig::new(line);
        for direction in Direction::BOTH {
            rig.send(direction, &udp(CLIENT, SERVER, 200));
        }
        assert_eq!((rig.stats(Direction::Out).too_big, rig.stats(Direction::In).too_big), (1, 0));
        assert_eq!((rig.stats(Direction::Out).udp, rig.stats(Direction::In).udp), (0, 1));
    }

    #[test]
    fn what_a_box_makes_up_meets_the_boxes_on_its_way_and_the_line() {
        let line = Line::new(Profile { delay: MILLISECOND * 7, ..Profile::CLEAR })
            .with(Middlebox::Mtu { size: 60, icmp: false })
            .with(Middlebox::Mtu { size: 50, icmp: true });
        let mut rig = Rig::new(line);
        rig.send(Direction::In, &udp(SERVER, CLIENT, 55));
        assert_eq!(rig.take()[0].0, Direction::Out, "the sender is at the near end");
        rig.send(Direction::Out, &udp(CLIENT, SERVER, 55));
        rig.wait(MILLISECOND * 7);
        assert!(rig.take().is_empty());
        assert_eq!(
            (rig.stats(Direction::In).forged, rig.stats(Direction::In).too_big),
            (1, 2),
            "too big itself"
        );
    }

    #[test]
    fn what_boxes_make_up_keeps_the_bound_too() {
        let forge =
            Middlebox::Forge { segment: Segment::Reset, towards: Towards::Router, after: 1, every: Some(1) };
        let mut rig = Rig::new(Line::new(Profile::CLEAR).with(forge));
        let packet = Tcp::new(Direction::Out, SYN | ACK).packet();
        // Two come out for each that goes in, but for this one, so that the last finds room for itself only.
        rig.send(Direction::Out, &udp(CLIENT, SERVER, 60));
        for _ in 0..MAX_IN_FLIGHT {
            rig.send(Direction::Out, &packet);
        }
        assert_eq!(rig.emulator.in_flight(Direction::Out), MAX_IN_FLIGHT);
        assert!(rig.stats(Direction::Out).overflow > 0);
    }

    #[test]
    fn what_is_no_ip_passes_every_box() {
        let line = Line::new(Profile::CLEAR)
            .with(Middlebox::DropUdp)
            .with(Middlebox::RequireHandshake)
            .with(Middlebox::Mtu { size: 10, icmp: true });
        let mut rig = Rig::seeded(line, Layer::Ethernet, 1);
        let mut arp = ethernet(&numbered(1, 60));
        arp[12..14].copy_from_slice(&[8, 6]);
        assert!(rig.passes(Direction::Out, &arp));
        assert!(rig.passes(Direction::In, &[0; 13]));
    }

    #[test]
    fn a_recycled_buffer_shows_nothing_of_what_was_in_it() {
        let mut rig = Rig::new(Line::new(Profile::CLEAR));
        let (_, buffer) = rig.pass(Direction::Out, &numbered(1, 1500)).pop().unwrap();
        rig.emulator.recycle(buffer);
        assert!(rig.passes(Direction::Out, &udp(CLIENT, SERVER, 40)));
        assert_eq!(rig.emulator.newest_tcp_flow(), None);
    }
}
