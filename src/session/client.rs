//! The client's end of the tunnel: apps' packets in at one side, outer packets out at the other.
//!
//! ```text
//!  TUN ─> handle_tun ─┬─ TCP ─> flow ─> mux ─> kcp ─┐
//!                     └─ rest ─> datagram ──────────┴─> seal ─> fake TCP ─> poll_transmit
//!  network ─> handle_packet ─> fake TCP ─> open ─┬─ kcp ─> mux ─> flow ─┐
//!                                                └─ datagram ───────────┴─> poll_tun
//! ```
//!
//! Feed input with `handle_*`; then drain [`Client::poll_event`], [`Client::poll_tun`] and
//! [`Client::poll_transmit`]; then wait until [`Client::poll_timeout`] or the next input.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::dial::{Dial, Progress, Reach};
use super::dialing::Dialing;
use super::engine::{DATAGRAM_MAX, DATAGRAM_MTU, Engine, OUTER_HEADERS, PLAINTEXT, Settings};
use super::frame::{self, CloseCode, Frame, Frames};
use super::link::Link;
use super::liveness::Liveness;
use super::load::{ClientLoad, SessionLoad};
use super::outbox::Outbox;
use super::splice::Splice;
use super::status::{CarrierStatus, ClientState, ClientStatus, SessionStatus, Traffic};
use crate::carrier::{self, Connection, DropReason, Mode};
use crate::crypto::{
    Initiator, Keys, Mask, Message1, Message2, OVERHEAD, PresharedKey, PrivateKey, PublicKey, Refusal,
    SessionId, SuiteSet, Timestamp, VERSION,
};
use crate::flow::{self, FlowLimits, Flows};
use crate::kcp::CongestionKind;
use crate::mux;
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
    /// How the carrier behaves.
    pub mode: Mode,
    /// Cipher suites this machine offers.
    pub suites: SuiteSet,
    /// How KCP reacts to loss.
    pub congestion: CongestionKind,
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
    /// Reserve a port towards the server and call [`Client::dial`], or [`Client::dial_failed`].
    Dial,
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
    settings: ClientSettings,
    mask: Mask,
    rng: StdRng,
    session: SessionId,
    engine: Engine,
    splice: Splice,
    dialing: Dialing,
    active: Option<Active>,
    retired: VecDeque<Retired>,
    carriers: u32,
    addresses: Vec<IpNetwork>,
    dns: Vec<IpAddr>,
    phase: Phase,
    /// Since when nothing makes the round trip, once that was noticed.
    outage: Option<Instant>,
    migrations: u64,
    traffic: Traffic,
    /// What connections saw that are no more.
    outside: carrier::Stats,
    tun: Outbox,
    events: VecDeque<ClientEvent>,
    drops: ClientDrops,
}

/// The carrier in use.
#[derive(Debug)]
struct Active {
    link: Link,
    liveness: Liveness,
}

/// A carrier that was in use: while the session lasts it opens what is still on its way; then it ends with a FIN.
#[derive(Debug)]
struct Retired {
    link: Link,
    until: Instant,
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
}

impl Client {
    /// A client that wants its first carrier at once; `seed` must be random and secret.
    pub fn new(settings: ClientSettings, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = StdRng::from_seed(seed);
        let session = SessionId(rng.random());
        // The first dial is asked for here, and not by the first timeout too.
        let mut dialing = Dialing::new(now);
        dialing.wanted = true;
        let engine_settings = Settings {
            role: mux::Role::Client,
            congestion: settings.congestion,
            buffer: settings.session_buffer,
            overhead: OUTER_HEADERS + OVERHEAD,
        };
        let flows = Flows::new(
            flow_limits(settings.process_buffer.saturating_sub(settings.session_buffer)),
            rng.random(),
            now,
        );
        Self {
            mask: Mask::new(&settings.server_key),
            session,
            engine: Engine::new(session, 0, engine_settings, now),
            splice: Splice::new(flows),
            dialing,
            active: None,
            retired: VecDeque::new(),
            carriers: 0,
            addresses: Vec::new(),
            dns: Vec::new(),
            phase: Phase::Connecting,
            outage: None,
            migrations: 0,
            traffic: Traffic::default(),
            outside: carrier::Stats::default(),
            tun: Outbox::new(TUN_QUEUE),
            events: VecDeque::from([ClientEvent::Dial]),
            drops: ClientDrops::default(),
            rng,
            settings,
        }
    }

    /// Opens a carrier from `local`, whose port the shell guards, to `remote`; `wall` is the time of day. A session that
    /// ended meanwhile opens none.
    pub fn dial(&mut self, local: SocketAddr, remote: SocketAddr, wall: Timestamp, now: Instant) {
        if !self.is_running() {
            return self.events.push_back(ClientEvent::Retired(local));
        }
        self.carriers += 1;
        let isn = self.rng.random();
        let index = self.fresh_index();
        let message = Message1 {
            version: VERSION,
            mode: self.settings.mode.to_wire(),
            timestamp: self.dialing.timestamp(wall),
            index,
            session: self.session,
            epoch: self.engine.epoch(),
            suites: self.settings.suites,
            carrier: self.carriers,
            keep: hours(self.settings.dead_after),
        };
        let initiation = Initiator::new(
            &self.settings.private_key,
            &self.settings.server_key,
            &self.settings.preshared_key,
            &message,
            PLAINTEXT + OVERHEAD,
            &mut self.rng,
        );
        let connection = Connection::connect(local, remote, self.settings.mode, isn, now);
        let (Ok(initiation), Ok(connection)) = (initiation, connection) else {
            self.events.push_back(ClientEvent::Retired(local));
            return self.dialing.on_failure(now);
        };
        let lifetime = self.dialing.lifetime();
        let dial = Dial::new(self.carriers, index, connection, initiation, lifetime, now);
        self.dialing.dial = Some(dial);
        self.dialing.wanted = false;
    }

    /// No port, route or address for a dial: it is asked for again later.
    pub fn dial_failed(&mut self, now: Instant) {
        self.dialing.on_failure(now);
    }

    /// Takes one outer IP packet.
    pub fn handle_packet(&mut self, packet: &mut [u8], now: Instant) {
        let Ok(segment) = carrier::parse(packet) else {
            self.drops.outer += 1;
            return;
        };
        if !self.is_running() {
            self.drops.late += 1;
            return;
        }
        if self.dialing.dial.as_ref().is_some_and(|dial| dial.is_from(&segment)) {
            self.handle_dial(&segment, packet, now);
        } else {
            self.handle_data(&segment, packet, now);
        }
        self.splice.pump(&mut self.engine.mux, now);
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
            self.splice.pump(&mut self.engine.mux, now);
        } else if !self.is_ours(header.source) {
            self.drops.inner += 1;
        } else if packet.len() > DATAGRAM_MAX {
            self.tun.push(packet::too_big(packet, DATAGRAM_MTU, header.destination));
        } else {
            self.engine.datagrams.push(packet.to_vec(), now);
            if let Some(active) = &mut self.active {
                active.liveness.on_traffic();
            }
        }
    }

    /// Runs what is due; call it when [`Self::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.splice.flows.handle_timeout(now);
        self.splice.pump(&mut self.engine.mux, now);
        self.check_retired(now);
        if !self.is_running() {
            return;
        }
        self.check_active(now);
        self.check_dial(now);
        self.check_dead(now);
    }

    /// Ends the session: tells the server, closes the carriers, opens no other. Drain [`Self::poll_transmit`] once more
    /// afterwards.
    pub fn close(&mut self, now: Instant) {
        self.drop_dial();
        self.splice.reset_all(now);
        if let Some(active) = &mut self.active {
            active.link.say_goodbye(CloseCode::Done);
        }
        self.retired.iter_mut().for_each(|retired| retired.link.close());
        if self.phase != Phase::Ended {
            self.phase = Phase::Closing;
        }
    }

    /// Writes the next outer IP packet into `out`; `false` when there is none now.
    pub fn poll_transmit(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        if let Some(dial) = &mut self.dialing.dial
            && dial.poll_transmit(out, now)
        {
            return true;
        }
        while let Some(active) = &mut self.active {
            if active.poll_transmit(&mut self.engine, out, now) {
                self.traffic.on_sent(out);
                return true;
            }
            active.liveness.on_unacked(self.engine.has_unacked(), now);
            // What left made room in the streams for more.
            if !self.splice.pump(&mut self.engine.mux, now) {
                break;
            }
        }
        self.retired.iter_mut().any(|retired| retired.link.poll_ack(out, now))
    }

    /// The next IP packet for the TUN.
    pub fn poll_tun(&mut self, now: Instant) -> Option<Vec<u8>> {
        loop {
            let packet = self.tun.pop().or_else(|| self.splice.flows.poll_packet(now));
            // Making packets is how flows find out what happened to them.
            if packet.is_some() || !self.splice.pump(&mut self.engine.mux, now) {
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

    /// When to call [`Self::handle_timeout`] and [`Self::poll_transmit`] if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = self.is_running().then(|| self.poll_own_timeout()).flatten();
        let active = self.active.as_ref();
        let carrier = active.and_then(|active| active.link.poll_timeout());
        let engine = active.filter(|_| self.is_running()).and_then(|_| self.engine.poll_timeout());
        let retired = self.retired.iter().filter(|retired| !retired.link.is_closing());
        let retired = retired.map(|retired| retired.until).min();
        [own, carrier, engine, self.splice.flows.poll_timeout(), retired].into_iter().flatten().min()
    }

    /// When a dial, a ping or the end of patience is due.
    fn poll_own_timeout(&self) -> Option<Instant> {
        let dialing = self.dialing.poll_timeout(self.needs_carrier());
        let ping = self.active.as_ref().map(|active| active.liveness.ping_due(self.is_urgent()));
        let suspect = self.active.as_ref().filter(|_| self.outage.is_none());
        let suspect = suspect.and_then(|active| active.liveness.suspect_at());
        let dead = self.outage.map(|since| since + self.settings.dead_after);
        [dialing, ping, suspect, dead].into_iter().flatten().min()
    }

    /// How far towards the server the dials came so far.
    pub fn reach(&self) -> Reach {
        self.dialing.dial.as_ref().map_or(Reach::None, Dial::reach).max(self.dialing.reach)
    }

    /// Everything there is to know.
    pub fn status(&self, now: Instant) -> ClientStatus {
        let carriers =
            self.active.iter().map(|active| CarrierStatus::of(&active.link, active.liveness.srtt(), now));
        ClientStatus {
            state: self.state(),
            addresses: self.addresses.clone(),
            carriers: carriers.collect(),
            migrations: self.migrations,
            outside: self.outside(),
            session: SessionStatus::of(&self.engine, self.traffic, self.splice.open(), self.splice.total()),
            drops: ClientDrops { tun_full: self.tun.dropped(), ..self.drops },
        }
    }

    /// What it holds now.
    pub fn load(&self) -> ClientLoad {
        ClientLoad {
            session: SessionLoad::of(&self.engine),
            flows: self.splice.flows.stats().flows,
            carriers: usize::from(self.active.is_some())
                + self.retired.len()
                + usize::from(self.dialing.dial.is_some()),
            tun: self.tun.len(),
            events: self.events.len(),
        }
    }

    /// What every connection saw of the outside so far.
    fn outside(&self) -> carrier::Stats {
        let mut total = self.outside;
        let active = self.active.iter().map(|active| active.link.connection());
        let retired = self.retired.iter().map(|retired| retired.link.connection());
        let dialing = self.dialing.dial.iter().map(Dial::connection);
        active.chain(retired).chain(dialing).for_each(|connection| total += connection.stats());
        total
    }

    fn state(&self) -> ClientState {
        match self.phase {
            Phase::Connecting => ClientState::Connecting,
            Phase::Up if self.needs_carrier() => ClientState::Recovering,
            Phase::Up => ClientState::Up,
            Phase::Closing | Phase::Ended => ClientState::Ended,
        }
    }

    fn handle_dial(&mut self, segment: &carrier::Segment, packet: &mut [u8], now: Instant) {
        let Some(dial) = &mut self.dialing.dial else { return };
        match dial.handle_segment(segment, packet, now) {
            Progress::Pending => {}
            Progress::Accepted { message, keys, rtt } => self.on_accepted(message, *keys, rtt, now),
            Progress::Answered(message) => self.on_answered(&message, now),
            Progress::Rejected => self.drops.sealed += 1,
        }
    }

    fn on_accepted(&mut self, message: Message2, keys: Keys, rtt: Duration, now: Instant) {
        let Some(dial) = self.dialing.dial.take() else { return };
        let link = dial.into_link(keys, now);
        self.dialing.on_accepted(now);
        if let Message2::Fresh { epoch, addresses, dns, .. } = message {
            self.adopt_epoch(epoch, now);
            let changed = self.addresses != addresses;
            (self.addresses, self.dns) = (addresses, dns);
            if changed && self.phase == Phase::Up {
                self.retire(link, now);
                return self.end(Ending::Readdressed, now);
            }
        }
        if self.phase == Phase::Up {
            self.migrations += 1;
        }
        if let Some(old) = self.active.replace(Active { link, liveness: Liveness::new(rtt, now) }) {
            self.retire(old.link, now);
        }
        // Only what is sealed with the new keys proves that data passes: see `settle`.
        self.engine.on_path_restored(now);
        self.ping(now);
    }

    /// A message 2 without keys: there will be no session, or only with another timestamp.
    fn on_answered(&mut self, message: &Message2, now: Instant) {
        match message {
            Message2::Refused { reason: Refusal::Replaced } => self.end(Ending::Replaced, now),
            Message2::Refused { reason } => self.end(Ending::Refused(*reason), now),
            Message2::Stale { above, .. } => {
                self.drop_dial();
                self.dialing.on_stale(*above, now);
            }
            Message2::Fresh { .. } | Message2::Resumed { .. } => {}
        }
    }

    fn handle_data(&mut self, segment: &carrier::Segment, packet: &mut [u8], now: Instant) {
        let active = self.active.as_mut().map(|active| &mut active.link);
        let mut links = active.into_iter().chain(self.retired.iter_mut().map(|retired| &mut retired.link));
        let Some(link) = links.find(|link| link.is_from(segment)) else {
            self.drops.stranger += 1;
            return;
        };
        match link.connection_mut().handle_segment(segment, now) {
            carrier::Input::Payload => {}
            carrier::Input::Ignored(DropReason::Closed) => {
                self.drops.late += 1;
                return;
            }
            // Counted by the connection.
            carrier::Input::Acknowledgement
            | carrier::Input::Established
            | carrier::Input::ResetSeen
            | carrier::Input::FinSeen
            | carrier::Input::Ignored(_) => return,
        }
        let Some(payload) = packet.get_mut(segment.payload.clone()) else { return };
        let Some(header) = self.mask.header(payload).filter(|header| header.index == link.index()) else {
            self.drops.index += 1;
            return;
        };
        match link.open(segment, header, payload, now) {
            Ok(opened) => {
                self.traffic.on_received(segment.payload.end);
                let is_active = self.active.as_ref().is_some_and(|active| active.link.is_from(segment));
                self.handle_frames(opened.plaintext, is_active, now);
            }
            Err(_) => self.drops.sealed += 1,
        }
    }

    fn handle_frames(&mut self, plaintext: &[u8], is_active: bool, now: Instant) {
        self.engine.on_heard(now);
        for frame in Frames::new(plaintext) {
            match frame {
                Ok(frame) => self.handle_frame(frame, is_active, now),
                Err(_) => self.drops.frame += 1,
            }
        }
    }

    fn handle_frame(&mut self, frame: Frame<'_>, is_active: bool, now: Instant) {
        match frame {
            Frame::Kcp(body) => self.handle_kcp(body, is_active, now),
            Frame::Datagram(inner) => self.handle_datagram(inner),
            Frame::Pong { token, .. } => self.on_pong(token, now),
            Frame::Epoch(epoch) => self.adopt_epoch(epoch, now),
            Frame::Close(code) => self.on_close(code, now),
            // Only the client asks and chooses.
            Frame::Ping { .. } | Frame::Use { .. } => self.drops.frame += 1,
        }
    }

    fn handle_kcp(&mut self, body: &[u8], is_active: bool, now: Instant) {
        let acknowledged = self.engine.acknowledged();
        if self.engine.handle_kcp(body, now).is_err() {
            self.restart(self.engine.epoch().saturating_add(1), now);
        }
        let Some(active) = &mut self.active else { return };
        active.liveness.on_traffic();
        // On an old carrier an answer proves nothing of the one in use.
        if is_active && self.engine.acknowledged() != acknowledged {
            active.liveness.on_acknowledged(now);
        }
        active.liveness.on_unacked(self.engine.has_unacked(), now);
        if active.liveness.waiting_since().is_none() {
            self.settle(now);
        }
    }

    fn handle_datagram(&mut self, inner: &[u8]) {
        if let Some(active) = &mut self.active {
            active.liveness.on_traffic();
        }
        match packet::parse(inner) {
            Ok(header) if self.is_ours(header.destination) => self.tun.push(Some(inner.to_vec())),
            _ => self.drops.inner += 1,
        }
    }

    fn on_pong(&mut self, token: u64, now: Instant) {
        let Some(active) = &mut self.active else { return };
        if !active.liveness.on_pong(token, now) {
            return;
        }
        self.settle(now);
        if self.phase == Phase::Connecting {
            self.phase = Phase::Up;
            let (addresses, dns) = (self.addresses.clone(), self.dns.clone());
            self.events.push_back(ClientEvent::Up { addresses, dns });
        }
    }

    /// The carrier in use answers: no other is needed.
    fn settle(&mut self, now: Instant) {
        if self.outage.take().is_some() {
            self.engine.on_path_restored(now);
            self.events.push_back(ClientEvent::Recovered);
        }
        if self.dialing.failures() > 0 || self.dialing.dial.is_some() {
            self.drop_dial();
            self.dialing = Dialing::new(now);
        }
    }

    fn on_close(&mut self, code: CloseCode, now: Instant) {
        if code == CloseCode::Replaced {
            return self.end(Ending::Replaced, now);
        }
        // The server goes away, perhaps to restart: look for it again.
        if let Some(active) = self.active.take() {
            self.retire(active.link, now);
            self.on_outage(now);
        }
    }

    fn on_outage(&mut self, since: Instant) {
        if self.outage.is_none() {
            self.outage = Some(since);
            self.events.push_back(ClientEvent::Suspect);
        }
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
        self.splice.reset_all(now);
        if !first {
            self.events.push_back(ClientEvent::Restarted);
        }
    }

    fn check_active(&mut self, now: Instant) {
        let urgent = self.is_urgent();
        let token = self.rng.random();
        let unacked = self.engine.has_unacked();
        let Some(active) = &mut self.active else { return };
        active.liveness.on_unacked(unacked, now);
        let ping = active.liveness.poll_ping(urgent, token, now);
        let suspect = active.liveness.waiting_since().filter(|_| active.liveness.is_suspect(now));
        if let Some(token) = ping {
            self.queue_ping(token);
        }
        if let Some(since) = suspect {
            self.on_outage(since);
        }
    }

    fn check_dial(&mut self, now: Instant) {
        if self.dialing.dial.as_ref().is_some_and(|dial| dial.deadline() <= now) {
            self.drop_dial();
            self.dialing.on_failure(now);
            if self.phase == Phase::Connecting && self.dialing.reach == Reach::PresharedKeyDiffers {
                return self.end(Ending::PresharedKeyDiffers, now);
            }
        }
        let idle = self.dialing.dial.is_none() && !self.dialing.wanted;
        if idle && self.needs_carrier() && self.dialing.next <= now {
            self.dialing.wanted = true;
            self.events.push_back(ClientEvent::Dial);
        }
    }

    /// The second layer of keepalive: an outage this long is not waited for.
    fn check_dead(&mut self, now: Instant) {
        let dead_after = self.settings.dead_after;
        if self.outage.is_some_and(|since| now.saturating_duration_since(since) >= dead_after) {
            self.outage = Some(now);
            self.restart(self.engine.epoch().saturating_add(1), now);
        }
    }

    fn check_retired(&mut self, now: Instant) {
        for retired in self.retired.iter_mut().filter(|retired| retired.until <= now) {
            retired.link.close();
        }
        let is_done = |retired: &Retired| retired.link.is_closed();
        while self.retired.front().is_some_and(is_done) || self.retired.len() > RETIRED_MAX {
            if let Some(retired) = self.retired.pop_front() {
                self.outside += retired.link.connection().stats();
                self.events.push_back(ClientEvent::Retired(retired.link.connection().local()));
            }
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Up)
    }

    fn needs_carrier(&self) -> bool {
        self.active.is_none() || self.outage.is_some()
    }

    /// Whether someone waits for the path: then pings go on at full pace through an outage.
    fn is_urgent(&self) -> bool {
        self.phase == Phase::Connecting || self.splice.open() > 0
    }

    fn ping(&mut self, now: Instant) {
        let token = self.rng.random();
        let urgent = self.is_urgent();
        if let Some(active) = &mut self.active {
            active.liveness.ask_now(now);
            if let Some(token) = active.liveness.poll_ping(urgent, token, now) {
                self.queue_ping(token);
            }
        }
    }

    /// A ping says at once which carrier is in use and in which epoch we are, so neither needs an answer of its own.
    fn queue_ping(&mut self, token: u64) {
        let epoch = self.engine.epoch();
        let Some(active) = &mut self.active else { return };
        let number = active.link.number();
        active.link.queue(|out| {
            frame::put_use(out, number, number);
            frame::put_epoch(out, epoch);
            frame::put_ping(out, token, 0);
        });
    }

    fn retire(&mut self, link: Link, now: Instant) {
        self.retired.push_back(Retired { link, until: now + RETIRED_FOR });
        self.check_retired(now);
    }

    fn drop_dial(&mut self) {
        if let Some(dial) = self.dialing.dial.take() {
            self.dialing.reach = self.dialing.reach.max(dial.reach());
            self.outside += dial.connection().stats();
            self.events.push_back(ClientEvent::Retired(dial.connection().local()));
        }
    }

    /// Over for good: apps learn it now, and whoever connects later at once.
    fn end(&mut self, ending: Ending, now: Instant) {
        // The other end says goodbye more than once.
        if self.phase == Phase::Ended {
            return;
        }
        self.drop_dial();
        self.splice.reset_all(now);
        if let Some(active) = self.active.take() {
            self.retire(active.link, now);
        }
        self.phase = Phase::Ended;
        self.events.push_back(ClientEvent::Ended(ending));
    }

    fn is_ours(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|ours| ours.ip() == address)
    }

    fn fresh_index(&mut self) -> u32 {
        loop {
            let index = self.rng.random();
            let active = self.active.iter().map(|active| active.link.index());
            let retired = self.retired.iter().map(|retired| retired.link.index());
            if index != 0 && active.chain(retired).all(|taken| taken != index) {
                return index;
            }
        }
    }
}

impl Active {
    fn poll_transmit(&mut self, engine: &mut Engine, out: &mut Vec<u8>, now: Instant) -> bool {
        self.link.poll_transmit(Some(engine), out, now) || self.link.poll_ack(out, now)
    }
}

/// Whole hours that are at least this long, as message 1 says them.
fn hours(time: Duration) -> u8 {
    u8::try_from(time.as_secs().div_ceil(3600)).unwrap_or(u8::MAX)
}

/// As many flows as their buffers allow, so that the bound on bytes holds.
fn flow_limits(buffer: usize) -> FlowLimits {
    let limits = FlowLimits::default();
    let flows = buffer / (limits.receive_buffer + limits.send_buffer);
    FlowLimits { flows: flows.clamp(1, limits.flows), ..limits }
}

/// Packets of an old carrier may still be on their way.
const RETIRED_FOR: Duration = Duration::from_secs(10);

/// Our choice: old carriers that still open packets.
const RETIRED_MAX: usize = 4;

/// Our choice: packets of at most [`DATAGRAM_MAX`] bytes that wait for the TUN.
const TUN_QUEUE: usize = 1024;
