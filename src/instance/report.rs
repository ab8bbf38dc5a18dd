//! The sans-IO status of a session in the words of `status --json`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::control::{Carrier, Kcp, KcpDrops, KcpPhase, Migrated, ModeKnown, Session};
use crate::flow;
use crate::io::{ReceiveStats, SendStats};
use crate::kcp;
use crate::session::{CarrierStatus, Migrations, ModeRecord, SessionStatus};

/// What went through a session.
pub(crate) fn session_report(session: &SessionStatus) -> Session {
    Session {
        rtt_ms: session.rtt.map(milliseconds),
        sent_bytes: session.traffic.sent,
        retransmitted_bytes: session.kcp.retransmitted_bytes,
        received_bytes: session.traffic.received,
        goodput_sent_bytes: session.mux.sent_bytes,
        goodput_received_bytes: session.mux.received_bytes,
        buffered_bytes: session.buffered() as u64,
        buffer_bytes: session.buffer as u64,
        kcp: Some(kcp_report(&session.kcp)),
    }
}

fn phase_report(phase: kcp::Phase) -> KcpPhase {
    match phase {
        kcp::Phase::Startup => KcpPhase::Startup,
        kcp::Phase::Drain => KcpPhase::Drain,
        kcp::Phase::Cruise => KcpPhase::Cruise,
        kcp::Phase::Up => KcpPhase::Up,
        kcp::Phase::Down => KcpPhase::Down,
        kcp::Phase::ProbeRtt => KcpPhase::ProbeRtt,
    }
}

/// What KCP measured and counted. Every field is named, so that none can be forgotten.
fn kcp_report(stats: &kcp::Stats) -> Kcp {
    let kcp::Stats {
        srtt,
        min_rtt,
        rto,
        bandwidth,
        pacing_rate,
        phase,
        window,
        in_flight,
        span,
        send_buffered,
        receive_buffered,
        peer_window,
        sent_bytes,
        received_bytes,
        payload_sent_bytes,
        retransmitted_bytes,
        copied_bytes,
        payload_received_bytes,
        sent,
        retransmitted,
        copied,
        spurious,
        lost,
        timeouts,
        dead,
        acks_sent,
        acks_received,
        received,
        duplicates,
        malformed,
        bad_una,
        bad_acks,
        outside_window,
        no_room,
        unassembled,
        acks_dropped,
    } = *stats;
    Kcp {
        srtt_ms: srtt.map(milliseconds),
        min_rtt_ms: min_rtt.map(milliseconds),
        rto_ms: milliseconds(rto),
        bandwidth_bytes_per_s: bandwidth,
        pacing_rate_bytes_per_s: pacing_rate,
        phase: phase.map(phase_report),
        window_bytes: window,
        in_flight_bytes: in_flight,
        span_segments: span,
        peer_window_segments: peer_window,
        send_buffered_bytes: send_buffered as u64,
        receive_buffered_bytes: receive_buffered as u64,
        sent_bytes,
        received_bytes,
        payload_sent_bytes,
        retransmitted_bytes,
        copied_bytes,
        payload_received_bytes,
        sent_segments: sent,
        retransmitted_segments: retransmitted,
        copied_segments: copied,
        spurious_segments: spurious,
        lost_segments: lost,
        received_segments: received,
        duplicate_segments: duplicates,
        timeouts,
        dead,
        acks_sent,
        acks_received,
        drops: KcpDrops {
            malformed,
            bad_una,
            bad_acks,
            outside_window,
            no_room,
            unassembled,
            acks: acks_dropped,
        },
    }
}

/// One carrier.
pub(crate) fn carrier_report(carrier: &CarrierStatus) -> Carrier {
    Carrier {
        mode: carrier.mode.to_string(),
        local: carrier.local.to_string(),
        remote: carrier.remote.to_string(),
        age_s: carrier.age.as_secs_f64(),
        keys_age_s: carrier.keys_age.as_secs_f64(),
        rekeys: carrier.rekeys,
        rtt_ms: carrier.rtt.map(milliseconds),
        loss_out: carrier.loss_out,
        loss_in: carrier.loss_in,
        path_mtu: carrier.path_mtu,
        send_path: "raw".to_owned(),
    }
}

/// What is known of a mode here.
pub(crate) fn mode_report(record: &ModeRecord) -> ModeKnown {
    let ModeRecord { mode, died_young, is_demoted } = *record;
    ModeKnown { mode: mode.to_string(), died_young: died_young as u64, demoted: is_demoted }
}

/// Why other carriers took over.
pub(crate) fn migration_report(why: &Migrations) -> Migrated {
    let Migrations { silent, lossy, moved, closed, last } = *why;
    Migrated { silent, lossy, moved, closed, last: last.map(|why| why.name().to_owned()) }
}

/// What inner TCP dropped, likewise.
pub(crate) fn flow_drops(flows: &flow::Stats) -> [(&'static str, u64); 6] {
    [
        ("flow_malformed", flows.dropped_malformed),
        ("flow_beyond_window", flows.dropped_beyond_window),
        ("flow_no_memory", flows.dropped_for_memory),
        ("flow_syn", flows.dropped_syns),
        ("flow_too_many", flows.limited),
        ("flow_reply", flows.dropped_replies),
    ]
}

/// What a session dropped, for the `drops` of its tunnel.
pub(crate) fn session_drops(session: &SessionStatus) -> [(&'static str, u64); 19] {
    [
        ("open_too_many", session.mux.refused_opens - session.mux.hurried_opens),
        ("open_too_fast", session.mux.hurried_opens),
        ("open_unanswered", session.mux.unanswered_opens),
        ("ping_unanswered", session.mux.unanswered_pings),
        ("stream_data_after_fin", session.mux.data_after_fin),
        ("stream_credit_overrun", session.mux.credit_overruns),
        ("stream_credit_shrunk", session.mux.credit_shrinks),
        ("stream_over_budget", session.mux.over_budget),
        ("kcp_malformed", session.malformed),
        ("kcp_bad_una", session.kcp.bad_una),
        ("kcp_bad_acks", session.kcp.bad_acks),
        ("kcp_outside_window", session.kcp.outside_window),
        ("kcp_no_room", session.kcp.no_room),
        ("kcp_unassembled", session.kcp.unassembled),
        ("kcp_acks", session.kcp.acks_dropped),
        ("datagram_full", session.datagrams.dropped_full),
        ("datagram_late", session.datagrams.dropped_late),
        ("fragment_incomplete", session.fragments.incomplete),
        ("fragment_refused", session.fragments.refused),
    ]
}

/// What the kernel did not take or give, likewise.
pub(crate) fn wire_drops((send, receive): (SendStats, ReceiveStats)) -> [(&'static str, u64); 5] {
    [
        ("send_denied", send.denied),
        ("send_unreachable", send.unreachable + send.bad_source),
        ("send_lost", send.no_buffers + send.too_big + send.malformed + send.other),
        ("receive_full", receive.kernel_drops),
        ("receive_malformed", receive.truncated + receive.malformed + receive.undescribed),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datagram;
    use crate::mux;
    use crate::session::{FragmentStats, Traffic};

    #[test]
    fn reports_each_number_of_kcp_under_its_name() {
        let report = serde_json::to_value(session_report(&session())).unwrap();
        assert_eq!((&report["buffered_bytes"], &report["buffer_bytes"]), (&313.into(), &1000.into()));
        let kcp = &report["kcp"];
        for (key, expected) in [
            ("srtt_ms", 101.5),
            ("min_rtt_ms", 100.25),
            ("rto_ms", 150.0),
            ("bandwidth_bytes_per_s", 1.0),
            ("pacing_rate_bytes_per_s", 2.0),
            ("window_bytes", 3.0),
            ("in_flight_bytes", 4.0),
            ("span_segments", 5.0),
            ("send_buffered_bytes", 6.0),
            ("receive_buffered_bytes", 7.0),
            ("peer_window_segments", 8.0),
            ("sent_bytes", 9.0),
            ("received_bytes", 10.0),
            ("payload_sent_bytes", 11.0),
            ("retransmitted_bytes", 12.0),
            ("payload_received_bytes", 13.0),
            ("sent_segments", 14.0),
            ("retransmitted_segments", 15.0),
            ("copied_segments", 16.0),
            ("spurious_segments", 17.0),
            ("lost_segments", 18.0),
            ("timeouts", 19.0),
            ("acks_sent", 20.0),
            ("acks_received", 21.0),
            ("received_segments", 22.0),
            ("duplicate_segments", 23.0),
        ] {
            assert_eq!(kcp[key].as_f64(), Some(expected), "{key}");
        }
        assert_eq!(kcp["dead"], true);
        assert_eq!(kcp["phase"], "up");
        assert_eq!(kcp["copied_bytes"], 32);
        for (reason, expected) in [
            ("malformed", 24),
            ("bad_una", 25),
            ("bad_acks", 26),
            ("outside_window", 27),
            ("no_room", 28),
            ("unassembled", 29),
            ("acks", 30),
        ] {
            assert_eq!(kcp["drops"][reason], expected, "{reason}");
        }
    }

    #[test]
    fn counts_what_kcp_and_mux_dropped_among_the_drops_of_the_tunnel() {
        let drops = sum_drops([session(), session()].iter().flat_map(session_drops));
        for (reason, expected) in [
            ("kcp_malformed", 2 * 31),
            ("kcp_bad_una", 2 * 25),
            ("kcp_bad_acks", 2 * 26),
            ("kcp_outside_window", 2 * 27),
            ("kcp_no_room", 2 * 28),
            ("kcp_unassembled", 2 * 29),
            ("kcp_acks", 2 * 30),
            ("open_too_many", 2 * 40),
            ("open_too_fast", 2 * 3),
            ("open_unanswered", 2 * 41),
            ("ping_unanswered", 2 * 42),
            ("stream_over_budget", 2 * 45),
            ("stream_data_after_fin", 2 * 46),
            ("stream_credit_overrun", 2 * 47),
            ("stream_credit_shrunk", 2 * 48),
        ] {
            assert_eq!(drops.get(reason), Some(&expected), "{reason}");
        }
        assert_eq!(drops.len(), 15, "what did not occur is left out: {drops:?}");
    }

    #[test]
    fn says_what_congestion_control_is_doing() {
        for (phase, word) in [
            (kcp::Phase::Startup, "startup"),
            (kcp::Phase::Drain, "drain"),
            (kcp::Phase::Cruise, "cruise"),
            (kcp::Phase::Up, "up"),
            (kcp::Phase::Down, "down"),
            (kcp::Phase::ProbeRtt, "probe_rtt"),
        ] {
            let report = phase_report(phase);
            assert_eq!(serde_json::to_value(report).unwrap(), word);
            assert_eq!(serde_json::from_value::<KcpPhase>(word.into()).unwrap(), report);
        }
        let later: KcpPhase = serde_json::from_value("of_a_later_version".into()).unwrap();
        assert_eq!(later, KcpPhase::Other);
    }

    fn session() -> SessionStatus {
        let kcp = kcp::Stats {
            srtt: Some(Duration::from_micros(101_500)),
            min_rtt: Some(Duration::from_micros(100_250)),
            rto: Duration::from_millis(150),
            bandwidth: Some(1),
            pacing_rate: Some(2),
            phase: Some(kcp::Phase::Up),
            window: 3,
            in_flight: 4,
            span: 5,
            send_buffered: 6,
            receive_buffered: 7,
            peer_window: 8,
            sent_bytes: 9,
            received_bytes: 10,
            payload_sent_bytes: 11,
            retransmitted_bytes: 12,
            copied_bytes: 32,
            payload_received_bytes: 13,
            sent: 14,
            retransmitted: 15,
            copied: 16,
            spurious: 17,
            lost: 18,
            timeouts: 19,
            dead: true,
            acks_sent: 20,
            acks_received: 21,
            received: 22,
            duplicates: 23,
            malformed: 24,
            bad_una: 25,
            bad_acks: 26,
            outside_window: 27,
            no_room: 28,
            unassembled: 29,
            acks_dropped: 30,
        };
        SessionStatus {
            epoch: 1,
            rtt: kcp.srtt,
            traffic: Traffic::default(),
            malformed: 31,
            datagrams: datagram::Stats::default(),
            fragments: FragmentStats::default(),
            kcp,
            mux: mux::Stats {
                send_buffered: 100,
                receive_buffered: 200,
                refused_opens: 43,
                hurried_opens: 3,
                unanswered_opens: 41,
                unanswered_pings: 42,
                over_budget: 45,
                data_after_fin: 46,
                credit_overruns: 47,
                credit_shrinks: 48,
                ..mux::Stats::default()
            },
            buffer: 1000,
            flows_open: 0,
            flows_total: 0,
        }
    }
}
