//! The round-trip time and the retransmission timeout (RFC 6298, `ikcp_update_ack`).
//!
//! Samples come from the echoed `ts`, so a retransmitted segment is no ambiguity: the echo says which copy arrived.

use std::time::Duration;

use super::config::Nodelay;

/// Smoothed round-trip time, its variation, and the timeout that follows.
#[derive(Debug, Clone)]
pub(crate) struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    min_rto: Duration,
    granularity: Duration,
}

impl Rtt {
    /// Starts without a sample; no timeout is ever below `min_rto`. A peer answers after `interval` at the latest.
    pub(crate) fn new(min_rto: Duration, interval: Duration) -> Self {
        Self {
            smoothed: None,
            variation: Duration::ZERO,
            min_rto: min_rto.min(MAX_RTO),
            granularity: interval.max(GRANULARITY),
        }
    }

    /// Takes one sample (RFC 6298 §2.2 and §2.3: the variation first, then the mean).
    pub(crate) fn on_sample(&mut self, rtt: Duration) {
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(rtt);
            self.variation = rtt / 2;
            return;
        };
        self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
        self.smoothed = Some((smoothed * 7 + rtt) / 8);
    }

    /// SRTT, once there is a sample.
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// What a round trip rarely exceeds: SRTT + 2 RTTVAR.
    pub(crate) fn expected(&self) -> Duration {
        self.smoothed.unwrap_or_default() + self.variation * 2
    }

    /// RTO without back-off: SRTT + max(G, 4 RTTVAR).
    pub(crate) fn rto(&self) -> Duration {
        let rto = match self.smoothed {
            Some(smoothed) => smoothed + (self.variation * 4).max(self.granularity),
            None => INITIAL_RTO,
        };
        rto.clamp(self.min_rto, MAX_RTO)
    }

    /// RTO after `timeouts` in a row, at most [`MAX_RTO`]: each makes it twice, or in nodelay mode half as long again.
    pub(crate) fn backed_off(&self, timeouts: u32, nodelay: Nodelay) -> Duration {
        let measured = self.rto();
        if nodelay == Nodelay::Linear {
            return measured.saturating_add((measured / 2).saturating_mul(timeouts)).min(MAX_RTO);
        }
        let mut rto = measured;
        for _ in 0..timeouts.min(MOST_STEPS) {
            rto = if nodelay == Nodelay::On { rto * 3 / 2 } else { rto * 2 };
        }
        rto.min(MAX_RTO)
    }
}

/// RTO before the first sample (`IKCP_RTO_DEF`).
const INITIAL_RTO: Duration = Duration::from_millis(200);
/// G of RFC 6298: what a receiver's batching may add (ikcp's interval in fast mode).
const GRANULARITY: Duration = Duration::from_millis(10);
/// The longest timeout; our choice, because one segment each 10 s costs nothing (`IKCP_RTO_MAX` is 60 s).
pub(crate) const MAX_RTO: Duration = Duration::from_secs(10);
/// 10 ms × 1.5^20 is above [`MAX_RTO`], and [`MAX_RTO`] × 2^20 no overflow.
const MOST_STEPS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn follows_the_formulas_of_rfc_6298() {
        let mut rtt = Rtt::new(ms(30), Duration::ZERO);
        assert_eq!(rtt.rto(), ms(200));
        rtt.on_sample(ms(100));
        assert_eq!((rtt.smoothed(), rtt.rto()), (Some(ms(100)), ms(300)));
        rtt.on_sample(ms(180));
        // RTTVAR = 3/4 × 50 + 1/4 × 80 = 57.5; SRTT = 7/8 × 100 + 1/8 × 180 = 110.
        assert_eq!((rtt.smoothed(), rtt.rto()), (Some(ms(110)), ms(340)));
    }

    #[test]
    fn never_falls_below_the_minimum() {
        let mut rtt = Rtt::new(ms(100), Duration::ZERO);
        for _ in 0..100 {
            rtt.on_sample(ms(1));
        }
        assert_eq!(rtt.rto(), ms(100));
    }

    #[test]
    fn expects_an_answer_no_sooner_than_the_interval() {
        let mut rtt = Rtt::new(ms(30), ms(40));
        for _ in 0..100 {
            rtt.on_sample(ms(100));
        }
        assert_eq!(rtt.rto(), ms(140));
    }

    #[test]
    fn backs_off_by_half_in_nodelay_mode_to_double_otherwise_and_up_to_the_cap() {
        let rtt = Rtt::new(ms(30), Duration::ZERO);
        let after = |nodelay| [1, 2, 3].map(|timeouts| rtt.backed_off(timeouts, nodelay).as_millis());
        assert_eq!(after(Nodelay::Off), [400, 800, 1600]);
        assert_eq!(after(Nodelay::On), [300, 450, 675]);
        assert_eq!(after(Nodelay::Linear), [300, 400, 500]);
        for nodelay in [Nodelay::Off, Nodelay::On, Nodelay::Linear] {
            assert_eq!(rtt.backed_off(u32::MAX, nodelay), MAX_RTO);
        }
    }
}
