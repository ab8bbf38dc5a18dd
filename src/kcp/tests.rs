//! Tests of the whole, packet by packet; over lines it is tested in `tests/kcp`.

use std::time::{Duration, Instant};

use super::{
    Config, CongestionKind, HEADER_LEN, Kcp, Source,
    segment::{Command, Header},
};

/// Some instant; virtual time is counted from it.
#[expect(
    clippy::disallowed_methods,
    reason = "an `Instant` cannot be made otherwise; nothing depends on which it is"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn config(congestion: CongestionKind) -> Config {
    Config { congestion, ..Config::full(1312, 64, 64 << 20) }
}

/// A source of `left` bytes.
#[derive(Debug, Default)]
struct Bytes {
    left: usize,
    /// The most bytes it gives at once; 0 = as many as fit.
    at_once: usize,
}

impl Bytes {
    /// `left` bytes, at most `at_once` in a segment.
    fn in_pieces(left: usize, at_once: usize) -> Self {
        Self { left, at_once }
    }
}

impl Source for Bytes {
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let most = if self.at_once == 0 { buffer.len() } else { self.at_once };
        let len = buffer.len().min(most).min(self.left);
        self.left -= len;
        len
    }
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
