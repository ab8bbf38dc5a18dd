//! The reference model: what each flow may have seen, and what it must have seen when all is calm again.
//!
//! | | always | once the network is fair and both ends finish |
//! |---|---|---|
//! | bytes | a prefix of what the other side wrote | all of them, if nothing excuses a break |
//! | FIN | behind the last byte only | at both ends, likewise |
//! | RST | only with an excuse | at both ends, if there was an excuse and the flow had not ended |
//! | refused, unreachable | never established, told as what it is; with a fast connect reset | told |

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vpn::session::{ClientEvent, ClientState, CloseCode, Connect, Ending};

use super::app::{Connection, Outcome};
use super::target::{Manner, Side};
use super::world::{INBOUND, World};

/// All flows of a run, and what may befall them.
#[derive(Debug)]
pub(crate) struct Model {
    flows: BTreeMap<u16, Flow>,
    hosts: Vec<HostModel>,
    dead_after: Duration,
    connect: Connect,
    /// Two hosts of one key are, or were, up at once: either may lose its session.
    contended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    host: usize,
    /// Opened from the server's side, to a service of whichever host has the session.
    inbound: bool,
    manner: Manner,
    excuse: Option<Excuse>,
    /// Who ended its app's TCP began anew: the kernel above keeps a connection that nobody answers.
    orphan: bool,
    /// Nothing can happen to it any more.
    over: bool,
}

/// Why a flow may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excuse {
    ResetByApp,
    ResetByTarget,
    ServerRestarted,
    ClientRestarted,
    /// Another host took the session's place.
    Replaced,
    /// The path was dead longer than anyone waits.
    GivenUp,
    /// The client was not there when somebody reached for it.
    Away,
}

/// Flows that nothing excused: every byte that either end wrote has arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Whole {
    pub(crate) flows: u64,
    /// Of those, the ones from the server's side.
    pub(crate) inbound: u64,
    pub(crate) bytes: u64,
}

/// What is known of one host.
#[derive(Clone, Copy, Debug, Default)]
struct HostModel {
    /// Events looked at.
    seen: usize,
    /// The server does not know its session, or may not: its client may start anew.
    may_restart: bool,
    suspect_since: Option<Instant>,
    /// When it last stood still, and for how long: to its client that looks like an outage.
    stood_still: Option<(Instant, Duration)>,
    ended: bool,
}

impl Model {
    pub(crate) fn new(dead_after: Duration, connect: Connect) -> Self {
        Self {
            flows: BTreeMap::new(),
            hosts: vec![HostModel::default()],
            dead_after,
            connect,
            contended: false,
        }
    }

    pub(crate) fn on_open(&mut self, port: u16, host: usize, manner: Manner) {
        let inbound = INBOUND.contains(&port);
        // Which of two hosts has it is not certain, nor for how long.
        let excuse = (inbound && self.contended).then_some(Excuse::Replaced);
        self.flows.insert(port, Flow { host, inbound, manner, excuse, orphan: false, over: false });
    }

    pub(crate) fn on_answer(&mut self, port: u16) {
        if let Some(flow) = self.flows.get_mut(&port).filter(|flow| flow.manner == Manner::Silent) {
            flow.manner = Manner::Serve;
        }
    }

    /// One end resets the flow.
    pub(crate) fn on_reset(&mut self, port: u16, excuse: Excuse) {
        if let Some(flow) = self.flows.get_mut(&port) {
            flow.excuse.get_or_insert(excuse);
        }
    }

    /// The server forgets every session; targets lose those flows that were connected, and apps those that they think are.
    pub(crate) fn on_server_restart(&mut self, world: &World) {
        for (port, flow) in &mut self.flows {
            let connected = world.side(*port).is_some_and(|side| side.stream.is_some());
            if connected || flow.inbound || self.connect == Connect::Fast {
                flow.excuse.get_or_insert(Excuse::ServerRestarted);
            }
            flow.orphan |= flow.inbound;
        }
        self.hosts.iter_mut().for_each(|host| host.may_restart = true);
    }

    /// The client of a host begins anew. What waits for one of its services is asked again.
    pub(crate) fn on_client_restart(&mut self, host: usize, world: &World) {
        let is_lost =
            |port: u16, inbound: bool| !inbound || world.side(port).is_some_and(|side| side.stream.is_some());
        self.excuse_all(host, Excuse::ClientRestarted, is_lost);
        let own = self.flows.values_mut().filter(|flow| flow.host == host && !flow.inbound);
        own.for_each(|flow| flow.orphan = true);
        self.hosts[host] = HostModel { may_restart: true, ..HostModel::default() };
    }

    /// A second host begins.
    pub(crate) fn on_second_host(&mut self) {
        for older in 0..self.hosts.len() {
            self.excuse_all(older, Excuse::Replaced, |_, _| true);
        }
        self.contended = true;
        self.hosts.push(HostModel { may_restart: true, ..HostModel::default() });
        self.hosts.iter_mut().for_each(|host| host.may_restart = true);
    }

    /// A host stood still until now, for so long.
    pub(crate) fn on_stood_still(&mut self, host: usize, time: Duration, now: Instant) {
        self.hosts[host].stood_still = Some((now, time));
    }

    /// Flows that transitions may still do something with.
    pub(crate) fn open_flows(&self) -> Vec<u16> {
        self.flows.iter().filter(|(_, flow)| !flow.over).map(|(port, _)| *port).collect()
    }

    /// Looks at everything once; panics at the first thing that must not be.
    pub(crate) fn observe(&mut self, world: &World) {
        for host in 0..self.hosts.len() {
            self.observe_host(host, world);
        }
        let ended = self.hosts.iter().filter(|host| host.ended).count();
        self.contended &= ended + 1 < self.hosts.len();
        self.excuse_for_absence(world);
        for (port, flow) in self.flows.iter_mut().filter(|(_, flow)| !flow.over) {
            let connection = world.app(flow.host, *port);
            let side = world.side(*port);
            // Who is on the server's side is always answered as the service answers.
            let connect = if flow.inbound { Connect::Faithful } else { self.connect };
            flow.check(*port, connection, side, connect, self.contended);
            flow.over = connection.outcome.is_some() && side.is_none_or(|side| side.stream.is_none());
        }
    }

    fn observe_host(&mut self, index: usize, world: &World) {
        let events = &world.hosts[index].events;
        while let Some(event) = events.get(self.hosts[index].seen) {
            self.hosts[index].seen += 1;
            self.on_event(index, event, world);
        }
        let host = &mut self.hosts[index];
        if host.may_restart && !self.contended && knows_session(index, world) {
            host.may_restart = false;
        }
    }

    fn on_event(&mut self, index: usize, event: &ClientEvent, world: &World) {
        let host = &mut self.hosts[index];
        match event {
            ClientEvent::Suspect => host.suspect_since = Some(world.now),
            ClientEvent::Recovered => host.suspect_since = None,
            ClientEvent::Restarted => {
                let stood_still = host.stood_still.filter(|(until, _)| world.now - *until < NOTICE);
                let outage = host.suspect_since.map_or(Duration::ZERO, |since| world.now - since)
                    + stood_still.map_or(Duration::ZERO, |(_, time)| time);
                let is_given_up = outage + NOTICE >= self.dead_after;
                assert!(host.may_restart || is_given_up, "host {index} gave up its flows after {outage:?}");
                // The next time, patience counts from here: no second `Suspect` comes while the outage lasts.
                host.suspect_since = host.suspect_since.map(|_| world.now);
                host.stood_still = None;
                let is_lost = |port: u16, inbound: bool| {
                    let connected = world.side(port).is_some_and(|side| side.reset);
                    world.app(index, port).established || (inbound && connected)
                };
                self.excuse_all(index, Excuse::GivenUp, is_lost);
            }
            ClientEvent::Ended(Ending::Replaced) => {
                assert!(self.contended, "host {index} was replaced by nobody");
                host.ended = true;
                self.excuse_all(index, Excuse::Replaced, |_, _| true);
                self.excuse_cut(index, world);
            }
            ClientEvent::Ended(ending) => panic!("host {index} ended: {ending:?}"),
            ClientEvent::Broken(violation) => panic!("host {index} is told what no server says: {violation}"),
            ClientEvent::Closed(code) => {
                assert_eq!(*code, CloseCode::Done, "host {index} said what no client says");
            }
            ClientEvent::Dial { .. } | ClientEvent::Retired(_) | ClientEvent::Up { .. } => {}
        }
    }

    /// Excuses the flows of a host, and those from outside, to which any host may be the one; `applies` takes the port, and
    /// whether it is one from outside.
    fn excuse_all(&mut self, host: usize, excuse: Excuse, applies: impl Fn(u16, bool) -> bool) {
        for (port, flow) in &mut self.flows {
            if (flow.host == host || flow.inbound) && !flow.over && applies(*port, flow.inbound) {
                flow.excuse.get_or_insert(excuse);
            }
        }
    }

    /// Who reaches for a client that is not there is told so.
    fn excuse_for_absence(&mut self, world: &World) {
        let mut waiting = self.flows.iter_mut().filter(|(port, flow)| {
            flow.inbound && !flow.over && flow.excuse.is_none() && !world.app(flow.host, **port).established
        });
        let Some(first) = waiting.next() else { return };
        let silence = world.server.status(world.now).peers[0].last_heard;
        if silence.is_none_or(|silence| silence >= ABSENT) {
            std::iter::once(first).chain(waiting).for_each(|(_, flow)| flow.excuse = Some(Excuse::Away));
        }
    }

    /// Flows that ended for their apps while what they had said was still in the tunnel.
    fn excuse_cut(&mut self, host: usize, world: &World) {
        for (port, flow) in self.flows.iter_mut().filter(|(_, flow)| flow.host == host || flow.inbound) {
            if world.side(*port).is_some_and(|side| side.reset) {
                flow.excuse.get_or_insert(Excuse::Replaced);
            }
        }
    }

    /// The hosts that have not lost their session for good.
    pub(crate) fn standing(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.hosts.iter().enumerate().filter(|(_, host)| !host.ended).map(|(index, _)| index)
    }

    /// What is left to wait for once the network is fair, all readers read and all writers finish.
    pub(crate) fn unfinished(&self, world: &World) -> Vec<String> {
        self.flows
            .iter()
            .filter(|(_, flow)| !flow.over)
            .filter_map(|(port, flow)| {
                let connection = world.app(flow.host, *port);
                let side = world.side(*port);
                flow.lacks(connection, side).map(|what| format!("{port}: {what} ({flow:?})"))
            })
            .collect()
    }

    /// The final judgement: nothing is missing that nothing excuses. Says how many flows had to be whole, and were.
    pub(crate) fn judge(&self, world: &World) -> Whole {
        let mut whole = Whole::default();
        for (port, flow) in self.flows.iter().filter(|(_, flow)| flow.excuse.is_none()) {
            let connection = world.app(flow.host, *port);
            let is_fast = self.connect == Connect::Fast && !flow.inbound;
            let expected = match flow.manner {
                Manner::Serve => Outcome::Finished,
                Manner::Refuse | Manner::Reset => Outcome::Reset,
                Manner::Unreachable if is_fast => Outcome::Reset,
                Manner::Unreachable => Outcome::Unreachable,
                Manner::Silent => unreachable!("every silent target was made to answer"),
            };
            assert_eq!(connection.outcome, Some(expected), "flow {port}: {flow:?}\n{connection:#?}");
            if flow.manner == Manner::Serve {
                let side = world.side(*port).expect("a flow without an excuse was served");
                assert!(side.reader.finished, "flow {port}: the target saw no end\n{side:#?}");
                assert_eq!(side.reader.received, connection.writer.length, "flow {port}: upload");
                assert_eq!(connection.reader.received, side.writer.length, "flow {port}: download");
                whole.flows += 1;
                whole.inbound += u64::from(flow.inbound);
                whole.bytes += side.reader.received + connection.reader.received;
            }
        }
        whole
    }
}

impl Flow {
    /// What holds at any time.
    fn check(
        &self,
        port: u16,
        connection: &Connection,
        side: Option<&Side>,
        connect: Connect,
        contended: bool,
    ) {
        let is_fast = connect == Connect::Fast;
        let (app_wrote, app_ended) = (connection.writer.written, connection.writer.finished);
        let (target_wrote, target_ended) =
            side.map_or((0, false), |side| (side.writer.written, side.writer.finished));
        for (reader, written, ended) in [
            (Some(&connection.reader), target_wrote, target_ended),
            (side.map(|side| &side.reader), app_wrote, app_ended),
        ] {
            let Some(reader) = reader else { continue };
            assert_eq!(reader.wrong, None, "flow {port}: {self:?}\n{connection:#?}\n{side:#?}");
            assert!(
                reader.received <= written,
                "flow {port}: more than was written\n{connection:#?}\n{side:#?}"
            );
            let is_whole = ended && reader.received == written;
            assert!(!reader.finished || is_whole, "flow {port}: an early FIN\n{connection:#?}\n{side:#?}");
        }
        if self.manner != Manner::Serve {
            let may_establish = is_fast || self.manner == Manner::Reset;
            assert!(may_establish || !connection.established, "flow {port}: {self:?} was established");
            assert!(side.is_none(), "flow {port}: {self:?} was served");
        }
        let is_lost = side.is_some_and(|side| side.reset) && connection.established;
        // The host that loses its session to another is told later than the targets.
        assert!(
            !is_lost || contended || self.excuse.is_some(),
            "flow {port}: reset at the target\n{connection:#?}\n{side:#?}"
        );
        let allowed = match connection.outcome {
            None => true,
            Some(Outcome::Finished) => connection.reader.finished && app_ended,
            Some(Outcome::Reset) => {
                self.excuse.is_some()
                    || matches!(self.manner, Manner::Refuse | Manner::Reset)
                    || (is_fast && self.manner == Manner::Unreachable)
            }
            Some(Outcome::Unreachable) => {
                let is_told = self.manner == Manner::Unreachable && !is_fast;
                is_told || (self.inbound && self.excuse.is_some())
            }
        };
        assert!(allowed, "flow {port}: {self:?}\n{connection:#?}\n{side:#?}");
    }

    /// What the flow still waits for.
    fn lacks(&self, connection: &Connection, side: Option<&Side>) -> Option<&'static str> {
        if connection.outcome.is_none() && !self.orphan {
            return Some("the app waits");
        }
        let is_open = |side: &Side| side.stream.is_some() && !(side.reader.finished && side.writer.finished);
        side.is_some_and(is_open).then_some("the target waits")
    }
}

/// Whether the server has the session that this host's client is in, and both agree on its epoch.
fn knows_session(host: usize, world: &World) -> bool {
    let client = world.hosts[host].client.status(world.now);
    let server = world.server.status(world.now);
    let session = server.peers[0].session;
    client.state == ClientState::Up && session.is_some_and(|session| session.epoch == client.session.epoch)
}

/// What a client needs at most to notice that nothing makes the round trip.
const NOTICE: Duration = Duration::from_secs(30);

/// What a client may be silent before it is not there, as the server sees it.
const ABSENT: Duration = Duration::from_secs(60);
