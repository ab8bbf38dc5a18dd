//! What both ends say of their streams.

use super::*;

fn streams(pair: &Pair, end: usize) -> impl Iterator<Item = StreamStatus> {
    let mux = &pair.ends[end];
    mux.streams(true, pair.now).chain(mux.streams(false, pair.now))
}

fn only(pair: &Pair, end: usize) -> StreamStatus {
    let mut all = streams(pair, end);
    let first = all.next().unwrap();
    assert_eq!(all.next(), None);
    first
}

#[test]
fn each_end_says_how_far_a_stream_has_come() {
    let mut pair = Pair::new(Limits::default());
    assert_eq!(streams(&pair, 0).count(), 0);
    let id = pair.ends[0].open(target(), pair.now).unwrap();
    assert_eq!(only(&pair, 0).state, StreamState::Connecting);
    pair.settle();
    assert_eq!([0, 1].map(|end| only(&pair, end).state), [StreamState::Connecting; 2]);
    pair.ends[1].accept(id);
    pair.settle();
    assert_eq!([0, 1].map(|end| only(&pair, end).state), [StreamState::Open; 2]);
    assert_eq!([0, 1].map(|end| only(&pair, end).is_ours), [true, false]);
    assert_eq!([0, 1].map(|end| only(&pair, end).target), [target(); 2]);
    pair.ends[0].finish(id);
    pair.settle();
    let halves = [StreamState::WeFinished, StreamState::TheyFinished];
    assert_eq!([0, 1].map(|end| only(&pair, end).state), halves);
    pair.ends[1].write(id, b"x");
    pair.ends[1].finish(id);
    assert_eq!(only(&pair, 1).state, StreamState::Closing);
    pair.settle();
    // The last byte is not read yet.
    assert_eq!(only(&pair, 0).state, StreamState::Closing);
    assert_eq!(pair.ends[0].stream(id, pair.now), Some(only(&pair, 0)));
    assert_eq!(pair.read_all(0, id), b"x");
    pair.events(0);
    assert_eq!(streams(&pair, 0).count(), 0);
    assert_eq!(pair.ends[0].stream(id, pair.now), None);
}

#[test]
fn a_stream_that_was_reset_is_closing_until_its_owner_heard_of_it() {
    let mut pair = Pair::new(Limits::default());
    let id = pair.connect();
    pair.ends[1].reset(id, ResetCode::Reset);
    pair.settle();
    assert_eq!(only(&pair, 0).state, StreamState::Closing);
    pair.events(0);
    assert_eq!(streams(&pair, 0).count(), 0);
}

#[test]
fn counts_bytes_and_time_alike_at_both_ends() {
    let mut pair = Pair::new(Limits::default());
    let id = pair.connect();
    let mut sent = 0;
    for _ in 0..30 {
        pair.now += Duration::from_millis(100);
        sent += pair.ends[0].write(id, &[7; 5000]);
        pair.ends[1].write(id, &[7; 100]);
        pair.settle();
        pair.read_all(1, id);
        pair.read_all(0, id);
    }
    assert_eq!(sent, 150_000);
    let [here, there] = [0, 1].map(|end| only(&pair, end));
    assert_eq!((here.sent_bytes, here.received_bytes), (150_000, 3000));
    assert_eq!((there.sent_bytes, there.received_bytes), (3000, 150_000));
    assert_eq!([here.age, there.age], [Duration::from_secs(3); 2]);
    // 5000 bytes in a tenth of a second: the last one begins a second.
    assert_eq!((here.sent_lately, here.received_lately), (55_000, 1100));
    assert_eq!((there.sent_lately, there.received_lately), (1100, 55_000));
    pair.now += Duration::from_secs(2);
    assert_eq!((only(&pair, 0).sent_lately, only(&pair, 0).received_lately), (0, 0));
    assert_eq!(only(&pair, 0).sent_bytes, 150_000);
}
