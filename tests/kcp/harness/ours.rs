//! An end with the project's own KCP.

use std::time::Instant;

use vpn::kcp::{Config, HEADER_LEN, Kcp, Stats};

use super::app::App;

/// Our KCP and what it was made with.
#[derive(Debug)]
pub(crate) struct Ours {
    kcp: Kcp,
    room: usize,
}

impl Ours {
    pub(crate) fn new(conv: u32, config: Config, now: Instant) -> Self {
        Self { kcp: Kcp::new(conv, config, now), room: config.mss + HEADER_LEN }
    }

    pub(crate) fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        self.kcp.handle_packet(packet, now).expect("a packet of KCP");
    }

    pub(crate) fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.kcp.poll_message()
    }

    /// Appends the next packet to `packet`.
    pub(crate) fn poll_transmit(&mut self, app: &mut App, packet: &mut Vec<u8>, now: Instant) -> bool {
        let start = packet.len();
        let sent = self.kcp.poll_transmit(self.room, app, packet, now);
        assert!(packet.len() - start <= self.room);
        sent
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.kcp.poll_timeout()
    }

    pub(crate) fn is_idle(&self) -> bool {
        !self.kcp.has_unacked()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.kcp.stats()
    }

    pub(crate) fn on_path_restored(&mut self, now: Instant) {
        self.kcp.on_path_restored(now);
    }
}
