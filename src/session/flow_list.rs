//! What there is to tell of each inner TCP connection, for `vpn status --flows`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::mux::{Mux, StreamState, StreamStatus};

/// One flow as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowStatus {
    /// Opened from the client's side; else from the server's.
    pub is_from_client: bool,
    /// The app's end, where the app is at this end.
    pub source: Option<SocketAddr>,
    /// Where the app wants to be connected to.
    pub target: SocketAddr,
    /// How far it has come.
    pub state: FlowState,
    /// Since the app asked, or since its question came through the tunnel.
    pub age: Duration,
    /// What moved through the tunnel; `None` once that is over and the app alone has not taken all of it.
    pub traffic: Option<FlowTraffic>,
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// The target has not answered.
    Connecting,
    /// Both may send.
    Open,
    /// The app sends no more.
    AppFinished,
    /// The target sends no more.
    TargetFinished,
    /// Neither does, or one of them reset it.
    Closing,
}

/// Bytes of one flow, without what carries them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTraffic {
    /// From this end to the other.
    pub sent: u64,
    /// From the other to this.
    pub received: u64,
    /// The same in the last second.
    pub sent_lately: u64,
    /// The same in the last second.
    pub received_lately: u64,
}

/// Some of the flows of one session, in no order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowList {
    /// At most as many as were asked for.
    pub flows: Vec<FlowStatus>,
    /// How many more there are.
    pub unlisted: usize,
}

/// Which end of the session lists its flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl FlowList {
    /// The streams that the other end opened, as far as there are places `left` for them.
    pub(crate) fn of_peers_streams(mux: &Mux, side: Side, left: &mut usize, now: Instant) -> Self {
        let mut list = Self::default();
        let theirs = mux.streams(false, now);
        theirs.for_each(|stream| list.push(FlowStatus::of_stream(&stream, side, None), left));
        list
    }

    /// Adds one if there is a place `left`.
    pub(crate) fn push(&mut self, flow: FlowStatus, left: &mut usize) {
        match left.checked_sub(1) {
            Some(fewer) => {
                *left = fewer;
                self.flows.push(flow);
            }
            None => self.unlisted += 1,
        }
    }
}

impl FlowStatus {
    /// The flow of a stream; `source` is the app, if it is at this end.
    pub(crate) fn of_stream(stream: &StreamStatus, side: Side, source: Option<SocketAddr>) -> Self {
        let state = match (stream.state, stream.is_ours) {
            (StreamState::Connecting, _) => FlowState::Connecting,
            (StreamState::Open, _) => FlowState::Open,
            // The app is at the end that opened the stream.
            (StreamState::WeFinished, true) | (StreamState::TheyFinished, false) => FlowState::AppFinished,
            (StreamState::WeFinished, false) | (StreamState::TheyFinished, true) => FlowState::TargetFinished,
            (StreamState::Closing, _) => FlowState::Closing,
        };
        Self {
            is_from_client: stream.is_ours == (side == Side::Client),
            source,
            target: stream.target,
            state,
            age: stream.age,
            traffic: Some(FlowTraffic {
                sent: stream.sent_bytes,
                received: stream.received_bytes,
                sent_lately: stream.sent_lately,
                received_lately: stream.received_lately,
            }),
        }
    }
}
