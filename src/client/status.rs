//! A client's answer to `vpn status`.

use crate::config::ClientConfig;
use crate::control::{Flows, Injected, Limits, Role, State, Tunnel};
use crate::instance::{
    Instance, carrier_report, flow_drops, migration_report, mode_report, session_drops, session_report,
    sum_drops, wire_drops,
};
use crate::io::{self, ReceiveStats, SendStats};
use crate::session::{Client, ClientDrops, ClientState};

/// `wire` tells of the raw sockets, once there are any, and `mark` is on what they send; `no_socket` counts connections to this
/// host for which there was no socket.
pub(super) fn tunnel(
    client: &Client,
    wire: (SendStats, ReceiveStats),
    no_socket: u64,
    interface: &str,
    mark: Option<u32>,
    config: &ClientConfig,
    instance: &Instance,
) -> Tunnel {
    let status = client.status(io::now());
    let state = match status.state {
        ClientState::Connecting => State::Connecting,
        ClientState::Up => State::Up,
        ClientState::Recovering => State::Recovering,
        ClientState::Ended => State::Failed,
    };
    let (state, reason) = match instance.ending() {
        Some((state, reason)) => (*state, Some(reason.clone())),
        None => (state, None),
    };
    Tunnel {
        name: instance.name().to_string(),
        role: Role::Client,
        state,
        reason,
        interface: interface.to_owned(),
        mark,
        public_key: config.private_key.public_key().to_string(),
        server: config.server.to_string(),
        addresses: status.addresses,
        age_s: instance.age().as_secs_f64(),
        carriers: status.carriers.iter().map(carrier_report).collect(),
        network: None,
        modes: client.mode_ranking().iter().map(mode_report).collect(),
        migrations: status.migrations,
        migrated: migration_report(&status.why),
        session: session_report(&status.session),
        flows: Flows::counted(status.session.flows_open as u64, status.session.flows_total),
        limits: Limits {
            session_buffer: config.limits.session_buffer.bytes() as u64,
            process_buffer: config.limits.process_buffer.bytes() as u64,
            buffered: (status.session.buffered() + status.flows.memory) as u64,
        },
        injected: Injected {
            rst: status.outside.injected_resets,
            fin: status.outside.injected_fins,
            syn: status.outside.unexpected_syn,
            data: status.outside.injected_payloads,
            off_window: status.outside.off_window,
        },
        listener: None,
        drops: sum_drops(
            drops(&status.drops)
                .into_iter()
                .chain(flow_drops(&status.flows))
                .chain(session_drops(&status.session))
                .chain(wire_drops(wire))
                .chain([("no_socket", no_socket)]),
        ),
        peers: Vec::new(),
    }
}

fn drops(drops: &ClientDrops) -> [(&'static str, u64); 9] {
    [
        ("outer", drops.outer),
        ("stranger", drops.stranger),
        ("late", drops.late),
        ("index", drops.index),
        ("sealed", drops.sealed),
        ("frame", drops.frame),
        ("inner", drops.inner),
        ("tun_full", drops.tun_full),
        ("denied", drops.denied),
    ]
}
