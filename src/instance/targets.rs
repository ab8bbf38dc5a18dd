//! The far end of every TCP flow: ordinary non-blocking sockets of this host, joined to the streams that the other end opened.
//! A server connects what its clients ask for, a client what the server's side reaches of its own services.
//!
//! Edge-triggered: an edge is remembered in the target (`may_read`, `may_write`) until the socket says `WouldBlock`, so
//! a stream that gets room later goes on without another edge.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::io::{Poller, Readiness};
use crate::mux::ResetCode;
use crate::session::{StreamEvent, StreamKey, Streams};

/// All sockets to targets.
#[derive(Debug)]
pub(crate) struct Targets {
    sockets: HashMap<StreamKey, Target>,
    by_token: HashMap<u64, StreamKey>,
    next_token: u64,
    source: Source,
    /// Sockets at most.
    most: usize,
    refused: u64,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Target {
    socket: Socket,
    token: u64,
    connecting: bool,
    may_read: bool,
    may_write: bool,
    /// It must be read until it says that there is nothing: see [`Readiness::more`].
    has_more: bool,
    read_closed: bool,
    /// The other end sends no more.
    write_closed: bool,
    /// The target takes no more: what the other end still sends goes nowhere.
    write_failed: bool,
}

/// The address that a target sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// What the kernel chooses.
    Kernel,
    /// The target's own, which must be of this host: nothing leaves it, whatever its routes say at the moment.
    Target,
}

impl Targets {
    /// No more than `most` at once; tokens from `first_token` on are the targets'.
    pub(crate) fn new(source: Source, first_token: u64, most: usize) -> Self {
        Self {
            sockets: HashMap::new(),
            by_token: HashMap::new(),
            next_token: first_token,
            source,
            most,
            refused: 0,
            scratch: vec![0; READ_SIZE],
        }
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.sockets.len()
    }

    /// Connects that were refused because there are no sockets left.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Does what the session asks.
    pub(crate) fn handle_event(
        &mut self,
        event: StreamEvent,
        streams: &mut impl Streams,
        poller: &Poller,
        now: Instant,
    ) {
        match event {
            StreamEvent::Connect { stream, target } => self.connect(stream, target, streams, poller),
            StreamEvent::Readable(stream) => self.pump_out(stream, streams, now),
            StreamEvent::Writable(stream) => self.pump_in(stream, streams),
            StreamEvent::Finished(stream) => self.shut(stream, streams, now),
            StreamEvent::Reset(stream) => self.abort(stream),
            StreamEvent::Abandoned(which) => {
                let gone: Vec<_> = self.sockets.keys().filter(|key| which.includes(**key)).copied().collect();
                gone.into_iter().for_each(|stream| self.abort(stream));
            }
        }
    }

    /// A socket became ready.
    pub(crate) fn handle_ready(&mut self, ready: Readiness, streams: &mut impl Streams, now: Instant) {
        let Some(&stream) = self.by_token.get(&ready.token) else { return };
        let Some(target) = self.sockets.get_mut(&stream) else { return };
        if target.connecting && !self.finish_connect(stream, ready, streams) {
            return;
        }
        let Some(target) = self.sockets.get_mut(&stream) else { return };
        target.may_read |= ready.readable;
        target.may_write |= ready.writable;
        target.has_more |= ready.more;
        // After the target's FIN nothing is read any more that would tell of its RST.
        if ready.failed && target.read_closed && matches!(target.socket.take_error(), Ok(Some(_))) {
            return self.fail(stream, streams);
        }
        if ready.writable {
            self.pump_out(stream, streams, now);
        }
        if ready.readable {
            self.pump_in(stream, streams);
        }
    }

    fn connect(
        &mut self,
        stream: StreamKey,
        target: SocketAddr,
        streams: &mut impl Streams,
        poller: &Poller,
    ) {
        if self.sockets.len() >= self.most {
            return self.refuse(stream, ResetCode::Limit, streams);
        }
        let token = self.next_token;
        self.next_token += 1;
        match open_socket(target, self.source, poller, token) {
            Ok(socket) => {
                self.by_token.insert(token, stream);
                self.sockets.insert(stream, Target::connecting(socket, token));
            }
            Err(error) => self.refuse(stream, code_of(&error), streams),
        }
    }

    fn refuse(&mut self, stream: StreamKey, code: ResetCode, streams: &mut impl Streams) {
        self.refused += u64::from(code == ResetCode::Limit);
        streams.reset(stream, code);
    }

    /// Whether the target is connected now.
    fn finish_connect(&mut self, stream: StreamKey, ready: Readiness, streams: &mut impl Streams) -> bool {
        let Some(target) = self.sockets.get_mut(&stream) else { return false };
        match target.socket.take_error() {
            Ok(None) if ready.writable => {
                target.connecting = false;
                streams.connected(stream);
                true
            }
            Ok(None) => false,
            Ok(Some(error)) | Err(error) => {
                self.forget(stream);
                streams.reset(stream, code_of(&error));
                false
            }
        }
    }

    /// Stream to target, as far as the socket takes it. A target that takes no more may have answered before: what it
    /// said is still read, to the end or to the error.
    fn pump_out(&mut self, stream: StreamKey, streams: &mut impl Streams, now: Instant) {
        let Some(target) = self.sockets.get_mut(&stream) else { return };
        while (target.may_write || target.write_failed) && !target.connecting {
            let bytes = streams.readable(stream);
            if bytes.is_empty() {
                break;
            }
            let written = if target.write_failed { Ok(bytes.len()) } else { (&target.socket).write(bytes) };
            match written {
                Ok(taken) => streams.consume(stream, taken, now),
                Err(error) if error.kind() == ErrorKind::WouldBlock => target.may_write = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => target.write_failed = true,
            }
        }
    }

    /// Target to stream, as far as the stream has room, and no more at once than is fair to the other sockets.
    fn pump_in(&mut self, stream: StreamKey, streams: &mut impl Streams) {
        let Some(target) = self.sockets.get_mut(&stream) else { return };
        while target.may_read && !target.connecting && !target.read_closed {
            let room = streams.write_room(stream).min(self.scratch.len());
            if room == 0 {
                break;
            }
            match (&target.socket).read(&mut self.scratch[..room]) {
                // A target that takes nothing more and says nothing more has reset: its end is no clean one.
                Ok(0) if target.write_failed => return self.fail(stream, streams),
                Ok(0) => {
                    target.read_closed = true;
                    streams.finish(stream);
                }
                Ok(length) => {
                    streams.write(stream, &self.scratch[..length]);
                    // Less than was asked for is all that there was (epoll(7), on edges): what comes makes another edge.
                    target.may_read = length == room || target.has_more;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => target.may_read = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.fail(stream, streams),
            }
        }
        self.forget_if_done(stream);
    }

    /// The other end sends no more, and everything it sent was written.
    fn shut(&mut self, stream: StreamKey, streams: &mut impl Streams, now: Instant) {
        self.pump_out(stream, streams, now);
        let Some(target) = self.sockets.get_mut(&stream) else { return };
        target.write_closed = true;
        // Fails after a RST, of which reading tells, behind what the socket still holds.
        target.write_failed |= target.socket.shutdown(Shutdown::Write).is_err();
        self.forget_if_done(stream);
    }

    /// The target reset its connection; the app is told behind what the target had sent before.
    fn fail(&mut self, stream: StreamKey, streams: &mut impl Streams) {
        streams.abort(stream);
        self.abort(stream);
    }

    /// Closes with a RST.
    fn abort(&mut self, stream: StreamKey) {
        if let Some(target) = self.forget(stream)
            && let Err(error) = target.socket.set_linger(Some(Duration::ZERO))
        {
            tracing::debug!(%error, "a socket to a target could not be reset");
        }
    }

    fn forget_if_done(&mut self, stream: StreamKey) {
        if self.sockets.get(&stream).is_some_and(|target| target.read_closed && target.write_closed) {
            self.forget(stream);
        }
    }

    fn forget(&mut self, stream: StreamKey) -> Option<Target> {
        let target = self.sockets.remove(&stream)?;
        self.by_token.remove(&target.token);
        Some(target)
    }
}

impl Target {
    fn connecting(socket: Socket, token: u64) -> Self {
        Self {
            socket,
            token,
            connecting: true,
            may_read: false,
            may_write: false,
            has_more: false,
            read_closed: false,
            write_closed: false,
            write_failed: false,
        }
    }
}

fn open_socket(target: SocketAddr, source: Source, poller: &Poller, token: u64) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    // An urgent byte stays in its place: without this, the kernel takes it out of the stream.
    socket.set_out_of_band_inline(true)?;
    // An app's own keepalives are answered on its side: only this one, as rare as the host's settings say, finds a target gone.
    socket.set_keepalive(true)?;
    if source == Source::Target {
        socket.bind(&SocketAddr::new(target.ip(), 0).into())?;
        // Of all ports the target's was free: nobody listens there, and a TCP that connects to itself would succeed.
        if socket.local_addr()?.as_socket().is_some_and(|local| local.port() == target.port()) {
            return Err(Errno::CONNREFUSED.into());
        }
    }
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(error),
        _ => poller.watch_edges(&socket, token)?,
    }
    Ok(socket)
}

/// What the app is told of an error of the target's socket.
fn code_of(error: &io::Error) -> ResetCode {
    match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => ResetCode::Refused,
        Some(Errno::HOSTUNREACH | Errno::HOSTDOWN) => ResetCode::HostUnreachable,
        Some(Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT) => {
            ResetCode::NetUnreachable
        }
        Some(Errno::TIMEDOUT) => ResetCode::Timeout,
        Some(Errno::ACCESS | Errno::PERM) => ResetCode::Denied,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC) => ResetCode::Limit,
        _ => ResetCode::Reset,
    }
}

/// Our choice: what one read takes from a target at most.
const READ_SIZE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn an_urgent_byte_of_the_target_stays_in_its_place() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let poller = Poller::new().unwrap();
        let mut socket = open_socket(listener.local_addr().unwrap(), Source::Kernel, &poller, 1).unwrap();
        let target = Socket::from(listener.accept().unwrap().0);
        target.send(b"before ").unwrap();
        assert_eq!(target.send_out_of_band(b"!").unwrap(), 1);
        target.send(b" after").unwrap();
        drop(target);
        socket.set_nonblocking(false).unwrap();
        let mut read = String::new();
        socket.read_to_string(&mut read).unwrap();
        assert_eq!(read, "before ! after");
    }
    #[tokio::test(flavor = "current_thread")]
    async fn a_service_sees_its_own_address_and_what_is_no_address_of_this_host_is_not_connected_to() {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 7), 0)).unwrap();
        let poller = Poller::new().unwrap();
        let service = listener.local_addr().unwrap();
        let _socket = open_socket(service, Source::Target, &poller, 1).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), service.ip());
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], 22));
        let error = open_socket(elsewhere, Source::Target, &poller, 2).unwrap_err();
        assert_eq!(code_of(&error), ResetCode::NetUnreachable, "{error}");
    }
}
