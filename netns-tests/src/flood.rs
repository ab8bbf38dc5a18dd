//! Strangers who send as many packets as they can, from as many addresses as there are in 198.18.0.0/15.

use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rustix::net::netdevice::name_to_index;

use crate::emulator::{checksum, sum};
use crate::node::Node;
use crate::sys::{self, BATCH, Sender};
use crate::topology::{PEER_MAC, ROUTER_MAC, Topology};
use crate::{sockets, wait};

/// What they send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// SYNs, as a kernel sends them first.
    Syn,
    /// Payloads of random bytes that acknowledge random numbers: no cookie, no mask, an index of nobody.
    Payload,
}

/// What was reached.
#[derive(Debug, Clone, Copy)]
pub struct Flooded {
    /// Packets that the kernel took.
    pub packets: u64,
    /// Packets a second.
    pub rate: f64,
}

/// A host behind the router, and a router that knows nobody there: what is sent to strangers ends at it without a word.
///
/// # Errors
/// If the kernel refuses.
pub fn host(topology: &Topology) -> Result<Node> {
    let host = topology.guest("flood")?;
    topology.join((&host, INTERFACE, "10.0.8.2/24"), ("flood", "10.0.8.1/24"))?;
    topology.router.ip(&format!("route add blackhole {SOURCES}"))?;
    topology.router.set_sysctl("net/ipv4/conf/all/rp_filter", "0")?;
    topology.router.set_sysctl("net/ipv4/conf/flood/rp_filter", "0")?;
    Ok(host)
}

/// Sends `rate` packets a second from `host` to `destination` until told to stop, or as many as the machine can.
///
/// # Errors
/// If the host has no socket for it.
pub fn flood(
    host: &Node,
    stranger: Stranger,
    destination: SocketAddrV4,
    rate: u32,
    stop: &AtomicBool,
) -> Result<Flooded> {
    sockets::on(host, || {
        let socket = sys::packet_socket()?;
        sys::bind_to_interface(&socket, name_to_index(&socket, INTERFACE)?)?;
        let mut rng = StdRng::seed_from_u64(1);
        let mut frames = vec![stranger.frame(destination)?; BATCH];
        let (mut sender, mut packets) = (Sender::new(), 0);
        let begun = wait::now();
        while !stop.load(Ordering::Relaxed) {
            if packets as f64 >= begun.elapsed().as_secs_f64() * f64::from(rate) {
                wait::pass(Duration::from_micros(500));
                continue;
            }
            frames.iter_mut().for_each(|frame| stranger.vary(frame, &mut rng));
            match sender.send(socket.as_fd(), &frames) {
                Ok(sent) => packets += sent as u64,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error).context("flooding"),
            }
        }
        Ok(Flooded { packets, rate: packets as f64 / begun.elapsed().as_secs_f64() })
    })
}

impl Stranger {
    /// A whole frame, all but what [`Self::vary`] writes.
    fn frame(self, destination: SocketAddrV4) -> Result<Vec<u8>> {
        let (flags, options, payload): (u8, &[u8], usize) = match self {
            Self::Syn => (0x02, &[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2], 0),
            Self::Payload => (0x18, &[], 200),
        };
        let mut frame = Vec::new();
        for mac in [ROUTER_MAC, PEER_MAC] {
            for byte in mac.split(':') {
                frame.push(u8::from_str_radix(byte, 16)?);
            }
        }
        frame.extend([8, 0]);
        let total = u16::try_from(IP + TCP + options.len() + payload)?;
        frame.extend([0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0]);
        frame.extend(destination.ip().octets());
        frame.extend([0, 0]);
        frame.extend(destination.port().to_be_bytes());
        frame.extend([0; 8]);
        frame.extend([u8::try_from((TCP + options.len()) / 4)? << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        frame.extend(options);
        frame.resize(ETHERNET + usize::from(total), 0);
        Ok(frame)
    }

    /// Another sender, other numbers and bytes, right checksums.
    fn vary(self, frame: &mut [u8], rng: &mut StdRng) {
        let (ip, tcp) = frame[ETHERNET..].split_at_mut(IP);
        let [a, b, c]: [u8; 3] = rng.random();
        ip[12..16].copy_from_slice(&[198, 18 | a & 1, b, c]);
        ip[10..12].fill(0);
        let header = checksum(ip, 0);
        ip[10..12].copy_from_slice(&header.to_be_bytes());
        let port: u16 = rng.random_range(1024..u16::MAX);
        tcp[..2].copy_from_slice(&port.to_be_bytes());
        rng.fill_bytes(&mut tcp[4..8]);
        if self == Self::Payload {
            rng.fill_bytes(&mut tcp[8..12]);
            rng.fill_bytes(&mut tcp[TCP..]);
        }
        tcp[16..18].fill(0);
        let length = u32::try_from(tcp.len()).unwrap_or(0);
        let segment = checksum(tcp, sum(&ip[12..20], u32::from(PROTOCOL) + length));
        tcp[16..18].copy_from_slice(&segment.to_be_bytes());
    }
}

/// For measurements between networks (RFC 2544): nobody's.
const SOURCES: &str = "198.18.0.0/15";

const INTERFACE: &str = "eth0";
const ETHERNET: usize = 14;
const IP: usize = 20;
const TCP: usize = 20;
const PROTOCOL: u8 = 6;
