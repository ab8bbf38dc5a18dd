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

mod accept;
mod drops;
mod event;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub use self::drops::ServerDrops;
pub use self::event::{Abandoned, ServerEvent, StreamKey};
use super::budget::{Budgets, Cost};
use super::engine::{OUTER_HEADERS, Settings, TooBig};
use super::frame::{self, CloseCode, Frame, Frames};
use super::load::{ServerLoad, SessionLoad};
use super::outbox::Outbox;
use super::peer::{Peer, PeerMemory, PeerSettings, Session};
use super::status::{Injected, ServerStatus};
use crate::carrier::{self, Kind, Listener, ListenerAction, Segment};
use crate::crypto::{Header, Mask, OVERHEAD, OpenError, PrivateKey, PublicKey, SuiteSet};
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
    /// Of carriers that are confirmed: our address and the client's.
    by_tuple: HashMap<(SocketAddr, SocketAddr), usize>,
    ready: VecDeque<usize>,
    /// Peers whose streams may have events; MUX keeps them until they are asked for.
    eventful: VecDeque<usize>,
    outbox: Outbox,
    tun: Outbox,
    events: VecDeque<ServerEvent>,
    budgets: Budgets,
    /// Handshakes that opened under the key of a peer, so far.
    handshakes: u64,
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
            by_tuple: HashMap::new(),
            ready: VecDeque::new(),
            eventful: VecDeque::new(),
            outbox: Outbox::new(OUTBOX),
            tun: Outbox::new(TUN_QUEUE),
            events: VecDeque::new(),
            budgets: Budgets::new(rng.random()),
            handshakes: 0,
            next_sweep: now + SWEEP_INTERVAL,
            drops: ServerDrops::default(),
            rng,
            settings,
        }
    }

    /// Takes one outer IP packet that is addressed to this host and to a port of ours.
    pub fn handle_packet(&mut self, packet: &mut [u8], now: Instant) {
        match carrier::parse(packet) {
            Ok(segment) => self.handle_segment(&segment, packet, now),
            Err(_) => self.drops.outer += 1,
        }
    }

    /// The same for a packet that was parsed already.
    pub fn handle_segment(&mut self, segment: &Segment, packet: &mut [u8], now: Instant) {
        let header = packet.get(segment.payload.clone()).and_then(|payload| self.mask.header(payload));
        match header {
            Some(header) if header.index != 0 => self.handle_data(segment, header, packet, now),
            Some(header) if header.is_handshake() && self.is_live(segment) => {
                self.handle_rekey(segment, packet, now);
            }
            _ => self.handle_stranger(segment, packet, now),
        }
    }

    /// Takes one IP packet from the TUN.
    pub fn handle_tun(&mut self, inner: &[u8], now: Instant) {
        let Ok(header) = packet::parse(inner) else {
            self.drops.inner += 1;
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
            self.tun.push(flow::reset_for(inner));
        } else if let Err(TooBig(mtu)) = session.engine.push_datagram(inner, &header, now) {
            self.tun.push(packet::too_big(inner, mtu, header.destination));
        } else {
            self.touch(id);
        }
    }

    /// Runs what is due; call it when [`Self::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<_> = (0..self.peers.len())
            .filter(|&id| self.peers[id].poll_timeout(now).is_some_and(|at| at <= now))
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
            self.peers[id].close_carriers(CloseCode::Done);
            self.touch(id);
        }
    }

    /// Writes the next outer IP packet into `out`; `false` when there is none now.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        if let Some(packet) = self.outbox.pop() {
            *out = packet;
            return true;
        }
        while let Some(id) = self.ready.pop_front() {
            if self.peers[id].poll_transmit(out, now) {
                // What left made room in the peer's streams.
                self.touch(id);
                return true;
            }
        }
        false
    }

    /// The next IP packet for the TUN.
    pub fn poll_tun(&mut self) -> Option<Vec<u8>> {
        self.tun.pop()
    }

    /// The next thing the shell must do.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let id = *self.eventful.front()?;
            if let Some(event) = self.next_stream_event(id) {
                return Some(event);
            }
            self.eventful.pop_front();
        }
    }

    /// When to call [`Self::handle_timeout`] and [`Self::poll_transmit`] if nothing else happens.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let peers = self.peers.iter().filter_map(|peer| peer.poll_timeout(now)).min();
        let expiry = self.peers.iter().filter_map(Peer::expires_at).min();
        peers.into_iter().chain(expiry.map(|at| at.max(self.next_sweep))).min()
    }

    /// The target answered: the client's app may be told.
    pub fn connected(&mut self, stream: StreamKey) {
        self.with_mux(stream, |mux, id| mux.accept(id));
    }

    /// Ends a stream: the target refused, is unreachable, or reset.
    pub fn reset(&mut self, stream: StreamKey, code: ResetCode) {
        self.with_mux(stream, |mux, id| mux.reset(id, code));
    }

    /// The target reset its connection: the client's app is told behind what the target had sent before.
    pub fn abort(&mut self, stream: StreamKey) {
        self.with_mux(stream, |mux, id| mux.abort(id, ResetCode::Reset));
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
    }

    /// Everything there is to know.
    pub fn status(&self, now: Instant) -> ServerStatus {
        let mut injected = Injected::default();
        self.peers.iter().for_each(|peer| injected += peer.injected);
        ServerStatus {
            peers: self.peers.iter().map(|peer| peer.status(now)).collect(),
            injected,
            drops: ServerDrops {
                tun_full: self.tun.dropped(),
                outbox_full: self.outbox.dropped(),
                ..self.drops
            },
        }
    }

    /// What it holds now.
    pub fn load(&self) -> ServerLoad {
        let mut load = ServerLoad {
            indexes: self.by_index.len(),
            tun: self.tun.len(),
            outbox: self.outbox.len(),
            events: self.events.len(),
            ..ServerLoad::default()
        };
        for peer in &self.peers {
            load.carriers += peer.carriers.len();
            load.probes += peer.probes.len();
            load.most_carriers = load.most_carriers.max(peer.carriers.len());
            if let Some(session) = &peer.session {
                let held = SessionLoad::of(&session.engine);
                load.sessions += 1;
                load.largest_session = load.largest_session.max(held.streams());
                load.total += held;
            }
        }
        load
    }

    /// What the next server is to [`Self::remember`], so that recorded handshakes stay refused.
    pub fn memory(&self) -> Vec<PeerMemory> {
        self.peers.iter().map(Peer::memory).collect()
    }

    /// Changes whenever [`Self::memory`] does.
    pub fn memory_version(&self) -> u64 {
        self.handshakes
    }

    /// Takes what an earlier server knew; of peers that are none any more it is forgotten.
    pub fn remember(&mut self, memory: Vec<PeerMemory>) {
        for peer in &memory {
            if let Some(&id) = self.by_key.get(&peer.public_key) {
                self.peers[id].remember(peer);
            }
        }
    }

    /// The host's own addresses changed: the egress policy denies them.
    pub fn set_own_addresses(&mut self, addresses: Vec<IpNetwork>) {
        self.settings.egress.set_own(addresses);
    }

    /// A packet that names no index of ours.
    fn handle_stranger(&mut self, segment: &Segment, packet: &[u8], now: Instant) {
        let live = self.by_tuple.get(&tuple(segment)).copied();
        if let Some(id) = live.filter(|&id| self.peers[id].is_in_use(segment)) {
            self.peers[id].injected.count(segment.kind());
        }
        if let Some(id) = live.filter(|_| segment.kind() == Kind::Syn)
            && self.peers[id].challenge(segment, now)
        {
            return self.touch(id);
        }
        if let Some(id) = live.filter(|_| segment.kind() == Kind::Fin)
            && self.peers[id].acknowledge_fin(segment, now)
        {
            return self.touch(id);
        }
        // 64 bits that only holders of our public key can make, before anything is spent.
        if segment.kind() == Kind::Data && !self.is_message1(segment, packet) {
            self.drops.stranger += 1;
            return;
        }
        match self.listener.handle_segment(segment, now) {
            ListenerAction::SynAck(answer) => self.outbox.push(Some(answer)),
            ListenerAction::Cookie(accepted) => {
                self.handle_message1(segment, Some(&accepted), Cost::Message1, packet, now);
            }
            ListenerAction::Bare(accepted) => {
                self.handle_message1(segment, Some(&accepted), Cost::BareMessage1, packet, now);
            }
            ListenerAction::Drop(_) => self.drops.stranger += 1,
        }
    }

    fn handle_data(&mut self, segment: &Segment, header: Header, packet: &mut [u8], now: Instant) {
        let Some(&id) = self.by_index.get(&header.index) else {
            return self.handle_stranger(segment, packet, now);
        };
        if self.peers[id].probes.has(header.index) {
            match self.peers[id].probes.handle(segment, (header.index, &self.mask), packet, now) {
                Some(pong) => self.outbox.push(Some(pong)),
                None => self.drops.sealed += 1,
            }
            return;
        }
        let Some(payload) = packet.get_mut(segment.payload.clone()) else { return };
        let Some(carrier) = self.peers[id].carrier(header.index) else {
            self.drops.stranger += 1;
            return;
        };
        let before = carrier.link.tuple();
        let opened = match carrier.link.open(segment, header, payload, now) {
            Ok(opened) => opened,
            Err(error) => {
                let is_injected =
                    error == OpenError::Forged && carrier.confirmed && carrier.link.is_from(segment);
                self.peers[id].injected.payloads += u64::from(is_injected);
                self.drops.sealed += 1;
                return;
            }
        };
        carrier.last_opened = now;
        // What the client may send and the path carries, may be sent to it.
        carrier.link.path_mut().raise_limit(u16::try_from(segment.payload.end).unwrap_or(u16::MAX), now);
        let (after, confirmed) = (carrier.link.tuple(), carrier.confirmed);
        if !confirmed && self.peers[id].confirm(header.index, self.engine_settings, now) {
            self.abandon(id);
        }
        if !confirmed || before != after {
            self.on_proved(id, before, after);
        }
        self.peers[id].moves += u64::from(confirmed && before != after);
        self.handle_frames(id, header.index, opened.plaintext, segment.payload.end, now);
        if !confirmed {
            self.peers[id].prefer(header.index, now);
        }
        self.touch(id);
    }

    /// A carrier was confirmed, or its client has moved.
    fn on_proved(&mut self, id: usize, before: (SocketAddr, SocketAddr), after: (SocketAddr, SocketAddr)) {
        // A NAT may have given the old one to another by now.
        if self.by_tuple.get(&before).is_some_and(|&owner| !self.peers[owner].has_live(before)) {
            self.by_tuple.remove(&before);
        }
        self.by_tuple.insert(after, id);
        let (_, client) = after;
        self.budgets.on_proved(client.ip());
    }

    fn is_message1(&self, segment: &Segment, packet: &[u8]) -> bool {
        let header = packet.get(segment.payload.clone()).and_then(|payload| self.mask.header(payload));
        header.is_some_and(Header::is_handshake)
    }

    fn is_live(&self, segment: &Segment) -> bool {
        segment.kind() == Kind::Data && self.by_tuple.contains_key(&tuple(segment))
    }

    fn handle_frames(&mut self, id: usize, index: u32, plaintext: &[u8], packet_len: usize, now: Instant) {
        let peer = &mut self.peers[id];
        let Some(carrier) = peer.carriers.iter_mut().find(|carrier| carrier.link.keys().has(index)) else {
            return;
        };
        if carrier.link.is_closing() {
            return;
        }
        let Some(session) = peer.session.as_mut().filter(|session| session.id == carrier.session) else {
            // It may have missed that its session was replaced.
            carrier.link.queue(|out| frame::put_close(out, CloseCode::Replaced));
            return;
        };
        session.engine.on_heard(now);
        session.traffic.on_received(packet_len);
        for frame in Frames::new(plaintext) {
            match frame {
                Ok(frame) => self.handle_frame((id, index), frame, packet_len, now),
                Err(_) => self.drops.frame += 1,
            }
        }
    }

    fn handle_frame(&mut self, (id, index): (usize, u32), frame: Frame<'_>, packet_len: usize, now: Instant) {
        let peer = &mut self.peers[id];
        match frame {
            Frame::Kcp(body) => self.handle_kcp(id, body, now),
            Frame::Datagram(inner) => self.handle_datagram(id, inner),
            Frame::Fragment(piece) => {
                let whole =
                    peer.session.as_mut().and_then(|session| session.engine.handle_fragment(piece, now));
                if let Some(whole) = whole {
                    self.handle_whole(id, &whole, now);
                }
            }
            Frame::Ping { token, .. } => {
                let epoch = peer.epoch();
                if let Some(carrier) = peer.carrier(index) {
                    let seen = carrier.link.counts();
                    carrier.link.queue_pong(token, packet_len);
                    carrier.link.queue(|out| frame::put_epoch(out, epoch));
                    carrier.link.queue(|out| frame::put_seen(out, seen));
                }
            }
            Frame::Use { number, carriers } => {
                if let Some(carrier) = carriers.last() {
                    peer.use_carrier(number, carrier, now);
                }
            }
            Frame::Epoch(epoch) => self.advance_epoch(id, epoch, now),
            Frame::Close(_) => {
                // As TCP would: a FIN of ours, too. Another session of the same key may just be beginning.
                let ended = peer.session.as_ref().map(|session| session.id);
                let carriers = peer.carriers.iter_mut();
                carriers
                    .filter(|carrier| Some(carrier.session) == ended)
                    .for_each(|carrier| carrier.link.close());
                self.end_session(id);
            }
            Frame::Seen(counts) => {
                if let Some(carrier) = peer.carrier(index) {
                    carrier.loss_out.on_counts(counts, now);
                    carrier.loss_in.on_counts(carrier.link.counts(), now);
                }
            }
            Frame::Pong { token, .. } => {
                if let Some(carrier) = peer.carrier(index) {
                    carrier.link.path_mut().on_pong(token, now);
                }
            }
        }
    }

    /// A frame that came in pieces.
    fn handle_whole(&mut self, id: usize, frame: &[u8], now: Instant) {
        match frame::whole(frame) {
            Some(Frame::Kcp(body)) => self.handle_kcp(id, body, now),
            Some(Frame::Datagram(inner)) => self.handle_datagram(id, inner),
            _ => self.drops.frame += 1,
        }
    }

    fn handle_kcp(&mut self, id: usize, body: &[u8], now: Instant) {
        let peer = &mut self.peers[id];
        let Some(session) = &mut peer.session else { return };
        if session.engine.handle_kcp(body, now).is_err() {
            peer.close_carriers(CloseCode::Protocol);
            self.end_session(id);
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
        // Clients may ping us, and answer when we ping them.
        let is_ping = to_us && header.is_echo(inner);
        let port = header.destination_port(inner);
        if is_ping || (!to_us && self.settings.egress.allows(header.destination, port)) {
            self.tun.push(Some(inner.to_vec()));
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
        let Some(ended) = peer.session.take() else { return };
        tracing::info!(peer = %peer.settings.name, "its session has ended");
        peer.incarnation += 1;
        // Pending carriers that were to resume it have nothing to resume; those in use may still have a goodbye to say.
        peer.carriers.retain(|carrier| carrier.confirmed || carrier.session != ended.id);
        self.abandon(id);
    }

    fn abandon(&mut self, id: usize) {
        let before = self.peers[id].incarnation;
        self.events.push_back(ServerEvent::Abandoned(Abandoned { peer: id, before }));
    }

    /// MUX's next event in the shell's words. A denied target is answered here.
    ///
    /// Events are taken one at a time, because what a stream received stays readable only until its reset is taken.
    fn next_stream_event(&mut self, id: usize) -> Option<ServerEvent> {
        let peer = &mut self.peers[id];
        let incarnation = peer.incarnation;
        let session = peer.session.as_mut()?;
        let key = |stream| StreamKey { peer: id, incarnation, stream };
        while let Some(event) = session.engine.mux.poll_event() {
            return Some(match event {
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
            });
        }
        None
    }

    fn sweep(&mut self, now: Instant) {
        for id in 0..self.peers.len() {
            let peer = &mut self.peers[id];
            peer.expire_carriers(now);
            peer.probes.expire(now);
            if peer.session.as_ref().is_some_and(|session| session.expires_at() <= now) {
                self.end_session(id);
            }
        }
        self.by_index.retain(|&index, &mut id| {
            let peer = &mut self.peers[id];
            peer.probes.has(index) || peer.carrier(index).is_some()
        });
        self.by_tuple.retain(|&tuple, &mut id| self.peers[id].has_live(tuple));
    }

    fn session(&self, stream: StreamKey) -> Option<&Session> {
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

    /// A peer may have something to send or to tell.
    fn touch(&mut self, id: usize) {
        for queue in [&mut self.ready, &mut self.eventful] {
            if !queue.contains(&id) {
                queue.push_back(id);
            }
        }
    }
}

/// Our end of a segment's 4-tuple, and the other.
fn tuple(segment: &Segment) -> (SocketAddr, SocketAddr) {
    (segment.destination, segment.source)
}

/// Our choice: how often silent carriers and sessions, and indexes without a carrier, are looked for at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Our choice: answers to strangers and handshakes that wait for the network.
const OUTBOX: usize = 1024;

/// Our choice: packets that wait for the TUN.
const TUN_QUEUE: usize = 4096;
