//! What a session keeps while carriers come and go: KCP, the streams above it, and the datagrams beside it.
//!
//! Packets are filled late and by pulling: a packet that may leave now asks for datagrams first, then KCP, and KCP
//! asks MUX for fresh bytes only when they can be sent at once. So what waits below MUX unsent is one packet.

use std::time::{Duration, Instant};

use super::frame::{self, FRAME_HEADER};
use crate::crypto::SessionId;
use crate::datagram;
use crate::kcp::{self, CongestionKind, Kcp};
use crate::mux::{self, Mux};

/// KCP, MUX and the datagram queue of one end of one session, in one epoch at a time.
#[derive(Debug)]
pub(crate) struct Engine {
    id: SessionId,
    epoch: u32,
    settings: Settings,
    kcp: Kcp,
    /// The streams; the owner opens, reads and writes them.
    pub(crate) mux: Mux,
    /// Inner packets that wait for the next sealed packet.
    pub(crate) datagrams: datagram::Queue,
    malformed: u64,
    last_heard: Instant,
}

/// What an engine is made with, in every epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Which end's stream ids are ours.
    pub(crate) role: mux::Role,
    /// How KCP reacts to loss.
    pub(crate) congestion: CongestionKind,
    /// Bound on all bytes the session may hold, in bytes.
    pub(crate) buffer: usize,
    /// Outer headers of a packet of this session, in bytes, for the pacer.
    pub(crate) overhead: usize,
}

/// The peer broke the MUX protocol: the session cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other end broke the stream protocol")]
pub(crate) struct Violation;

impl Engine {
    pub(crate) fn new(id: SessionId, epoch: u32, settings: Settings, now: Instant) -> Self {
        Self {
            id,
            epoch,
            settings,
            kcp: Kcp::new(id.conv(epoch), settings.kcp(), now),
            mux: Mux::new(settings.role, settings.mux()),
            datagrams: datagram::Queue::new(datagram::Limits::default()),
            malformed: 0,
            last_heard: now,
        }
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Begins a new epoch: nothing of the old streams or of KCP's state survives.
    pub(crate) fn restart(&mut self, epoch: u32, now: Instant) {
        self.epoch = epoch;
        self.kcp = Kcp::new(self.id.conv(epoch), self.settings.kcp(), now);
        self.mux = Mux::new(self.settings.role, self.settings.mux());
    }

    /// Takes the body of a `KCP` frame; afterwards MUX may have events.
    pub(crate) fn handle_kcp(&mut self, packet: &[u8], now: Instant) -> Result<(), Violation> {
        if self.kcp.handle_packet(packet, now).is_err() {
            self.malformed += 1;
        }
        if let Some(srtt) = self.kcp.srtt() {
            self.mux.set_rtt(srtt);
        }
        while let Some(message) = self.kcp.poll_message() {
            self.mux.handle_message(&message, now).map_err(|_| Violation)?;
        }
        Ok(())
    }

    /// Appends the frames that may leave now in a packet of at most `limit` bytes of plaintext; says whether any did.
    pub(crate) fn fill_packet(&mut self, out: &mut Vec<u8>, limit: usize, now: Instant) -> bool {
        let start = out.len();
        self.fill_datagrams(out, limit, now);
        let left = limit.saturating_sub(out.len() + FRAME_HEADER);
        if left >= self.settings.kcp().mss / 2 {
            let Self { kcp, mux, .. } = self;
            frame::put_kcp(out, |out| kcp.poll_transmit(left, &mut Pull { mux, now }, out, now));
        }
        out.len() > start
    }

    fn fill_datagrams(&mut self, out: &mut Vec<u8>, limit: usize, now: Instant) {
        let start = out.len();
        while let Some(length) = self.datagrams.peek_length(now) {
            if out.len() + FRAME_HEADER + length > limit {
                break;
            }
            let Some(packet) = self.datagrams.pop(now) else { break };
            frame::put_datagram(out, &packet);
        }
        if out.len() > start {
            self.kcp.on_datagram_sent(out.len() - start + self.settings.overhead, now);
        }
    }

    /// A packet of the session opened; after silence, that means that the path is back.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        if self.silence(now) > SILENCE {
            self.kcp.on_path_restored(now);
        }
        self.last_heard = now;
    }

    /// How long no packet of the session has opened.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_heard)
    }

    /// The path carries packets again.
    pub(crate) fn on_path_restored(&mut self, now: Instant) {
        self.kcp.on_path_restored(now);
    }

    /// When to ask for packets again if nothing else happens.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.kcp.poll_timeout()
    }

    /// Whether something sent has not been acknowledged.
    pub(crate) fn has_unacked(&self) -> bool {
        self.kcp.has_unacked()
    }

    /// Segments that the other end has, up to the first that it lacks: grows by acknowledgements of fresh data only.
    pub(crate) fn acknowledged(&self) -> u64 {
        let stats = self.kcp.stats();
        stats.sent - u64::from(stats.span)
    }

    pub(crate) fn malformed(&self) -> u64 {
        self.malformed
    }

    pub(crate) fn kcp_stats(&self) -> kcp::Stats {
        self.kcp.stats()
    }

    pub(crate) fn srtt(&self) -> Option<Duration> {
        self.kcp.srtt()
    }
}

impl Settings {
    fn kcp(&self) -> kcp::Config {
        let mss = PLAINTEXT - FRAME_HEADER - kcp::HEADER_LEN;
        // Its link is never dead: outages are survived, and when a session ends its owner decides.
        let full = kcp::Config::full(mss, self.overhead, self.buffer / 4);
        kcp::Config { congestion: self.congestion, ..full }
    }

    fn mux(&self) -> mux::Limits {
        mux::Limits {
            streams: STREAMS,
            send_buffer: STREAM_SEND_BUFFER,
            receive_window_initial: STREAM_WINDOW,
            receive_window_max: self.buffer / 4,
            session_buffer: self.buffer / 2,
        }
    }
}

/// MUX as the source of KCP's fresh bytes.
struct Pull<'a> {
    mux: &'a mut Mux,
    now: Instant,
}

impl kcp::Source for Pull<'_> {
    fn peek(&self) -> Option<kcp::Piece> {
        self.mux.may_fill().then_some(kcp::Piece::ANY)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        self.mux.fill(buffer, self.now)
    }
}

/// Plaintext of a full sealed packet, in bytes: an outer IPv4 packet of 1400, which passes PPPoE and most tunnels,
/// and leaves room for an inner IPv6 packet of 1280 (RFC 8200 §5).
pub(crate) const PLAINTEXT: usize = 1336;

/// The largest inner packet that goes in one `DATAGRAM` frame.
pub(crate) const DATAGRAM_MAX: usize = PLAINTEXT - FRAME_HEADER;
const _: () = assert!(DATAGRAM_MAX >= 1280);

/// [`DATAGRAM_MAX`] as ICMP says it.
#[expect(clippy::cast_possible_truncation, reason = "a packet is far below 64 KB")]
pub(crate) const DATAGRAM_MTU: u16 = DATAGRAM_MAX as u16;

/// IP and TCP headers of an outer packet, for the pacer: IPv4's; IPv6's 20 bytes more are lost in its precision.
pub(crate) const OUTER_HEADERS: usize = 40;

/// Our choice: what silence must have lasted for back-offs to be worth resetting.
const SILENCE: Duration = Duration::from_secs(1);

/// Our choice: streams of one session at a time.
const STREAMS: usize = 16_384;

/// Our choice: unsent bytes of one stream; what is in flight is held by KCP.
const STREAM_SEND_BUFFER: usize = 256 * 1024;

/// What a new stream may send before the first credit: what the protocol grants in any case. It grows with the rate.
const STREAM_WINDOW: usize = 64 * 1024;
