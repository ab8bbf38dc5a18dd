//! KCP: the only thing in the tunnel that retransmits. ikcp's wire format, an engine of its own.
//!
//! Sans-IO. Feed [`Kcp::handle_packet`] with a whole receive batch, read [`Kcp::poll_message`] until it is empty, then
//! call [`Kcp::poll_transmit`] until it says `false`; do so again at [`Kcp::poll_timeout`] and whenever the
//! [`Source`] has new data. Data is *pulled* from the source when it can leave, so nothing waits unsent in here.
//!
//! What an ikcp peer does not see: congestion control and pacing behind one trait, loss detection by time as well as by
//! count, early copies, and no scan of the window anywhere (ikcp's `ikcp_flush` and `ikcp_check` look at every segment). It
//! does see repeated acks: each is one more sample of the round trip for it, so [`Config::ikcp`] sends every ack once.
//!
//! | ikcp | here |
//! |---|---|
//! | `ikcp_create`, `ikcp_nodelay`, `ikcp_wndsize`, `ikcp_setmtu` | [`Config`], for the life of a conversation; [`Mode`] |
//! | `ikcp_send`, `stream` | a [`Source`]: [`Messages`], [`Stream`] or one's own |
//! | `ikcp_recv`, `ikcp_peeksize` | [`Kcp::poll_message`] |
//! | `ikcp_input` | [`Kcp::handle_packet`] |
//! | `ikcp_update`, `ikcp_flush`, `ikcp_check` | [`Kcp::poll_transmit`], [`Kcp::poll_timeout`] |
//! | `ikcp_waitsnd` | [`Stats::span`], and what the source holds |
//! | `ikcp_getconv` | [`conversation`], [`Kcp::conversation`] |
//! | `state` of −1 | [`Kcp::is_dead`] |

mod acks;
#[cfg(test)]
mod article;
mod config;
mod congestion;
mod copies;
#[cfg(test)]
mod deadlines;
mod delivery;
#[cfg(test)]
mod hostile;
mod pacing;
mod probe;
mod rate;
mod receive;
mod recovery;
mod ring;
mod rtt;
mod segment;
mod send;
mod source;
mod stats;
#[cfg(test)]
mod tests;
mod tick;
mod window;

use std::time::{Duration, Instant};

use self::{
    acks::{Ack, Acks},
    pacing::Pacer,
    probe::Probe,
    receive::{Push, Receiver},
    segment::{Command, Header, distance},
    send::{Sender, Una},
    tick::Tick,
};
pub use self::{
    config::{Config, Mode, Nodelay, UnknownMode},
    congestion::{CongestionKind, Phase},
    segment::{HEADER_LEN, Malformed, conversation},
    source::{Messages, Piece, Refused, Source, Stream},
    stats::Stats,
};

/// One KCP conversation.
#[derive(Debug)]
pub struct Kcp {
    conv: u32,
    config: Config,
    /// When the clock that `ts` shows started.
    started: Instant,
    sender: Sender,
    receiver: Receiver,
    acks: Acks,
    probe: Probe,
    pacer: Pacer,
    tick: Tick,
    peer_window: u16,
    /// The source has data, as far as is known.
    waits: bool,
    stats: Stats,
}

impl Kcp {
    /// Starts conversation `conv`.
    pub fn new(conv: u32, config: Config, now: Instant) -> Self {
        let overhead = wide(config.overhead + HEADER_LEN);
        let packet = overhead + wide(config.mss);
        let most = packet * u64::from(config.send_window);
        let congestion = congestion::new(&config, packet, most, conv, now);
        let setup = send::Setup {
            overhead,
            packet,
            fast_resend: config.fast_resend,
            fast_limit: config.fast_limit,
            min_rto: config.min_rto,
            interval: config.interval,
            nodelay: config.nodelay,
            dead_link: config.dead_link,
        };
        let limits = receive::Limits {
            window: usize::from(config.receive_window),
            bytes: config.receive_buffer,
            segment: config.mss,
        };
        let mut kcp = Self {
            conv,
            config,
            started: now,
            sender: Sender::new(setup, congestion, now),
            receiver: Receiver::new(limits),
            acks: Acks::new(config.ack_repeats),
            probe: Probe::default(),
            pacer: Pacer::new(packet, now),
            tick: Tick::new(config.interval, now),
            peer_window: FIRST_PEER_WINDOW,
            waits: false,
            stats: Stats::default(),
        };
        kcp.pace(now);
        kcp
    }

    /// Starts conversation `conv` at `sn` in both directions.
    #[cfg(test)]
    fn starting_at(sn: u32, conv: u32, config: Config, now: Instant) -> Self {
        let mut kcp = Self::new(conv, config, now);
        kcp.sender.start_at(sn);
        kcp.receiver.start_at(sn);
        kcp
    }

    /// Takes one packet of the peer (`ikcp_input`).
    ///
    /// # Errors
    /// Says why the packet is not KCP of this conversation; it is counted and changes nothing. Segments that are well
    /// formed but make no sense are counted and ignored one by one.
    pub fn handle_packet(&mut self, packet: &[u8], now: Instant) -> Result<(), Malformed> {
        segment::check(packet, self.conv).inspect_err(|_| self.stats.malformed += 1)?;
        self.stats.received_bytes += wide(packet.len());
        let (mut rest, mut una) = (packet, self.sender.ring().una());
        while let Ok((header, payload, following)) = segment::split(rest, self.conv) {
            if self.handle_segment(&header, payload, now) && distance(header.una, una) > 0 {
                una = header.una;
            }
            rest = following;
        }
        self.sender.handle_una(una, now);
        self.sender.on_packet_end(now);
        self.pace(now);
        self.arrange_flush(now);
        Ok(())
    }

    /// The next message of the peer, in order. Call [`Self::poll_transmit`] after the last: it may announce the room.
    pub fn poll_message(&mut self) -> Option<Vec<u8>> {
        let was_closed = self.receiver.window() == 0;
        let message = self.receiver.poll_message()?;
        self.stats.payload_received_bytes += wide(message.len());
        if was_closed && self.receiver.window() > 0 {
            self.probe.on_tell_wanted();
        }
        Some(message)
    }

    /// Appends one packet of at most `max` bytes to `out`; `false` if nothing may leave now.
    ///
    /// Acks come first and are never held back by the pacer, then what is sent again, then fresh data from `source`.
    pub fn poll_transmit(
        &mut self,
        max: usize,
        source: &mut dyn Source,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> bool {
        // To know what is due costs as much as a packet.
        let gathers = !self.config.interval.is_zero();
        if gathers && !self.tick.may_flush(self.due(), source.peek().is_some(), now) {
            return false;
        }
        self.sender.handle_timeout(now);
        let start = out.len();
        let end = start + max;
        self.write_acks(end, out);
        self.write_probes(end, out, now);
        let has_control = out.len() > start;
        let has_data = self.write_data(end, source, out, now);
        let bytes = out.len() - start;
        if bytes == 0 {
            self.tick.on_flushed(now);
            return false;
        }
        self.stats.sent_bytes += wide(bytes);
        let wire = wide(bytes + self.config.overhead);
        if has_data {
            self.pacer.debit(wire, now);
        } else if has_control {
            let charged = self.pacer.debit_beside(wire, now);
            self.sender.on_beside(charged);
        }
        true
    }

    /// When [`Self::poll_transmit`] is to be called next if nothing happens before; `None` if idle.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.tick.poll_timeout(self.due())
    }

    /// Charges the pacer for `bytes` on the wire, all headers included, that left beside KCP.
    pub fn on_datagram_sent(&mut self, bytes: usize, now: Instant) {
        let charged = self.pacer.debit_beside(wide(bytes), now);
        self.sender.on_beside(charged);
    }

    /// The rate that packets are paced at, in bytes a second on the wire; `None`: they are not.
    pub fn pacing_rate(&self) -> Option<u64> {
        self.sender.congestion().pacing_rate().map(|rate| rate.bytes_per_second())
    }

    /// Makes fresh segments of at most `mss` bytes of payload from now on; what was made before keeps its size, and needs
    /// packets with room for it when it is sent again.
    pub fn set_mss(&mut self, mss: usize) {
        self.config.mss = mss;
        self.receiver.on_segment_size(mss);
    }

    /// Notes the first packet after a silence: back-offs end, and if acks are overdue the next `poll_transmit` sends the
    /// tail at once.
    pub fn on_path_restored(&mut self, now: Instant) {
        self.sender.on_path_restored(now);
        self.probe.on_path_restored(now);
        self.pace(now);
        self.arrange_flush(now);
    }

    /// Says with what leaves next how far everything has arrived, and asks the peer for the same (an ask of the window, which
    /// carries `una` like its answer): acks may have been lost that nothing would bring again.
    pub fn compare(&mut self) {
        self.probe.ask_once();
    }

    /// What was measured and counted.
    pub fn stats(&self) -> Stats {
        let (sent, received) = (self.sender.counters(), self.receiver.counters());
        let congestion = self.sender.congestion();
        Stats {
            srtt: self.srtt(),
            min_rtt: congestion.min_rtt(),
            rto: self.sender.rtt().rto(),
            bandwidth: congestion.bandwidth().map(|rate| rate.bytes_per_second()),
            pacing_rate: congestion.pacing_rate().map(|rate| rate.bytes_per_second()),
            phase: congestion.phase(),
            window: congestion.window(),
            in_flight: self.sender.ring().in_flight(),
            span: self.sender.ring().span(),
            send_buffered: self.sender.ring().buffered(),
            receive_buffered: self.receiver.buffered(),
            peer_window: self.peer_window,
            sent: sent.sent,
            retransmitted: sent.retransmitted,
            copied: sent.copied,
            spurious: sent.spurious,
            lost: sent.lost,
            timeouts: sent.timeouts,
            dead: self.sender.is_dead(),
            received: received.received,
            duplicates: received.duplicates,
            outside_window: received.outside_window,
            no_room: received.no_room,
            unassembled: received.unassembled,
            ..self.stats
        }
    }

    /// The smoothed round-trip time, once measured.
    pub fn srtt(&self) -> Option<Duration> {
        self.sender.rtt().smoothed()
    }

    /// The conversation both ends agree on (`ikcp_getconv`).
    pub fn conversation(&self) -> u32 {
        self.conv
    }

    /// Whether some segment was sent as often as [`Config::dead_link`] says (ikcp's `state` of −1). It stays so, and nothing
    /// else changes: whoever owns the conversation decides what it means.
    pub fn is_dead(&self) -> bool {
        self.sender.is_dead()
    }

    /// Segments sent, not counting those sent again.
    pub fn sent_segments(&self) -> u64 {
        self.sender.counters().sent
    }

    /// Segments that the peer has, up to the first that it lacks.
    pub fn acknowledged_segments(&self) -> u64 {
        self.sent_segments() - u64::from(self.sender.ring().span())
    }

    /// Whether something sent is not acknowledged yet.
    pub fn has_unacked(&self) -> bool {
        self.sender.ring().span() > 0
    }

    /// When something is due, the interval aside.
    fn due(&self) -> Option<Instant> {
        let tell = self.probe.is_due().then_some(self.started);
        [
            self.acks.waiting_since(),
            tell,
            self.probe.poll_timeout(),
            self.sender.poll_timeout(),
            self.release(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn arrange_flush(&mut self, now: Instant) {
        if !self.config.interval.is_zero() && self.due().is_some_and(|at| at <= now) {
            self.tick.arrange(now);
        }
    }

    /// Takes all of a segment but its `una`; whether it makes sense. One that does not only counts.
    fn handle_segment(&mut self, header: &Header, payload: &[u8], now: Instant) -> bool {
        let una = self.sender.check_una(header.una);
        if una == Una::Impossible {
            self.stats.bad_una += 1;
            return false;
        }
        let makes_sense = match header.command {
            Command::Push => self.handle_push(header, payload, now),
            Command::Ack => self.handle_ack(header, now),
            Command::Ask => {
                self.probe.on_tell_wanted();
                true
            }
            Command::Tell => true,
        };
        // What an overtaken segment says of the window is old, too.
        if makes_sense && una == Una::New {
            self.set_peer_window(header.wnd);
        }
        makes_sense
    }

    fn handle_push(&mut self, header: &Header, payload: &[u8], now: Instant) -> bool {
        let push = self.receiver.handle_push(header.sn, header.frg, payload);
        if push == Push::Acknowledged {
            let ack = Ack { sn: header.sn, ts: header.ts };
            if !self.acks.push(ack, now) {
                self.stats.acks_dropped += 1;
            }
        }
        push != Push::Outside
    }

    fn handle_ack(&mut self, header: &Header, now: Instant) -> bool {
        self.stats.acks_received += 1;
        let clock = self.clock(now);
        let makes_sense = self.sender.handle_ack(header.sn, header.ts, clock, now);
        if !makes_sense {
            self.stats.bad_acks += 1;
        }
        makes_sense
    }

    fn set_peer_window(&mut self, window: u16) {
        self.peer_window = window;
        if window > 0 {
            self.probe.on_open();
        }
    }

    fn write_acks(&mut self, end: usize, out: &mut Vec<u8>) {
        let una = self.receiver.una();
        while out.len() + HEADER_LEN <= end {
            let Some(ack) = self.acks.pop(una) else {
                return;
            };
            self.stats.acks_sent += 1;
            let header = self.header(Command::Ack, 0, ack.sn, ack.ts);
            out.extend_from_slice(&header.encode(0));
        }
    }

    fn write_probes(&mut self, end: usize, out: &mut Vec<u8>, now: Instant) {
        let ts = self.clock(now);
        if out.len() + HEADER_LEN <= end && self.probe.poll_ask(now) {
            let header = self.header(Command::Ask, 0, 0, ts);
            out.extend_from_slice(&header.encode(0));
        }
        if out.len() + HEADER_LEN <= end && self.probe.poll_tell() {
            let header = self.header(Command::Tell, 0, 0, ts);
            out.extend_from_slice(&header.encode(0));
        }
    }

    /// Fills the packet with data; whether there was any.
    fn write_data(&mut self, end: usize, source: &mut dyn Source, out: &mut Vec<u8>, now: Instant) -> bool {
        let start = out.len();
        self.waits = source.peek().is_some();
        // Nobody asks for room that nothing waits for.
        if self.waits && self.peer_window == 0 {
            self.probe.on_closed(now);
        } else {
            self.probe.on_open();
        }
        // What would be let go before the next flush leaves in this one.
        let paced = !self.pacer.may_send(now + self.config.interval);
        if paced && self.could_send() {
            self.pacer.on_waited_for();
        } else if paced {
            self.pacer.on_idle();
        }
        if paced && !self.sender.has_credit() {
            return false;
        }
        while self.write_retransmission(end, out, now) {}
        // Fresh data waits for those lost, unless they wait for the next packet only.
        if !paced && self.sender.peek_retransmission().is_none() {
            while self.write_fresh(end, source, out, now) {}
        }
        if !paced {
            while self.write_copy(end, out.len() > start, out, now) {}
        }
        if !paced && out.len() == start && !self.could_send() {
            self.pacer.on_idle();
        }
        out.len() > start
    }

    fn write_retransmission(&mut self, end: usize, out: &mut Vec<u8>, now: Instant) -> bool {
        if !self.sender.has_credit() && !self.sender.has_window() {
            return false;
        }
        let Some(sn) = self.sender.peek_retransmission() else {
            return false;
        };
        let Some(bytes) = self.write_again(sn, end, out, now) else {
            return false;
        };
        self.stats.retransmitted_bytes += bytes;
        self.sender.on_retransmitted(sn, self.clock(now), now);
        true
    }

    fn write_copy(&mut self, end: usize, beside_data: bool, out: &mut Vec<u8>, now: Instant) -> bool {
        let Some(sn) = self.sender.peek_copy(beside_data, now).filter(|_| self.sender.has_window()) else {
            return false;
        };
        let Some(bytes) = self.write_again(sn, end, out, now) else {
            return false;
        };
        self.stats.copied_bytes += bytes;
        self.sender.on_copied(sn, self.clock(now), now);
        true
    }

    /// Writes a segment that was sent before and returns how much payload it has; `None` if it does not fit.
    fn write_again(&mut self, sn: u32, end: usize, out: &mut Vec<u8>, now: Instant) -> Option<u64> {
        let sent = self.sender.ring().get(sn)?;
        let ts = self.clock(now);
        let header = self.header(Command::Push, sent.frg, sn, ts);
        if out.len() + HEADER_LEN + sent.payload.len() > end {
            return None;
        }
        let len = u32::try_from(sent.payload.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&header.encode(len));
        out.extend_from_slice(&sent.payload);
        Some(u64::from(len))
    }

    fn write_fresh(&mut self, end: usize, source: &mut dyn Source, out: &mut Vec<u8>, now: Instant) -> bool {
        let Some(piece) = source.peek() else {
            self.waits = false;
            self.sender.on_app_limited();
            return false;
        };
        let Some(room) = end.checked_sub(out.len() + HEADER_LEN) else {
            return false;
        };
        let room = room.min(self.config.mss);
        if room < piece.room.min(self.config.mss) || !self.may_send_fresh() {
            return false;
        }
        let at = out.len();
        out.resize(at + HEADER_LEN + room, 0);
        let (_, segment) = out.split_at_mut(at);
        let (head, payload) = segment.split_at_mut(HEADER_LEN);
        let filled = source.fill(payload).min(room);
        if filled == 0 && piece.room > 0 {
            out.truncate(at);
            self.waits = false;
            self.sender.on_app_limited();
            return false;
        }
        let ts = self.clock(now);
        let header = self.header(Command::Push, piece.frg, self.sender.ring().next(), ts);
        let len = u32::try_from(filled).unwrap_or(u32::MAX);
        head.copy_from_slice(&header.encode(len));
        self.sender.on_sent(&payload[..filled], piece.frg, ts, now);
        out.truncate(at + HEADER_LEN + filled);
        self.stats.payload_sent_bytes += u64::from(len);
        true
    }

    /// Whether congestion window, peer and buffer have room for fresh data.
    fn may_send_fresh(&self) -> bool {
        let span = self.sender.ring().span();
        span < u32::from(self.peer_window.min(self.config.send_window))
            && self.sender.ring().buffered() < self.config.send_buffer
            && self.sender.has_fresh_window()
    }

    /// When the pacer lets go what waits for it and for nothing else.
    fn release(&self) -> Option<Instant> {
        let lost = self.sender.has_retransmission();
        if lost && self.sender.has_credit() {
            return Some(self.started);
        }
        let release = self.before_interval(self.pacer.release());
        if self.could_send() {
            return Some(release);
        }
        let copy = self.sender.copy_at().filter(|_| self.sender.has_window())?;
        Some(if self.pacer.may_send(copy) { copy } else { release.max(copy) })
    }

    /// Whether something would leave if the pacer let it.
    fn could_send(&self) -> bool {
        if self.sender.has_retransmission() {
            self.sender.has_window()
        } else {
            self.waits && self.may_send_fresh()
        }
    }

    /// What would be let go before the flush that follows leaves in the one before.
    fn before_interval(&self, at: Instant) -> Instant {
        at.checked_sub(self.config.interval).unwrap_or(at)
    }

    fn pace(&mut self, now: Instant) {
        self.pacer.set_rate(self.sender.congestion().pacing_rate(), self.srtt(), now);
    }

    fn header(&self, command: Command, frg: u8, sn: u32, ts: u32) -> Header {
        Header {
            conv: self.conv,
            command,
            frg,
            wnd: self.receiver.window(),
            ts,
            sn,
            una: self.receiver.una(),
        }
    }

    /// The clock of `ts`: milliseconds since the start, wrapping.
    fn clock(&self, now: Instant) -> u32 {
        let millis = now.saturating_duration_since(self.started).as_millis();
        u32::try_from(millis & u128::from(u32::MAX)).unwrap_or(0)
    }
}

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// The peer's window until it says so (`IKCP_WND_RCV`).
const FIRST_PEER_WINDOW: u16 = 128;
