//! smoltcp, narrowed to what a flow needs: one interface for all flows, one socket for each.
//!
//! Every flow has a socket set of its own with one socket in it, and the interface is polled with
//! that set: what a packet costs does not grow with the number of flows. Nothing is queued here;
//! a packet goes in or comes out by one call.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{self, SocketBuffer, State};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpListenEndpoint};

use super::config::FlowLimits;

/// The interface that all sockets share.
pub(super) struct Stack {
    interface: Interface,
    epoch: Instant,
    spare: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack").finish_non_exhaustive()
    }
}

/// One end of one TCP connection.
#[derive(Debug)]
pub(super) struct Socket {
    set: SocketSet<'static>,
    handle: SocketHandle,
}

/// When a socket wants to be polled next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Now,
    At(Instant),
    Never,
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

impl Stack {
    pub(super) fn new(seed: u64, now: Instant) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut port = Port { input: None, output: None, spare: &mut Vec::new() };
        let mut interface = Interface::new(config, &mut port, StackInstant::ZERO);
        // Every destination is ours, without an address or a route.
        interface.set_any_ip(true);
        Self { interface, epoch: now, spare: Vec::new() }
    }

    /// Gives a socket one packet; returns what it answers at once, if anything.
    pub(super) fn feed(&mut self, socket: &mut Socket, packet: &[u8], now: Instant) -> Option<Vec<u8>> {
        let at = self.stack_time(now);
        let mut port = Port { input: Some(packet), output: None, spare: &mut self.spare };
        self.interface.poll_ingress_single(at, &mut port, &mut socket.set);
        port.output
    }

    /// Asks a socket for the next packet it wants to send.
    pub(super) fn emit(&mut self, socket: &mut Socket, now: Instant) -> Option<Vec<u8>> {
        let at = self.stack_time(now);
        let mut port = Port { input: None, output: None, spare: &mut self.spare };
        self.interface.poll_egress(at, &mut port, &mut socket.set);
        port.output
    }

    /// When to ask a socket next.
    pub(super) fn wish(&mut self, socket: &Socket, now: Instant) -> Wish {
        let at = self.stack_time(now);
        match self.interface.poll_at(at, &socket.set) {
            None => Wish::Never,
            Some(due) if due <= at => Wish::Now,
            Some(due) => Wish::At(now + Duration::from_micros((due - at).total_micros())),
        }
    }

    /// Takes a packet's memory back for the next packet.
    pub(super) fn recycle(&mut self, packet: Vec<u8>) {
        if self.spare.len() < SPARE_PACKETS && packet.capacity() <= MTU {
            self.spare.push(packet);
        }
    }

    fn stack_time(&self, now: Instant) -> StackInstant {
        let elapsed = now.saturating_duration_since(self.epoch);
        StackInstant::from_micros(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
    }
}

impl Socket {
    /// A socket that waits for the SYN to `target`; `None` if smoltcp does not take the address.
    pub(super) fn listen(target: SocketAddr, limits: &FlowLimits) -> Option<Self> {
        let mut socket = tcp::Socket::new(ring(limits.receive_buffer), ring(limits.send_buffer));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let address = match target.ip() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        };
        socket.listen(IpListenEndpoint { addr: Some(address), port: target.port() }).ok()?;
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Some(Self { set, handle })
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

    /// Bytes that can be received before something is read.
    pub(super) fn receive_room(&self) -> usize {
        self.inner().recv_capacity() - self.unread()
    }

    /// Bytes written and not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.inner().send_queue()
    }

    /// Whether something we sent or shall send is not acknowledged: bytes, SYN or FIN.
    pub(super) fn is_waiting_for_ack(&self) -> bool {
        self.unacknowledged() > 0
            || matches!(
                self.inner().state(),
                State::SynReceived | State::FinWait1 | State::Closing | State::LastAck
            )
    }

    /// Bytes that can be written now; 0 where the state does not permit any.
    pub(super) fn send_room(&self) -> usize {
        let socket = self.inner();
        if socket.may_send() { socket.send_capacity() - socket.send_queue() } else { 0 }
    }

    /// Shows the received bytes that lie in one piece, and drops as many as `take` returns.
    pub(super) fn read(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        self.inner_mut()
            .recv(|bytes| {
                let taken = if bytes.is_empty() { 0 } else { take(bytes) };
                let taken = taken.min(bytes.len());
                (taken, taken)
            })
            .unwrap_or(0)
    }

    /// Copies in what there is room for.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        self.inner_mut().send_slice(bytes).unwrap_or(0)
    }

    /// Sends FIN after everything written.
    pub(super) fn finish(&mut self) {
        self.inner_mut().close();
    }

    /// Sends RST with the next packet.
    pub(super) fn abort(&mut self) {
        self.inner_mut().abort();
    }

    fn inner(&self) -> &tcp::Socket<'static> {
        self.set.get(self.handle)
    }

    fn inner_mut(&mut self) -> &mut tcp::Socket<'static> {
        self.set.get_mut(self.handle)
    }
}

/// The memory of one direction of one flow: zeroed pages that the kernel gives when first touched.
fn ring(size: usize) -> SocketBuffer<'static> {
    SocketBuffer::new(vec![0; size.clamp(1, MAX_RING)])
}

/// The device that smoltcp sees for one call: at most one packet in and one out.
struct Port<'p> {
    input: Option<&'p [u8]>,
    output: Option<Vec<u8>>,
    spare: &'p mut Vec<Vec<u8>>,
}

struct Input<'p>(&'p [u8]);

struct Output<'t> {
    slot: &'t mut Option<Vec<u8>>,
    spare: &'t mut Vec<Vec<u8>>,
}

impl phy::Device for Port<'_> {
    type RxToken<'t>
        = Input<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Output<'t>
    where
        Self: 't;

    fn receive(&mut self, _: StackInstant) -> Option<(Input<'_>, Output<'_>)> {
        let input = self.input.take()?;
        let output = Output { slot: &mut self.output, spare: &mut *self.spare };
        Some((Input(input), output))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Output<'_>> {
        self.output.is_none().then_some(Output { slot: &mut self.output, spare: &mut *self.spare })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut checksum = ChecksumCapabilities::ignored();
        checksum.ipv4 = Checksum::Tx;
        checksum.tcp = Checksum::Tx;
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities.checksum = checksum;
        capabilities
    }
}

impl phy::RxToken for Input<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl phy::TxToken for Output<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = self.spare.pop().unwrap_or_default();
        packet.resize(length, 0);
        let result = f(&mut packet);
        *self.slot = Some(packet);
        result
    }
}

/// MTU of the TUN device: because inner TCP ends here, the kernel may hand us segments of almost
/// 64 KiB whatever the path carries, which was measured to be several times cheaper per byte.
/// Divisible by 8 and below 65,535, the longest IP packet.
pub(super) const MTU: usize = 65_520;
/// smoltcp's bound on a receive buffer (RFC 7323 §2.3: a window of 2^30).
const MAX_RING: usize = 1 << 30;
/// Packets whose memory is kept for the next ones: what one flow's send buffer makes at once.
const SPARE_PACKETS: usize = 8;
/// When to ask a socket again that wants to be asked at once but then sends nothing. It should not
/// happen; this keeps it from spinning.
pub(super) const RETRY: Duration = Duration::from_millis(10);
