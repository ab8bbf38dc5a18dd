//! What a session keeps while carriers come and go: KCP, the streams above it, and the datagrams beside it.
//!
//! Packets are filled late and by pulling: a packet that may leave now asks for datagrams first, then KCP, and KCP
//! asks MUX for fresh bytes only when they can be sent at once. So what waits below MUX unsent is one packet.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::fragment::{FragmentStats, PIECE_HEADER, Piece, Reassembler, Splitter};
use super::frame::{self, FRAME_HEADER};
use super::path_mtu::{ETHERNET, USUAL};
use crate::crypto::{OVERHEAD, SessionId};
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
    /// Inner packets that wait for the next sealed packet …
    small: datagram::Queue,
    /// … and those that need several, which let the small ones pass.
    large: datagram::Queue,
    /// The large one that is leaving.
    large_pieces: Splitter,
    /// When the next piece of it may leave.
    large_free_at: Instant,
    /// A packet of KCP with segments that were made for larger packets.
    kcp_pieces: Splitter,
    reassembler: Reassembler,
    /// Of a full sealed packet of the carrier in use, in bytes.
    plaintext: usize,
    oversized: Option<Oversized>,
    malformed: u64,
    last_heard: Instant,
}

/// Some of the segments that are not acknowledged may be larger than those made now.
#[derive(Clone, Copy, Debug)]
struct Oversized {
    /// Payload bytes of the largest.
    mss: usize,
    /// Once the other end has so many segments, there are none.
    until: u64,
}

/// What an engine put into a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    Nothing,
    /// Little of it is data of KCP.
    Other,
    /// Most of it is.
    Data,
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

impl Engine {
    pub(crate) fn new(id: SessionId, epoch: u32, settings: Settings, now: Instant) -> Self {
        Self {
            id,
            epoch,
            settings,
            kcp: Kcp::new(id.conv(epoch), settings.kcp(), now),
            mux: Mux::new(settings.role, settings.mux()),
            small: datagram::Queue::new(datagram::Limits::default()),
            large: datagram::Queue::new(datagram::Limits {
                sojourn: LARGE_SOJOURN,
                ..datagram::Limits::default()
            }),
            large_pieces: Splitter::new(false),
            large_free_at: now,
            kcp_pieces: Splitter::new(true),
            reassembler: Reassembler::default(),
            plaintext: PLAINTEXT,
            oversized: None,
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
        self.kcp_pieces.stop();
        self.oversized = None;
        self.kcp.set_mss(mss(self.plaintext));
    }

    /// The carrier in use takes packets of so many bytes of plaintext from now on.
    pub(crate) fn set_plaintext(&mut self, plaintext: usize) {
        if plaintext == self.plaintext {
            return;
        }
        let before = self.oversized().map_or(mss(self.plaintext), |oversized| oversized.mss);
        if before > mss(plaintext) && self.kcp.has_unacked() {
            self.oversized = Some(Oversized { mss: before, until: self.kcp.sent_segments() });
        }
        self.plaintext = plaintext;
        self.kcp.set_mss(mss(plaintext));
    }

    fn oversized(&self) -> Option<Oversized> {
        self.oversized.filter(|oversized| oversized.until > self.kcp.acknowledged_segments())
    }

    /// The largest inner packet that goes in one `DATAGRAM` frame.
    fn datagram_max(&self) -> usize {
        self.plaintext - FRAME_HEADER
    }

    /// Queues an inner packet that is not TCP.
    ///
    /// # Errors
    /// The size to tell its sender, who forbids routers to cut it and can do with less. Of IPv4 only packets that an ordinary
    /// network would carry: those beyond are large because our TUN is, and cutting them is our business (on an interface of
    /// 65,520 bytes Linux sets DF on all UDP). Of IPv6 all beyond, since no router behind the other end may cut them either.
    pub(crate) fn push_datagram(
        &mut self,
        packet: &[u8],
        header: &datagram::Header,
        now: Instant,
    ) -> Result<(), TooBig> {
        let most = self.datagram_max();
        let (told, is_told) = match header.source {
            IpAddr::V4(_) => (most, header.dont_fragment && packet.len() <= USUAL_MTU),
            IpAddr::V6(_) => (most.max(IPV6_MIN_MTU), true),
        };
        if is_told && packet.len() > told {
            return Err(TooBig(u16::try_from(told).unwrap_or(u16::MAX)));
        }
        let queue = if packet.len() > most { &mut self.large } else { &mut self.small };
        queue.push(packet.to_vec(), now);
        Ok(())
    }

    /// Takes a piece of a frame; returns the frame if it was the last that was missing.
    pub(crate) fn handle_fragment(&mut self, piece: Piece<'_>, now: Instant) -> Option<Vec<u8>> {
        self.reassembler.handle_piece(piece, now)
    }

    /// Takes the body of a `KCP` frame; afterwards MUX may have events.
    ///
    /// # Errors
    /// How the peer broke the protocol of streams: the session cannot go on.
    pub(crate) fn handle_kcp(&mut self, packet: &[u8], now: Instant) -> Result<(), mux::Violation> {
        if self.kcp.handle_packet(packet, now).is_err() {
            self.malformed += 1;
        }
        if let Some(srtt) = self.kcp.srtt() {
            self.mux.set_rtt(srtt);
        }
        while let Some(message) = self.kcp.poll_message() {
            self.mux.handle_message(&message, now)?;
        }
        Ok(())
    }

    /// Appends the frames that may leave now in a packet that ends at `limit`; `out` may hold frames of the carrier already.
    pub(crate) fn fill_packet(&mut self, out: &mut Vec<u8>, limit: usize, now: Instant) -> Filled {
        let start = out.len();
        self.fill_kcp_pieces(out, limit, now);
        self.fill_datagrams(out, limit, now);
        let before_kcp = out.len();
        self.fill_kcp(out, limit, now);
        if out.len() == start {
            Filled::Nothing
        } else if before_kcp - start > out.len() - before_kcp {
            Filled::Other
        } else {
            Filled::Data
        }
    }

    fn fill_kcp(&mut self, out: &mut Vec<u8>, limit: usize, now: Instant) {
        let left = limit.saturating_sub(out.len() + FRAME_HEADER);
        if left < mss(self.plaintext) / 2 {
            return;
        }
        let Self { kcp, mux, .. } = self;
        let wrote = frame::put_kcp(out, |out| kcp.poll_transmit(left, &mut Pull { mux, now }, out, now));
        if !wrote && self.oversized.is_some() && left + FRAME_HEADER >= self.plaintext {
            self.fill_oversized(out, limit, now);
        }
    }

    /// What waits in front may be a segment that was made for larger packets.
    fn fill_oversized(&mut self, out: &mut Vec<u8>, limit: usize, now: Instant) {
        self.oversized = self.oversized();
        let Some(Oversized { mss, .. }) = self.oversized else { return };
        let (mut packet, most) = (Vec::new(), mss + kcp::HEADER_LEN);
        let Self { kcp, mux, .. } = self;
        frame::put_kcp(&mut packet, |out| kcp.poll_transmit(most, &mut Pull { mux, now }, out, now));
        if packet.len() <= limit - out.len() {
            out.append(&mut packet);
        } else {
            self.kcp_pieces.start(packet);
            self.put_kcp_piece(out, limit);
        }
    }

    /// KCP has counted the whole, in one packet.
    fn fill_kcp_pieces(&mut self, out: &mut Vec<u8>, limit: usize, now: Instant) {
        if self.put_kcp_piece(out, limit) {
            self.kcp.on_datagram_sent(FRAME_HEADER + PIECE_HEADER + self.settings.overhead, now);
        }
    }

    fn put_kcp_piece(&mut self, out: &mut Vec<u8>, limit: usize) -> bool {
        let piece = self.kcp_pieces.next_piece(room_for_piece(out, limit));
        piece.inspect(|&piece| frame::put_fragment(out, piece)).is_some()
    }

    fn fill_datagrams(&mut self, out: &mut Vec<u8>, limit: usize, now: Instant) {
        let start = out.len();
        self.fill_large(out, limit, now);
        while let Some(length) = self.small.peek_length(now) {
            if length > self.datagram_max() {
                // The path has become smaller.
                self.small.move_front_to(&mut self.large);
                continue;
            }
            if out.len() + FRAME_HEADER + length > limit {
                break;
            }
            let Some(packet) = self.small.pop(now) else { break };
            frame::put_datagram(out, &packet);
        }
        if out.len() > start {
            self.kcp.on_datagram_sent(out.len() - start + self.settings.overhead, now);
        }
    }

    /// A piece of a large datagram: a few packets at once, like small ones, the rest as fast as the path takes them.
    fn fill_large(&mut self, out: &mut Vec<u8>, limit: usize, now: Instant) {
        if self.large_free_at > now {
            return;
        }
        if self.large_pieces.is_idle()
            && let Some(packet) = self.large.pop(now)
        {
            let mut encoded = Vec::with_capacity(FRAME_HEADER + packet.len());
            frame::put_datagram(&mut encoded, &packet);
            self.large_pieces.start(encoded);
        }
        if let Some(piece) = self.large_pieces.next_piece(room_for_piece(out, limit)) {
            frame::put_fragment(out, piece);
            self.pace_large(now);
        }
    }

    /// One more full packet with a piece has left.
    fn pace_large(&mut self, now: Instant) {
        let Some(rate) = self.kcp.pacing_rate() else { return };
        let packet = u64::try_from(self.plaintext + self.settings.overhead).unwrap_or(u64::MAX);
        let time = Duration::from_nanos(packet.saturating_mul(1_000_000_000) / rate.max(1));
        let earliest = now.checked_sub(time * LARGE_BURST).unwrap_or(now);
        self.large_free_at = self.large_free_at.max(earliest) + time;
    }

    /// A packet of the session opened; after silence, that means that the path is back.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        if self.silence(now) > SILENCE {
            self.kcp.on_path_restored(now);
        }
        self.last_heard = now;
        self.reassembler.expire(now);
    }

    /// When a packet of the session last opened.
    pub(crate) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// How long none has.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_heard)
    }

    /// The path carries packets again.
    pub(crate) fn on_path_restored(&mut self, now: Instant) {
        self.kcp.on_path_restored(now);
    }

    /// Says with the next packet what has arrived, whether or not that is news, and asks for the same.
    pub(crate) fn compare(&mut self) {
        self.kcp.compare();
    }

    /// When to ask for packets again if nothing else happens.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let waits = !self.large_pieces.is_idle() || !self.large.is_empty();
        let large = waits.then_some(self.large_free_at);
        self.kcp.poll_timeout().into_iter().chain(large).min()
    }

    /// Whether something sent has not been acknowledged.
    pub(crate) fn has_unacked(&self) -> bool {
        self.kcp.has_unacked()
    }

    /// Segments that the other end has, up to the first that it lacks: grows by acknowledgements of fresh data only.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.kcp.acknowledged_segments()
    }

    /// Segments sent so far, not counting those sent again.
    pub(crate) fn sent_segments(&self) -> u64 {
        self.kcp.sent_segments()
    }

    /// Charges the pacer for a packet that the carrier sent of its own.
    pub(crate) fn on_sent_beside(&mut self, bytes: usize, now: Instant) {
        self.kcp.on_datagram_sent(bytes, now);
    }

    /// Inner packets that wait, and what became of others.
    pub(crate) fn datagrams(&self) -> datagram::Stats {
        self.small.stats() + self.large.stats()
    }

    /// Bytes of streams that it may hold.
    pub(crate) fn buffer(&self) -> usize {
        self.settings.buffer
    }

    /// Pieces of frames, received.
    pub(crate) fn fragments(&self) -> FragmentStats {
        self.reassembler.stats()
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
        // Its link is never dead: outages are survived, and when a session ends its owner decides.
        let full = kcp::Config::full(mss(PLAINTEXT), self.overhead, self.buffer / 4);
        kcp::Config { congestion: self.congestion, ..full }
    }

    fn mux(&self) -> mux::Limits {
        mux::Limits {
            streams: STREAMS,
            opens_per_second: OPENS_PER_SECOND,
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

/// An inner packet that its sender must make smaller: to so many bytes at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooBig(pub(crate) u16);

/// Payload of a segment that fills a packet of so many bytes of plaintext.
const fn mss(plaintext: usize) -> usize {
    plaintext - FRAME_HEADER - kcp::HEADER_LEN
}

/// Packets with pieces that leave at once after idleness: as many as a new TCP connection sends (RFC 6928).
const LARGE_BURST: u32 = 10;

/// Our choice: nobody talks in packets that fit no packet, and the 45 fragments of the largest datagram, which come at once and
/// are of no use without each other, take a quarter of a second on a path of which nothing is known yet.
const LARGE_SOJOURN: Duration = Duration::from_millis(500);

fn room_for_piece(out: &[u8], limit: usize) -> usize {
    limit.saturating_sub(out.len() + FRAME_HEADER + PIECE_HEADER)
}

/// Plaintext of a full sealed packet before anything is known of the path, in bytes.
pub(crate) const PLAINTEXT: usize = USUAL as usize - OUTER_HEADERS - OVERHEAD;

/// RFC 8200 section 5: no sender has to make its packets smaller.
const IPV6_MIN_MTU: usize = 1280;

/// Our choice: what is longer was not made for any path outside.
const USUAL_MTU: usize = ETHERNET as usize;

/// IP and TCP headers of an outer packet, for the pacer: IPv4's; IPv6's 20 bytes more are lost in its precision.
pub(crate) const OUTER_HEADERS: usize = 40;

/// Our choice: what silence must have lasted for back-offs to be worth resetting.
const SILENCE: Duration = Duration::from_secs(1);

/// Our choice: streams of one session at a time.
const STREAMS: usize = 16_384;

/// Our choice: more than one program opens, and what half a core of a server bears.
const OPENS_PER_SECOND: u32 = 5_000;

/// Our choice: unsent bytes of one stream; what is in flight is held by KCP.
const STREAM_SEND_BUFFER: usize = 256 * 1024;

/// What a new stream may send before the first credit: what the protocol grants in any case. It grows with the rate.
const STREAM_WINDOW: usize = 64 * 1024;
