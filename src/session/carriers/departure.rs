//! Where the host's packets leave from: a carrier from another address is to be left, though it may answer yet.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::carrier::Connection;

/// What the shell said last, and when a carrier from there may next be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    /// The server's address, and ours on packets to it.
    route: Option<(IpAddr, IpAddr)>,
    ask_at: Instant,
}

impl Departure {
    /// Nothing was said yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self { route: None, ask_at: now }
    }

    /// The host's network changed; `route` is as the field. Says whether it is another.
    pub(super) fn on_network(&mut self, route: Option<(IpAddr, IpAddr)>, now: Instant) -> bool {
        let is_other = self.route != route;
        if is_other {
            *self = Self { route, ask_at: now };
        }
        is_other
    }

    /// A port was taken, which says better where packets leave from than what was heard before.
    pub(super) fn on_port(&mut self, remote: IpAddr, local: IpAddr) {
        if let Some((_, from)) = self.route.as_mut().filter(|(towards, _)| *towards == remote) {
            *from = local;
        }
    }

    /// A carrier from there was asked for.
    pub(super) fn on_asked(&mut self, now: Instant) {
        self.ask_at = now + ASK_EVERY;
    }

    pub(super) const fn ask_at(&self) -> Instant {
        self.ask_at
    }

    /// Whether packets of this connection do not leave from where others to the same address do.
    pub(super) fn is_left(&self, connection: &Connection) -> bool {
        self.route.is_some_and(|(towards, from)| {
            connection.remote().ip() == towards && connection.local().ip() != from
        })
    }

    /// Whether nobody hears what is said from this address any more.
    pub(super) fn is_elsewhere(&self, local: IpAddr) -> bool {
        self.route.is_some_and(|(_, from)| is_elsewhere(local, from))
    }
}

/// Whether these are two places. A host has an address of each family at one and the same.
pub(super) fn is_elsewhere(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && one != other
}

/// Our choice: above what a dial beside it may take, and its carrier to answer; six ports a minute, as through an outage.
const ASK_EVERY: Duration = Duration::from_secs(10);
