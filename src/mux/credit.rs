//! Credit: how many bytes of a stream may be on the way, and how the receiver sizes that window.
//!
//! Every stream starts with [`INITIAL_CREDIT`] bytes in each direction without a word. From then on
//! the receiver grants more as its reader consumes: `CREDIT` carries an absolute limit, counted from
//! the stream's start, so it can be merged and repeated. A reader that stops stops its own stream
//! and nothing else.
//!
//! The window follows the stream: when half of it was consumed within two round trips it was likely
//! the limit, and doubles, as in Chromium's QUIC. What windows have beyond their first size comes out
//! of one pool of the session. A window may hold four times what it leaves in the pool (dynamic
//! thresholds, Choudhury and Hahne 1998), so that the first stream does not lock out the second: as
//! others grow it gives back.

use std::time::{Duration, Instant};

/// What this end may still send on one stream.
#[derive(Debug)]
pub(super) struct SendCredit {
    sent: u64,
    limit: u64,
}

/// A limit below an earlier one, which no honest peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shrunk;

impl SendCredit {
    /// A new stream's.
    pub(super) fn new() -> Self {
        Self { sent: 0, limit: INITIAL_CREDIT }
    }

    /// Bytes sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes that may be sent now.
    pub(super) fn available(&self) -> usize {
        usize::try_from(self.limit - self.sent).unwrap_or(usize::MAX)
    }

    /// Uses up `n` bytes, at most [`SendCredit::available`].
    pub(super) fn on_sent(&mut self, n: usize) {
        self.sent = self.limit.min(self.sent.saturating_add(n as u64));
    }

    /// Takes the peer's new limit.
    ///
    /// # Errors
    /// [`Shrunk`] when it is below the old one; nothing changes.
    pub(super) fn raise(&mut self, limit: u64) -> Result<(), Shrunk> {
        if limit < self.limit {
            return Err(Shrunk);
        }
        self.limit = limit;
        Ok(())
    }
}

/// The session's rules for windows and the pool they grow from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Windows {
    initial: u64,
    max: u64,
    pool: u64,
    rtt: Duration,
}

impl Windows {
    /// Windows of `initial` to `max` bytes, which together grow by at most `pool` bytes.
    pub(super) fn new(initial: usize, max: usize, pool: usize) -> Self {
        let initial = (initial as u64).max(INITIAL_CREDIT);
        Self { initial, max: initial.max(max as u64), pool: pool as u64, rtt: DEFAULT_RTT }
    }

    /// Takes the round-trip time measured below.
    pub(super) fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    /// The largest window for one that holds `held` bytes of the pool.
    fn bound(&self, held: u64) -> u64 {
        let share = (self.pool + held) / (POOL_SHARE + 1) * POOL_SHARE;
        self.max.min(self.initial + share)
    }
}

/// What the peer may still send on one stream, and the window behind it.
#[derive(Debug)]
pub(super) struct ReceiveCredit {
    received: u64,
    consumed: u64,
    granted: u64,
    window: u64,
    /// Bytes held of the pool: they cover the window, and a promise that is larger than the window.
    pooled: u64,
    /// When, and at how many consumed bytes, the present measurement began.
    measured: Option<(Instant, u64)>,
}

/// What is kept back of a window is no use to the peer; our choice: a `CREDIT` for 50 packets.
const WORTH: u64 = 64 * 1024;

/// More bytes than were granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overrun;

impl ReceiveCredit {
    /// A new stream's.
    pub(super) fn new(windows: &Windows) -> Self {
        Self {
            received: 0,
            consumed: 0,
            granted: INITIAL_CREDIT,
            window: windows.initial,
            pooled: 0,
            measured: None,
        }
    }

    /// Bytes that arrived so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Counts `n` bytes that arrived.
    ///
    /// # Errors
    /// [`Overrun`] when they were not granted; nothing changes.
    pub(super) fn on_received(&mut self, n: usize, now: Instant) -> Result<(), Overrun> {
        let received = self.received.saturating_add(n as u64);
        if received > self.granted {
            return Err(Overrun);
        }
        self.received = received;
        self.measured.get_or_insert((now, self.consumed));
        Ok(())
    }

    /// Counts `n` bytes the reader took, and sizes the window.
    pub(super) fn on_consumed(&mut self, n: usize, windows: &mut Windows, now: Instant) {
        self.consumed = self.received.min(self.consumed.saturating_add(n as u64));
        if let Some((since, base)) = self.measured
            && self.consumed - base >= self.window / 2
        {
            self.resize(now.saturating_duration_since(since), windows);
            self.measured = Some((now, self.consumed));
        }
        self.settle_pool(windows);
    }

    /// Whether a `CREDIT` is worth its bytes: [`WORTH`] or a quarter of the window is free, or a
    /// sixteenth of it while the peer has less than an eighth left.
    pub(super) fn is_due(&self) -> bool {
        let free = self.limit() - self.granted;
        let left = self.granted - self.received;
        free >= WORTH.min(self.window / 4) || (left <= self.window / 8 && free >= self.window / 16)
    }

    /// Grants what is free now and returns the limit to send.
    pub(super) fn grant(&mut self) -> u64 {
        self.granted = self.limit();
        self.granted
    }

    /// Gives back what the window holds of the pool; the stream is gone.
    pub(super) fn release(&mut self, windows: &mut Windows) {
        windows.pool += std::mem::take(&mut self.pooled);
    }

    /// The limit that could be granted now; never below what was.
    pub(super) fn limit(&self) -> u64 {
        self.granted.max(self.consumed.saturating_add(self.window))
    }

    /// Half a window was consumed in `elapsed`.
    fn resize(&mut self, elapsed: Duration, windows: &mut Windows) {
        let wanted = if elapsed <= windows.rtt * 2 { self.window * 2 } else { self.window };
        self.window = wanted.min(windows.bound(self.pooled));
    }

    /// Holds of the pool what window and promise need beyond the first window. The promise only
    /// shrinks as the peer uses it up, so a smaller window gives back over its next bytes.
    fn settle_pool(&mut self, windows: &mut Windows) {
        let promised = self.granted - self.consumed;
        let needed = self.window.max(promised).saturating_sub(windows.initial);
        windows.pool = (windows.pool + self.pooled).saturating_sub(needed);
        self.pooled = needed;
    }
}

/// What either end may send on a new stream before it has seen a `CREDIT`: part of the protocol.
/// It lets a request and the start of its answer travel without a round trip for credit.
pub(super) const INITIAL_CREDIT: u64 = 64 * 1024;

/// Assumed until the layer below has measured a round trip (our choice: a long path's).
const DEFAULT_RTT: Duration = Duration::from_millis(100);

/// How much of the pool one window may hold, in units of what it leaves: 4 = four fifths of it for
/// a single stream, and ten streams leave a fortieth unused (our choice).
const POOL_SHARE: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const KB: usize = 1024;

    #[expect(clippy::disallowed_methods, reason = "any start will do for a test's own clock")]
    fn start() -> Instant {
        Instant::now()
    }

    /// Lets `credit` receive and read all it may, one grant each `period`, `times` times.
    fn pump(
        credit: &mut ReceiveCredit,
        windows: &mut Windows,
        now: &mut Instant,
        period: Duration,
        times: usize,
    ) {
        for _ in 0..times {
            let n = usize::try_from(credit.granted - credit.received).unwrap();
            credit.on_received(n, *now).unwrap();
            *now += period;
            credit.on_consumed(n, windows, *now);
            credit.grant();
        }
    }

    #[test]
    fn sends_up_to_the_limit_and_not_beyond() {
        let mut credit = SendCredit::new();
        assert_eq!(credit.available(), 64 * KB);
        credit.on_sent(64 * KB);
        assert_eq!(credit.available(), 0);
        credit.raise(64 * 1024 + 5).unwrap();
        assert_eq!(credit.available(), 5);
    }

    #[test]
    fn refuses_a_limit_that_shrinks_and_takes_the_largest() {
        let mut credit = SendCredit::new();
        assert_eq!(credit.raise(INITIAL_CREDIT - 1), Err(Shrunk));
        credit.raise(INITIAL_CREDIT).unwrap();
        credit.raise(u64::MAX).unwrap();
        credit.on_sent(usize::MAX);
        credit.on_sent(usize::MAX);
        assert_eq!(credit.available(), 0);
    }

    #[test]
    fn refuses_one_byte_more_than_was_granted() {
        let windows = Windows::new(0, 0, 0);
        let mut credit = ReceiveCredit::new(&windows);
        credit.on_received(64 * KB, start()).unwrap();
        assert_eq!(credit.on_received(1, start()), Err(Overrun));
    }

    #[test]
    fn grants_when_a_quarter_was_read_and_earlier_when_the_peer_is_nearly_blocked() {
        let now = start();
        let mut windows = Windows::new(64 * KB, 64 * KB, 0);
        let mut credit = ReceiveCredit::new(&windows);
        credit.on_received(32 * KB, now).unwrap();
        credit.on_consumed(16 * KB - 1, &mut windows, now);
        assert!(!credit.is_due());
        credit.on_consumed(1, &mut windows, now);
        assert!(credit.is_due());
        assert_eq!(credit.grant(), 80 * 1024);
        assert!(!credit.is_due());

        credit.on_received(48 * KB, now).unwrap();
        credit.on_consumed(4 * KB - 1, &mut windows, now);
        assert!(!credit.is_due());
        credit.on_consumed(1, &mut windows, now);
        assert!(credit.is_due());
    }

    #[test]
    fn grants_64_kib_of_a_window_however_wide() {
        let now = start();
        let mut credit = ReceiveCredit::new(&Windows::new(16 << 20, 16 << 20, 0));
        credit.grant();
        credit.on_received(1 << 20, now).unwrap();
        credit.on_consumed(64 * KB - 1, &mut Windows::new(16 << 20, 16 << 20, 0), now);
        assert!(!credit.is_due());
        credit.on_consumed(1, &mut Windows::new(16 << 20, 16 << 20, 0), now);
        assert!(credit.is_due());
    }

    #[test]
    fn a_first_window_above_the_initial_credit_is_granted_at_once() {
        assert!(!ReceiveCredit::new(&Windows::new(64 * KB, 64 * KB, 0)).is_due());
        let mut credit = ReceiveCredit::new(&Windows::new(256 * KB, 256 * KB, 0));
        assert!(credit.is_due());
        assert_eq!(credit.grant(), 256 * 1024);
    }

    #[test]
    fn the_window_grows_to_the_streams_own_speed_and_no_further() {
        // 10 MB/s at a round trip of 100 ms: 1 MB is on the way.
        let (mut now, mut windows) = (start(), Windows::new(64 * KB, 1 << 30, 1 << 30));
        windows.set_rtt(Duration::from_millis(100));
        let mut credit = ReceiveCredit::new(&windows);
        for _ in 0..3000 {
            let n = 10_000.min(usize::try_from(credit.granted - credit.received).unwrap());
            credit.on_received(n, now).unwrap();
            now += Duration::from_millis(1);
            credit.on_consumed(n, &mut windows, now);
            if credit.is_due() {
                credit.grant();
            }
        }
        assert!((2 << 20..=8 << 20).contains(&credit.window), "{}", credit.window);
    }

    #[test]
    fn a_slow_reader_keeps_the_first_window() {
        let (mut now, mut windows) = (start(), Windows::new(64 * KB, 1 << 30, 1 << 30));
        let mut credit = ReceiveCredit::new(&windows);
        pump(&mut credit, &mut windows, &mut now, Duration::from_secs(1), 50);
        assert_eq!(credit.window, INITIAL_CREDIT);
    }

    #[test]
    fn windows_never_hold_more_than_the_pool_and_give_it_back() {
        let (mut now, mut windows) = (start(), Windows::new(64 * KB, 1 << 30, 1 << 20));
        let mut credits: Vec<_> = (0..10).map(|_| ReceiveCredit::new(&windows)).collect();
        for _ in 0..100 {
            for credit in &mut credits {
                pump(credit, &mut windows, &mut now, Duration::from_micros(10), 1);
            }
            let held: u64 = credits.iter().map(|credit| credit.pooled).sum();
            assert_eq!(held + windows.pool, 1 << 20);
        }
        for credit in &mut credits {
            credit.release(&mut windows);
        }
        assert_eq!(windows.pool, 1 << 20);
    }

    #[test]
    fn the_first_stream_gives_back_so_that_the_second_grows_too() {
        let (mut now, mut windows) = (start(), Windows::new(64 * KB, 1 << 30, 1 << 20));
        let (mut first, mut second) = (ReceiveCredit::new(&windows), ReceiveCredit::new(&windows));
        let period = Duration::from_micros(10);
        pump(&mut first, &mut windows, &mut now, period, 20);
        assert!(first.pooled > 800 * 1024, "{}", first.pooled);
        for _ in 0..20 {
            pump(&mut first, &mut windows, &mut now, period, 1);
            pump(&mut second, &mut windows, &mut now, period, 1);
        }
        assert!(second.pooled * 10 >= first.pooled * 9, "{} {}", first.pooled, second.pooled);
        assert!(first.pooled + second.pooled > 800 * 1024);
    }
}
