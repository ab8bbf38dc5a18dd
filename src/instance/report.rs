//! The sans-IO status of a session in the words of `status --json`.

use std::time::Duration;

use crate::control::{Carrier, Session};
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

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn share(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share for display")]
    let share = part as f64 / whole.max(1) as f64;
    share
}
