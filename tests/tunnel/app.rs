//! A host's kernel and its apps, on either side: an independent TCP stack that opens connections through the tunnel.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use vpn::packet::{self, tcp::Segment};

use super::stream::{Direction, Reader, Writer};
use super::target::Plan;

/// One connection of an app: what it sends, and what it received.
#[derive(Debug)]
pub(crate) struct Connection {
    local_port: u16,
    handle: Option<SocketHandle>,
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    /// The target has accepted, as far as the app knows.
    pub(crate) established: bool,
    /// The app says nothing before this.
    silent_until: Option<Instant>,
    /// The app aborts once everything was sent and acknowledged.
    aborts: bool,
    /// A RST came.
    reset: bool,
    pub(crate) outcome: Option<Outcome>,
}

/// How a connection ended for the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Both directions ended with a FIN.
    Finished,
    /// It was reset, by either side, or refused.
    Reset,
    /// An ICMP error said that there is no way.
    Unreachable,
}

/// All apps on one stack.
pub(crate) struct Apps {
    interface: Interface,
    device: Tun,
    sockets: SocketSet<'static>,
    addresses: (Ipv4Addr, Ipv6Addr),
    /// By the port of the target.
    pub(crate) connections: BTreeMap<u16, Connection>,
    base: Instant,
    next_port: u16,
    /// Packets other than TCP that arrived, whole.
    pub(crate) datagrams: Vec<Vec<u8>>,
}

impl Apps {
    /// On a host with these addresses.
    pub(crate) fn new((v4, v6): (Ipv4Addr, Ipv6Addr), now: Instant) -> Self {
        let mut device = Tun::default();
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ip), &mut device, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            for address in [IpAddr::V4(v4), IpAddr::V6(v6)] {
                addresses.push(IpCidr::new(address.into(), 0)).expect("room for two addresses");
            }
        });
        Self {
            interface,
            device,
            sockets: SocketSet::new(Vec::new()),
            addresses: (v4, v6),
            connections: BTreeMap::new(),
            base: now,
            next_port: 20_000,
            datagrams: Vec::new(),
        }
    }

    /// Opens a connection to the target that `plan` describes.
    pub(crate) fn connect(&mut self, plan: Plan) {
        let buffer = || tcp::SocketBuffer::new(vec![0; 65_536]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        self.next_port += 1;
        let (v4, v6) = self.addresses;
        let target = plan.target;
        let local: IpAddress = if target.is_ipv4() { v4.into() } else { v6.into() };
        let remote = (IpAddress::from(target.ip()), target.port());
        socket.connect(self.interface.context(), remote, (local, self.next_port)).expect("a valid endpoint");
        let connection = Connection {
            local_port: self.next_port,
            handle: Some(self.sockets.add(socket)),
            writer: Writer::new(target, Direction::Upload, plan.upload_len, plan.finishes),
            reader: Reader::new(target, Direction::Download),
            established: false,
            silent_until: None,
            aborts: false,
            reset: false,
            outcome: None,
        };
        self.connections.insert(target.port(), connection);
    }

    /// An app resets its connection at once.
    pub(crate) fn reset(&mut self, port: u16) {
        let Some(connection) = self.connections.get_mut(&port) else { return };
        if let Some(handle) = connection.handle.filter(|_| connection.outcome.is_none()) {
            self.sockets.get_mut::<tcp::Socket<'_>>(handle).abort();
            connection.outcome = Some(Outcome::Reset);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.connections.values().all(|connection| connection.outcome.is_some())
    }

    /// An IP packet out of the tunnel.
    pub(crate) fn handle_packet(&mut self, packet: Vec<u8>) {
        let Ok(segment) = Segment::parse(&packet) else {
            self.note_unreachable(&packet);
            return self.datagrams.push(packet);
        };
        if segment.is_reset()
            && let Some(connection) = self.connections.get_mut(&segment.source.port())
        {
            connection.reset |= connection.local_port == segment.destination.port();
        }
        self.device.incoming.push_back(packet);
    }

    /// As a kernel does: an error about a SYN ends the attempt.
    pub(crate) fn note_unreachable(&mut self, packet: &[u8]) {
        let Ok(header) = packet::parse(packet) else { return };
        let message = &packet[header.header_length..];
        let is_error = matches!((header.protocol, message[0]), (packet::ICMP, 3) | (packet::ICMPV6, 1));
        let Some(quoted) = message.get(8..).filter(|_| is_error) else { return };
        let ports = if quoted[0] >> 4 == 4 { 20 } else { 40 };
        let Some(&[high, low]) = quoted.get(ports + 2..ports + 4) else { return };
        let port = u16::from_be_bytes([high, low]);
        let connecting = |connection: &&mut Connection| !connection.established;
        if let Some(connection) = self.connections.get_mut(&port).filter(connecting)
            && let Some(handle) = connection.handle.take()
        {
            self.sockets.remove(handle);
            connection.outcome = Some(Outcome::Unreachable);
        }
    }

    /// Lets the stack and the apps work; returns the packets for the tunnel.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let at = self.clock(now);
        loop {
            self.interface.poll(at, &mut self.device, &mut self.sockets);
            let mut moved = false;
            for connection in self.connections.values_mut() {
                if let Some(handle) = connection.handle.filter(|_| connection.outcome.is_none()) {
                    moved |= connection.work(self.sockets.get_mut(handle), now);
                }
            }
            if !moved {
                break;
            }
        }
        self.interface.poll(at, &mut self.device, &mut self.sockets);
        self.forget_closed();
        self.device.outgoing.drain(..).collect()
    }

    /// Removes sockets that have nothing more to say.
    fn forget_closed(&mut self) {
        for connection in self.connections.values_mut().filter(|connection| connection.outcome.is_some()) {
            let is_closed = |handle: &mut SocketHandle| {
                self.sockets.get::<tcp::Socket<'_>>(*handle).state() == tcp::State::Closed
            };
            if let Some(handle) = connection.handle.take_if(is_closed) {
                self.sockets.remove(handle);
            }
        }
    }

    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let at = self.clock(now);
        let speaking = self.connections.values().filter_map(|connection| connection.silent_until);
        let speaking = speaking.filter(|speak_at| *speak_at > now).min();
        let delay = self.interface.poll_delay(at, &self.sockets);
        let delay = delay.map(|delay| now + Duration::from_micros(delay.total_micros().max(100)));
        delay.into_iter().chain(speaking).min()
    }

    fn clock(&self, now: Instant) -> smoltcp::time::Instant {
        let micros = now.duration_since(self.base).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).expect("a short test"))
    }
}

impl Connection {
    /// Says nothing before `at`.
    pub(crate) fn silence_until(&mut self, at: Instant) {
        self.silent_until = Some(at);
    }

    /// Sends, then resets.
    pub(crate) fn abort_after_sending(&mut self) {
        self.aborts = true;
        self.writer.finishes = false;
    }

    /// Sends, receives and closes as far as it goes; says whether anything moved.
    fn work(&mut self, socket: &mut tcp::Socket<'_>, now: Instant) -> bool {
        self.established |= socket.may_send();
        if self.silent_until.is_some_and(|speak_at| speak_at > now) {
            return false;
        }
        if self.aborts && self.established && self.has_written_all() && socket.send_queue() == 0 {
            socket.abort();
            self.outcome = Some(Outcome::Reset);
            return true;
        }
        let is_waiting = socket.state() == tcp::State::TimeWait;
        // What a connection that is over still holds would go when the stack forgets it.
        let moved = self.write(socket) | ((!self.reader.stopped || is_waiting) && self.read(socket));
        self.note_end(socket.state());
        moved
    }

    fn has_written_all(&self) -> bool {
        self.writer.written == self.writer.length
    }

    fn write(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let mut moved = false;
        while socket.can_send() && !self.has_written_all() {
            let sent = socket.send_slice(&self.writer.next()).unwrap_or(0);
            self.writer.written += sent as u64;
            moved |= sent > 0;
        }
        if self.established && self.writer.is_to_finish() {
            self.writer.finished = true;
            socket.close();
            moved = true;
        }
        moved
    }

    fn read(&mut self, socket: &mut tcp::Socket<'_>) -> bool {
        let before = self.reader.received;
        while socket.can_recv() {
            let reader = &mut self.reader;
            let result = socket.recv(|bytes| {
                reader.take(bytes);
                (bytes.len(), ())
            });
            if result.is_err() {
                break;
            }
        }
        let is_end = matches!(socket.recv(|_| (0, ())), Err(tcp::RecvError::Finished));
        if self.established && is_end && !self.reader.finished {
            self.reader.end();
        }
        self.reader.received > before
    }

    fn note_end(&mut self, state: tcp::State) {
        if !matches!(state, tcp::State::Closed | tcp::State::TimeWait) {
            return;
        }
        if self.reset {
            self.outcome = Some(Outcome::Reset);
        } else if self.reader.finished {
            self.outcome = Some(Outcome::Finished);
        }
    }
}

/// The client's tunnel addresses.
pub(crate) fn addresses_of_client() -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 77, 0, 2), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2))
}

/// Those of a host on the server's side.
pub(crate) fn addresses_outside() -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(198, 51, 100, 7), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7))
}

/// The stack's side of the TUN.
#[derive(Debug, Default)]
struct Tun {
    incoming: VecDeque<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Device for Tun {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Incoming(packet), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 65_520;
        capabilities
    }
}

struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut packet = vec![0; length];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}
