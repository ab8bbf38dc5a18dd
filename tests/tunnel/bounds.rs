//! The bounds on what each end holds, checked after every packet and every timeout.

use vpn::flow::FlowLimits;
use vpn::session::{ClientLoad, ClientSettings, HELD_MAX, ServerLoad, ServerSettings};

/// What the settings promise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    client_session: usize,
    flows: usize,
    /// Bytes of memory that they take.
    flow_memory: usize,
    server_session: usize,
    /// Of all of them together.
    server_sessions: usize,
    /// Of connections towards clients.
    server_flow_memory: usize,
    peers: usize,
    /// The most that was held at any time.
    pub(crate) peak: Peak,
}

/// How close to the bounds it came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peak {
    pub(crate) client_session: usize,
    pub(crate) server_session: usize,
    pub(crate) carriers: usize,
}

impl Bounds {
    pub(crate) fn of(client: &ClientSettings, server: &ServerSettings) -> Self {
        Self {
            client_session: client.session_buffer,
            flows: FlowLimits::default().flows,
            flow_memory: client.process_buffer - client.session_buffer,
            server_session: server.session_buffer,
            server_sessions: server.process_buffer - server.process_buffer / 8,
            server_flow_memory: server.process_buffer / 8,
            peers: server.peers.len(),
            peak: Peak::default(),
        }
    }

    pub(crate) fn check_client(&mut self, load: &ClientLoad) {
        let held = load.session.streams();
        assert!(held <= self.client_session, "a session above its bound: {load:?}");
        assert!(load.session.datagrams <= DATAGRAMS, "{load:?}");
        assert!(load.session.fragments <= HELD_MAX, "{load:?}");
        assert!(load.flows <= self.flows, "{load:?}");
        assert!(load.flow_memory <= self.flow_memory, "flows above the process's bound: {load:?}");
        assert!(load.carriers <= CLIENT_CARRIERS, "{load:?}");
        assert!(load.tun <= CLIENT_TUN, "{load:?}");
        assert!(load.events <= EVENTS, "{load:?}");
        self.peak.client_session = self.peak.client_session.max(held);
    }

    pub(crate) fn check_server(&mut self, load: &ServerLoad) {
        assert!(load.sessions <= self.peers, "{load:?}");
        assert!(load.flows <= self.flows && load.flow_memory <= self.server_flow_memory, "{load:?}");
        assert!(load.largest_session <= self.server_session, "a session above its bound: {load:?}");
        assert!(load.total.streams() <= self.server_sessions, "sessions above the process's bound: {load:?}");
        assert!(load.total.datagrams <= DATAGRAMS * self.peers, "{load:?}");
        assert!(load.total.fragments <= HELD_MAX * self.peers, "{load:?}");
        assert!(load.most_carriers <= PEER_CARRIERS, "{load:?}");
        assert!(load.indexes <= self.peers * PEER_CARRIERS + HANDSHAKES, "{load:?}");
        assert!(load.tun <= SERVER_TUN && load.outbox <= SERVER_OUTBOX, "{load:?}");
        assert!(load.events <= EVENTS, "{load:?}");
        self.peak.server_session = self.peak.server_session.max(load.largest_session);
        self.peak.carriers = self.peak.carriers.max(load.carriers);
    }
}

/// Inner datagrams of one session that wait, in bytes: small ones and those that need several packets.
const DATAGRAMS: usize = 2 * 256 * 1024;

/// Three that are live, four that end, eight in the making.
const CLIENT_CARRIERS: usize = 15;

/// Of one peer at the server.
const PEER_CARRIERS: usize = 8;

/// Handshakes between two sweeps for indexes without a carrier: a burst of 200 and 200 a second for 5 s.
const HANDSHAKES: usize = 1200;

const CLIENT_TUN: usize = 1024;
const SERVER_TUN: usize = 4096;
const SERVER_OUTBOX: usize = 1024;

/// Events that the shell takes after every packet.
const EVENTS: usize = 16;
