//! What the owner of the carriers tells them, and what they tell it.

use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;

use crate::crypto::Message2;

/// What the session is like now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    /// Somebody waits for the path: pings go on at full pace through an outage.
    pub(crate) urgent: bool,
    /// KCP waits for an acknowledgement.
    pub(crate) unacked: bool,
    pub(crate) epoch: u32,
}

/// What the owner must do or may tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CarrierEvent {
    /// A port towards `remote` is wanted, for [`Carriers::dial`].
    Dial { attempt: u32, remote: SocketAddr },
    /// This end of a 4-tuple is not used any more.
    Retired(SocketAddr),
    /// No carrier answers.
    Suspect,
    /// One answers again.
    Recovered,
}

/// What an outer packet was.
#[derive(Debug)]
pub(crate) enum Arrival<'a> {
    /// Nothing that anyone else has to know.
    Nothing,
    /// Frames, that the carrier of this number brought.
    Frames(u32, &'a [u8]),
    /// The server accepts the carrier of this number.
    Accepted(u32, Message2),
    /// The server answers, but with no keys.
    Answered(Message2),
    /// Nothing of ours.
    Dropped(Dropped),
}

/// What an answer of a carrier changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Nothing: it is the one in use.
    AsBefore,
    /// It is used from now on; the server is to be told.
    Anew,
    /// The same, and none answered before.
    Recovered,
}

/// Why an outer packet was not acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// On no 4-tuple of ours.
    Stranger,
    /// On a carrier that ended.
    Late,
    /// Its index is not the carrier's.
    Index,
    /// Does not open, or opened before.
    Sealed,
}

/// What a server gives a client that it did not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) addresses: Vec<IpNetwork>,
    pub(crate) dns: Vec<IpAddr>,
}
