//! The frames between the two ends of a lane.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use crate::frame::Frame;

/// The frames under way, in the order in which they are due; those due at the same time in the order in which they came.
///
/// Most frames come in that order and stand in a queue; a heap is there for those that overtake.
#[derive(Debug, Default)]
pub(crate) struct Travelling {
    ordered: VecDeque<Entry>,
    overtaking: BinaryHeap<Reverse<Entry>>,
    held: Vec<Held>,
    count: u64,
}

impl Travelling {
    pub(crate) fn len(&self) -> usize {
        self.ordered.len() + self.overtaking.len() + self.held.len()
    }

    /// Adds a frame, and behind it the held frames that it is the last to overtake.
    pub(crate) fn push(&mut self, frame: Frame, due: Instant) {
        self.insert(frame, due);
        let overtaken = |held: &mut Held| {
            held.distance -= 1;
            held.distance == 0
        };
        for held in self.held.extract_if(.., overtaken).collect::<Vec<_>>() {
            self.insert(held.entry.frame, due);
        }
    }

    /// Keeps a frame until `distance` others have come, or until `due`.
    pub(crate) fn hold(&mut self, frame: Frame, due: Instant, distance: u32) {
        let entry = self.entry(frame, due);
        self.held.push(Held { distance, entry });
    }

    fn insert(&mut self, frame: Frame, due: Instant) {
        let entry = self.entry(frame, due);
        if self.ordered.back().is_none_or(|last| last.due <= due) {
            self.ordered.push_back(entry);
        } else {
            self.overtaking.push(Reverse(entry));
        }
    }

    fn entry(&mut self, frame: Frame, due: Instant) -> Entry {
        self.count += 1;
        Entry { due, number: self.count, frame }
    }

    /// When the next frame is due; `None` when none is under way.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next().map(|(due, _)| due)
    }

    /// When the next frame is due, and where it stands.
    fn next(&self) -> Option<(Instant, Place)> {
        let ordered = self.ordered.front().map(|entry| (entry.key(), Place::Ordered));
        let overtaking = self.overtaking.peek().map(|Reverse(entry)| (entry.key(), Place::Overtaking));
        let held = self.held.iter().enumerate().map(|(n, held)| (held.entry.key(), Place::Held(n)));
        let first = ordered.into_iter().chain(overtaking).chain(held).min_by_key(|(key, _)| *key);
        first.map(|((due, _), place)| (due, place))
    }

    /// The next frame, if it is due, and when it was.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Instant, Frame)> {
        let (due, place) = self.next().filter(|(due, _)| *due <= now)?;
        let entry = match place {
            Place::Ordered => self.ordered.pop_front()?,
            Place::Overtaking => self.overtaking.pop()?.0,
            Place::Held(n) => self.held.remove(n).entry,
        };
        Some((due, entry.frame))
    }
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Ordered,
    Overtaking,
    Held(usize),
}

/// A frame that waits to be overtaken; its time is the latest at which it goes on.
#[derive(Debug)]
struct Held {
    distance: u32,
    entry: Entry,
}

#[derive(Debug)]
struct Entry {
    due: Instant,
    number: u64,
    frame: Frame,
}

impl Entry {
    const fn key(&self) -> (Instant, u64) {
        (self.due, self.number)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
