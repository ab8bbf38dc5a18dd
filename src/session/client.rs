//! The client's end of the tunnel: apps' packets in at one side, outer packets out at the other.
//!
//! ```text
//!  TUN ─> handle_tun ─┬─ TCP ─> flow ─> mux ─> kcp ─┐
//!                     └─ rest ─> datagram ──────────┴─> seal ─> fake TCP ─> poll_transmit
//!  network ─> handle_packet ─> fake TCP ─> open ─┬─ kcp ─> mux ─┬─> flow ─┐
//!                                                │              └─> what the server opens: poll_stream_event
//!                                                └─ datagram ─────────────┴─> poll_tun
//! ```
//!
//! Feed input with `handle_*` and the commands of [`Streams`]; then drain [`Client::poll_event`],
//! [`Client::poll_stream_event`], [`Client::poll_tun`] and [`Client::poll_transmit`]; then wait until
//! [`Client::poll_timeout`] or the next input.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::carriers::{Arrival, CarrierEvent, Carriers, Demand, Dropped, Grant, Settled};
use super::dial::{Caller, Reach};
use super::engine::{Engine, OUTER_HEADERS, Settings, TooBig};
use super::flow_list::{FlowList, Side};
use super::frame::{self, CloseCode, Frame, Frames};
use super::inbound::Inbound;
use super::load::{ClientLoad, SessionLoad};
use super::modes::{Memory, ModeRecord};
use super::outbox::Outbox;
use super::servers::ServerAddress;
use super::splice::{Connect, Only, Share, Splice};
use super::status::{ClientState, ClientStatus, SessionStatus};
use super::streams::{StreamEvent, StreamKey, Streams};
use crate::carrier::{self, Mode};
use crate::crypto::{
    Message2, OVERHEAD, PresharedKey, PrivateKey, PublicKey, Refusal, SessionId, SuiteSet, Timestamp,
};
use crate::flow::{self, FlowLimits, Flows};
use crate::kcp::CongestionKind;
use crate::mux::{self, Mux};
use crate::packet;

/// What a client is made with.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Ours.
    pub private_key: PrivateKey,
    /// The server's: whom we trust.
    pub server_key: PublicKey,
    /// Optional second secret; all zero when there is none.
    pub preshared_key: PresharedKey,
    /// How the carriers look; `None`: as what the client finds to work.
    pub mode: Option<Mode>,
    /// Cipher suites this machine offers.
    pub suites: SuiteSet,
    /// How KCP reacts to loss.
    pub congestion: CongestionKind,
    /// When an app's connect is answered.
    pub connect: Connect,
    /// Ports of our tunnel addresses that may be connected to from the server's side, by TCP.
    pub inbound: Vec<RangeInclusive<u16>>,
    /// Bound on what the session buffers, in bytes.
    pub session_buffer: usize,
    /// Bound on what all flows of the process buffer, in bytes.
    pub process_buffer: usize,
    /// How long nothing may make the round trip before every flow is given up.
    pub dead_after: Duration,
}

/// What the shell must do or may tell the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// Reserve a port towards `remote` and call [`Client::dial`], or [`Client::dial_failed`], with this number.
    Dial {
        /// Counts the dials of a session.
        attempt: u32,
        /// An address of a server.
        remote: SocketAddr,
    },
    /// A 4-tuple of ours is not used any more; its port is to stay guarded a while.
    Retired(SocketAddr),
    /// The tunnel carries packets; the server gave us these addresses and resolvers.
    Up {
        /// Ours, with the prefix lengths of the server's networks.
        addresses: Vec<IpNetwork>,
        /// Those the server names.
        dns: Vec<IpAddr>,
    },
    /// The carrier does not answer; another is being opened beside it.
    Suspect,
    /// Packets make the round trip again.
    Recovered,
    /// The server broke the protocol of streams; `Restarted` follows.
    Broken(mux::Violation),
    /// The server ended the session; another is begun.
    Closed(CloseCode),
    /// Every flow was reset: the other end does not know them any more, or too much time passed.
    Restarted,
    /// The session is over and will not be tried again.
    Ended(Ending),
}

/// Why a session will not be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The server answered with a refusal.
    Refused(Refusal),
    /// Message 2 opens neither under our pre-shared key nor under none.
    PresharedKeyDiffers,
    /// A newer session of the same key took our place.
    Replaced,
    /// The server, started anew, gives us other addresses than the host was set up with.
    Readdressed,
}

/// One client: the sans-IO whole of `vpn up`.
#[derive(Debug)]
pub struct Client {
    engine: Engine,
    splice: Splice,
    inbound: Inbound,
    carriers: Carriers,
    addresses: Vec<IpNetwork>,
    dns: Vec<IpAddr>,
    /// What the server gave us last, until a carrier that it holds for answers.
    granted: Option<Grant>,
    phase: Phase,
    dead_after: Duration,
    connect: Connect,
    /// When we last looked at anything.
    looked: Instant,
    /// When we last found that we had stood still …
    woken: Option<Instant>,
    /// … and until when a server that may know us yet is asked, at least.
    ask_until: Instant,
    tun: Outbox,
    events: VecDeque<ClientEvent>,
    drops: ClientDrops,
}

/// What brought a frame.
#[derive(Clone, Copy, Debug)]
struct Origin {
    /// The carrier's number.
    carrier: u32,
    /// Of the outer packet, in bytes.
    packet_len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Up,
    Closing,
    Ended,
}

/// Packets a client did not act on, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientDrops {
    /// Outer packets that are no TCP packet of ours.
    pub outer: u64,
    /// Outer packets on no 4-tuple of ours.
    pub stranger: u64,
    /// Outer packets on a carrier that ended, or after the end of the session.
    pub late: u64,
    /// Payloads whose index is not the carrier's.
    pub index: u64,
    /// Payloads that do not open, or opened before.
    pub sealed: u64,
    /// Opened packets whose frames do not parse.
    pub frame: u64,
    /// Inner packets that are no IP, or not to or from our addresses.
    pub inner: u64,
    /// Inner packets for which the TUN was too slow.
    pub tun_full: u64,
    /// Connections from the server's side to what is not allowed.
    pub denied: u64,
}

impl Client {
    /// A client that wants its first carrier as soon as it knows where a server is; `seed` must be random and secret.
    pub fn new(settings: ClientSettings, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let session = SessionId(rng.random());
        let engine_settings = Settings {
            role: mux::Role::Client,
            congestion: settings.congestion,
            buffer: settings.session_buffer,
            overhead: OUTER_HEADERS + OVERHEAD,
        };
        let memory = settings.process_buffer.saturating_sub(settings.session_buffer);
        let flows = Flows::new(FlowLimits { memory, ..FlowLimits::default() }, rng.random(), now);
        let caller = Caller {
            private_key: settings.private_key,
            server_key: settings.server_key,
            preshared_key: settings.preshared_key,
            suites: settings.suites,
            session,
            is_probe: false,
            keep: hours(settings.dead_after),
        };
        Self {
            engine: Engine::new(session, 0, engine_settings, now),
            splice: Splice::new(flows, Share { flows: usize::MAX, waiting: usize::MAX }),
            inbound: Inbound::new(settings.inbound),
            carriers: Carriers::new(caller, settings.mode, rng, now),
            addresses: Vec::new(),
            dns: Vec::new(),
            granted: None,
            phase: Phase::Connecting,
            dead_after: settings.dead_after,
            connect: settings.connect,
            looked: now,
            woken: None,
            ask_until: now,
            tun: Outbox::new(TUN_QUEUE),
            events: VecDeque::new(),
            drops: ClientDrops::default(),
        }
    }

    /// Takes the memory of flows' rings from `memory`, not from the allocator; to be said before the first flow.
    pub fn set_memory(&mut self, memory: Box<dyn flow::Memory>) {
        self.splice.flows.set_memory(memory);
    }

    /// Goes on from what earlier sessions learned: which mode won for which server in which network. Call it before
    /// [`Self::set_servers`].
    pub fn recall(&mut self, memory: Memory) {
        self.carriers.recall(memory);
    }

    /// The host is in this network now, whatever the caller names networks by.
    pub fn set_network(&mut self, network: &str) {
        self.carriers.set_network(network);
    }

    /// What is worth keeping for [`Self::recall`]; its version says when it has changed.
    pub fn memory(&self) -> &Memory {
        self.carriers.memory()
    }

    /// The modes in the order in which the next carriers would take them, and why.
    pub fn mode_ranking(&self) -> Vec<ModeRecord> {
        self.carriers.ranking()
    }

    /// From now on these are the addresses of each server of the list. All of one server's lead to the same sessions, and a
    /// carrier may move between them; another server is asked only when there are no flows to lose.
    pub fn set_servers<A: Into<ServerAddress>>(&mut self, servers: Vec<Vec<A>>, now: Instant) {
        let servers = servers.into_iter().map(|server| server.into_iter().map(Into::into).collect());
        self.carriers.set_servers(servers.collect());
        if self.is_running() {
            self.carriers.check_requests(now);
        }
        self.take_carrier_events();
    }

    /// The interface towards the server takes packets of at most `mtu` bytes, IP header included; to be said before a dial.
    pub fn set_mtu(&mut self, mtu: u16) {
        self.carriers.set_mtu(mtu);
    }

    /// Opens a carrier from `local`, whose port the shell guards, as [`ClientEvent::Dial`] asked; `wall` is the time of day.
    /// One that is not wanted any more is not opened.
    pub fn dial(&mut self, attempt: u32, local: SocketAddr, wall: Timestamp, now: Instant) {
        self.carriers.dial(attempt, local, wall, self.engine.epoch(), now);
        self.take_carrier_events();
    }

    /// No port, route or address for a dial: another is asked for later.
    pub fn dial_failed(&mut self, attempt: u32, now: Instant) {
        self.carriers.dial_failed(attempt, now);
    }

    /// Where the carrier in use leads to, if there is one.
    pub fn remote(&self) -> Option<SocketAddr> {
        self.carriers.remote()
    }

    /// The host's network changed (a link, an address, a route), and packets to [`Self::remote`] leave from `source` now, if they
    /// leave at all: whatever waits is tried at once.
    pub fn handle_network_change(&mut self, source: Option<IpAddr>, now: Instant) {
        if self.is_running() {
            if let Some(woken) = self.woken.filter(|_| source.is_some()) {
                self.ask_until = (now + ASK_AGAIN).min(woken + NETWORK_WITHIN);
            }
            self.carriers.handle_network_change(source, now);
            self.handle_timeout(now);
        }
    }

    /// Takes one outer IP packet.
    pub fn handle_packet(&mut self, packet: &mut [u8], now: Instant) {
        self.check_woken(now);
        let Ok(segment) = carrier::parse(packet) else {
            self.drops.outer += 1;
            return;
        };
        if !self.is_running() {
            self.drops.late += 1;
            self.carriers.handle_late(&segment, now);
            return;
        }
        match self.carriers.handle_segment(&segment, packet, now) {
            Arrival::Nothing => {}
            Arrival::Frames(carrier, plaintext) => {
                let origin = Origin { carrier, packet_len: segment.payload.end };
                self.handle_frames(plaintext, origin, now);
            }
            Arrival::Accepted(carrier, message) => self.on_accepted(carrier, message, now),
            Arrival::Answered(message) => self.on_answered(&message, now),
            Arrival::Dropped(reason) => self.on_dropped(reason),
        }
        self.pump(now);
        self.take_carrier_events();
    }

    /// Takes one IP packet from the TUN.
    pub fn handle_tun(&mut self, packet: &[u8], now: Instant) {
        let Ok(header) = packet::parse(packet) else {
            self.drops.inner += 1;
            return;
        };
        if !self.is_running() {
            // Apps are told at once that there is no tunnel; what has no way to be told is dropped.
            match flow::reset_for(packet) {
                Some(reset) => self.tun.push(Some(reset)),
                None => self.drops.inner += 1,
            }
        } else if header.protocol == packet::TCP {
            self.splice.flows.handle_packet(packet, now);
            self.pump(now);
        } else if !self.is_ours(header.source) {
            self.drops.inner += 1;
        } else if let Err(TooBig(mtu)) = self.engine.push_datagram(packet, &header, now) {
            self.tun.push(packet::too_big(packet, mtu, header.destination));
        } else {
            self.carriers.on_traffic();
        }
    }

    /// Runs what is due; call it when [`Self::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.check_woken(now);
        self.splice.flows.handle_timeout(now);
        self.pump(now);
        self.carriers.check_retired(now);
        if self.is_running() {
            self.carriers.handle_timeout(self.demand(), now);
            self.check_preshared_key(now);
            self.check_dead(now);
        }
        self.take_carrier_events();
    }

    /// Ends the session: tells the server, closes the carriers, opens no other. Drain [`Self::poll_transmit`] once more
    /// afterwards.
    pub fn close(&mut self, now: Instant) {
        self.carriers.close(CloseCode::Done, now);
        self.reset_flows(now);
        self.take_carrier_events();
        if self.phase != Phase::Ended {
            self.phase = Phase::Closing;
        }
    }

    /// Whether nothing more is to be expected after [`Self::close`]: the server's FIN was acknowledged. A program that ends before
    /// leaves its host's kernel to answer that FIN, with a RST.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.carriers.is_over()
    }

    /// Writes the next outer IP packet into `out`; `false` when there is none now.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        loop {
            if self.carriers.poll_transmit(&mut self.engine, out, now) {
                return true;
            }
            // What left made room in the streams for more.
            if !self.carriers.has_live() || !self.pump(now) {
                return self.carriers.poll_last_words(out, now);
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

    /// The next thing the shell must do or tell.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// The next thing the shell must do with its sockets.
    pub fn poll_stream_event(&mut self) -> Option<StreamEvent> {
        let Self { inbound, engine, addresses, phase, .. } = self;
        // Before that nobody knows our addresses: what is asked for waits in MUX.
        let mux = (*phase == Phase::Up).then_some(&mut engine.mux);
        inbound.poll_event(mux, |address| addresses.iter().any(|ours| ours.ip() == address))
    }

    /// When to call [`Self::handle_timeout`] and [`Self::poll_transmit`] if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = self.is_running().then(|| self.poll_own_timeout()).flatten();
        [own, self.carriers.poll_link_timeout(), self.splice.flows.poll_timeout()].into_iter().flatten().min()
    }

    /// When a dial, a ping, KCP or the end of patience is due.
    fn poll_own_timeout(&self) -> Option<Instant> {
        let carriers = self.carriers.poll_timeout(self.is_urgent());
        let engine = self.carriers.has_live().then(|| self.engine.poll_timeout()).flatten();
        let dead = self.dead_at();
        let probe = self.carriers.probe_due(self.engine.srtt());
        [carriers, probe, engine, dead].into_iter().flatten().min()
    }

    /// How far towards the server the dials came so far.
    pub fn reach(&self) -> Reach {
        self.carriers.reach()
    }

    /// Everything there is to know.
    pub fn status(&self, now: Instant) -> ClientStatus {
        let traffic = self.carriers.traffic();
        ClientStatus {
            state: self.state(),
            addresses: self.addresses.clone(),
            carriers: self.carriers.status(now),
            migrations: self.carriers.migrations().total(),
            why: self.carriers.migrations(),
            outside: self.carriers.outside(),
            session: SessionStatus::of(
                &self.engine,
                traffic,
                self.open_flows(),
                self.splice.stats().opened + self.inbound.total(),
            ),
            flows: self.splice.flows.stats(),
            drops: ClientDrops { tun_full: self.tun.dropped(), denied: self.inbound.denied(), ..self.drops },
        }
    }

    /// At most `most` of its flows.
    pub fn flows(&self, mut most: usize, now: Instant) -> FlowList {
        let mux = &self.engine.mux;
        let mut list = FlowList::of_peers_streams(mux, Side::Client, &mut most, now);
        self.splice.describe(|_| Some(mux), Side::Client, now, |_, flow| list.push(flow, &mut most));
        list
    }

    /// What it holds now.
    pub fn load(&self) -> ClientLoad {
        ClientLoad {
            session: SessionLoad::of(&self.engine),
            flows: self.splice.flows.stats().flows,
            flow_memory: self.splice.flows.stats().memory,
            carriers: self.carriers.count(),
            tun: self.tun.len(),
            events: self.events.len(),
        }
    }

    fn state(&self) -> ClientState {
        match self.phase {
            Phase::Connecting => ClientState::Connecting,
            Phase::Up if self.carriers.needs_carrier() => ClientState::Recovering,
            Phase::Up => ClientState::Up,
            Phase::Closing | Phase::Ended => ClientState::Ended,
        }
    }

    fn demand(&self) -> Demand {
        Demand { urgent: self.is_urgent(), unacked: self.engine.has_unacked(), epoch: self.engine.epoch() }
    }

    fn take_carrier_events(&mut self) {
        while let Some(event) = self.carriers.poll_event() {
            self.events.push_back(match event {
                CarrierEvent::Dial { attempt, remote } => ClientEvent::Dial { attempt, remote },
                CarrierEvent::Retired(local) => ClientEvent::Retired(local),
                CarrierEvent::Suspect => ClientEvent::Suspect,
                CarrierEvent::Recovered => ClientEvent::Recovered,
            });
        }
    }

    fn on_dropped(&mut self, reason: Dropped) {
        let counter = match reason {
            Dropped::Stranger => &mut self.drops.stranger,
            Dropped::Late => &mut self.drops.late,
            Dropped::Index => &mut self.drops.index,
            Dropped::Sealed => &mut self.drops.sealed,
        };
        *counter += 1;
    }

    fn on_accepted(&mut self, carrier: u32, message: Message2, now: Instant) {
        if let Message2::Fresh { epoch, addresses, dns, .. } = message {
            self.adopt_epoch(epoch, now);
            self.granted = Some(Grant { addresses, dns });
        }
        // A carrier that resumes stands for what one before it was given and never proved.
        if let Some(grant) = &self.granted {
            self.carriers.on_grant(carrier, grant.clone());
        }
        if self.carriers.is_used(carrier) {
            self.engine.on_path_restored(now);
        }
        self.carriers.ping(carrier, self.demand(), now);
    }

    /// A message 2 without keys: there will be no session, or only with another timestamp.
    fn on_answered(&mut self, message: &Message2, now: Instant) {
        match message {
            Message2::Refused { reason: Refusal::Replaced } => self.end(Ending::Replaced, now),
            Message2::Refused { reason } => self.end(Ending::Refused(*reason), now),
            Message2::Stale { above, .. } => self.carriers.on_stale(*above, now),
            Message2::Fresh { .. } | Message2::Resumed { .. } => {}
        }
    }

    fn handle_frames(&mut self, plaintext: &[u8], origin: Origin, now: Instant) {
        self.engine.on_heard(now);
        for frame in Frames::new(plaintext) {
            match frame {
                Ok(frame) => self.handle_frame(frame, origin, now),
                Err(_) => self.drops.frame += 1,
            }
        }
    }

    fn handle_frame(&mut self, frame: Frame<'_>, origin: Origin, now: Instant) {
        match frame {
            Frame::Kcp(body) => self.handle_kcp(body, origin, now),
            Frame::Datagram(inner) => self.handle_datagram(inner, origin, now),
            Frame::Fragment(piece) => {
                if let Some(whole) = self.engine.handle_fragment(piece, now) {
                    self.handle_whole(&whole, origin, now);
                }
            }
            Frame::Ping { token, .. } => self.carriers.on_ping(origin.carrier, token, origin.packet_len),
            Frame::Pong { token, .. } => self.on_pong(origin.carrier, token, now),
            Frame::Seen(counts) => self.carriers.on_seen(origin.carrier, counts, now),
            Frame::Epoch(epoch) => self.adopt_epoch(epoch, now),
            Frame::Close(code) if self.carriers.is_live(origin.carrier) => self.on_close(code, now),
            // Of another server's, perhaps, that lost the race: what carries on is not its to end.
            Frame::Close(_) => {}
            // Only the client chooses.
            Frame::Use { .. } | Frame::Left => self.drops.frame += 1,
        }
    }

    /// A frame that came in pieces.
    fn handle_whole(&mut self, frame: &[u8], origin: Origin, now: Instant) {
        match frame::whole(frame) {
            Some(Frame::Kcp(body)) => self.handle_kcp(body, origin, now),
            Some(Frame::Datagram(inner)) => self.handle_datagram(inner, origin, now),
            _ => self.drops.frame += 1,
        }
    }

    fn handle_kcp(&mut self, body: &[u8], Origin { carrier, packet_len }: Origin, now: Instant) {
        let before = self.engine.acknowledged();
        if let Err(violation) = self.engine.handle_kcp(body, now) {
            self.events.push_back(ClientEvent::Broken(violation));
            self.restart(self.engine.epoch().saturating_add(1), now);
        }
        let acknowledged = self.engine.acknowledged() != before;
        self.carriers.on_inflow(carrier, packet_len, now);
        if self.carriers.on_kcp(carrier, acknowledged, self.engine.has_unacked(), now) {
            self.settle(carrier, now);
        }
    }

    fn handle_datagram(&mut self, inner: &[u8], Origin { carrier, packet_len }: Origin, now: Instant) {
        self.carriers.on_inflow(carrier, packet_len, now);
        match packet::parse(inner) {
            // TCP comes in streams, or it would pass by what says which of them are let in.
            Ok(header) if self.is_ours(header.destination) && header.protocol != packet::TCP => {
                self.tun.push(Some(inner.to_vec()));
            }
            _ => self.drops.inner += 1,
        }
    }

    fn on_pong(&mut self, carrier: u32, token: u64, now: Instant) {
        if !self.carriers.on_pong(carrier, token, now) {
            return;
        }
        if let Some(grant) = self.carriers.take_grant(carrier) {
            self.granted = None;
            let is_changed = self.addresses != grant.addresses;
            (self.addresses, self.dns) = (grant.addresses, grant.dns);
            if is_changed && self.phase == Phase::Up {
                return self.end(Ending::Readdressed, now);
            }
        }
        self.settle(carrier, now);
        if self.phase == Phase::Connecting {
            self.phase = Phase::Up;
            // The first epoch is agreed on: no connect is undone by it any more.
            self.splice.set_connect(self.connect);
            let (addresses, dns) = (self.addresses.clone(), self.dns.clone());
            self.events.push_back(ClientEvent::Up { addresses, dns });
        }
    }

    /// The carrier answers: no other is needed.
    fn settle(&mut self, carrier: u32, now: Instant) {
        let settled = self.carriers.settle(carrier, now);
        if settled == Settled::Recovered {
            self.engine.on_path_restored(now);
        }
        if settled != Settled::AsBefore {
            self.carriers.ping(carrier, self.demand(), now);
        }
    }

    fn on_close(&mut self, code: CloseCode, now: Instant) {
        if code == CloseCode::Replaced {
            return self.end(Ending::Replaced, now);
        }
        self.events.push_back(ClientEvent::Closed(code));
        // The server goes away, perhaps to restart: look for it again.
        self.carriers.on_goodbye(now);
    }

    fn adopt_epoch(&mut self, epoch: u32, now: Instant) {
        if epoch > self.engine.epoch() {
            self.restart(epoch, now);
        }
    }

    /// The second layer of keepalive: every flow is reset and a new epoch begins.
    fn restart(&mut self, epoch: u32, now: Instant) {
        let first = self.engine.epoch() == 0;
        self.engine.restart(epoch, now);
        self.reset_flows(now);
        if !first {
            self.events.push_back(ClientEvent::Restarted);
        }
    }

    /// Every answer opened under another key: told when nothing better came for a dial's time.
    fn check_preshared_key(&mut self, now: Instant) {
        if self.phase == Phase::Connecting && self.carriers.past_reach() == Reach::PresharedKeyDiffers {
            self.end(Ending::PresharedKeyDiffers, now);
        }
    }

    /// The second layer of keepalive: an outage this long is not waited for.
    fn check_dead(&mut self, now: Instant) {
        if self.dead_at().is_some_and(|at| at <= now) {
            self.woken = None;
            self.carriers.on_given_up(now);
            self.restart(self.engine.epoch().saturating_add(1), now);
        }
    }

    /// When an outage is not waited for any more. Who stood still meanwhile asks first: the server may know us yet, and the
    /// host may have to find its network again.
    fn dead_at(&self) -> Option<Instant> {
        Some(self.ask_until.max(self.carriers.outage()? + self.dead_after))
    }

    /// An awake client looks at something more often than it stood still now.
    fn check_woken(&mut self, now: Instant) {
        let unseen = now.saturating_duration_since(self.looked);
        if unseen >= STOOD_STILL {
            self.woken = Some(now);
            self.ask_until = now + NETWORK_WITHIN;
            self.splice.flows.on_stood_still(unseen, now);
            self.carriers.on_woken(now);
        }
        self.looked = now;
    }

    fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Up)
    }

    /// Whether someone waits for the path: then pings go on at full pace through an outage.
    fn is_urgent(&self) -> bool {
        self.phase == Phase::Connecting || self.open_flows() > 0
    }

    /// Of both ends.
    fn open_flows(&self) -> usize {
        let inbound = if self.is_running() { self.engine.mux.stats().streams_of_peer } else { 0 };
        self.splice.open() + inbound
    }

    /// Passes on what happened between apps and streams; whether anything did.
    fn pump(&mut self, now: Instant) -> bool {
        self.splice.pump(&mut Only(&mut self.engine.mux), now)
    }

    /// What was opened from either side is no more.
    fn reset_flows(&mut self, now: Instant) {
        self.splice.reset_all(now);
        self.inbound.abandon();
    }

    /// Over for good: apps learn it now, and whoever connects later at once.
    fn end(&mut self, ending: Ending, now: Instant) {
        // The other end says goodbye more than once.
        if self.phase == Phase::Ended {
            return;
        }
        // What was asked for before comes before.
        self.take_carrier_events();
        self.carriers.abandon(now);
        self.reset_flows(now);
        self.phase = Phase::Ended;
        self.events.push_back(ClientEvent::Ended(ending));
    }

    fn is_ours(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|ours| ours.ip() == address)
    }
}

impl Streams for Client {
    fn mux(&self, stream: StreamKey) -> Option<&Mux> {
        self.inbound.has(stream).then_some(&self.engine.mux)
    }

    fn mux_mut(&mut self, stream: StreamKey) -> Option<&mut Mux> {
        self.inbound.has(stream).then_some(&mut self.engine.mux)
    }
}

/// Whole hours that are at least this long, as message 1 says them.
fn hours(time: Duration) -> u8 {
    u8::try_from(time.as_secs().div_ceil(3600)).unwrap_or(u8::MAX)
}

/// Our choice: longer than the longest time between two pings.
const STOOD_STILL: Duration = Duration::from_secs(30);

/// Our choice: several dials' time, from when there is a way to the server.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// Our choice: within which a host that wakes has found its Wi-Fi and an address there, or will not soon.
const NETWORK_WITHIN: Duration = Duration::from_secs(60);

/// Our choice: packets that wait for the TUN.
const TUN_QUEUE: usize = 1024;

#[cfg(test)]
mod tests;
