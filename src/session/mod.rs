//! The composition of the layers, sans-IO: nobody else knows their order.
//!
//! [`Client`] and [`Server`] are whole tunnels without a socket: bytes and `now` go in, bytes and events come out.
//! Both are driven the same way: feed input (`handle_*`, commands) → drain `poll_event`, `poll_tun`, `poll_transmit`
//! → read `poll_timeout` → wait.
//!
//! ```text
//!  client, server        one end: who is connected, on which carriers
//!    ├ carriers          client: which carriers there are, which is used, and how the old ones leave
//!    ├ servers, dialing, dial   client: where to, when and how a carrier is opened
//!    ├ liveness, loss    client: noticing that it died, or is about to
//!    ├ peer, allotment, budget   server: sessions, pending and confirmed carriers; what they may buffer; what strangers may cost
//!    ├ probe, probed, probe_link   what passes, asked and answered beside all sessions
//!    ├ splice            both: inner TCP flow ⟷ MUX stream, for connections of programs on this side
//!    ├ streams, inbound  both: MUX stream ⟷ socket of the shell, for connections of programs on the other; client: which may
//!    ├ engine            KCP + MUX + datagrams: what survives every carrier
//!    ├ fragment          frames that fit no packet
//!    ├ path_mtu          how large a packet may be, per carrier
//!    ├ modes             client: which way of looking like TCP comes first
//!    ├ outbox            both: packets that wait for the shell
//!    ├ status, flow_list, load  what both know about themselves and each flow, and what they hold
//!    ├ link, rekey       one carrier: fake TCP + keys, which are renewed
//!    └ frame, noise      what a sealed packet says, and how long it is
//! ```

mod allotment;
mod budget;
mod carriers;
mod client;
mod dial;
mod dialing;
mod engine;
mod flow_list;
mod fragment;
mod frame;
mod inbound;
mod link;
mod liveness;
mod load;
mod loss;
mod modes;
mod noise;
mod outbox;
mod path_mtu;
mod peer;
mod probe;
mod probe_link;
mod probed;
mod rekey;
mod server;
mod servers;
mod splice;
mod status;
mod streams;

pub use client::{Client, ClientDrops, ClientEvent, ClientSettings, Ending};
pub use dial::Reach;
pub use flow_list::{FlowList, FlowState, FlowStatus, FlowTraffic};
pub use fragment::{
    FragmentStats, HELD_MAX, PARTIALS_MAX, PIECE_OVERHEAD, Piece, Reassembler, Splitter, WAITS_AT_MOST,
};
pub use frame::CloseCode;
pub use load::{ClientLoad, ServerLoad, SessionLoad};
pub use modes::{LIVES, Memory, ModeRecord};
pub use peer::{PeerMemory, PeerSettings};
pub use probe::{Probe, ProbePort, ProbeReport, ProbeSettings, REMOTES_MAX};
pub use server::{Server, ServerDrops, ServerSettings};
pub use servers::ServerAddress;
pub use splice::Connect;
pub use status::{
    CarrierStatus, ClientState, ClientStatus, Injected, Migrations, PeerStatus, ServerStatus, SessionStatus,
    Traffic, Why,
};
pub use streams::{Abandoned, StreamEvent, StreamKey, Streams};
