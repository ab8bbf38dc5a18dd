//! The streams that the other end opened, as the shell sees them: each is to have a socket towards its target.
//!
//! A server connects for its clients, and a client for who is on the server's side of it; to the shell both are [`Streams`].

use std::net::SocketAddr;
use std::time::Instant;

use crate::mux::{Mux, ResetCode, StreamId};

/// A stream of one session, for the shell: never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// Of a server; a client has one.
    pub(super) peer: usize,
    /// Counts the sessions and epochs of this peer.
    pub(super) incarnation: u64,
    pub(super) stream: StreamId,
}

/// What the shell must do with its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// Connect to `target`, then call [`Streams::connected`] or [`Streams::reset`].
    Connect {
        /// The stream.
        stream: StreamKey,
        /// One that the other end may reach.
        target: SocketAddr,
    },
    /// Bytes wait in [`Streams::readable`].
    Readable(StreamKey),
    /// [`Streams::write`] has room again.
    Writable(StreamKey),
    /// The other end sends no more; everything it sent was read.
    Finished(StreamKey),
    /// The stream is gone: close its socket with a RST.
    Reset(StreamKey),
    /// Every stream of an earlier session or epoch of this peer is gone, as [`StreamEvent::Reset`].
    Abandoned(Abandoned),
}

/// The streams of a peer up to an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abandoned {
    pub(super) peer: usize,
    pub(super) before: u64,
}

impl Abandoned {
    /// Whether this stream is among them.
    pub fn includes(&self, stream: StreamKey) -> bool {
        stream.peer == self.peer && stream.incarnation < self.before
    }
}

/// What the shell says of its sockets. Calls about a stream that is gone do nothing.
pub trait Streams {
    /// The MUX that a stream is of; `None` once its session, or the epoch it was opened in, has ended.
    fn mux(&self, stream: StreamKey) -> Option<&Mux>;

    /// As [`Self::mux`]; there may be something to send afterwards.
    fn mux_mut(&mut self, stream: StreamKey) -> Option<&mut Mux>;

    /// The target answered: the app at the other end may be told.
    fn connected(&mut self, stream: StreamKey) {
        if let Some(mux) = self.mux_mut(stream) {
            mux.accept(stream.stream);
        }
    }

    /// Ends a stream: the target refused, is unreachable, or reset.
    fn reset(&mut self, stream: StreamKey, code: ResetCode) {
        if let Some(mux) = self.mux_mut(stream) {
            mux.reset(stream.stream, code);
        }
    }

    /// The target reset its connection: the app is told behind what the target had sent before.
    fn abort(&mut self, stream: StreamKey) {
        if let Some(mux) = self.mux_mut(stream) {
            mux.abort(stream.stream, ResetCode::Reset);
        }
    }

    /// The target sends no more.
    fn finish(&mut self, stream: StreamKey) {
        if let Some(mux) = self.mux_mut(stream) {
            mux.finish(stream.stream);
        }
    }

    /// How many bytes [`Self::write`] would take.
    fn write_room(&mut self, stream: StreamKey) -> usize {
        self.mux_mut(stream).map_or(0, |mux| mux.write_room(stream.stream))
    }

    /// Gives bytes of the target to the other end; returns how many were taken.
    fn write(&mut self, stream: StreamKey, bytes: &[u8]) -> usize {
        self.mux_mut(stream).map_or(0, |mux| mux.write(stream.stream, bytes))
    }

    /// Bytes of the other end that wait for the target; empty when there are none.
    fn readable(&self, stream: StreamKey) -> &[u8] {
        self.mux(stream).map_or(&[], |mux| mux.readable(stream.stream))
    }

    /// The target took `taken` bytes.
    fn consume(&mut self, stream: StreamKey, taken: usize, now: Instant) {
        if let Some(mux) = self.mux_mut(stream) {
            mux.consume(stream.stream, taken, now);
        }
    }
}
