//! Congestion control: how much may be in flight, and how fast it leaves. One trait, three answers.

mod bbr;
mod estimate;
mod loss;
mod none;

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use super::{config::Config, delivery::Sample, rate::Rate};

/// Which congestion control a session uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CongestionKind {
    /// A model of the path (bandwidth and round-trip time) that random loss does not slow down.
    #[default]
    Bbr,
    /// ikcp's slow start and congestion avoidance (nc=0), paced.
    Loss,
    /// ikcp's nc=1: the full window, unpaced.
    None,
}

/// What [`CongestionKind::Bbr`] is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Looking for the bandwidth of the path.
    Startup,
    /// Emptying the queue that Startup made.
    Drain,
    /// Sending what the path takes.
    Cruise,
    /// Trying whether it takes more.
    Up,
    /// Emptying the queue that Up made.
    Down,
    /// Looking for the round-trip time without a queue.
    ProbeRtt,
}

/// A congestion control. All bytes are wire bytes.
pub(crate) trait Congestion: Debug + Send {
    /// A batch of acks came.
    fn on_acks(&mut self, acks: &Acks, now: Instant);
    /// The last transmission of a segment of `bytes`, made at `sent_at`, arrived.
    fn on_arrival(&mut self, _bytes: u64, _sent_at: Instant) {}
    /// The last transmission of a segment of `bytes`, made at `sent_at`, was skipped by later ones, while `span` bytes lay
    /// between snd_una and snd_nxt.
    fn on_loss(&mut self, bytes: u64, sent_at: Instant, span: u64, now: Instant);
    /// Nothing was acknowledged for a whole timeout.
    fn on_timeout(&mut self, now: Instant);
    /// Bytes that may be in flight.
    fn window(&self) -> u64;
    /// Whether the window bounds snd_nxt − snd_una, as in ikcp, and not the bytes in flight alone.
    fn bounds_span(&self) -> bool;
    /// How fast to send; `None` = unpaced.
    fn pacing_rate(&self) -> Option<Rate>;
    /// The bandwidth the path is believed to have.
    fn bandwidth(&self) -> Option<Rate> {
        None
    }
    /// The rate below which, copies included, sending twice costs nobody anything; `None` = send once, as ikcp does.
    fn spare_rate(&self) -> Option<Rate> {
        None
    }
    /// What it is doing, if it goes through phases.
    fn phase(&self) -> Option<Phase> {
        None
    }
    /// The shortest round-trip time seen lately.
    fn min_rtt(&self) -> Option<Duration> {
        None
    }
}

/// What one batch of acks says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Acks {
    /// Bytes newly acknowledged.
    pub(crate) bytes: u64,
    /// Bytes delivered so far.
    pub(crate) delivered: u64,
    /// Bytes delivered when the newest of these segments left.
    pub(crate) delivered_at_departure: Option<u64>,
    /// Bytes still in flight.
    pub(crate) in_flight: u64,
    /// The round-trip time of the newest of these segments.
    pub(crate) rtt: Option<Duration>,
    /// SRTT, this batch included.
    pub(crate) srtt: Option<Duration>,
    /// The delivery rate seen by the newest of these segments.
    pub(crate) rate: Option<Sample>,
}

/// Makes a congestion control; `packet` = wire bytes of a full packet, `most` = bytes of a full send window.
pub(crate) fn new(config: &Config, packet: u64, most: u64, seed: u32, now: Instant) -> Box<dyn Congestion> {
    match config.congestion {
        CongestionKind::Bbr => Box::new(bbr::Bbr::new(packet, seed, now)),
        CongestionKind::Loss => Box::new(loss::Loss::new(packet, most, config.fast_resend)),
        CongestionKind::None => Box::new(none::Unlimited::new(most)),
    }
}
