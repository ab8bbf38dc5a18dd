//! Senders without keys: noise, floods, forgeries, and packets recorded from the path.

use std::net::{Ipv4Addr, SocketAddrV4};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

use super::nat::{DESTINATION, SOURCE, endpoint, set_endpoint};
use super::network::Way;
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
            let way = if rng.random() { Way::Up } else { Way::Down };
            let Some(recorded) = world.captured.choose(way, rng) else { return };
            match self {
                Self::Noise => deliver(world, way, noise(&recorded, rng)),
                Self::Forgery => deliver(world, way, forged(recorded, rng)),
                Self::Replay => deliver(world, way, recorded),
                Self::SynFlood => {
                    let Some(recorded) = world.captured.choose(Way::Up, rng) else { return };
                    deliver_to_server(world, from_elsewhere(syn(recorded, rng), rng));
                }
                Self::ReplayFromElsewhere => {
                    let Some(recorded) = world.captured.choose(Way::Up, rng) else { return };
                    deliver_to_server(world, from_elsewhere(recorded, rng));
                }
            }
        }
    }
}

/// Recorded packets are as they were at the ends.
fn deliver(world: &mut World, way: Way, packet: Vec<u8>) {
    match way {
        Way::Up => deliver_to_server(world, packet),
        Way::Down => world.deliver_down(packet),
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
    if rng.random() && packet.len() >= IP_HEADER {
        packet[..IP_HEADER].copy_from_slice(&recorded[..IP_HEADER]);
        set_length(&mut packet);
    }
    packet
}

/// The same 4-tuple; flags, numbers and payload are anything.
fn forged(mut packet: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    packet.truncate(HEADERS);
    rng.fill_bytes(&mut packet[24..32]);
    packet[DATA_OFFSET] = 5 << 4;
    packet[FLAGS] = rng.random::<u8>() & 0x17;
    let mut payload = vec![0; rng.random_range(0..200)];
    rng.fill_bytes(&mut payload);
    packet.extend_from_slice(&payload);
    set_length(&mut packet);
    packet
}

fn syn(mut packet: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    packet.truncate(HEADERS);
    rng.fill_bytes(&mut packet[24..28]);
    packet[DATA_OFFSET] = 5 << 4;
    packet[FLAGS] = 0x02;
    set_length(&mut packet);
    packet
}

fn from_elsewhere(mut packet: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    if endpoint(&packet, DESTINATION).is_some() {
        let address = Ipv4Addr::new(100, 64, rng.random(), rng.random());
        set_endpoint(&mut packet, SOURCE, SocketAddrV4::new(address, rng.random_range(1..u16::MAX)));
    }
    packet
}

fn set_length(packet: &mut [u8]) {
    let length = u16::try_from(packet.len()).expect("a packet");
    packet[2..4].copy_from_slice(&length.to_be_bytes());
}

const IP_HEADER: usize = 20;
const HEADERS: usize = 40;
const DATA_OFFSET: usize = 32;
const FLAGS: usize = 33;
