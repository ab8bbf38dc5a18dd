//! Which flows may have pages to give back, in the order in which they are asked.
//!
//! Every flow is asked the same time after it was entered, so the queue is in order by itself; who was asked before its time
//! stands at the end again, and is asked a little late.

use std::collections::VecDeque;
use std::time::Instant;

use super::connection::REST_AFTER;
use super::slab::FlowId;

/// A queue of flows, each at most once.
#[derive(Debug, Default)]
pub(super) struct Resting {
    queue: VecDeque<(Instant, FlowId)>,
}

impl Resting {
    /// Enters a flow.
    pub(super) fn push(&mut self, id: FlowId, now: Instant) {
        self.push_at(id, now + REST_AFTER);
    }

    /// Enters a flow again that was taken out before its time.
    pub(super) fn push_at(&mut self, id: FlowId, due: Instant) {
        self.queue.push_back((due, id));
    }

    /// Takes the flow that has waited longest, and its time.
    pub(super) fn pop(&mut self) -> Option<(FlowId, Instant)> {
        self.queue.pop_front().map(|(due, id)| (id, due))
    }

    /// Takes a flow whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<FlowId> {
        let is_due = self.next().is_some_and(|due| due <= now);
        is_due.then(|| self.pop()).flatten().map(|(id, _)| id)
    }

    /// How many are entered, those that are no more included.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Forgets those that are no more.
    pub(super) fn retain(&mut self, is_there: impl Fn(FlowId) -> bool) {
        self.queue.retain(|(_, id)| is_there(*id));
    }

    /// Forgets those at the front that are no more: nobody is woken for them.
    pub(super) fn trim(&mut self, is_there: impl Fn(FlowId) -> bool) {
        while self.queue.front().is_some_and(|(_, id)| !is_there(*id)) {
            self.queue.pop_front();
        }
    }

    /// When the first is asked.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.front().map(|(due, _)| *due)
    }
}
