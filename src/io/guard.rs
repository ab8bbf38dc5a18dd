//! The port guard: keeps this host's own TCP silent on a port that our packets use.
//!
//! A listening socket whose filter drops everything takes each segment before TCP can answer it: no SYN-ACK, no RST,
//! whatever arrives, and no other program can take the port. It is gone when the process dies, however it dies, so no
//! firewall rule is needed and nothing is left behind. Without `listen`, or without the filter, the kernel answers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{filter::DROP, route::source_for};

/// Holds a TCP port silent and reserved until dropped.
#[derive(Debug)]
pub struct PortGuard {
    socket: Socket,
    address: SocketAddr,
}

impl PortGuard {
    /// Reserves a port; port 0 = any free one. The kernel answers nothing on it from the first moment.
    ///
    /// A guard on `[::]` holds IPv6 only, so that `0.0.0.0` and `[::]` can be held on one port.
    ///
    /// # Errors
    /// `AddrInUse` if another program has the port, `AddrNotAvailable` for an address that is not ours,
    /// `PermissionDenied` without CAP_NET_ADMIN (the filter) or for a low port without CAP_NET_BIND_SERVICE.
    pub fn reserve(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Before bind: afterwards there would be a moment in which the kernel answers.
        socket.attach_filter(&[SockFilter::from(DROP)])?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(SMALLEST_BACKLOG)?;
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or_else(|| io::Error::other("the kernel named no port"))?;
        Ok(Self { socket, address })
    }

    /// Reserves a random port of the range from which Windows, which our packets resemble, takes its source ports; if many of
    /// those are taken, any free one.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn reserve_source(address: IpAddr) -> io::Result<Self> {
        for _ in 0..SOURCE_TRIES {
            let mut random = [0; 2];
            getrandom::fill(&mut random)?;
            let port = DYNAMIC_PORTS | u16::from_ne_bytes(random) >> 2;
            match Self::reserve(SocketAddr::new(address, port)) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
        Self::reserve(SocketAddr::new(address, 0))
    }

    /// Reserves a source port towards `remote`, and says what packets with `mark` come from: the address they leave by, and
    /// the port.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve), or there is no way to `remote`.
    pub fn towards(remote: SocketAddr, mark: Option<u32>) -> io::Result<(Self, SocketAddr)> {
        let source = source_for(remote, mark)?;
        // Bound to any address: the source address may be new, or leave, at any time.
        let any = match source {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let guard = Self::reserve_source(any)?;
        let local = SocketAddr::new(source, guard.port());
        Ok((guard, local))
    }

    /// The reserved port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The reserved address and port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl AsFd for PortGuard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The first of IANA's dynamic ports (RFC 6335, section 6): the upper quarter of all, as Windows uses them.
const DYNAMIC_PORTS: u16 = 0xc000;

/// Our choice: fails only where nearly all of them are taken.
const SOURCE_TRIES: u32 = 64;

/// Nothing ever gets as far as the queue.
const SMALLEST_BACKLOG: i32 = 1;
