//! A carrier that may carry the session, with what is known of how it does.

use std::time::{Duration, Instant};

use super::event::Grant;
use crate::session::frame;
use crate::session::link::Link;
use crate::session::liveness::Liveness;
use crate::session::loss::LossMeter;
use crate::session::status::CarrierStatus;

/// A carrier that may carry the session.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) link: Link,
    pub(super) liveness: Liveness,
    /// It has answered a ping.
    pub(super) proven: bool,
    pub(super) grant: Option<Grant>,
    /// Of what the server sends, and of what we send.
    pub(super) loss_in: LossMeter,
    pub(super) loss_out: LossMeter,
}

impl Carrier {
    pub(super) fn new(link: Link, rtt: Duration, now: Instant) -> Self {
        Self {
            link,
            liveness: Liveness::new(rtt, now),
            proven: false,
            grant: None,
            loss_in: LossMeter::new(now),
            loss_out: LossMeter::new(now),
        }
    }

    /// A ping says at once which carrier is in use, in which epoch we are and what of this carrier arrived, so none of that
    /// needs a packet of its own.
    pub(super) fn queue_ping(&mut self, token: u64, (number, used): (u32, u32), epoch: u32) {
        let seen = self.link.counts();
        self.link.queue(|out| {
            frame::put_use(out, number, used);
            frame::put_epoch(out, epoch);
            frame::put_ping(out, token, 0);
            frame::put_seen(out, seen);
        });
    }

    pub(super) fn status(&self, now: Instant) -> CarrierStatus {
        let losses = (self.loss_in.share(), self.loss_out.share());
        CarrierStatus::of(&self.link, Some(self.liveness.srtt()), losses, now)
    }
}
