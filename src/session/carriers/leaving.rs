//! What is left of carriers that are not used any more: they open what is still on its way, and end with a FIN.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::carrier::{self, Connection, Segment};
use crate::session::link::Link;

/// Carriers, and dials that came to nothing, on their way out.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// In use until lately.
    retired: VecDeque<Retired>,
    /// They have a FIN to send yet, and nothing else.
    ending: VecDeque<Connection>,
    /// Our ends of 4-tuples that are not used any more.
    ports: VecDeque<SocketAddr>,
    /// What connections saw that are no more.
    outside: carrier::Stats,
}

/// While the session lasts it opens what is still on its way; then it ends.
#[derive(Debug)]
struct Retired {
    link: Link,
    until: Instant,
}

impl Leaving {
    /// Another carrier took the place of this one.
    pub(super) fn retire(&mut self, link: Link, now: Instant) {
        self.retired.push_back(Retired { link: link.without_rekey(), until: now + RETIRED_FOR });
        self.handle_timeout(now);
    }

    /// Another carrier was chosen before this one carried anything: nothing is on its way, and its server, which may be another,
    /// need not keep a session for it.
    pub(super) fn leave(&mut self, link: Link, now: Instant) {
        let mut link = link.without_rekey();
        link.leave();
        self.retired.push_back(Retired { link, until: now });
        self.handle_timeout(now);
    }

    /// Takes a packet that comes after the session.
    pub(super) fn handle_late(&mut self, segment: &Segment, now: Instant) {
        if let Some(link) = self.links_mut().find(|link| link.is_from(segment)) {
            link.handle_late(segment, now);
        }
    }

    /// Ends a connection with a FIN, if it was ever established, and lets its port go.
    pub(super) fn end(&mut self, mut connection: Connection) {
        self.outside += connection.stats();
        self.ports.push_back(connection.local());
        connection.close();
        self.ending.push_back(connection);
        if self.ending.len() > ENDING_MAX {
            self.ending.pop_front();
        }
    }

    /// The session is over: nothing is waited for any more.
    pub(super) fn close(&mut self) {
        let all = self.links_mut().filter(|link| !link.is_closing());
        all.for_each(Link::leave);
    }

    /// Those whose time is over end, and their ports are let go.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let is_due = |retired: &&mut Retired| retired.until <= now && !retired.link.is_closing();
        self.retired.iter_mut().filter(is_due).for_each(|retired| retired.link.leave());
        let is_done = |retired: &Retired| retired.link.is_over() || retired.until + FIN_WITHIN <= now;
        let oldest = |retired: &VecDeque<_>| (retired.len() > RETIRED_MAX).then_some(0);
        while let Some(at) = self.retired.iter().position(is_done).or(oldest(&self.retired)) {
            if let Some(retired) = self.retired.remove(at) {
                self.end(retired.link.into_connection());
            }
        }
    }

    /// Writes the next packet without payload into `out`; `false` when there is none now.
    pub(super) fn poll_transmit(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        while let Some(mut connection) = self.ending.pop_front() {
            if let Some(packet) = connection.poll_transmit(now) {
                *out = packet;
                return true;
            }
        }
        self.retired.iter_mut().any(|retired| {
            let link = &mut retired.link;
            (link.is_closing() && link.poll_transmit(None, out, now)) || link.poll_ack(out, now)
        })
    }

    /// Our end of a 4-tuple that is not used any more, once.
    pub(super) fn poll_port(&mut self) -> Option<SocketAddr> {
        self.ports.pop_front()
    }

    /// When the next one ends, or has something to say.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let ends = self.retired.iter().map(|retired| match retired.link.is_closing() {
            false => retired.until,
            true => retired.until + FIN_WITHIN,
        });
        ends.chain(self.retired.iter().filter_map(|retired| retired.link.poll_timeout())).min()
    }

    /// Those that may still open something.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.retired.iter().map(|retired| &retired.link)
    }

    pub(super) fn links_mut(&mut self) -> impl Iterator<Item = &mut Link> {
        self.retired.iter_mut().map(|retired| &mut retired.link)
    }

    /// How many may still open something.
    pub(super) fn retired(&self) -> usize {
        self.retired.len()
    }

    /// What connections saw of the outside that are no more.
    pub(super) fn outside(&self) -> carrier::Stats {
        self.outside
    }
}

/// Packets of an old carrier may still be on their way.
const RETIRED_FOR: Duration = Duration::from_secs(10);

/// Our choice: as long as a FIN is waited for that answers ours.
const FIN_WITHIN: Duration = Duration::from_secs(3);

/// Our choice: old carriers that still open packets.
const RETIRED_MAX: usize = 4;

/// Our choice: FINs that wait for the network.
const ENDING_MAX: usize = 16;
