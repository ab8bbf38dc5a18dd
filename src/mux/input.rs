//! What the peer sent: [`Mux::handle_message`], one function for each frame.

use std::net::SocketAddr;
use std::time::Instant;

use super::event::Kind;
use super::frame::{Frame, Malformed, ResetCode, StreamId};
use super::stream::{Half, Phase, Stream, Streams};
use super::{Ids, Mux, Stats};
use crate::rate::Rate;

/// The peer broke the protocol; the session must be closed, for nothing it says can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A message that does not consist of frames.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// `OPEN` with an id that only this end may open.
    #[error("OPEN of stream {0}, which is ours to open")]
    WrongSide(StreamId),
    /// `OPEN` with an id not above the peer's last.
    #[error("OPEN of stream {0}, which is used already")]
    Reused(StreamId),
    /// A frame for an id that was never opened.
    #[error("a frame for stream {0}, which was never opened")]
    NeverOpened(StreamId),
    /// `OPENED` for a stream that the peer opened itself, or that is open already.
    #[error("OPENED for stream {0}, which does not wait for it")]
    Unasked(StreamId),
    /// `DATA` or `FIN` from an end that has not accepted the stream.
    #[error("DATA or FIN for stream {0} before OPENED")]
    NotAccepted(StreamId),
}

/// Why one stream is reset for what the peer did on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offence {
    DataAfterFin,
    CreditOverrun,
    CreditShrunk,
    OverBudget,
}

impl Mux {
    /// Takes one message of the layer below: whole frames, in the order they were sent.
    ///
    /// # Errors
    /// [`Violation`]: close the session. Frames before the bad one have been obeyed.
    pub fn handle_message(&mut self, message: &[u8], now: Instant) -> Result<(), Violation> {
        let mut rest = message;
        while !rest.is_empty() {
            match Frame::decode(&mut rest)? {
                Frame::Open { id, target } => self.handle_open(id, target, now)?,
                Frame::Opened(id) => self.handle_opened(id)?,
                Frame::Data { id, bytes } => self.handle_data(id, bytes, now)?,
                Frame::Fin(id) => self.handle_fin(id)?,
                Frame::Reset { id, code } => self.handle_reset(id, code)?,
                Frame::Credit { id, limit } => self.handle_credit(id, limit)?,
                Frame::Ping(token) => self.handle_ping(token),
                // We ask nothing by PING yet.
                Frame::Pong(_) => {}
                Frame::GoAway => self.handle_go_away(),
            }
        }
        Ok(())
    }

    fn handle_open(&mut self, id: StreamId, target: SocketAddr, now: Instant) -> Result<(), Violation> {
        if self.ids.is_ours(id) {
            return Err(Violation::WrongSide(id));
        }
        if self.ids.peer.is_some_and(|highest| id <= highest) {
            return Err(Violation::Reused(id));
        }
        self.ids.peer = Some(id);
        // Resets that wait count too, so that a peer that opens and never listens stays bounded.
        let in_use = self.streams.len() + self.resets.len();
        if self.going_away.here || in_use >= self.limits.streams {
            self.refuse(id);
            return Ok(());
        }
        let rate = Rate::per_second(self.limits.opens_per_second.max(1), OPENS_AT_ONCE);
        if !self.opens.take(rate, now) {
            self.stats.hurried_opens += 1;
            self.refuse(id);
            return Ok(());
        }
        let mut stream = Box::new(Stream::new(Phase::Offered, target, &self.budget.windows, now));
        self.events.raise(id, &mut stream, Kind::Open);
        self.streams.insert(id, stream);
        self.streams_of_peer += 1;
        self.stats.opened_by_peer += 1;
        Ok(())
    }

    fn handle_opened(&mut self, id: StreamId) -> Result<(), Violation> {
        if !self.ids.is_ours(id) {
            return Err(Violation::Unasked(id));
        }
        let Some(stream) = find(&mut self.streams, &self.ids, &mut self.stats, id)? else {
            return Ok(());
        };
        if stream.phase != Phase::Calling {
            return Err(Violation::Unasked(id));
        }
        stream.phase = Phase::Open;
        self.events.raise(id, stream, Kind::Opened);
        Ok(())
    }

    fn handle_data(&mut self, id: StreamId, bytes: &[u8], now: Instant) -> Result<(), Violation> {
        let Some(stream) = find(&mut self.streams, &self.ids, &mut self.stats, id)? else {
            return Ok(());
        };
        if stream.phase == Phase::Calling {
            return Err(Violation::NotAccepted(id));
        }
        let receive = &mut stream.receive;
        let offence = if receive.half != Half::Open {
            Offence::DataAfterFin
        } else if receive.credit.on_received(bytes.len(), now).is_err() {
            Offence::CreditOverrun
        } else if !self.budget.receive.take(bytes.len()) {
            Offence::OverBudget
        } else {
            receive.queue.push(bytes);
            stream.meter.on_received(bytes.len(), stream.age(now));
            self.stats.received_bytes += bytes.len() as u64;
            if stream.phase == Phase::Open {
                self.events.raise(id, stream, Kind::Readable);
            }
            return Ok(());
        };
        self.punish(id, offence);
        Ok(())
    }

    fn handle_fin(&mut self, id: StreamId) -> Result<(), Violation> {
        let Some(stream) = find(&mut self.streams, &self.ids, &mut self.stats, id)? else {
            return Ok(());
        };
        if stream.phase == Phase::Calling {
            return Err(Violation::NotAccepted(id));
        }
        if stream.receive.half != Half::Open {
            self.punish(id, Offence::DataAfterFin);
            return Ok(());
        }
        stream.receive.half = Half::Finishing;
        if stream.finish_reading() && stream.phase == Phase::Open {
            self.events.raise(id, stream, Kind::Finished);
        }
        Ok(())
    }

    fn handle_reset(&mut self, id: StreamId, code: ResetCode) -> Result<(), Violation> {
        let stream = find(&mut self.streams, &self.ids, &mut self.stats, id)?;
        if stream.is_some() {
            self.stats.resets_received += 1;
            self.end(id, code);
        }
        Ok(())
    }

    fn handle_credit(&mut self, id: StreamId, limit: u64) -> Result<(), Violation> {
        let Some(stream) = find(&mut self.streams, &self.ids, &mut self.stats, id)? else {
            return Ok(());
        };
        if stream.send.credit.raise(limit).is_err() {
            self.punish(id, Offence::CreditShrunk);
            return Ok(());
        }
        self.schedule.activate(id, stream);
        Ok(())
    }

    fn handle_ping(&mut self, token: u64) {
        if self.pongs.len() < MAX_PONGS {
            self.pongs.push_back(token);
        } else {
            self.stats.unanswered_pings += 1;
        }
    }

    fn handle_go_away(&mut self) {
        self.going_away.is_news |= !self.going_away.peer;
        self.going_away.peer = true;
    }

    /// Answers an `OPEN` that is not taken, unless too many answers wait.
    fn refuse(&mut self, id: StreamId) {
        self.stats.refused_opens += 1;
        if self.resets.len() < self.limits.streams.saturating_add(MAX_REFUSALS) {
            self.resets.push_back((id, ResetCode::Limit));
        } else {
            self.stats.unanswered_opens += 1;
        }
    }

    /// Resets a stream whose rules the peer broke; both ends hear of it, and no byte of it is kept.
    fn punish(&mut self, id: StreamId, offence: Offence) {
        let (counter, code) = match offence {
            Offence::DataAfterFin => (&mut self.stats.data_after_fin, ResetCode::Reset),
            Offence::CreditOverrun => (&mut self.stats.credit_overruns, ResetCode::Reset),
            Offence::CreditShrunk => (&mut self.stats.credit_shrinks, ResetCode::Reset),
            Offence::OverBudget => (&mut self.stats.over_budget, ResetCode::Limit),
        };
        *counter += 1;
        self.resets.push_back((id, code));
        if let Some(stream) = self.streams.get_mut(&id) {
            self.budget.receive.give(stream.receive.queue.len());
            stream.receive.queue.clear();
            stream.news.clear(Kind::Readable);
        }
        self.end(id, code);
    }

    /// Ends a stream by the peer's doing. What arrived stays readable until the event is polled; a
    /// stream the owner has not heard of is never mentioned.
    fn end(&mut self, id: StreamId, code: ResetCode) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.news.has(Kind::Open) {
            self.forget(id);
            return;
        }
        self.budget.send.resize(stream.send.queue.len(), 0);
        stream.send.queue.clear();
        stream.phase = Phase::Reset(code);
        stream.news.clear(Kind::Writable);
        self.events.raise(id, stream, Kind::Reset);
    }
}

/// The stream a frame is for. `None`, and counted, when it is over: the frame crossed its end.
fn find<'a>(
    streams: &'a mut Streams,
    ids: &Ids,
    stats: &mut Stats,
    id: StreamId,
) -> Result<Option<&'a mut Stream>, Violation> {
    if !ids.was_opened(id) {
        return Err(Violation::NeverOpened(id));
    }
    let stream = streams.get_mut(&id).filter(|stream| !matches!(stream.phase, Phase::Reset(_)));
    if stream.is_none() {
        stats.frames_for_closed += 1;
    }
    Ok(stream.map(Box::as_mut))
}

/// Our choice: as many as there may be streams, so that a program which opens all of them at once is not refused.
const OPENS_AT_ONCE: u32 = 16_384;

/// Tokens of `PING`s that may wait for their answer (our choice: one is usual).
const MAX_PONGS: usize = 16;

/// Refusals that may wait to be sent, beside one `RESET` for each stream (our choice: 32 KiB).
const MAX_REFUSALS: usize = 4096;
