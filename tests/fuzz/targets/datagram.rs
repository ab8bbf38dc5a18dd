//! Operations on a queue of datagrams, beside a plain list of what it must hold.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use vpn::datagram::{Limits, PACKET_OVERHEAD, Queue};

use super::input::Input;
use super::start;

const LIMITS: Limits = Limits { bytes: 2000, sojourn: Duration::from_millis(20) };

/// Packets come out in order, none late, none above the bound, each accounted for.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mut queue, mut model, mut now) = (Queue::new(LIMITS), VecDeque::new(), start());
    let mut taken = 0;
    while let Some(operation) = input.operation() {
        match operation % 4 {
            0 => {
                let packet = vec![operation; usize::from(input.u16() % 2100)];
                drop_late(&mut model, now);
                let held: usize = model.iter().map(|(packet, _): &(Vec<u8>, Instant)| cost(packet)).sum();
                let fits = held + cost(&packet) <= LIMITS.bytes;
                assert_eq!(queue.push(packet.clone(), now), fits);
                if fits {
                    model.push_back((packet, now));
                }
            }
            1 => {
                drop_late(&mut model, now);
                let expected = model.pop_front().map(|(packet, _)| packet);
                taken += u64::from(expected.is_some());
                assert_eq!(queue.pop(now), expected);
            }
            2 => {
                drop_late(&mut model, now);
                assert_eq!(queue.peek_length(now), model.front().map(|(packet, _)| packet.len()));
            }
            _ => now += Duration::from_millis(u64::from(input.u8() % 32)),
        }
        let stats = queue.stats();
        assert!(stats.sent == taken && stats.queued >= stats.sent + stats.dropped_late);
        assert!(!model.is_empty() <= !queue.is_empty());
    }
}

fn drop_late(model: &mut VecDeque<(Vec<u8>, Instant)>, now: Instant) {
    while model.front().is_some_and(|(_, since)| now - *since > LIMITS.sojourn) {
        model.pop_front();
    }
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
