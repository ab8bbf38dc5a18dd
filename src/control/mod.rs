//! How a running tunnel is asked and told: a Unix socket, and what lies beside it.
//!
//! Each instance keeps its run-time files in one folder ([`Paths`]). There its process listens
//! ([`Listener`]) and the commands ask ([`request`]): one connection, one request in a line of
//! JSON, one response in a line. What is answered to a status request is [`Tunnel`].

mod client;
mod flow_table;
mod flows;
mod listener;
mod message;
mod paths;
mod render;
mod status;
mod units;

pub use client::{ClientError, request};
pub use flows::{Flow, FlowState, Flows, LISTED_MAX};
pub use listener::{Listener, Responder};
pub use message::{Request, Response};
pub use paths::{InstanceName, NameError, Paths, control_sockets};
pub use render::render;
pub use status::{
    Carrier, Injected, Kcp, KcpDrops, KcpPhase, Limits, Listener as ListenerStatus, Migrated, ModeKnown,
    Peer, Role, Session, State, Status, Tunnel,
};
