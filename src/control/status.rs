//! What a running tunnel says of itself: the shape of `status --json`.
//!
//! Keys are only ever added. Times are in seconds or milliseconds as the key says, losses are
//! fractions of 1, and `null` stands for what is not measured yet, or for what a sum does not have.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::Flows;

/// All tunnels asked about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The tunnels, by name.
    pub tunnels: Vec<Tunnel>,
}

/// One tunnel: a client's, or a server's end of all of its clients'.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The name of the instance.
    pub name: String,
    /// Which end it is.
    pub role: Role,
    /// How it is.
    pub state: State,
    /// Why it is so, where that needs a sentence.
    pub reason: Option<String>,
    /// The device.
    pub interface: String,
    /// The mark by which a client's own packets pass the tunnel; `None` of a server.
    pub mark: Option<u32>,
    /// Its public key.
    pub public_key: String,
    /// Where the client's server is; of a server where it listens, separated by commas.
    pub server: String,
    /// Its addresses in the tunnel.
    pub addresses: Vec<IpNetwork>,
    /// How long the process runs, in seconds.
    pub age_s: f64,
    /// The carriers in use; of a server those of all peers.
    pub carriers: Vec<Carrier>,
    /// The network that a client's carriers leave by, as what it remembers of modes is filed.
    #[serde(default)]
    pub network: Option<String>,
    /// The modes in the order in which a client's next carriers would try them.
    #[serde(default)]
    pub modes: Vec<ModeKnown>,
    /// How often another carrier took over; of a server the sum of all peers.
    pub migrations: u64,
    /// Why; of a client only.
    #[serde(default)]
    pub migrated: Migrated,
    /// The session; of a server the sum of all peers.
    pub session: Session,
    /// Inner TCP connections.
    pub flows: Flows,
    /// What is bounded, and how full it is.
    pub limits: Limits,
    /// Packets that others sent in the name of the other end, and that were not believed.
    pub injected: Injected,
    /// Of a server only.
    #[serde(default)]
    pub listener: Option<Listener>,
    /// What was dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// The clients of a server.
    pub peers: Vec<Peer>,
}

/// Which end a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Began the tunnel.
    Client,
    /// Answers clients.
    Server,
}

/// How a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not up yet.
    Connecting,
    /// Carries packets.
    Up,
    /// Was up and looks for a way again.
    Recovering,
    /// Another session of the same key took its place.
    Replaced,
    /// Given up.
    Failed,
}

/// One fake TCP connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Carrier {
    /// How it looks, as the configuration writes it.
    pub mode: String,
    /// Our address and port.
    pub local: String,
    /// The other end's.
    pub remote: String,
    /// Since its first handshake.
    pub age_s: f64,
    /// Since that of the keys in use.
    #[serde(default)]
    pub keys_age_s: f64,
    /// How often its keys were renewed.
    #[serde(default)]
    pub rekeys: u64,
    /// Its round trip.
    pub rtt_ms: Option<f64>,
    /// What is lost of what we send.
    pub loss_out: f64,
    /// What is lost of what is sent to us.
    pub loss_in: f64,
    /// The largest packet that is known to pass to the other end, IP header included, in bytes.
    #[serde(default)]
    pub path_mtu: u16,
    /// How packets are sent.
    pub send_path: String,
}

/// What a client knows of a mode in the network it is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeKnown {
    /// As the configuration writes it.
    pub mode: String,
    /// How many of its carriers died young, one after the other.
    pub died_young: u64,
    /// Whether the others are tried first because of that.
    pub demoted: bool,
}

/// For what reasons a client opened the carriers that took over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Migrated {
    /// The one before did not answer.
    pub silent: u64,
    /// It lost far more than the session was used to.
    pub lossy: u64,
    /// The host's packets to the server have another source address.
    pub moved: u64,
    /// The server closed it.
    pub closed: u64,
    /// The reason of the last.
    pub last: Option<String>,
}

/// What went through a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The round trip that KCP measures.
    pub rtt_ms: Option<f64>,
    /// All bytes sent on the wire.
    pub sent_bytes: u64,
    /// Of them, those sent again.
    pub retransmitted_bytes: u64,
    /// All bytes received from the wire.
    pub received_bytes: u64,
    /// Bytes of apps sent.
    pub goodput_sent_bytes: u64,
    /// Bytes of apps received.
    pub goodput_received_bytes: u64,
    /// Bytes that it holds now.
    #[serde(default)]
    pub buffered_bytes: u64,
    /// Bytes that it may hold.
    #[serde(default)]
    pub buffer_bytes: u64,
    /// What KCP measured and counted; `None` in the sum of a server's peers.
    pub kcp: Option<Kcp>,
}

/// What congestion control `bbr` is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KcpPhase {
    /// Looking for the bandwidth of the path.
    Startup,
    /// Emptying the queue that this made.
    Drain,
    /// Sending what the path takes.
    Cruise,
    /// Trying whether it takes more.
    Up,
    /// Emptying the queue that this made.
    Down,
    /// Looking for the round-trip time without a queue.
    ProbeRtt,
    /// A phase of another version of the program.
    #[serde(other)]
    Other,
}

/// What one end's KCP measured and counted. It begins anew when the other end has lost its state: the counters then fall to 0.
///
/// A key that another version of the program does not know is read as 0: an upgrade does not part a command from a tunnel
/// that is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kcp {
    /// Smoothed round trip.
    pub srtt_ms: Option<f64>,
    /// The shortest round trip lately; congestion control `bbr` only.
    pub min_rtt_ms: Option<f64>,
    /// The retransmission timeout without back-off.
    pub rto_ms: f64,
    /// What the path is believed to carry, of wire bytes; `bbr` only.
    pub bandwidth_bytes_per_s: Option<u64>,
    /// How fast data leaves, in wire bytes; `None` if it is not paced.
    pub pacing_rate_bytes_per_s: Option<u64>,
    /// What congestion control is doing; `bbr` only.
    pub phase: Option<KcpPhase>,
    /// Wire bytes that may be in flight.
    pub window_bytes: u64,
    /// Wire bytes sent, not acknowledged and not taken for lost.
    pub in_flight_bytes: u64,
    /// From the first unacknowledged to the last sent.
    pub span_segments: u32,
    /// The receive window of the other end.
    pub peer_window_segments: u16,
    /// Payload kept until it is acknowledged.
    pub send_buffered_bytes: u64,
    /// Payload received that waits for what is before it, or for its reader.
    pub receive_buffered_bytes: u64,
    /// KCP packets handed out.
    pub sent_bytes: u64,
    /// KCP packets taken in.
    pub received_bytes: u64,
    /// Payload sent for the first time.
    pub payload_sent_bytes: u64,
    /// Payload sent again.
    pub retransmitted_bytes: u64,
    /// Payload of early copies.
    pub copied_bytes: u64,
    /// Payload of whole messages handed up.
    pub payload_received_bytes: u64,
    /// Sent for the first time.
    pub sent_segments: u64,
    /// Sent again.
    pub retransmitted_segments: u64,
    /// Sent once more before anything was known of them.
    pub copied_segments: u64,
    /// Sent again although they had arrived.
    pub spurious_segments: u64,
    /// Taken for lost.
    pub lost_segments: u64,
    /// Received for the first time.
    pub received_segments: u64,
    /// Received again.
    pub duplicate_segments: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Some segment was sent so often that ikcp would take the link for dead.
    pub dead: bool,
    /// Repetitions included.
    pub acks_sent: u64,
    /// Repetitions included.
    pub acks_received: u64,
    /// What was not taken, by reason.
    pub drops: KcpDrops,
}

/// What KCP did not take, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KcpDrops {
    /// Packets that are not KCP segments of this session.
    pub malformed: u64,
    /// Segments that acknowledge all before what was never sent.
    pub bad_una: u64,
    /// Acks of what was never sent.
    pub bad_acks: u64,
    /// Data beyond the receive window.
    pub outside_window: u64,
    /// Data for which there was no room in bytes.
    pub no_room: u64,
    /// Fragments of messages that cannot be put together.
    pub unassembled: u64,
    /// Acks that there was no room to note: they were not sent.
    pub acks: u64,
}

/// What is bounded, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// What one session may buffer.
    pub session_buffer: u64,
    /// What the process may buffer.
    pub process_buffer: u64,
    /// What it buffers now.
    pub buffered: u64,
}

/// Packets that were not believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injected {
    /// With RST.
    pub rst: u64,
    /// With FIN.
    pub fin: u64,
    /// With SYN.
    #[serde(default)]
    pub syn: u64,
    /// Payloads that no key opens.
    #[serde(default)]
    pub data: u64,
    /// Payloads of the other end whose TCP numbers are none of its: what they carry was believed, the numbers were not.
    #[serde(default)]
    pub off_window: u64,
}

/// What a server's door did with those who knock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// SYNs that were answered with a SYN-ACK.
    pub syn_acks_sent: u64,
    /// SYNs that came faster than they are answered, and were dropped.
    pub syns_dropped: u64,
}

/// One client of a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name in the configuration.
    pub name: String,
    /// Its key.
    pub public_key: String,
    /// Its addresses in the tunnel.
    pub addresses: Vec<IpAddr>,
    /// How its session is; `None` without one.
    pub state: Option<State>,
    /// Where it is.
    pub remote: Option<String>,
    /// Since its last handshake.
    pub handshake_age_s: Option<f64>,
    /// Its carriers, the one in use first.
    #[serde(default)]
    pub carriers: Vec<Carrier>,
    /// How often packets to it began to leave on another carrier of its session.
    #[serde(default)]
    pub migrations: u64,
    /// How often its address changed under a carrier, as when its NAT forgot it.
    #[serde(default)]
    pub moves: u64,
    /// Packets that others sent in its name, and that were not believed.
    #[serde(default)]
    pub injected: Injected,
    /// What went through its session.
    pub session: Session,
    /// Its inner TCP connections.
    pub flows: Flows,
}

impl Role {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

impl State {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Recovering => "recovering",
            Self::Replaced => "replaced",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Each number occurs once.
    pub(in crate::control) fn kcp() -> Kcp {
        Kcp {
            srtt_ms: Some(102.0),
            min_rtt_ms: Some(98.5),
            rto_ms: 150.25,
            bandwidth_bytes_per_s: Some(11 << 20),
            pacing_rate_bytes_per_s: Some(12 << 20),
            phase: Some(KcpPhase::ProbeRtt),
            window_bytes: 2 << 20,
            in_flight_bytes: 300 << 10,
            span_segments: 301,
            peer_window_segments: 65_535,
            send_buffered_bytes: 302,
            receive_buffered_bytes: 303,
            sent_bytes: 304,
            received_bytes: 305,
            payload_sent_bytes: 306,
            retransmitted_bytes: 307,
            copied_bytes: 315,
            payload_received_bytes: 308,
            sent_segments: 4750,
            retransmitted_segments: 250,
            copied_segments: 309,
            spurious_segments: 25,
            lost_segments: 200,
            received_segments: 310,
            duplicate_segments: 311,
            timeouts: 312,
            dead: true,
            acks_sent: 313,
            acks_received: 314,
            drops: KcpDrops {
                malformed: 1,
                bad_una: 2,
                bad_acks: 3,
                outside_window: 4,
                no_room: 5,
                unassembled: 6,
                acks: 7,
            },
        }
    }

    pub(in crate::control) fn client() -> Tunnel {
        Tunnel {
            name: "client".to_owned(),
            role: Role::Client,
            state: State::Up,
            reason: None,
            interface: "vpn0".to_owned(),
            mark: Some(51_820),
            public_key: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".to_owned(),
            server: "203.0.113.9:443".to_owned(),
            addresses: vec!["10.77.0.2/24".parse().unwrap(), "fd77::2/64".parse().unwrap()],
            age_s: 3725.0,
            carriers: vec![Carrier {
                mode: "handshake+advance".to_owned(),
                local: "192.0.2.7:51234".to_owned(),
                remote: "203.0.113.9:443".to_owned(),
                age_s: 380.4,
                keys_age_s: 80.4,
                rekeys: 3,
                rtt_ms: Some(101.25),
                loss_out: 0.02,
                loss_in: 0.0,
                path_mtu: 1500,
                send_path: "raw".to_owned(),
            }],
            network: Some("gateway 02:00:00:00:00:01".to_owned()),
            modes: vec![
                ModeKnown { mode: "bare+advance".to_owned(), died_young: 0, demoted: false },
                ModeKnown { mode: "handshake+advance".to_owned(), died_young: 3, demoted: true },
            ],
            migrations: 2,
            migrated: Migrated { silent: 1, moved: 1, last: Some("moved".to_owned()), ..Migrated::default() },
            session: Session {
                rtt_ms: Some(102.0),
                sent_bytes: 5 << 20,
                retransmitted_bytes: 100 << 10,
                received_bytes: 3 << 30,
                goodput_sent_bytes: 4 << 20,
                goodput_received_bytes: 900,
                buffered_bytes: 1024,
                buffer_bytes: 64 << 20,
                kcp: Some(kcp()),
            },
            flows: Flows::counted(3, 120),
            limits: Limits { session_buffer: 64 << 20, process_buffer: 1 << 30, buffered: 1536 },
            injected: Injected { rst: 3, fin: 0, syn: 1, data: 2, off_window: 0 },
            listener: None,
            drops: BTreeMap::from([("replay".to_owned(), 7)]),
            peers: Vec::new(),
        }
    }

    #[test]
    fn has_every_documented_key_in_json() {
        let status = Status { tunnels: vec![client()] };
        let json: Value = serde_json::to_value(&status).unwrap();
        let tunnel = &json["tunnels"][0];
        for (pointer, expected) in [
            ("/name", json!("client")),
            ("/role", json!("client")),
            ("/state", json!("up")),
            ("/interface", json!("vpn0")),
            ("/server", json!("203.0.113.9:443")),
            ("/addresses", json!(["10.77.0.2/24", "fd77::2/64"])),
            ("/carriers/0/mode", json!("handshake+advance")),
            ("/carriers/0/local", json!("192.0.2.7:51234")),
            ("/carriers/0/remote", json!("203.0.113.9:443")),
            ("/carriers/0/age_s", json!(380.4)),
            ("/carriers/0/keys_age_s", json!(80.4)),
            ("/carriers/0/rekeys", json!(3)),
            ("/carriers/0/rtt_ms", json!(101.25)),
            ("/carriers/0/loss_out", json!(0.02)),
            ("/carriers/0/loss_in", json!(0.0)),
            ("/carriers/0/send_path", json!("raw")),
            ("/migrations", json!(2)),
            ("/migrated", json!({ "silent": 1, "lossy": 0, "moved": 1, "closed": 0, "last": "moved" })),
            ("/mark", json!(51_820)),
            ("/network", json!("gateway 02:00:00:00:00:01")),
            ("/modes/1", json!({ "mode": "handshake+advance", "died_young": 3, "demoted": true })),
            ("/session/rtt_ms", json!(102.0)),
            ("/session/sent_bytes", json!(5_242_880)),
            ("/session/retransmitted_bytes", json!(102_400)),
            ("/session/received_bytes", json!(3_221_225_472_u64)),
            ("/session/goodput_sent_bytes", json!(4_194_304)),
            ("/session/goodput_received_bytes", json!(900)),
            ("/session/buffered_bytes", json!(1024)),
            ("/session/buffer_bytes", json!(67_108_864)),
            ("/flows/open", json!(3)),
            ("/flows/total", json!(120)),
            ("/limits/session_buffer", json!(67_108_864)),
            ("/peers", json!([])),
        ] {
            assert_eq!(tunnel.pointer(pointer), Some(&expected), "{pointer}");
        }
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }

    #[test]
    fn has_every_key_of_kcp_in_json() {
        assert_eq!(
            serde_json::to_value(kcp()).unwrap(),
            json!({
                "srtt_ms": 102.0,
                "min_rtt_ms": 98.5,
                "rto_ms": 150.25,
                "bandwidth_bytes_per_s": 11_534_336,
                "pacing_rate_bytes_per_s": 12_582_912,
                "phase": "probe_rtt",
                "window_bytes": 2_097_152,
                "in_flight_bytes": 307_200,
                "span_segments": 301,
                "peer_window_segments": 65_535,
                "send_buffered_bytes": 302,
                "receive_buffered_bytes": 303,
                "sent_bytes": 304,
                "received_bytes": 305,
                "payload_sent_bytes": 306,
                "retransmitted_bytes": 307,
                "copied_bytes": 315,
                "payload_received_bytes": 308,
                "sent_segments": 4750,
                "retransmitted_segments": 250,
                "copied_segments": 309,
                "spurious_segments": 25,
                "lost_segments": 200,
                "received_segments": 310,
                "duplicate_segments": 311,
                "timeouts": 312,
                "dead": true,
                "acks_sent": 313,
                "acks_received": 314,
                "drops": {
                    "malformed": 1,
                    "bad_una": 2,
                    "bad_acks": 3,
                    "outside_window": 4,
                    "no_room": 5,
                    "unassembled": 6,
                    "acks": 7,
                },
            })
        );
        let nothing = serde_json::to_value(Kcp::default()).unwrap();
        for key in ["srtt_ms", "min_rtt_ms", "bandwidth_bytes_per_s", "pacing_rate_bytes_per_s"] {
            assert_eq!(nothing[key], Value::Null, "{key}");
        }
    }

    #[test]
    fn reads_a_tunnel_of_another_version_without_some_keys_of_kcp() {
        let mut json = serde_json::to_value(client()).unwrap();
        json["session"]["kcp"] = json!({ "srtt_ms": 102.0, "drops": {}, "of_a_later_version": 1 });
        let tunnel: Tunnel = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(tunnel.session.kcp, Some(Kcp { srtt_ms: Some(102.0), ..Kcp::default() }));
        json["session"].as_object_mut().unwrap().remove("kcp");
        let tunnel: Tunnel = serde_json::from_value(json).unwrap();
        assert_eq!(tunnel.session, Session { kcp: None, ..client().session });
    }

    #[test]
    fn is_an_empty_list_when_nothing_runs() {
        let json = serde_json::to_string(&Status::default()).unwrap();
        assert_eq!(json, r#"{"tunnels":[]}"#);
    }

    #[test]
    fn says_the_same_words_in_json_and_to_people() {
        for state in [State::Connecting, State::Up, State::Recovering, State::Replaced, State::Failed] {
            assert_eq!(serde_json::to_value(state).unwrap(), json!(state.as_str()));
        }
        for role in [Role::Client, Role::Server] {
            assert_eq!(serde_json::to_value(role).unwrap(), json!(role.as_str()));
        }
    }
}
