//! Joins each inner TCP flow to its MUX stream on the client: what happens to one end happens to the other.
//!
//! | the app | the stream | | the stream | the app |
//! |---|---|---|---|---|
//! | SYN | OPEN | | OPENED | SYN-ACK |
//! | bytes | DATA | | DATA | bytes |
//! | FIN | FIN | | FIN | FIN |
//! | RST | RESET | | RESET | RST, or the ICMP error of its code |
//!
//! With [`Connect::Fast`] the SYN-ACK waits for nothing, and a RESET is always a RST.

use std::collections::HashMap;
use std::time::Instant;

use crate::flow::{self, FlowId, Flows, Refusal};
use crate::mux::{self, Mux, ResetCode, StreamId};

/// When an app's connect is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connect {
    /// When the target has answered, and as the target answered.
    #[default]
    Faithful,
    /// At once: a round trip less, and a refusal comes as a reset of the connection.
    Fast,
}

/// All flows, and the stream of each.
#[derive(Debug)]
pub(crate) struct Splice {
    /// The inner TCP connections.
    pub(crate) flows: Flows,
    streams: HashMap<FlowId, Spliced>,
    flow_of: HashMap<StreamId, FlowId>,
    total: u64,
    connect: Connect,
}

#[derive(Clone, Copy, Debug)]
struct Spliced {
    stream: StreamId,
    /// The app's connect was answered.
    connected: bool,
}

impl Splice {
    /// No flows yet; connects are answered faithfully.
    pub(crate) fn new(flows: Flows) -> Self {
        Self { flows, streams: HashMap::new(), flow_of: HashMap::new(), total: 0, connect: Connect::Faithful }
    }

    /// From now on connects are answered like this.
    pub(crate) fn set_connect(&mut self, connect: Connect) {
        self.connect = connect;
    }

    /// Passes on whatever happened on either side, until nothing happens any more. Returns whether anything did.
    pub(crate) fn pump(&mut self, mux: &mut Mux, now: Instant) -> bool {
        for moved in 0.. {
            if let Some(event) = self.flows.poll_event() {
                self.on_flow(event, mux, now);
            } else if let Some(event) = mux.poll_event() {
                self.on_stream(event, mux, now);
            } else {
                return moved > 0;
            }
        }
        true
    }

    /// Forgets every stream and resets every flow: their session is gone.
    pub(crate) fn reset_all(&mut self, now: Instant) {
        self.streams.clear();
        self.flow_of.clear();
        self.flows.reset_all(now);
        while self.flows.poll_event().is_some() {}
    }

    /// Flows open now.
    pub(crate) fn open(&self) -> usize {
        self.streams.len()
    }

    /// Flows opened since the start.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    fn on_flow(&mut self, event: flow::Event, mux: &mut Mux, now: Instant) {
        match event {
            flow::Event::Connect { id, target, .. } => self.connect(id, target, mux, now),
            flow::Event::Readable { id } => self.pump_up(id, mux),
            flow::Event::Writable { id } => self.pump_down(id, mux, now),
            flow::Event::Finished { id } => {
                if let Some(spliced) = self.streams.get(&id) {
                    mux.finish(spliced.stream);
                }
            }
            flow::Event::Reset { id } => {
                if let Some(stream) = self.forget(id) {
                    mux.abort(stream, ResetCode::Reset);
                }
            }
            flow::Event::Closed { id } => {
                self.forget(id);
            }
        }
    }

    fn connect(&mut self, id: FlowId, target: std::net::SocketAddr, mux: &mut Mux, now: Instant) {
        match mux.open(target) {
            Ok(stream) => {
                self.total += 1;
                self.streams.insert(id, Spliced { stream, connected: false });
                self.flow_of.insert(stream, id);
                if self.connect == Connect::Fast {
                    self.accept(id, now);
                }
            }
            Err(_) => self.flows.refuse(id, Refusal::Reset, now),
        }
    }

    fn on_stream(&mut self, event: mux::Event, mux: &mut Mux, now: Instant) {
        let id = match event {
            // Flows from the server's side are not offered yet.
            mux::Event::Open { id, .. } => return mux.reset(id, ResetCode::Denied),
            mux::Event::GoAway => return,
            mux::Event::Opened { id }
            | mux::Event::Readable { id }
            | mux::Event::Writable { id }
            | mux::Event::Finished { id }
            | mux::Event::Reset { id, .. } => id,
        };
        let Some(&flow) = self.flow_of.get(&id) else { return };
        match event {
            mux::Event::Opened { .. } => self.accept(flow, now),
            mux::Event::Readable { .. } => self.pump_down(flow, mux, now),
            mux::Event::Writable { .. } => self.pump_up(flow, mux),
            mux::Event::Finished { .. } => self.flows.finish(flow, now),
            mux::Event::Reset { code, .. } => self.end(flow, code, now),
            mux::Event::Open { .. } | mux::Event::GoAway => {}
        }
    }

    fn accept(&mut self, flow: FlowId, now: Instant) {
        if let Some(spliced) = self.streams.get_mut(&flow).filter(|spliced| !spliced.connected) {
            spliced.connected = true;
            self.flows.accept(flow, now);
        }
    }

    fn end(&mut self, flow: FlowId, code: ResetCode, now: Instant) {
        let connected = self.streams.get(&flow).is_some_and(|spliced| spliced.connected);
        self.forget(flow);
        if connected {
            self.flows.reset(flow, now);
        } else {
            self.flows.refuse(flow, refusal(code), now);
        }
    }

    /// App to stream, as far as the stream has room.
    fn pump_up(&mut self, flow: FlowId, mux: &mut Mux) {
        let Some(&Spliced { stream, .. }) = self.streams.get(&flow) else { return };
        while self.flows.read(flow, |bytes| mux.write(stream, bytes)) > 0 {}
    }

    /// Stream to app, as far as the app's window has room; what the app took is given back as credit.
    fn pump_down(&mut self, flow: FlowId, mux: &mut Mux, now: Instant) {
        let Some(&Spliced { stream, connected: true }) = self.streams.get(&flow) else { return };
        loop {
            let taken = self.flows.write(flow, mux.readable(stream), now);
            if taken == 0 {
                break;
            }
            mux.consume(stream, taken, now);
        }
    }

    fn forget(&mut self, flow: FlowId) -> Option<StreamId> {
        let spliced = self.streams.remove(&flow)?;
        self.flow_of.remove(&spliced.stream);
        Some(spliced.stream)
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
