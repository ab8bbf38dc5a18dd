//! What the owner is told, and the bounded queue it is told from.
//!
//! The queue holds ids, not events: each stream remembers what is new about it, so a stream stands
//! in the queue once and has each kind of event at most once, whatever the peer does. Streams opened here stand in
//! another queue than the peer's, because they may have other owners.

use std::net::SocketAddr;

use super::frame::{ResetCode, StreamId};
use super::schedule::IdList;
use super::stream::{Phase, Stream, Streams};

/// News for the owner of a [`Mux`](super::Mux).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a stream; answer with `accept` or `reset`. Nothing but `Reset` is told of it
    /// before it is accepted.
    Open {
        /// The stream.
        id: StreamId,
        /// Where the peer wants to be connected to; nothing about it has been checked.
        target: SocketAddr,
    },
    /// The peer accepted our stream.
    Opened {
        /// The stream.
        id: StreamId,
    },
    /// Bytes arrived since the last such event; read until `readable` is empty.
    Readable {
        /// The stream.
        id: StreamId,
    },
    /// There is room again after a `write` that was short or filled the buffer, or a `write_room`
    /// of 0.
    Writable {
        /// The stream.
        id: StreamId,
    },
    /// The peer finished its direction and every byte of it was read.
    Finished {
        /// The stream.
        id: StreamId,
    },
    /// The stream ended at once; it is forgotten with this event.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        code: ResetCode,
    },
    /// The peer takes no new streams.
    GoAway,
}

/// One kind of news, in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open = 1,
    Opened = 2,
    Readable = 4,
    Finished = 8,
    Writable = 16,
    Reset = 32,
}

/// What is new about one stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct News {
    kinds: u8,
    /// The stream stands in the event queue.
    is_listed: bool,
}

impl News {
    pub(super) fn is_empty(self) -> bool {
        self.kinds == 0
    }

    pub(super) fn has(self, kind: Kind) -> bool {
        self.kinds & kind as u8 != 0
    }

    pub(super) fn clear(&mut self, kind: Kind) {
        self.kinds &= !(kind as u8);
    }

    fn set(&mut self, kind: Kind) {
        self.kinds |= kind as u8;
    }

    fn take_first(&mut self) -> Option<Kind> {
        let kind = KINDS.into_iter().find(|kind| self.has(*kind))?;
        self.clear(kind);
        Some(kind)
    }
}

/// The streams about which something is new, oldest news first.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    odd: IdList,
    even: IdList,
}

impl EventQueue {
    /// Notes `kind` of a stream.
    pub(super) fn raise(&mut self, id: StreamId, stream: &mut Stream, kind: Kind) {
        stream.news.set(kind);
        if !stream.news.is_listed {
            stream.news.is_listed = true;
            self.ids(id.is_odd()).push(id);
        }
    }

    /// Takes the next event of the odd streams, or of the even ones; the stream may be done with it.
    pub(super) fn poll(&mut self, is_odd: bool, streams: &mut Streams) -> Option<Event> {
        let ids = self.ids(is_odd);
        while let Some(id) = ids.front() {
            if let Some(stream) = streams.get_mut(&id) {
                while let Some(kind) = stream.news.take_first() {
                    if let Some(event) = describe(id, stream, kind) {
                        return Some(event);
                    }
                }
                stream.news.is_listed = false;
            }
            ids.pop();
        }
        None
    }

    fn ids(&mut self, is_odd: bool) -> &mut IdList {
        if is_odd { &mut self.odd } else { &mut self.even }
    }

    /// Streams in the queue.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.odd.len() + self.even.len()
    }

    /// Drops the ids of forgotten streams if they are many.
    pub(super) fn compact(&mut self, streams: &Streams) {
        self.odd.compact(streams);
        self.even.compact(streams);
    }
}

/// The event of `kind`; `None` when the stream's phase has outrun it.
fn describe(id: StreamId, stream: &Stream, kind: Kind) -> Option<Event> {
    Some(match (kind, stream.phase) {
        (Kind::Open, Phase::Offered) => Event::Open { id, target: stream.target },
        (Kind::Reset, Phase::Reset(code)) => Event::Reset { id, code },
        (Kind::Open | Kind::Reset, _) => return None,
        (Kind::Opened, _) => Event::Opened { id },
        (Kind::Readable, _) => Event::Readable { id },
        (Kind::Finished, _) => Event::Finished { id },
        (Kind::Writable, _) => Event::Writable { id },
    })
}

const KINDS: [Kind; 6] =
    [Kind::Open, Kind::Opened, Kind::Readable, Kind::Finished, Kind::Writable, Kind::Reset];

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::credit::Windows;
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any start will do for a test's own clock")]
    fn one_stream(phase: Phase) -> (StreamId, Streams) {
        let id = StreamId::first(true);
        let target = "192.0.2.1:80".parse().unwrap();
        let stream = Stream::new(phase, target, &Windows::new(0, 0, 0), Instant::now());
        (id, Streams::from([(id, Box::new(stream))]))
    }

    #[test]
    fn tells_each_kind_once_however_often_it_was_raised() {
        let (id, mut streams) = one_stream(Phase::Open);
        let mut queue = EventQueue::default();
        for kind in [Kind::Writable, Kind::Readable, Kind::Readable, Kind::Writable, Kind::Opened] {
            queue.raise(id, streams.get_mut(&id).unwrap(), kind);
        }
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.poll(true, &mut streams), Some(Event::Opened { id }));
        assert_eq!(queue.poll(true, &mut streams), Some(Event::Readable { id }));
        assert_eq!(queue.poll(true, &mut streams), Some(Event::Writable { id }));
        assert_eq!(queue.poll(true, &mut streams), None);
        queue.raise(id, streams.get_mut(&id).unwrap(), Kind::Readable);
        assert_eq!(queue.poll(true, &mut streams), Some(Event::Readable { id }));
    }

    #[test]
    fn tells_of_each_ends_streams_apart() {
        let [odd, even] = [true, false].map(StreamId::first);
        let stream = || one_stream(Phase::Open).1.into_values().next().unwrap();
        let mut streams = Streams::from([(odd, stream()), (even, stream())]);
        let mut queue = EventQueue::default();
        for id in [odd, even] {
            queue.raise(id, streams.get_mut(&id).unwrap(), Kind::Readable);
        }
        for (is_odd, id) in [(false, even), (true, odd)] {
            assert_eq!(queue.poll(is_odd, &mut streams), Some(Event::Readable { id }));
            assert_eq!(queue.poll(is_odd, &mut streams), None);
        }
    }

    #[test]
    fn says_nothing_of_streams_that_are_forgotten() {
        let (id, mut streams) = one_stream(Phase::Reset(ResetCode::Denied));
        let mut queue = EventQueue::default();
        queue.raise(id, streams.get_mut(&id).unwrap(), Kind::Reset);
        streams.clear();
        assert_eq!(queue.poll(true, &mut streams), None);
    }
}
