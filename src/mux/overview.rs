//! What there is to tell of each stream: [`Mux::streams`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Mux;
use super::frame::StreamId;
use super::stream::{Half, Phase, Stream};

/// One stream as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    /// The stream.
    pub id: StreamId,
    /// This end opened it.
    pub is_ours: bool,
    /// Where it leads to.
    pub target: SocketAddr,
    /// How far it has come.
    pub state: StreamState,
    /// Since `open`, or since the peer's `OPEN` came.
    pub age: Duration,
    /// Bytes put into frames.
    pub sent_bytes: u64,
    /// Bytes taken out of frames.
    pub received_bytes: u64,
    /// The same in the last second.
    pub sent_lately: u64,
    /// The same in the last second.
    pub received_lately: u64,
}

/// How far a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamState {
    /// The end that did not open it has not accepted it.
    Connecting,
    /// Bytes may be written at both ends.
    Open,
    /// This end writes no more.
    WeFinished,
    /// The peer writes no more.
    TheyFinished,
    /// Neither does, or it was reset.
    Closing,
}

impl Mux {
    /// The streams that this end opened, or those of the peer, and that are not forgotten, in no order.
    pub fn streams(&self, is_ours: bool, now: Instant) -> impl Iterator<Item = StreamStatus> {
        let asked = self.streams.iter().filter(move |(id, _)| self.ids.is_ours(**id) == is_ours);
        asked.map(move |(&id, stream)| self.describe(id, stream, now))
    }

    /// One stream.
    pub fn stream(&self, id: StreamId, now: Instant) -> Option<StreamStatus> {
        self.streams.get(&id).map(|stream| self.describe(id, stream, now))
    }

    fn describe(&self, id: StreamId, stream: &Stream, now: Instant) -> StreamStatus {
        let age = stream.age(now);
        let (sent_lately, received_lately) = stream.meter.lately(age);
        StreamStatus {
            id,
            is_ours: self.ids.is_ours(id),
            target: stream.target,
            state: state(stream),
            age,
            sent_bytes: stream.send.credit.sent(),
            received_bytes: stream.receive.credit.received(),
            sent_lately,
            received_lately,
        }
    }
}

fn state(stream: &Stream) -> StreamState {
    match (stream.phase, stream.send.half, stream.receive.half) {
        (Phase::Reset(_), _, _) => StreamState::Closing,
        (Phase::Waiting | Phase::Calling | Phase::Offered, _, _) => StreamState::Connecting,
        (Phase::Open, Half::Open, Half::Open) => StreamState::Open,
        (Phase::Open, _, Half::Open) => StreamState::WeFinished,
        (Phase::Open, Half::Open, _) => StreamState::TheyFinished,
        (Phase::Open, _, _) => StreamState::Closing,
    }
}
