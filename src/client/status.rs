//! A client's answer to `vpn status`.

use std::collections::BTreeMap;

use crate::config::ClientConfig;
use crate::control::{Flows, Injected, Limits, Role, State, Tunnel};
use crate::instance::{Instance, carrier_report, session_report};
use crate::io;
use crate::session::{Client, ClientDrops, ClientState};

pub(super) fn tunnel(client: &Client, interface: &str, config: &ClientConfig, instance: &Instance) -> Tunnel {
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
    let outside = status.carriers.iter().map(|carrier| carrier.outside);
    let (rst, fin) =
        outside.fold((0, 0), |(rst, fin), seen| (rst + seen.injected_resets, fin + seen.injected_fins));
    Tunnel {
        name: instance.name().to_string(),
        role: Role::Client,
        state,
        reason,
        interface: interface.to_owned(),
        public_key: config.private_key.public_key().to_string(),
        server: config.server.first().to_string(),
        addresses: status.addresses,
        age_s: instance.age().as_secs_f64(),
        carriers: status.carriers.iter().map(|carrier| carrier_report(carrier, &status.session)).collect(),
        migrations: status.migrations,
        session: session_report(&status.session),
        flows: Flows { open: status.session.flows_open as u64, total: status.session.flows_total },
        limits: Limits {
            session_buffer: config.limits.session_buffer.bytes() as u64,
            process_buffer: config.limits.process_buffer.bytes() as u64,
            buffered: (status.session.mux.send_buffered + status.session.mux.receive_buffered) as u64,
        },
        injected: Injected { rst, fin },
        drops: drops(&status.drops),
        peers: Vec::new(),
    }
}

fn drops(drops: &ClientDrops) -> BTreeMap<String, u64> {
    [
        ("outer", drops.outer),
        ("stranger", drops.stranger),
        ("late", drops.late),
        ("index", drops.index),
        ("sealed", drops.sealed),
        ("frame", drops.frame),
        ("inner", drops.inner),
        ("tun_full", drops.tun_full),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(reason, count)| (reason.to_owned(), count))
    .collect()
}
