//! How connections begin: an app's connect succeeds, fails or waits as it would without the tunnel.
//!
//! ```text
//!   client ──[ 10 ms ]── router ── server ── target :7000; a host that is not there
//!     connects, again from the same port, thousands at once
//! ```

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netns_tests::addresses::{TARGET, TARGET_V6, UNREACHABLE, UNREACHABLE_V6};
use netns_tests::emulator::Profile;
use netns_tests::sockets::{self, accept, expect, expect_end, kind_of, say};
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};
use netns_tests::{firewall, wait};

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;
const BOTH: [IpAddr; 2] = [IpAddr::V4(TARGET), IpAddr::V6(TARGET_V6)];

fn connecting(name: &str, body: impl FnOnce(&mut Tunnel<'_>) -> Result<()>) {
    let profile = Profile { delay: Duration::from_millis(5), ..Profile::CLEAR };
    tunnel_scenario(name, Setup::link(profile), 1, body);
}

#[test]
fn what_fails_beyond_the_tunnel_fails_at_the_app_for_the_same_reason() {
    connecting("what_fails_beyond_the_tunnel_fails_at_the_app_for_the_same_reason", |tunnel| {
        let tunnel = &*tunnel;
        let server = &tunnel.topology.server;
        // What the main table does not know, no other does.
        server.ip_lines(&[
            format!("route add throw {NO_NETWORK}"),
            format!("route add throw {NO_NETWORK_V6}"),
        ])?;
        let cases: [(IpAddr, ErrorKind); 8] = [
            (TARGET.into(), ErrorKind::ConnectionRefused),
            (TARGET_V6.into(), ErrorKind::ConnectionRefused),
            (UNREACHABLE.into(), ErrorKind::HostUnreachable),
            (UNREACHABLE_V6.into(), ErrorKind::HostUnreachable),
            (NO_NETWORK.into(), ErrorKind::NetworkUnreachable),
            (NO_NETWORK_V6.into(), ErrorKind::NetworkUnreachable),
            // On the wire between server and target, where nobody answers for these.
            (NOBODY.into(), ErrorKind::HostUnreachable),
            (NOBODY_V6.into(), ErrorKind::HostUnreachable),
        ];
        std::thread::scope(|scope| {
            let threads = cases.map(|(host, expected)| scope.spawn(move || fails(tunnel, host, expected)));
            threads.into_iter().try_for_each(joined)
        })
    });
}

/// Connects in vain, and compares with what the server's own programs are told.
fn fails(tunnel: &Tunnel<'_>, host: IpAddr, expected: ErrorKind) -> Result<()> {
    for node in [&tunnel.topology.server, tunnel.client()] {
        let error = sockets::connect(node, host, PORT, LIMIT);
        let error = error.err().with_context(|| format!("{} is connected to {host}", node.role()))?;
        let kind = kind_of(&error).context("not from connect")?;
        ensure!(kind == expected, "{} to {host}: {error:#}", node.role());
    }
    Ok(())
}

#[test]
fn a_silent_target_leaves_an_app_to_its_own_patience() {
    connecting("a_silent_target_leaves_an_app_to_its_own_patience", |tunnel| {
        // The server's kernel waits for an answer, as the app does.
        firewall::drop_input(&tunnel.topology.target, &format!("tcp dport {PORT}"))?;
        let patience = Duration::from_secs(2);
        for host in BOTH {
            let error = sockets::connect(tunnel.client(), host, PORT, patience).err().context("connected")?;
            ensure!(kind_of(&error) == Some(ErrorKind::TimedOut), "{error:#}");
        }
        Ok(())
    });
}

#[test]
fn a_syn_that_the_app_repeats_is_one_connection_at_the_target() {
    connecting("a_syn_that_the_app_repeats_is_one_connection_at_the_target", |tunnel| {
        let (client, target) = (tunnel.client(), &tunnel.topology.target);
        let listeners = BOTH.map(|host| sockets::listen(target, host, PORT));
        let repeats = client.capture("vpn0", IS_SYN)?;
        let dropped = firewall::drop_input(target, &format!("tcp dport {PORT}"))?;
        std::thread::scope(|scope| {
            let apps = BOTH.map(|host| scope.spawn(move || sockets::connect(client, host, PORT, LIMIT)));
            // The server's kernel sends its SYNs after 0, 1, 3, 7 … seconds, as does the app's.
            wait::until("two SYNs to each address", LIMIT, || Ok((dropped.packets()? >= 4).then_some(())))?;
            dropped.remove()?;
            for ((app, listener), host) in apps.into_iter().zip(&listeners).zip(BOTH) {
                let here = joined(app).with_context(|| format!("connecting to {host}"))?;
                let listener = listener.as_ref().ok().context("no listener")?;
                let there = accept(listener, LIMIT)?;
                say(&here, b"once")?;
                expect(&there, b"once")?;
                let second = listener.accept().err().map(|error| error.kind());
                ensure!(second == Some(ErrorKind::WouldBlock), "{host}: another connection");
            }
            Ok::<_, anyhow::Error>(())
        })?;
        let syns = repeats.finish(client, "")?;
        ensure!(syns.len() >= 4, "the apps' kernel did not repeat its SYNs: {syns:#?}");
        Ok(())
    });
}

#[test]
fn a_four_tuple_is_used_again_at_once() {
    connecting("a_four_tuple_is_used_again_at_once", |tunnel| {
        for host in BOTH {
            let listener = sockets::listen(&tunnel.topology.target, host, PORT)?;
            for end in [End::TargetCloses, End::TargetResets, End::AppResets].repeat(3) {
                again(tunnel, &listener, host, end).with_context(|| format!("{host}, {end:?}"))?;
            }
        }
        Ok(())
    });
}

/// How a connection ends before its port is used again. The kernel of an app that closes first keeps the port for a minute.
#[derive(Clone, Copy, Debug)]
enum End {
    TargetCloses,
    TargetResets,
    AppResets,
}

/// A connection from the same port as always, which is ended.
fn again(tunnel: &Tunnel<'_>, listener: &TcpListener, host: IpAddr, end: End) -> Result<()> {
    let here = wait::until("the port to be free", LIMIT, || {
        match sockets::connect_from(tunnel.client(), SOURCE_PORT, host, PORT, LIMIT) {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if kind_of(&error) == Some(ErrorKind::AddrNotAvailable) => Ok(None),
            Err(error) => Err(error),
        }
    })?;
    let there = accept(listener, LIMIT)?;
    say(&here, b"question")?;
    expect(&there, b"question")?;
    say(&there, b"answer")?;
    expect(&here, b"answer")?;
    match end {
        End::TargetCloses => {
            there.shutdown(Shutdown::Write)?;
            expect_end(&here)?;
        }
        End::TargetResets => {
            sockets::reset(there)?;
            sockets::expect_reset(&here)?;
        }
        // At once: the far end may not have heard of it.
        End::AppResets => sockets::reset(here)?,
    }
    Ok(())
}

#[test]
fn thousands_of_connections_open_at_once() {
    connecting("thousands_of_connections_open_at_once", |tunnel| {
        sockets::allow_open_files(3 * u64::try_from(THOUSANDS)?)?;
        for (host, count) in BOTH.into_iter().zip([THOUSANDS, THOUSANDS / 3]) {
            let listener = sockets::listen(&tunnel.topology.target, host, PORT)?;
            let (here, there) = std::thread::scope(|scope| {
                let accept_all = || (0..count).map(|_| accept(&listener, LIMIT)).collect::<Result<Vec<_>>>();
                let there = scope.spawn(accept_all);
                let here = sockets::connect_all(tunnel.client(), count, host, PORT, LIMIT);
                Ok::<_, anyhow::Error>((here?, joined(there)?))
            })?;
            each_leads_to_one_of_its_own(&here, &there)?;
        }
        Ok(())
    });
}

#[test]
fn ports_are_used_again_when_there_are_hardly_more_than_connections() {
    connecting("ports_are_used_again_when_there_are_hardly_more_than_connections", |tunnel| {
        let listener = sockets::listen(&tunnel.topology.target, TARGET, PORT)?;
        // So that the second time meets the 4-tuples of the first, at either end.
        let range = format!("40000 {}", 40_000 + 2 * CROWD);
        for node in [tunnel.client(), &tunnel.topology.server] {
            node.set_sysctl("net/ipv4/ip_local_port_range", &range)?;
        }
        for _ in 0..3 {
            let (here, there) = std::thread::scope(|scope| {
                let accept_all = || (0..CROWD).map(|_| accept(&listener, LIMIT)).collect::<Result<Vec<_>>>();
                let there = scope.spawn(accept_all);
                let here = sockets::connect_all(tunnel.client(), CROWD, TARGET, PORT, LIMIT);
                Ok::<_, anyhow::Error>((here?, joined(there)?))
            })?;
            each_leads_to_one_of_its_own(&here, &there)?;
            drop((there, here));
            wait::until("the end of every connection", LIMIT, || {
                let list = tunnel.client().run(&format!("ss -Htn dport = :{PORT}"))?;
                Ok(list.trim().is_empty().then_some(()))
            })?;
        }
        Ok(())
    });
}

fn each_leads_to_one_of_its_own(here: &[TcpStream], there: &[TcpStream]) -> Result<()> {
    for (number, stream) in (0_u16..).zip(here) {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(LIMIT))?;
        say(stream, &number.to_be_bytes())?;
    }
    let mut numbers = BTreeSet::new();
    for mut stream in there {
        let mut number = [0; 2];
        stream.read_exact(&mut number)?;
        numbers.insert(usize::from(u16::from_be_bytes(number)));
        // The target closes first: a client that does would keep the port for a minute.
        stream.shutdown(Shutdown::Write)?;
    }
    ensure!(numbers == (0..here.len()).collect(), "some of the connections are one");
    here.iter().try_for_each(expect_end)
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| bail!("a thread panicked"))
}

/// Connections at once.
const THOUSANDS: usize = 3000;

/// Where there are hardly more ports.
const CROWD: usize = 200;

/// One that no kernel here chooses by itself.
const SOURCE_PORT: u16 = 12_345;

/// A network to which the server has no route.
const NO_NETWORK: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
/// The same in IPv6.
const NO_NETWORK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 2, 0, 0, 1);

/// A host that is not there, in a network of the server's own.
const NOBODY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);
/// The same in IPv6.
const NOBODY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x300, 0, 0, 0, 0, 0x99);

/// Segments of either family with SYN and without ACK.
const IS_SYN: &str = "tcp[13] & 18 == 2 or (ip6[6] == 6 and ip6[53] & 18 == 2)";
