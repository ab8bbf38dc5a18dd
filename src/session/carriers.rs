//! The client's carriers: the one in use, those beside it, those that were, and those in the making.
//!
//! ```text
//!  dialing ──message 2──> live ──another answers──> retired ──10 s──> FIN
//! ```
//!
//! Which carriers there are, which is used and which answers is decided here; what they carry is not known here.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::dial::{Caller, Dial, Offer, Progress, Reach, Room};
use super::dialing::{Dialing, Request};
use super::engine::Engine;
use super::frame::{self, CloseCode};
use super::link::{Link, RekeyAnswer};
use super::liveness::Liveness;
use super::path_mtu::ETHERNET;
use super::rekey::Renewal;
use super::status::{CarrierStatus, Traffic};
use crate::carrier::{self, DropReason, Mode, Segment};
use crate::crypto::{Header, Keys, MESSAGE1_MIN_LEN, Mask, Message2, Timestamp};

/// All carriers of a client.
#[derive(Debug)]
pub(crate) struct Carriers {
    caller: Caller,
    mode: Mode,
    mask: Mask,
    rng: StdRng,
    dialing: Dialing,
    /// Those that may carry the session, the newest last; packets leave on the last.
    live: Vec<Carrier>,
    retired: VecDeque<Retired>,
    /// Of the interface towards the server, in bytes.
    mtu: u16,
    /// Since when nothing makes the round trip, once that was noticed.
    outage: Option<Instant>,
    migrations: u64,
    /// Of the last message 1.
    timestamp: Option<Timestamp>,
    traffic: Traffic,
    /// What connections saw that are no more.
    outside: carrier::Stats,
    events: VecDeque<CarrierEvent>,
}

/// What the session is like now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    /// Somebody waits for the path: pings go on at full pace through an outage.
    pub(crate) urgent: bool,
    /// KCP waits for an acknowledgement.
    pub(crate) unacked: bool,
    pub(crate) epoch: u32,
}

/// What the owner must do or may tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CarrierEvent {
    /// A port towards `remote` is wanted, for [`Carriers::dial`].
    Dial { attempt: u32, remote: SocketAddr },
    /// This end of a 4-tuple is not used any more.
    Retired(SocketAddr),
    /// No carrier answers.
    Suspect,
    /// One answers again.
    Recovered,
}

/// What an outer packet was.
#[derive(Debug)]
pub(crate) enum Arrival<'a> {
    /// Nothing that anyone else has to know.
    Nothing,
    /// Frames, that the carrier of this number brought.
    Frames(u32, &'a [u8]),
    /// The server accepts the carrier that is in use from now on.
    Accepted(Message2),
    /// The server answers, but with no keys.
    Answered(Message2),
    /// Nothing of ours.
    Dropped(Dropped),
}

/// Why an outer packet was not acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// On no 4-tuple of ours.
    Stranger,
    /// On a carrier that ended.
    Late,
    /// Its index is not the carrier's.
    Index,
    /// Does not open, or opened before.
    Sealed,
}

/// A carrier that may carry the session.
#[derive(Debug)]
struct Carrier {
    link: Link,
    liveness: Liveness,
}

/// A carrier that was in use: while the session lasts it opens what is still on its way; then it ends with a FIN.
#[derive(Debug)]
struct Retired {
    link: Link,
    until: Instant,
}

impl Carriers {
    pub(crate) fn new(caller: Caller, mode: Mode, rng: StdRng, now: Instant) -> Self {
        Self {
            mask: Mask::new(&caller.server_key),
            caller,
            mode,
            rng,
            dialing: Dialing::new(now),
            live: Vec::new(),
            retired: VecDeque::new(),
            mtu: ETHERNET,
            outage: None,
            migrations: 0,
            timestamp: None,
            traffic: Traffic::default(),
            outside: carrier::Stats::default(),
            events: VecDeque::new(),
        }
    }

    /// From now on these are the addresses of each server.
    pub(crate) fn set_servers(&mut self, servers: Vec<Vec<SocketAddr>>) {
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
        let timestamp = Timestamp::after(self.timestamp, self.dialing.timestamp(wall));
        self.timestamp = Some(timestamp);
        let offer = Offer { timestamp, index: self.fresh_index(), epoch };
        let lifetime = self.dialing.lifetime();
        let room = Room { mtu: self.mtu, known: self.known_size(local, request.remote) };
        match Dial::begin(&self.caller, request, (offer, room), local, lifetime, &mut self.rng, now) {
            Some(dial) => {
                self.timestamp = self.timestamp.max(dial.timestamp());
                self.dialing.dials.push(dial);
            }
            None => {
                self.events.push_back(CarrierEvent::Retired(local));
                self.dialing.on_failure(now);
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
            self.dialing.on_failure(now);
        }
    }

    /// Takes one outer packet, and opens it in place.
    pub(crate) fn handle_segment<'a>(
        &mut self,
        segment: &Segment,
        packet: &'a mut [u8],
        now: Instant,
    ) -> Arrival<'a> {
        match self.dialing.dials.iter_mut().find(|dial| dial.is_from(segment)) {
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
        while let Some(number) = self.dialing.expired(now) {
            self.drop_dial(number);
            self.dialing.on_failure(now);
        }
        self.check_requests(now);
    }

    /// Writes the next outer packet into `out`: of the carrier in use, also what `engine` has to send. `false` when there is
    /// none now.
    pub(crate) fn poll_transmit(&mut self, engine: &mut Engine, out: &mut Vec<u8>, now: Instant) -> bool {
        if self.dialing.dials.iter_mut().any(|dial| dial.poll_transmit(out, now)) {
            return true;
        }
        let Some(used) = self.live.last_mut() else { return false };
        if used.link.poll_transmit(Some(engine), out, now) || used.link.poll_ack(out, now) {
            self.traffic.on_sent(out);
            self.begin_rekey(engine.epoch(), now);
            return true;
        }
        used.liveness.on_unacked(engine.has_unacked(), now);
        false
    }

    /// The same for what old carriers have left to say.
    pub(crate) fn poll_last_words(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        self.retired.iter_mut().any(|retired| retired.link.poll_ack(out, now))
    }

    pub(crate) fn poll_event(&mut self) -> Option<CarrierEvent> {
        self.events.pop_front()
    }

    /// When a dial, a ping or the end of patience is due.
    pub(crate) fn poll_timeout(&self, urgent: bool) -> Option<Instant> {
        let dialing = self.dialing.poll_timeout(self.needs_carrier());
        let used = self.live.last();
        let ping = used.map(|used| used.liveness.ping_due(urgent));
        let suspect = used.filter(|_| self.outage.is_none()).and_then(|used| used.liveness.suspect_at());
        [dialing, ping, suspect].into_iter().flatten().min()
    }

    /// When a TCP packet without payload is due, or the end of an old carrier; also once no other is opened.
    pub(crate) fn poll_link_timeout(&self) -> Option<Instant> {
        let acks = self.live.iter().filter_map(|carrier| carrier.link.poll_timeout());
        let retired = self.retired.iter().filter(|retired| !retired.link.is_closing());
        acks.chain(retired.map(|retired| retired.until)).min()
    }

    /// Whether there is a carrier to send on.
    pub(crate) fn has_live(&self) -> bool {
        !self.live.is_empty()
    }

    /// Whether no carrier answers.
    pub(crate) fn needs_carrier(&self) -> bool {
        self.live.is_empty() || self.outage.is_some()
    }

    /// Since when nothing makes the round trip.
    pub(crate) fn outage(&self) -> Option<Instant> {
        self.outage
    }

    /// Every flow was given up: the outage is counted anew, and whichever server answers is as good.
    pub(crate) fn on_given_up(&mut self, now: Instant) {
        self.outage = Some(now);
        self.dialing.servers.on_given_up();
    }

    /// Something was sent or received: the path is in use.
    pub(crate) fn on_traffic(&mut self) {
        if let Some(used) = self.live.last_mut() {
            used.liveness.on_traffic();
        }
    }

    /// A KCP packet came on carrier `number`; says whether packets make the round trip.
    pub(crate) fn on_kcp(&mut self, number: u32, acknowledged: bool, unacked: bool, now: Instant) -> bool {
        let Some(used) = self.live.last_mut() else { return false };
        used.liveness.on_traffic();
        // On an old carrier an answer proves nothing of the one in use.
        if acknowledged && used.link.number() == number {
            used.liveness.on_acknowledged(now);
        }
        used.liveness.on_unacked(unacked, now);
        used.liveness.waiting_since().is_none()
    }

    /// A ping was answered; says whether it was one of the carrier in use.
    pub(crate) fn on_pong(&mut self, token: u64, now: Instant) -> bool {
        self.live.last_mut().is_some_and(|used| {
            !used.link.path_mut().on_pong(token, now) && used.liveness.on_pong(token, now)
        })
    }

    /// The server asks, on carrier `number`, in an outer packet of `size` bytes; only where packets may leave is it answered.
    pub(crate) fn on_ping(&mut self, number: u32, token: u64, size: usize) {
        if let Some(used) = self.live.iter_mut().find(|carrier| carrier.link.number() == number) {
            used.link.queue_pong(token, size);
        }
    }

    /// When the carrier in use asks how large packets may be.
    pub(crate) fn probe_due(&self, srtt: Option<Duration>) -> Option<Instant> {
        self.live.last().and_then(|used| used.link.probe_due(srtt))
    }

    /// The carrier in use answers, no other is needed; returns whether none did before.
    pub(crate) fn settle(&mut self, now: Instant) -> bool {
        if self.outage.is_none() && self.dialing.is_settled() {
            return false;
        }
        self.drop_dials();
        self.dialing.on_settled(now);
        if let Some(used) = self.live.last() {
            self.dialing.servers.on_carried_by(used.link.connection().remote());
        }
        let was_out = self.outage.take().is_some();
        if was_out {
            self.events.push_back(CarrierEvent::Recovered);
        }
        was_out
    }

    /// The carrier in use was taken over from another.
    pub(crate) fn on_migration(&mut self) {
        self.migrations += 1;
    }

    /// Asks on the carrier in use at once.
    pub(crate) fn ping(&mut self, demand: Demand, now: Instant) {
        if let Some(used) = self.live.last_mut() {
            used.liveness.ask_now(now);
        }
        self.poll_ping(demand, now);
    }

    /// The server knows a later timestamp of ours.
    pub(crate) fn on_stale(&mut self, above: Timestamp, now: Instant) {
        self.drop_dials();
        self.dialing.on_stale(above, now);
    }

    /// The server said goodbye on its carriers: others are to be opened.
    pub(crate) fn on_goodbye(&mut self, now: Instant) {
        if self.has_live() {
            self.retire_live(now);
            self.on_outage(now);
        }
    }

    /// Ends: `code` is said on the carrier in use.
    pub(crate) fn close(&mut self, code: CloseCode) {
        self.give_up();
        for carrier in &mut self.live {
            carrier.link.say_goodbye(code);
        }
        self.retired.iter_mut().for_each(|retired| retired.link.close());
    }

    /// Ends without a word; what is on its way is still opened.
    pub(crate) fn abandon(&mut self, now: Instant) {
        self.give_up();
        self.retire_live(now);
    }

    /// Old carriers whose time is over end, and their ports are let go.
    pub(crate) fn check_retired(&mut self, now: Instant) {
        for retired in self.retired.iter_mut().filter(|retired| retired.until <= now) {
            retired.link.close();
        }
        let is_done = |retired: &Retired| retired.link.is_closed();
        while self.retired.front().is_some_and(is_done) || self.retired.len() > RETIRED_MAX {
            if let Some(retired) = self.retired.pop_front() {
                self.forget(retired.link.connection());
            }
        }
    }

    /// How far towards the server the dials came so far.
    pub(crate) fn reach(&self) -> Reach {
        self.dialing.reach()
    }

    /// The same of those that are over.
    pub(crate) fn past_reach(&self) -> Reach {
        self.dialing.past_reach()
    }

    pub(crate) fn migrations(&self) -> u64 {
        self.migrations
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Those that may carry the session, the one in use first.
    pub(crate) fn status(&self, now: Instant) -> Vec<CarrierStatus> {
        let live = self.live.iter().rev();
        live.map(|carrier| CarrierStatus::of(&carrier.link, carrier.liveness.srtt(), now)).collect()
    }

    /// How many there are, old ones and those in the making included.
    pub(crate) fn count(&self) -> usize {
        self.live.len() + self.retired.len() + self.dialing.dials.len()
    }

    /// What every connection saw of the outside so far.
    pub(crate) fn outside(&self) -> carrier::Stats {
        let mut total = self.outside;
        let links = self.links().map(Link::connection);
        let dialing = self.dialing.dials.iter().map(Dial::connection);
        links.chain(dialing).for_each(|connection| total += connection.stats());
        total
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        let live = self.live.iter().map(|carrier| &carrier.link);
        live.chain(self.retired.iter().map(|retired| &retired.link))
    }

    fn on_progress(&mut self, number: u32, progress: Progress, now: Instant) -> Arrival<'static> {
        match progress {
            Progress::Pending => Arrival::Nothing,
            Progress::Rejected => Arrival::Dropped(Dropped::Sealed),
            Progress::Answered(message) => Arrival::Answered(message),
            Progress::Accepted { message, keys, rtt } => {
                self.on_accepted(number, *keys, rtt, now);
                Arrival::Accepted(message)
            }
        }
    }

    /// The dial has become the carrier in use. Only what is sealed with the new keys proves that data passes.
    fn on_accepted(&mut self, number: u32, keys: Keys, rtt: Duration, now: Instant) {
        let Some(dial) = self.dialing.take(number) else { return };
        self.dialing.on_accepted(now);
        self.retire_live(now);
        self.live.push(Carrier { link: dial.into_link(keys, now), liveness: Liveness::new(rtt, now) });
    }

    fn handle_data<'a>(&mut self, segment: &Segment, packet: &'a mut [u8], now: Instant) -> Arrival<'a> {
        let live = self.live.iter_mut().map(|carrier| &mut carrier.link);
        let mut links = live.chain(self.retired.iter_mut().map(|retired| &mut retired.link));
        let Some(link) = links.find(|link| link.is_from(segment)) else {
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
            return Arrival::Dropped(Dropped::Index);
        };
        let Ok(opened) = link.open(segment, header, payload, now) else {
            return Arrival::Dropped(Dropped::Sealed);
        };
        self.traffic.on_received(segment.payload.end);
        Arrival::Frames(link.number(), opened.plaintext)
    }

    fn check_live(&mut self, demand: Demand, now: Instant) {
        if let Some(used) = self.live.last_mut() {
            used.liveness.on_unacked(demand.unacked, now);
        }
        self.poll_ping(demand, now);
        let Some(used) = self.live.last() else { return };
        let suspect = used.liveness.waiting_since().filter(|_| used.liveness.is_suspect(now));
        if let Some(since) = suspect {
            self.on_outage(since);
        }
    }

    /// Asks if it is time to. A rekey that is due is as good a question, unless the answer is waited for.
    fn poll_ping(&mut self, demand: Demand, now: Instant) {
        let token = self.rng.random();
        let Some(used) = self.live.last_mut() else { return };
        let Some(token) = used.liveness.poll_ping(demand.urgent, token, now) else { return };
        if self.outage.is_none() && self.begin_rekey(demand.epoch, now) {
            return;
        }
        if let Some(used) = self.live.last_mut() {
            used.queue_ping(token, demand.epoch);
        }
    }

    /// Asks for new keys if it is time to and nobody has; says whether it does.
    fn begin_rekey(&mut self, epoch: u32, now: Instant) -> bool {
        let Some(used) = self.live.last().filter(|used| used.link.needs_rekey(now)) else { return false };
        let (mode, number) = (used.link.connection().mode(), used.link.number());
        let Some(timestamp) = self.timestamp.map(Timestamp::next) else { return false };
        let index = self.fresh_index();
        let size = MESSAGE1_MIN_LEN + self.rng.random_range(0..REKEY_PADDING);
        let offer = Offer { timestamp, index, epoch };
        let initiation = self.caller.initiate(mode, number, offer, size, &mut self.rng);
        let Some((initiation, used)) = initiation.zip(self.live.last_mut()) else { return false };
        self.timestamp = Some(timestamp);
        used.link.begin_rekey(Renewal::new(index, initiation, now));
        true
    }

    /// What may be the answer to a rekey came on carrier `number`.
    fn on_rekey(&mut self, number: u32, answer: RekeyAnswer, now: Instant) -> Arrival<'static> {
        match answer {
            RekeyAnswer::NewKeys { asked } => {
                if let Some(used) = self.live.last_mut().filter(|used| used.link.number() == number) {
                    used.liveness.on_answered(asked, now);
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
        while let Some(Request { attempt, remote, .. }) = self.dialing.poll_request(self.mode, now) {
            self.events.push_back(CarrierEvent::Dial { attempt, remote });
        }
    }

    fn on_outage(&mut self, since: Instant) {
        if self.outage.is_none() {
            self.outage = Some(since);
            self.events.push_back(CarrierEvent::Suspect);
        }
    }

    fn retire_live(&mut self, now: Instant) {
        for carrier in self.live.drain(..) {
            self.retired.push_back(Retired { link: carrier.link, until: now + RETIRED_FOR });
        }
        self.check_retired(now);
    }

    fn give_up(&mut self) {
        self.drop_dials();
        self.dialing.forget_requests();
    }

    fn drop_dials(&mut self) {
        while let Some(number) = self.dialing.dials.first().map(Dial::number) {
            self.drop_dial(number);
        }
    }

    fn drop_dial(&mut self, number: u32) {
        if let Some(dial) = self.dialing.give_up(number) {
            self.forget(dial.connection());
        }
    }

    fn forget(&mut self, connection: &carrier::Connection) {
        self.outside += connection.stats();
        self.events.push_back(CarrierEvent::Retired(connection.local()));
    }

    fn fresh_index(&mut self) -> u32 {
        loop {
            let index = self.rng.random();
            let dialing = self.dialing.dials.iter().map(Dial::index);
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

impl Carrier {
    /// A ping says at once which carrier is in use and in which epoch we are, so neither needs an answer of its own.
    fn queue_ping(&mut self, token: u64, epoch: u32) {
        let number = self.link.number();
        self.link.queue(|out| {
            frame::put_use(out, number, number);
            frame::put_epoch(out, epoch);
            frame::put_ping(out, token, 0);
        });
    }
}

/// Packets of an old carrier may still be on their way.
const RETIRED_FOR: Duration = Duration::from_secs(10);

/// Our choice: old carriers that still open packets.
const RETIRED_MAX: usize = 4;

/// Our choice: a rekey is as long as any small packet, and not always of one length.
const REKEY_PADDING: usize = 256;
