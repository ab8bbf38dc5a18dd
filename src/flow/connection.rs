//! One flow: a held SYN, or an open connection and what its owner was told of it.

use std::time::{Duration, Instant};

use super::config::FlowLimits;
use super::event::Event;
use super::memory::Group;
use super::slab::FlowId;
use super::socket::{Phase, Socket};
use super::tuple::Tuple;
use crate::packet::tcp::Segment;

/// A flow in either of its two lives.
#[derive(Debug)]
pub(super) enum Flow {
    /// Waits for the owner's word.
    Held(Held),
    /// Was accepted.
    Open(Box<Open>),
}

/// A SYN that waits for the owner's word.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) tuple: Tuple,
    /// The SYN's headers, as the program's kernel wrote them.
    pub(super) syn: Vec<u8>,
    pub(super) initial_sequence: u32,
    /// Whose account it is on.
    pub(super) group: Group,
    /// When the program's kernel last asked.
    pub(super) asked: Instant,
    /// Its entry among the deadlines.
    pub(super) deadline: Option<Instant>,
}

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) tuple: Tuple,
    pub(super) socket: Socket,
    /// Its entry among the deadlines.
    pub(super) deadline: Option<Instant>,
    /// It stands in the queue of flows to poll.
    pub(super) is_ready: bool,
    /// It stands in the queue of flows that may rest.
    pub(super) may_rest: bool,
    /// Its owner reset it: what was written leaves, then the reset.
    pub(super) is_ending: bool,
    initial_sequence: u32,
    told: Told,
    finish_when_open: bool,
    send_buffer: usize,
    last_sign: Instant,
}

/// Which events are armed, and which were given.
#[derive(Debug, Clone, Copy)]
struct Told {
    wants_readable: bool,
    wants_writable: bool,
    finished: bool,
}

impl Flow {
    pub(super) const fn tuple(&self) -> Tuple {
        match self {
            Self::Held(held) => held.tuple,
            Self::Open(open) => open.tuple,
        }
    }

    /// The sequence number of the SYN it began with.
    pub(super) const fn initial_sequence(&self) -> u32 {
        match self {
            Self::Held(held) => held.initial_sequence,
            Self::Open(open) => open.initial_sequence,
        }
    }
}

impl Held {
    /// When to look whether its program still asks; `None` = it has stopped.
    pub(super) fn look_at(&self, now: Instant) -> Option<Instant> {
        let expires_at = self.asked + SYN_PATIENCE;
        (expires_at > now).then(|| expires_at.min(now + LOOK_EVERY))
    }

    /// The whole host stood still for `time`: the program's kernel could not ask.
    pub(super) fn on_stood_still(&mut self, time: Duration, now: Instant) {
        self.asked = now.min(self.asked + time);
    }
}

impl Open {
    /// Of `held`, with a socket that waits for its SYN.
    pub(super) fn new(held: &Held, socket: Socket, limits: &FlowLimits, now: Instant) -> Self {
        Self {
            tuple: held.tuple,
            socket,
            deadline: None,
            is_ready: false,
            may_rest: false,
            is_ending: false,
            initial_sequence: held.initial_sequence,
            told: Told { wants_readable: true, wants_writable: false, finished: false },
            finish_when_open: false,
            send_buffer: limits.send_buffer,
            last_sign: now,
        }
    }

    /// Where the data of a segment ends, in bytes since the start; `None` if that is beyond the receive buffer. smoltcp cuts a
    /// segment to the window it last advertised, but takes the unscaled window of the SYN-ACK for a scaled one,
    /// which may be more than the buffer holds, and then panics.
    pub(super) fn end_of(&self, segment: &Segment) -> Option<u64> {
        let in_order = self.socket.in_order();
        let start = self.initial_sequence.wrapping_add(1);
        #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
        let expected = start.wrapping_add(in_order as u32);
        let offset = i64::from(segment.sequence.wrapping_sub(expected).cast_signed());
        let beyond = offset.saturating_add_unsigned(segment.payload_length as u64);
        let fits = beyond <= i64::try_from(self.socket.receive_room()).unwrap_or(i64::MAX);
        fits.then(|| in_order.saturating_add_signed(beyond))
    }

    /// Whether both ends know the other's numbers, and may still say something.
    pub(super) fn is_synchronized(&self) -> bool {
        match self.socket.phase() {
            Phase::Open | Phase::WeFinished | Phase::TheyFinished | Phase::Closing => true,
            Phase::Waiting | Phase::Opening | Phase::Lingering | Phase::Closed => false,
        }
    }

    /// A sequence number before those that are expected.
    #[expect(clippy::cast_possible_truncation, reason = "sequence numbers wrap")]
    pub(super) fn old_sequence(&self) -> u32 {
        self.initial_sequence.wrapping_add(self.socket.in_order() as u32)
    }

    /// The program's kernel gave a sign of life.
    pub(super) const fn on_sign(&mut self, now: Instant) {
        self.last_sign = now;
    }

    /// The whole host stood still for `time`: the program's kernel could not give one.
    pub(super) fn on_stood_still(&mut self, time: Duration, now: Instant) {
        self.last_sign = now.min(self.last_sign + time);
    }

    /// Whether the program's kernel has not answered for so long that it never will.
    pub(super) fn is_given_up(&self, now: Instant) -> bool {
        let patience = match self.socket.phase() {
            Phase::Opening => SYN_ACK_PATIENCE,
            Phase::Waiting
            | Phase::Open
            | Phase::WeFinished
            | Phase::TheyFinished
            | Phase::Closing
            | Phase::Lingering
            | Phase::Closed => DATA_PATIENCE,
        };
        self.socket.is_waiting_for_ack() && now.saturating_duration_since(self.last_sign) > patience
    }

    /// Whether nothing has happened for so long that its pages are better given back.
    pub(super) fn is_at_rest(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_sign) >= REST_AFTER
    }

    /// Whether nothing is left to do: both directions ended in order, and all was read.
    pub(super) fn is_done(&self) -> bool {
        self.told.finished && matches!(self.socket.phase(), Phase::Lingering | Phase::Closed)
    }

    /// Whether the program has not been sent all that it was to see before a reset: that it is connected, and what was written.
    pub(super) fn has_more_to_say(&self) -> bool {
        self.socket.phase() == Phase::Opening || self.socket.has_unacknowledged()
    }

    /// Whether it was reset, and nothing that waits can leave before the reset: a program that does not read gets no more.
    pub(super) fn has_said_all(&self) -> bool {
        self.is_ending && self.socket.phase() != Phase::Opening
    }

    /// Whether smoltcp has nothing more to say. It must not be asked then: after a while in
    /// TIME-WAIT it would throw away what was not read.
    pub(super) fn is_parked(&self) -> bool {
        matches!(self.socket.phase(), Phase::Lingering | Phase::Closed)
    }

    pub(super) fn read(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let taken = self.socket.read(take);
        if self.socket.unread() == 0 {
            self.told.wants_readable = true;
        }
        taken
    }

    /// `is_cut` says that the owner has more than these bytes.
    pub(super) fn write(&mut self, bytes: &[u8], is_cut: bool, now: Instant) -> usize {
        if !self.socket.is_waiting_for_ack() {
            self.last_sign = now;
        }
        let taken = if self.finish_when_open { 0 } else { self.socket.write(bytes) };
        if taken < bytes.len() || is_cut {
            self.told.wants_writable = true;
        }
        taken
    }

    pub(super) fn finish(&mut self, now: Instant) {
        if !self.socket.is_waiting_for_ack() {
            self.last_sign = now;
        }
        // smoltcp counts sequence numbers wrongly if it is closed before its SYN is acknowledged.
        if self.socket.phase() == Phase::Opening {
            self.finish_when_open = true;
        } else {
            self.socket.finish();
        }
    }

    /// Looks at the socket after something happened to it, does what waited for this, and returns
    /// the events that are due.
    pub(super) fn on_change(&mut self, id: FlowId) -> impl Iterator<Item = Event> + use<> {
        let phase = self.socket.phase();
        if self.finish_when_open && matches!(phase, Phase::Open | Phase::TheyFinished) {
            self.finish_when_open = false;
            self.socket.finish();
        }
        let readable = self.told.wants_readable && self.socket.unread() > 0;
        let writable = self.told.wants_writable && self.socket.send_room() >= self.writable_room();
        let finished = !self.told.finished && self.socket.unread() == 0 && self.has_their_end();
        self.told.wants_readable &= !readable;
        self.told.wants_writable &= !writable;
        self.told.finished |= finished;
        [
            readable.then_some(Event::Readable { id }),
            writable.then_some(Event::Writable { id }),
            finished.then_some(Event::Finished { id }),
        ]
        .into_iter()
        .flatten()
    }

    fn has_their_end(&self) -> bool {
        matches!(self.socket.phase(), Phase::TheyFinished | Phase::Closing | Phase::Lingering | Phase::Closed)
    }

    fn writable_room(&self) -> usize {
        (self.send_buffer / 4).max(1)
    }
}

/// Our choice: longer than the pauses of what is at work, and what was moved in it pays for fresh pages.
pub(super) const REST_AFTER: Duration = Duration::from_secs(2);
/// How long nobody may ask for what is held, before it is let go: a program that gave up says nothing, and one that still waits
/// has its kernel ask every 64 s at least (Linux, `tcp_syn_retries` = 6).
const SYN_PATIENCE: Duration = Duration::from_secs(120);
/// smoltcp's longest timer: who sees no timer run for longer is right to think that the host slept.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long the program's kernel may leave our SYN-ACK unanswered: Linux's own patience as a server
/// (`tcp_synack_retries` = 5).
const SYN_ACK_PATIENCE: Duration = Duration::from_secs(63);
/// How long it may leave data or FIN unanswered: RFC 9293 §3.8.3 (R2, at least 100 s) and Linux's
/// `tcp_retries2` = 15. A zero window is an answer.
const DATA_PATIENCE: Duration = Duration::from_secs(924);
