//! Nothing appears or vanishes uncounted, whatever the line and whatever the traffic.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::tcp::{ACK, FIN, RST, SYN};
use crate::testing::{CLIENT, ENDS, MILLISECOND, Rig, SERVER, Tcp, ethernet, flow, icmp, udp};
use crate::{
    Blackouts, Direction, End, Jitter, Layer, Line, Loss, Middlebox, Profile, Reorder, Segment, Stats, TCP,
    Towards,
};

const LINES: u64 = 300;
const STEPS: u32 = 600;
const CAUSES: usize = 16;

#[test]
fn every_frame_is_forwarded_or_dropped_for_a_cause_or_under_way() {
    let mut seen = [0; CAUSES];
    for seed in 0..LINES {
        let mut random = StdRng::seed_from_u64(seed);
        let layer = if random.random_bool(0.5) { Layer::Ip } else { Layer::Ethernet };
        let mut rig = Rig::seeded(random_line(&mut random), layer, seed);
        let (mut sent, mut taken) = ([0_u64; 2], [0_u64; 2]);
        for step in 0..STEPS {
            rig.wait(MILLISECOND.mul_f64(random.random_range(0.0..3.0)));
            command(&mut rig, &mut random);
            let direction = Direction::BOTH[random.random_range(0..2)];
            for _ in 0..random.random_range(0..4) {
                let packet = random_packet(&mut random, direction);
                let frame = if layer == Layer::Ip { packet } else { ethernet(&packet) };
                rig.send(direction, &frame);
                sent[direction.index()] += 1;
            }
            if random.random_bool(0.3) {
                for (direction, frame) in rig.take() {
                    taken[direction.index()] += 1;
                    rig.emulator.recycle(frame);
                }
            }
            balance(&rig, sent, taken, &format!("seed {seed}, step {step}"));
        }
        rig.wait(Duration::from_secs(3600));
        rig.take().iter().for_each(|(direction, _)| taken[direction.index()] += 1);
        balance(&rig, sent, taken, &format!("seed {seed}, at the end"));
        for direction in Direction::BOTH {
            assert_eq!(rig.emulator.in_flight(direction), 0, "seed {seed}");
            seen.iter_mut().zip(causes(&rig.stats(direction))).for_each(|(sum, count)| *sum += count);
        }
        assert_eq!(rig.emulator.poll_timeout(), None, "seed {seed}");
    }
    assert!(seen.iter().all(|count| *count > 100), "the lines were bad enough: {seen:?}");
}

/// Everything that is counted but the emulator's own limit.
fn causes(stats: &Stats) -> [u64; CAUSES] {
    [
        stats.duplicated,
        stats.forged,
        stats.corrupted,
        stats.reordered,
        stats.translated,
        stats.blackout,
        stats.queue_full,
        stats.lost,
        stats.udp,
        stats.udp_limited,
        stats.killed,
        stats.policed,
        stats.no_handshake,
        stats.out_of_window,
        stats.too_big,
        stats.unmapped,
    ]
}

/// What the head of the crate promises.
fn balance(rig: &Rig, sent: [u64; 2], taken: [u64; 2], when: &str) {
    for direction in Direction::BOTH {
        let stats = rig.stats(direction);
        let in_flight = rig.emulator.in_flight(direction) as u64;
        assert_eq!(stats.received, sent[direction.index()], "{when}: {stats:?}");
        assert_eq!(stats.forwarded, taken[direction.index()], "{when}: {stats:?}");
        assert_eq!(
            stats.received + stats.duplicated + stats.forged,
            stats.forwarded + stats.dropped() + in_flight,
            "{when}: {in_flight} in flight, {stats:?}"
        );
    }
}

fn random_line(random: &mut StdRng) -> Line {
    let profiles = [random_profile(random), random_profile(random)];
    let place = if random.random_bool(0.5) { End::Client } else { End::Router };
    Line { profiles, middleboxes: random_boxes(random), place }
}

fn random_boxes(random: &mut StdRng) -> Vec<Middlebox> {
    (0..random.random_range(0..5)).map(|_| random_box(random)).collect()
}

fn random_profile(random: &mut StdRng) -> Profile {
    let most = MILLISECOND * random.random_range(0..30);
    let share = random.random_range(0.0..0.3);
    Profile {
        delay: MILLISECOND * random.random_range(0..50),
        jitter: if random.random_bool(0.5) { Jitter::ordered(most) } else { Jitter::unordered(most) },
        loss: if random.random_bool(0.5) { Loss::Random(share) } else { Loss::bursts(share, 5.0) },
        reorder: Reorder::new(share, random.random_range(0..6)),
        duplicate: share,
        corrupt: share,
        rate: random.random_bool(0.5).then(|| random.random_range(100_000..20_000_000)),
        queue: MILLISECOND * random.random_range(0..50),
        blackouts: random.random_bool(0.2).then(|| {
            Blackouts::every(MILLISECOND * 100, MILLISECOND * 20, MILLISECOND * random.random_range(0..50))
        }),
    }
}

fn random_box(random: &mut StdRng) -> Middlebox {
    let (rate, burst) = (random.random_range(10_000..5_000_000), random.random_range(100..20_000));
    match random.random_range(0..9) {
        0 => Middlebox::DropUdp,
        1 => Middlebox::LimitUdp { rate, burst },
        2 => Middlebox::KillFlow {
            after_bytes: random.random_bool(0.5).then_some(burst),
            after_time: Some(MILLISECOND * random.random_range(0..1000)),
        },
        3 => Middlebox::Police { rate, burst },
        4 => Middlebox::RequireHandshake,
        5 => Middlebox::RequireWindow,
        6 => Middlebox::Forge {
            segment: if random.random_bool(0.5) { Segment::Reset } else { Segment::Fin },
            towards: [Towards::Client, Towards::Router, Towards::Both][random.random_range(0..3)],
            after: random.random_range(0..20),
            every: Some(random.random_range(0..10)),
        },
        7 => Middlebox::Mtu { size: random.random_range(20..1500), icmp: random.random_bool(0.5) },
        _ => Middlebox::Nat {
            every: Some(MILLISECOND * random.random_range(0..500)),
            addresses: ["10.0.0.77", "2001:db8:1::77"].map(|address| address.parse().unwrap()).to_vec(),
        },
    }
}

/// Something of everything, and sometimes nothing that a parser could like.
fn random_packet(random: &mut StdRng, direction: Direction) -> Vec<u8> {
    let (client, server) = ENDS[random.random_range(0..2)];
    let size = random.random_range(60..1500);
    let mut packet = match random.random_range(0..6) {
        0 | 1 => {
            let (source, destination) =
                if direction == Direction::Out { (client, server) } else { (server, client) };
            udp(source, destination, size)
        }
        2 => {
            let (client, server) = (
                client.parse::<std::net::SocketAddr>().unwrap(),
                server.parse::<std::net::SocketAddr>().unwrap(),
            );
            icmp(server.ip(), client.ip(), random.random_range(0..12), &udp(CLIENT, SERVER, 60))
        }
        _ => {
            let flags = [SYN, SYN | ACK, ACK, ACK, ACK | FIN, RST, 0][random.random_range(0..7)];
            let numbers = [0, 1000, 1001, 5000, 5001, 70_000];
            let seq = numbers[random.random_range(0..numbers.len())];
            let ack = numbers[random.random_range(0..numbers.len())];
            Tcp::between(client, server, direction, flags).at(seq, ack).scale(7).payload(size).packet()
        }
    };
    if random.random_bool(0.1) {
        packet.truncate(random.random_range(1..packet.len()));
    }
    if random.random_bool(0.1) {
        let at = random.random_range(0..packet.len());
        packet[at] ^= 1 << random.random_range(0..8);
    }
    packet
}

fn command(rig: &mut Rig, random: &mut StdRng) {
    let direction = Direction::BOTH[random.random_range(0..2)];
    let now = rig.now();
    match random.random_range(0..200) {
        0 => rig.emulator.set_blackout(direction, random.random_bool(0.3)),
        1 => rig.emulator.set_profile(direction, random_profile(random), now),
        2 => rig.emulator.set_middleboxes(&random_boxes(random), now),
        3 => rig.emulator.kill_flow(flow(TCP)),
        4 => rig.emulator.revive_flow(&flow(TCP)),
        5 => rig.emulator.rebind(now),
        6 => rig.emulator.rebind_flow(&flow(TCP)),
        7 => rig.emulator.set_flow_delay(flow(TCP), MILLISECOND * random.random_range(0..50)),
        _ => {}
    }
}
