//! One fake TCP connection, either end.
//!
//! ```text
//!  connect ──> SYN-SENT ──the right SYN-ACK──> ESTABLISHED ──close──> CLOSING ──FIN sent──> CLOSED
//!               │    └──close──> CLOSED          ^   ^
//!               └──every SYN unanswered──>       │   └── accepted (the listener knew the cookie, or the mode is bare)
//!                          TIMED-OUT             └────── connect, if the mode is bare
//! ```
//!
//! Nothing from the network leads out of ESTABLISHED: RSTs, FINs and SYNs are counted, no more, because anyone can forge them and middleboxes
//! do. The numbers follow what strict connection trackers demand: seq grows with every payload sent, whether or not it
//! arrives; ack is the *highest* end of what was opened, never the first hole, since nothing is ever sent twice at the same seq.
//! In the fixed modes both stand still after the start, as those of a sender that is never answered; there an ACK without
//! payload would be the same packet over and over, so but for the handshake's there is none.
//!
//! Drive it so: [`handle_segment`](Connection::handle_segment) → for a payload that the seal opened,
//! [`on_opened`](Connection::on_opened) → drain [`poll_transmit`](Connection::poll_transmit) → read
//! [`poll_timeout`](Connection::poll_timeout). Payloads leave by [`finish_packet`](Connection::finish_packet).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::phase::{Open, Opening, Phase};
use super::scenery::Scenery;
use super::stack::{ETHERNET_MTU, LINUX, Stack, WINDOWS, default_mss, initial_window, own_mss};
use super::{
    Accepted, DropReason, EmitError, Flags, Kind, Mode, Repr, Segment, Seq, Stats, SynOptions, header_len,
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
    scenery: Scenery,
    /// When a SYN was last answered.
    challenged: Option<Instant>,
    /// What our SYN announces.
    mss: u16,
    peer_mss: Option<u16>,
    reset_to_syn: bool,
    stats: Stats,
}

impl Connection {
    /// The client's end. Its SYN is due at once; if the mode is bare, data may be sent at once. `random` must be random.
    #[must_use]
    pub fn connect(local: SocketAddr, remote: SocketAddr, mode: Mode, random: u128, now: Instant) -> Self {
        let [isn, ack] = [Seq(low_bits(random)), Seq(low_bits(random >> 32))];
        let phase = if mode.is_bare() {
            Phase::Established(Open::new(None, ack, WINDOWS.window(true), mode.is_fixed()))
        } else {
            Phase::SynSent(Opening { isn, last_syn: now, sent: 0, is_hurried: false })
        };
        let scenery = Scenery::new((random >> 64) as u64);
        Self::new((local, remote), mode, &WINDOWS, phase, isn.advanced_by(1), scenery)
    }

    /// The same from an interface of this MTU in bytes, which the SYN's MSS follows, as any stack's does; else it is an Ethernet.
    #[must_use]
    pub const fn from_interface(self, mtu: u16) -> Self {
        Self { mss: own_mss(&self.remote, mtu), ..self }
    }

    /// The server's end, established: made once the payload that began it has opened. That payload is owed an ACK, like one
    /// passed to [`on_opened`](Self::on_opened).
    #[must_use]
    pub fn accepted(accepted: &Accepted, mode: Mode, now: Instant) -> Self {
        let Accepted { local, remote, seq, start, ack, is_scaled, random } = *accepted;
        let highest = if mode.is_fixed() { start } else { ack };
        let open = Open::new(None, highest, LINUX.window(is_scaled), mode.is_fixed()).with_payload_owed(now);
        Self::new((local, remote), mode, &LINUX, Phase::Established(open), seq, Scenery::new(random))
    }

    fn new(
        (local, remote): (SocketAddr, SocketAddr),
        mode: Mode,
        stack: &'static Stack,
        phase: Phase,
        seq: Seq,
        scenery: Scenery,
    ) -> Self {
        Self {
            local,
            remote,
            mode,
            stack,
            phase,
            seq,
            scenery,
            challenged: None,
            mss: own_mss(&remote, ETHERNET_MTU),
            peer_mss: None,
            reset_to_syn: false,
            stats: Stats::default(),
        }
    }

    /// Takes a segment of this connection and says what to do with its payload. Drops are counted here.
    pub fn handle_segment(&mut self, segment: &Segment, now: Instant) -> Input {
        let input = self.judge(segment, now);
        match input {
            Input::Ignored(reason) => self.stats.on_drop(reason),
            Input::ResetSeen => self.stats.on_drop(DropReason::Reset),
            // One that answers ours is what TCP would send.
            Input::FinSeen if matches!(self.phase, Phase::Closing(_) | Phase::Finished(_)) => {}
            Input::FinSeen => self.stats.on_drop(DropReason::Fin),
            Input::Payload | Input::Acknowledgement | Input::Established => {}
        }
        input
    }

    /// The payload of `segment` opened: only now do our ack and the debt of an ACK change. A segment that was overtaken changes no
    /// ack, nor does one far outside of the window, which is counted.
    pub fn on_opened(&mut self, segment: &Segment, now: Instant) {
        if let Phase::Established(open) = &mut self.phase
            && !open.on_payload(segment, now)
        {
            self.stats.on_drop(DropReason::OffWindow);
        }
    }

    /// The payload of a segment of ours was sealed by nobody we know: it is counted, and changes nothing.
    pub const fn on_forged(&mut self) {
        self.stats.on_drop(DropReason::Unopened);
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
        self.repr(flags, open.highest, open.window.field).emit(packet)?;
        self.scenery.on_sent();
        if !self.mode.is_fixed() {
            self.seq = self.seq.advanced_by(payload);
        }
        self.phase = Phase::Established(open.acknowledged());
        Ok(())
    }

    /// The next packet without payload that is due: a SYN, a pure ACK, the FIN.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        let repr = match self.phase {
            Phase::SynSent(opening) => self.poll_syn(opening, now)?,
            Phase::Established(open) => {
                self.phase = Phase::Established(open.poll_ack(now)?);
                self.repr(Flags::ACK, open.highest, open.window.field)
            }
            Phase::Closing(open) => {
                self.phase = Phase::Finished(open.acknowledged());
                let fin = self.repr(Flags::FIN.with(Flags::ACK), open.highest, open.window.field);
                self.seq = self.seq.advanced_by(1);
                fin
            }
            Phase::Finished(open) => {
                self.phase = Phase::Finished(open.poll_ack(now)?);
                self.repr(Flags::ACK, open.highest, open.window.field)
            }
            Phase::Closed | Phase::TimedOut => return None,
        };
        self.scenery.on_sent();
        repr.to_packet().ok()
    }

    /// When [`poll_transmit`](Self::poll_transmit) has something to do next: the next SYN (or giving up), or a delayed ACK.
    /// Meaningful once it was drained.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::SynSent(opening) => Some(opening.next_syn()),
            Phase::Established(open) | Phase::Finished(open) => open.ack_at,
            Phase::Closing(_) | Phase::Closed | Phase::TimedOut => None,
        }
    }

    /// Says whether somebody waits for the connection: then its SYN is repeated faster, and for as long as that lasts. The caller
    /// ends it.
    pub const fn set_hurried(&mut self, is_hurried: bool) {
        if let Phase::SynSent(opening) = &mut self.phase {
            opening.is_hurried = is_hurried;
        }
    }

    /// Ends the connection as TCP would: one FIN, if it was ever established. It is not repeated; the peer's, which may come
    /// before it or as an answer to it, is acknowledged.
    pub const fn close(&mut self) {
        self.phase = match self.phase {
            Phase::SynSent(_) => Phase::Closed,
            Phase::Established(open) => Phase::Closing(open),
            phase @ (Phase::Closing(_) | Phase::Finished(_) | Phase::Closed | Phase::TimedOut) => phase,
        };
    }

    /// Where the connection stands.
    #[must_use]
    pub const fn state(&self) -> State {
        match self.phase {
            Phase::SynSent(_) => State::SynSent,
            Phase::Established(_) => State::Established,
            Phase::Closing(_) => State::Closing,
            Phase::Finished(_) | Phase::Closed => State::Closed,
            Phase::TimedOut => State::TimedOut,
        }
    }

    /// Whether we have closed, the peer has too, and each FIN that came was acknowledged: nothing more is to be expected.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        match self.phase {
            Phase::Finished(open) => open.is_over(),
            Phase::Closed | Phase::TimedOut => true,
            Phase::SynSent(_) | Phase::Established(_) | Phase::Closing(_) => false,
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

    /// Whether the segment came on our 4-tuple.
    #[must_use]
    pub fn is_from(&self, segment: &Segment) -> bool {
        (segment.source, segment.destination) == (self.remote, self.local)
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

    /// Whether a RST answered our SYN, or the first packet of a bare connection. It may be forged, so it stops nothing; it
    /// explains why nothing else came.
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
        if !self.is_from(segment) {
            return Input::Ignored(DropReason::WrongPeer);
        }
        match (segment.kind(), self.phase) {
            (Kind::Reset, Phase::SynSent(opening)) => {
                self.reset_to_syn |= segment.flags.contains(Flags::ACK) && opening.is_answered_by(segment);
                Input::ResetSeen
            }
            (Kind::Reset, Phase::Established(open)) => {
                // To an ACK that belongs to no connection, TCP answers with a RST at its number (RFC 9293, section 3.10.7.1).
                self.reset_to_syn |= self.mode.is_bare() && segment.seq == open.highest;
                Input::ResetSeen
            }
            (Kind::Reset, _) => Input::ResetSeen,
            (Kind::Fin, Phase::Closing(open)) => {
                self.phase = Phase::Closing(open.on_fin(segment, now));
                Input::FinSeen
            }
            (Kind::Fin, Phase::Finished(open)) => {
                self.phase = Phase::Finished(open.on_fin(segment, now));
                Input::FinSeen
            }
            (Kind::Fin, _) => Input::FinSeen,
            (_, Phase::Closing(_) | Phase::Finished(_) | Phase::Closed | Phase::TimedOut) => {
                Input::Ignored(DropReason::Closed)
            }
            (Kind::Syn, Phase::Established(open)) => self.challenge(open, now),
            (Kind::Syn, Phase::SynSent(_)) => Input::Ignored(DropReason::UnexpectedSyn),
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
        let highest = segment.seq.advanced_by(1);
        let open = Open::new(Some(segment.seq), highest, window, self.mode.is_fixed());
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

    /// A SYN for a connection that exists is answered with an ACK of where it stands (RFC 5961, section 4), twice a second at most
    /// as by Linux: if the peer has really begun anew, it knows then that its old connection is in the way.
    fn challenge(&mut self, open: Open, now: Instant) -> Input {
        let is_late = |last: Instant| now.saturating_duration_since(last) >= CHALLENGE_INTERVAL;
        if self.challenged.is_none_or(is_late) {
            self.challenged = Some(now);
            self.phase = Phase::Established(open.with_ack_due(now));
        }
        Input::Ignored(DropReason::UnexpectedSyn)
    }

    /// The same SYN again after 1 s, 2 s, 4 s …; after the last one's time the connection gives up. In a hurry it is repeated
    /// twice a second, for as long as that lasts.
    fn poll_syn(&mut self, opening: Opening, now: Instant) -> Option<Repr> {
        if now < opening.next_syn() {
            return None;
        }
        if opening.is_over() {
            self.phase = Phase::TimedOut;
            return None;
        }
        self.phase = Phase::SynSent(Opening { last_syn: now, sent: opening.sent + 1, ..opening });
        let options = SynOptions::windows(self.mss, self.stack.window_scale);
        Some(Repr { seq: opening.isn, options, ..self.repr(Flags::SYN, Seq(0), initial_window(self.mss)) })
    }

    /// With the IP ID that is next; whoever sends it takes that.
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
            flow_label: self.scenery.flow_label(),
            ip_id: self.scenery.next_id(),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
const fn low_bits(number: u128) -> u32 {
    number as u32
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
    /// It was a FIN, and was not believed; if we have sent ours, an ACK is due.
    FinSeen,
    /// It changed no number. To [`DropReason::RepeatedSynAck`] and [`DropReason::UnexpectedSyn`] an ACK may be due.
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

/// Linux' `tcp_invalid_ratelimit`.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "some instant must be the first")]
mod tests {
    use super::*;
    use crate::carrier::emit::tests::{COOKIE, ISN, RANDOM, client, data_v4, data_v6, server, syn_v4};
    use crate::carrier::phase::{ACK_DELAY, ACK_EVERY, HURRIED_SYN};
    use crate::carrier::{Options, parse};

    /// The IP ID of the first packet.
    const FIRST_ID: u16 = 0x2a41;

    fn connecting(family: u8, now: Instant) -> Connection {
        Connection::connect(client(family), server(family), Mode::default(), RANDOM, now)
    }

    /// A segment from the server, as it would be read.
    fn from_server(family: u8, flags: Flags, payload: usize) -> Segment {
        let (source, destination) = (server(family), client(family));
        let options = Options { mss: Some(1400), window_scale: Some(10), sack_permitted: true };
        let (seq, ack, payload) = (COOKIE, ISN.advanced_by(1), 40..40 + payload);
        Segment { source, destination, seq, ack, flags, window: 64_240, options, payload }
    }

    fn syn_ack(family: u8) -> Segment {
        from_server(family, Flags::SYN.with(Flags::ACK), 0)
    }

    /// Established, and its first ACK sent.
    fn established(family: u8, now: Instant) -> Connection {
        let mut connection = connecting(family, now);
        assert!(connection.poll_transmit(now).is_some());
        assert_eq!(connection.handle_segment(&syn_ack(family), now), Input::Established);
        let ack = parse(&connection.poll_transmit(now).unwrap()).unwrap();
        assert_eq!(
            (ack.kind(), ack.seq, ack.ack),
            (Kind::Acknowledgement, ISN.advanced_by(1), COOKIE.advanced_by(1))
        );
        connection
    }

    fn data(seq: Seq, payload: usize) -> Segment {
        Segment { seq, ..from_server(4, Flags::ACK, payload) }
    }

    #[test]
    fn opens_like_windows_to_the_byte() {
        let now = Instant::now();
        assert_eq!(connecting(4, now).poll_transmit(now), Some(syn_v4()));
        for (family, expected, is_last) in [(4, data_v4(), true), (6, data_v6(), false)] {
            let mut connection = established(family, now);
            assert_eq!(connection.peer_mss(), Some(1400));
            let mut packet = vec![0; connection.header_len()];
            packet.extend_from_slice(b"hello");
            assert_eq!(connection.finish_packet(&mut packet, is_last), Ok(()));
            assert_eq!(packet, expected);
        }
    }

    #[test]
    fn repeats_the_same_syn_twice_a_second_while_somebody_waits() {
        let start = Instant::now();
        let mut connection = Connection::connect(client(4), server(4), Mode::default(), RANDOM, start);
        let first = connection.poll_transmit(start).unwrap();
        assert_eq!(connection.poll_timeout(), Some(start + Duration::from_secs(1)));
        connection.set_hurried(true);
        for n in 1..100 {
            let due = start + HURRIED_SYN * n;
            assert_eq!((connection.poll_timeout(), connection.poll_transmit(start)), (Some(due), None));
            let again = parse(&connection.poll_transmit(due).unwrap()).unwrap();
            assert_eq!((again.flags, again.seq), (Flags::SYN, parse(&first).unwrap().seq));
        }
        connection.set_hurried(false);
        assert_eq!(connection.poll_transmit(connection.poll_timeout().unwrap()), None);
        assert_eq!(connection.state(), State::TimedOut);
    }

    #[test]
    fn repeats_its_syn_with_growing_waits_and_then_gives_up() {
        let now = Instant::now();
        let mut connection = connecting(4, now);
        let mut sent = Vec::new();
        while let Some(due) = connection.poll_timeout() {
            assert_eq!(connection.poll_transmit(due - Duration::from_nanos(1)), None);
            if let Some(packet) = connection.poll_transmit(due) {
                assert_eq!(packet[20..], syn_v4()[20..]);
                assert_eq!(packet[4..6], (FIRST_ID + u16::try_from(sent.len()).unwrap()).to_be_bytes());
                sent.push(due.duration_since(now).as_secs());
            }
        }
        assert_eq!(sent, [0, 1, 3, 7, 15]);
        assert_eq!(connection.state(), State::TimedOut);
        assert_eq!(connection.handle_segment(&syn_ack(4), now), Input::Ignored(DropReason::Closed));
    }

    #[test]
    fn remembers_a_reset_to_its_syn_and_goes_on() {
        let now = Instant::now();
        let mut connection = connecting(4, now);
        let reset = from_server(4, Flags::RST.with(Flags::ACK), 0);
        let stray = Segment { ack: ISN, ..reset.clone() };
        assert_eq!(connection.handle_segment(&stray, now), Input::ResetSeen);
        assert!(!connection.reset_to_syn());
        assert_eq!(connection.handle_segment(&reset, now), Input::ResetSeen);
        assert!(connection.reset_to_syn());
        assert_eq!(connection.handle_segment(&syn_ack(4), now), Input::Established);
    }

    #[test]
    fn nothing_forged_changes_an_established_connection() {
        let now = Instant::now();
        let mut connection = established(4, now);
        let numbers = |connection: &Connection| {
            let Phase::Established(open) = connection.phase else { panic!("{:?}", connection.phase) };
            (connection.seq, open.highest)
        };
        let before = numbers(&connection);
        let reject = |flags| from_server(4, flags, 0);
        let wrong_isn = Segment { seq: Seq(5), ..syn_ack(4) };
        let stranger = Segment { source: server(6), ..data(Seq(0), 9) };
        let expected = [
            (reject(Flags::RST), Input::ResetSeen),
            (reject(Flags::RST.with(Flags::ACK)), Input::ResetSeen),
            (reject(Flags::FIN.with(Flags::ACK)), Input::FinSeen),
            (from_server(4, Flags::FIN.with(Flags::ACK), 9), Input::FinSeen),
            (reject(Flags::SYN), Input::Ignored(DropReason::UnexpectedSyn)),
            (wrong_isn, Input::Ignored(DropReason::UnexpectedSynAck)),
            (stranger, Input::Ignored(DropReason::WrongPeer)),
            (reject(Flags::ACK), Input::Acknowledgement),
            (data(Seq(0), 9), Input::Payload),
        ];
        for (segment, input) in expected {
            assert_eq!(connection.handle_segment(&segment, now), input, "{segment:?}");
            assert_eq!(numbers(&connection), before, "{segment:?}");
        }
        let stats = connection.stats();
        assert_eq!((stats.injected_resets, stats.injected_fins, stats.unexpected_syn), (2, 2, 1));
    }

    #[test]
    fn answers_a_repeated_syn_ack_with_a_pure_ack() {
        let now = Instant::now();
        let mut connection = established(4, now);
        assert_eq!(connection.handle_segment(&syn_ack(4), now), Input::Ignored(DropReason::RepeatedSynAck));
        let ack = parse(&connection.poll_transmit(now).unwrap()).unwrap();
        assert_eq!((ack.kind(), ack.ack), (Kind::Acknowledgement, COOKIE.advanced_by(1)));
        assert_eq!(connection.poll_transmit(now), None);
    }

    #[test]
    fn answers_a_syn_with_an_ack_of_where_it_stands_twice_a_second_at_most() {
        let now = Instant::now();
        let mut connection = established(4, now);
        let syn = from_server(4, Flags::SYN, 0);
        let mut answers = 0;
        for n in 0..10 {
            let now = now + Duration::from_millis(100) * n;
            assert_eq!(connection.handle_segment(&syn, now), Input::Ignored(DropReason::UnexpectedSyn));
            while let Some(packet) = connection.poll_transmit(now) {
                let ack = parse(&packet).unwrap();
                let expected = (Kind::Acknowledgement, ISN.advanced_by(1), COOKIE.advanced_by(1));
                assert_eq!((ack.kind(), ack.seq, ack.ack), expected);
                answers += 1;
            }
        }
        assert_eq!((answers, connection.stats().unexpected_syn), (2, 10));
    }

    /// The ack of the next data packet.
    fn next_ack(connection: &mut Connection) -> Seq {
        let mut packet = vec![0; 100];
        connection.finish_packet(&mut packet, false).unwrap();
        parse(&packet).unwrap().ack
    }

    #[test]
    fn acknowledges_the_highest_end_seen_and_never_goes_back() {
        let now = Instant::now();
        let near_the_wrap = Seq(u32::MAX - 100);
        let random = RANDOM & !(0xffff_ffff << 32) | u128::from(near_the_wrap.0) << 32;
        let mut connection = Connection::connect(client(4), server(4), Mode::BareAdvance, random, now);
        for (seq, payload, ack) in [
            (near_the_wrap, 50, Seq(u32::MAX - 50)),
            (near_the_wrap.advanced_by(50), 150, Seq(99)),
            (near_the_wrap, 50, Seq(99)),
        ] {
            connection.on_opened(&data(seq, payload), now);
            assert_eq!(next_ack(&mut connection), ack);
        }
    }

    #[test]
    fn a_payload_far_outside_of_the_window_moves_nothing_unless_the_next_agrees() {
        let now = Instant::now();
        let mut connection = established(4, now);
        let start = COOKIE.advanced_by(1);
        let far = start.advanced_by(1 << 30);
        for genuine in 1..5 {
            connection.on_opened(&data(far, 100), now);
            connection.on_opened(&data(start.advanced_by(100 * (genuine - 1)), 100), now);
            assert_eq!(next_ack(&mut connection), start.advanced_by(100 * genuine));
        }
        assert_eq!(connection.stats().off_window, 4);
        connection.on_opened(&data(far, 100), now);
        connection.on_opened(&data(far.advanced_by(1400), 100), now);
        assert_eq!(next_ack(&mut connection), far.advanced_by(1500));
        assert_eq!(connection.stats().off_window, 5);
    }

    #[test]
    fn delays_its_ack_unless_many_payloads_wait_or_data_carries_it() {
        let now = Instant::now();
        let mut connection = established(4, now);
        assert_eq!(connection.poll_timeout(), None);
        let segment = data(COOKIE.advanced_by(1), 100);
        connection.on_opened(&segment, now);
        connection.on_opened(&segment, now + ACK_DELAY / 2);
        assert_eq!(connection.poll_timeout(), Some(now + ACK_DELAY));
        assert_eq!(connection.poll_transmit(now), None);
        assert!(connection.poll_transmit(now + ACK_DELAY).is_some());
        assert_eq!(connection.poll_timeout(), None);
        for _ in 0..ACK_EVERY {
            assert_eq!(connection.poll_transmit(now), None);
            connection.on_opened(&segment, now);
        }
        assert!(connection.poll_transmit(now).is_some());
        connection.on_opened(&segment, now);
        connection.finish_packet(&mut [0; 100], false).unwrap();
        assert_eq!(connection.poll_timeout(), None);
    }

    #[test]
    fn a_syn_announces_what_the_interface_takes() {
        let now = Instant::now();
        for (family, mtu, mss, window) in
            [(4, 1492, 1452, 65_340), (6, 1400, 1340, 64_320), (4, 9000, 8960, 62_720), (4, 300, 536, 65_392)]
        {
            let mut connection = connecting(family, now).from_interface(mtu);
            let syn = parse(&connection.poll_transmit(now).unwrap()).unwrap();
            assert_eq!((syn.options.mss, syn.window), (Some(mss), window), "{mtu}");
        }
    }

    #[test]
    fn a_peer_that_scales_no_window_is_told_an_unscaled_one() {
        let now = Instant::now();
        let mut connection = connecting(4, now);
        let plain = Segment { options: Options::default(), ..syn_ack(4) };
        assert_eq!(connection.handle_segment(&plain, now), Input::Established);
        assert_eq!(connection.peer_mss(), Some(536));
        let ack = parse(&connection.poll_transmit(now).unwrap()).unwrap();
        assert_eq!(ack.window, u16::MAX);
    }

    #[test]
    fn closes_with_one_fin_and_sends_nothing_after_it_but_the_ack_of_the_peers() {
        let now = Instant::now();
        let mut connection = established(4, now);
        connection.close();
        assert_eq!(connection.state(), State::Closing);
        let fin = parse(&connection.poll_transmit(now).unwrap()).unwrap();
        assert_eq!((fin.flags, fin.seq), (Flags::FIN.with(Flags::ACK), ISN.advanced_by(1)));
        connection.close();
        assert_eq!((connection.poll_transmit(now), connection.state()), (None, State::Closed));
        assert_eq!(connection.finish_packet(&mut [0; 100], true), Err(EmitError::NotEstablished));
        let late = from_server(4, Flags::FIN.with(Flags::ACK), 9);
        assert!(!connection.is_over());
        assert_eq!(connection.handle_segment(&late, now), Input::FinSeen);
        assert!(!connection.is_over());
        let ack = parse(&connection.poll_transmit(now).unwrap()).unwrap();
        let expected = (Kind::Acknowledgement, ISN.advanced_by(2), late.end().advanced_by(1));
        assert_eq!((ack.kind(), ack.seq, ack.ack), expected);
        assert_eq!((connection.poll_transmit(now), connection.poll_timeout()), (None, None));
        assert!(connection.is_over());
        assert_eq!(connection.stats().injected_fins, 0);
        let mut never_opened = connecting(4, now);
        never_opened.close();
        assert_eq!((never_opened.poll_transmit(now), never_opened.state()), (None, State::Closed));
    }

    #[test]
    fn a_fin_that_comes_while_ours_waits_is_acknowledged_by_ours() {
        let now = Instant::now();
        for mode in [Mode::HandshakeAdvance, Mode::HandshakeFixed] {
            let mut connection = Connection::accepted(&accepted(COOKIE.advanced_by(1)), mode, now);
            connection.close();
            let fin = parse(&data_v4()).unwrap();
            let fin = Segment {
                flags: Flags::FIN.with(Flags::ACK),
                payload: fin.payload.end..fin.payload.end,
                ..fin
            };
            let fin = Segment { seq: if mode.is_fixed() { fin.seq } else { fin.seq.advanced_by(5) }, ..fin };
            assert_eq!(connection.handle_segment(&fin, now), Input::FinSeen);
            let answer = parse(&connection.poll_transmit(now).unwrap()).unwrap();
            assert_eq!((answer.kind(), answer.ack), (Kind::Fin, fin.seq.advanced_by(1)), "{mode}");
            assert_eq!(connection.poll_transmit(now), None);
            assert!(connection.is_over());
        }
    }

    #[test]
    fn a_server_goes_on_from_the_cookie_and_follows_its_peer() {
        let now = Instant::now();
        let local = server(4);
        let (seq, ack) = (COOKIE.advanced_by(1), ISN.advanced_by(6));
        let mut connection = Connection::accepted(&accepted(seq), Mode::default(), now);
        assert_eq!(connection.poll_timeout(), Some(now + ACK_DELAY));
        let mut moved = parse(&data_v4()).unwrap();
        moved.source.set_port(50_001);
        assert_eq!(connection.handle_segment(&moved, now), Input::Ignored(DropReason::WrongPeer));
        connection.on_peer_moved(&moved);
        assert_eq!(connection.handle_segment(&moved, now), Input::Payload);
        let mut packet = vec![0; 100];
        connection.finish_packet(&mut packet, false).unwrap();
        let segment = parse(&packet).unwrap();
        assert_eq!((segment.seq, segment.ack, segment.window), (seq, ack, 32_768));
        assert_eq!((segment.source, segment.destination.port()), (local, 50_001));
    }

    /// What the client's first payload of five bytes begins.
    fn accepted(seq: Seq) -> Accepted {
        let (local, remote) = (server(4), client(4));
        let start = ISN.advanced_by(1);
        Accepted { local, remote, seq, start, ack: start.advanced_by(5), is_scaled: true, random: 7 }
    }

    #[test]
    fn refuses_packets_without_payload() {
        let now = Instant::now();
        let mut connection = established(4, now);
        assert_eq!(connection.finish_packet(&mut [0; 40], true), Err(EmitError::TooShort));
        assert_eq!(connection.finish_packet(&mut [0; 3], true), Err(EmitError::TooShort));
    }

    #[test]
    fn a_bare_client_may_send_at_once_with_numbers_of_its_own() {
        let now = Instant::now();
        for mode in [Mode::BareAdvance, Mode::BareFixed] {
            let random = RANDOM | u128::from(COOKIE.0) << 32;
            let mut connection = Connection::connect(client(4), server(4), mode, random, now);
            assert_eq!((connection.poll_transmit(now), connection.poll_timeout()), (None, None));
            let mut packet = vec![0; 140];
            connection.finish_packet(&mut packet, true).unwrap();
            let first = parse(&packet).unwrap();
            assert_eq!((first.seq, first.ack), (ISN.advanced_by(1), COOKIE));
            assert_eq!((first.flags, first.window), (Flags::ACK.with(Flags::PSH), 0xff00));
        }
    }

    #[test]
    fn fixed_numbers_stand_still_at_both_ends_and_no_ack_leaves_without_payload() {
        let now = Instant::now();
        for mode in [Mode::HandshakeFixed, Mode::BareFixed] {
            let mut client = Connection::connect(client(4), server(4), mode, RANDOM, now);
            if !mode.is_bare() {
                assert!(client.poll_transmit(now).is_some());
                assert_eq!(client.handle_segment(&syn_ack(4), now), Input::Established);
                assert!(client.poll_transmit(now).is_some(), "the handshake's ACK");
            }
            let mut server = Connection::accepted(&accepted(COOKIE.advanced_by(1)), mode, now);
            for (connection, ack) in [(&mut client, None), (&mut server, Some(ISN.advanced_by(1)))] {
                let mut numbers = Vec::new();
                for n in 0..20 {
                    connection.on_opened(&data(COOKIE.advanced_by(1 + n * 100), 100), now);
                    assert_eq!(connection.poll_timeout(), None);
                    let mut packet = vec![0; 100];
                    connection.finish_packet(&mut packet, false).unwrap();
                    let segment = parse(&packet).unwrap();
                    numbers.push((segment.seq, segment.ack));
                }
                numbers.dedup();
                assert_eq!(numbers.len(), 1, "{mode}: {numbers:?}");
                assert!(ack.is_none_or(|ack| ack == numbers[0].1), "the start of what began it");
            }
        }
    }

    #[test]
    fn a_bare_client_remembers_a_reset_to_its_first_packet_and_goes_on() {
        let now = Instant::now();
        let random = RANDOM | u128::from(COOKIE.0) << 32;
        let mut connection = Connection::connect(client(4), server(4), Mode::BareAdvance, random, now);
        let reset = Segment { seq: COOKIE, ..from_server(4, Flags::RST, 0) };
        let stray = Segment { seq: ISN, ..reset.clone() };
        assert_eq!(connection.handle_segment(&stray, now), Input::ResetSeen);
        assert!(!connection.reset_to_syn());
        assert_eq!(connection.handle_segment(&reset, now), Input::ResetSeen);
        assert!(connection.reset_to_syn() && connection.may_send());
    }
}
