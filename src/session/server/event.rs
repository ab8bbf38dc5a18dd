//! What a server asks of its shell: sockets towards the targets of streams.

use std::net::SocketAddr;

use crate::mux::StreamId;

/// A stream of one peer, for the shell: never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    pub(super) peer: usize,
    pub(super) incarnation: u64,
    pub(super) stream: StreamId,
}

/// What the shell must do with its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// Connect to `target`, then call [`Server::connected`](super::Server::connected) or [`Server::reset`](super::Server::reset).
    Connect {
        /// The stream.
        stream: StreamKey,
        /// Allowed by the egress policy.
        target: SocketAddr,
    },
    /// Bytes wait in [`Server::readable`](super::Server::readable).
    Readable(StreamKey),
    /// [`Server::write`](super::Server::write) has room again.
    Writable(StreamKey),
    /// The client sends no more; everything it sent was read.
    Finished(StreamKey),
    /// The stream is gone: close its socket with a RST.
    Reset(StreamKey),
    /// Every stream of an earlier session or epoch of this peer is gone, as [`ServerEvent::Reset`].
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
