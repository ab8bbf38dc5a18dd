//! All flows of one TUN device.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::config::{FlowLimits, Stats};
use super::connection::{Flow, Held, Open};
use super::deadlines::Deadlines;
use super::event::{Event, Refusal};
use super::memory::{Group, Memory};
use super::pool::Pool;
use super::resting::Resting;
use super::slab::{FlowId, Slab};
use super::socket::{FLOW_BYTES, Phase, Socket};
use super::stack::{RETRY, Stack, Wish};
use super::tuple::{Keyed, Tuple, TupleMap};
use crate::packet::icmp::{self, Unreachable};
use crate::packet::tcp::{self, Segment, reset_for, without_data};

/// The flows of the programs behind one TUN device, by smoltcp.
///
/// Feed input, then drain [`poll_packet`](Self::poll_packet) and [`poll_event`](Self::poll_event),
/// then read [`poll_timeout`](Self::poll_timeout). Packets are made when they are polled, one flow
/// after the other, so acknowledgments of a batch of packets leave as one, and memory does not
/// grow while nobody polls. Calls with an id that names no flow do nothing.
#[derive(Debug)]
pub struct Flows {
    limits: FlowLimits,
    stack: Stack,
    pool: Pool,
    flows: Slab<Flow>,
    by_tuple: TupleMap,
    deadlines: Deadlines,
    resting: Resting,
    /// Flows that may have packets to send, each at most once.
    ready: VecDeque<FlowId>,
    /// Packets that do not wait for their flow: resets, ICMP errors, last acknowledgments.
    replies: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    is_shared: bool,
    stats: Stats,
}

impl Flows {
    /// No flows yet. The seed makes initial sequence numbers and the order of hashes unpredictable.
    #[must_use]
    pub fn new(limits: FlowLimits, seed: [u8; 32], now: Instant) -> Self {
        let (hash_key, rest) = seed.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        let sequence_seed = rest.first_chunk::<8>().copied().unwrap_or_default();
        Self {
            limits,
            stack: Stack::new(u64::from_le_bytes(sequence_seed), now),
            pool: Pool::new(&limits),
            flows: Slab::new(),
            by_tuple: TupleMap::with_hasher(Keyed::new(*hash_key)),
            deadlines: Deadlines::default(),
            resting: Resting::default(),
            ready: VecDeque::new(),
            replies: VecDeque::new(),
            events: VecDeque::new(),
            is_shared: false,
            stats: Stats::default(),
        }
    }

    /// Takes the memory of rings from `memory`, not from the allocator; to be said before the first flow.
    pub fn set_memory(&mut self, memory: Box<dyn Memory>) {
        self.pool.set_memory(memory);
    }

    /// Others than the kernel of a program may speak on this device: a SYN is no proof any more that the connection which it names
    /// is over.
    pub fn set_shared(&mut self) {
        self.is_shared = true;
    }

    /// Takes one whole IP packet with a TCP segment, from the TUN device. Whatever else it is, is
    /// counted and dropped.
    pub fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        self.stats.packets_in += 1;
        let Ok(segment) = Segment::parse(packet) else {
            self.stats.dropped_malformed += 1;
            return;
        };
        let known = self.by_tuple.get(&Tuple::of(&segment)).copied();
        match known {
            _ if segment.is_connect() => self.handle_syn(packet, &segment, known, now),
            None => self.handle_unknown(packet),
            Some(id) => self.handle_segment(id, packet, &segment, now),
        }
    }

    /// Puts the flow of a held SYN into a group, whose flows take at most [`FlowLimits::memory_of_group`] together; false if
    /// they have no room for another. Groups are numbered from 0.
    pub fn join(&mut self, id: FlowId, group: usize) -> bool {
        let Some(Flow::Held(held)) = self.flows.get(id) else { return false };
        let before = held.group;
        self.pool.release(before);
        let has_room = self.make_room(FLOW_BYTES, Some(group));
        let after = if has_room { Some(group) } else { before };
        self.pool.reserve(after);
        if let Some(Flow::Held(held)) = self.flows.get_mut(id) {
            held.group = after;
        }
        has_room
    }

    /// Answers a held SYN: the program's `connect` succeeds.
    pub fn accept(&mut self, id: FlowId, now: Instant) {
        let Some(Flow::Held(held)) = self.flows.get(id) else {
            return;
        };
        let accepted = self.pool.take(held.tuple.target, held.group, &self.limits).and_then(|socket| {
            let mut open = Open::new(held, socket, &self.limits, now);
            self.stack.feed(&mut open.socket, &held.syn, now);
            if open.socket.phase() == Phase::Opening {
                return Some(open);
            }
            self.pool.give_back(open.socket);
            None
        });
        let Some(open) = accepted else {
            // A SYN that smoltcp does not take, for its options, or no address space is left.
            self.refuse(id, Refusal::Reset, now);
            self.events.push_back(Event::Reset { id });
            return;
        };
        if let Some(flow) = self.flows.get_mut(id)
            && let Flow::Held(held) = std::mem::replace(flow, Flow::Open(Box::new(open)))
        {
            self.deadlines.cancel(id, held.deadline);
            self.pool.release(held.group);
        }
        self.stats.held -= 1;
        self.stats.accepted += 1;
        self.make_ready(id);
    }

    /// Refuses a held SYN in a way the program can tell. An accepted flow is reset.
    pub fn refuse(&mut self, id: FlowId, refusal: Refusal, now: Instant) {
        let Some(Flow::Held(held)) = self.flows.get(id) else {
            self.reset(id, now);
            return;
        };
        let target = held.tuple.target.ip();
        let answer = match refusal {
            Refusal::Refused | Refusal::Reset => reset_for(&held.syn),
            Refusal::HostUnreachable => icmp::unreachable(&held.syn, Unreachable::Host, target),
            Refusal::NetUnreachable => icmp::unreachable(&held.syn, Unreachable::Network, target),
            Refusal::AdminProhibited => icmp::unreachable(&held.syn, Unreachable::Prohibited, target),
            Refusal::Silent => None,
        };
        self.stats.refused += 1;
        self.drop_flow(id);
        self.reply(answer);
    }

    /// Shows `take` the next bytes from the program that lie in one piece, at least one, and drops
    /// as many as it returns; 0, without a call, if there are none. Call it until it takes nothing:
    /// the bytes may lie in two pieces.
    pub fn read(&mut self, id: FlowId, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let Some(open) = self.owned(id) else {
            return 0;
        };
        let taken = open.read(take);
        if taken > 0 {
            self.on_change(id);
        }
        taken
    }

    /// Sends bytes to the program, as many as there is room for; returns how many. After fewer than
    /// offered, [`Event::Writable`] follows.
    pub fn write(&mut self, id: FlowId, bytes: &[u8], now: Instant) -> usize {
        let offered = bytes.len().min(self.room_to_write(id, bytes.len()));
        let Some(open) = self.owned(id) else {
            return 0;
        };
        let taken = open.write(&bytes[..offered], offered < bytes.len(), now);
        self.settle(id, now);
        if taken > 0 {
            self.make_ready(id);
        }
        taken
    }

    /// Ends our direction: FIN after all bytes written. The program may go on sending.
    pub fn finish(&mut self, id: FlowId, now: Instant) {
        if let Some(open) = self.owned(id) {
            open.finish(now);
            self.make_ready(id);
        }
    }

    /// Ends a flow: the program sees a reset, behind what was written as far as its window takes it. A held SYN is refused. No
    /// event follows.
    pub fn reset(&mut self, id: FlowId, now: Instant) {
        match self.flows.get_mut(id) {
            None => {}
            Some(Flow::Held(_)) => self.refuse(id, Refusal::Reset, now),
            Some(Flow::Open(open)) if open.is_ending => {}
            Some(Flow::Open(open)) => {
                self.stats.resets_sent += 1;
                if open.has_more_to_say() {
                    open.is_ending = true;
                    self.stats.ending += 1;
                    self.make_ready(id);
                } else {
                    self.abort(id, now);
                }
            }
        }
    }

    /// The same without regard to what was written: its far end is no more.
    pub fn reset_at_once(&mut self, id: FlowId, now: Instant) {
        match self.flows.get(id) {
            None => {}
            Some(Flow::Held(_)) => self.refuse(id, Refusal::Reset, now),
            Some(Flow::Open(open)) => {
                self.stats.resets_sent += u64::from(!open.is_ending);
                self.abort(id, now);
            }
        }
    }

    /// Resets every accepted flow, and forgets every held SYN and every event: the far end knows
    /// none of them any more. A program that still connects notices nothing, as its kernel repeats
    /// the SYN.
    pub fn reset_all(&mut self, now: Instant) {
        for id in self.flows.ids() {
            match self.flows.get(id) {
                Some(Flow::Held(_)) => self.refuse(id, Refusal::Silent, now),
                Some(Flow::Open(_)) | None => self.reset_at_once(id, now),
            }
        }
        self.events.clear();
    }

    /// Takes the next IP packet for the TUN device.
    pub fn poll_packet(&mut self, now: Instant) -> Option<Vec<u8>> {
        let packet = match self.replies.pop_front() {
            Some(reply) => Some(reply),
            None => self.poll_ready(now),
        };
        self.stats.packets_out += u64::from(packet.is_some());
        packet
    }

    /// Gives a packet's memory back once it is written, to be used for the next.
    pub fn recycle(&mut self, packet: Vec<u8>) {
        self.stack.recycle(packet);
    }

    /// Takes the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            let event = self.events.pop_front()?;
            let is_owned = match self.flows.get(event.id()) {
                Some(Flow::Open(open)) => !open.is_ending,
                Some(Flow::Held(_)) => true,
                None => false,
            };
            if event.outlives_flow() || is_owned {
                return Some(event);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` if nothing waits.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.deadlines.next(), self.resting.next()].into_iter().flatten().min()
    }

    /// Lets the timers run that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.deadlines.pop_due(now) {
            let open = match self.flows.get_mut(id) {
                None => continue,
                Some(Flow::Open(open)) => open,
                Some(Flow::Held(held)) => {
                    held.deadline = held.look_at(now).and_then(|at| self.deadlines.sooner(id, None, at));
                    if held.deadline.is_none() {
                        self.stats.resets_received += 1;
                        self.forget(id);
                    }
                    continue;
                }
            };
            open.deadline = None;
            if open.is_given_up(now) {
                self.on_reset(id, now);
                continue;
            }
            // Most timers have become pointless by the time they run: what they guarded was acknowledged.
            match self.stack.wish(&open.socket, now) {
                Wish::Never => {}
                Wish::Now => self.make_ready(id),
                Wish::At(at) => open.deadline = self.deadlines.sooner(id, None, at),
            }
        }
        while let Some(id) = self.resting.pop_due(now) {
            self.rest(id, now);
        }
    }

    /// The host stood still for `time`, its programs and their kernel with it, which is no reason to give any of them up; to be
    /// said before timers run.
    pub fn on_stood_still(&mut self, time: Duration, now: Instant) {
        for id in self.flows.ids() {
            match self.flows.get_mut(id) {
                None => {}
                Some(Flow::Held(held)) => held.on_stood_still(time, now),
                Some(Flow::Open(open)) => open.on_stood_still(time, now),
            }
        }
    }

    /// The program's end of a flow, and whom it wants to reach.
    #[must_use]
    pub fn ends(&self, id: FlowId) -> Option<(SocketAddr, SocketAddr)> {
        let Tuple { source, target } = self.flows.get(id)?.tuple();
        Some((source, target))
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { flows: self.flows.len(), memory: self.pool.used(), ..self.stats }
    }

    fn handle_syn(&mut self, packet: &[u8], segment: &Segment, known: Option<FlowId>, now: Instant) {
        if let Some(id) = known {
            let first = self.flows.get(id).map(Flow::initial_sequence);
            if first == Some(segment.sequence) {
                self.stats.repeated_syns += 1;
                if let Some(Flow::Held(held)) = self.flows.get_mut(id) {
                    held.asked = now;
                }
                return;
            }
            if self.is_shared && self.challenge(id, packet, now) {
                return;
            }
            // The kernel that owns the program asks anew: the old connection is no more.
            self.stats.replaced += 1;
            self.forget(id);
        }
        self.hold(packet, segment, now);
    }

    /// Whether the flow is one that a SYN does not end: who sent it is told where the connection stands, at most once a second. A
    /// kernel that lost the connection answers with a reset that fits, and asks again; who made the SYN up learns nothing
    /// (RFC 5961 §4.2).
    fn challenge(&mut self, id: FlowId, syn: &[u8], now: Instant) -> bool {
        let Some(Flow::Open(open)) = self.flows.get_mut(id) else { return false };
        if !open.is_synchronized() {
            return false;
        }
        self.stats.challenged += 1;
        // smoltcp passes over a SYN. What it answers is an old segment, unless that acknowledges what is older than anything
        // unacknowledged: either this number or the one furthest from it does not.
        let old = open.old_sequence();
        let stale = [0, 1 << 31].into_iter().filter_map(|ack| tcp::as_acknowledgment(syn, old, ack));
        let answer = stale.into_iter().find_map(|stale| self.stack.feed(&mut open.socket, &stale, now));
        self.reply(answer);
        true
    }

    fn hold(&mut self, packet: &[u8], segment: &Segment, now: Instant) {
        if self.flows.len() >= self.limits.flows || !self.make_room(FLOW_BYTES, None) {
            self.stats.limited += 1;
            self.reply(reset_for(packet));
            return;
        }
        if self.stats.held >= self.limits.held || self.events.len() >= self.event_limit() {
            self.stats.dropped_syns += 1;
            return;
        }
        let Some(syn) = without_data(packet) else {
            return;
        };
        let tuple = Tuple::of(segment);
        let initial_sequence = segment.sequence;
        let held = Held { tuple, syn, initial_sequence, group: None, asked: now, deadline: None };
        if let Some(id) = self.flows.insert(Flow::Held(held)) {
            if let Some(Flow::Held(held)) = self.flows.get_mut(id) {
                held.deadline = held.look_at(now).and_then(|at| self.deadlines.sooner(id, None, at));
            }
            self.stats.held += 1;
            self.pool.reserve(None);
            self.by_tuple.insert(tuple, id);
            self.events.push_back(Event::Connect { id, source: tuple.source, target: tuple.target });
        }
    }

    fn handle_unknown(&mut self, packet: &[u8]) {
        let reset = reset_for(packet);
        self.stats.unknown_segments += u64::from(reset.is_some());
        self.reply(reset);
    }

    fn handle_segment(&mut self, id: FlowId, packet: &[u8], segment: &Segment, now: Instant) {
        let Some(Flow::Open(open)) = self.flows.get(id) else {
            // While its SYN is held, a program can only take it back.
            if segment.is_reset() {
                self.stats.resets_received += 1;
                self.forget(id);
            }
            return;
        };
        let Some(end) = open.end_of(segment) else {
            self.stats.dropped_beyond_window += 1;
            return;
        };
        if segment.payload_length > 0 && !self.expect(id, end, now) {
            self.stats.dropped_for_memory += 1;
            return;
        }
        let Some(Flow::Open(open)) = self.flows.get_mut(id) else { return };
        open.on_sign(now);
        let was_parked = open.is_parked();
        let answer = self.stack.feed(&mut open.socket, packet, now);
        let phase = open.socket.phase();
        let is_reset = segment.is_reset() && !was_parked;
        if phase == Phase::Waiting || (is_reset && phase == Phase::Closed) {
            self.on_reset(id, now);
            return;
        }
        // The last acknowledgment leaves at once, as nobody asks a parked socket for it.
        let last = (!was_parked && phase == Phase::Lingering)
            .then(|| self.stack.emit(&mut open.socket, now))
            .flatten();
        self.reply(answer);
        self.reply(last);
        self.on_change(id);
    }

    /// Tells the owner what changed, and ends the flow if nothing is left to do.
    fn on_change(&mut self, id: FlowId) {
        let Some(Flow::Open(open)) = self.flows.get_mut(id) else {
            return;
        };
        if open.is_ending {
            return if open.is_parked() { self.drop_flow(id) } else { self.make_ready(id) };
        }
        self.events.extend(open.on_change(id));
        if open.is_done() {
            self.stats.closed += 1;
            self.drop_flow(id);
            self.events.push_back(Event::Closed { id });
        } else {
            self.make_ready(id);
        }
    }

    /// The program reset the flow, or never answers again.
    fn on_reset(&mut self, id: FlowId, now: Instant) {
        self.stats.resets_received += 1;
        let is_told = self.owned(id).is_some();
        self.abort(id, now);
        if is_told {
            self.events.push_back(Event::Reset { id });
        }
    }

    /// The flow's connection is no more, and the program's kernel knows it.
    fn forget(&mut self, id: FlowId) {
        let is_ending = matches!(self.flows.get(id), Some(Flow::Open(open)) if open.is_ending);
        self.drop_flow(id);
        if !is_ending {
            self.events.push_back(Event::Reset { id });
        }
    }

    /// Sends the program a reset, if its connection still stands, and removes the flow.
    fn abort(&mut self, id: FlowId, now: Instant) {
        let reset = self.cut(id, now);
        self.reply(reset);
    }

    /// Removes the flow; returns the reset for the program, if its connection still stands.
    fn cut(&mut self, id: FlowId, now: Instant) -> Option<Vec<u8>> {
        let Some(Flow::Open(mut open)) = self.remove(id) else {
            return None;
        };
        let mut reset = None;
        if !open.is_parked() {
            open.socket.abort();
            reset = self.stack.emit(&mut open.socket, now);
        }
        self.pool.give_back(open.socket);
        reset
    }

    /// A connection that its owner has not given up.
    fn owned(&mut self, id: FlowId) -> Option<&mut Open> {
        match self.flows.get_mut(id) {
            Some(Flow::Open(open)) if !open.is_ending => Some(open),
            Some(Flow::Open(_) | Flow::Held(_)) | None => None,
        }
    }

    fn drop_flow(&mut self, id: FlowId) {
        if let Some(Flow::Open(open)) = self.remove(id) {
            self.pool.give_back(open.socket);
        }
    }

    fn remove(&mut self, id: FlowId) -> Option<Flow> {
        let flow = self.flows.remove(id)?;
        self.by_tuple.remove(&flow.tuple());
        match &flow {
            Flow::Held(held) => {
                self.stats.held -= 1;
                self.deadlines.cancel(id, held.deadline);
                self.pool.release(held.group);
            }
            Flow::Open(open) => {
                self.stats.ending -= usize::from(open.is_ending);
                self.deadlines.cancel(id, open.deadline);
                self.resting.trim(|id| self.flows.get(id).is_some());
            }
        }
        Some(flow)
    }

    fn make_ready(&mut self, id: FlowId) {
        if let Some(Flow::Open(open)) = self.flows.get_mut(id)
            && !open.is_ready
            && !open.is_parked()
        {
            open.is_ready = true;
            self.ready.push_back(id);
            self.trim_ready();
        }
    }

    /// Clears the queue of flows that are no more, should it be full of them: while the device takes
    /// no packets, flows may come and go.
    fn trim_ready(&mut self) {
        if self.ready.len() > self.limits.flows.saturating_mul(2) {
            self.ready.retain(|id| self.flows.get(*id).is_some());
        }
    }

    /// The next packet of a flow that has one, all taking turns.
    fn poll_ready(&mut self, now: Instant) -> Option<Vec<u8>> {
        while let Some(id) = self.ready.pop_front() {
            let Some(Flow::Open(open)) = self.flows.get_mut(id) else {
                continue;
            };
            open.is_ready = false;
            if open.is_parked() {
                continue;
            }
            let packet = self.stack.emit(&mut open.socket, now);
            let packet = if packet.is_none() && open.has_said_all() {
                self.cut(id, now)
            } else {
                self.reschedule(id, packet.is_some(), now);
                packet
            };
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    fn reschedule(&mut self, id: FlowId, has_sent: bool, now: Instant) {
        let Some(Flow::Open(open)) = self.flows.get_mut(id) else {
            return;
        };
        let at = match self.stack.wish(&open.socket, now) {
            _ if has_sent && open.is_ending => return self.make_ready(id),
            Wish::Never => return,
            Wish::Now if has_sent => return self.make_ready(id),
            Wish::Now => now + RETRY,
            Wish::At(at) => at,
        };
        open.deadline = self.deadlines.sooner(id, open.deadline, at);
    }

    /// Makes room for data of a flow up to `end`; false if there is none.
    fn expect(&mut self, id: FlowId, end: u64, now: Instant) -> bool {
        let has_room = self.has_room(id, |socket| socket.cost_of_receiving(end));
        let Some(Flow::Open(open)) = self.flows.get_mut(id) else { return false };
        if !has_room {
            // Where it stands in its ring may be all that it lacks.
            self.pool.rest(&mut open.socket);
            if open.socket.cost_of_receiving(end) - open.socket.charge() > self.pool.left(open.socket.group())
            {
                return false;
            }
        }
        open.socket.expect(end);
        self.settle(id, now);
        true
    }

    /// How many of `length` bytes a flow may write, for the memory that they take: without any, what fits in its pages, of which
    /// every flow has one for itself.
    fn room_to_write(&mut self, id: FlowId, length: usize) -> usize {
        let Some(Flow::Open(open)) = self.flows.get(id) else { return 0 };
        let length = length.min(open.socket.send_room());
        if self.has_room(id, |socket| socket.cost_of_writing(length)) {
            return length;
        }
        let Some(Flow::Open(open)) = self.flows.get(id) else { return 0 };
        length.min(open.socket.paid_room())
    }

    /// Whether there is memory for what a flow is going to cost, if need be after others have given back. They may have been
    /// the flow itself, which then lacks more than before.
    fn has_room(&mut self, id: FlowId, cost: impl Fn(&Socket) -> usize) -> bool {
        for may_ask in [true, true, false] {
            let Some(Flow::Open(open)) = self.flows.get(id) else { return false };
            let more = cost(&open.socket).saturating_sub(open.socket.charge());
            let group = open.socket.group();
            if more == 0 || more <= self.pool.left(group) {
                return true;
            }
            if may_ask {
                self.make_room(more, group);
            }
        }
        false
    }

    /// Counts what a flow takes now; one that takes more than a flow that rests is asked to rest later.
    fn settle(&mut self, id: FlowId, now: Instant) {
        let Some(Flow::Open(open)) = self.flows.get_mut(id) else { return };
        self.pool.settle(&mut open.socket);
        if open.socket.charge() > FLOW_BYTES && !open.may_rest {
            open.may_rest = true;
            self.resting.push(id, now);
            if self.resting.len() > self.limits.flows.saturating_mul(2) {
                self.resting.retain(|id| self.flows.get(id).is_some());
            }
        }
    }

    /// Gives the pages of a flow back if it has been at rest; else it is asked again later.
    fn rest(&mut self, id: FlowId, now: Instant) {
        let Some(Flow::Open(open)) = self.flows.get_mut(id) else { return };
        if open.is_at_rest(now) {
            self.pool.rest(&mut open.socket);
        }
        open.may_rest = open.socket.charge() > FLOW_BYTES;
        if open.may_rest {
            self.resting.push(id, now);
        } else {
            self.stats.rested += 1;
        }
    }

    /// Has flows give back what they do not need at this moment, until `bytes` of memory are left for a group: its own, if all
    /// together have enough. Says whether they are.
    fn make_room(&mut self, bytes: usize, group: Group) -> bool {
        if self.pool.left(group) >= bytes {
            return true;
        }
        let is_only_theirs = self.pool.left(None) >= bytes;
        if !is_only_theirs {
            self.pool.cool_spares();
        }
        for _ in 0..RECLAIMED_AT_ONCE.min(self.resting.len()) {
            if self.pool.left(group) >= bytes {
                return true;
            }
            let Some((id, due)) = self.resting.pop() else { break };
            let Some(Flow::Open(open)) = self.flows.get_mut(id) else { continue };
            if !is_only_theirs || open.socket.group() == group {
                self.pool.rest(&mut open.socket);
            }
            open.may_rest = open.socket.charge() > FLOW_BYTES;
            if open.may_rest {
                self.resting.push_at(id, due);
            }
        }
        self.pool.left(group) >= bytes
    }

    fn reply(&mut self, packet: Option<Vec<u8>>) {
        let Some(packet) = packet else { return };
        if self.replies.len() < self.limits.flows + SPARE_REPLIES {
            self.replies.push_back(packet);
        } else {
            self.stats.dropped_replies += 1;
        }
    }

    /// Events that may wait when a new flow is held. One flow has at most five (connect, readable,
    /// writable, finished, its end), so flows at their limit add at most as many again.
    const fn event_limit(&self) -> usize {
        self.limits.flows.saturating_mul(5)
    }
}

/// Our choice: flows that are asked for their pages before one packet is dropped.
const RECLAIMED_AT_ONCE: usize = 64;

/// Replies that may wait beside one for each flow, so that resetting all of them loses none.
const SPARE_REPLIES: usize = 1024;
