//! The sans-IO status of a session in the words of `status --json`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::control::{Carrier, Session};
use crate::io::SendStats;
use crate::session::{CarrierStatus, SessionStatus};

/// What went through a session.
pub(crate) fn session_report(session: &SessionStatus) -> Session {
    Session {
        rtt_ms: session.rtt.map(milliseconds),
        sent_bytes: session.traffic.sent,
        retransmitted_bytes: session.kcp.retransmitted_bytes,
        received_bytes: session.traffic.received,
        goodput_sent_bytes: session.mux.sent_bytes,
        goodput_received_bytes: session.mux.received_bytes,
    }
}

/// One carrier; what is lost of what we send is known to KCP only, for the session as a whole.
pub(crate) fn carrier_report(carrier: &CarrierStatus, session: &SessionStatus) -> Carrier {
    Carrier {
        mode: carrier.mode.to_string(),
        local: carrier.local.to_string(),
        remote: carrier.remote.to_string(),
        age_s: carrier.age.as_secs_f64(),
        rtt_ms: carrier.rtt.map(milliseconds),
        loss_out: share(session.kcp.lost, session.kcp.sent + session.kcp.retransmitted),
        loss_in: carrier.loss_in,
        send_path: "raw".to_owned(),
    }
}

/// What a session dropped, for the `drops` of its tunnel.
pub(crate) fn session_drops(session: &SessionStatus) -> [(&'static str, u64); 3] {
    [
        ("kcp_malformed", session.malformed),
        ("datagram_full", session.datagrams.dropped_full),
        ("datagram_late", session.datagrams.dropped_late),
    ]
}

/// What the kernel did not take or give, likewise.
pub(crate) fn wire_drops(send: &SendStats) -> [(&'static str, u64); 3] {
    [
        ("send_denied", send.denied),
        ("send_unreachable", send.unreachable + send.bad_source),
        ("send_lost", send.no_buffers + send.too_big + send.malformed + send.other),
    ]
}

/// Adds up what was dropped, by reason; reasons that never occurred are left out.
pub(crate) fn sum_drops(counts: impl IntoIterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
    let mut drops = BTreeMap::new();
    for (reason, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        *drops.entry(reason.to_owned()).or_default() += count;
    }
    drops
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn share(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share for display")]
    let share = part as f64 / whole.max(1) as f64;
    share
}
