//! A layer-3 VPN for networks that throttle UDP.
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
pub mod io;
pub mod kcp;
pub mod mux;
pub mod netcfg;
pub mod packet;
pub mod server;
pub mod session;
