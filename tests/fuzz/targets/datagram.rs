//! Operations on a queue of datagrams, beside a plain list of what it must hold.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use vpn::datagram::{Limits, PACKET_OVERHEAD, Queue, Stats};

use super::input::Input;
use super::start;

const LIMITS: Limits = Limits { bytes: 2000, sojourn: Duration::from_millis(20) };

/// Packets come out in order, none late, none above the bound; every counter says what became of them.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mut queue, mut model, mut now) = (Queue::new(LIMITS), Model::new(), start());
    let (mut taken, mut late, mut refused) = (0, 0, 0);
    while let Some(operation) = input.operation() {
        match operation % 4 {
            0 => {
                let packet = vec![operation; usize::from(input.u16() % 2100)];
                late += drop_late(&mut model, now);
                let fits = held(&model) + cost(&packet) <= LIMITS.bytes;
                refused += u64::from(!fits);
                assert_eq!(queue.push(packet.clone(), now), fits);
                if fits {
                    model.push_back((packet, now));
                }
            }
            1 => {
                late += drop_late(&mut model, now);
                let expected = model.pop_front().map(|(packet, _)| packet);
                taken += u64::from(expected.is_some());
                assert_eq!(queue.pop(now), expected);
            }
            2 => {
                late += drop_late(&mut model, now);
                assert_eq!(queue.peek_length(now), model.front().map(|(packet, _)| packet.len()));
            }
            _ => now += Duration::from_millis(u64::from(input.u8() % 32)),
        }
        let expected = Stats {
            held: held(&model),
            queued: taken + late + model.len() as u64,
            sent: taken,
            dropped_full: refused,
            dropped_late: late,
        };
        assert_eq!(queue.stats(), expected);
        assert!(expected.held <= LIMITS.bytes);
        assert_eq!(queue.is_empty(), model.is_empty());
    }
}

type Model = VecDeque<(Vec<u8>, Instant)>;

/// Says how many were late.
fn drop_late(model: &mut Model, now: Instant) -> u64 {
    let before = model.len();
    while model.front().is_some_and(|(_, since)| now - *since > LIMITS.sojourn) {
        model.pop_front();
    }
    (before - model.len()) as u64
}

fn held(model: &Model) -> usize {
    model.iter().map(|(packet, _)| cost(packet)).sum()
}

fn cost(packet: &[u8]) -> usize {
    packet.len() + PACKET_OVERHEAD
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0, 100, 0, 0, 50, 0, 2, 1, 1, 1],
        vec![0, 0, 7, 0, 0, 7, 3, 21, 0, 0, 1, 2, 1],
        vec![0, 0x34, 8, 0, 16, 7, 1, 0, 1, 0, 3, 20, 1, 3, 1, 1],
    ]
}
