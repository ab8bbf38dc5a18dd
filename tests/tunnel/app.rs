//! The client's kernel and its apps: an independent TCP stack that opens connections through the tunnel.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use super::target::Plan;

/// One connection of an app: what it sends, and what it received.
#[derive(Debug)]
pub(crate) struct Connection {
    handle: SocketHandle,
    pub(crate) plan: Plan,
    outgoing: VecDeque<u8>,
    pub(crate) received: Vec<u8>,
    established: bool,
    closed_write: bool,
    /// The app says nothing before this.
    silent_until: Option<Instant>,
    /// The app aborts once everything was sent and acknowledged.
    aborts: bool,
    pub(crate) outcome: Option<Outcome>,
}

/// How a connection ended for the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Both directions ended with a FIN.
    Finished,
    /// It was reset, or never established.
    Reset,
}

/// All apps on one stack.
pub(crate) struct Apps {
    interface: Interface,
    device: Tun,
    sockets: SocketSet<'static>,
    pub(crate) connections: Vec<Connection>,
    base: Instant,
    next_port: u16,
    /// ICMP messages that arrived, whole.
    pub(crate) icmp: Vec<Vec<u8>>,
}

impl Apps {
    pub(crate) fn new(now: Instant) -> Self {
        let mut device = Tun::default();
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ip), &mut device, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let (v4, v6) = addresses_of_client();
            for address in [IpAddr::V4(v4), IpAddr::V6(v6)] {
                addresses.push(IpCidr::new(address.into(), 0)).expect("room for two addresses");
            }
        });
        Self {
            interface,
            device,
            sockets: SocketSet::new(Vec::new()),
            connections: Vec::new(),
            base: now,
            next_port: 20_000,
            icmp: Vec::new(),
        }
    }

    /// Opens a connection to the target that `plan` describes.
    pub(crate) fn connect(&mut self, plan: Plan) {
        let buffer = || tcp::SocketBuffer::new(vec![0; 65_536]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        self.next_port += 1;
        let (v4, v6) = addresses_of_client();
        let local: IpAddress = if plan.target.is_ipv4() { v4.into() } else { v6.into() };
        let remote = (IpAddress::from(plan.target.ip()), plan.target.port());
        socket.connect(self.interface.context(), remote, (local, self.next_port)).expect("a valid endpoint");
        let handle = self.sockets.add(socket);
        self.connections.push(Connection {
            handle,
            outgoing: plan.upload().into(),
            plan,
            received: Vec::new(),
            established: false,
            closed_write: false,
            silent_until: None,
            aborts: false,
            outcome: None,
        });
    }

    /// The app of the newest connection says nothing before `at`.
    pub(crate) fn silence_last_until(&mut self, at: Instant) {
        if let Some(connection) = self.connections.last_mut() {
            connection.silent_until = Some(at);
        }
    }

    /// The app of the newest connection sends, then resets.
    pub(crate) fn abort_last_after_sending(&mut self) {
        if let Some(connection) = self.connections.last_mut() {
            connection.aborts = true;
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.connections.iter().all(|connection| connection.outcome.is_some())
    }

    /// An IP packet out of the tunnel.
    pub(crate) fn handle_packet(&mut self, packet: Vec<u8>) {
        let protocol = if packet[0] >> 4 == 4 { packet[9] } else { packet[6] };
        if protocol == 1 || protocol == 58 {
            self.icmp.push(packet);
        } else {
            self.device.incoming.push_back(packet);
        }
    }

    /// Lets the stack and the apps work; returns the packets for the tunnel.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let at = self.clock(now);
        loop {
            self.interface.poll(at, &mut self.device, &mut self.sockets);
            let moved = self
                .connections
                .iter_mut()
                .filter(|connection| connection.outcome.is_none())
                .fold(false, |moved, connection| {
                    connection.work(self.sockets.get_mut(connection.handle), now) | moved
                });
            if !moved {
                break;
            }
        }
        self.interface.poll(at, &mut self.device, &mut self.sockets);
        self.device.outgoing.drain(..).collect()
    }

    pub(crate) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let at = self.clock(now);
        let speaking = self.connections.iter().filter_map(|connection| connection.silent_until);
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
    /// Sends, receives and closes as far as it goes; says whether anything moved.
    fn work(&mut self, socket: &mut tcp::Socket<'_>, now: Instant) -> bool {
        let mut moved = false;
        self.established |= socket.may_send();
        if self.silent_until.is_some_and(|speak_at| speak_at > now) {
            return false;
        }
        if self.aborts && self.established && self.outgoing.is_empty() && socket.send_queue() == 0 {
            socket.abort();
            self.outcome = Some(Outcome::Reset);
            return true;
        }
        while socket.can_send() && !self.outgoing.is_empty() {
            let sent = socket.send_slice(self.outgoing.as_slices().0).unwrap_or(0);
            self.outgoing.drain(..sent);
            moved |= sent > 0;
        }
        while socket.can_recv() {
            let received = &mut self.received;
            let length = socket.recv(|bytes| {
                received.extend_from_slice(bytes);
                (bytes.len(), bytes.len())
            });
            moved |= length.is_ok_and(|length| length > 0);
        }
        if self.established && self.outgoing.is_empty() && !self.closed_write && !self.aborts {
            self.closed_write = true;
            socket.close();
            moved = true;
        }
        if matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait) {
            let ended_by_fin = socket.state() == tcp::State::TimeWait;
            let is_whole = self.received.len() == self.plan.download_len;
            let complete = self.closed_write && (ended_by_fin || is_whole);
            self.outcome = Some(if complete { Outcome::Finished } else { Outcome::Reset });
        }
        moved
    }
}

/// The client's tunnel addresses.
pub(crate) fn addresses_of_client() -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 77, 0, 2), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2))
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
