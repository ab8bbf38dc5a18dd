//! smoltcp, narrowed to what a flow needs: one interface for all flows, one socket for each.
//!
//! Every flow has a socket set of its own with one socket in it, and the interface is polled with
//! that set: what a packet costs does not grow with the number of flows. Nothing is queued here;
//! a packet goes in or comes out by one call.

use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface};
use smoltcp::phy::{self, Checksum, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::HardwareAddress;

use super::socket::Socket;

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

/// When a socket wants to be polled next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Now,
    At(Instant),
    Never,
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
        self.interface.poll_ingress_single(at, &mut port, socket.set_mut());
        port.output
    }

    /// Asks a socket for the next packet it wants to send.
    pub(super) fn emit(&mut self, socket: &mut Socket, now: Instant) -> Option<Vec<u8>> {
        let at = self.stack_time(now);
        let mut port = Port { input: None, output: None, spare: &mut self.spare };
        self.interface.poll_egress(at, &mut port, socket.set_mut());
        port.output
    }

    /// When to ask a socket next.
    pub(super) fn wish(&mut self, socket: &Socket, now: Instant) -> Wish {
        let at = self.stack_time(now);
        match self.interface.poll_at(at, socket.set()) {
            None => Wish::Never,
            Some(due) if due <= at => Wish::Now,
            Some(due) => Wish::At(now + Duration::from_micros((together(due) - at).total_micros())),
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

/// The next moment from `due` on at which the timers of all flows may run.
fn together(due: StackInstant) -> StackInstant {
    let grain = GRAIN.total_micros().cast_signed();
    StackInstant::from_micros(due.total_micros().saturating_add(grain - 1) / grain * grain)
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

/// Our choice: smoltcp's timers are a second and more, and a waking of the process costs more than all of them: those of
/// thousands of flows run twenty times a second and not thousands of times.
const GRAIN: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(50);
/// MTU of the TUN device: because inner TCP ends here, the kernel may hand us segments of almost
/// 64 KiB whatever the path carries, which was measured to be several times cheaper per byte.
/// Divisible by 8 and below 65,535, the longest IP packet.
pub(super) const MTU: usize = 65_520;
/// Packets whose memory is kept for the next ones: what one flow's send buffer makes at once.
const SPARE_PACKETS: usize = 8;
/// When to ask a socket again that wants to be asked at once but then sends nothing. It should not
/// happen; this keeps it from spinning.
pub(super) const RETRY: Duration = Duration::from_millis(10);
