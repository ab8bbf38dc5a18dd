//! The server's end: many clients, each found by its key and then by the index in its packets.
//!
//! ```text
//!  network ─> handle_packet ─┬─ SYN ──────────> listener (stateless) ─> SYN-ACK
//!                            ├─ index 0 ─ cookie ─> handshake ─> pending carrier, message 2
//!                            └─ index ─> open ─┬─ kcp ─> mux ─┬─> events: connect, readable … (sockets are the shell's)
//!                                              │              └─> what we opened: flow ─────┐
//!                                              └─ datagram ─ egress policy ─────────────────┴─> poll_tun
//!  TUN ─> handle_tun ─ by tunnel address ─┬─ TCP ─> flow ─> mux ─> kcp ─┐
//!                                         └─ rest ─> datagram ──────────┴─> seal ─> fake TCP ─> poll_transmit
//! ```
//!
//! Feed input with `handle_*` and the commands of [`Streams`]; then drain [`Server::poll_event`], [`Server::poll_tun`] and
//! [`Server::poll_transmit`]; then wait until [`Server::poll_timeout`] or the next input.

mod accept;
mod attention;
mod drops;
mod towards;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use self::attention::Attention;
pub use self::drops::ServerDrops;
use super::allotment::Allotment;
use super::budget::{Budgets, Cost};
use super::engine::{OUTER_HEADERS, Settings, TooBig};
use super::flow_list::{FlowList, Side};
use super::frame::{self, CloseCode, Frame, Frames};
use super::load::{ServerLoad, SessionLoad};
use super::outbox::Outbox;
use super::peer::{Peer, PeerMemory, PeerSettings};
use super::splice::Splice;
use super::status::{Injected, ServerStatus};
use super::streams::{Abandoned, StreamEvent, StreamKey, Streams};
use crate::carrier::{self, Kind, Listener, ListenerAction, Segment};
use crate::crypto::{Header, Mask, OVERHEAD, OpenError, PrivateKey, PublicKey, SuiteSet};
use crate::egress::EgressPolicy;
use crate::flow::{self, Flows};
use crate::kcp::CongestionKind;
use crate::mux::{self, Mux, Opener, ResetCode};
use crate::packet::{self, icmp};
use crate::rate::{Bucket, Rate};

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
    /// What every session is made with, but for its part of the memory.
    engine_settings: Settings,
    allotment: Allotment,
    mask: Mask,
    rng: StdRng,
    listener: Listener,
    peers: Vec<Peer>,
    by_key: HashMap<PublicKey, usize>,
    by_address: HashMap<IpAddr, usize>,
    by_index: HashMap<u32, usize>,
    /// Of carriers that are confirmed: our address and the client's.
    by_tuple: HashMap<(SocketAddr, SocketAddr), usize>,
    attention: Attention,
    /// Addresses of the tunnel's networks that mean all of one, or none.
    nobodys: HashSet<IpAddr>,
    /// ICMP errors that may be sent.
    errors: Bucket,
    /// Connections of programs on this side to clients' tunnel addresses.
    splice: Splice,
    outbox: Outbox,
    tun: Outbox,
    events: VecDeque<StreamEvent>,
    budgets: Budgets,
    /// Handshakes that opened under the key of a peer, so far.
    handshakes: u64,
    next_sweep: Instant,
    /// When we last looked at anything.
    looked: Instant,
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
        let networks = peers.iter().flat_map(|peer| &peer.settings.addresses);
        let nobodys = networks.flat_map(|network| nobodys(*network)).collect();
        let limits = towards::limits(settings.process_buffer);
        // A generator of its own: what handshakes draw does not depend on whether there are flows.
        let mut flows_rng = StdRng::from_seed(seed.map(|byte| !byte));
        let mut flows = Flows::new(limits, flows_rng.random(), now);
        flows.set_shared();
        let for_sessions = settings.process_buffer - limits.memory;
        let mut server = Self {
            engine_settings: Settings {
                role: mux::Role::Server,
                congestion: settings.congestion,
                buffer: settings.session_buffer,
                overhead: OUTER_HEADERS + OVERHEAD,
            },
            allotment: Allotment::new(for_sessions, settings.session_buffer, peers.len()),
            mask: Mask::new(&settings.private_key.public_key()),
            listener: Listener::new(rng.random(), now),
            attention: Attention::new(peers.len()),
            splice: Splice::new(flows, towards::most_of_one(&limits)).with_rate(towards::OPENS),
            peers,
            by_key,
            by_address,
            by_index: HashMap::new(),
            by_tuple: HashMap::new(),
            nobodys,
            errors: Bucket::default(),
            outbox: Outbox::new(OUTBOX),
            tun: Outbox::new(TUN_QUEUE),
            events: VecDeque::new(),
            budgets: Budgets::new(rng.random()),
            handshakes: 0,
            next_sweep: now + SWEEP_INTERVAL,
            looked: now,
            drops: ServerDrops::default(),
            rng,
            settings,
        };
        server.set_own_addresses(Vec::new());
        server
    }

    /// Takes the memory of flows' rings from `memory`, not from the allocator; to be said before the first flow.
    pub fn set_memory(&mut self, memory: Box<dyn flow::Memory>) {
        self.splice.flows.set_memory(memory);
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
        if self.nobodys.contains(&header.destination) {
            self.drops.unrouted += 1;
            return;
        }
        if header.protocol == packet::TCP {
            self.splice.flows.handle_packet(inner, now);
            self.pump(now);
            return;
        }
        if header.is_redirect(inner) {
            // Our kernel sees that two clients are on one link of its own; they have no other way to each other than by us.
            self.drops.redirect += 1;
            return;
        }
        let peer = self.by_address.get(&header.destination).copied();
        let there = peer.filter(|&id| self.peers[id].is_there(now));
        let Some((id, session)) =
            there.and_then(|id| self.peers[id].session.as_mut().map(|session| (id, session)))
        else {
            self.drops.unrouted += 1;
            let answer = icmp::unreachable(inner, icmp::Unreachable::Host, header.destination);
            return self.tell(answer, now);
        };
        if let Err(TooBig(mtu)) = session.engine.push_datagram(inner, &header, now) {
            self.tell(packet::too_big(inner, mtu, header.destination), now);
        } else {
            self.touch(id);
        }
    }

    /// Sends an ICMP error, unless there were too many.
    fn tell(&mut self, error: Option<Vec<u8>>, now: Instant) {
        if error.is_some() && !self.errors.take(ERRORS, now) {
            self.drops.unreported += 1;
        } else {
            self.tun.push(error);
        }
    }

    /// Runs what is due; call it when [`Self::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let unseen = now.saturating_duration_since(self.looked);
        if unseen >= STOOD_STILL {
            self.splice.flows.on_stood_still(unseen, now);
        }
        self.looked = now;
        self.splice.flows.handle_timeout(now);
        let due: Vec<_> = (0..self.peers.len())
            .filter(|&id| self.peers[id].poll_timeout(now).is_some_and(|at| at <= now))
            .collect();
        due.into_iter().for_each(|id| self.touch(id));
        if self.next_sweep <= now {
            self.next_sweep = now + SWEEP_INTERVAL;
            self.sweep(now);
        }
        self.pump(now);
    }

    /// Ends every session. Drain [`Self::poll_tun`] and [`Self::poll_transmit`] once more afterwards.
    pub fn close(&mut self, now: Instant) {
        self.splice.reset_all(now);
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
        loop {
            while let Some(id) = self.attention.transmit.pop() {
                if self.peers[id].poll_transmit(out, now) {
                    self.touch(id);
                    return true;
                }
            }
            // What left made room in the peers' streams for more.
            if !self.pump(now) {
                return false;
            }
        }
    }

    /// The next IP packet for the TUN.
    pub fn poll_tun(&mut self, now: Instant) -> Option<Vec<u8>> {
        loop {
            let packet = self.tun.pop().or_else(|| self.splice.flows.poll_packet(now));
            // Making packets is how flows find out what happened to them.
            if packet.is_some() || !self.pump(now) {
                return packet;
            }
        }
    }

    /// Takes back the memory of a packet from [`Self::poll_tun`].
    pub fn recycle(&mut self, packet: Vec<u8>) {
        self.splice.flows.recycle(packet);
    }

    /// The next thing the shell must do.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let id = self.attention.shell.front()?;
            if let Some(event) = self.next_stream_event(id) {
                return Some(event);
            }
            self.attention.shell.pop();
        }
    }

    /// When to call [`Self::handle_timeout`] and [`Self::poll_transmit`] if nothing else happens.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let peers = self.peers.iter().filter_map(|peer| peer.poll_timeout(now)).min();
        let expiry = self.peers.iter().filter_map(Peer::expires_at).chain(self.silence_due()).min();
        let expiry = expiry.map(|at| at.max(self.next_sweep));
        [peers, expiry, self.splice.flows.poll_timeout()].into_iter().flatten().min()
    }

    /// Everything there is to know.
    pub fn status(&self, now: Instant) -> ServerStatus {
        let mut injected = Injected::default();
        self.peers.iter().for_each(|peer| injected += peer.injected);
        ServerStatus {
            peers: self.peers.iter().map(|peer| peer.status(now)).collect(),
            injected,
            listener: self.listener.stats(),
            flows: self.splice.flows.stats(),
            drops: ServerDrops {
                unrouted: self.drops.unrouted + self.splice.stats().unrouted,
                flow_share: self.splice.stats().limited,
                tun_full: self.tun.dropped(),
                outbox_full: self.outbox.dropped(),
                ..self.drops
            },
        }
    }

    /// At most `most` of all flows, those of each peer with a session under its name.
    pub fn flows(&self, mut most: usize, now: Instant) -> Vec<(String, FlowList)> {
        let mux = |peer: usize| self.peers[peer].session.as_ref().map(|session| &session.engine.mux);
        let theirs = (0..self.peers.len())
            .map(|peer| Some(FlowList::of_peers_streams(mux(peer)?, Side::Server, &mut most, now)));
        let mut lists: Vec<_> = theirs.collect();
        self.splice.describe(mux, Side::Server, now, |peer, flow| {
            lists[peer].get_or_insert_default().push(flow, &mut most);
        });
        let named = |(peer, list): (&Peer, Option<FlowList>)| Some((peer.settings.name.clone(), list?));
        self.peers.iter().zip(lists).filter_map(named).collect()
    }

    /// What it holds now.
    pub fn load(&self) -> ServerLoad {
        let mut load = ServerLoad {
            indexes: self.by_index.len(),
            tun: self.tun.len(),
            outbox: self.outbox.len(),
            events: self.events.len(),
            flows: self.splice.flows.stats().flows,
            flow_memory: self.splice.flows.stats().memory,
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

    /// The host's own addresses changed: the egress policy denies them, as it does those of the tunnel.
    pub fn set_own_addresses(&mut self, addresses: Vec<IpNetwork>) {
        let tunnel = self.settings.addresses.iter().copied().map(IpNetwork::from);
        self.settings.egress.set_own(addresses.into_iter().chain(tunnel));
    }

    /// A packet that names no index of ours.
    fn handle_stranger(&mut self, segment: &Segment, packet: &[u8], now: Instant) {
        let live = self.by_tuple.get(&tuple(segment)).copied();
        let in_use = live.filter(|&id| self.peers[id].is_in_use(segment));
        if let Some(id) = in_use {
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
            // Acknowledgements of the client's kernel or ours, and what was counted above.
            ListenerAction::Drop(_) if in_use.is_some() => {}
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
        let (before, off_window) = (carrier.link.tuple(), carrier.link.connection().stats().off_window);
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
        let off_window = carrier.link.connection().stats().off_window - off_window;
        self.peers[id].off_window += off_window;
        if !confirmed && self.peers[id].confirm(header.index, self.engine_settings, &mut self.allotment, now)
        {
            self.abandon(id, now);
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
        self.pump(now);
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
                self.end_session(id, now);
            }
            Frame::Left => {
                if peer.leave(index, now) {
                    self.end_session(id, now);
                }
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
        if let Err(violation) = session.engine.handle_kcp(body, now) {
            tracing::info!(peer = %peer.settings.name, %violation, "its session is closed for a breach of protocol");
            self.drops.protocol += 1;
            peer.close_carriers(CloseCode::Protocol);
            self.end_session(id, now);
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
        // Clients may ping us, and answer when we ping them or send to a port where nobody listens.
        let is_about_ours = icmp::quoted(inner, &header)
            .is_some_and(|(source, destination)| source == header.destination && peer.owns(destination));
        let to_us = self.settings.addresses.contains(&header.destination);
        let is_ping = to_us && (header.is_echo(inner) || is_about_ours);
        if is_ping || self.settings.egress.allows(header.destination, header.destination_port(inner)) {
            self.tun.push(Some(inner.to_vec()));
        } else {
            self.drops.denied += 1;
        }
    }

    fn advance_epoch(&mut self, id: usize, epoch: u32, now: Instant) {
        if self.peers[id].advance_epoch(epoch, now) {
            self.abandon(id, now);
        }
    }

    /// Forgets a session and its carriers.
    fn end_session(&mut self, id: usize, now: Instant) {
        let peer = &mut self.peers[id];
        let Some(ended) = peer.session.take() else { return };
        self.allotment.give_back(ended.engine.buffer());
        tracing::info!(peer = %peer.settings.name, "its session has ended");
        peer.incarnation += 1;
        // Pending carriers that were to resume it have nothing to resume; those in use may still have a goodbye to say.
        peer.carriers.retain(|carrier| carrier.confirmed || carrier.session != ended.id);
        self.abandon(id, now);
    }

    /// The streams that a peer had are gone, whoever opened them.
    fn abandon(&mut self, id: usize, now: Instant) {
        let before = self.peers[id].incarnation;
        self.events.push_back(StreamEvent::Abandoned(Abandoned { peer: id, before }));
        self.splice.reset_peer(id, now);
    }

    /// MUX's next event in the shell's words. A denied target is answered here.
    ///
    /// Events are taken one at a time, because what a stream received stays readable only until its reset is taken.
    fn next_stream_event(&mut self, id: usize) -> Option<StreamEvent> {
        let peer = &mut self.peers[id];
        let incarnation = peer.incarnation;
        let session = peer.session.as_mut()?;
        let key = |stream| StreamKey { peer: id, incarnation, stream };
        while let Some(event) = session.engine.mux.poll_event_of(Opener::Peer) {
            return Some(match event {
                mux::Event::Open { id, target } => {
                    if !self.settings.egress.allows(target.ip(), Some(target.port())) {
                        self.drops.denied += 1;
                        session.engine.mux.reset(id, ResetCode::Denied);
                        continue;
                    }
                    session.streams_total += 1;
                    StreamEvent::Connect { stream: key(id), target }
                }
                mux::Event::Readable { id } => StreamEvent::Readable(key(id)),
                mux::Event::Writable { id } => StreamEvent::Writable(key(id)),
                mux::Event::Finished { id } => StreamEvent::Finished(key(id)),
                mux::Event::Reset { id, .. } => StreamEvent::Reset(key(id)),
                mux::Event::Opened { .. } | mux::Event::GoAway => continue,
            });
        }
        None
    }

    fn sweep(&mut self, now: Instant) {
        self.refuse_for_silence(now);
        for id in 0..self.peers.len() {
            let peer = &mut self.peers[id];
            peer.expire_carriers(now);
            peer.probes.expire(now);
            if peer.session.as_ref().is_some_and(|session| session.expires_at() <= now) {
                self.end_session(id, now);
            }
        }
        self.by_index.retain(|&index, &mut id| {
            let peer = &mut self.peers[id];
            peer.probes.has(index) || peer.carrier(index).is_some()
        });
        self.by_tuple.retain(|&tuple, &mut id| self.peers[id].has_live(tuple));
    }

    /// A peer may have something to send or to tell.
    fn touch(&mut self, id: usize) {
        self.attention.touch(id);
    }
}

impl Streams for Server {
    fn mux(&self, stream: StreamKey) -> Option<&Mux> {
        let peer = self.peers.get(stream.peer)?;
        let session = peer.session.as_ref().filter(|_| peer.incarnation == stream.incarnation)?;
        Some(&session.engine.mux)
    }

    fn mux_mut(&mut self, stream: StreamKey) -> Option<&mut Mux> {
        let peer = self.peers.get_mut(stream.peer)?;
        let session = peer.session.as_mut().filter(|_| peer.incarnation == stream.incarnation)?;
        self.attention.touch(stream.peer);
        Some(&mut session.engine.mux)
    }
}

/// Our end of a segment's 4-tuple, and the other.
fn tuple(segment: &Segment) -> (SocketAddr, SocketAddr) {
    (segment.destination, segment.source)
}

/// The first and, for IPv4, the last address of a network with room for more than two.
fn nobodys(network: IpNetwork) -> impl Iterator<Item = IpAddr> {
    let (is_large, is_v4) = match network {
        IpNetwork::V4(network) => (network.prefix() < 31, true),
        IpNetwork::V6(network) => (network.prefix() < 127, false),
    };
    let last = is_v4.then(|| network.broadcast());
    [Some(network.network()), last].into_iter().flatten().filter(move |_| is_large)
}

/// Our choice: ICMP errors to programs on this side (RFC 1812 §4.3.2.8 and RFC 4443 §2.4 (f) want a bound), as many as Linux sends
/// to all hosts (`net.ipv4.icmp_msgs_per_sec`).
const ERRORS: Rate = Rate::per_second(1000, 1000);

/// Our choice: how often silent carriers and sessions, and indexes without a carrier, are looked for at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Our choice: longer than the longest timer of connections that wait for an answer, smoltcp's retransmission timeout of 60 s, by
/// which an awake server looks at them.
const STOOD_STILL: Duration = Duration::from_secs(90);

/// Our choice: answers to strangers and handshakes that wait for the network.
const OUTBOX: usize = 1024;

/// Our choice: packets that wait for the TUN.
const TUN_QUEUE: usize = 4096;
