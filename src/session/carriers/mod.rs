//! The client's carriers: the one in use, those beside it, those that were, and those in the making.
//!
//! ```text
//!  dialing ──message 2──> live ──another answers──> retired ──10 s──> `LEFT`, FIN
//!                          │
//!                          └ used: packets leave on it, and the server is told to do the same (`USE`)
//! ```
//!
//! Through an outage all live carriers are pinged, old and new alike, and whichever answers first is used; then the others
//! retire. What was accepted last is used before it has answered, if nothing better is known: its handshake made the round trip.
//!
//! Which carriers there are, which is used and which answers is decided here; what they carry is not known here.

mod caution;
mod departure;
mod event;
mod leaving;
mod live;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use self::caution::Caution;
use self::departure::{Departure, is_elsewhere};
pub(crate) use self::event::{Arrival, CarrierEvent, Demand, Dropped, Grant, Settled};
use self::leaving::Leaving;
use self::live::Carrier;
use super::dial::{Caller, Dial, Offer, Progress, Reach, Room};
use super::dialing::{Dialing, Request};
use super::engine::Engine;
use super::frame::CloseCode;
use super::link::{Link, RekeyAnswer};
use super::loss::{Counts, LossHistory, LossMeter};
use super::modes::{Memory, ModeRecord, Modes};
use super::path_mtu::ETHERNET;
use super::rekey::Renewal;
use super::servers::ServerAddress;
use super::status::{CarrierStatus, Migrations, Traffic, Why};
use crate::carrier::{self, DropReason, Mode, Segment};
use crate::crypto::{Header, Keys, MESSAGE1_MIN_LEN, Mask, OpenError, Timestamp};

/// All carriers of a client.
#[derive(Debug)]
pub(crate) struct Carriers {
    caller: Caller,
    modes: Modes,
    mask: Mask,
    rng: StdRng,
    dialing: Dialing,
    /// Those that may carry the session, the newest last.
    live: Vec<Carrier>,
    /// The number of the live carrier that packets leave on.
    used: u32,
    /// Counts what the server is told of that; above the number of any live carrier.
    use_number: u32,
    /// The last that answered: the number of what is used when none is sought.
    settled: u32,
    leaving: Leaving,
    /// Of the interface towards the server, in bytes.
    mtu: u16,
    outage: Option<Outage>,
    /// An end may not know what has arrived at the other.
    is_in_doubt: bool,
    /// Of what we send, and of what the server sends.
    loss: [LossHistory; 2],
    caution: Caution,
    /// When another carrier may next be tried only because the one in use loses so much.
    better_at: Instant,
    departure: Departure,
    migrations: Migrations,
    /// Of the last message 1.
    timestamp: Option<Timestamp>,
    traffic: Traffic,
    events: VecDeque<CarrierEvent>,
}

/// No carrier answers.
#[derive(Clone, Copy, Debug)]
struct Outage {
    since: Instant,
    why: Why,
}

impl Carriers {
    pub(crate) fn new(caller: Caller, mode: Option<Mode>, rng: StdRng, now: Instant) -> Self {
        Self {
            mask: Mask::new(&caller.server_key),
            caller,
            modes: Modes::new(mode, Memory::default()),
            rng,
            dialing: Dialing::new(now),
            live: Vec::new(),
            used: 0,
            use_number: 0,
            settled: 0,
            leaving: Leaving::default(),
            mtu: ETHERNET,
            outage: None,
            is_in_doubt: false,
            loss: [LossHistory::default(); 2],
            caution: Caution::new(now),
            better_at: now + BETTER_EVERY,
            departure: Departure::new(now),
            migrations: Migrations::default(),
            timestamp: None,
            traffic: Traffic::default(),
            events: VecDeque::new(),
        }
    }

    /// Goes on from what earlier sessions learned of the modes.
    pub(crate) fn recall(&mut self, memory: Memory) {
        self.modes.recall(memory);
    }

    /// We are in this network now.
    pub(crate) fn set_network(&mut self, network: &str) {
        self.modes.set_network(network);
    }

    /// What is worth keeping of the modes.
    pub(crate) fn memory(&self) -> &Memory {
        self.modes.memory()
    }

    /// The modes in the order in which the next dials would take them.
    pub(crate) fn ranking(&self) -> Vec<ModeRecord> {
        self.dialing.servers.peek().map_or_else(Vec::new, |server| self.modes.ranking(server))
    }

    /// From now on these are the addresses of each server.
    pub(crate) fn set_servers(&mut self, servers: Vec<Vec<ServerAddress>>) {
        self.dialing.servers.set(servers);
    }

    /// The interface towards the server takes packets of at most `mtu` bytes, IP header included.
    pub(crate) fn set_mtu(&mut self, mtu: u16) {
        self.mtu = mtu;
    }

    /// The shell has the port `local` for a dial. One that is not wanted any more is not begun.
    pub(crate) fn dial(
        &mut self,
        attempt: u32,
        local: SocketAddr,
        wall: Timestamp,
        epoch: u32,
        now: Instant,
    ) {
        let Some(request) = self.dialing.take_request(attempt) else {
            return self.events.push_back(CarrierEvent::Retired(local));
        };
        self.departure.on_port(request.remote.ip(), local.ip());
        let timestamp = Timestamp::after(self.timestamp, self.dialing.timestamp(wall));
        self.timestamp = Some(timestamp);
        let offer = Offer { timestamp, index: self.fresh_index(), epoch };
        let lifetime = self.dialing.lifetime(&request);
        let room = Room { interface: self.mtu, mtu: self.mtu, known: self.known_size(local, request.remote) };
        match Dial::begin(&self.caller, request, (offer, room), local, lifetime, &mut self.rng, now) {
            Some(dial) => {
                self.timestamp = self.timestamp.max(dial.timestamp());
                self.modes.on_dial(request.mode, now);
                self.dialing.on_begun(&request, dial, now);
            }
            None => {
                self.events.push_back(CarrierEvent::Retired(local));
                self.dialing.on_not_begun(now);
            }
        }
    }

    /// What the newest carrier between these hosts found to pass: the next begins with it, and so confirms it.
    fn known_size(&self, local: SocketAddr, remote: SocketAddr) -> Option<u16> {
        let is_same = |link: &&Link| {
            let connection = link.connection();
            connection.local().ip() == local.ip() && connection.remote().ip() == remote.ip()
        };
        self.links().filter(is_same).max_by_key(|link| link.number()).map(|link| link.path().size())
    }

    /// The shell has no port, route or address for a dial.
    pub(crate) fn dial_failed(&mut self, attempt: u32, now: Instant) {
        if self.dialing.take_request(attempt).is_some() {
            self.dialing.on_not_begun(now);
        }
    }

    /// Where the carrier in use leads to.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.used().map(|used| used.link.connection().remote())
    }

    /// The host's network is not what it was: whatever waits is tried at once. If packets leave from another address now, what
    /// is dialled from elsewhere is given up, and a carrier from there is opened beside the one in use, which goes on meanwhile if
    /// it can.
    pub(crate) fn handle_network_change(&mut self, source: Option<IpAddr>, now: Instant) {
        self.dialing.begin_race(now);
        self.live.iter_mut().for_each(|carrier| carrier.liveness.ask_now());
        let towards = self.remote().map(|remote| remote.ip());
        if self.departure.on_network(towards.zip(source), now) {
            self.drop_dials_from_elsewhere();
        }
        self.check_move(now);
    }

    /// Takes one outer packet, and opens it in place.
    pub(crate) fn handle_segment<'a>(
        &mut self,
        segment: &Segment,
        packet: &'a mut [u8],
        now: Instant,
    ) -> Arrival<'a> {
        match self.dialing.dials_mut().iter_mut().find(|dial| dial.is_from(segment)) {
            Some(dial) => {
                let (number, progress) = (dial.number(), dial.handle_segment(segment, packet, now));
                self.on_progress(number, progress, now)
            }
            None => self.handle_data(segment, packet, now),
        }
    }

    /// Runs what is due.
    pub(crate) fn handle_timeout(&mut self, demand: Demand, now: Instant) {
        self.check_live(demand, now);
        // Who comes up for the first time looks like any other program that connects.
        self.dialing.set_hurried(demand.urgent && self.settled != 0);
        while let Some(number) = self.dialing.expired(now) {
            self.drop_dial(number);
        }
        self.check_requests(now);
        self.check_move(now);
    }

    /// Writes the next outer packet into `out`: of the carrier in use, also what `engine` has to send. `false` when there is
    /// none now.
    pub(crate) fn poll_transmit(&mut self, engine: &mut Engine, out: &mut Vec<u8>, now: Instant) -> bool {
        if self.dialing.dials_mut().iter_mut().any(|dial| dial.poll_transmit(out, now)) {
            return true;
        }
        if std::mem::take(&mut self.is_in_doubt) {
            engine.compare();
        }
        for carrier in &mut self.live {
            let is_used = carrier.link.number() == self.used;
            let engine = is_used.then_some(&mut *engine);
            let epoch = engine.as_ref().map(|engine| engine.epoch());
            if carrier.link.poll_transmit(engine, out, now) || carrier.link.poll_ack(out, now) {
                self.traffic.on_sent(out);
                if let Some(epoch) = epoch {
                    self.begin_rekey(epoch, now);
                }
                return true;
            }
        }
        if let Some(used) = self.used_mut() {
            used.liveness.on_unacked(engine.has_unacked(), now);
        }
        false
    }

    /// The same for what old carriers have left to say.
    pub(crate) fn poll_last_words(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        self.leaving.poll_transmit(out, now)
    }

    pub(crate) fn poll_event(&mut self) -> Option<CarrierEvent> {
        self.events.pop_front().or_else(|| self.leaving.poll_port().map(CarrierEvent::Retired))
    }

    /// When a dial, a ping or the end of patience is due.
    pub(crate) fn poll_timeout(&self, urgent: bool) -> Option<Instant> {
        let dialing = self.dialing.poll_timeout(self.needs_carrier());
        let pings = self.live.iter().map(|carrier| carrier.liveness.ping_due(urgent));
        let suspect = self.used().filter(|used| used.proven && self.outage.is_none());
        let suspect = suspect.and_then(|used| used.liveness.suspect_at());
        let moving = (self.is_to_move() && !self.dialing.is_busy()).then(|| self.departure.ask_at());
        pings.chain(dialing).chain(suspect).chain(moving).min()
    }

    /// When a TCP packet without payload is due, or the end of an old carrier; also once no other is opened.
    pub(crate) fn poll_link_timeout(&self) -> Option<Instant> {
        let acks = self.live.iter().filter_map(|carrier| carrier.link.poll_timeout());
        acks.chain(self.leaving.poll_timeout()).min()
    }

    /// Whether there is a carrier to send on.
    pub(crate) fn has_live(&self) -> bool {
        !self.live.is_empty()
    }

    /// Whether this carrier may carry the session, and has not been left.
    pub(crate) fn is_live(&self, number: u32) -> bool {
        self.live.iter().any(|carrier| carrier.link.number() == number)
    }

    /// Whether no carrier answers, or none has answered yet.
    pub(crate) fn needs_carrier(&self) -> bool {
        self.outage.is_some() || !self.used().is_some_and(|used| used.proven)
    }

    /// Whether packets leave on this carrier.
    pub(crate) fn is_used(&self, number: u32) -> bool {
        self.used == number
    }

    /// Since when nothing makes the round trip.
    pub(crate) fn outage(&self) -> Option<Instant> {
        self.outage.map(|outage| outage.since)
    }

    /// Every flow was given up: the outage is counted anew, and whichever server answers is as good.
    pub(crate) fn on_given_up(&mut self, now: Instant) {
        if let Some(outage) = &mut self.outage {
            outage.since = now;
        }
        self.dialing.servers.on_given_up();
        self.dialing.begin_race(now);
    }

    /// We stood still for a while: what waited for an answer is asked anew, and at once.
    pub(crate) fn on_woken(&mut self, now: Instant) {
        self.dialing.begin_race(now);
        self.live.iter_mut().for_each(|carrier| carrier.liveness.ask_in_doubt());
    }

    /// Something was sent: the path is in use.
    pub(crate) fn on_traffic(&mut self) {
        if let Some(used) = self.used_mut() {
            used.liveness.on_traffic();
        }
    }

    /// A packet of so many bytes brought data on carrier `number`.
    pub(crate) fn on_inflow(&mut self, number: u32, length: usize, now: Instant) {
        if let Some(carrier) = self.live_mut(number) {
            carrier.liveness.on_inflow(length, now);
        }
    }

    /// A KCP packet came on carrier `number`; says whether packets make the round trip on the one in use.
    pub(crate) fn on_kcp(&mut self, number: u32, acknowledged: bool, unacked: bool, now: Instant) -> bool {
        let is_used = number == self.used;
        let Some(used) = self.used_mut() else { return false };
        // On an old carrier an answer proves nothing of the one in use.
        if acknowledged && is_used {
            used.liveness.on_acknowledged(now);
        }
        used.liveness.on_unacked(unacked, now);
        acknowledged && is_used && used.liveness.waiting_since().is_none()
    }

    /// A ping was answered on carrier `number`; says whether it was one that waited, of its liveness.
    pub(crate) fn on_pong(&mut self, number: u32, token: u64, now: Instant) -> bool {
        self.live_mut(number).is_some_and(|carrier| {
            !carrier.link.path_mut().on_pong(token, now) && carrier.liveness.on_pong(token, now)
        })
    }

    /// The server asks, on carrier `number`, in an outer packet of `size` bytes; only where packets may leave is it answered.
    pub(crate) fn on_ping(&mut self, number: u32, token: u64, size: usize) {
        if let Some(carrier) = self.live_mut(number) {
            carrier.link.queue_pong(token, size);
        }
    }

    /// When the carrier in use asks how large packets may be.
    pub(crate) fn probe_due(&self, srtt: Option<Duration>) -> Option<Instant> {
        self.used().and_then(|used| used.link.probe_due(srtt))
    }

    /// The server says what of carrier `number` arrived there.
    pub(crate) fn on_seen(&mut self, number: u32, counts: Counts, now: Instant) {
        let is_used = number == self.used && self.outage.is_none();
        let caution = self.caution.level(now);
        let Some(carrier) = self.live_mut(number) else { return };
        let arrived = carrier.link.counts();
        let windows = [carrier.loss_out.on_counts(counts, now), carrier.loss_in.on_counts(arrived, now)];
        let passes = |meter: &LossMeter| 1.0 - meter.measured().unwrap_or(UNKNOWN_LOSS);
        let loss = 1.0 - passes(&carrier.loss_in) * passes(&carrier.loss_out);
        carrier.liveness.set_loss(loss, caution);
        let mut has_climbed = false;
        for (history, window) in self.loss.iter_mut().zip(windows).filter(|_| is_used) {
            has_climbed |= window.is_some_and(|lost| history.on_window(lost));
        }
        if has_climbed {
            self.seek_better(now);
        }
    }

    /// The carrier answers: it is used, and no other is needed.
    pub(crate) fn settle(&mut self, number: u32, now: Instant) -> Settled {
        if self.settled == number && self.used == number && self.outage.is_none() {
            return Settled::AsBefore;
        }
        let Some(carrier) = self.live_mut(number) else { return Settled::AsBefore };
        carrier.proven = true;
        let (remote, mode) = (carrier.link.connection().remote(), carrier.link.connection().mode());
        self.note_move(number);
        self.use_carrier(number);
        if self.settled == 0 {
            self.leave_others(number, now);
        }
        self.retire_others(number, now);
        self.drop_dials();
        self.dialing.on_settled((remote, mode), now);
        self.modes.on_carried(remote.ip(), mode, now);
        let outage = self.outage.take();
        if outage.is_some() {
            // The server may have heard us all the while: saying it anew tells that it is heard again.
            self.use_number += 1;
        }
        if self.settled == number
            && let Some(outage) = outage
            && now.saturating_duration_since(outage.since) < FALSE_WITHIN
        {
            self.caution.on_false_alarm(now);
        }
        self.settled = number;
        if outage.is_none() {
            return Settled::Anew;
        }
        self.events.push_back(CarrierEvent::Recovered);
        Settled::Recovered
    }

    /// Asks on a carrier at once.
    pub(crate) fn ping(&mut self, number: u32, demand: Demand, now: Instant) {
        let Some(carrier) = self.live_mut(number) else { return };
        carrier.liveness.ask_in_doubt();
        self.poll_ping(number, demand, now);
    }

    /// What [`Self::on_grant`] said of this carrier, once.
    pub(crate) fn take_grant(&mut self, number: u32) -> Option<Grant> {
        self.live_mut(number)?.grant.take()
    }

    /// The server did not know us, and gives us this, if this carrier answers.
    pub(crate) fn on_grant(&mut self, number: u32, grant: Grant) {
        if let Some(carrier) = self.live_mut(number) {
            carrier.grant = Some(grant);
        }
    }

    /// The server knows a later timestamp of ours.
    pub(crate) fn on_stale(&mut self, above: Timestamp, now: Instant) {
        self.drop_dials();
        self.dialing.on_stale(above, now);
    }

    /// The server said goodbye on its carriers: others are to be opened.
    pub(crate) fn on_goodbye(&mut self, now: Instant) {
        if self.has_live() {
            self.retire_others(0, now);
            self.on_outage(now, Why::Closed);
        }
    }

    /// Ends: `code` is said on the carrier in use.
    pub(crate) fn close(&mut self, code: CloseCode, now: Instant) {
        self.give_up();
        self.retire_others(self.used, now);
        if let Some(used) = self.used_mut() {
            used.link.say_goodbye(code);
        }
        self.leaving.close();
    }

    /// Takes a packet that comes after [`Self::close`].
    pub(crate) fn handle_late(&mut self, segment: &Segment, now: Instant) {
        match self.used_mut().filter(|used| used.link.is_from(segment)) {
            Some(used) => used.link.handle_late(segment, now),
            None => self.leaving.handle_late(segment, now),
        }
    }

    /// Whether the carrier that was in use, if there was one, has ended at both ends.
    pub(crate) fn is_over(&self) -> bool {
        self.used().is_none_or(|used| used.link.connection().is_over())
    }

    /// Ends without a word; what is on its way is still opened.
    pub(crate) fn abandon(&mut self, now: Instant) {
        self.give_up();
        self.retire_others(0, now);
    }

    /// Old carriers whose time is over end, and their ports are let go.
    pub(crate) fn check_retired(&mut self, now: Instant) {
        self.leaving.handle_timeout(now);
    }

    /// How far towards the server the dials came so far.
    pub(crate) fn reach(&self) -> Reach {
        self.dialing.reach()
    }

    /// The same of those that are over.
    pub(crate) fn past_reach(&self) -> Reach {
        self.dialing.past_reach()
    }

    /// How often another carrier took over, and why.
    pub(crate) fn migrations(&self) -> Migrations {
        self.migrations
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Those that may carry the session, the one in use first.
    pub(crate) fn status(&self, now: Instant) -> Vec<CarrierStatus> {
        let others = self.live.iter().rev().filter(|carrier| carrier.link.number() != self.used);
        self.used().into_iter().chain(others).map(|carrier| carrier.status(now)).collect()
    }

    /// How many there are, old ones and those in the making included.
    pub(crate) fn count(&self) -> usize {
        self.live.len() + self.leaving.retired() + self.dialing.dials().len()
    }

    /// What every connection saw of the outside so far.
    pub(crate) fn outside(&self) -> carrier::Stats {
        let mut total = self.leaving.outside();
        let links = self.links().map(Link::connection);
        let dialing = self.dialing.dials().iter().map(Dial::connection);
        links.chain(dialing).for_each(|connection| total += connection.stats());
        total
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        let live = self.live.iter().map(|carrier| &carrier.link);
        live.chain(self.leaving.links())
    }

    fn on_progress(&mut self, number: u32, progress: Progress, now: Instant) -> Arrival<'static> {
        match progress {
            Progress::Pending => Arrival::Nothing,
            Progress::Rejected => Arrival::Dropped(Dropped::Sealed),
            Progress::Answered(message) => Arrival::Answered(message),
            Progress::Accepted { message, keys, rtt } => {
                self.on_accepted(number, *keys, rtt, now);
                Arrival::Accepted(number, message)
            }
        }
    }

    /// The dial has become a carrier. Only what is sealed with the new keys proves that data passes; but a carrier that
    /// answers no more is worth less.
    fn on_accepted(&mut self, number: u32, keys: Keys, rtt: Duration, now: Instant) {
        let Some(dial) = self.dialing.take(number) else { return };
        self.dialing.on_accepted(now);
        self.live.push(Carrier::new(dial.into_link(keys, now), rtt, now));
        // The server takes a carrier to be in use that is newer than the last `USE`; from here on it is told.
        self.use_number = self.use_number.max(number) + 1;
        let is_hopeful = |used: &Carrier| match self.outage {
            Some(_) => !used.proven && !used.liveness.is_suspect(now),
            None => !used.liveness.is_suspect(now),
        };
        if !self.used().is_some_and(is_hopeful) {
            self.use_carrier(number);
        }
        self.make_room(now);
    }

    /// Of the live the one goes that is the least likely to answer: neither the newest, nor used, nor the last that did.
    fn make_room(&mut self, now: Instant) {
        while self.live.len() > LIVE_MAX {
            let last = self.live.len() - 1;
            let others = self.live.iter().enumerate().filter(|(at, carrier)| {
                let number = carrier.link.number();
                *at != last && number != self.used && number != self.settled
            });
            let Some((at, _)) = others.min_by_key(|(_, carrier)| carrier.liveness.last_round_trip()) else {
                return;
            };
            self.retire_at(at, now);
        }
    }

    /// Carrier `next` takes over, if it is not the last that answered. If that one was given up because it was silent, its mode
    /// has something to answer for, unless it was its address that went.
    fn note_move(&mut self, next: u32) {
        if self.settled == 0 || self.settled == next {
            return;
        }
        let connection = |number| {
            let carrier = self.live.iter().find(|carrier| carrier.link.number() == number);
            carrier.map(|carrier| (carrier.link.connection(), carrier.link.created()))
        };
        let last = connection(self.settled);
        let has_moved = last
            .zip(connection(next))
            .is_some_and(|((last, _), (next, _))| is_elsewhere(last.local().ip(), next.local().ip()));
        let why = match self.outage {
            _ if has_moved => Why::Moved,
            Some(outage) => outage.why,
            None => Why::Lossy,
        };
        let silent = self.outage.filter(|_| why == Why::Silent).zip(last);
        let died = silent
            .map(|(outage, (last, created))| (last.mode(), outage.since.saturating_duration_since(created)));
        if let Some((mode, lived)) = died {
            self.modes.on_died(mode, lived);
        }
        self.migrations.note(why);
        tracing::debug!(carrier = next, why = why.name(), "another carrier is used");
    }

    fn use_carrier(&mut self, number: u32) {
        if self.used != number {
            self.used = number;
            self.use_number += 1;
        }
    }

    /// Another carrier may lose less than the one in use.
    fn seek_better(&mut self, now: Instant) {
        if self.needs_carrier() || self.better_at > now {
            return;
        }
        let Some(used) = self.used() else { return };
        let (remote, mode) = (used.link.connection().remote(), used.link.connection().mode());
        if self.ask_beside(remote, mode, now) {
            self.better_at = now + BETTER_EVERY;
            self.loss.iter_mut().for_each(LossHistory::on_replaced);
        }
    }

    /// Asks for a carrier from where packets leave now: again and again until one carries, as each may be lost.
    fn check_move(&mut self, now: Instant) {
        if self.departure.ask_at() > now || self.dialing.is_busy() || !self.is_to_move() {
            return;
        }
        let Some(used) = self.used() else { return };
        let (remote, mode) = (used.link.connection().remote(), used.link.connection().mode());
        self.ask_beside(remote, mode, now);
        self.departure.on_asked(now);
    }

    /// Whether packets on the carrier in use, which answers, do not leave from where others to the same address do.
    fn is_to_move(&self) -> bool {
        !self.needs_carrier()
            && self.used().is_some_and(|used| self.departure.is_left(used.link.connection()))
    }

    /// Nobody hears what is said there.
    fn drop_dials_from_elsewhere(&mut self) {
        let departure = self.departure;
        let is_lost = |dial: &&Dial| departure.is_elsewhere(dial.connection().local().ip());
        while let Some(number) = self.dialing.dials().iter().find(is_lost).map(Dial::number) {
            self.drop_dial(number);
        }
    }

    fn ask_beside(&mut self, remote: SocketAddr, mode: Mode, now: Instant) -> bool {
        let request = self.dialing.request_beside((remote, mode), &mut self.rng, now);
        if let Some(Request { attempt, remote, .. }) = request {
            self.events.push_back(CarrierEvent::Dial { attempt, remote });
        }
        request.is_some()
    }

    fn handle_data<'a>(&mut self, segment: &Segment, packet: &'a mut [u8], now: Instant) -> Arrival<'a> {
        let live = self.live.iter_mut().map(|carrier| &mut carrier.link);
        let mut all = live.chain(self.leaving.links_mut());
        let link = all.find(|link| link.is_from(segment));
        drop(all);
        let Some(link) = link else {
            return Arrival::Dropped(Dropped::Stranger);
        };
        match link.connection_mut().handle_segment(segment, now) {
            carrier::Input::Payload => {}
            carrier::Input::Ignored(DropReason::Closed) => return Arrival::Dropped(Dropped::Late),
            // Counted by the connection.
            carrier::Input::Acknowledgement
            | carrier::Input::Established
            | carrier::Input::ResetSeen
            | carrier::Input::FinSeen
            | carrier::Input::Ignored(_) => return Arrival::Nothing,
        }
        let Some(payload) = packet.get_mut(segment.payload.clone()) else { return Arrival::Nothing };
        let header = self.mask.header(payload);
        if header.is_some_and(Header::is_handshake) {
            let (number, answer) = (link.number(), link.handle_message2(segment, payload, now));
            return self.on_rekey(number, answer, now);
        }
        let Some(header) = header.filter(|header| link.keys().has(header.index)) else {
            link.connection_mut().on_forged();
            return Arrival::Dropped(Dropped::Index);
        };
        let opened = match link.open(segment, header, payload, now) {
            Ok(opened) => opened,
            Err(error) => {
                if error == OpenError::Forged {
                    link.connection_mut().on_forged();
                }
                return Arrival::Dropped(Dropped::Sealed);
            }
        };
        self.traffic.on_received(segment.payload.end);
        Arrival::Frames(link.number(), opened.plaintext)
    }

    fn check_live(&mut self, demand: Demand, now: Instant) {
        if let Some(used) = self.used_mut() {
            used.liveness.on_unacked(demand.unacked, now);
        }
        for at in 0..self.live.len() {
            self.poll_ping(self.live[at].link.number(), demand, now);
        }
        self.check_suspect(now);
        self.check_better(now);
    }

    fn check_suspect(&mut self, now: Instant) {
        if self.outage.is_some() {
            return;
        }
        let Some(used) = self.used_mut().filter(|used| used.proven) else { return };
        if used.liveness.check_suspect(now)
            && let Some(since) = used.liveness.waiting_since()
        {
            self.on_outage(since, Why::Silent);
        }
    }

    /// A carrier that was to be better and does not answer either is none.
    fn check_better(&mut self, now: Instant) {
        if self.needs_carrier() {
            return;
        }
        let (used, is_late) = (self.used, |carrier: &Carrier| {
            now.saturating_duration_since(carrier.link.created()) >= BETTER_WITHIN
        });
        while let Some(at) =
            self.live.iter().position(|carrier| carrier.link.number() != used && is_late(carrier))
        {
            self.retire_at(at, now);
        }
    }

    /// Asks on carrier `number` if it is time to. A rekey that is due is as good a question, unless the answer is waited for.
    fn poll_ping(&mut self, number: u32, demand: Demand, now: Instant) {
        let (token, use_frame) = (self.rng.random(), (self.use_number, self.used));
        let Some(carrier) = self.live_mut(number) else { return };
        let Some(token) = carrier.liveness.poll_ping(demand.urgent, token, now) else { return };
        let is_doubted = carrier.liveness.is_doubted();
        self.is_in_doubt |= is_doubted && number == self.used;
        let is_calm = !is_doubted && number == self.used && !self.needs_carrier();
        if is_calm && self.begin_rekey(demand.epoch, now) {
            return;
        }
        if let Some(carrier) = self.live_mut(number) {
            carrier.queue_ping(token, use_frame, demand.epoch);
        }
    }

    /// Asks for new keys if it is time to and nobody has; says whether it does.
    fn begin_rekey(&mut self, epoch: u32, now: Instant) -> bool {
        let Some(used) = self.used().filter(|used| used.link.needs_rekey(now)) else { return false };
        let (mode, number) = (used.link.connection().mode(), used.link.number());
        let Some(timestamp) = self.timestamp.map(Timestamp::next) else { return false };
        let index = self.fresh_index();
        let size = MESSAGE1_MIN_LEN + self.rng.random_range(0..REKEY_PADDING);
        let offer = Offer { timestamp, index, epoch };
        let initiation = self.caller.initiate(mode, number, offer, size, &mut self.rng);
        let Some((initiation, used)) = initiation.zip(self.used_mut()) else { return false };
        used.link.begin_rekey(Renewal::new(index, initiation, now));
        self.timestamp = Some(timestamp);
        true
    }

    /// What may be the answer to a rekey came on carrier `number`.
    fn on_rekey(&mut self, number: u32, answer: RekeyAnswer, now: Instant) -> Arrival<'static> {
        match answer {
            RekeyAnswer::NewKeys { asked } => {
                if let Some(carrier) = self.live_mut(number) {
                    carrier.liveness.on_answered(asked, now);
                }
                Arrival::Nothing
            }
            RekeyAnswer::Denied(message) => Arrival::Answered(message),
            RekeyAnswer::Unopened => Arrival::Dropped(Dropped::Sealed),
        }
    }

    /// Asks for the ports that are wanted.
    pub(crate) fn check_requests(&mut self, now: Instant) {
        if !self.needs_carrier() {
            return;
        }
        let modes = self.candidates();
        while let Some(request) = self.dialing.poll_request(&modes, &mut self.rng, now) {
            let Request { attempt, remote, .. } = request;
            self.events.push_back(CarrierEvent::Dial { attempt, remote });
        }
    }

    /// The modes for the next dial.
    fn candidates(&self) -> Vec<Mode> {
        let server = self.dialing.servers.peek();
        server.map_or_else(Vec::new, |server| self.modes.candidates(server))
    }

    fn on_outage(&mut self, since: Instant, why: Why) {
        if self.outage.is_none() {
            self.outage = Some(Outage { since, why });
            self.events.push_back(CarrierEvent::Suspect);
        }
    }

    fn used(&self) -> Option<&Carrier> {
        self.live.iter().find(|carrier| carrier.link.number() == self.used)
    }

    fn used_mut(&mut self) -> Option<&mut Carrier> {
        self.live_mut(self.used)
    }

    fn live_mut(&mut self, number: u32) -> Option<&mut Carrier> {
        self.live.iter_mut().find(|carrier| carrier.link.number() == number)
    }

    /// All live carriers but one retire.
    fn retire_others(&mut self, number: u32, now: Instant) {
        while let Some(at) = self.live.iter().position(|carrier| carrier.link.number() != number) {
            self.retire_at(at, now);
        }
    }

    /// The same where none has carried anything: they end at once.
    fn leave_others(&mut self, number: u32, now: Instant) {
        while let Some(at) = self.live.iter().position(|carrier| carrier.link.number() != number) {
            let link = self.live.remove(at).link;
            self.leaving.leave(link, now);
        }
    }

    fn retire_at(&mut self, at: usize, now: Instant) {
        let link = self.live.remove(at).link;
        self.leaving.retire(link, now);
    }

    fn give_up(&mut self) {
        self.drop_dials();
        self.dialing.forget_requests();
    }

    fn drop_dials(&mut self) {
        while let Some(number) = self.dialing.dials().first().map(Dial::number) {
            self.drop_dial(number);
        }
    }

    fn drop_dial(&mut self, number: u32) {
        if let Some(dial) = self.dialing.give_up(number) {
            self.leaving.end(dial.into_connection().0);
        }
    }

    fn fresh_index(&mut self) -> u32 {
        loop {
            let index = self.rng.random();
            let dialing = self.dialing.dials().iter().map(Dial::index);
            if index != 0
                && self
                    .links()
                    .flat_map(|link| link.keys().indexes())
                    .chain(dialing)
                    .all(|taken| taken != index)
            {
                return index;
            }
        }
    }
}

/// Our choice: a carrier that answers again so soon had not died.
const FALSE_WITHIN: Duration = Duration::from_secs(3);

/// Our choice: a rekey is as long as any small packet, and not always of one length.
const REKEY_PADDING: usize = 256;

/// Our choice: carriers that are pinged through an outage: the last that answered, and the newest.
const LIVE_MAX: usize = 3;

/// Our choice: how often a carrier that answers may be replaced because it loses too much.
const BETTER_EVERY: Duration = Duration::from_secs(60);

/// Our choice: several round trips of a bad path.
const BETTER_WITHIN: Duration = Duration::from_secs(3);

/// Our choice: what a direction is thought to lose before it was measured.
const UNKNOWN_LOSS: f64 = 0.05;
