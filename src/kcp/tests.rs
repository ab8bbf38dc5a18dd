//! Tests of the whole over simulated links.

use std::time::{Duration, Instant};

use super::{
    Config, CongestionKind, HEADER_LEN, Kcp, Nodelay, Stats,
    segment::{Command, Header},
    sim::{Bytes, Link, Sim},
};

/// Some instant; virtual time is counted from it.
#[expect(
    clippy::disallowed_methods,
    reason = "an `Instant` cannot be made otherwise; nothing depends on which it is"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config(congestion: CongestionKind) -> Config {
    Config {
        mss: 1312,
        send_window: 65_535,
        receive_window: 65_535,
        congestion,
        nodelay: Nodelay::On,
        interval: Duration::ZERO,
        fast_resend: 2,
        fast_limit: 0,
        min_rto: Nodelay::On.min_rto(),
        overhead: 64,
        send_buffer: 64 << 20,
        receive_buffer: 64 << 20,
        ..Config::ikcp()
    }
}

/// What a bulk transfer over a link came to.
struct Bulk {
    /// Of rate × (1 − loss) × payload share of a full packet.
    goodput: f64,
    /// Queueing delay: median and 99th percentile.
    queue: [Duration; 2],
    stats: Stats,
}

/// Measures a transfer that never ends over seconds `from` to `to`.
fn bulk(config: Config, megabits: u64, rtt: Duration, loss: u64, from: u64, to: u64) -> Bulk {
    let rate = megabits * 1_000_000 / 8;
    let link = Link::new(rate, rtt, loss);
    let mut sim = Sim::new(config, [link, link], 1);
    sim.sources[0].left = u64::MAX / 2;
    sim.run(Duration::from_secs(from));
    let (before, seen) = (sim.received[1].bytes, sim.queued.len());
    sim.run(Duration::from_secs(to - from));
    let share = f64::from(1312) / f64::from(1400);
    let limit = (rate * (to - from) * (1000 - loss) / 1000) as f64 * share;
    let mut queued = sim.queued.split_off(seen);
    queued.sort_unstable();
    Bulk {
        goodput: (sim.received[1].bytes - before) as f64 / limit,
        queue: [queued[queued.len() / 2], queued[queued.len() * 99 / 100]],
        stats: sim.ends[0].stats(),
    }
}

fn report(name: &str, bulk: &Bulk) {
    let stats = &bulk.stats;
    eprintln!(
        "{name}: goodput {:.3}, queue p50 {:?} p99 {:?}, sent {} again {} spurious {} timeouts {}, rate {:?} window {} span {}",
        bulk.goodput,
        bulk.queue[0],
        bulk.queue[1],
        stats.sent,
        stats.retransmitted,
        stats.spurious,
        stats.timeouts,
        stats.pacing_rate,
        stats.window,
        stats.span,
    );
}

#[test]
fn bbr_fills_a_long_link_whatever_it_loses() {
    for (loss, least) in [(0, 0.85), (10, 0.85), (50, 0.80), (100, 0.80), (200, 0.70)] {
        let bulk = bulk(config(CongestionKind::Bbr), 100, ms(100), loss, 3, 12);
        report(&format!("100 Mbit/s, 100 ms, loss {loss} in 1000"), &bulk);
        assert!(bulk.goodput >= least, "{} at {loss}", bulk.goodput);
        assert!(bulk.queue[0] < ms(15), "{:?} at {loss}", bulk.queue);
        assert!(bulk.queue[1] < ms(60), "{:?} at {loss}", bulk.queue);
    }
}

#[test]
fn bbr_fills_a_fast_short_link() {
    let bulk = bulk(config(CongestionKind::Bbr), 1000, ms(1), 0, 1, 2);
    report("1 Gbit/s, 1 ms, loss 0", &bulk);
    assert!(bulk.goodput >= 0.95, "{}", bulk.goodput);
}

#[test]
fn loss_fills_a_link_that_loses_nothing() {
    let bulk = bulk(config(CongestionKind::Loss), 100, ms(100), 0, 3, 12);
    report("loss: 100 Mbit/s, 100 ms, loss 0", &bulk);
    assert!(bulk.goodput >= 0.7, "{}", bulk.goodput);
}

/// Both ways at once over a link that loses, reorders and duplicates.
fn deliver(congestion: CongestionKind, seed: u64) {
    let mut link = Link::new(2_500_000, ms(40), seed % 5 * 50);
    (link.duplication, link.jitter) = (seed % 3 * 20, ms(seed % 4 * 10));
    let config = Config {
        nodelay: if seed.is_multiple_of(2) { Nodelay::On } else { Nodelay::Off },
        fast_resend: u32::try_from(seed % 4).unwrap(),
        send_window: [65_535, 300, 20, 1000][usize::try_from(seed / 2 % 4).unwrap()],
        receive_window: [65_535, 1000, 20, 300][usize::try_from(seed / 3 % 4).unwrap()],
        receive_buffer: 200_000,
        ..config(congestion)
    };
    let mut sim = Sim::new(config, [link, link], seed);
    sim.sources[0].left = 300_000;
    sim.sources[1] = Bytes::in_pieces(100_000, 700);
    let context = format!("{congestion:?}, seed {seed}");
    sim.finish(Duration::from_secs(120), &context);
    let received = [sim.received[0].bytes, sim.received[1].bytes];
    assert_eq!(received, [100_000, 300_000], "{context}");
    // What the last acks started ends by itself.
    sim.run(Duration::from_secs(1));
    for end in &sim.ends {
        assert_eq!(end.poll_timeout(), None, "{context}: {end:?}");
    }
}

#[test]
fn delivers_every_byte_once_and_in_order_over_bad_links() {
    for seed in 0..100 {
        deliver(CongestionKind::Bbr, seed);
        deliver(CongestionKind::Loss, seed);
        deliver(CongestionKind::None, seed);
    }
}

#[test]
fn goes_on_within_a_round_trip_when_the_path_is_back() {
    let link = Link::new(1_250_000, ms(100), 0);
    let mut sim = Sim::new(config(CongestionKind::Bbr), [link, link], 1);
    sim.sources[0].left = u64::MAX / 2;
    sim.run(Duration::from_secs(2));
    sim.blackout = true;
    sim.run(Duration::from_secs(30));
    let before = (sim.received[1].bytes, sim.ends[0].stats());
    let sent = before.1.retransmitted;
    assert!(sent < 400, "{sent} sent into the dark");
    sim.blackout = false;
    let now = sim.now;
    for end in &mut sim.ends {
        end.on_path_restored(now);
    }
    sim.run(ms(160));
    assert!(sim.received[1].bytes > before.0, "{:?}", sim.ends[0].stats());
    let at = sim.received[1].bytes;
    sim.run(Duration::from_secs(1));
    assert!(sim.received[1].bytes - at > 800_000, "{:?}", sim.ends[0].stats());
}

#[test]
fn sends_nothing_again_when_a_pause_ends() {
    let link = Link::new(1_250_000, ms(100), 0);
    let mut sim = Sim::new(config(CongestionKind::Bbr), [link, link], 1);
    for _ in 0..10 {
        sim.sources[0].left += 20_000;
        // Sent, and on its way: then a packet that the peer sent by itself arrives.
        sim.run(ms(20));
        let now = sim.now;
        sim.ends[0].on_path_restored(now);
        sim.run(Duration::from_secs(2));
    }
    let stats = sim.ends[0].stats();
    assert_eq!(sim.received[1].bytes, 200_000);
    assert_eq!((stats.retransmitted, stats.spurious, stats.lost), (0, 0, 0), "{stats:?}");
}

#[test]
fn goes_on_across_the_wrap_of_ts() {
    let link = Link::new(1_250_000, ms(100), 50);
    let mut sim = Sim::new(config(CongestionKind::Bbr), [link, link], 1);
    sim.now += ms(1 << 32) - ms(500);
    sim.sources[0].left = 2_000_000;
    sim.finish(Duration::from_secs(20), "across the wrap");
    let stats = sim.ends[0].stats();
    assert!(stats.srtt.unwrap() < ms(250), "{stats:?}");
    assert_eq!(stats.bad_acks, 0);
}

#[test]
fn survives_a_blackout_that_nobody_reports() {
    let link = Link::new(1_250_000, ms(100), 50);
    let mut sim = Sim::new(config(CongestionKind::Bbr), [link, link], 1);
    sim.sources[0].left = 3_000_000;
    sim.run(Duration::from_secs(1));
    sim.blackout = true;
    sim.run(Duration::from_secs(60));
    sim.blackout = false;
    sim.finish(Duration::from_secs(20), "after a blackout");
}

#[test]
fn recovers_a_single_lost_segment_in_about_a_round_trip() {
    let link = Link::new(0, ms(100), 0);
    let mut sim = Sim::new(config(CongestionKind::Bbr), [link, link], 1);
    for _ in 0..20 {
        sim.sources[0].left += 100;
        sim.run(ms(150));
    }
    sim.blackout = true;
    sim.sources[0].left += 100;
    sim.run(ms(1));
    sim.blackout = false;
    sim.run(ms(180));
    assert_eq!(sim.received[1].bytes, 2100, "{:?}", sim.ends[0].stats());
}

#[test]
fn waits_for_a_reader_and_goes_on_when_it_reads() {
    let now = start();
    let config = Config { receive_window: 4, ..config(CongestionKind::None) };
    let (mut a, mut b) = (Kcp::new(7, config, now), Kcp::new(7, config, now));
    let mut source = Bytes::in_pieces(4, 1);
    exchange(&mut a, &mut b, &mut source, now);
    source.left = 4;
    exchange(&mut a, &mut b, &mut source, now);
    assert_eq!((a.stats().peer_window, b.stats().received), (0, 4));
    // The announcement of the room is lost; the probe asks for it.
    assert!(b.poll_message().is_some());
    assert!(b.poll_transmit(1400, &mut Bytes::default(), &mut Vec::new(), now));
    let at = a.poll_timeout().unwrap();
    assert!(at > now + ms(100) && at < now + ms(1000));
    exchange(&mut a, &mut b, &mut source, at);
    exchange(&mut a, &mut b, &mut source, at);
    assert_eq!(b.stats().received, 5);
}

/// Everything that may leave passes, and no message is read.
fn exchange(a: &mut Kcp, b: &mut Kcp, source: &mut Bytes, now: Instant) {
    let mut packet = Vec::new();
    while a.poll_transmit(1400, source, &mut packet, now) {
        b.handle_packet(&std::mem::take(&mut packet), now).unwrap();
    }
    while b.poll_transmit(1400, &mut Bytes::default(), &mut packet, now) {
        a.handle_packet(&std::mem::take(&mut packet), now).unwrap();
    }
}

#[test]
fn an_idle_session_wakes_for_nothing() {
    let now = start();
    let mut kcp = Kcp::new(7, config(CongestionKind::Bbr), now);
    assert_eq!(kcp.poll_timeout(), None);
    assert!(!kcp.poll_transmit(1400, &mut Bytes::default(), &mut Vec::new(), now));
    assert_eq!(kcp.poll_timeout(), None);
}

#[test]
fn acknowledges_a_batch_in_one_packet() {
    let now = start();
    let mut kcp = Kcp::new(7, config(CongestionKind::Bbr), now);
    for sn in 0..50 {
        kcp.handle_packet(&segment(Command::Push, sn, 0, b"x"), now).unwrap();
    }
    let mut out = Vec::new();
    assert!(kcp.poll_transmit(1400, &mut Bytes::default(), &mut out, now));
    assert_eq!(out.len(), 50 * HEADER_LEN);
    assert!(!kcp.poll_transmit(1400, &mut Bytes::default(), &mut out, now));
}

fn segment(command: Command, sn: u32, una: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header { conv: 7, command, frg: 0, wnd: 128, ts: 0, sn, una };
    let len = u32::try_from(payload.len()).unwrap();
    [&header.encode(len), payload].concat()
}
