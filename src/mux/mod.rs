//! Streams over one ordered, reliable sequence of messages.
//!
//! Stands between the inner TCP flows (or, on the far end, their sockets) and KCP: every flow is a
//! stream, all streams share one KCP session, as in the article on kcptun-raw that this project grew
//! from. It settles what a shared session otherwise does badly: a stopped reader stops only its own
//! stream (`credit`), a new connection never waits behind a download (`schedule`), and nothing grows
//! without a bound (`budget`).
//!
//! ```text
//!   write, finish --> send queue --+                      +--> receive queue --> readable, consume
//!                     send queue --+-- fill --> messages --> handle_message -----+
//!   open, accept, reset, credit ---+            (KCP)     +--> poll_event
//! ```
//!
//! The layer below *pulls*: bytes stay in their stream's queue until a message can leave, so what is
//! sent next is decided as late as possible and little waits where priorities no longer count.
//!
//! | the peer does | what happens |
//! |---|---|
//! | a malformed frame, an id of the wrong side, used or never opened, `OPENED`, `DATA` or `FIN` out of place | [`Violation`]: close the session |
//! | bytes after `FIN`, more than its credit, a limit that shrinks | that stream is reset with [`ResetCode::Reset`] |
//! | bytes beyond the session's bound | that stream is reset with [`ResetCode::Limit`] |
//! | more streams than the bound, at once or in a second, or one after our `GOAWAY` | that stream is refused with [`ResetCode::Limit`] |
//! | a frame for a stream that is over here | ignored: it crossed our `RESET` or `FIN` |
//!
//! Each is counted in [`Stats`].

mod budget;
mod credit;
mod event;
mod frame;
mod input;
mod meter;
mod output;
mod overview;
mod queue;
mod schedule;
mod stats;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub use event::Event;
pub use frame::{Malformed, ResetCode, StreamId};
pub use input::Violation;
pub use overview::{StreamState, StreamStatus};
pub use stats::Stats;

use budget::Budget;
use event::{EventQueue, Kind};
use schedule::Schedule;
use stream::{Half, Phase, Stream, Streams};

use crate::rate::Bucket;

/// Which end of the session this is; it decides the parity of the ids it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opens odd ids.
    Client,
    /// Opens even ids.
    Server,
}

/// Who opened a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// This end.
    Here,
    /// The other.
    Peer,
}

/// Bounds of one [`Mux`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams at once, of both ends together.
    pub streams: usize,
    /// Streams that the peer may open in a second, after 16,384 at once; those beyond are refused.
    pub opens_per_second: u32,
    /// Unsent bytes of one stream.
    pub send_buffer: usize,
    /// A new stream's receive window in bytes; 64 KiB at least, which is part of the protocol.
    pub receive_window_initial: usize,
    /// The largest receive window a stream grows to, in bytes.
    pub receive_window_max: usize,
    /// All buffered bytes of the session: half of it for each direction.
    pub session_buffer: usize,
}

impl Default for Limits {
    /// 16,384 streams and 64 MiB: a window for 1 Gbit/s at 100 ms fits.
    fn default() -> Self {
        Self {
            streams: 16_384,
            opens_per_second: 5_000,
            send_buffer: 256 << 10,
            receive_window_initial: 64 << 10,
            receive_window_max: 16 << 20,
            session_buffer: 64 << 20,
        }
    }
}

/// No stream can be opened: there are as many as the bound allows, the ids are used up, or either
/// end said `GOAWAY`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no further stream can be opened")]
pub struct TooManyStreams;

/// One end of a session's streams.
///
/// Commands: [`open`](Self::open), [`accept`](Self::accept), [`write`](Self::write),
/// [`finish`](Self::finish), [`consume`](Self::consume), [`reset`](Self::reset). Input:
/// [`handle_message`](Self::handle_message). After either, drain [`poll_event`](Self::poll_event),
/// and let the layer below [`fill`](Self::fill) messages. There are no timers. Commands on a stream
/// that is forgotten do nothing.
#[derive(Debug)]
pub struct Mux {
    limits: Limits,
    streams: Streams,
    schedule: Schedule,
    events: EventQueue,
    budget: Budget,
    ids: Ids,
    /// What is left of the peer's opens: each costs a socket of this host, and a connect to somebody.
    opens: Bucket,
    /// `RESET`s that wait, of streams forgotten already and of those refused.
    resets: VecDeque<(StreamId, ResetCode)>,
    /// Tokens of `PING`s that wait for their answer.
    pongs: VecDeque<u64>,
    going_away: GoingAway,
    /// Of the streams, those the peer opened.
    streams_of_peer: usize,
    stats: Stats,
}

/// How far the ids of each end have been used.
#[derive(Clone, Copy, Debug)]
struct Ids {
    /// Whether this end opens the odd ids.
    is_odd: bool,
    /// The id of the next stream opened here; `None` = used up.
    next: Option<StreamId>,
    /// The highest id opened here whose `OPEN` has left.
    announced: Option<StreamId>,
    /// The highest id the peer opened.
    peer: Option<StreamId>,
}

/// The `GOAWAY`s of both ends.
#[derive(Clone, Copy, Debug, Default)]
struct GoingAway {
    /// We said it, or will with the next message.
    here: bool,
    is_owed: bool,
    peer: bool,
    is_news: bool,
}

impl Mux {
    /// Makes an end without streams.
    pub fn new(role: Role, limits: Limits) -> Self {
        Self {
            limits,
            streams: Streams::new(),
            schedule: Schedule::default(),
            events: EventQueue::default(),
            budget: Budget::new(&limits),
            ids: Ids::new(role),
            opens: Bucket::default(),
            resets: VecDeque::new(),
            pongs: VecDeque::new(),
            going_away: GoingAway::default(),
            streams_of_peer: 0,
            stats: Stats::default(),
        }
    }

    /// Opens a stream to `target`. `Opened` or `Reset` follows; bytes may be written at once, and
    /// travel within the initial credit of 64 KiB without waiting for the answer.
    ///
    /// # Errors
    /// [`TooManyStreams`].
    pub fn open(&mut self, target: SocketAddr, now: Instant) -> Result<StreamId, TooManyStreams> {
        let is_shut = self.going_away.here || self.going_away.peer;
        if is_shut || self.streams.len() >= self.limits.streams {
            return Err(TooManyStreams);
        }
        let id = self.ids.next.ok_or(TooManyStreams)?;
        self.ids.next = id.next();
        let stream = Stream::new(Phase::Waiting, target, &self.budget.windows, now);
        self.streams.insert(id, Box::new(stream));
        self.schedule.opening.push(id);
        self.stats.opened_here += 1;
        Ok(id)
    }

    /// Accepts a stream the peer opened: answers `OPENED`, and tells of bytes that came with `OPEN`.
    pub fn accept(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !matches!(stream.phase, Phase::Offered) {
            return;
        }
        stream.phase = Phase::Open;
        stream.news.clear(Kind::Open);
        stream.owes.opened = true;
        stream.owes.credit = stream.owes_credit();
        self.schedule.owe(id, stream);
        self.schedule.activate(id, stream);
        if !stream.receive.queue.is_empty() {
            self.events.raise(id, stream, Kind::Readable);
        } else if stream.has_received_all() {
            self.events.raise(id, stream, Kind::Finished);
        }
    }

    /// Ends a stream in both directions at once and forgets it; what is unsent or unread is lost.
    /// Also how a peer's stream is refused. No event follows.
    pub fn reset(&mut self, id: StreamId, code: ResetCode) {
        if self.streams.get(&id).is_some_and(|stream| stream.must_be_told_of_reset()) {
            self.resets.push_back((id, code));
        }
        self.forget(id);
    }

    /// Resets a stream behind the bytes that were written, as far as the peer's credit reaches: what an app wrote
    /// before it aborted was acknowledged to it. No event of the stream means anything after this.
    pub fn abort(&mut self, id: StreamId, code: ResetCode) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.can_send()) else {
            return self.reset(id, code);
        };
        stream.send.half = Half::Finishing;
        stream.send.abort = Some(code);
        stream.send.is_awaited = false;
        stream.news.clear(Kind::Writable);
        self.schedule.activate(id, stream);
    }

    /// Queues bytes and returns how many there was room for: 0 before a peer's stream is accepted
    /// and after `finish`. After a short or filling write, one `Writable` follows when a quarter of
    /// the buffer is free again or all of it was sent.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.may_write()) else {
            return 0;
        };
        let held = stream.send.queue.len();
        let room = self.budget.send.room(held);
        let (taken, _) = bytes.split_at(room.min(bytes.len()));
        stream.send.queue.push(taken);
        self.budget.send.resize(held, held + taken.len());
        stream.send.is_awaited |= taken.len() < bytes.len() || taken.len() == room;
        self.schedule.activate(id, stream);
        taken.len()
    }

    /// How many bytes [`write`](Self::write) would take now. After a 0 on a stream that may be
    /// written, one `Writable` follows as after a short write.
    pub fn write_room(&mut self, id: StreamId) -> usize {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.may_write()) else {
            return 0;
        };
        let room = self.budget.send.room(stream.send.queue.len());
        stream.send.is_awaited |= room == 0;
        room
    }

    /// Ends this end's direction: `FIN` follows the last byte written. The other direction goes on.
    pub fn finish(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.send.half == Half::Open {
            stream.send.half = Half::Finishing;
            stream.send.is_awaited = false;
            stream.news.clear(Kind::Writable);
            self.schedule.activate(id, stream);
        }
    }

    /// The bytes that can be read in one piece; empty only when there are none at all. After a
    /// `Reset` of the peer what arrived before it can be read until that event is polled.
    pub fn readable(&self, id: StreamId) -> &[u8] {
        self.streams.get(&id).map(|stream| stream.receive.queue.front()).unwrap_or_default()
    }

    /// Drops `n` bytes that were read, and grants the peer as many when it is worth a frame.
    pub fn consume(&mut self, id: StreamId, n: usize, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let n = stream.receive.queue.consume(n);
        self.budget.receive.give(n);
        stream.receive.credit.on_consumed(n, &mut self.budget.windows, now);
        if stream.owes_credit() {
            stream.owes.credit = true;
            self.schedule.owe(id, stream);
        }
        if stream.finish_reading() && !matches!(stream.phase, Phase::Offered | Phase::Reset(_)) {
            self.events.raise(id, stream, Kind::Finished);
        }
    }

    /// Tells the peer to open no further streams, and opens none; those that are open go on.
    pub fn go_away(&mut self) {
        if !self.going_away.here {
            self.going_away.here = true;
            self.going_away.is_owed = true;
        }
    }

    /// Takes the next event; `None` when there is none.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.poll_event_of(Opener::Here).or_else(|| self.poll_event_of(Opener::Peer))
    }

    /// Takes the next event of the streams that one end opened. [`Event::GoAway`] is about those opened here.
    pub fn poll_event_of(&mut self, opener: Opener) -> Option<Event> {
        let is_here = opener == Opener::Here;
        if is_here && std::mem::take(&mut self.going_away.is_news) {
            return Some(Event::GoAway);
        }
        let event = self.events.poll(self.ids.is_odd == is_here, &mut self.streams)?;
        match event {
            Event::Reset { id, .. } => self.forget(id),
            Event::Finished { id } | Event::Writable { id } | Event::Readable { id } => {
                self.forget_if_done(id);
            }
            Event::Open { .. } | Event::Opened { .. } | Event::GoAway => {}
        }
        Some(event)
    }

    /// Takes the round-trip time of the layer below; windows grow by it.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.budget.windows.set_rtt(rtt);
    }

    /// The counters and present sizes.
    pub fn stats(&self) -> Stats {
        Stats {
            streams: self.streams.len(),
            streams_of_peer: self.streams_of_peer,
            send_buffered: self.budget.send.held(),
            receive_buffered: self.budget.receive.held(),
            ..self.stats
        }
    }

    /// Drops a stream with all it holds.
    fn forget(&mut self, id: StreamId) {
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        self.streams_of_peer -= usize::from(!self.ids.is_ours(id));
        self.budget.send.resize(stream.send.queue.len(), 0);
        self.budget.receive.give(stream.receive.queue.len());
        stream.receive.credit.release(&mut self.budget.windows);
        self.schedule.compact(&self.streams);
        self.events.compact(&self.streams);
    }

    fn forget_if_done(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|stream| stream.is_done()) {
            self.forget(id);
        }
    }
}

impl Ids {
    fn new(role: Role) -> Self {
        let is_odd = role == Role::Client;
        Self { is_odd, next: Some(StreamId::first(is_odd)), announced: None, peer: None }
    }

    /// Whether this end opens `id`.
    fn is_ours(&self, id: StreamId) -> bool {
        id.is_odd() == self.is_odd
    }

    /// Whether both ends have heard of `id`.
    fn was_opened(&self, id: StreamId) -> bool {
        let highest = if self.is_ours(id) { self.announced } else { self.peer };
        highest.is_some_and(|highest| id <= highest)
    }
}
