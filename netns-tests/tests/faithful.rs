//! What TCP promises to apps holds through the tunnel, where it is ended at one end and begun anew at the other.
//!
//! ```text
//!   client ──[ 10 ms ]── router ── server ── target
//!     half-close, reset, urgent byte, ═══════ likewise
//!     silence, many at once
//! ```

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netns_tests::addresses::{TARGET, TARGET_V6};
use netns_tests::emulator::Profile;
use netns_tests::sockets::{self, accept, expect, expect_end};
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;

fn faithful(name: &str, body: impl FnOnce(&mut Tunnel<'_>) -> Result<()>) {
    let profile = Profile { delay: Duration::from_millis(5), ..Profile::CLEAR };
    tunnel_scenario(name, Setup::link(profile), 1, body);
}

#[test]
fn each_direction_ends_by_itself() {
    faithful("each_direction_ends_by_itself", |tunnel| {
        for host in [IpAddr::from(TARGET), IpAddr::from(TARGET_V6)] {
            let listener = sockets::listen(&tunnel.topology.target, host, PORT)?;
            for client_first in [true, false] {
                let (here, there) = pair(tunnel, host, &listener)?;
                let (first, second) = if client_first { (&here, &there) } else { (&there, &here) };
                say(first, b"a question")?;
                first.shutdown(Shutdown::Write)?;
                expect(second, b"a question")?;
                expect_end(second)?;
                // The other direction goes on long after.
                for _ in 0..20 {
                    say(second, &[b'x'; 10_000])?;
                    expect(first, &[b'x'; 10_000])?;
                }
                second.shutdown(Shutdown::Write)?;
                expect_end(first)?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_reset_arrives_as_a_reset_behind_the_bytes_before_it() {
    faithful("a_reset_arrives_as_a_reset_behind_the_bytes_before_it", |tunnel| {
        let listener = sockets::listen(&tunnel.topology.target, TARGET, PORT)?;
        for client_first in [true, false] {
            let (here, there) = pair(tunnel, TARGET, &listener)?;
            let (first, second) = if client_first { (here, there) } else { (there, here) };
            say(&first, b"last words")?;
            expect(&second, b"last words")?;
            // To close with something unread or without lingering resets.
            rustix::net::sockopt::set_socket_linger(&first, Some(Duration::ZERO))?;
            drop(first);
            let error = (&second).read(&mut [0]).err().context("an end instead of a reset")?;
            ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}");
        }
        Ok(())
    });
}

#[test]
fn an_urgent_byte_is_delivered_in_its_place() {
    faithful("an_urgent_byte_is_delivered_in_its_place", |tunnel| {
        let listener = sockets::listen(&tunnel.topology.target, TARGET, PORT)?;
        let (here, there) = pair(tunnel, TARGET, &listener)?;
        for (first, second) in [(&here, &there), (&there, &here)] {
            rustix::net::sockopt::set_socket_oobinline(second, true)?;
            say(first, b"before ")?;
            ensure!(rustix::net::send(first, b"!", rustix::net::SendFlags::OOB)? == 1);
            say(first, b" after")?;
            expect(second, b"before ! after")?;
        }
        Ok(())
    });
}

#[test]
fn a_silent_target_leaves_an_app_to_its_own_patience() {
    faithful("a_silent_target_leaves_an_app_to_its_own_patience", |tunnel| {
        // The target drops what comes to this port: the server's kernel waits for an answer, as the app does.
        let rule = "add table inet silent; add chain inet silent in { type filter hook input priority 0; }; \
                    add rule inet silent in tcp dport 7000 drop";
        tunnel.topology.target.program("nft")?.arg(rule).output()?;
        let patience = Duration::from_secs(2);
        let error = sockets::connect(tunnel.client(), TARGET, PORT, patience).err().context("connected")?;
        let error = error.downcast_ref::<std::io::Error>().context("not from connect")?;
        ensure!(error.kind() == ErrorKind::TimedOut, "{error}");
        Ok(())
    });
}

#[test]
fn a_reader_that_stops_stops_its_writer_and_nobody_else() {
    faithful("a_reader_that_stops_stops_its_writer_and_nobody_else", |tunnel| {
        let listener = sockets::listen(&tunnel.topology.target, TARGET, PORT)?;
        let (stopped, mut writer) = pair(tunnel, TARGET, &listener)?;
        writer.set_write_timeout(Some(Duration::from_secs(1)))?;
        let mut written = 0;
        let error = loop {
            match writer.write(&[7; 65_536]) {
                Ok(size) => written += size,
                Err(error) => break error,
            }
            ensure!(written < BOUND, "{written} bytes are buffered for a reader that has read none");
        };
        ensure!(error.kind() == ErrorKind::WouldBlock, "{error}");
        let (here, there) = pair(tunnel, TARGET, &listener)?;
        say(&there, &[8; 100_000])?;
        expect(&here, &[8; 100_000])?;
        // And who reads on gets everything.
        drop(writer);
        let mut rest = Vec::new();
        (&stopped).read_to_end(&mut rest)?;
        ensure!(
            rest.len() == written && rest.iter().all(|byte| *byte == 7),
            "{} of {written} bytes",
            rest.len()
        );
        Ok(())
    });
}

#[test]
fn hundreds_of_connections_open_at_once_and_their_ports_are_used_again() {
    faithful("hundreds_of_connections_open_at_once_and_their_ports_are_used_again", |tunnel| {
        let listener = sockets::listen(&tunnel.topology.target, TARGET, PORT)?;
        // Hardly more ports than connections, so that the second time meets the 4-tuples of the first.
        let range = format!("40000 {}", 40_000 + 2 * CROWD);
        tunnel.client().set_sysctl("net/ipv4/ip_local_port_range", &range)?;
        for _ in 0..3 {
            crowd(tunnel, &listener)?;
            wait::until("the end of every connection", LIMIT, || {
                let list = tunnel.client().run(&format!("ss -Htn dport = :{PORT}"))?;
                Ok(list.trim().is_empty().then_some(()))
            })?;
        }
        Ok(())
    });
}

/// Opens connections all at once, and sees that each leads to one of its own.
fn crowd(tunnel: &Tunnel<'_>, listener: &TcpListener) -> Result<()> {
    let connect = || sockets::connect(tunnel.client(), TARGET, PORT, LIMIT);
    let accept_all = || (0..CROWD).map(|_| accept(listener, LIMIT)).collect::<Result<Vec<_>>>();
    let (here, there) = std::thread::scope(|scope| {
        // At the same time: a listener queues no more than 128.
        let there = scope.spawn(accept_all);
        let here: Vec<_> = (0..CROWD).map(|_| scope.spawn(connect)).collect();
        let here = here.into_iter().map(joined).collect::<Result<Vec<_>>>();
        Ok::<_, anyhow::Error>((here?, joined(there)?))
    })?;
    for (number, stream) in (0..CROWD).zip(&here) {
        say(stream, &number.to_be_bytes())?;
    }
    let mut numbers = BTreeSet::new();
    for mut stream in &there {
        let mut number = [0; 2];
        stream.read_exact(&mut number)?;
        numbers.insert(u16::from_be_bytes(number));
        // The target closes first: a client that does would keep the port for a minute.
        stream.shutdown(Shutdown::Write)?;
    }
    ensure!(numbers == (0..CROWD).collect(), "some of the connections are one");
    here.iter().try_for_each(expect_end)
}

/// A connection of an app on the client to `listener` on the target, seen from both.
fn pair(
    tunnel: &Tunnel<'_>,
    host: impl Into<IpAddr>,
    listener: &TcpListener,
) -> Result<(TcpStream, TcpStream)> {
    let here = sockets::connect(tunnel.client(), host, PORT, LIMIT)?;
    let there = accept(listener, LIMIT)?;
    Ok((here, there))
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| bail!("a thread panicked"))
}

fn say(mut stream: &TcpStream, text: &[u8]) -> Result<()> {
    stream.write_all(text).with_context(|| format!("writing {} bytes", text.len()))
}

/// Connections at once.
const CROWD: u16 = 200;

/// Beyond every buffer on the way: those of two kernels and of both ends of the tunnel.
const BOUND: usize = 64 << 20;
