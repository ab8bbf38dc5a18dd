//! The server's end: many clients, each found by its key and then by the index in its packets.
//!
//! ```text
//!  network ─> handle_packet ─┬─ SYN ──────────> listener (stateless) ─> SYN-ACK
//!                            ├─ index 0 ─ cookie ─> handshake ─> pending carrier, message 2
//!                            └─ index ─> open ─┬─ kcp ─> mux ─> events: connect, readable … (sockets are the shell's)
//!                                              └─ datagram ─ egress policy ─> poll_tun
//!  TUN ─> handle_tun ─ by tunnel address ─> datagram ─> seal ─> fake TCP ─> poll_transmit
//! ```
//!
//! Feed input with `handle_*` and the stream commands; then drain [`Server::poll_event`], [`Server::poll_tun`] and
//! [`Server::poll_transmit`]; then wait until [`Server::poll_timeout`] or the next input.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::engine::{DATAGRAM_MAX, DATAGRAM_MTU, OUTER_HEADERS, Settings};
use super::frame::{self, CloseCode, Frame, Frames};
use super::link::Link;
use super::peer::{Carrier, Peer, PeerSettings};
use super::status::ServerStatus;
use crate::carrier::{self, Accepted, Connection, Listener, ListenerAction, Mode, Segment};
use crate::crypto::{
    Header, Mask, Message2, OVERHEAD, PresharedKey, PrivateKey, PublicKey, Received, Refusal, Responder,
    SuiteSet, VERSION,
};
use crate::egress::EgressPolicy;
use crate::flow;
use crate::kcp::CongestionKind;
use crate::mux::{self, ResetCode, StreamId};
use crate::packet;

/// What a server is made with.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Ours.
    pub private_key: PrivateKey,
    /// Cipher suites this machine offers.
    pub suites: SuiteSet,
    /// How KCP reacts to loss.
    pub congestion: CongestionKind,
    /// Who may connect.
    pub peers: Vec<PeerSettings>,
    /// Our own tunnel addresses, which answer ping.
    pub addresses: Vec<IpAddr>,
    /// Resolvers that clients are told of.
    pub dns: Vec<IpAddr>,
    /// Where clients may go.
    pub egress: EgressPolicy,
    /// Bound on what one session buffers, in bytes.
    pub session_buffer: usize,
    /// Bound on what all sessions together buffer, in bytes.
    pub process_buffer: usize,
    /// How long a silent session is kept.
    pub dead_after: Duration,
}

/// A stream of one peer, for the shell: never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    peer: usize,
    incarnation: u64,
    stream: StreamId,
}

/// What the shell must do with its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// Connect to `target`, then call [`Server::connected`] or [`Server::reset`].
    Connect {
        /// The stream.
        stream: StreamKey,
        /// Allowed by the egress policy.
        target: SocketAddr,
    },
    /// Bytes wait in [`Server::readable`].
    Readable(StreamKey),
    /// [`Server::write`] has room again.
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
    peer: usize,
    before: u64,
}

impl Abandoned {
    /// Whether this stream is among them.
    pub fn includes(&self, stream: StreamKey) -> bool {
        stream.peer == self.peer && stream.incarnation < self.before
    }
}

/// Packets a server did not act on, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerDrops {
    /// Outer packets that are no TCP packet of ours.
    pub outer: u64,
    /// TCP packets without payload, or without a cookie, or of an unknown index.
    pub stranger: u64,
    /// Handshakes beyond the budget.
    pub budget: u64,
    /// First messages that do not open under our key.
    pub handshake: u64,
    /// First messages that were answered before.
    pub replayed: u64,
    /// Payloads that do not open, or opened before.
    pub sealed: u64,
    /// Opened packets whose frames do not parse.
    pub frame: u64,
    /// Inner packets with a source that is not the peer's, or TCP outside a stream.
    pub spoofed: u64,
    /// Inner packets the egress policy denies.
    pub denied: u64,
    /// Packets from the TUN for no peer that is connected.
    pub unrouted: u64,
    /// Inner packets for which the TUN was too slow.
    pub tun_full: u64,
}

/// One server: the sans-IO whole of `vpn serve`.
#[derive(Debug)]
pub struct Server {
    settings: ServerSettings,
    engine_settings: Settings,
    mask: Mask,
    rng: StdRng,
    listener: Listener,
    peers: Vec<Peer>,
    by_key: HashMap<PublicKey, usize>,
    by_address: HashMap<IpAddr, usize>,
    by_index: HashMap<u32, usize>,
    ready: VecDeque<usize>,
    outbox: VecDeque<Vec<u8>>,
    tun: VecDeque<Vec<u8>>,
    events: VecDeque<ServerEvent>,
    handshakes: Budget,
    next_sweep: Instant,
    drops: ServerDrops,
}

impl Server {
    /// A server without sessions; `seed` must be random and secret.
    pub fn new(settings: ServerSettings, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let peers: Vec<_> = settings.peers.iter().cloned().map(Peer::new).collect();
        let by_key = peers.iter().enumerate().map(|(id, peer)| (peer.settings.public_key, id)).collect();
        let by_address = peers
            .iter()
            .enumerate()
            .flat_map(|(id, peer)| peer.settings.addresses.iter().map(move |network| (network.ip(), id)))
            .collect();
        let share = settings.process_buffer / peers.len().max(1);
        Self {
            engine_settings: Settings {
                role: mux::Role::Server,
                congestion: settings.congestion,
                buffer: settings.session_buffer.min(share),
                overhead: OUTER_HEADERS + OVERHEAD,
            },
            mask: Mask::new(&settings.private_key.public_key()),
            listener: Listener::new(rng.random(), now),
            peers,
            by_key,
            by_address,
            by_index: HashMap::new(),
            ready: VecDeque::new(),
            outbox: VecDeque::new(),
            tun: VecDeque::new(),
            events: VecDeque::new(),
            handshakes: Budget::new(now),
            next_sweep: now + SWEEP_INTERVAL,
            drops: ServerDrops::default(),
            rng,
            settings,
        }
    }

    /// Takes one outer IP packet that is addressed to this host and to a port of ours.
    pub fn handle_packet(&mut self, packet: &mut [u8], now: Instant) {
        let Ok(segment) = carrier::parse(packet) else {
            self.drops.outer += 1;
            return;
        };
        let header = packet.get(segment.payload.clone()).and_then(|payload| self.mask.header(payload));
        match header {
            Some(header) if header.index != 0 => self.handle_data(&segment, header, packet, now),
            _ => self.handle_stranger(&segment, packet, now),
        }
    }

    /// Takes one IP packet from the TUN.
    pub fn handle_tun(&mut self, inner: &[u8], now: Instant) {
        let Ok(header) = packet::parse(inner) else {
            self.drops.spoofed += 1;
            return;
        };
        let peer = self.by_address.get(&header.destination).copied();
        let Some((id, session)) =
            peer.and_then(|id| self.peers[id].session.as_mut().map(|session| (id, session)))
        else {
            self.drops.unrouted += 1;
            return;
        };
        if header.protocol == packet::TCP {
            // Connections towards a client are not offered yet.
            self.push_tun(flow::reset_for(inner));
        } else if inner.len() > DATAGRAM_MAX {
            self.push_tun(packet::too_big(inner, DATAGRAM_MTU, header.destination));
        } else {
            session.engine.datagrams.push(inner.to_vec(), now);
            self.touch(id);
        }
    }

    /// Runs what is due; call it when [`Self::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<_> = (0..self.peers.len())
            .filter(|&id| self.peers[id].poll_timeout().is_some_and(|at| at <= now))
            .collect();
        due.into_iter().for_each(|id| self.touch(id));
        if self.next_sweep <= now {
            self.next_sweep = now + SWEEP_INTERVAL;
            self.sweep(now);
        }
    }

    /// Ends every session. Drain [`Self::poll_transmit`] once more afterwards.
    pub fn close(&mut self) {
        for id in 0..self.peers.len() {
            self.peers[id].close_carriers(|_| true, CloseCode::Done);
            self.touch(id);
        }
    }

    /// Writes the next outer IP packet into `out`; `false` when there is none now.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        if let Some(packet) = self.outbox.pop_front() {
            *out = packet;
            return true;
        }
        while let Some(id) = self.ready.pop_front() {
            if self.peers[id].poll_transmit(out, now) {
                self.ready.push_back(id);
                return true;
            }
        }
        false
    }

    /// The next IP packet for the TUN.
    pub fn poll_tun(&mut self) -> Option<Vec<u8>> {
        self.tun.pop_front()
    }

    /// The next thing the shell must do.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// When to call [`Self::handle_timeout`] and [`Self::poll_transmit`] if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let peers = self.peers.iter().filter_map(Peer::poll_timeout).min();
        let sweep = (!self.by_index.is_empty()).then_some(self.next_sweep);
        peers.into_iter().chain(sweep).min()
    }

    /// The target answered: the client's app may be told.
    pub fn connected(&mut self, stream: StreamKey) {
        self.with_mux(stream, |mux, id| mux.accept(id));
    }

    /// Ends a stream: the target refused, is unreachable, or reset.
    pub fn reset(&mut self, stream: StreamKey, code: ResetCode) {
        self.with_mux(stream, |mux, id| mux.reset(id, code));
    }

    /// The target sends no more.
    pub fn finish(&mut self, stream: StreamKey) {
        self.with_mux(stream, |mux, id| mux.finish(id));
    }

    /// How many bytes [`Self::write`] would take.
    pub fn write_room(&mut self, stream: StreamKey) -> usize {
        self.with_mux(stream, |mux, id| mux.write_room(id)).unwrap_or(0)
    }

    /// Gives bytes of the target to the client; returns how many were taken.
    pub fn write(&mut self, stream: StreamKey, bytes: &[u8]) -> usize {
        self.with_mux(stream, |mux, id| mux.write(id, bytes)).unwrap_or(0)
    }

    /// Bytes of the client that wait for the target; empty when there are none.
    pub fn readable(&self, stream: StreamKey) -> &[u8] {
        self.session(stream).map_or(&[], |session| session.engine.mux.readable(stream.stream))
    }

    /// The target took `taken` bytes.
    pub fn consume(&mut self, stream: StreamKey, taken: usize, now: Instant) {
        self.with_mux(stream, |mux, id| mux.consume(id, taken, now));
        // Consuming can finish or open the stream's window: both are events.
        self.translate_events(stream.peer);
    }

    /// Everything there is to know.
    pub fn status(&self, now: Instant) -> ServerStatus {
        ServerStatus { peers: self.peers.iter().map(|peer| peer.status(now)).collect(), drops: self.drops }
    }

    /// The host's own addresses changed: the egress policy denies them.
    pub fn set_own_addresses(&mut self, addresses: Vec<IpNetwork>) {
        self.settings.egress.set_own(addresses);
    }

    fn handle_stranger(&mut self, segment: &Segment, packet: &mut [u8], now: Instant) {
        match self.listener.handle_segment(segment, now) {
            ListenerAction::SynAck(answer) => self.push_out(Some(answer)),
            ListenerAction::Cookie(accepted) => {
                self.handle_message1(segment, accepted, packet, now);
            }
            ListenerAction::Drop(_) => self.drops.stranger += 1,
        }
    }

    fn handle_message1(&mut self, segment: &Segment, accepted: Accepted, packet: &[u8], now: Instant) {
        if !self.handshakes.take(now) {
            self.drops.budget += 1;
            return;
        }
        let Some(payload) = packet.get(segment.payload.clone()) else { return };
        let lookup = |key: &PublicKey| -> Option<PresharedKey> {
            self.by_key.get(key).map(|&id| self.peers[id].settings.preshared_key.clone())
        };
        let Ok(received) = Responder::read(&self.settings.private_key, payload, &lookup, &mut self.rng)
        else {
            self.drops.handshake += 1;
            return;
        };
        let mode = Mode::from_wire(received.payload.mode);
        let Some(Ok(connection)) = mode.map(|mode| Connection::accepted(&accepted, mode, now)) else {
            self.drops.handshake += 1;
            return;
        };
        match self.by_key.get(&received.remote).copied() {
            Some(peer) => self.answer_peer(peer, received, connection, now),
            None => self.answer(received, &refused(Refusal::UnknownKey), connection),
        }
    }

    fn answer_peer(&mut self, id: usize, received: Received, connection: Connection, now: Instant) {
        let peer = &mut self.peers[id];
        let known = peer.carriers.iter_mut().find(|carrier| carrier.ephemeral == received.ephemeral);
        if let Some(carrier) = known {
            if !carrier.confirmed {
                let packet = carrier.repeat_reply();
                self.push_out(packet);
            }
            return;
        }
        if peer.is_replay(received.ephemeral) {
            self.drops.replayed += 1;
            return;
        }
        let message = &received.payload;
        let current = peer.session.as_ref().is_some_and(|session| session.id == message.session);
        if message.version != VERSION {
            return self.answer(received, &refused(Refusal::Version), connection);
        }
        if let Some(above) = peer.newest.filter(|newest| !current && message.timestamp <= *newest) {
            return self.answer(received, &Message2::Stale { above }, connection);
        }
        self.accept(id, received, connection, now);
    }

    fn accept(&mut self, id: usize, received: Received, mut connection: Connection, now: Instant) {
        let index = self.fresh_index();
        let peer = &mut self.peers[id];
        let message = received.payload;
        let suite = self.settings.suites.agree(message.suites);
        let (epoch, resumed) = peer.resumes(message.session, message.epoch);
        let reply = if resumed {
            Message2::Resumed { index, suite }
        } else {
            let addresses = peer.settings.addresses.clone();
            Message2::Fresh { index, suite, epoch, addresses, dns: self.settings.dns.clone() }
        };
        let ephemeral = received.ephemeral;
        let Ok((reply, Some(keys))) = received.responder.write(&reply) else {
            self.drops.handshake += 1;
            return;
        };
        peer.newest = peer.newest.max(Some(message.timestamp));
        let packet = wrap(&mut connection, &reply);
        let pair = keys.into_pair();
        if let Some(gone) = peer.make_room() {
            self.by_index.remove(&gone);
        }
        peer.carriers.push(Carrier {
            link: Link::new(message.carrier, index, connection, pair, now),
            session: message.session,
            epoch,
            confirmed: false,
            ephemeral,
            reply,
            last_opened: now,
        });
        self.by_index.insert(index, id);
        self.push_out(packet);
    }

    /// Answers without keys, and keeps nothing.
    fn answer(&mut self, received: Received, message: &Message2, mut connection: Connection) {
        if let Ok((reply, _)) = received.responder.write(message) {
            let packet = wrap(&mut connection, &reply);
            self.push_out(packet);
        }
    }

    fn handle_data(&mut self, segment: &Segment, header: Header, packet: &mut [u8], now: Instant) {
        let Some(&id) = self.by_index.get(&header.index) else {
            return self.handle_stranger(segment, packet, now);
        };
        let Some(payload) = packet.get_mut(segment.payload.clone()) else { return };
        let Some(carrier) = self.peers[id].carrier(header.index) else { return };
        let Ok(opened) = carrier.link.open(segment, header, payload, now) else {
            self.drops.sealed += 1;
            return;
        };
        carrier.last_opened = now;
        if !carrier.confirmed && self.peers[id].confirm(header.index, self.engine_settings, now) {
            self.abandon(id);
        }
        self.handle_frames(id, header.index, opened.plaintext, segment.payload.end, now);
        self.translate_events(id);
        self.touch(id);
    }

    fn handle_frames(&mut self, id: usize, index: u32, plaintext: &[u8], packet_len: usize, now: Instant) {
        let peer = &mut self.peers[id];
        let belongs = peer.carrier(index).map(|carrier| carrier.session);
        let Some(session) = peer.session.as_mut().filter(|session| Some(session.id) == belongs) else {
            return;
        };
        if now.saturating_duration_since(session.last_opened) > SILENCE {
            session.engine.on_path_restored(now);
        }
        session.last_opened = now;
        session.traffic.on_received(packet_len);
        for frame in Frames::new(plaintext) {
            match frame {
                Ok(frame) => self.handle_frame(id, index, frame, now),
                Err(_) => self.drops.frame += 1,
            }
        }
    }

    fn handle_frame(&mut self, id: usize, index: u32, frame: Frame<'_>, now: Instant) {
        let peer = &mut self.peers[id];
        match frame {
            Frame::Kcp(body) => {
                let Some(session) = &mut peer.session else { return };
                if session.engine.handle_kcp(body, now).is_err() {
                    self.advance_epoch(id, self.peers[id].epoch() + 1, now);
                }
            }
            Frame::Datagram(inner) => self.handle_datagram(id, inner),
            Frame::Ping { token, size } => {
                let epoch = peer.epoch();
                if let Some(carrier) = peer.carrier(index) {
                    carrier.link.queue_pong(token, size);
                    carrier.link.queue(|out| frame::put_epoch(out, epoch));
                }
            }
            Frame::Use { number, carriers } => {
                if let Some(carrier) = carriers.last() {
                    peer.use_carrier(number, carrier);
                }
            }
            Frame::Epoch(epoch) => self.advance_epoch(id, epoch, now),
            Frame::Close(_) => self.end_session(id),
            Frame::Pong { .. } => self.drops.frame += 1,
        }
    }

    fn handle_datagram(&mut self, id: usize, inner: &[u8]) {
        let peer = &self.peers[id];
        let header = match packet::parse(inner) {
            Ok(header) if peer.owns(header.source) && header.protocol != packet::TCP => header,
            _ => {
                self.drops.spoofed += 1;
                return;
            }
        };
        let to_us = self.settings.addresses.contains(&header.destination);
        let pings_us = to_us && header.is_echo_request(inner);
        let port = header.destination_port(inner);
        if pings_us || (!to_us && self.settings.egress.allows(header.destination, port)) {
            self.push_tun(Some(inner.to_vec()));
        } else {
            self.drops.denied += 1;
        }
    }

    fn advance_epoch(&mut self, id: usize, epoch: u32, now: Instant) {
        if self.peers[id].advance_epoch(epoch, now) {
            self.abandon(id);
        }
    }

    /// Forgets a session and its carriers.
    fn end_session(&mut self, id: usize) {
        let peer = &mut self.peers[id];
        if peer.session.take().is_none() {
            return;
        }
        peer.incarnation += 1;
        for carrier in peer.carriers.drain(..) {
            self.by_index.remove(&carrier.link.index());
        }
        self.abandon(id);
    }

    fn abandon(&mut self, id: usize) {
        let before = self.peers[id].incarnation;
        self.events.push_back(ServerEvent::Abandoned(Abandoned { peer: id, before }));
    }

    /// MUX's events in the shell's words. A denied target is answered here.
    fn translate_events(&mut self, id: usize) {
        let peer = &mut self.peers[id];
        let incarnation = peer.incarnation;
        let Some(session) = &mut peer.session else { return };
        let key = |stream| StreamKey { peer: id, incarnation, stream };
        while let Some(event) = session.engine.mux.poll_event() {
            let event = match event {
                mux::Event::Open { id, target } => {
                    if !self.settings.egress.allows(target.ip(), Some(target.port())) {
                        self.drops.denied += 1;
                        session.engine.mux.reset(id, ResetCode::Denied);
                        continue;
                    }
                    session.streams_total += 1;
                    ServerEvent::Connect { stream: key(id), target }
                }
                mux::Event::Readable { id } => ServerEvent::Readable(key(id)),
                mux::Event::Writable { id } => ServerEvent::Writable(key(id)),
                mux::Event::Finished { id } => ServerEvent::Finished(key(id)),
                mux::Event::Reset { id, .. } => ServerEvent::Reset(key(id)),
                mux::Event::Opened { .. } | mux::Event::GoAway => continue,
            };
            self.events.push_back(event);
        }
    }

    fn sweep(&mut self, now: Instant) {
        for id in 0..self.peers.len() {
            for index in self.peers[id].expire_carriers(self.settings.dead_after, now) {
                self.by_index.remove(&index);
            }
            let peer = &self.peers[id];
            let silent = peer.session.as_ref().is_some_and(|session| {
                now.saturating_duration_since(session.last_opened) >= self.settings.dead_after
            });
            if silent {
                self.end_session(id);
            }
        }
    }

    fn session(&self, stream: StreamKey) -> Option<&super::peer::Session> {
        let peer = self.peers.get(stream.peer)?;
        peer.session.as_ref().filter(|_| peer.incarnation == stream.incarnation)
    }

    fn with_mux<T>(
        &mut self,
        stream: StreamKey,
        act: impl FnOnce(&mut mux::Mux, StreamId) -> T,
    ) -> Option<T> {
        let peer = self.peers.get_mut(stream.peer)?;
        let session = peer.session.as_mut().filter(|_| peer.incarnation == stream.incarnation)?;
        let result = act(&mut session.engine.mux, stream.stream);
        self.touch(stream.peer);
        Some(result)
    }

    /// A peer has, or may have, something to send.
    fn touch(&mut self, id: usize) {
        if !self.ready.contains(&id) {
            self.ready.push_back(id);
        }
    }

    fn push_out(&mut self, packet: Option<Vec<u8>>) {
        if self.outbox.len() < OUTBOX {
            self.outbox.extend(packet);
        }
    }

    fn push_tun(&mut self, packet: Option<Vec<u8>>) {
        if self.tun.len() < TUN_QUEUE {
            self.tun.extend(packet);
        } else {
            self.drops.tun_full += 1;
        }
    }

    fn fresh_index(&mut self) -> u32 {
        loop {
            let index = self.rng.random();
            if index != 0 && !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }
}

impl Carrier {
    fn repeat_reply(&mut self) -> Option<Vec<u8>> {
        wrap(self.link.connection_mut(), &self.reply)
    }
}

fn refused(reason: Refusal) -> Message2 {
    Message2::Refused { reason }
}

/// One sealed packet as an outer packet.
fn wrap(connection: &mut Connection, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut packet = vec![0; connection.header_len()];
    packet.extend_from_slice(sealed);
    connection.finish_packet(&mut packet, true).ok()?;
    Some(packet)
}

/// A token bucket for what costs public-key cryptography.
#[derive(Clone, Copy, Debug)]
struct Budget {
    tokens: u32,
    refilled: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { tokens: HANDSHAKE_BURST, refilled: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.refilled).as_millis() / HANDSHAKE_EVERY.as_millis();
        if let Ok(earned @ 1..) = u32::try_from(earned) {
            self.tokens = self.tokens.saturating_add(earned).min(HANDSHAKE_BURST);
            self.refilled = now;
        }
        self.tokens = match self.tokens.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

/// Our choice: 200 handshakes a second, a twentieth of a core.
const HANDSHAKE_EVERY: Duration = Duration::from_millis(5);

/// Our choice: all clients of a small server at once.
const HANDSHAKE_BURST: u32 = 200;

/// Our choice: how often silent carriers and sessions are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Our choice: what silence must have lasted for back-offs to be worth resetting.
const SILENCE: Duration = Duration::from_secs(1);

/// Our choice: answers to strangers and handshakes that wait for the network.
const OUTBOX: usize = 1024;

/// Our choice: packets of at most [`DATAGRAM_MAX`] bytes that wait for the TUN.
const TUN_QUEUE: usize = 4096;
