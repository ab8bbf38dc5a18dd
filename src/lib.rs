//! A layer-3 VPN for networks that throttle, stall or block UDP.
//!
//! ```text
//!  app ── kernel TCP ──> TUN ──> flow ──> mux ──> kcp ──> crypto ──> carrier ──> io ──> network
//!  app ── UDP, ICMP ───> TUN ──> datagram ───────────────> crypto ──> carrier ──> io ──> network
//! ```
//!
//! | layer | module | sans-IO | knows |
//! |---|---|---|---|
//! | raw packets in and out | [`io`] | no | bytes |
//! | fake TCP | [`carrier`] | yes | TCP headers, the handshake, cookies |
//! | sealing | [`crypto`] | yes | Noise, AEAD, counters, the replay window |
//! | ARQ | [`kcp`] | yes | segments, RTO, fast resend, windows, congestion, pacing |
//! | streams | [`mux`] | yes | frames, streams, credit, scheduling |
//! | inner TCP | [`flow`] | yes | smoltcp |
//! | inner datagrams | [`datagram`], [`packet`] | yes | IP headers, ICMP errors |
//! | who may go where | [`egress`] | yes | addresses and ports |
//! | composition | [`session`] | yes | the order of the layers; nobody else does |
//! | host | [`netcfg`] | no | addresses, routes, rules, nftables, the undo journal |
//! | programs | [`client`], [`server`], [`control`], [`cli`], [`config`] | no | loops, sockets, files |
//!
//! Everything sans-IO takes bytes and `now`, and returns bytes and events. Siblings do not import each other;
//! `tests/layering.rs` holds them to it. All may use `rate`, the token bucket. The tour of the data path starts in [`session`].

pub mod carrier;
pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod crypto;
pub mod datagram;
pub mod egress;
pub mod failure;
pub mod flow;
mod instance;
pub mod io;
pub mod kcp;
pub mod mux;
pub mod netcfg;
pub mod packet;
mod rate;
pub mod server;
pub mod session;
