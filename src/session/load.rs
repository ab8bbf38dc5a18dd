//! What each end holds now: the sizes that the bounds are about, cheap enough to read after every packet.

use super::engine::Engine;

/// Bytes that one session holds, by the queue that holds them. The sum is bounded by `session_buffer`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionLoad {
    /// Sent and not acknowledged.
    pub kcp_send: usize,
    /// Received and not yet in order.
    pub kcp_receive: usize,
    /// Written by apps or targets and not sent.
    pub mux_send: usize,
    /// In order and not read by apps or targets.
    pub mux_receive: usize,
    /// Inner datagrams that wait; beside the bound, with one of their own.
    pub datagrams: usize,
    /// Pieces of frames that wait for others; likewise.
    pub fragments: usize,
}

/// What a client holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientLoad {
    /// Its session.
    pub session: SessionLoad,
    /// Inner TCP connections, those that wait to be accepted included.
    pub flows: usize,
    /// Bytes of memory that they take; what is above `session_buffer` in `process_buffer` bounds it.
    pub flow_memory: usize,
    /// Carriers: in use, retired and being opened.
    pub carriers: usize,
    /// Packets that wait for the TUN.
    pub tun: usize,
    /// Events that wait for the shell.
    pub events: usize,
}

/// What a server holds, over all peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerLoad {
    /// The sum of all sessions.
    pub total: SessionLoad,
    /// Sessions.
    pub sessions: usize,
    /// Bytes of the session that holds the most.
    pub largest_session: usize,
    /// Carriers, pending ones included.
    pub carriers: usize,
    /// Carriers of the peer that has the most.
    pub most_carriers: usize,
    /// Links that answer the pings of probes.
    pub probes: usize,
    /// Indexes by which packets find their carrier.
    pub indexes: usize,
    /// Connections towards clients, those that wait to be accepted included.
    pub flows: usize,
    /// Bytes of memory that they take; an eighth of `process_buffer` bounds it.
    pub flow_memory: usize,
    /// Packets that wait for the TUN.
    pub tun: usize,
    /// Packets that wait for the network, beside those that carriers make when they are asked.
    pub outbox: usize,
    /// Events that wait for the shell, beside those that MUX makes when it is asked.
    pub events: usize,
}

impl SessionLoad {
    pub(crate) fn of(engine: &Engine) -> Self {
        let (kcp, mux) = (engine.kcp_stats(), engine.mux.stats());
        Self {
            kcp_send: kcp.send_buffered,
            kcp_receive: kcp.receive_buffered,
            mux_send: mux.send_buffered,
            mux_receive: mux.receive_buffered,
            datagrams: engine.datagrams().held,
            fragments: engine.fragments().held,
        }
    }

    /// Bytes of streams: what `session_buffer` bounds.
    pub fn streams(&self) -> usize {
        self.kcp_send + self.kcp_receive + self.mux_send + self.mux_receive
    }
}

impl std::ops::AddAssign for SessionLoad {
    fn add_assign(&mut self, other: Self) {
        self.kcp_send += other.kcp_send;
        self.kcp_receive += other.kcp_receive;
        self.mux_send += other.mux_send;
        self.mux_receive += other.mux_receive;
        self.datagrams += other.datagrams;
        self.fragments += other.fragments;
    }
}
