//! What leaves: [`Mux::fill`].
//!
//! 1. `GOAWAY`, then `PONG`s.
//! 2. `RESET`s: they free the peer's memory.
//! 3. `OPENED` and `CREDIT` of the streams that owe them.
//! 4. `OPEN`s, in the order of their ids.
//! 5. `DATA` and `FIN`, as `schedule` says.
//!
//! A stream's `OPENED` leaves before its bytes, since those stand behind it in this order, and its
//! `OPEN` does because bytes are only scheduled after it.

use std::time::Instant;

use super::Mux;
use super::event::Kind;
use super::frame::{Frame, Writer};
use super::stream::{Half, Phase};

impl Mux {
    /// Whether [`Self::fill`] may have something to write; `false` is certain.
    pub fn may_fill(&self) -> bool {
        self.going_away.is_owed
            || !self.pongs.is_empty()
            || !self.resets.is_empty()
            || !self.schedule.is_idle()
    }

    /// Fills `buffer`, which becomes one message, with whole frames, most urgent first; returns the
    /// bytes used, 0 = there is nothing to send. Bulk data fills it to the last byte. `buffer` must
    /// have room for the largest frame without data (24 bytes).
    pub fn fill(&mut self, buffer: &mut [u8], now: Instant) -> usize {
        let out = &mut Writer::new(buffer);
        // Each step is false when the buffer is full.
        let _has_room = self.fill_session(out)
            && self.fill_resets(out)
            && self.fill_owed(out)
            && self.fill_opens(out)
            && self.fill_data(out, now);
        out.len()
    }

    fn fill_session(&mut self, out: &mut Writer<'_>) -> bool {
        if self.going_away.is_owed {
            if !out.put(Frame::GoAway) {
                return false;
            }
            self.going_away.is_owed = false;
        }
        while let Some(token) = self.pongs.front() {
            if !out.put(Frame::Pong(*token)) {
                return false;
            }
            self.pongs.pop_front();
        }
        true
    }

    fn fill_resets(&mut self, out: &mut Writer<'_>) -> bool {
        while let Some((id, code)) = self.resets.front().copied() {
            if !out.put(Frame::Reset { id, code }) {
                return false;
            }
            self.resets.pop_front();
            self.stats.resets_sent += 1;
        }
        true
    }

    fn fill_owed(&mut self, out: &mut Writer<'_>) -> bool {
        while let Some(id) = self.schedule.owing.front() {
            if let Some(stream) = self.streams.get_mut(&id) {
                if !stream.emit_owed(id, out) {
                    return false;
                }
                stream.owes.is_listed = false;
            }
            self.schedule.owing.pop();
        }
        true
    }

    fn fill_opens(&mut self, out: &mut Writer<'_>) -> bool {
        while let Some(id) = self.schedule.opening.front() {
            if let Some(stream) = self.streams.get_mut(&id)
                && stream.phase == Phase::Waiting
            {
                if !out.put(Frame::Open { id, target: stream.target }) {
                    return false;
                }
                self.ids.announced = Some(id);
                stream.phase = Phase::Calling;
                if stream.owes_credit() {
                    stream.owes.credit = true;
                    self.schedule.owe(id, stream);
                }
                self.schedule.activate(id, stream);
            }
            self.schedule.opening.pop();
        }
        true
    }

    fn fill_data(&mut self, out: &mut Writer<'_>, now: Instant) -> bool {
        while out.data_room() > 0 {
            let Self { schedule, streams, budget, events, stats, .. } = self;
            let (mut has_finished, mut is_aborted) = (false, false);
            let served = schedule.serve(streams, now, |id, stream| {
                let held = stream.send.queue.len();
                let sent = stream.emit_data(id, out);
                stream.meter.on_sent(sent, stream.age(now));
                budget.send.resize(held, held - sent);
                stats.sent_bytes += sent as u64;
                has_finished = stream.send.half == Half::Finished;
                is_aborted = has_finished && stream.send.abort.is_some();
                if stream.send.is_awaited && budget.send.has_recovered(held - sent) {
                    stream.send.is_awaited = false;
                    events.raise(id, stream, Kind::Writable);
                }
                sent
            });
            let Some(id) = served else { return true };
            if is_aborted {
                self.stats.resets_sent += 1;
                self.forget(id);
            } else if has_finished {
                self.forget_if_done(id);
            }
        }
        false
    }
}
