//! When flows want to be woken, soonest first.
//!
//! A flow's retransmission timer moves with every acknowledgment, but only a timer that comes
//! *sooner* is entered anew: one that moved back fires once for nothing and is entered again then.
//! So the queue is touched about once a timeout and flow, not once a packet, and nothing scans.

use std::collections::BTreeSet;
use std::time::Instant;

use super::slab::FlowId;

/// A queue of deadlines, at most one for a flow.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queue: BTreeSet<(Instant, FlowId)>,
}

impl Deadlines {
    /// Enters `at` for a flow, whose entry is `current`; returns the entry it has now.
    pub(super) fn sooner(&mut self, id: FlowId, current: Option<Instant>, at: Instant) -> Option<Instant> {
        if let Some(entered) = current {
            if entered <= at {
                return current;
            }
            self.queue.remove(&(entered, id));
        }
        self.queue.insert((at, id));
        Some(at)
    }

    /// Takes out a flow's entry.
    pub(super) fn cancel(&mut self, id: FlowId, current: Option<Instant>) {
        if let Some(entered) = current {
            self.queue.remove(&(entered, id));
        }
    }

    /// Takes one flow whose deadline has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<FlowId> {
        let &(at, _) = self.queue.first()?;
        if at > now {
            return None;
        }
        self.queue.pop_first().map(|(_, id)| id)
    }

    /// The soonest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|&(at, _)| at)
    }
}
