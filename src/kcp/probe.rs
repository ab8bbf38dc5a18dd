//! Window probing: asks a peer whose window is closed, with back-off (`ikcp_flush`, "probe window size").

use std::time::{Duration, Instant};

/// The timer of the window probe and the two things it makes us say.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    /// When to ask next; `None` while the peer's window is open or nothing waits for it.
    ask_at: Option<Instant>,
    wait: Duration,
    /// The peer is to say once where it stands, whatever its window is.
    ask: bool,
    /// An ask of the peer, or our own reopened window, waits to be told.
    tell: bool,
}

impl Probe {
    /// Notes that data waits for a closed window.
    pub(crate) fn on_closed(&mut self, now: Instant) {
        if self.ask_at.is_none() {
            self.wait = FIRST_WAIT;
            self.ask_at = Some(now + self.wait);
        }
    }

    /// Notes that the window is open.
    pub(crate) fn on_open(&mut self) {
        self.ask_at = None;
    }

    /// Asks at once and starts the back-off anew, if a probe was running.
    pub(crate) fn on_path_restored(&mut self, now: Instant) {
        if self.ask_at.is_some() {
            self.wait = FIRST_WAIT;
            self.ask_at = Some(now);
        }
    }

    /// Notes that the peer is to be told our window.
    pub(crate) fn on_tell_wanted(&mut self) {
        self.tell = true;
    }

    /// Asks once, whatever the peer's window is: what asks says where we stand, and so does the answer.
    pub(crate) fn ask_once(&mut self) {
        self.ask = true;
    }

    /// Whether an ask is due; if it is for a closed window the next waits half as long again.
    pub(crate) fn poll_ask(&mut self, now: Instant) -> bool {
        let once = std::mem::take(&mut self.ask);
        if self.ask_at.is_none_or(|at| at > now) {
            return once;
        }
        self.wait = (self.wait * 3 / 2).min(LONGEST_WAIT);
        self.ask_at = Some(now + self.wait);
        true
    }

    /// Whether a tell is due, once.
    pub(crate) fn poll_tell(&mut self) -> bool {
        std::mem::take(&mut self.tell)
    }

    /// Whether a tell waits, or an ask that waits for no time.
    pub(crate) fn is_due(&self) -> bool {
        self.tell || self.ask
    }

    /// When the next ask is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.ask_at
    }
}

/// The first wait; our choice, because a lost tell should not cost seconds (`IKCP_PROBE_INIT` is 7 s).
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait; our choice (`IKCP_PROBE_LIMIT` is 120 s).
const LONGEST_WAIT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kcp::tests::start;

    #[test]
    fn asks_with_back_off_until_the_window_opens() {
        let now = start();
        let mut probe = Probe::default();
        assert_eq!(probe.poll_timeout(), None);
        probe.on_closed(now);
        assert!(!probe.poll_ask(now));
        let mut last = now;
        let mut waits = Vec::new();
        for _ in 0..12 {
            let at = probe.poll_timeout().unwrap();
            waits.push(at - last);
            last = at;
            assert!(probe.poll_ask(at));
        }
        assert_eq!(waits[..2], [FIRST_WAIT, FIRST_WAIT * 3 / 2]);
        assert_eq!(waits[11], LONGEST_WAIT);
        probe.on_open();
        assert_eq!(probe.poll_timeout(), None);
    }

    #[test]
    fn tells_once() {
        let mut probe = Probe::default();
        probe.on_tell_wanted();
        assert!(probe.is_due());
        assert!(probe.poll_tell());
        assert!(!probe.poll_tell() && !probe.is_due());
    }

    #[test]
    fn asks_once_when_told_to_and_begins_no_back_off() {
        let mut probe = Probe::default();
        probe.ask_once();
        assert!(probe.is_due());
        assert!(probe.poll_ask(start()));
        assert!(!probe.poll_ask(start()) && !probe.is_due());
        assert_eq!(probe.poll_timeout(), None);
    }
}
