//! Sockets of this process on a host of the topology, for what no program at hand does to a connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, ipproto, sockopt};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::node::Node;
use crate::{sys, wait};

/// Runs `action` in a thread of its own that is on `node`; the sockets that it makes stay there wherever they are used.
///
/// # Errors
/// That of `action`, or if the thread cannot enter the namespace.
pub fn on<T: Send>(node: &Node, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let network = node.namespace().network();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            action()
        });
        thread.join().unwrap_or_else(|_| bail!("the thread panicked"))
    })
}

/// A socket on `node` that listens on `address`, for [`accept`].
///
/// # Errors
/// If the kernel refuses.
pub fn listen(node: &Node, address: impl Into<IpAddr>, port: u16) -> Result<TcpListener> {
    let address = SocketAddr::new(address.into(), port);
    let listener =
        on(node, || TcpListener::bind(address).with_context(|| format!("listening on {address}")))?;
    // Again, for more than the 128 of the standard library.
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A connection from `node` to `host`; it fails as the kernel says, or after `limit`. Reading and writing end after `limit`, too.
///
/// # Errors
/// With the `std::io::Error` of `connect`.
pub fn connect(node: &Node, host: impl Into<IpAddr>, port: u16, limit: Duration) -> Result<TcpStream> {
    let address = SocketAddr::new(host.into(), port);
    on(node, || bounded(TcpStream::connect_timeout(&address, limit)?, limit))
}

/// The same from a port of the caller's choice, which a connection that ended may have had.
///
/// # Errors
/// As [`connect`]; [`ErrorKind::AddrNotAvailable`] or [`ErrorKind::AddrInUse`] while that connection has not ended.
pub fn connect_from(
    node: &Node,
    source_port: u16,
    host: impl Into<IpAddr>,
    port: u16,
    limit: Duration,
) -> Result<TcpStream> {
    let address = SocketAddr::new(host.into(), port);
    on(node, || {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = rustix::net::socket(family, SocketType::STREAM, Some(ipproto::TCP))?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        let any: IpAddr =
            if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        rustix::net::bind(&socket, &SocketAddr::new(any, source_port)).map_err(std::io::Error::from)?;
        // It bounds connecting, too.
        let stream = bounded(TcpStream::from(socket), limit)?;
        rustix::net::connect(&stream, &address).map_err(std::io::Error::from)?;
        Ok(stream)
    })
}

/// `count` connections from `node` to `host`, all begun before any is waited for. They do not block.
///
/// # Errors
/// With the first that fails, or if not all are connected after `limit`.
pub fn connect_all(
    node: &Node,
    count: usize,
    host: impl Into<IpAddr>,
    port: u16,
    limit: Duration,
) -> Result<Vec<TcpStream>> {
    let address = SocketAddr::new(host.into(), port);
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let begin = || {
        let flags = rustix::net::SocketFlags::NONBLOCK | rustix::net::SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
            Err(error) => Err(error.into()),
        }
    };
    let streams = on(node, || (0..count).map(|_| begin()).collect::<Result<Vec<_>>>())?;
    for (number, stream) in streams.iter().enumerate() {
        wait::until(&format!("connection {number} of {count}"), limit, || {
            if let Some(error) = stream.take_error()? {
                return Err(error).with_context(|| format!("connection {number} of {count}"));
            }
            Ok(stream.peer_addr().is_ok().then_some(()))
        })?;
    }
    Ok(streams)
}

/// Lets this process have so many files open at once.
///
/// # Errors
/// If the kernel refuses.
pub fn allow_open_files(count: u64) -> Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = |limit: Option<u64>| limit.map(|limit| limit.max(count));
    let limit = Rlimit { current: raised(limit.current), maximum: raised(limit.maximum) };
    Ok(rustix::process::setrlimit(Resource::Nofile, limit)?)
}

/// A connection from `node` to `listener` at `address`, seen from both ends.
///
/// # Errors
/// As [`connect`] and [`accept`].
pub fn pair(
    node: &Node,
    listener: &TcpListener,
    address: SocketAddr,
    limit: Duration,
) -> Result<(TcpStream, TcpStream)> {
    let here = connect(node, address.ip(), address.port(), limit)?;
    Ok((here, accept(listener, limit)?))
}

/// The next connection to `listener`; reading and writing end after `limit`.
///
/// # Errors
/// If there is none before `limit`.
pub fn accept(listener: &TcpListener, limit: Duration) -> Result<TcpStream> {
    let stream = wait::until("a connection", limit, || match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    })?;
    stream.set_nonblocking(false)?;
    bounded(stream, limit)
}

/// Writes all of `text`.
///
/// # Errors
/// If the kernel does not take it.
pub fn say(mut stream: &TcpStream, text: &[u8]) -> Result<()> {
    stream.write_all(text).with_context(|| format!("writing {} bytes", text.len()))
}

/// Waits until the other end of this TCP has acknowledged every byte, which says nothing of who reads them.
///
/// # Errors
/// If it has not before `limit`.
pub fn wait_until_acknowledged(stream: &TcpStream, limit: Duration) -> Result<()> {
    wait::until("an acknowledgement of every byte", limit, || {
        Ok((sys::unacknowledged(stream.as_fd())? == 0).then_some(()))
    })
}

/// Ends the connection with a RST.
///
/// # Errors
/// If the kernel refuses.
pub fn reset(stream: TcpStream) -> Result<()> {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// Reads exactly `text`.
///
/// # Errors
/// If something else comes, or less.
pub fn expect(mut stream: &TcpStream, text: &[u8]) -> Result<()> {
    let mut read = vec![0; text.len()];
    stream.read_exact(&mut read).with_context(|| format!("reading {} bytes", text.len()))?;
    ensure!(read == text, "read {} instead of {}", read.escape_ascii(), text.escape_ascii());
    Ok(())
}

/// Reads the end of the other's stream.
///
/// # Errors
/// If something else comes.
pub fn expect_end(mut stream: &TcpStream) -> Result<()> {
    let mut byte = [0];
    let read = stream.read(&mut byte).context("reading the end")?;
    ensure!(read == 0, "read {byte:?} instead of the end");
    Ok(())
}

/// Reads a reset.
///
/// # Errors
/// If something else comes.
pub fn expect_reset(mut stream: &TcpStream) -> Result<()> {
    let read = stream.read(&mut [0]);
    let error = read.err().context("a byte or an end instead of a reset")?;
    ensure!(error.kind() == ErrorKind::ConnectionReset, "{error} instead of a reset");
    Ok(())
}

/// What the kernel said, if it is the cause of `error`.
#[must_use]
pub fn kind_of(error: &anyhow::Error) -> Option<ErrorKind> {
    error.downcast_ref::<std::io::Error>().map(std::io::Error::kind)
}

fn bounded(stream: TcpStream, limit: Duration) -> Result<TcpStream> {
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

/// Connections that wait to be accepted: as many as Linux allows by default (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
