//! Connections towards clients: whose session a tunnel address leads to, and what is said when it leads nowhere.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::attention::Attention;
use super::{ERRORS, Server};
use crate::flow::FlowLimits;
use crate::mux::{Event, Mux, Opener, StreamId, TooManyStreams};
use crate::rate::{Bucket, Rate};
use crate::session::peer::Peer;
use crate::session::splice::{Sessions, Share};

/// The sessions of all clients, as flows of the server's side find them.
pub(super) struct Clients<'a> {
    peers: &'a mut [Peer],
    by_address: &'a HashMap<IpAddr, usize>,
    attention: &'a mut Attention,
    errors: &'a mut Bucket,
    unreported: &'a mut u64,
    now: Instant,
}

impl Server {
    /// Passes on what happened between programs on this side and streams; whether anything did.
    pub(super) fn pump(&mut self, now: Instant) -> bool {
        let Self { splice, peers, by_address, attention, errors, drops, .. } = self;
        let unreported = &mut drops.unreported;
        splice.pump(&mut Clients { peers, by_address, attention, errors, unreported, now }, now)
    }

    /// Who waits for a client that has gone silent is told, so that nobody waits in vain for hours.
    pub(super) fn refuse_for_silence(&mut self, now: Instant) {
        let Self { splice, peers, by_address, attention, errors, drops, .. } = self;
        for peer in 0..peers.len() {
            if splice.share(peer).waiting > 0 && !peers[peer].is_there(now) {
                let unreported = &mut drops.unreported;
                let mut clients = Clients { peers, by_address, attention, errors, unreported, now };
                splice.refuse_waiting(peer, &mut clients, now);
            }
        }
    }

    /// When that is due next.
    pub(super) fn silence_due(&self) -> Option<Instant> {
        self.splice.waited_for().filter_map(|peer| self.peers.get(peer)?.silent_at()).min()
    }
}

impl Sessions for Clients<'_> {
    fn route(&self, target: SocketAddr) -> Option<usize> {
        let peer = *self.by_address.get(&target.ip())?;
        self.peers[peer].is_there(self.now).then_some(peer)
    }

    fn open(&mut self, peer: usize, target: SocketAddr, now: Instant) -> Result<StreamId, TooManyStreams> {
        let session = self.peers[peer].session.as_mut().ok_or(TooManyStreams)?;
        let stream = session.engine.mux.open(target, now)?;
        session.streams_total += 1;
        self.attention.touch(peer);
        Ok(stream)
    }

    fn mux(&mut self, peer: usize) -> Option<&mut Mux> {
        let session = self.peers[peer].session.as_mut()?;
        self.attention.touch(peer);
        Some(&mut session.engine.mux)
    }

    fn may_report(&mut self, now: Instant) -> bool {
        let may = self.errors.take(ERRORS, now);
        *self.unreported += u64::from(!may);
        may
    }

    fn poll_event(&mut self) -> Option<(usize, Event)> {
        while let Some(peer) = self.attention.flows.front() {
            let session = self.peers[peer].session.as_mut();
            if let Some(event) = session.and_then(|session| session.engine.mux.poll_event_of(Opener::Here)) {
                return Some((peer, event));
            }
            self.attention.flows.pop();
        }
        None
    }
}

/// All connections towards clients together take at most this share of what the process may buffer; our choice.
const MEMORY_SHARE: usize = 8;

/// The bounds on connections towards all clients together.
pub(super) fn limits(process_buffer: usize) -> FlowLimits {
    let memory = process_buffer / MEMORY_SHARE;
    FlowLimits { memory, memory_of_group: memory / SHARE_OF_ONE, ..FlowLimits::default() }
}

/// What one client may have of them.
pub(super) fn most_of_one(limits: &FlowLimits) -> Share {
    let flows = limits.flows_in_memory();
    Share { flows: flows / SHARE_OF_ONE, waiting: flows.min(limits.held) / SHARE_OF_ONE }
}

/// Our choice: more connections a second than a benchmark opens to a client's service, and no more of its line than half a
/// Mbit/s for what strangers ask: this end does not know what it allows.
pub(super) const OPENS: Rate = Rate::per_second(2000, 1024);

/// Our choice: one client has a quarter of everything, so that one which does not answer or takes nothing leaves room for others.
const SHARE_OF_ONE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_may_have_more_than_a_quarter_of_what_there_is_memory_for() {
        for (buffer, waiting, flows) in [(64 << 20, 170, 170), (1 << 30, 1024, 2730), (64 << 30, 1024, 4096)]
        {
            let limits = limits(buffer);
            let most = most_of_one(&limits);
            assert_eq!((most.waiting, most.flows), (waiting, flows), "of {buffer}");
            assert_eq!(limits.memory_of_group, buffer / 32);
        }
    }
}
