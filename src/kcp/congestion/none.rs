//! No congestion control (ikcp's nc=1): the windows of the two ends are the only limit.

use std::time::Instant;

use super::{Acks, Congestion};
use crate::kcp::rate::Rate;

/// The full window, unpaced.
#[derive(Debug)]
pub(crate) struct Unlimited {
    window: u64,
}

impl Unlimited {
    /// Allows `window` bytes.
    pub(crate) fn new(window: u64) -> Self {
        Self { window }
    }
}

impl Congestion for Unlimited {
    fn on_acks(&mut self, _acks: &Acks, _now: Instant) {}

    fn on_loss(&mut self, _bytes: u64, _sent_at: Instant, _span: u64, _now: Instant) {}

    fn on_timeout(&mut self, _now: Instant) {}

    fn window(&self) -> u64 {
        self.window
    }

    fn bounds_span(&self) -> bool {
        true
    }

    fn pacing_rate(&self) -> Option<Rate> {
        None
    }
}
