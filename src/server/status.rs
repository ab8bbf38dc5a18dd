//! A server's answer to `vpn status`.

use std::time::Duration;

use super::runner::Runner;
use crate::config::ServerConfig;
use crate::control::{Flows, Injected, Limits, ListenerStatus, Migrated, Peer, Role, Session, State, Tunnel};
use crate::instance::{
    Instance, carrier_report, flow_drops, session_drops, session_report, sum_drops, wire_drops,
};
use crate::io::{self, ReceiveStats};
use crate::session::{self, PeerStatus, ServerDrops};

pub(super) fn tunnel(runner: &mut Runner, config: &ServerConfig, instance: &Instance) -> Tunnel {
    let status = runner.server.status(io::now());
    let [syns, others] = runner.received();
    let sessions =
        || status.peers.iter().filter_map(|peer| peer.session.as_ref().map(|session| (peer, session)));
    let carriers: Vec<_> =
        sessions().flat_map(|(peer, _)| peer.carriers.iter().map(carrier_report)).collect();
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    Tunnel {
        name: instance.name().to_string(),
        role: Role::Server,
        state: State::Up,
        reason: None,
        interface: runner.tun.name().to_owned(),
        mark: None,
        public_key: config.private_key.public_key().to_string(),
        server: listen.join(", "),
        addresses: config.tunnel.addresses.clone(),
        age_s: instance.age().as_secs_f64(),
        carriers,
        network: None,
        modes: Vec::new(),
        migrated: Migrated::default(),
        migrations: status.peers.iter().map(|peer| peer.migrations).sum(),
        session: sum(sessions().map(|(_, session)| session_report(session))),
        flows: Flows::counted(
            (runner.targets.open() + status.flows.flows) as u64,
            sessions().map(|(_, session)| session.flows_total).sum(),
        ),
        limits: Limits {
            session_buffer: config.limits.session_buffer.bytes() as u64,
            process_buffer: config.limits.process_buffer.bytes() as u64,
            buffered: sessions().map(|(_, session)| session.buffered() as u64).sum::<u64>()
                + status.flows.memory as u64,
        },
        injected: injected(&status.injected, status.peers.iter().map(|peer| peer.off_window).sum()),
        listener: Some(ListenerStatus {
            syn_acks_sent: status.listener.syn_acks,
            syns_dropped: syns.kernel_drops,
        }),
        drops: sum_drops(
            drops(&status.drops)
                .into_iter()
                .chain(flow_drops(&status.flows))
                .chain(sessions().flat_map(|(_, session)| session_drops(session)))
                .chain([("outer", runner.unparsed()), ("syn_full", syns.kernel_drops)])
                .chain(wire_drops((
                    runner.sent(),
                    ReceiveStats { kernel_drops: others.kernel_drops, ..syns + others },
                )))
                .chain([("no_socket", runner.targets.refused())]),
        ),
        peers: status.peers.iter().map(peer).collect(),
    }
}

fn peer(peer: &PeerStatus) -> Peer {
    let session = peer.session.as_ref();
    Peer {
        name: peer.name.clone(),
        public_key: peer.public_key.to_string(),
        addresses: peer.addresses.clone(),
        state: peer.last_heard.map(|silence| if silence < MISSED { State::Up } else { State::Recovering }),
        remote: peer.carriers.first().map(|carrier| carrier.remote.to_string()),
        carriers: session.iter().flat_map(|_| peer.carriers.iter().map(carrier_report)).collect(),
        migrations: peer.migrations,
        handshake_age_s: peer.carriers.first().map(|carrier| carrier.keys_age.as_secs_f64()),
        moves: peer.moves,
        injected: injected(&peer.injected, peer.off_window),
        session: session.map_or_else(|| sum([]), session_report),
        flows: Flows::counted(
            session.map_or(0, |session| session.flows_open as u64),
            session.map_or(0, |session| session.flows_total),
        ),
    }
}

fn injected(injected: &session::Injected, off_window: u64) -> Injected {
    let session::Injected { resets, fins, syns, payloads } = *injected;
    Injected { rst: resets, fin: fins, syn: syns, data: payloads, off_window }
}

fn sum(sessions: impl IntoIterator<Item = Session>) -> Session {
    let none = Session {
        rtt_ms: None,
        sent_bytes: 0,
        retransmitted_bytes: 0,
        received_bytes: 0,
        goodput_sent_bytes: 0,
        goodput_received_bytes: 0,
        buffered_bytes: 0,
        buffer_bytes: 0,
        kcp: None,
    };
    sessions.into_iter().fold(none, |sum, session| Session {
        rtt_ms: None,
        sent_bytes: sum.sent_bytes + session.sent_bytes,
        retransmitted_bytes: sum.retransmitted_bytes + session.retransmitted_bytes,
        received_bytes: sum.received_bytes + session.received_bytes,
        goodput_sent_bytes: sum.goodput_sent_bytes + session.goodput_sent_bytes,
        goodput_received_bytes: sum.goodput_received_bytes + session.goodput_received_bytes,
        buffered_bytes: sum.buffered_bytes + session.buffered_bytes,
        buffer_bytes: sum.buffer_bytes + session.buffer_bytes,
        kcp: None,
    })
}

fn drops(drops: &ServerDrops) -> [(&'static str, u64); 17] {
    [
        ("outer", drops.outer),
        ("stranger", drops.stranger),
        ("budget", drops.budget),
        ("handshake", drops.handshake),
        ("replayed", drops.replayed),
        ("sealed", drops.sealed),
        ("frame", drops.frame),
        ("protocol", drops.protocol),
        ("spoofed", drops.spoofed),
        ("denied", drops.denied),
        ("unrouted", drops.unrouted),
        ("unreported", drops.unreported),
        ("flow_share", drops.flow_share),
        ("redirect", drops.redirect),
        ("inner", drops.inner),
        ("tun_full", drops.tun_full),
        ("outbox_full", drops.outbox_full),
    ]
}

/// Two of an idle client's pings are missing.
const MISSED: Duration = Duration::from_secs(45);
