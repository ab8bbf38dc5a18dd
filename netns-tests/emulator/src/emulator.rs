//! Both directions of a line with the boxes on it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::lane::Lane;
use crate::line::{Direction, End, Line};
use crate::middlebox::{Chain, Frame, Middlebox};
use crate::packet::{Flow, Layer};
use crate::pool::Pool;
use crate::profile::Profile;
use crate::stats::Stats;

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
        let [out, inward] = line.profiles;
        let seed_of = |n| seed.wrapping_mul(SEEDS).wrapping_add(n);
        Self {
            layer,
            lanes: [Lane::new(layer, out, seed_of(0), now), Lane::new(layer, inward, seed_of(1), now)],
            place: line.place,
            chain: Chain::new(layer, line.middleboxes),
            passed: VecDeque::new(),
            pool: Pool::default(),
        }
    }

    /// Takes a frame that arrives at the line.
    pub fn handle_frame(&mut self, direction: Direction, bytes: &[u8], now: Instant) {
        let lane = &mut self.lanes[direction.index()];
        lane.stats.received += 1;
        lane.stats.received_bytes += self.layer.wire_bytes(bytes) as u64;
        let frame = Frame { bytes: self.pool.copy(bytes) };
        if lane.is_dark(now) {
            lane.drop(frame, crate::stats::Cause::Blackout, &mut self.pool);
        } else if !self.place.is_first_for(direction) {
            lane.enqueue(frame, now, &mut self.pool);
        } else {
            match self.chain.handle(&frame) {
                Ok(()) => lane.enqueue(frame, now, &mut self.pool),
                Err(cause) => lane.drop(frame, cause, &mut self.pool),
            }
        }
    }

    /// The next frame that is due, in the order of its time; `None` when nothing is.
    pub fn poll_frame(&mut self, now: Instant) -> Option<(Direction, Vec<u8>)> {
        loop {
            let direction = self.next_lane()?;
            let lane = &mut self.lanes[direction.index()];
            let (_, frame) = lane.poll(now)?;
            if !self.place.is_first_for(direction)
                && let Err(cause) = self.chain.handle(&frame)
            {
                lane.drop(frame, cause, &mut self.pool);
                continue;
            }
            lane.stats.forwarded += 1;
            lane.stats.forwarded_bytes += self.layer.wire_bytes(&frame.bytes) as u64;
            return Some((direction, frame.bytes));
        }
    }

    /// Gives a buffer of [`Emulator::poll_frame`] back to be used again; nothing is lost if it is not.
    pub fn recycle(&mut self, frame: Vec<u8>) {
        self.pool.recycle(frame);
    }

    /// When the next frame is due; `None` when none is under way.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(Lane::due).min()
    }

    /// Changes what a direction does from now on; frames under way keep their time.
    pub fn set_profile(&mut self, direction: Direction, profile: Profile, now: Instant) {
        self.lanes[direction.index()].set_profile(profile, now);
    }

    /// The profile of a direction.
    #[must_use]
    pub const fn profile(&self, direction: Direction) -> Profile {
        self.lanes[direction.index()].profile()
    }

    /// Begins or ends a blackout of one direction: everything that arrives meanwhile is dropped.
    pub fn set_blackout(&mut self, direction: Direction, blackout: bool) {
        self.lanes[direction.index()].blackout = blackout;
    }

    /// Makes a flow slower than the others by `extra`, both ways, from now on; zero ends that. The flow keeps its order.
    ///
    /// The flow is given as it is on the line: with boxes at the router's end as the client sees it.
    pub fn set_flow_delay(&mut self, flow: Flow, extra: Duration) {
        self.lanes.iter_mut().for_each(|lane| lane.set_flow_delay(flow, extra));
    }

    /// Puts other boxes on the line, which know nothing of earlier packets.
    pub fn set_middleboxes(&mut self, middleboxes: Vec<Middlebox>, now: Instant) {
        let _ = now;
        self.chain.set_boxes(middleboxes);
    }

    /// Drops every packet of `flow`, both ways and until it is revived, in front of the boxes: the flow is the client's.
    pub fn kill_flow(&mut self, flow: Flow) {
        self.chain.kill(flow);
    }

    /// Lets a flow live again that [`Emulator::kill_flow`] has killed.
    pub fn revive_flow(&mut self, flow: &Flow) {
        self.chain.revive(flow);
    }

    /// The TCP flow, as the client sees it, that last sent something past the boxes and is not killed.
    #[must_use]
    pub const fn newest_tcp_flow(&self) -> Option<Flow> {
        self.chain.newest_tcp()
    }

    /// Rebinds every flow of each [`Middlebox::Nat`]: the next packet from the client gets a new mapping, the old one is gone.
    pub fn rebind(&mut self) {}

    /// Rebinds one flow, given as the client sees it.
    pub fn rebind_flow(&mut self, flow: &Flow) {
        let _ = flow;
    }

    /// What happened to the frames of a direction so far.
    #[must_use]
    pub const fn stats(&self, direction: Direction) -> Stats {
        self.lanes[direction.index()].stats
    }

    /// The frames of a direction that have entered and neither come out nor been dropped.
    #[must_use]
    pub fn in_flight(&self, direction: Direction) -> usize {
        let passed = self.passed.iter().filter(|(_, other, _)| *other == direction).count();
        self.lanes[direction.index()].in_flight() + passed
    }

    fn next_lane(&self) -> Option<Direction> {
        let due = |direction: &Direction| self.lanes[direction.index()].due();
        Direction::BOTH.into_iter().filter(|direction| due(direction).is_some()).min_by_key(due)
    }
}

/// Generators drawn from one seed: one for each lane and one for the boxes.
const SEEDS: u64 = 3;
