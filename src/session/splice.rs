//! Joins each inner TCP flow that a program on this side opened to its MUX stream: what happens to one end happens to the
//! other.
//!
//! | the app | the stream | | the stream | the app |
//! |---|---|---|---|---|
//! | SYN | OPEN | | OPENED | SYN-ACK |
//! | bytes | DATA | | DATA | bytes |
//! | FIN | FIN | | FIN | FIN |
//! | RST | RESET | | RESET | RST, or the ICMP error of its code |
//!
//! With [`Connect::Fast`] the SYN-ACK waits for nothing, and a RESET is always a RST.
//!
//! A client's programs all go through its one session. A server's have a session for each client, which is found by the address
//! that they connect to: see [`Sessions`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::flow_list::{FlowState, FlowStatus, Side};
use crate::flow::{self, FlowId, Flows, Refusal};
use crate::mux::{self, Mux, ResetCode, StreamId, TooManyStreams};
use crate::rate::{Bucket, Rate};

/// When an app's connect is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connect {
    /// When the target has answered, and as the target answered.
    #[default]
    Faithful,
    /// At once: a round trip less, and a refusal comes as a reset of the connection.
    Fast,
}

/// The sessions that flows are joined to, each of a peer.
pub(crate) trait Sessions {
    /// The peer that `target` leads to; `None` when nobody who is there has it.
    fn route(&self, target: SocketAddr) -> Option<usize>;

    /// Opens a stream in the session of a peer.
    fn open(&mut self, peer: usize, target: SocketAddr, now: Instant) -> Result<StreamId, TooManyStreams>;

    /// The streams of a peer, if it has a session; there may be something to send afterwards.
    fn mux(&mut self, peer: usize) -> Option<&mut Mux>;

    /// Whether an app may be told by an ICMP error that its target leads nowhere: strangers might ask for too many.
    fn may_report(&mut self, _: Instant) -> bool {
        true
    }

    /// The next event of a stream that this end opened, and the peer whose it is.
    fn poll_event(&mut self) -> Option<(usize, mux::Event)>;
}

/// The one session of a client.
#[derive(Debug)]
pub(crate) struct Only<'a>(pub(crate) &'a mut Mux);

impl Sessions for Only<'_> {
    fn route(&self, _: SocketAddr) -> Option<usize> {
        Some(0)
    }

    fn open(&mut self, _: usize, target: SocketAddr, now: Instant) -> Result<StreamId, TooManyStreams> {
        self.0.open(target, now)
    }

    fn mux(&mut self, _: usize) -> Option<&mut Mux> {
        Some(self.0)
    }

    fn poll_event(&mut self) -> Option<(usize, mux::Event)> {
        Some((0, self.0.poll_event_of(mux::Opener::Here)?))
    }
}

/// All flows, and the stream of each.
#[derive(Debug)]
pub(crate) struct Splice {
    /// The inner TCP connections.
    pub(crate) flows: Flows,
    streams: HashMap<FlowId, Spliced>,
    flow_of: HashMap<(usize, StreamId), FlowId>,
    /// By peer; those without flows are left out.
    shares: HashMap<usize, Share>,
    /// What one peer may have of everything.
    most: Share,
    /// How often streams to one peer may be opened, …
    rate: Option<Rate>,
    /// … by peer.
    opens: HashMap<usize, Bucket>,
    stats: SpliceStats,
    connect: Connect,
}

/// What became of connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpliceStats {
    /// Flows opened since the start.
    pub(crate) opened: u64,
    /// Refused: to nobody who is there.
    pub(crate) unrouted: u64,
    /// Refused or left to be asked again: to a peer that has all the flows that it may have, or was asked for more too often.
    pub(crate) limited: u64,
}

/// How many flows lead to one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) flows: usize,
    /// Of those, the ones whose app's connect was not answered.
    pub(crate) waiting: usize,
}

#[derive(Clone, Copy, Debug)]
struct Spliced {
    peer: usize,
    stream: StreamId,
    /// The app's connect was answered.
    connected: bool,
    begun: Instant,
}

impl Splice {
    /// No flows yet, and at most so many to each peer; connects are answered faithfully.
    pub(crate) fn new(flows: Flows, most: Share) -> Self {
        Self {
            flows,
            streams: HashMap::new(),
            flow_of: HashMap::new(),
            shares: HashMap::new(),
            most,
            rate: None,
            opens: HashMap::new(),
            stats: SpliceStats::default(),
            connect: Connect::Faithful,
        }
    }

    /// The same, with as many streams to each peer in a second; apps beyond ask again.
    pub(crate) fn with_rate(self, rate: Rate) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// From now on connects are answered like this.
    pub(crate) fn set_connect(&mut self, connect: Connect) {
        self.connect = connect;
    }

    /// Passes on whatever happened on either side, until nothing happens any more. Returns whether anything did.
    pub(crate) fn pump(&mut self, sessions: &mut impl Sessions, now: Instant) -> bool {
        for moved in 0.. {
            if let Some(event) = self.flows.poll_event() {
                self.on_flow(event, sessions, now);
            } else if let Some((peer, event)) = sessions.poll_event() {
                self.on_stream(peer, event, sessions, now);
            } else {
                return moved > 0;
            }
        }
        true
    }

    /// Forgets every stream and resets every flow: their sessions are gone.
    pub(crate) fn reset_all(&mut self, now: Instant) {
        self.streams.clear();
        self.flow_of.clear();
        self.shares.clear();
        self.flows.reset_all(now);
        while self.flows.poll_event().is_some() {}
    }

    /// The session of a peer is gone: its flows are reset, and apps that still connect ask again.
    pub(crate) fn reset_peer(&mut self, peer: usize, now: Instant) {
        for flow in self.of_peer(peer) {
            let connected = self.is_connected(flow);
            self.forget(flow);
            if connected {
                self.flows.reset_at_once(flow, now);
            } else {
                self.flows.refuse(flow, Refusal::Silent, now);
            }
        }
    }

    /// Apps that wait for a peer are told that it is not there.
    pub(crate) fn refuse_waiting(&mut self, peer: usize, sessions: &mut impl Sessions, now: Instant) {
        let mut waiting = self.of_peer(peer);
        waiting.retain(|flow| !self.is_connected(*flow));
        for flow in waiting {
            let stream = self.forget(flow);
            if let Some((mux, stream)) = sessions.mux(peer).zip(stream) {
                mux.reset(stream, ResetCode::Timeout);
            }
            self.flows.refuse(flow, Refusal::HostUnreachable, now);
        }
    }

    /// Flows open now.
    pub(crate) fn open(&self) -> usize {
        self.streams.len()
    }

    /// Flows to a peer.
    pub(crate) fn share(&self, peer: usize) -> Share {
        self.shares.get(&peer).copied().unwrap_or_default()
    }

    /// The peers whose answers apps wait for, in no order.
    pub(crate) fn waited_for(&self) -> impl Iterator<Item = usize> {
        self.shares.iter().filter(|(_, share)| share.waiting > 0).map(|(peer, _)| *peer)
    }

    /// Tells `take` of every flow and the peer that it leads to. An app may not have taken all of a stream that is over.
    pub(crate) fn describe<'a>(
        &self,
        mux: impl Fn(usize) -> Option<&'a Mux>,
        side: Side,
        now: Instant,
        mut take: impl FnMut(usize, FlowStatus),
    ) {
        self.streams.iter().for_each(|(&id, &Spliced { peer, stream, begun, .. })| {
            let Some((source, target)) = self.flows.ends(id) else { return };
            let flow = match mux(peer).and_then(|mux| mux.stream(stream, now)) {
                Some(stream) => FlowStatus::of_stream(&stream, side, Some(source)),
                None => FlowStatus {
                    is_from_client: side == Side::Client,
                    source: Some(source),
                    target,
                    state: FlowState::Closing,
                    age: now.saturating_duration_since(begun),
                    traffic: None,
                },
            };
            take(peer, flow);
        });
    }

    /// Counts since the start.
    pub(crate) fn stats(&self) -> SpliceStats {
        self.stats
    }

    fn on_flow(&mut self, event: flow::Event, sessions: &mut impl Sessions, now: Instant) {
        match event {
            flow::Event::Connect { id, target, .. } => {
                if let Err(refusal) = self.connect(id, target, sessions, now) {
                    self.flows.refuse(id, refusal, now);
                }
            }
            flow::Event::Readable { id } => self.pump_up(id, sessions),
            flow::Event::Writable { id } => self.pump_down(id, sessions, now),
            flow::Event::Finished { id } => {
                if let Some((mux, spliced)) = self.stream_of(id, sessions) {
                    mux.finish(spliced.stream);
                }
            }
            flow::Event::Reset { id } => {
                if let Some((mux, spliced)) = self.stream_of(id, sessions) {
                    mux.abort(spliced.stream, ResetCode::Reset);
                }
                self.forget(id);
            }
            flow::Event::Closed { id } => {
                self.forget(id);
            }
        }
    }

    fn connect(
        &mut self,
        id: FlowId,
        target: SocketAddr,
        sessions: &mut impl Sessions,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(peer) = sessions.route(target) else {
            self.stats.unrouted += 1;
            return Err(if sessions.may_report(now) { Refusal::HostUnreachable } else { Refusal::Silent });
        };
        let share = self.share(peer);
        if share.flows >= self.most.flows || share.waiting >= self.most.waiting {
            self.stats.limited += 1;
            let is_full = share.flows >= self.most.flows;
            return Err(if is_full { Refusal::Reset } else { Refusal::Silent });
        }
        let rate = self.rate;
        if rate.is_some_and(|rate| !self.opens.entry(peer).or_default().take(rate, now))
            || !self.flows.join(id, peer)
        {
            self.stats.limited += 1;
            return Err(Refusal::Silent);
        }
        let stream = sessions.open(peer, target, now).map_err(|TooManyStreams| {
            self.stats.limited += 1;
            Refusal::Reset
        })?;
        self.stats.opened += 1;
        self.streams.insert(id, Spliced { peer, stream, connected: false, begun: now });
        self.flow_of.insert((peer, stream), id);
        self.shares.insert(peer, Share { flows: share.flows + 1, waiting: share.waiting + 1 });
        match self.connect {
            Connect::Faithful => {}
            Connect::Fast => self.accept(id, now),
        }
        Ok(())
    }

    fn on_stream(&mut self, peer: usize, event: mux::Event, sessions: &mut impl Sessions, now: Instant) {
        let id = match event {
            // What the peer opens is for the shell.
            mux::Event::Open { .. } | mux::Event::GoAway => return,
            mux::Event::Opened { id }
            | mux::Event::Readable { id }
            | mux::Event::Writable { id }
            | mux::Event::Finished { id }
            | mux::Event::Reset { id, .. } => id,
        };
        let Some(&flow) = self.flow_of.get(&(peer, id)) else { return };
        match event {
            mux::Event::Opened { .. } => self.accept(flow, now),
            mux::Event::Readable { .. } => self.pump_down(flow, sessions, now),
            mux::Event::Writable { .. } => self.pump_up(flow, sessions),
            mux::Event::Finished { .. } => self.flows.finish(flow, now),
            mux::Event::Reset { code, .. } => self.end(flow, code, now),
            mux::Event::Open { .. } | mux::Event::GoAway => {}
        }
    }

    fn accept(&mut self, flow: FlowId, now: Instant) {
        if let Some(spliced) = self.streams.get_mut(&flow).filter(|spliced| !spliced.connected) {
            spliced.connected = true;
            if let Some(share) = self.shares.get_mut(&spliced.peer) {
                share.waiting -= 1;
            }
            self.flows.accept(flow, now);
        }
    }

    fn end(&mut self, flow: FlowId, code: ResetCode, now: Instant) {
        let connected = self.is_connected(flow);
        self.forget(flow);
        if connected {
            self.flows.reset(flow, now);
        } else {
            self.flows.refuse(flow, refusal(code), now);
        }
    }

    /// App to stream, as far as the stream has room.
    fn pump_up(&mut self, flow: FlowId, sessions: &mut impl Sessions) {
        let Some((mux, Spliced { stream, .. })) = self.stream_of(flow, sessions) else { return };
        while self.flows.read(flow, |bytes| mux.write(stream, bytes)) > 0 {}
    }

    /// Stream to app, as far as the app's window has room; what the app took is given back as credit.
    fn pump_down(&mut self, flow: FlowId, sessions: &mut impl Sessions, now: Instant) {
        let Some((mux, Spliced { stream, connected: true, .. })) = self.stream_of(flow, sessions) else {
            return;
        };
        loop {
            let taken = self.flows.write(flow, mux.readable(stream), now);
            if taken == 0 {
                break;
            }
            mux.consume(stream, taken, now);
        }
    }

    fn stream_of<'a>(&self, flow: FlowId, sessions: &'a mut impl Sessions) -> Option<(&'a mut Mux, Spliced)> {
        let spliced = *self.streams.get(&flow)?;
        Some((sessions.mux(spliced.peer)?, spliced))
    }

    fn is_connected(&self, flow: FlowId) -> bool {
        self.streams.get(&flow).is_some_and(|spliced| spliced.connected)
    }

    /// The flows to a peer, always in the same order.
    fn of_peer(&self, peer: usize) -> Vec<FlowId> {
        if self.share(peer).flows == 0 {
            return Vec::new();
        }
        let theirs = self.streams.iter().filter(|(_, spliced)| spliced.peer == peer);
        let mut flows: Vec<_> = theirs.map(|(flow, _)| *flow).collect();
        flows.sort_unstable();
        flows
    }

    fn forget(&mut self, flow: FlowId) -> Option<StreamId> {
        let Spliced { peer, stream, connected, .. } = self.streams.remove(&flow)?;
        self.flow_of.remove(&(peer, stream));
        if let Some(share) = self.shares.get_mut(&peer) {
            share.flows -= 1;
            share.waiting -= usize::from(!connected);
            if share.flows == 0 {
                self.shares.remove(&peer);
            }
        }
        Some(stream)
    }
}

/// How an app is told of a far end that never answered `OPENED`.
fn refusal(code: ResetCode) -> Refusal {
    match code {
        ResetCode::Refused => Refusal::Refused,
        ResetCode::HostUnreachable => Refusal::HostUnreachable,
        ResetCode::NetUnreachable => Refusal::NetUnreachable,
        ResetCode::Timeout => Refusal::Silent,
        ResetCode::Denied | ResetCode::Reset | ResetCode::Limit => Refusal::Reset,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pnet::packet::tcp::TcpFlags;

    use super::*;
    use crate::flow::{FlowLimits, Segment};
    use crate::mux::{Limits, Opener, Role};
    use crate::packet;
    use crate::packet::tcp::tests::segment;

    /// Two peers, each with its own end of a session; the second may be away.
    struct Pair {
        here: [Mux; 2],
        there: [Mux; 2],
        is_second_away: bool,
    }

    impl Pair {
        fn new() -> Self {
            let mux = |role| Mux::new(role, Limits::default());
            Self {
                here: [Role::Server; 2].map(mux),
                there: [Role::Client; 2].map(mux),
                is_second_away: false,
            }
        }

        fn pass(&mut self, now: Instant) {
            for (here, there) in self.here.iter_mut().zip(&mut self.there) {
                carry(here, there, now);
                carry(there, here, now);
            }
        }

        /// What a peer was asked for.
        fn asked(&mut self, peer: usize) -> Option<(StreamId, SocketAddr)> {
            match self.there[peer].poll_event() {
                Some(mux::Event::Open { id, target }) => Some((id, target)),
                _ => None,
            }
        }
    }

    fn carry(from: &mut Mux, to: &mut Mux, now: Instant) {
        let mut message = [0; 4096];
        while from.may_fill() {
            let length = from.fill(&mut message, now);
            to.handle_message(&message[..length], now).unwrap();
        }
    }

    impl Sessions for Pair {
        fn route(&self, target: SocketAddr) -> Option<usize> {
            let peer = PEERS.iter().position(|peer| *peer == target.to_string())?;
            (peer == 0 || !self.is_second_away).then_some(peer)
        }

        fn open(
            &mut self,
            peer: usize,
            target: SocketAddr,
            now: Instant,
        ) -> Result<StreamId, TooManyStreams> {
            self.here[peer].open(target, now)
        }

        fn mux(&mut self, peer: usize) -> Option<&mut Mux> {
            self.here.get_mut(peer)
        }

        fn poll_event(&mut self) -> Option<(usize, mux::Event)> {
            (0..).zip(&mut self.here).find_map(|(peer, mux)| Some((peer, mux.poll_event_of(Opener::Here)?)))
        }
    }

    const PEERS: [&str; 2] = ["10.77.0.2:22", "10.77.0.3:22"];
    const NOBODY: &str = "10.77.0.4:22";
    const NONE: Share = Share { flows: 0, waiting: 0 };

    #[expect(clippy::disallowed_methods, reason = "only differences matter")]
    fn now() -> Instant {
        Instant::now()
    }

    fn splice(most: Share) -> Splice {
        Splice::new(Flows::new(FlowLimits::default(), [1; 32], now()), most)
    }

    /// An app at this port connects; what its kernel is told at once.
    fn connect(splice: &mut Splice, pair: &mut Pair, port: u16, target: &str) -> Option<Vec<u8>> {
        let syn = segment(&format!("192.0.2.1:{port}"), target, TcpFlags::SYN, 100, 0, b"");
        splice.flows.handle_packet(&syn, now());
        splice.pump(pair, now());
        pair.pass(now());
        splice.flows.poll_packet(now())
    }

    fn is_reset(packet: &[u8]) -> bool {
        Segment::parse(packet).is_ok_and(|segment| segment.is_reset())
    }

    fn is_host_unreachable(packet: &[u8]) -> bool {
        packet::parse(packet).unwrap().protocol == packet::ICMP && packet[20..22] == [3, 1]
    }

    #[test]
    fn each_flow_goes_into_the_session_that_its_target_leads_to() {
        let (mut splice, mut pair) = (splice(Share { flows: 9, waiting: 9 }), Pair::new());
        let mut asked = Vec::new();
        // The same id in another session is another stream.
        for (port, peer, expected) in [(1, 0, "2"), (2, 1, "2"), (3, 1, "4")] {
            assert_eq!(connect(&mut splice, &mut pair, port, PEERS[peer]), None, "it waits for its answer");
            let (id, target) = pair.asked(peer).unwrap();
            assert_eq!((id.to_string().as_str(), target.to_string().as_str()), (expected, PEERS[peer]));
            asked.push((peer, id));
        }
        asked.into_iter().for_each(|(peer, id)| pair.there[peer].accept(id));
        pair.pass(now());
        splice.pump(&mut pair, now());
        let answered = std::iter::from_fn(|| splice.flows.poll_packet(now()));
        let mut ports: Vec<_> =
            answered.map(|packet| Segment::parse(&packet).unwrap().destination.port()).collect();
        ports.sort_unstable();
        assert_eq!(ports, [1, 2, 3]);
        assert_eq!(splice.share(1), Share { flows: 2, waiting: 0 });
    }

    #[test]
    fn a_target_of_nobody_and_of_who_is_away_is_unreachable() {
        let (mut splice, mut pair) = (splice(Share { flows: 9, waiting: 9 }), Pair::new());
        pair.is_second_away = true;
        for (port, target) in [(1, NOBODY), (2, PEERS[1])] {
            let answer = connect(&mut splice, &mut pair, port, target).unwrap();
            assert!(is_host_unreachable(&answer), "{answer:02x?}");
        }
        assert_eq!((splice.stats().unrouted, splice.open()), (2, 0));
        assert_eq!(connect(&mut splice, &mut pair, 3, PEERS[0]), None);
    }

    #[test]
    fn one_peer_has_no_more_than_its_share_and_leaves_the_other_its_own() {
        let (mut splice, mut pair) = (splice(Share { flows: 2, waiting: 1 }), Pair::new());
        assert_eq!(connect(&mut splice, &mut pair, 1, PEERS[0]), None);
        let (id, _) = pair.asked(0).unwrap();
        // Only so many wait at a time: the kernel asks again.
        assert_eq!(connect(&mut splice, &mut pair, 2, PEERS[0]), None);
        assert_eq!((pair.asked(0), splice.stats().limited), (None, 1));
        assert_eq!(connect(&mut splice, &mut pair, 3, PEERS[1]), None);
        assert!(pair.asked(1).is_some(), "the other is asked");
        pair.there[0].accept(id);
        pair.pass(now());
        splice.pump(&mut pair, now());
        assert!(splice.flows.poll_packet(now()).is_some_and(|answer| !is_reset(&answer)));
        assert_eq!(connect(&mut splice, &mut pair, 2, PEERS[0]), None);
        let (id, _) = pair.asked(0).unwrap();
        let refused = connect(&mut splice, &mut pair, 4, PEERS[0]).unwrap();
        assert!(is_reset(&refused), "{refused:02x?}");
        assert_eq!((splice.share(0), splice.stats().limited), (Share { flows: 2, waiting: 1 }, 2));
        pair.there[0].reset(id, ResetCode::Refused);
        pair.pass(now());
        splice.pump(&mut pair, now());
        assert_eq!(splice.share(0), Share { flows: 1, waiting: 0 });
    }

    #[test]
    fn who_stopped_asking_leaves_no_stream_behind() {
        let (mut splice, mut pair) = (splice(Share { flows: 9, waiting: 9 }), Pair::new());
        let begun = now();
        connect(&mut splice, &mut pair, 1, PEERS[0]);
        let (id, _) = pair.asked(0).unwrap();
        while let Some(due) = splice.flows.poll_timeout() {
            splice.flows.handle_timeout(due);
            assert!(due - begun < Duration::from_secs(200));
        }
        splice.pump(&mut pair, now());
        pair.pass(now());
        assert_eq!(pair.there[0].poll_event(), Some(mux::Event::Reset { id, code: ResetCode::Reset }));
        assert_eq!((splice.share(0), splice.open(), splice.flows.stats().flows), (NONE, 0, 0));
    }

    #[test]
    fn a_peer_that_answers_nothing_leaves_the_others_their_memory() {
        // What waits takes memory, too: a small budget has room for fewer than may wait.
        for memory in [8 << 20, 128 << 20] {
            let limits = FlowLimits { memory, memory_of_group: memory / 4, ..FlowLimits::default() };
            let all = Share { flows: usize::MAX, waiting: usize::MAX };
            let mut splice = Splice::new(Flows::new(limits, [1; 32], now()), all);
            let mut pair = Pair::new();
            for port in 1..=4000 {
                assert_eq!(connect(&mut splice, &mut pair, port, PEERS[0]), None);
            }
            let held = splice.flows.stats().memory;
            assert!(splice.share(0).waiting > 100 && held <= memory / 4, "{held}");
            assert_eq!(splice.stats().limited, 4000 - splice.share(0).waiting as u64);
            assert_eq!(connect(&mut splice, &mut pair, 5000, PEERS[1]), None);
            assert!(pair.asked(1).is_some(), "the other is asked");
        }
    }

    #[test]
    fn a_peer_is_asked_only_so_often_and_another_all_the_same() {
        let all = Share { flows: usize::MAX, waiting: usize::MAX };
        let (mut splice, mut pair) = (splice(all).with_rate(Rate::per_second(1, 3)), Pair::new());
        let asked = (1..=5).filter(|port| {
            assert_eq!(connect(&mut splice, &mut pair, *port, PEERS[0]), None);
            pair.asked(0).is_some()
        });
        assert_eq!(asked.count(), 3);
        assert_eq!((splice.share(0).waiting, splice.stats().limited), (3, 2));
        assert_eq!(connect(&mut splice, &mut pair, 6, PEERS[1]), None);
        assert!(pair.asked(1).is_some());
    }

    #[test]
    fn a_session_that_ends_takes_its_own_flows_along_and_no_others() {
        let (mut splice, mut pair) = (splice(Share { flows: 9, waiting: 9 }), Pair::new());
        for (port, peer) in [(1, 0), (2, 1), (3, 1)] {
            connect(&mut splice, &mut pair, port, PEERS[peer]);
            let (id, _) = pair.asked(peer).unwrap();
            if port != 3 {
                pair.there[peer].accept(id);
            }
        }
        pair.pass(now());
        splice.pump(&mut pair, now());
        while splice.flows.poll_packet(now()).is_some() {}
        splice.reset_peer(1, now());
        // Who was connected learns it; who waits asks again, and is heard by the next session.
        let told = splice.flows.poll_packet(now()).unwrap();
        assert!(is_reset(&told) && Segment::parse(&told).unwrap().destination.port() == 2, "{told:02x?}");
        assert_eq!(splice.flows.poll_packet(now()), None);
        assert_eq!((splice.share(0).flows, splice.share(1)), (1, NONE));
        (pair.here[1], pair.there[1]) = {
            let Pair { here: [here, _], there: [there, _], .. } = Pair::new();
            (here, there)
        };
        assert_eq!(connect(&mut splice, &mut pair, 3, PEERS[1]), None);
        assert!(pair.asked(1).is_some());
    }

    #[test]
    fn who_waits_for_a_peer_that_went_silent_is_told_and_its_stream_is_reset() {
        let (mut splice, mut pair) = (splice(Share { flows: 9, waiting: 9 }), Pair::new());
        for (port, peer) in [(1, 0), (2, 1)] {
            connect(&mut splice, &mut pair, port, PEERS[peer]);
        }
        let (id, _) = pair.asked(1).unwrap();
        splice.refuse_waiting(1, &mut pair, now());
        assert!(is_host_unreachable(&splice.flows.poll_packet(now()).unwrap()));
        assert_eq!((splice.flows.poll_packet(now()), splice.share(1)), (None, NONE));
        assert_eq!(splice.share(0), Share { flows: 1, waiting: 1 }, "the other waits on");
        pair.pass(now());
        assert_eq!(pair.there[1].poll_event(), Some(mux::Event::Reset { id, code: ResetCode::Timeout }));
    }
}
