//! Everything that reads bytes of the network or of a file, one function each: `run` must not panic, whatever it is
//! given. Each says in its head what its bytes mean and what it holds the code to, beyond not crashing.
//!
//! The same functions run here, as ordinary tests over a corpus and its mutations, and under libFuzzer (`fuzz/`).

mod carrier;
mod checksum;
mod client;
mod config;
mod control;
mod datagram;
mod egress;
mod flow;
mod fragment;
mod gso;
mod handshake;
mod input;
mod journal;
mod kcp;
mod mux;
mod packet;
mod payload;
mod probe;
mod sealed;
mod server;
mod session;
mod text;
mod wire;

/// One target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Also the name of its program and of its corpus.
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
    /// Inputs made by the real encoders.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident: $module:ident::$run:ident, $seeds:ident;)+) => {
        pub(crate) const TARGETS: &[Target] = &[$(
            Target { name: stringify!($name), run: $module::$run, seeds: $module::$seeds },
        )+];
    };
}

targets! {
    carrier_packet: carrier::packet, packet_seeds;
    carrier_connection: carrier::connection, connection_seeds;
    carrier_listener: carrier::listener, listener_seeds;
    gso: gso::run, seeds;
    ip_packet: packet::run, seeds;
    sealed_packet: sealed::run, seeds;
    handshake: handshake::run, seeds;
    payload: payload::run, seeds;
    kcp_hostile: kcp::hostile, hostile_seeds;
    kcp_pair: kcp::pair, pair_seeds;
    mux: mux::run, seeds;
    flow: flow::run, seeds;
    datagram_queue: datagram::run, seeds;
    fragment: fragment::run, seeds;
    server_strangers: server::strangers, strangers_seeds;
    server_peer: server::peer, peer_seeds;
    client: client::run, seeds;
    probe: probe::run, seeds;
    egress: egress::run, seeds;
    config_client: config::client, client_seeds;
    config_server: config::server, server_seeds;
    text: text::run, seeds;
    journal: journal::run, seeds;
    control: control::run, seeds;
}

/// The target of this name.
pub(crate) fn target(name: &str) -> Target {
    *TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target is named {name}"))
}

/// Where every virtual clock starts; only differences matter.
#[expect(clippy::disallowed_methods, reason = "a virtual clock must start somewhere")]
pub(crate) fn start() -> std::time::Instant {
    std::time::Instant::now()
}
