//! One established carrier: a fake-TCP connection and the keys that seal what it carries.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::engine::{Engine, Filled};
use super::frame::{self, CloseCode};
use super::loss::Counts;
use super::noise::Noise;
use super::path_mtu::{PathMtu, Probe};
use super::rekey::{KeyRing, Renewal, Unsealed};
use crate::carrier::{self, Connection, Segment};
use crate::crypto::{HEADER_LEN, Header, Message2, OVERHEAD, OpenError, Opener, Sealer};

/// A carrier that both ends have keys for.
#[derive(Debug)]
pub(crate) struct Link {
    number: u32,
    id: u32,
    connection: Connection,
    keys: KeyRing,
    renewal: Option<Renewal>,
    path: PathMtu,
    control: Vec<u8>,
    farewell: Option<Farewell>,
    noise: Noise,
    created: Instant,
}

impl Link {
    /// `index` is ours: what the peer writes in the header of each packet. `path` is that towards the peer.
    pub(crate) fn new(
        number: u32,
        index: u32,
        connection: Connection,
        pair: (Sealer, Opener),
        path: PathMtu,
        now: Instant,
    ) -> Self {
        Self {
            number,
            id: index,
            connection,
            keys: KeyRing::new(index, pair, now),
            renewal: None,
            path,
            control: Vec::new(),
            farewell: None,
            noise: Noise::new(index.into()),
            created: now,
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Names the carrier for its life: our index in its first keys.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn keys(&self) -> &KeyRing {
        &self.keys
    }

    pub(crate) fn keys_mut(&mut self) -> &mut KeyRing {
        &mut self.keys
    }

    /// Asks for new keys; message 1 leaves with the next [`Self::poll_transmit`].
    pub(crate) fn begin_rekey(&mut self, renewal: Renewal) {
        self.renewal = Some(renewal);
    }

    /// Whether new keys should be asked for and are not.
    pub(crate) fn needs_rekey(&self, now: Instant) -> bool {
        self.renewal.is_none() && self.farewell.is_none() && self.keys.is_due(now)
    }

    /// Whether they are asked for.
    pub(crate) fn is_rekeying(&self) -> bool {
        self.renewal.is_some()
    }

    /// Takes a handshake message of this connection: perhaps the answer to the rekey that waits.
    pub(crate) fn handle_message2(&mut self, segment: &Segment, payload: &[u8], now: Instant) -> RekeyAnswer {
        let Some(renewal) = &mut self.renewal else { return RekeyAnswer::Unopened };
        let (index, asked) = (renewal.index(), renewal.begun());
        let answer = match renewal.finish(payload) {
            Ok((Message2::Resumed { .. }, Some(keys))) => {
                self.keys.renew(index, keys.into_pair(), now);
                RekeyAnswer::NewKeys { asked }
            }
            Ok((message, None)) => RekeyAnswer::Denied(message),
            Ok((_, Some(_))) => RekeyAnswer::Unopened,
            Err(_) => return RekeyAnswer::Unopened,
        };
        self.connection.on_opened(segment, now);
        self.renewal = None;
        answer
    }

    /// For one that is used no more: new keys that were asked for are not waited for.
    pub(crate) fn without_rekey(self) -> Self {
        Self { renewal: None, ..self }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn into_connection(self) -> Connection {
        self.connection
    }

    pub(crate) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// How large packets to the peer may be.
    pub(crate) fn path(&self) -> &PathMtu {
        &self.path
    }

    pub(crate) fn path_mut(&mut self) -> &mut PathMtu {
        &mut self.path
    }

    pub(crate) fn created(&self) -> Instant {
        self.created
    }

    /// Whether the segment came on this carrier's 4-tuple.
    pub(crate) fn is_from(&self, segment: &Segment) -> bool {
        self.connection.is_from(segment)
    }

    /// Our end of the 4-tuple, and the peer's.
    pub(crate) fn tuple(&self) -> (SocketAddr, SocketAddr) {
        (self.connection.local(), self.connection.remote())
    }

    /// Opens a packet in place and, only then, lets it move the TCP state.
    pub(crate) fn open<'a>(
        &mut self,
        segment: &Segment,
        header: Header,
        payload: &'a mut [u8],
        now: Instant,
    ) -> Result<Unsealed<'a>, OpenError> {
        let unsealed = self.keys.open(header, payload, now)?;
        if unsealed.newest && !self.is_from(segment) {
            self.connection.on_peer_moved(segment);
        }
        self.connection.on_opened(segment, now);
        Ok(unsealed)
    }

    /// What arrived of the peer's packets.
    pub(crate) fn counts(&self) -> Counts {
        self.keys.counts()
    }

    /// One packet that is sealed already, a handshake message, as an outer packet of this carrier.
    pub(crate) fn wrap(&mut self, sealed: &[u8]) -> Option<Vec<u8>> {
        wrap(&mut self.connection, sealed)
    }

    /// Queues frames for the next packet of this carrier; too many at once are dropped, the peer asks again.
    pub(crate) fn queue(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let before = self.control.len();
        encode(&mut self.control);
        if self.control.len() > CONTROL_MAX {
            self.control.truncate(before);
        }
    }

    /// Ends the session on this carrier: `code` in a few packets, since none is acknowledged, then a FIN.
    pub(crate) fn say_goodbye(&mut self, code: CloseCode) {
        self.farewell = Some(Farewell { words: Words::Close(code), left: GOODBYES });
    }

    /// Ends this carrier and no more: says so in a few packets, then a FIN.
    pub(crate) fn leave(&mut self) {
        self.farewell = Some(Farewell { words: Words::Left, left: GOODBYES });
    }

    /// Ends the connection with a FIN.
    pub(crate) fn close(&mut self) {
        self.farewell = Some(Farewell { words: Words::Left, left: 0 });
    }

    /// Whether the FIN was asked for.
    pub(crate) fn is_closing(&self) -> bool {
        self.farewell.is_some()
    }

    /// Whether the peer's FIN came, too, and was acknowledged.
    pub(crate) fn is_over(&self) -> bool {
        self.connection.is_over()
    }

    /// Whether the FIN has left: nothing more will.
    pub(crate) fn is_closed(&self) -> bool {
        self.connection.state() == carrier::State::Closed
    }

    /// Takes what comes after the session: only a FIN of the peer's means anything, and is acknowledged.
    pub(crate) fn handle_late(&mut self, segment: &Segment, now: Instant) {
        self.close_if_told();
        self.connection.handle_segment(segment, now);
    }

    /// Nothing is left to be said.
    fn close_if_told(&mut self) {
        if self.farewell.is_some_and(|farewell| farewell.left == 0) {
            self.connection.close();
        }
    }

    /// Answers a ping on the carrier that brought it, in an outer packet of `size` bytes.
    pub(crate) fn queue_pong(&mut self, token: u64, size: usize) {
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        self.queue(|out| frame::put_pong(out, token, size));
    }

    /// Writes one outer packet into `out`: this carrier's own frames, then what `engine` has to send.
    /// Returns `false` when there is nothing.
    pub(crate) fn poll_transmit(
        &mut self,
        engine: Option<&mut Engine>,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> bool {
        if let Some(message1) = self.renewal.as_mut().and_then(|renewal| renewal.poll_transmit(now))
            && let Some(packet) = wrap(&mut self.connection, message1)
        {
            *out = packet;
            return true;
        }
        let start = self.connection.header_len() + HEADER_LEN;
        out.clear();
        out.resize(start, 0);
        out.append(&mut self.control);
        match (&mut self.farewell, engine) {
            (Some(farewell), _) => farewell.fill(out),
            (None, Some(engine)) => self.fill(engine, out, now),
            (None, None) => {}
        }
        if out.len() == start {
            return false;
        }
        self.noise.pad(out, out.len() - start);
        let is_full = out.len() + MAX_SLACK >= start + self.plaintext();
        self.finish(out, is_full)
    }

    /// A probe of the path if one is due, else what the session has to send.
    fn fill(&mut self, engine: &mut Engine, out: &mut Vec<u8>, now: Instant) {
        let start = self.connection.header_len() + HEADER_LEN;
        if self.path.is_watching() {
            self.path.on_acknowledged(engine.acknowledged());
        }
        if out.len() == start
            && let Some(probe) = self.path.poll_probe(engine.srtt(), now)
        {
            return self.fill_probe(probe, engine, out, now);
        }
        engine.set_plaintext(self.plaintext());
        let filled = engine.fill_packet(out, start + self.plaintext(), now);
        if filled != Filled::Nothing {
            let segments = (filled == Filled::Data).then(|| engine.sent_segments());
            self.path.on_sent(out.len() + OVERHEAD - HEADER_LEN, segments, now);
        }
    }

    /// RFC 8899 section 4.1: a probe carries nothing that would be missed.
    fn fill_probe(&self, probe: Probe, engine: &mut Engine, out: &mut Vec<u8>, now: Instant) {
        let size = usize::from(probe.size);
        frame::put_ping(out, probe.token, probe.size);
        out.resize(out.len().max(size + HEADER_LEN - OVERHEAD), 0);
        engine.on_sent_beside(size, now);
    }

    /// Neither fails while the keys are fresh and the connection stands; when they are not, the carrier stops answering and
    /// is replaced like any dead one.
    fn finish(&mut self, out: &mut Vec<u8>, is_full: bool) -> bool {
        let header = self.connection.header_len();
        self.keys.seal(out, header).is_ok() && self.connection.finish_packet(out, !is_full).is_ok()
    }

    /// Bytes of plaintext of a full packet.
    fn plaintext(&self) -> usize {
        usize::from(self.path.size()) - self.connection.header_len() - OVERHEAD
    }

    /// When [`Self::poll_transmit`] has a probe of the path to send on a carrier in use.
    pub(crate) fn probe_due(&self, srtt: Option<Duration>) -> Option<Instant> {
        self.path.poll_timeout(srtt).filter(|_| self.farewell.is_none())
    }

    /// Writes a TCP packet without payload (a delayed ACK, a FIN) if one is due.
    pub(crate) fn poll_ack(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        self.close_if_told();
        let Some(packet) = self.connection.poll_transmit(now) else { return false };
        *out = packet;
        true
    }

    /// When [`Self::poll_ack`], or a rekey that waits, has something.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let renewal = self.renewal.as_ref().map(Renewal::poll_timeout);
        [self.connection.poll_timeout(), renewal].into_iter().flatten().min()
    }
}

/// What a handshake message meant to a rekey.
#[derive(Debug)]
pub(crate) enum RekeyAnswer {
    /// Packets are sealed with new keys from now on; they were first asked for then.
    NewKeys { asked: Instant },
    /// The server answers, but with no keys.
    Denied(Message2),
    /// Nothing that we wait for.
    Unopened,
}

/// One sealed packet as an outer packet.
pub(crate) fn wrap(connection: &mut Connection, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut packet = vec![0; connection.header_len()];
    packet.extend_from_slice(sealed);
    connection.finish_packet(&mut packet, true).ok()?;
    Some(packet)
}

/// How a carrier ends.
#[derive(Clone, Copy, Debug)]
struct Farewell {
    words: Words,
    /// How often they are yet to be said.
    left: u8,
}

/// What is said before the FIN.
#[derive(Clone, Copy, Debug)]
enum Words {
    /// The session is over.
    Close(CloseCode),
    /// This carrier is.
    Left,
}

impl Farewell {
    fn fill(&mut self, out: &mut Vec<u8>) {
        let Some(left) = self.left.checked_sub(1) else { return };
        self.left = left;
        match self.words {
            Words::Close(code) => frame::put_close(out, code),
            Words::Left => frame::put_left(out),
        }
    }
}

/// Our choice: at 20 % loss all are lost once in 125 times.
const GOODBYES: u8 = 3;

/// Our choice: room for the answers to a dozen pings.
const CONTROL_MAX: usize = 512;

/// A packet this close to full is one of a burst, not its end: no PSH, so that receivers may merge it.
const MAX_SLACK: usize = 64;
