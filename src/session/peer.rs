//! One peer of the server: its configuration, its carriers and its session.
//!
//! Message 1 proves the client's key but not that it is fresh: a recorded one opens again. So a handshake only makes a
//! *pending* carrier; what it stands for (a new session, the end of the old one, a new epoch) happens when the first
//! packet sealed with its keys opens, which nobody can replay.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::allotment::Allotment;
use super::engine::{Engine, Settings};
use super::frame::{self, CloseCode};
use super::link::Link;
use super::loss::LossMeter;
use super::probed::Probes;
use super::status::{CarrierStatus, Injected, PeerStatus, SessionStatus, Traffic};
use crate::carrier::Segment;
use crate::crypto::{Message1, Message2, PresharedKey, PublicKey, Refusal, SessionId, Timestamp, VERSION};

/// A client that the server knows.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// For people: status and logs.
    pub name: String,
    /// The client's key.
    pub public_key: PublicKey,
    /// Optional second secret; all zero when there is none.
    pub preshared_key: PresharedKey,
    /// Its tunnel addresses, with the prefix lengths of the server's networks.
    pub addresses: Vec<IpNetwork>,
}

/// What is to be remembered of a peer so that a recorded message 1 stays refused when the server starts anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMemory {
    /// Whose.
    pub public_key: PublicKey,
    /// The highest timestamp that was accepted.
    pub newest: Option<Timestamp>,
    /// The last ephemeral keys that were answered, the newest last.
    pub seen: Vec<[u8; 32]>,
}

/// A peer at work.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) settings: PeerSettings,
    pub(crate) session: Option<Session>,
    pub(crate) carriers: Vec<Carrier>,
    /// Counts sessions and epochs, so that a stream's key is never used twice.
    pub(crate) incarnation: u64,
    /// How often packets began to leave on another carrier of the same session.
    pub(crate) migrations: u64,
    /// How often the client's address changed under a carrier.
    pub(crate) moves: u64,
    /// What came on the 4-tuple of the carrier in use and was not believed.
    pub(crate) injected: Injected,
    /// Packets that opened far outside of the window: their numbers were not believed.
    pub(crate) off_window: u64,
    /// Who of this peer only asks what passes.
    pub(crate) probes: Probes,
    newest: Option<Timestamp>,
    /// The last handshakes that were answered: what each said its time was, and its ephemeral key.
    seen: VecDeque<(Timestamp, [u8; 32])>,
    /// What says to be as old as this, and is not among them, was forgotten by now.
    floor: Option<Timestamp>,
    /// The last handshake that was answered without keys, which may be answered again.
    denied: Option<([u8; 32], Message2)>,
    /// Sessions that a newer one took the place of: they do not come back.
    replaced: VecDeque<SessionId>,
}

/// What the carriers of one session share.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) engine: Engine,
    /// The id of the carrier that packets leave on.
    pub(crate) active: u32,
    pub(crate) use_number: u32,
    /// How long it is kept when nothing is heard of it.
    pub(crate) keep: Duration,
    pub(crate) streams_total: u64,
    pub(crate) traffic: Traffic,
}

/// A carrier, pending until its first packet opens.
#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) link: Link,
    /// The session it was made for, and the epoch both ends then are in.
    pub(crate) session: SessionId,
    pub(crate) epoch: u32,
    /// As [`Session::keep`].
    pub(crate) keep: Duration,
    pub(crate) confirmed: bool,
    pub(crate) ephemeral: [u8; 32],
    /// Message 2, to be said again if message 1 comes again.
    pub(crate) reply: Vec<u8>,
    pub(crate) last_opened: Instant,
    /// Of what the client sends, and of what we send.
    pub(crate) loss_in: LossMeter,
    pub(crate) loss_out: LossMeter,
}

/// Which carrier is waited for longer than the others, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    active: Option<u32>,
    keep: Duration,
}

impl Session {
    /// When it is given up if nothing is heard of it.
    pub(crate) fn expires_at(&self) -> Instant {
        self.engine.last_heard() + self.keep
    }
}

impl Carrier {
    /// Whether packets may leave on it.
    fn is_usable(&self) -> bool {
        self.confirmed && !self.link.is_closing()
    }

    fn expires_at(&self, patience: Patience) -> Instant {
        self.last_opened
            + if !self.confirmed {
                PENDING_FOR
            } else if Some(self.link.id()) == patience.active {
                patience.keep
            } else {
                OLD_FOR
            }
    }
}

impl Peer {
    pub(crate) fn new(settings: PeerSettings) -> Self {
        Self {
            settings,
            session: None,
            carriers: Vec::new(),
            incarnation: 0,
            migrations: 0,
            moves: 0,
            injected: Injected::default(),
            off_window: 0,
            probes: Probes::default(),
            newest: None,
            seen: VecDeque::new(),
            floor: None,
            denied: None,
            replaced: VecDeque::new(),
        }
    }

    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        self.settings.addresses.iter().any(|network| network.ip() == address)
    }

    pub(crate) fn carrier(&mut self, index: u32) -> Option<&mut Carrier> {
        self.carriers.iter_mut().find(|carrier| carrier.link.keys().has(index))
    }

    /// The confirmed carrier that message 1 names: what a rekey is for.
    pub(crate) fn named_carrier(&mut self, message: &Message1) -> Option<&mut Carrier> {
        self.carriers.iter_mut().find(|carrier| {
            carrier.confirmed
                && carrier.session == message.session
                && carrier.link.number() == message.carrier
        })
    }

    /// Whether a carrier lives on this 4-tuple.
    pub(crate) fn has_live(&self, tuple: (SocketAddr, SocketAddr)) -> bool {
        self.carriers.iter().any(|carrier| carrier.confirmed && carrier.link.tuple() == tuple)
    }

    /// Message 2 of a carrier that is still pending, or of a probe, if this is its message 1 again.
    pub(crate) fn pending_reply(&self, ephemeral: &[u8; 32]) -> Option<&[u8]> {
        let same = |carrier: &&Carrier| !carrier.confirmed && carrier.ephemeral == *ephemeral;
        let pending = self.carriers.iter().find(same).map(|carrier| carrier.reply.as_slice());
        pending.or_else(|| self.probes.reply(ephemeral))
    }

    /// The answer without keys that message 1 gets, if it gets one; the same each time it comes.
    pub(crate) fn judge(&mut self, message: &Message1, ephemeral: &[u8; 32]) -> Option<Message2> {
        if let Some((_, answer)) = self.denied.as_ref().filter(|(denied, _)| denied == ephemeral) {
            return Some(answer.clone());
        }
        if self.has_seen(ephemeral) {
            return None;
        }
        let answer = self.denial(message)?;
        self.seen(message.timestamp, *ephemeral);
        self.denied = Some((*ephemeral, answer.clone()));
        Some(answer)
    }

    fn denial(&self, message: &Message1) -> Option<Message2> {
        if message.version != VERSION {
            return Some(Message2::Refused { reason: Refusal::Version });
        }
        if self.replaced.contains(&message.session) {
            return Some(Message2::Refused { reason: Refusal::Replaced });
        }
        let above = self.newest.filter(|newest| !self.is_current(message) && message.timestamp <= *newest)?;
        Some(Message2::Stale { above })
    }

    /// Whether the segment came on the 4-tuple of the carrier in use.
    pub(crate) fn is_in_use(&self, segment: &Segment) -> bool {
        let active = self.session.as_ref().map(|session| session.active);
        self.carriers.iter().any(|carrier| Some(carrier.link.id()) == active && carrier.link.is_from(segment))
    }

    /// A SYN came on the 4-tuple of a carrier that was just heard: TCP would say where the connection stands, and so does this one.
    /// `false` if none was: who begins there is somebody else.
    pub(crate) fn challenge(&mut self, syn: &Segment, now: Instant) -> bool {
        let is_heard = |carrier: &&mut Carrier| {
            carrier.confirmed
                && carrier.link.is_from(syn)
                && now.saturating_duration_since(carrier.last_opened) < CHALLENGED_FOR
        };
        let Some(carrier) = self.carriers.iter_mut().find(is_heard) else { return false };
        // It counts the SYN, and owes an ACK.
        carrier.link.connection_mut().handle_segment(syn, now);
        true
    }

    /// A FIN came on the 4-tuple of a carrier that is closed, or about to be: it is acknowledged. `false` if none is.
    pub(crate) fn acknowledge_fin(&mut self, fin: &Segment, now: Instant) -> bool {
        let is_leaving = |carrier: &&mut Carrier| carrier.link.is_closing() && carrier.link.is_from(fin);
        let Some(carrier) = self.carriers.iter_mut().find(is_leaving) else { return false };
        carrier.link.handle_late(fin, now);
        true
    }

    /// Whether this message 1 was answered before, as far as is known; remembers it if not. Those of one session may come in
    /// any order, but for what is older than all that is remembered: that would be taken for new whenever it comes again.
    pub(crate) fn is_replay(&mut self, message: &Message1, ephemeral: [u8; 32]) -> bool {
        let is_forgotten = self.is_current(message) && Some(message.timestamp) <= self.floor;
        let is_replay = is_forgotten || self.has_seen(&ephemeral);
        if !is_replay {
            self.seen(message.timestamp, ephemeral);
        }
        is_replay
    }

    fn is_current(&self, message: &Message1) -> bool {
        self.session.as_ref().is_some_and(|session| session.id == message.session)
    }

    fn has_seen(&self, ephemeral: &[u8; 32]) -> bool {
        self.seen.iter().any(|(_, seen)| seen == ephemeral)
    }

    /// What is to be remembered; the timestamp judges what is older than the ephemerals.
    pub(crate) fn memory(&self) -> PeerMemory {
        let older = self.seen.len().saturating_sub(REMEMBERED_MAX);
        PeerMemory {
            public_key: self.settings.public_key,
            newest: self.newest,
            seen: self.seen.iter().skip(older).map(|(_, ephemeral)| *ephemeral).collect(),
        }
    }

    /// Remembers what was known before a restart. What was accepted then, and is not in it, is as old as its newest at most.
    pub(crate) fn remember(&mut self, memory: &PeerMemory) {
        let Some(newest) = memory.newest else { return };
        self.newest = self.newest.max(memory.newest);
        self.floor = self.floor.max(memory.newest);
        memory.seen.iter().take(REMEMBERED_MAX).for_each(|ephemeral| self.seen(newest, *ephemeral));
    }

    /// Nobody's clock but that of an accepted handshake moves the floor: one that only asks what passes may be far ahead.
    fn seen(&mut self, timestamp: Timestamp, ephemeral: [u8; 32]) {
        if self.seen.len() == SEEN_MAX
            && let Some((forgotten, _)) = self.seen.pop_front()
        {
            self.floor = self.floor.max(self.newest.map(|newest| newest.min(forgotten)));
        }
        self.seen.push_back((timestamp, ephemeral));
    }

    /// Remembers the newest timestamp of an accepted message 1.
    pub(crate) fn on_accepted(&mut self, timestamp: Timestamp) {
        self.newest = self.newest.max(Some(timestamp));
    }

    /// The epoch that message 1's `(session, epoch)` leads to, and whether the session goes on in it.
    pub(crate) fn resumes(&self, id: SessionId, epoch: u32) -> (u32, bool) {
        match self.session.as_ref().filter(|session| session.id == id) {
            Some(session) if epoch >= session.engine.epoch() => (epoch, true),
            Some(session) => (session.engine.epoch(), false),
            None => (epoch.saturating_add(1), false),
        }
    }

    /// The first packet of a carrier opened: it now stands for what its handshake said.
    /// Returns whether the streams that were open before are gone.
    pub(crate) fn confirm(
        &mut self,
        index: u32,
        settings: Settings,
        allotment: &mut Allotment,
        now: Instant,
    ) -> bool {
        let Some(carrier) = self.carrier(index) else { return false };
        carrier.confirmed = true;
        let (index, id, epoch, keep) = (carrier.link.id(), carrier.session, carrier.epoch, carrier.keep);
        match &mut self.session {
            Some(session) if session.id == id => {
                session.keep = keep;
                self.advance_epoch(epoch, now)
            }
            _ => {
                let had_streams = self.session.is_some();
                if let Some(old) = &self.session {
                    allotment.give_back(old.engine.buffer());
                }
                self.replace(id);
                let settings = Settings { buffer: allotment.take(), ..settings };
                tracing::info!(peer = %self.settings.name, "has a new session");
                self.incarnation += 1;
                self.session = Some(Session {
                    id,
                    engine: Engine::new(id, epoch, settings, now),
                    active: index,
                    use_number: 0,
                    keep,
                    streams_total: 0,
                    traffic: Traffic::default(),
                });
                had_streams
            }
        }
    }

    /// The session `by` takes the place of whatever was there: carriers in use are told, pending ones are gone.
    fn replace(&mut self, by: SessionId) {
        if let Some(old) = self.session.take() {
            if self.replaced.len() == REPLACED_MAX {
                self.replaced.pop_front();
            }
            self.replaced.push_back(old.id);
        }
        self.carriers.retain(|carrier| carrier.confirmed || carrier.session == by);
        for carrier in self.carriers.iter_mut().filter(|carrier| carrier.session != by) {
            carrier.link.queue(|out| frame::put_close(out, CloseCode::Replaced));
        }
    }

    /// Moves the session to a later epoch; returns whether streams were lost by it.
    pub(crate) fn advance_epoch(&mut self, epoch: u32, now: Instant) -> bool {
        let Some(session) = &mut self.session else { return false };
        if epoch <= session.engine.epoch() {
            return false;
        }
        session.engine.restart(epoch, now);
        self.incarnation += 1;
        true
    }

    /// What the first packet of a carrier said was obeyed: packets leave on it, unless the client has named another since there was
    /// this one.
    pub(crate) fn prefer(&mut self, index: u32, now: Instant) {
        let Some(carrier) = self.carrier(index).filter(|carrier| carrier.is_usable()) else { return };
        let (id, of, number) = (carrier.link.id(), carrier.session, carrier.link.number());
        let Some(session) = self.session.as_mut().filter(|session| session.id == of) else { return };
        if number >= session.use_number {
            session.use_number = number;
            self.switch_to(id, now);
        }
    }

    fn switch_to(&mut self, id: u32, now: Instant) {
        if let Some(session) = self.session.as_mut().filter(|session| session.active != id) {
            session.active = id;
            session.engine.on_path_restored(now);
            self.migrations += 1;
        }
    }

    /// The peer's `USE`: packets leave on the carrier it names.
    pub(crate) fn use_carrier(&mut self, number: u32, carrier_number: u32, now: Instant) {
        let Some(session) = &mut self.session else { return };
        if number < session.use_number {
            return;
        }
        let is_said_anew = number > session.use_number;
        session.use_number = number;
        let named = self.carriers.iter().find(|carrier| {
            carrier.is_usable() && carrier.session == session.id && carrier.link.number() == carrier_number
        });
        if let Some(id) = named.map(|carrier| carrier.link.id()) {
            // Said anew of the same one, it means that our packets arrive again, although we have heard the client all the while.
            if is_said_anew && id == session.active {
                session.engine.on_path_restored(now);
            }
            self.switch_to(id, now);
        }
    }

    /// The client has left a carrier of the session: packets leave on the newest other one. `true` if there is none, and with that
    /// no session: the client has another with another server.
    pub(crate) fn leave(&mut self, index: u32, now: Instant) -> bool {
        let Some(carrier) = self.carrier(index) else { return false };
        // As TCP would: a FIN of ours, too.
        carrier.link.close();
        let (left, of) = (carrier.link.id(), carrier.session);
        let others = self.carriers.iter().filter(|carrier| carrier.session == of && carrier.is_usable());
        let Some(newest) = others.max_by_key(|carrier| carrier.link.number()) else { return true };
        let newest = newest.link.id();
        if self.session.as_ref().is_some_and(|session| session.active == left) {
            self.switch_to(newest, now);
        }
        false
    }

    /// Says goodbye on the carriers in use.
    pub(crate) fn close_carriers(&mut self, code: CloseCode) {
        for carrier in self.carriers.iter_mut().filter(|carrier| carrier.confirmed) {
            carrier.link.say_goodbye(code);
        }
    }

    /// Removes carriers that were never confirmed in time, have been silent too long, or are closed.
    pub(crate) fn expire_carriers(&mut self, now: Instant) {
        let patience = self.patience();
        self.carriers.retain(|carrier| !carrier.link.is_closed() && carrier.expires_at(patience) > now);
    }

    /// Whether packets to it are sent: a peer that went without a word is not sent to for ever, as its address may be somebody
    /// else's by now.
    pub(crate) fn is_there(&self, now: Instant) -> bool {
        self.silent_at().is_some_and(|at| now < at)
    }

    /// When it is not there any more if nothing is heard of it.
    pub(crate) fn silent_at(&self) -> Option<Instant> {
        self.session.as_ref().map(|session| session.engine.last_heard() + QUIET_AFTER)
    }

    /// When a carrier, a probe or the session is over if nothing else is heard of it.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        let patience = self.patience();
        let carriers = self.carriers.iter().map(|carrier| carrier.expires_at(patience));
        let session = self.session.as_ref().map(Session::expires_at);
        carriers.chain(self.probes.expires_at()).chain(session).min()
    }

    fn patience(&self) -> Patience {
        Patience {
            active: self.session.as_ref().map(|session| session.active),
            keep: self.session.as_ref().map_or(OLD_FOR, |session| session.keep),
        }
    }

    /// Makes room for one more carrier: the oldest goes, pending ones first, never the one in use.
    pub(crate) fn make_room(&mut self) {
        let active = self.session.as_ref().map(|session| session.active);
        let idle = self.carriers.iter().enumerate().filter(|(_, carrier)| Some(carrier.link.id()) != active);
        let oldest = idle.min_by_key(|(_, carrier)| (carrier.confirmed, carrier.last_opened));
        if let Some((oldest, _)) = oldest.filter(|_| self.carriers.len() >= CARRIERS_MAX) {
            self.carriers.swap_remove(oldest);
        }
    }

    /// The epoch both ends are in; 0 before the first session.
    pub(crate) fn epoch(&self) -> u32 {
        self.session.as_ref().map_or(0, |session| session.engine.epoch())
    }

    /// Writes the next outer packet of this peer into `out`; `false` when there is none now.
    pub(crate) fn poll_transmit(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        let is_there = self.is_there(now);
        let Self { session, carriers, .. } = self;
        let active = session.as_ref().map(|session| session.active);
        for carrier in carriers.iter_mut().filter(|carrier| carrier.confirmed) {
            let is_active = Some(carrier.link.id()) == active;
            let engine =
                session.as_mut().filter(|_| is_active && is_there).map(|session| &mut session.engine);
            if carrier.link.poll_transmit(engine, out, now) || carrier.link.poll_ack(out, now) {
                if let Some(session) = session {
                    session.traffic.on_sent(out);
                }
                return true;
            }
        }
        false
    }

    /// Everything there is to know.
    pub(crate) fn status(&self, now: Instant) -> PeerStatus {
        let session = self.session.as_ref();
        let active = session.map(|session| session.active);
        let mut carriers: Vec<_> = self.carriers.iter().filter(|carrier| carrier.confirmed).collect();
        carriers.sort_by_key(|carrier| Some(carrier.link.id()) != active);
        let rtt = session.and_then(|session| session.engine.srtt());
        PeerStatus {
            name: self.settings.name.clone(),
            public_key: self.settings.public_key,
            addresses: self.settings.addresses.iter().map(IpNetwork::ip).collect(),
            carriers: carriers
                .into_iter()
                .map(|carrier| {
                    let losses = (carrier.loss_in.share(), carrier.loss_out.share());
                    let rtt = rtt.filter(|_| Some(carrier.link.id()) == active);
                    CarrierStatus::of(&carrier.link, rtt, losses, now)
                })
                .collect(),
            migrations: self.migrations,
            moves: self.moves,
            injected: self.injected,
            off_window: self.off_window,
            session: session.map(|session| {
                let open = session.engine.mux.stats().streams;
                SessionStatus::of(&session.engine, session.traffic, open, session.streams_total)
            }),
            last_heard: session.map(|session| session.engine.silence(now)),
        }
    }

    /// When [`Self::poll_transmit`] may have something if nothing else happens.
    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let session = self.session.as_ref()?;
        let acks = self.carriers.iter().filter(|carrier| carrier.confirmed);
        let active = self.carriers.iter().find(|carrier| carrier.link.id() == session.active);
        let probe = active.and_then(|carrier| carrier.link.probe_due(session.engine.srtt()));
        let engine = [session.engine.poll_timeout(), probe].into_iter().flatten();
        let engine = engine.filter(|_| self.is_there(now));
        acks.filter_map(|carrier| carrier.link.poll_timeout()).chain(engine).min()
    }
}

/// Our choice: carriers of one peer at a time, pending and old ones included.
const CARRIERS_MAX: usize = 8;

/// Our choice: handshakes of one peer that are remembered.
const SEEN_MAX: usize = 256;

/// Our choice: those of them that are remembered over a restart, a KiB for each peer.
const REMEMBERED_MAX: usize = 32;

/// Our choice: three of an idle client's pings are missing.
const QUIET_AFTER: Duration = Duration::from_secs(60);

/// Our choice: hosts that share a key, and then some.
const REPLACED_MAX: usize = 16;

/// Our choice: a client dials for at most 24 s, and an answer takes several round trips of the worst path.
const PENDING_FOR: Duration = Duration::from_secs(30);

/// Our choice: longer than the pings of an idle client are apart.
const CHALLENGED_FOR: Duration = Duration::from_secs(25);

/// Our choice: a carrier that the client left may still bring late packets.
const OLD_FOR: Duration = Duration::from_secs(60);
