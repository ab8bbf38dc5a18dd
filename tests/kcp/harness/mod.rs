//! Pairs of KCP endpoints on one emulated line, in virtual time.

pub(crate) mod app;
pub(crate) mod cells;
pub(crate) mod ikcp;
pub(crate) mod line;
pub(crate) mod ours;
pub(crate) mod stall;
pub(crate) mod world;

use std::time::{Duration, Instant};

use vpn::kcp::{Config, CongestionKind};

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

pub(crate) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What a tunnel's session with that `session_buffer` asks of KCP, but for the size of a full packet, which is 1400 bytes on
/// the line here.
pub(crate) fn tunnel(congestion: CongestionKind, session_buffer: usize) -> Config {
    Config { congestion, ..Config::full(MSS, OVERHEAD, session_buffer / 4) }
}

/// What `limits.session_buffer` is unless it is set.
pub(crate) const SESSION_BUFFER: usize = 64 << 20;

/// Payload bytes of a full segment.
pub(crate) const MSS: usize = 1312;

/// Bytes on the line around each KCP packet, as the tunnel adds them: IP, TCP, the record, the frame.
pub(crate) const OVERHEAD: usize = 64;
