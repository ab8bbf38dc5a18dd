//! What a session knows about itself, for `vpn status` and the tests.

use std::net::{IpAddr, SocketAddr};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;

use super::client::ClientDrops;
use super::engine::Engine;
use super::fragment::FragmentStats;
use super::link::Link;
use super::server::ServerDrops;
use crate::carrier::{self, Kind, Mode};
use crate::crypto::PublicKey;
use crate::datagram;
use crate::flow;
use crate::kcp;
use crate::mux;

/// One carrier.
#[derive(Clone, Copy, Debug)]
pub struct CarrierStatus {
    /// Counts the carriers of a session.
    pub number: u32,
    /// How it looks outside.
    pub mode: Mode,
    /// Our end of the 4-tuple.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Since its first handshake.
    pub age: Duration,
    /// Since the handshake of the keys in use.
    pub keys_age: Duration,
    /// How often it was given new keys.
    pub rekeys: u64,
    /// Others were asked for.
    pub rekeying: bool,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
    /// Share of the peer's packets that never came lately, of 1.
    pub loss_in: f64,
    /// The largest outer packet to the peer that is known to pass, IP header included, in bytes.
    pub path_mtu: u16,
    /// How often the path was found to have become smaller.
    pub path_shrunk: u64,
    /// Share of our packets that never came lately, as the peer says, of 1.
    pub loss_out: f64,
}

/// Why a client opened another carrier beside the one in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It did not answer.
    Silent,
    /// It lost far more than the session was used to.
    Lossy,
    /// The host's packets to the server have another source address.
    Moved,
    /// The server closed it.
    Closed,
}

impl Why {
    /// For `status` and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Lossy => "lossy",
            Self::Moved => "moved",
            Self::Closed => "closed",
        }
    }
}

/// How often another carrier took over, by the reason for which it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Migrations {
    /// [`Why::Silent`].
    pub silent: u64,
    /// [`Why::Lossy`].
    pub lossy: u64,
    /// [`Why::Moved`].
    pub moved: u64,
    /// [`Why::Closed`].
    pub closed: u64,
    /// Of the last.
    pub last: Option<Why>,
}

impl Migrations {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.silent + self.lossy + self.moved + self.closed
    }

    pub(crate) fn note(&mut self, why: Why) {
        let counter = match why {
            Why::Silent => &mut self.silent,
            Why::Lossy => &mut self.lossy,
            Why::Moved => &mut self.moved,
            Why::Closed => &mut self.closed,
        };
        *counter += 1;
        self.last = Some(why);
    }
}

/// What survives every carrier.
#[derive(Clone, Copy, Debug)]
pub struct SessionStatus {
    /// The KCP epoch.
    pub epoch: u32,
    /// Smoothed round trip of KCP.
    pub rtt: Option<Duration>,
    /// Bytes on the wire.
    pub traffic: Traffic,
    /// KCP packets that were none.
    pub malformed: u64,
    /// Inner datagrams that waited for the carrier.
    pub datagrams: datagram::Stats,
    /// Frames that came in pieces.
    pub fragments: FragmentStats,
    /// Segments and windows.
    pub kcp: kcp::Stats,
    /// Streams and frames.
    pub mux: mux::Stats,
    /// Bytes that it may hold.
    pub buffer: usize,
    /// Flows open now.
    pub flows_open: usize,
    /// Flows since the start.
    pub flows_total: u64,
}

/// Outer packets of one session, IP headers included, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Written by us.
    pub sent: u64,
    /// Opened by us.
    pub received: u64,
}

impl Traffic {
    pub(crate) fn on_sent(&mut self, packet: &[u8]) {
        self.sent += packet.len() as u64;
    }

    pub(crate) fn on_received(&mut self, packet_len: usize) {
        self.received += packet_len as u64;
    }
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Never up yet.
    Connecting,
    /// Packets make the round trip.
    Up,
    /// The carrier does not answer; another is sought.
    Recovering,
    /// Ended: see [`super::ClientEvent::Ended`].
    Ended,
}

/// All of a client.
#[derive(Clone, Debug)]
pub struct ClientStatus {
    /// Where it is.
    pub state: ClientState,
    /// Its tunnel addresses.
    pub addresses: Vec<IpNetwork>,
    /// Those that may carry the session, the one in use first.
    pub carriers: Vec<CarrierStatus>,
    /// How often another carrier took over.
    pub migrations: u64,
    /// The same by reason.
    pub why: Migrations,
    /// RSTs, FINs and other things of the outside that all carriers saw and did not believe.
    pub outside: carrier::Stats,
    /// The session.
    pub session: SessionStatus,
    /// Flows, and the memory that they take beside the session.
    pub flows: flow::Stats,
    /// Packets not acted on.
    pub drops: ClientDrops,
}

/// One peer of a server.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// For people.
    pub name: String,
    /// Its key.
    pub public_key: PublicKey,
    /// Its tunnel addresses.
    pub addresses: Vec<IpAddr>,
    /// Its carriers, the one in use first.
    pub carriers: Vec<CarrierStatus>,
    /// How often packets to it began to leave on another carrier of its session.
    pub migrations: u64,
    /// How often its address changed under a carrier.
    pub moves: u64,
    /// What came on the 4-tuple of its carrier in use and was not believed.
    pub injected: Injected,
    /// Packets of it that opened far outside of the window: what they carry counts, their numbers do not.
    pub off_window: u64,
    /// Its session, if it has one.
    pub session: Option<SessionStatus>,
    /// Since a packet of it last opened.
    pub last_heard: Option<Duration>,
}

/// All of a server.
#[derive(Clone, Debug)]
pub struct ServerStatus {
    /// Every peer, connected or not.
    pub peers: Vec<PeerStatus>,
    /// What came on the 4-tuples of carriers in use and was not believed.
    pub injected: Injected,
    /// What strangers were answered, and what was dropped of them.
    pub listener: carrier::Stats,
    /// Connections towards clients, and the memory that they take beside the sessions.
    pub flows: flow::Stats,
    /// Packets not acted on.
    pub drops: ServerDrops,
}

/// Packets on the 4-tuple of a carrier in use that are not its client's, by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// With RST.
    pub resets: u64,
    /// With FIN.
    pub fins: u64,
    /// With SYN.
    pub syns: u64,
    /// Payloads that no key opens.
    pub payloads: u64,
}

impl Injected {
    pub(crate) fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Reset => self.resets += 1,
            Kind::Fin => self.fins += 1,
            Kind::Syn | Kind::SynAck => self.syns += 1,
            Kind::Data => self.payloads += 1,
            // Those of the client's fake TCP carry no proof either.
            Kind::Acknowledgement => {}
        }
    }
}

impl AddAssign for Injected {
    fn add_assign(&mut self, other: Self) {
        self.resets += other.resets;
        self.fins += other.fins;
        self.syns += other.syns;
        self.payloads += other.payloads;
    }
}

impl SessionStatus {
    /// Bytes of streams that it holds, of [`Self::buffer`].
    #[must_use]
    pub const fn buffered(&self) -> usize {
        let (kcp, mux) = (&self.kcp, &self.mux);
        kcp.send_buffered + kcp.receive_buffered + mux.send_buffered + mux.receive_buffered
    }

    pub(crate) fn of(engine: &Engine, traffic: Traffic, flows_open: usize, flows_total: u64) -> Self {
        Self {
            traffic,
            malformed: engine.malformed(),
            datagrams: engine.datagrams(),
            fragments: engine.fragments(),
            epoch: engine.epoch(),
            rtt: engine.srtt(),
            kcp: engine.kcp_stats(),
            mux: engine.mux.stats(),
            buffer: engine.buffer(),
            flows_open,
            flows_total,
        }
    }
}

impl CarrierStatus {
    pub(crate) fn of(
        link: &Link,
        rtt: Option<Duration>,
        (loss_in, loss_out): (f64, f64),
        now: Instant,
    ) -> Self {
        let connection = link.connection();
        Self {
            number: link.number(),
            mode: connection.mode(),
            local: connection.local(),
            remote: connection.remote(),
            age: now.saturating_duration_since(link.created()),
            keys_age: link.keys().age(now),
            rekeys: link.keys().renewed(),
            rekeying: link.is_rekeying(),
            rtt,
            loss_in,
            loss_out,
            path_mtu: link.path().size(),
            path_shrunk: link.path().shrunk(),
        }
    }
}
