//! One stream: its phase, its two halves and what it still owes the peer.
//!
//! ```text
//!       open()                                            peer's OPEN
//!         |                                                   |
//!      Waiting --OPEN leaves--> Calling --OPENED--> Open <--accept()-- Offered
//!
//!   send half      Open --finish()----> Finishing --FIN leaves-------> Finished
//!   receive half   Open --FIN arrives-> Finishing --last byte is read-> Finished
//!
//!   both halves Finished and every event polled ----------> forgotten
//!   RESET arrives, or the peer breaks the stream's rules -> Reset -- event polled --> forgotten
//!   reset() ----------------------------------------------> forgotten
//! ```
//!
//! Either half finishes on its own: a stream with one `Finished` half is half-closed. The opener may
//! send from `Calling` on, within the initial credit; the other end sends nothing before `OPENED`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::credit::{ReceiveCredit, SendCredit, Windows};
use super::event::News;
use super::frame::{Frame, ResetCode, StreamId, Writer};
use super::meter::Meter;
use super::queue::ByteQueue;
use super::schedule::Turn;

/// All streams that are not forgotten. Boxed, so that a sparse table stays small.
pub(super) type Streams = HashMap<StreamId, Box<Stream>>;

/// A stream of either end.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) phase: Phase,
    /// Where it leads to.
    pub(super) target: SocketAddr,
    pub(super) meter: Meter,
    begun: Instant,
    pub(super) send: SendHalf,
    pub(super) receive: ReceiveHalf,
    pub(super) turn: Turn,
    pub(super) news: News,
    pub(super) owes: Owes,
}

/// How far the opening of a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Ours; `OPEN` has not left yet.
    Waiting,
    /// Ours; `OPEN` has left, `OPENED` has not come.
    Calling,
    /// The peer's; not accepted yet.
    Offered,
    /// Both ends agreed.
    Open,
    /// Ended at once; only the event and bytes that arrived before are left.
    Reset(ResetCode),
}

/// How far one direction of a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// More bytes may follow.
    Open,
    /// The end is known, but bytes (or the `FIN`) are still in the queue.
    Finishing,
    /// Nothing is left to do.
    Finished,
}

/// Bytes on their way to the peer.
#[derive(Debug)]
pub(super) struct SendHalf {
    pub(super) queue: ByteQueue,
    pub(super) credit: SendCredit,
    pub(super) half: Half,
    /// A `RESET` follows the last byte, not a `FIN`.
    pub(super) abort: Option<ResetCode>,
    /// The writer was told that there is no room and waits to hear of it.
    pub(super) is_awaited: bool,
}

/// Bytes on their way to the reader.
#[derive(Debug)]
pub(super) struct ReceiveHalf {
    pub(super) queue: ByteQueue,
    pub(super) credit: ReceiveCredit,
    pub(super) half: Half,
}

/// Control frames that wait to leave; each stands for itself however often it was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owes {
    pub(super) opened: bool,
    pub(super) credit: bool,
    /// The stream stands in the list of those that owe.
    pub(super) is_listed: bool,
}

impl Stream {
    /// A new stream in `phase` to `target`.
    pub(super) fn new(phase: Phase, target: SocketAddr, windows: &Windows, now: Instant) -> Self {
        Self {
            phase,
            target,
            meter: Meter::default(),
            begun: now,
            send: SendHalf {
                queue: ByteQueue::default(),
                credit: SendCredit::new(),
                half: Half::Open,
                abort: None,
                is_awaited: false,
            },
            receive: ReceiveHalf {
                queue: ByteQueue::default(),
                credit: ReceiveCredit::new(windows),
                half: Half::Open,
            },
            turn: Turn::default(),
            news: News::default(),
            owes: Owes::default(),
        }
    }

    /// How long it has been there.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }

    /// Whether the state permits this end to queue bytes.
    pub(super) fn may_write(&self) -> bool {
        self.send.half == Half::Open && matches!(self.phase, Phase::Waiting | Phase::Calling | Phase::Open)
    }

    /// Whether a `DATA` or the `FIN` could leave now.
    pub(super) fn can_send(&self) -> bool {
        matches!(self.phase, Phase::Calling | Phase::Open)
            && if self.send.queue.is_empty() || self.send.abort.is_some() {
                self.send.half == Half::Finishing
            } else {
                self.send.credit.available() > 0
            }
    }

    /// Whether both directions are done and all was told.
    pub(super) fn is_done(&self) -> bool {
        self.send.half == Half::Finished && self.has_received_all() && self.news.is_empty()
    }

    /// Whether the peer's direction is done and read.
    pub(super) fn has_received_all(&self) -> bool {
        self.receive.half == Half::Finished
    }

    /// Whether the peer knows this stream and does not know that it is over.
    pub(super) fn must_be_told_of_reset(&self) -> bool {
        let is_over = self.send.half == Half::Finished && self.receive.half != Half::Open;
        !is_over && matches!(self.phase, Phase::Calling | Phase::Offered | Phase::Open)
    }

    /// Whether a `CREDIT` should leave.
    pub(super) fn owes_credit(&self) -> bool {
        self.receive.half == Half::Open
            && !matches!(self.phase, Phase::Waiting | Phase::Reset(_))
            && self.receive.credit.is_due()
    }

    /// Ends a receive half whose last byte was read; true when that happened now.
    pub(super) fn finish_reading(&mut self) -> bool {
        let is_last = self.receive.half == Half::Finishing && self.receive.queue.is_empty();
        if is_last {
            self.receive.half = Half::Finished;
        }
        is_last
    }

    /// Writes the control frames it owes; false when not all fit.
    pub(super) fn emit_owed(&mut self, id: StreamId, out: &mut Writer<'_>) -> bool {
        if matches!(self.phase, Phase::Reset(_)) {
            self.owes = Owes { is_listed: self.owes.is_listed, ..Owes::default() };
        }
        if self.owes.opened {
            if !out.put(Frame::Opened(id)) {
                return false;
            }
            self.owes.opened = false;
        }
        if self.owes.credit && self.receive.half == Half::Open {
            let limit = self.receive.credit.limit();
            if !out.put(Frame::Credit { id, limit }) {
                return false;
            }
            self.receive.credit.grant();
        }
        self.owes.credit = false;
        true
    }

    /// Writes one `DATA` frame as large as queue, credit and `out` allow, and the `FIN` or `RESET` behind
    /// the last byte. Returns the bytes of data.
    pub(super) fn emit_data(&mut self, id: StreamId, out: &mut Writer<'_>) -> usize {
        let queue = &mut self.send.queue;
        let len = queue.len().min(self.send.credit.available()).min(out.data_room());
        out.put_data(id, len, |body| {
            queue.pop_into(body);
        });
        self.send.credit.on_sent(len);
        let is_last = match self.send.abort {
            // A reader that stopped does not hold up the reset.
            Some(_) => self.send.queue.is_empty() || self.send.credit.available() == 0,
            None => self.send.queue.is_empty(),
        };
        let end = self.send.abort.map_or(Frame::Fin(id), |code| Frame::Reset { id, code });
        if self.send.half == Half::Finishing && is_last && out.put(end) {
            self.send.half = Half::Finished;
        }
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any start will do for a test's own clock")]
    fn stream(phase: Phase) -> Stream {
        Stream::new(phase, "192.0.2.1:80".parse().unwrap(), &Windows::new(0, 0, 0), Instant::now())
    }

    fn id() -> StreamId {
        StreamId::first(true)
    }

    #[test]
    fn an_idle_stream_is_small() {
        let table_slot = size_of::<(StreamId, Box<Stream>)>();
        assert!(size_of::<Stream>() + table_slot < 330, "{}", size_of::<Stream>());
    }

    #[test]
    fn sends_nothing_before_its_open_and_nothing_before_it_was_accepted() {
        for (phase, sends) in [
            (Phase::Waiting, false),
            (Phase::Calling, true),
            (Phase::Offered, false),
            (Phase::Open, true),
            (Phase::Reset(ResetCode::Reset), false),
        ] {
            let mut stream = stream(phase);
            assert!(!stream.can_send());
            stream.send.queue.push(b"x");
            assert_eq!(stream.can_send(), sends, "{phase:?}");
        }
    }

    #[test]
    fn the_fin_follows_the_last_byte() {
        let mut stream = stream(Phase::Open);
        stream.send.queue.push(&[7; 100]);
        stream.send.half = Half::Finishing;
        let mut buffer = [0; 57];
        assert_eq!(stream.emit_data(id(), &mut Writer::new(&mut buffer)), 50);
        assert_eq!(stream.send.half, Half::Finishing);
        let mut buffer = [0; 62];
        let mut out = Writer::new(&mut buffer);
        assert_eq!(stream.emit_data(id(), &mut out), 50);
        assert_eq!((out.len(), stream.send.half), (62, Half::Finished));
    }

    #[test]
    fn the_fin_does_not_pass_bytes_that_wait_for_credit() {
        let mut stream = stream(Phase::Open);
        stream.send.queue.push(&[7; 100_000]);
        stream.send.half = Half::Finishing;
        let mut buffer = vec![0; 80_000];
        let mut out = Writer::new(&mut buffer);
        stream.emit_data(id(), &mut out);
        stream.emit_data(id(), &mut out);
        assert_eq!((stream.send.credit.available(), stream.send.half), (0, Half::Finishing));
    }

    #[test]
    fn a_byte_of_credit_is_enough_to_send() {
        let mut stream = stream(Phase::Open);
        stream.send.queue.push(b"xyz");
        stream.send.credit.on_sent((64 << 10) - 1);
        assert!(stream.can_send());
        assert_eq!(stream.emit_data(id(), &mut Writer::new(&mut [0; 64])), 1);
        assert!(!stream.can_send());
    }

    #[test]
    fn a_fin_needs_no_credit() {
        let mut stream = stream(Phase::Open);
        stream.send.credit.on_sent(usize::MAX);
        stream.send.queue.push(b"x");
        stream.send.half = Half::Finishing;
        assert!(!stream.can_send());
        stream.send.queue.clear();
        assert!(stream.can_send());
    }

    #[test]
    fn a_reset_stream_owes_nothing() {
        let mut stream = stream(Phase::Reset(ResetCode::Timeout));
        stream.owes = Owes { opened: true, credit: true, is_listed: true };
        let mut buffer = [0; 64];
        let mut out = Writer::new(&mut buffer);
        assert!(stream.emit_owed(id(), &mut out));
        assert_eq!(out.len(), 0);
    }
}
