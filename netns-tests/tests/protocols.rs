//! Whatever is not TCP crosses as it is: protocols that nobody has heard of, the largest datagrams, and errors about what nobody takes.
//!
//! ```text
//!   client ──[ 10 ms ]── router ── server ── target
//!     raw sockets, UDP ═══════════════════ likewise
//! ```

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{SERVER_BACK, SERVER_BACK_V6, TARGET, TARGET_V6, tunnel_client};
use netns_tests::emulator::Profile;
use netns_tests::node::Node;
use netns_tests::sockets;
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};
use netns_tests::wait;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;
const FAR: [(IpAddr, IpAddr); 2] =
    [(IpAddr::V4(TARGET), IpAddr::V4(SERVER_BACK)), (IpAddr::V6(TARGET_V6), IpAddr::V6(SERVER_BACK_V6))];

fn protocols(name: &str, body: impl FnOnce(&mut Tunnel<'_>) -> Result<()>) {
    let profile = Profile { delay: Duration::from_millis(5), ..Profile::CLEAR };
    tunnel_scenario(name, Setup::link(profile), 1, body);
}

#[test]
fn protocols_without_ports_cross_both_ways() {
    protocols("protocols_without_ports_cross_both_ways", |tunnel| {
        for (host, seen_from) in FAR {
            for (protocol, [question, answer]) in [
                (GRE, [gre(), gre()]),
                (ESP, [esp(), esp()]),
                (SCTP, [sctp((5000, 5001), 0, INIT), sctp((5001, 5000), 7, INIT_ACK)]),
                (EXPERIMENT, [esp(), esp()]),
            ] {
                let what = || format!("protocol {protocol} to {host}");
                let here = raw_socket(tunnel.client(), host, protocol).with_context(what)?;
                let there = raw_socket(&tunnel.topology.target, host, protocol).with_context(what)?;
                // It has another address on the wire to the server.
                rustix::net::bind(&there, &SocketAddr::new(host, 0))?;
                send(&here, &question, host)?;
                let source = expect(&there, &question).context("at the target").with_context(what)?;
                ensure!(source == seen_from, "{}: from {source}", what());
                send(&there, &answer, seen_from)?;
                let source = expect(&here, &answer).context("at the client").with_context(what)?;
                ensure!(source == host, "{}: an answer from {source}", what());
            }
        }
        Ok(())
    });
}

#[test]
fn the_largest_datagrams_cross_both_ways() {
    protocols("the_largest_datagrams_cross_both_ways", |tunnel| {
        for (host, headers) in [(IpAddr::V4(TARGET), 28), (IpAddr::V6(TARGET_V6), 8)] {
            let there = sockets::on(&tunnel.topology.target, || Ok(UdpSocket::bind((host, PORT))?))?;
            let here = sockets::on(tunnel.client(), || connected(host, PORT))?;
            for socket in [&here, &there] {
                socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            }
            for length in [65_535 - headers, 20_000, 1_500, 1_400] {
                let question: Vec<u8> = (0..=250).cycle().take(length).collect();
                let answer: Vec<u8> = question.iter().rev().copied().collect();
                // In IPv6 the first is told "too big"; and a busy machine may lose one of many pieces.
                wait::until(&format!("{length} bytes from {host}"), LIMIT, || {
                    if let Err(error) = here.send(&question) {
                        ensure!(error.raw_os_error() == Some(EMSGSIZE), "{error}");
                    }
                    let Some(from) = receive(&there, &question)? else { return Ok(None) };
                    there.send_to(&answer, from)?;
                    receive(&here, &answer)
                })?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_datagram_to_a_closed_port_is_refused_from_either_side() {
    protocols("a_datagram_to_a_closed_port_is_refused_from_either_side", |tunnel| {
        let (address, address_v6) = tunnel_client(0);
        let target = &tunnel.topology.target;
        target.ip(&format!("route add {address} via {SERVER_BACK}"))?;
        target.ip(&format!("route add {address_v6} via {SERVER_BACK_V6}"))?;
        for (node, host) in [
            (tunnel.client(), IpAddr::from(TARGET)),
            (tunnel.client(), IpAddr::from(TARGET_V6)),
            (&tunnel.topology.server, IpAddr::from(address)),
            (&tunnel.topology.server, IpAddr::from(address_v6)),
            (target, IpAddr::from(address)),
            (target, IpAddr::from(address_v6)),
        ] {
            let socket = sockets::on(node, || connected(host, PORT))?;
            socket.send(b"anybody?")?;
            let error = socket.recv(&mut [0; 16]).err().context("an answer from nobody")?;
            ensure!(error.kind() == ErrorKind::ConnectionRefused, "{} asks {host}: {error}", node.role());
        }
        Ok(())
    });
}

/// Takes datagrams until this one comes, or none for a while; returns who sent it. Others are late, of an earlier try.
fn receive(socket: &UdpSocket, expected: &[u8]) -> Result<Option<SocketAddr>> {
    let mut bytes = vec![0; 65_536];
    loop {
        match socket.recv_from(&mut bytes) {
            Ok((length, from)) if bytes[..length] == *expected => return Ok(Some(from)),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn connected(host: IpAddr, port: u16) -> Result<UdpSocket> {
    let any: SocketAddr = if host.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
    let socket = UdpSocket::bind(any)?;
    socket.connect((host, port))?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

fn raw_socket(node: &Node, host: IpAddr, protocol: u8) -> Result<OwnedFd> {
    let family = if host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let protocol = NonZeroU32::new(protocol.into()).map(Protocol::from_raw);
    let socket = sockets::on(node, || {
        Ok(rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?)
    })?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(Duration::from_secs(5)),
    )?;
    Ok(socket)
}

fn send(socket: &OwnedFd, packet: &[u8], host: IpAddr) -> Result<()> {
    let sent = rustix::net::sendto(socket, packet, SendFlags::empty(), &SocketAddr::new(host, 0))?;
    ensure!(sent == packet.len());
    Ok(())
}

/// Takes one packet, which must be this one; returns where it came from. In IPv4, its header stands before it.
fn expect(socket: &OwnedFd, expected: &[u8]) -> Result<IpAddr> {
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let ((bytes, _), _, source) = rustix::net::recvfrom(socket, &mut buffer[..], RecvFlags::empty())?;
    let source = SocketAddr::try_from(source.context("from nowhere")?)?.ip();
    let header = if source.is_ipv4() { 20 } else { 0 };
    ensure!(bytes.get(header..) == Some(expected), "{}", bytes.escape_ascii());
    Ok(source)
}

/// A key and a sequence number, then nothing that anybody could open.
fn esp() -> Vec<u8> {
    [&[0, 0, 0x12, 0x34, 0, 0, 0, 1][..], &[0xa5; 40]].concat()
}

/// No options, and IPv4 within (RFC 2784).
fn gre() -> Vec<u8> {
    [&[0, 0, 8, 0, 0x45][..], &[0; 19]].concat()
}

/// A packet with one chunk (RFC 9260 section 3): connection tracking knows how an association begins, and looks at the checksum.
fn sctp((source, destination): (u16, u16), tag: u32, chunk: u8) -> Vec<u8> {
    let mut packet = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([chunk, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9]);
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    let add = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (sum & 1).wrapping_neg() & CASTAGNOLI)
    };
    !bytes.iter().fold(u32::MAX, add)
}

/// The polynomial of RFC 9260 appendix A, its bits mirrored.
const CASTAGNOLI: u32 = 0x82f6_3b78;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// IANA's numbers.
const GRE: u8 = 47;
const ESP: u8 = 50;
const SCTP: u8 = 132;
const EXPERIMENT: u8 = 253;

/// `errno` of "message too long".
const EMSGSIZE: i32 = 90;
