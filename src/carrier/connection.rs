//! One fake TCP connection, either end.
//!
//! ```text
//!  connect ──> SYN-SENT ──the right SYN-ACK──> ESTABLISHED ──close──> CLOSING ──FIN sent──> CLOSED
//!               │    └──close──> CLOSED             ^
//!               └──every SYN unanswered──>          └── accepted (the listener knew the cookie)
//!                          TIMED-OUT
//! ```
//!
//! Nothing from the network leads out of ESTABLISHED: RSTs, FINs and SYNs are counted, no more, because anyone can forge them and middleboxes
//! do. The numbers follow what strict connection trackers demand: seq grows with every payload sent, whether or not it
//! arrives; ack is the *highest* end of what was opened, never the first hole, since nothing is ever sent twice at the same seq.
//!
//! Drive it so: [`handle_segment`](Connection::handle_segment) → for a payload that the seal opened,
//! [`on_opened`](Connection::on_opened) → drain [`poll_transmit`](Connection::poll_transmit) → read
//! [`poll_timeout`](Connection::poll_timeout). Payloads leave by [`finish_packet`](Connection::finish_packet).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::stack::{LINUX, Stack, WINDOWS, default_mss, flow_label, initial_window, own_mss};
use super::{
    Accepted, DropReason, EmitError, Flags, Kind, Mode, ModeNotBuilt, Repr, Segment, Seq, Stats, SynOptions,
    header_len,
};

/// One fake TCP connection.
///
/// A connection never reconnects: a new source port is a new one.
#[derive(Debug)]
pub struct Connection {
    local: SocketAddr,
    remote: SocketAddr,
    mode: Mode,
    stack: &'static Stack,
    phase: Phase,
    /// Of the next payload.
    seq: Seq,
    flow_label: u32,
    peer_mss: Option<u16>,
    reset_to_syn: bool,
    stats: Stats,
}

impl Connection {
    /// The client's end: its SYN is due at once. `isn` must be random.
    ///
    /// # Errors
    /// The mode is not built.
    pub fn connect(
        local: SocketAddr,
        remote: SocketAddr,
        mode: Mode,
        isn: u32,
        now: Instant,
    ) -> Result<Self, ModeNotBuilt> {
        mode.require_built()?;
        let isn = Seq(isn);
        let phase = Phase::SynSent(Opening { isn, next_syn: now, sent: 0 });
        Ok(Self { seq: isn.advanced_by(1), ..Self::new(local, remote, mode, &WINDOWS, phase, isn) })
    }

    /// The server's end, established: made once the payload that brought the cookie has opened. That payload is owed an ACK, like one
    /// passed to [`on_opened`](Self::on_opened).
    ///
    /// # Errors
    /// The mode is not built.
    pub fn accepted(accepted: &Accepted, mode: Mode, now: Instant) -> Result<Self, ModeNotBuilt> {
        mode.require_built()?;
        let Accepted { local, remote, seq, ack, is_scaled } = *accepted;
        let mut open = Open::new(None, ack, LINUX.window(is_scaled));
        open.on_payload(ack, now);
        Ok(Self { seq, ..Self::new(local, remote, mode, &LINUX, Phase::Established(open), seq.previous()) })
    }

    fn new(
        local: SocketAddr,
        remote: SocketAddr,
        mode: Mode,
        stack: &'static Stack,
        phase: Phase,
        isn: Seq,
    ) -> Self {
        let (flow_label, stats) = (flow_label(isn), Stats::default());
        Self {
            local,
            remote,
            mode,
            stack,
            phase,
            seq: isn,
            flow_label,
            peer_mss: None,
            reset_to_syn: false,
            stats,
        }
    }

    /// Takes a segment of this connection and says what to do with its payload. Drops are counted here.
    pub fn handle_segment(&mut self, segment: &Segment, now: Instant) -> Input {
        let input = self.judge(segment, now);
        match input {
            Input::Ignored(reason) => self.stats.on_drop(reason),
            Input::ResetSeen => self.stats.on_drop(DropReason::Reset),
            Input::FinSeen => self.stats.on_drop(DropReason::Fin),
            Input::Payload | Input::Acknowledgement | Input::Established => {}
        }
        input
    }

    /// The payload of `segment` opened: only now do our ack and the debt of an ACK change. Believes any jump of seq, because whoever
    /// sealed the payload may be far ahead after a loss; a segment that was overtaken changes no ack.
    pub fn on_opened(&mut self, segment: &Segment, now: Instant) {
        if let Phase::Established(open) = &mut self.phase {
            open.on_payload(segment.end(), now);
        }
    }

    /// A payload of this connection's peer opened that came from, or to, another address (its NAT forgot it, or it moved): what
    /// leaves from now on goes the same way back. Call it before [`on_opened`](Self::on_opened).
    pub const fn on_peer_moved(&mut self, segment: &Segment) {
        self.local = segment.destination;
        self.remote = segment.source;
    }

    /// Writes the headers of a data packet: [`header_len`](Self::header_len) bytes reserved in front, the sealed packet behind. It also
    /// carries the ACK that may be owed.
    ///
    /// `is_last` sets PSH: say it of the last packet of a burst only, since receivers stop merging there.
    ///
    /// # Errors
    /// The connection is not established, or the packet has no payload or is too long. Nothing was counted as sent.
    pub fn finish_packet(&mut self, packet: &mut [u8], is_last: bool) -> Result<(), EmitError> {
        let Phase::Established(open) = self.phase else { return Err(EmitError::NotEstablished) };
        let payload = packet.len().checked_sub(self.header_len()).filter(|&length| length > 0);
        let payload = payload.ok_or(EmitError::TooShort)?;
        let flags = if is_last { Flags::ACK.with(Flags::PSH) } else { Flags::ACK };
        self.repr(flags, open.highest, open.window).emit(packet)?;
        self.seq = self.seq.advanced_by(payload);
        self.phase = Phase::Established(open.acknowledged());
        Ok(())
    }

    /// The next packet without payload that is due: a SYN, a pure ACK, the FIN.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        let repr = match self.phase {
            Phase::SynSent(opening) => self.poll_syn(opening, now)?,
            Phase::Established(open) => {
                open.ack_at.filter(|&due| due <= now)?;
                self.phase = Phase::Established(open.acknowledged());
                self.repr(Flags::ACK, open.highest, open.window)
            }
            Phase::Closing(open) => {
                self.phase = Phase::Closed;
                self.repr(Flags::FIN.with(Flags::ACK), open.highest, open.window)
            }
            Phase::Closed | Phase::TimedOut => return None,
        };
        repr.to_packet().ok()
    }

    /// When [`poll_transmit`](Self::poll_transmit) has something to do next: the next SYN (or giving up), or a delayed ACK.
    /// Meaningful once it was drained.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::SynSent(opening) => Some(opening.next_syn),
            Phase::Established(open) => open.ack_at,
            Phase::Closing(_) | Phase::Closed | Phase::TimedOut => None,
        }
    }

    /// Ends the connection as TCP would: one FIN, if it was ever established. Its answer is not waited for.
    pub const fn close(&mut self) {
        self.phase = match self.phase {
            Phase::SynSent(_) => Phase::Closed,
            Phase::Established(open) => Phase::Closing(open),
            phase @ (Phase::Closing(_) | Phase::Closed | Phase::TimedOut) => phase,
        };
    }

    /// Where the connection stands.
    #[must_use]
    pub const fn state(&self) -> State {
        match self.phase {
            Phase::SynSent(_) => State::SynSent,
            Phase::Established(_) => State::Established,
            Phase::Closing(_) => State::Closing,
            Phase::Closed => State::Closed,
            Phase::TimedOut => State::TimedOut,
        }
    }

    /// Whether data packets may be finished now.
    #[must_use]
    pub const fn may_send(&self) -> bool {
        matches!(self.phase, Phase::Established(_))
    }

    /// Bytes to reserve in front of a sealed packet: 40 or 60.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        header_len(&self.remote)
    }

    /// Our end.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// The peer's.
    #[must_use]
    pub const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// How the connection opened and its numbers move.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The largest payload the server's SYN-ACK allows; `None` before it, and at the server's end.
    #[must_use]
    pub const fn peer_mss(&self) -> Option<u16> {
        self.peer_mss
    }

    /// Whether a RST answered our SYN. It may be forged, so it stops nothing; it explains why nothing else came.
    #[must_use]
    pub const fn reset_to_syn(&self) -> bool {
        self.reset_to_syn
    }

    /// What was dropped so far.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// The transition table: kind of segment by phase.
    fn judge(&mut self, segment: &Segment, now: Instant) -> Input {
        if segment.source != self.remote || segment.destination != self.local {
            return Input::Ignored(DropReason::WrongPeer);
        }
        match (segment.kind(), self.phase) {
            (Kind::Reset, Phase::SynSent(opening)) => {
                self.reset_to_syn |= segment.flags.contains(Flags::ACK) && opening.is_answered_by(segment);
                Input::ResetSeen
            }
            (Kind::Reset, _) => Input::ResetSeen,
            (Kind::Fin, _) => Input::FinSeen,
            (_, Phase::Closing(_) | Phase::Closed | Phase::TimedOut) => Input::Ignored(DropReason::Closed),
            (Kind::Syn, _) => Input::Ignored(DropReason::UnexpectedSyn),
            (Kind::SynAck, Phase::SynSent(opening)) => self.handle_syn_ack(opening, segment, now),
            (Kind::SynAck, Phase::Established(open)) => self.handle_repeated_syn_ack(open, segment, now),
            (Kind::Data | Kind::Acknowledgement, Phase::SynSent(_)) => {
                Input::Ignored(DropReason::NotEstablished)
            }
            (Kind::Data, Phase::Established(_)) => Input::Payload,
            (Kind::Acknowledgement, Phase::Established(_)) => Input::Acknowledgement,
        }
    }

    /// Owes the ACK at once: real stacks complete the handshake before the application has written anything, and it tells the
    /// path our scaled window.
    fn handle_syn_ack(&mut self, opening: Opening, segment: &Segment, now: Instant) -> Input {
        if !opening.is_answered_by(segment) {
            return Input::Ignored(DropReason::UnexpectedSynAck);
        }
        let window = self.stack.window(segment.options.window_scale.is_some());
        let open = Open::new(Some(segment.seq), segment.seq.advanced_by(1), window);
        self.peer_mss = Some(segment.options.mss.unwrap_or(default_mss(&self.remote)));
        self.phase = Phase::Established(open.with_ack_due(now));
        Input::Established
    }

    /// Our ACK was lost, or the server answered two SYNs: TCP repeats its ACK (RFC 9293, section 3.10.7.4).
    fn handle_repeated_syn_ack(&mut self, open: Open, segment: &Segment, now: Instant) -> Input {
        if open.peer_isn != Some(segment.seq) {
            return Input::Ignored(DropReason::UnexpectedSynAck);
        }
        self.phase = Phase::Established(open.with_ack_due(now));
        Input::Ignored(DropReason::RepeatedSynAck)
    }

    /// The same SYN again after 1 s, 2 s, 4 s …; after the last one's time the connection gives up.
    fn poll_syn(&mut self, opening: Opening, now: Instant) -> Option<Repr> {
        if now < opening.next_syn {
            return None;
        }
        if opening.sent == SYN_ATTEMPTS {
            self.phase = Phase::TimedOut;
            return None;
        }
        let next_syn = now + SYN_TIMEOUT * (1 << opening.sent);
        self.phase = Phase::SynSent(Opening { next_syn, sent: opening.sent + 1, ..opening });
        let mss = own_mss(&self.remote);
        let options = SynOptions::windows(mss, self.stack.window_scale);
        Some(Repr { seq: opening.isn, options, ..self.repr(Flags::SYN, Seq(0), initial_window(mss)) })
    }

    const fn repr(&self, flags: Flags, ack: Seq, window: u16) -> Repr {
        Repr {
            source: self.local,
            destination: self.remote,
            seq: self.seq,
            ack,
            flags,
            window,
            options: SynOptions::NONE,
            hop_limit: self.stack.hop_limit,
            flow_label: self.flow_label,
        }
    }
}

/// What a segment meant to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Its payload is to be opened; if it opens, call [`Connection::on_opened`].
    Payload,
    /// It was a pure ACK, which says nothing that could be believed.
    Acknowledgement,
    /// It was the SYN-ACK: data may be sent.
    Established,
    /// It was a RST, and was not believed.
    ResetSeen,
    /// It was a FIN, and was not believed.
    FinSeen,
    /// It changed nothing (but for [`DropReason::RepeatedSynAck`], which makes an ACK due).
    Ignored(DropReason),
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// SYNs are being sent.
    SynSent,
    /// Data may flow.
    Established,
    /// The FIN waits to be polled.
    Closing,
    /// Closed by us.
    Closed,
    /// No SYN was answered.
    TimedOut,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    SynSent(Opening),
    Established(Open),
    Closing(Open),
    Closed,
    TimedOut,
}

#[derive(Clone, Copy, Debug)]
struct Opening {
    isn: Seq,
    next_syn: Instant,
    sent: u32,
}

impl Opening {
    fn is_answered_by(&self, segment: &Segment) -> bool {
        segment.ack == self.isn.advanced_by(1)
    }
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// Of the SYN-ACK; the server's end never learns the client's.
    peer_isn: Option<Seq>,
    /// The highest end of a payload that opened: our ack.
    highest: Seq,
    window: u16,
    /// Payloads that opened since we last sent anything.
    unacknowledged: u32,
    ack_at: Option<Instant>,
}

impl Open {
    const fn new(peer_isn: Option<Seq>, highest: Seq, window: u16) -> Self {
        Self { peer_isn, highest, window, unacknowledged: 0, ack_at: None }
    }

    fn on_payload(&mut self, end: Seq, now: Instant) {
        self.highest = self.highest.later(end);
        self.unacknowledged += 1;
        let delay = if self.unacknowledged < ACK_EVERY { ACK_DELAY } else { Duration::ZERO };
        let due = now + delay;
        self.ack_at = Some(self.ack_at.map_or(due, |earlier| earlier.min(due)));
    }

    const fn with_ack_due(self, now: Instant) -> Self {
        Self { ack_at: Some(now), ..self }
    }

    const fn acknowledged(self) -> Self {
        Self { unacknowledged: 0, ack_at: None, ..self }
    }
}

/// The first wait for a SYN-ACK (RFC 6298, section 2.1); each next one is twice as long.
const SYN_TIMEOUT: Duration = Duration::from_secs(1);

/// SYNs sent before giving up, at 0, 1, 3, 7 and 15 s; the last may be answered until 31 s. Our choice: a first connection attempt lasts 20 s.
const SYN_ATTEMPTS: u32 = 5;

/// The longest a payload waits for its ACK: Linux' and Windows' delayed-ACK time.
const ACK_DELAY: Duration = Duration::from_millis(40);

/// A pure ACK leaves at once when this many payloads were opened and nothing was sent. Our choice: TCP acknowledges every second segment
/// (RFC 5681, section 4.2), receivers that merge segments every few.
const ACK_EVERY: u32 = 4;
