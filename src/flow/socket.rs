//! One end of one TCP connection, by smoltcp, and the two rings that its bytes pass through.
//!
//! smoltcp does not give a socket's rings back, so a socket is used again for another flow, with its rings.

use std::net::{IpAddr, SocketAddr};

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, SocketBuffer, State};
use smoltcp::wire::IpListenEndpoint;

use super::config::FlowLimits;
use super::memory::{Budget, Extent, Group, Memory, PAGE};

/// One end of one TCP connection.
#[derive(Debug)]
pub(super) struct Socket {
    set: SocketSet<'static>,
    handle: SocketHandle,
    /// Which lot of the memory its rings are; `None` = they are its own.
    lot: Option<usize>,
    /// What of the receive ring was written, …
    received: Extent,
    /// … how many bytes were read out of it, …
    read: u64,
    /// … and where the last byte that came ends; those before it may be missing.
    seen: u64,
    /// What of the send ring was written, …
    sent: Extent,
    /// … and how many bytes since it was last empty, when smoltcp began again at its start.
    written: u64,
    /// What the budget has on it, …
    charge: usize,
    /// … and on whose account.
    group: Group,
}

/// Where a connection stands (RFC 9293 §3.3.2), as far as a flow's owner can tell the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not there: LISTEN, before a SYN was taken or after a reset in SYN-RECEIVED.
    Waiting,
    /// SYN-RECEIVED.
    Opening,
    /// ESTABLISHED.
    Open,
    /// FIN-WAIT-1 and -2: we finished.
    WeFinished,
    /// CLOSE-WAIT: the program finished.
    TheyFinished,
    /// CLOSING, LAST-ACK: both finished, our FIN is not acknowledged.
    Closing,
    /// TIME-WAIT.
    Lingering,
    /// CLOSED.
    Closed,
}

impl Socket {
    /// A socket whose rings are the two parts of `lent`, which is this lot of the memory.
    pub(super) fn of_lot(lot: usize, (receive, send): (&'static mut [u8], &'static mut [u8])) -> Self {
        Self::new(Some(lot), SocketBuffer::new(receive), SocketBuffer::new(send))
    }

    /// A socket with rings of its own.
    pub(super) fn of_heap((receive, send): (usize, usize)) -> Self {
        Self::new(None, SocketBuffer::new(vec![0; receive]), SocketBuffer::new(vec![0; send]))
    }

    fn new(lot: Option<usize>, receive: SocketBuffer<'static>, send: SocketBuffer<'static>) -> Self {
        let mut socket = tcp::Socket::new(receive, send);
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Self {
            set,
            handle,
            lot,
            received: Extent::default(),
            read: 0,
            seen: 0,
            sent: Extent::default(),
            written: 0,
            charge: 0,
            group: None,
        }
    }

    /// Waits for the SYN to `target`, whatever the socket was before; false if smoltcp does not take the address.
    pub(super) fn listen(&mut self, target: SocketAddr) -> bool {
        let address = match target.ip() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        };
        let socket = self.inner_mut();
        socket.abort();
        socket.listen(IpListenEndpoint { addr: Some(address), port: target.port() }).is_ok()
    }

    pub(super) fn phase(&self) -> Phase {
        match self.inner().state() {
            State::Listen | State::SynSent => Phase::Waiting,
            State::SynReceived => Phase::Opening,
            State::Established => Phase::Open,
            State::FinWait1 | State::FinWait2 => Phase::WeFinished,
            State::CloseWait => Phase::TheyFinished,
            State::Closing | State::LastAck => Phase::Closing,
            State::TimeWait => Phase::Lingering,
            State::Closed => Phase::Closed,
        }
    }

    /// Bytes received and not read.
    pub(super) fn unread(&self) -> usize {
        self.inner().recv_queue()
    }

    /// Bytes that came in order since the start.
    pub(super) fn in_order(&self) -> u64 {
        self.read + self.unread() as u64
    }

    /// Bytes that can be received before something is read.
    pub(super) fn receive_room(&self) -> usize {
        self.inner().recv_capacity() - self.unread()
    }

    /// Whether something we sent or shall send is not acknowledged: bytes, SYN or FIN.
    pub(super) fn is_waiting_for_ack(&self) -> bool {
        self.inner().send_queue() > 0
            || matches!(
                self.inner().state(),
                State::SynReceived | State::FinWait1 | State::Closing | State::LastAck
            )
    }

    /// Whether bytes that were written are not acknowledged, or not even sent.
    pub(super) fn has_unacknowledged(&self) -> bool {
        self.inner().send_queue() > 0
    }

    /// Bytes that can be written now; 0 where the state does not permit any.
    pub(super) fn send_room(&self) -> usize {
        let socket = self.inner();
        if socket.may_send() { socket.send_capacity() - socket.send_queue() } else { 0 }
    }

    /// Shows the received bytes that lie in one piece, and drops as many as `take` returns.
    pub(super) fn read(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let taken = self
            .inner_mut()
            .recv(|bytes| {
                let taken = if bytes.is_empty() { 0 } else { take(bytes) };
                let taken = taken.min(bytes.len());
                (taken, taken)
            })
            .unwrap_or(0);
        self.read += taken as u64;
        taken
    }

    /// Copies in what there is room for.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let written = self.written_now();
        let taken = self.inner_mut().send_slice(bytes).unwrap_or(0);
        self.written = written + taken as u64;
        self.sent.reach(self.written);
        taken
    }

    /// Sends FIN after everything written.
    pub(super) fn finish(&mut self) {
        self.inner_mut().close();
    }

    /// Sends RST with the next packet.
    pub(super) fn abort(&mut self) {
        self.inner_mut().abort();
    }

    /// Data will be written into the receive ring up to this many bytes after the start.
    pub(super) fn expect(&mut self, end: u64) {
        self.seen = self.seen.max(end);
        self.received.reach(end);
    }

    /// What it has of the budget.
    pub(super) const fn charge(&self) -> usize {
        self.charge
    }

    /// Brings the budget up to what it takes now: [`FLOW_BYTES`], and the pages beyond those.
    pub(super) fn settle(&mut self, budget: &mut Budget) {
        let now = self.cost_of(self.received, self.sent);
        budget.change(self.group, self.charge, now);
        self.charge = now;
    }

    /// From now on it is this group's, and charged.
    pub(super) fn join(&mut self, group: Group, budget: &mut Budget) {
        self.uncharge(budget);
        self.group = group;
        self.settle(budget);
    }

    /// Whose account it is on.
    pub(super) const fn group(&self) -> Group {
        self.group
    }

    /// Takes nothing of the budget any more.
    pub(super) fn uncharge(&mut self, budget: &mut Budget) {
        budget.change(self.group, self.charge, 0);
        self.charge = 0;
    }

    /// What it takes once data up to `end` has been received.
    pub(super) fn cost_of_receiving(&self, end: u64) -> usize {
        let mut received = self.received;
        received.reach(end);
        self.cost_of(received, self.sent)
    }

    /// What it takes once `length` more bytes have been written.
    pub(super) fn cost_of_writing(&self, length: usize) -> usize {
        let mut sent = self.sent;
        sent.reach(self.written_now() + length as u64);
        self.cost_of(self.received, sent)
    }

    /// How many bytes can be written into pages that it has been charged for.
    pub(super) fn paid_room(&self) -> usize {
        let page = PAGE as u64;
        let paid = self.sent.end().next_multiple_of(page).max(page);
        usize::try_from(paid.saturating_sub(self.written_now())).unwrap_or(usize::MAX)
    }

    /// Where in the ring the next byte is written: an empty one begins again at its start.
    fn written_now(&self) -> u64 {
        if self.inner().send_queue() == 0 { 0 } else { self.written }
    }

    /// Both rings take the page that [`FLOW_BYTES`] has for them, and those beyond.
    fn cost_of(&self, received: Extent, sent: Extent) -> usize {
        let socket = self.inner();
        let beyond = |extent: Extent, size: usize| extent.bytes(size).saturating_sub(PAGE);
        FLOW_BYTES + beyond(received, socket.recv_capacity()) + beyond(sent, socket.send_capacity())
    }

    /// Lets go of the pages that hold nothing which is needed.
    pub(super) fn rest(&mut self, memory: &mut Option<Box<dyn Memory>>) {
        let socket = self.inner();
        let (receive, send) = (socket.recv_capacity(), socket.send_capacity());
        let is_read = socket.recv_queue() == 0 && self.seen <= self.read;
        let is_acknowledged = socket.send_queue() == 0;
        let mut free = receive..receive;
        if is_read && self.received.bytes(receive) > 0 {
            self.received = Extent::at(self.read);
            free.start = 0;
        }
        if is_acknowledged && self.sent.bytes(send) > 0 {
            self.sent = Extent::default();
            free.end += send;
        }
        if free.is_empty() {
            return;
        }
        if let (Some(memory), Some(lot)) = (memory, self.lot) {
            memory.discard(lot, free);
        }
    }

    /// Forgets its connection without a word; nothing in the rings is needed any more, and both begin at their starts.
    pub(super) fn retire(&mut self, memory: &mut Option<Box<dyn Memory>>) {
        let is_plain =
            self.received.is_of_start() && self.received.end() <= self.inner().recv_capacity() as u64;
        let socket = self.inner_mut();
        socket.abort();
        let is_emptied = socket.listen(NOWHERE).is_ok();
        debug_assert!(is_emptied, "a closed socket can listen");
        (self.read, self.seen, self.written) = (0, 0, 0);
        if !is_plain {
            self.rest(memory);
            // Also where it stood when it had rested before: the next flow counts from the ring's start.
            self.received = Extent::default();
        }
    }

    pub(super) fn set(&self) -> &SocketSet<'static> {
        &self.set
    }

    pub(super) fn set_mut(&mut self) -> &mut SocketSet<'static> {
        &mut self.set
    }

    fn inner(&self) -> &tcp::Socket<'static> {
        self.set.get(self.handle)
    }

    fn inner_mut(&mut self) -> &mut tcp::Socket<'static> {
        self.set.get_mut(self.handle)
    }
}

/// The sizes of a flow's rings for receiving and for sending, in bytes.
pub(super) fn ring_sizes(limits: &FlowLimits) -> (usize, usize) {
    (limits.receive_buffer.clamp(1, MAX_RING), limits.send_buffer.clamp(1, MAX_RING))
}

/// What a flow takes while it rests: a page of each ring and, rounded up, what smoltcp, MUX and the tables hold of it.
pub(super) const FLOW_BYTES: usize = 3 * PAGE;

/// An endpoint that no packet is ever for: a socket that waits there is in no flow.
const NOWHERE: IpListenEndpoint = IpListenEndpoint { addr: None, port: 1 };

/// smoltcp's bound on a receive buffer (RFC 7323 §2.3: a window of 2^30).
const MAX_RING: usize = 1 << 30;
