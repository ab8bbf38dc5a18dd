//! The server answers probes: whoever only wants to know what passes gets message 2 and pongs, and makes no session.
//!
//! A probe's message 1 says that it is one. Its carrier never carries a session, so the peer's tunnel, up or not, does not notice
//! it: a client may ask beside its own tunnel, whose session another would replace.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::{self, Frame};
use super::probe_link::ProbeLink;
use crate::carrier::Segment;
use crate::crypto::Mask;

/// The probes of one peer.
#[derive(Debug, Default)]
pub(crate) struct Probes(VecDeque<Probed>);

#[derive(Debug)]
struct Probed {
    link: ProbeLink,
    ephemeral: [u8; 32],
    /// Message 2, to be said again if message 1 comes again.
    reply: Vec<u8>,
    until: Instant,
}

impl Probes {
    /// Answers pings on this link for a while; the oldest of too many is forgotten.
    pub(crate) fn add(&mut self, link: ProbeLink, ephemeral: [u8; 32], reply: Vec<u8>, now: Instant) {
        if self.0.len() == PROBES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Probed { link, ephemeral, reply, until: now + PROBED_FOR });
    }

    /// Message 2, if this is the message 1 of a probe again.
    pub(crate) fn reply(&self, ephemeral: &[u8; 32]) -> Option<&[u8]> {
        let same = self.0.iter().find(|probed| probed.ephemeral == *ephemeral);
        same.map(|probed| probed.reply.as_slice())
    }

    /// Whether a probe has this index.
    pub(crate) fn has(&self, index: u32) -> bool {
        self.0.iter().any(|probed| probed.link.index() == index)
    }

    /// Takes a packet whose index is a probe's; returns the pong to a ping, one for each: so its counter says how many came.
    pub(crate) fn handle(
        &mut self,
        segment: &Segment,
        (index, mask): (u32, &Mask),
        packet: &mut [u8],
        now: Instant,
    ) -> Option<Vec<u8>> {
        let probed = self.0.iter_mut().find(|probed| probed.link.index() == index)?;
        let (_, Frame::Ping { token, size }) = probed.link.open(segment, mask, packet, now)? else {
            return None;
        };
        probed.link.packet(size.min(PONG_MAX), |out| frame::put_pong(out, token, size))
    }

    /// Forgets those whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.0.retain(|probed| probed.until > now);
    }

    /// When the next one's time is over.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        self.0.iter().map(|probed| probed.until).min()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Our choice: every mode to a few addresses at once.
const PROBES_MAX: usize = 32;

/// Our choice: a probe takes less than 20 s in all.
const PROBED_FOR: Duration = Duration::from_secs(20);

/// Our choice: the largest packet that ordinary networks carry.
const PONG_MAX: u16 = 1500;
