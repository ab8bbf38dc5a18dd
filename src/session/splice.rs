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

use crate::flow::{self, FlowId, Flows, Refusal};
use crate::mux::{self, Mux, ResetCode, StreamId, TooManyStreams};

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

    fn open(&mut self, _: usize, target: SocketAddr, _: Instant) -> Result<StreamId, TooManyStreams> {
        self.0.open(target)
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
    /// Refused or left to be asked again: to a peer that has all the flows that it may have.
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
            stats: SpliceStats::default(),
            connect: Connect::Faithful,
        }
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
                self.flows.reset(flow, now);
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
            return Err(Refusal::HostUnreachable);
        };
        let share = self.share(peer);
        if share.flows >= self.most.flows || share.waiting >= self.most.waiting {
            self.stats.limited += 1;
            let is_full = share.flows >= self.most.flows;
            return Err(if is_full { Refusal::Reset } else { Refusal::Silent });
        }
        let stream = sessions.open(peer, target, now).map_err(|_| Refusal::Reset)?;
        self.stats.opened += 1;
        self.streams.insert(id, Spliced { peer, stream, connected: false });
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
        let Spliced { peer, stream, connected } = self.streams.remove(&flow)?;
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
