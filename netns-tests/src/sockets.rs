//! Sockets of this process on a host of the topology, for what no program at hand does to a connection.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::node::Node;
use crate::wait;

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

/// Reads exactly `text`.
///
/// # Errors
/// If something else comes, or less.
pub fn expect(mut stream: &TcpStream, text: &[u8]) -> Result<()> {
    let mut read = vec![0; text.len()];
    stream.read_exact(&mut read).with_context(|| format!("reading {} bytes", text.len()))?;
    anyhow::ensure!(read == text, "read {} instead of {}", read.escape_ascii(), text.escape_ascii());
    Ok(())
}

/// Reads the end of the other's stream.
///
/// # Errors
/// If something else comes.
pub fn expect_end(mut stream: &TcpStream) -> Result<()> {
    let mut byte = [0];
    let read = stream.read(&mut byte).context("reading the end")?;
    anyhow::ensure!(read == 0, "read {byte:?} instead of the end");
    Ok(())
}

fn bounded(stream: TcpStream, limit: Duration) -> Result<TcpStream> {
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}
