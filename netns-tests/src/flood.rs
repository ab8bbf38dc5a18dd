//! Strangers who send as many packets as they can, from as many addresses as there are in 198.18.0.0/15.
//!
//! They come in on the wire between router and server, as from all the world behind the router, and what the server answers ends
//! at the router without a word. All frames are made before the first is sent: who floods has to cost little.

use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2::{Blake2s256, Digest as _};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rustix::net::netdevice::name_to_index;
use siphasher::sip::SipHasher24;

use crate::emulator::{checksum, sum};
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
    /// The same with the mask of who has read the server's public key: packets of sessions that there are not.
    Masked,
    /// First messages without a cookie, masked, that no key opens.
    Bare,
}

impl Stranger {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Syn, Self::Payload, Self::Masked, Self::Bare];

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "SYNs",
            Self::Payload => "random payloads",
            Self::Masked => "masked, random index",
            Self::Bare => "masked first messages",
        }
    }
}

/// Sends strangers' packets over and over.
#[derive(Debug)]
pub struct Flood<'t> {
    topology: &'t Topology,
    frames: Vec<Vec<u8>>,
}

impl<'t> Flood<'t> {
    /// Makes the packets to `destination`, a port of the server whose public key is `key` (base64).
    ///
    /// # Errors
    /// If `key` is none, or the router takes no route.
    pub fn new(
        topology: &'t Topology,
        stranger: Stranger,
        destination: SocketAddrV4,
        key: &str,
    ) -> Result<Self> {
        topology.router.ip(&format!("route replace blackhole {SOURCES}"))?;
        Ok(Self { topology, frames: stranger.frames(destination, key, FRAMES)? })
    }

    /// Sends `rate` packets a second until told to stop, or as many as the machine can, and says how many that were.
    ///
    /// # Errors
    /// If the router has no socket for it.
    pub fn run(&self, rate: u32, stop: &AtomicBool) -> Result<u64> {
        sockets::on(&self.topology.router, || {
            let socket = sys::packet_socket()?;
            sys::bind_to_interface(&socket, name_to_index(&socket, "server")?)?;
            let (mut sender, mut packets) = (Sender::new(), 0);
            let mut batches = self.frames.chunks_exact(BATCH).cycle();
            let begun = wait::now();
            while !stop.load(Ordering::Relaxed) {
                if packets as f64 >= begun.elapsed().as_secs_f64() * f64::from(rate) {
                    wait::pass(PAUSE);
                    continue;
                }
                let batch = batches.next().context("no frames")?;
                match sender.send(socket.as_fd(), batch) {
                    Ok(sent) => packets += sent as u64,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => {}
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                    Err(error) => return Err(error).context("flooding"),
                }
            }
            Ok(packets)
        })
    }
}

/// Sends frames of strangers to the server, each once.
///
/// # Errors
/// If the router has no socket for it, or the kernel does not take one.
pub fn send(topology: &Topology, frames: &[Vec<u8>]) -> Result<()> {
    sockets::on(&topology.router, || {
        let socket = sys::packet_socket()?;
        sys::bind_to_interface(&socket, name_to_index(&socket, "server")?)?;
        let mut sender = Sender::new();
        for frame in frames {
            sender.send(socket.as_fd(), std::slice::from_ref(frame)).context("sending a frame")?;
        }
        Ok(())
    })
}

impl Stranger {
    /// Ethernet frames to `destination`, a port of the server whose public key is `key` (base64), the same each time.
    ///
    /// # Errors
    /// If `key` is none.
    pub fn frames(self, destination: SocketAddrV4, key: &str, count: usize) -> Result<Vec<Vec<u8>>> {
        let mut rng = StdRng::seed_from_u64(1);
        let (mask, template) = (mask(key)?, self.template(destination)?);
        Ok((0..count).map(|_| self.frame(&template, mask, &mut rng)).collect())
    }

    /// A whole frame, but for what differs from packet to packet.
    fn template(self, destination: SocketAddrV4) -> Result<Vec<u8>> {
        let (flags, options, payload): (u8, &[u8], usize) = match self {
            Self::Syn => (0x02, &[2, 4, 5, 0xb4, 1, 3, 3, 8, 1, 1, 4, 2], 0),
            Self::Payload | Self::Masked | Self::Bare => (0x18, &[], PAYLOAD),
        };
        let mut frame = Vec::new();
        for mac in [PEER_MAC, ROUTER_MAC] {
            for byte in mac.split(':') {
                frame.push(u8::from_str_radix(byte, 16)?);
            }
        }
        frame.extend([8, 0]);
        let total = u16::try_from(IP + TCP + options.len() + payload)?;
        frame.extend([0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, PROTOCOL, 0, 0, 0, 0, 0, 0]);
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
    fn frame(self, template: &[u8], mask: SipHasher24, rng: &mut StdRng) -> Vec<u8> {
        let mut frame = template.to_vec();
        let (ip, tcp) = frame[ETHERNET..].split_at_mut(IP);
        let [a, b, c]: [u8; 3] = rng.random();
        ip[12..16].copy_from_slice(&[198, 18 | a & 1, b, c]);
        let header = checksum(ip, 0);
        ip[10..12].copy_from_slice(&header.to_be_bytes());
        let port: u16 = rng.random_range(1024..u16::MAX);
        tcp[..2].copy_from_slice(&port.to_be_bytes());
        rng.fill_bytes(&mut tcp[4..8]);
        if self != Self::Syn {
            rng.fill_bytes(&mut tcp[8..12]);
            self.fill(&mut tcp[TCP..], mask, rng);
        }
        let length = u32::try_from(tcp.len()).unwrap_or(0);
        let segment = checksum(tcp, sum(&ip[12..20], u32::from(PROTOCOL) + length));
        tcp[16..18].copy_from_slice(&segment.to_be_bytes());
        frame
    }

    fn fill(self, payload: &mut [u8], mask: SipHasher24, rng: &mut StdRng) {
        rng.fill_bytes(payload);
        let header: u64 = match self {
            Self::Syn | Self::Payload => return,
            Self::Masked => rng.random(),
            Self::Bare => 0,
        };
        let (rest, tag) = payload.split_at_mut(PAYLOAD - TAG);
        rest[..8].copy_from_slice(&(header ^ mask.hash(tag)).to_le_bytes());
    }
}

/// As `src/crypto/mask.rs` has it: what everybody can compute who was told the server's public key.
fn mask(key: &str) -> Result<SipHasher24> {
    let key = STANDARD.decode(key.trim()).context("the server's public key")?;
    let hash = Blake2s256::new().chain_update(b"vpn header mask").chain_update(key).finalize();
    let half = hash.first_chunk::<16>().context("a short hash")?;
    Ok(SipHasher24::new_with_key(half))
}

/// For measurements between networks (RFC 2544): nobody's.
const SOURCES: &str = "198.18.0.0/15";

/// As many as Linux' table of connections has places by default: who remembers strangers has it full within three seconds.
const FRAMES: usize = 4096 * BATCH;

/// Between two looks at how many are due: 50 packets at 100,000 a second.
const PAUSE: Duration = Duration::from_micros(500);

/// Of those who have one: about that of a first message.
const PAYLOAD: usize = 200;

const TAG: usize = 16;
const ETHERNET: usize = 14;
const IP: usize = 20;
const TCP: usize = 20;
const PROTOCOL: u8 = 6;
