//! The boxes of a line in their order, and the way of a packet through them.

use std::collections::VecDeque;
use std::time::Instant;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::frame::Frame;
use crate::ip::{Flow, Layer, TCP};
use crate::line::Direction;
use crate::middlebox::packet::Packet;
use crate::middlebox::{MAX_FLOWS, Middlebox, Station};
use crate::stats::{Cause, Stats};
use crate::table::Table;

/// All boxes of a line, and on the client's side of them the list of flows that were killed by command.
#[derive(Debug)]
pub(crate) struct Chain {
    layer: Layer,
    seeds: StdRng,
    stations: Vec<Box<dyn Station>>,
    /// The directions in which each passes nothing.
    killed: Table<Flow, [bool; 2]>,
    newest_tcp: Option<Flow>,
    forged: VecDeque<Forged>,
}

/// What a box has made up: where it goes, and the place in the chain of the box it meets next.
#[derive(Debug)]
struct Forged {
    direction: Direction,
    next: usize,
    frame: Frame,
}

impl Chain {
    pub(crate) fn new(layer: Layer, boxes: &[Middlebox], seeds: StdRng, now: Instant) -> Self {
        let mut chain = Self {
            layer,
            seeds,
            stations: Vec::new(),
            killed: Table::new(MAX_FLOWS),
            newest_tcp: None,
            forged: VecDeque::new(),
        };
        chain.set_boxes(boxes, now);
        chain
    }

    pub(crate) fn set_boxes(&mut self, boxes: &[Middlebox], now: Instant) {
        let stations = boxes.iter().map(|middlebox| middlebox.station(self.seeds.random(), now));
        self.stations = stations.collect();
    }

    pub(crate) fn rebind(&mut self, now: Instant) {
        self.stations.iter_mut().for_each(|station| station.rebind(now));
    }

    pub(crate) fn rebind_flow(&mut self, flow: &Flow) {
        self.stations.iter_mut().for_each(|station| station.rebind_flow(flow));
    }

    pub(crate) fn kill(&mut self, flow: Flow, directions: [bool; 2]) {
        self.killed.insert(flow, directions);
        self.newest_tcp = self.newest_tcp.filter(|newest| *newest != flow);
    }

    pub(crate) fn revive(&mut self, flow: &Flow) {
        self.killed.remove(flow);
    }

    pub(crate) const fn newest_tcp(&self) -> Option<Flow> {
        self.newest_tcp
    }

    /// Lets a frame past all boxes, or says which cause stopped it. Then ask for [`Chain::next_forged`].
    pub(crate) fn handle(
        &mut self,
        direction: Direction,
        frame: &mut Frame,
        now: Instant,
        stats: &mut Stats,
    ) -> Result<(), Cause> {
        let first = match direction {
            Direction::Out => 0,
            Direction::In => self.stations.len(),
        };
        self.handle_from(direction, first, frame, now, stats)
    }

    /// The next packet that a box has made up: its direction, where it is in the chain, and itself.
    pub(crate) fn next_forged(&mut self) -> Option<(Direction, usize, Frame)> {
        self.forged.pop_front().map(|forged| (forged.direction, forged.next, forged.frame))
    }

    /// As [`Chain::handle`] for a frame that is between two boxes: `next` of them are on the client's side of it.
    pub(crate) fn handle_from(
        &mut self,
        direction: Direction,
        next: usize,
        frame: &mut Frame,
        now: Instant,
        stats: &mut Stats,
    ) -> Result<(), Cause> {
        let Some(mut packet) = Packet::new(self.layer, direction, frame, now, stats) else {
            return Ok(());
        };
        let flow = match direction {
            Direction::Out => {
                let flow = packet.flow();
                if next == 0 {
                    self.pass_client_side(direction, flow)?;
                }
                (next..self.stations.len()).try_for_each(|n| self.visit(n, &mut packet))?;
                flow
            }
            Direction::In => {
                (0..next).rev().try_for_each(|n| self.visit(n, &mut packet))?;
                let flow = packet.flow();
                self.pass_client_side(direction, flow)?;
                flow
            }
        };
        if !packet.is_forged() {
            self.newest_tcp = flow.filter(|flow| flow.protocol == TCP).or(self.newest_tcp);
        }
        Ok(())
    }

    fn visit(&mut self, station: usize, packet: &mut Packet<'_>) -> Result<(), Cause> {
        let verdict = self.stations[station].handle(packet);
        let forged = packet.take_forged().into_iter();
        self.forged.extend(forged.map(|(direction, bytes)| Forged::leaving(station, direction, bytes)));
        verdict
    }

    /// Passes the place where flows are what the client sees, and where they are killed.
    fn pass_client_side(&mut self, direction: Direction, flow: Option<Flow>) -> Result<(), Cause> {
        let killed = flow.and_then(|flow| self.killed.get(&flow)).is_some_and(|it| it[direction.index()]);
        if killed { Err(Cause::Killed) } else { Ok(()) }
    }
}

impl Forged {
    fn leaving(station: usize, direction: Direction, bytes: Vec<u8>) -> Self {
        let next = match direction {
            Direction::Out => station + 1,
            Direction::In => station,
        };
        Self { direction, next, frame: Frame { bytes, is_forged: true } }
    }
}
