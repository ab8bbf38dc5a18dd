//! Who gets how much, and who waits for whom, with credit and readers at both ends.

use super::*;

/// Keeps every stream's send buffer full, moves `messages`, lets all but `stopped` read, and returns
/// what each read.
fn saturate(pair: &mut Pair, ids: &[StreamId], stopped: Option<StreamId>, messages: usize) -> Vec<usize> {
    let mut read = vec![0; ids.len()];
    for turn in 0..messages {
        if turn % 10 == 0 {
            for id in ids {
                let room = pair.ends[0].write_room(*id);
                pair.ends[0].write(*id, &vec![0; room]);
            }
        }
        assert!(pair.step(0), "the path idles at message {turn}");
        pair.now += Duration::from_micros(100);
        for (id, read) in ids.iter().zip(&mut read) {
            if Some(*id) != stopped {
                *read += pair.read_all(1, *id).len();
            }
        }
        while pair.step(1) {}
        pair.events(0);
        pair.events(1);
    }
    read
}

/// Jain's index: 1 = all equal.
#[expect(clippy::cast_precision_loss, reason = "shares of a test are far below 2^52")]
fn jain(shares: &[usize]) -> f64 {
    let sum: f64 = shares.iter().map(|share| *share as f64).sum();
    let squares: f64 = shares.iter().map(|share| (*share as f64).powi(2)).sum();
    sum * sum / (squares * shares.len() as f64)
}

#[test]
fn ten_bulk_streams_share_fairly() {
    let mut pair = Pair::new(Limits::default());
    let ids: Vec<_> = (0..10).map(|_| pair.connect()).collect();
    let shares = saturate(&mut pair, &ids, None, 5000);
    assert!(jain(&shares) > 0.99, "{shares:?}");
}

#[test]
fn a_reader_that_stops_costs_the_others_nothing() {
    let mut pair = Pair::new(Limits::default());
    let ids: Vec<_> = (0..100).map(|_| pair.connect()).collect();
    let shares = saturate(&mut pair, &ids, Some(ids[0]), 5000);
    assert_eq!(shares[0], 0);
    let total: usize = shares.iter().sum();
    // All but the headers and the one window the stopped reader got.
    assert!(total > 5000 * (MESSAGE - 20) - 80_000, "{total}");
    assert!(jain(&shares[1..]) > 0.98, "{shares:?}");
}

#[test]
fn many_readers_that_stopped_leave_room_to_write_for_a_new_stream() {
    let limits = Limits { session_buffer: 8 << 20, streams: 1000, ..Limits::default() };
    let mut pair = Pair::new(limits);
    pair.ends[1] = Mux::new(Role::Server, Limits::default());
    for _ in 0..500 {
        let stopped = pair.connect();
        while pair.ends[0].write(stopped, &[0; 100_000]) > 0 {
            pair.settle();
        }
        pair.events(0);
        pair.events(1);
    }
    assert!(pair.ends[0].stats().send_buffered <= 2 << 20);
    let fresh = pair.connect();
    let mut written = 0;
    for _ in 0..1000 {
        written += pair.ends[0].write(fresh, &[0; 1000]);
        pair.settle();
        pair.read_all(1, fresh);
        pair.settle();
    }
    assert_eq!(written, 1_000_000);
}

#[test]
fn a_new_small_stream_waits_for_no_bulk() {
    let mut pair = Pair::new(Limits::default());
    let bulk: Vec<_> = (0..50).map(|_| pair.connect()).collect();
    saturate(&mut pair, &bulk, None, 2000);

    let small = pair.ends[0].open(target(), pair.now).unwrap();
    pair.ends[0].write(small, b"GET /");
    pair.ends[0].finish(small);
    assert!(pair.step(0));
    assert!(pair.events(1).contains(&Event::Open { id: small, target: target() }));
    assert_eq!(pair.ends[1].readable(small), b"GET /");
}

#[test]
fn ten_thousand_idle_streams_leave_nothing_to_look_at() {
    let mut pair = Pair::new(Limits::default());
    for _ in 0..10_000 {
        pair.ends[0].open(target(), pair.now).unwrap();
    }
    pair.settle();
    while let Some(Event::Open { id, .. }) = pair.ends[1].poll_event() {
        pair.ends[1].accept(id);
    }
    pair.settle();
    assert_eq!(pair.events(0).len(), 10_000);
    for mux in &mut pair.ends {
        assert_eq!(mux.fill(&mut [0; MESSAGE], start()), 0);
        assert!(mux.schedule.is_idle(), "{:?}", mux.schedule);
        assert_eq!(mux.poll_event(), None);
    }
}
