//! Senders without keys: noise, floods, forgeries, and packets recorded from the path.

use std::net::{IpAddr, SocketAddr};

use link_emulator::Direction as Way;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use super::wire::{End, ip_header, set_endpoint, set_length};
use super::world::World;

/// What they send.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attack {
    /// Random bytes to both ends.
    Noise,
    /// TCP packets on the 4-tuple in use, with random flags, numbers and payload.
    Forgery,
    /// SYNs from many addresses.
    SynFlood,
    /// Recorded packets again, from where they came.
    Replay,
    /// Recorded packets to the server from somewhere else.
    ReplayFromElsewhere,
}

impl Attack {
    /// Those that need nothing of the path.
    pub(crate) const OF_STRANGERS: [Self; 4] =
        [Self::SynFlood, Self::Forgery, Self::Noise, Self::ReplayFromElsewhere];

    /// One packet to the server, made from one that travelled there.
    pub(crate) fn packet(self, recorded: &[u8], rng: &mut StdRng) -> Vec<u8> {
        match self {
            Self::Noise => noise(recorded, rng),
            Self::Forgery => from_elsewhere(forged(recorded.to_vec(), rng), rng),
            Self::SynFlood => from_elsewhere(bare(recorded.to_vec(), SYN, rng), rng),
            Self::Replay => recorded.to_vec(),
            Self::ReplayFromElsewhere => from_elsewhere(recorded.to_vec(), rng),
        }
    }

    pub(crate) fn choose(rng: &mut StdRng) -> Self {
        let all = [Self::Noise, Self::Forgery, Self::SynFlood, Self::Replay, Self::ReplayFromElsewhere];
        all[rng.random_range(0..all.len())]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Forgery => "forged packets",
            Self::SynFlood => "SYN flood",
            Self::Replay => "replay",
            Self::ReplayFromElsewhere => "replay from elsewhere",
        }
    }

    /// Sends it, past the network: strangers sit where they like.
    pub(crate) fn run(self, world: &mut World, rng: &mut StdRng) {
        for _ in 0..rng.random_range(1..60) {
            let way = if rng.random() { Way::Out } else { Way::In };
            let Some(recorded) = world.captured.choose(way, rng) else { return };
            match self {
                Self::Noise => deliver(world, way, noise(&recorded, rng)),
                Self::Forgery => deliver(world, way, forged(recorded, rng)),
                Self::Replay => deliver(world, way, recorded),
                Self::SynFlood => {
                    let Some(recorded) = world.captured.choose(Way::Out, rng) else { return };
                    deliver_to_server(world, from_elsewhere(bare(recorded, SYN, rng), rng));
                }
                Self::ReplayFromElsewhere => {
                    let Some(recorded) = world.captured.choose(Way::Out, rng) else { return };
                    deliver_to_server(world, from_elsewhere(recorded, rng));
                }
            }
        }
    }
}

/// Recorded packets are as they were at the ends.
fn deliver(world: &mut World, way: Way, packet: Vec<u8>) {
    match way {
        Way::Out => deliver_to_server(world, packet),
        Way::In => world.deliver_down(packet),
    }
}

fn deliver_to_server(world: &mut World, mut packet: Vec<u8>) {
    world.server.handle_packet(&mut packet, world.now);
    world.bounds.check_server(&world.server.load());
}

/// Any bytes, or any bytes behind an IP header.
fn noise(recorded: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut packet = vec![0; rng.random_range(0..1500)];
    rng.fill_bytes(&mut packet);
    let header = ip_header(recorded);
    if rng.random() && packet.len() >= header {
        packet[..header].copy_from_slice(&recorded[..header]);
        set_length(&mut packet);
    }
    packet
}

/// The same 4-tuple; flags, numbers and payload are anything.
fn forged(packet: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    let flags = rng.random::<u8>() & 0x17;
    let mut packet = bare(packet, flags, rng);
    let mut payload = vec![0; rng.random_range(0..200)];
    rng.fill_bytes(&mut payload);
    packet.extend_from_slice(&payload);
    set_length(&mut packet);
    packet
}

/// The headers with other flags and numbers.
fn bare(mut packet: Vec<u8>, flags: u8, rng: &mut StdRng) -> Vec<u8> {
    let tcp = ip_header(&packet);
    packet.truncate(tcp + TCP_HEADER);
    rng.fill_bytes(&mut packet[tcp + 4..tcp + 12]);
    packet[tcp + 12] = 5 << 4;
    packet[tcp + 13] = flags;
    set_length(&mut packet);
    packet
}

fn from_elsewhere(mut packet: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    let [a, b] = rng.random();
    let address: IpAddr = match ip_header(&packet) {
        20 => [100, 64, a, b].into(),
        _ => [0x2001, 0xdb8, 0xbad, a.into(), b.into(), 0, 0, 1].into(),
    };
    set_endpoint(&mut packet, End::Source, SocketAddr::new(address, rng.random_range(1..u16::MAX)));
    packet
}

const TCP_HEADER: usize = 20;

/// SYN alone.
const SYN: u8 = 0x02;
