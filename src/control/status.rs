//! What a running tunnel says of itself: the shape of `status --json`.
//!
//! Keys are only ever added. Times are in seconds or milliseconds as the key says, losses are
//! fractions of 1, and `null` stands for what is not measured yet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

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
    /// How often a new carrier took over.
    pub migrations: u64,
    /// The session; of a server the sum of all peers.
    pub session: Session,
    /// Inner TCP connections.
    pub flows: Flows,
    /// What is bounded, and how full it is.
    pub limits: Limits,
    /// Packets that others sent in the name of the other end, and that were not believed.
    pub injected: Injected,
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
    /// Since its handshake.
    pub age_s: f64,
    /// Its round trip.
    pub rtt_ms: Option<f64>,
    /// What is lost of what we send.
    pub loss_out: f64,
    /// What is lost of what is sent to us.
    pub loss_in: f64,
    /// How packets are sent.
    pub send_path: String,
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
}

/// Inner TCP connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// Now.
    pub open: u64,
    /// Since the start.
    pub total: u64,
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

    pub(in crate::control) fn client() -> Tunnel {
        Tunnel {
            name: "client".to_owned(),
            role: Role::Client,
            state: State::Up,
            reason: None,
            interface: "vpn0".to_owned(),
            public_key: "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=".to_owned(),
            server: "203.0.113.9:443".to_owned(),
            addresses: vec!["10.77.0.2/24".parse().unwrap(), "fd77::2/64".parse().unwrap()],
            age_s: 3725.0,
            carriers: vec![Carrier {
                mode: "handshake+advance".to_owned(),
                local: "192.0.2.7:51234".to_owned(),
                remote: "203.0.113.9:443".to_owned(),
                age_s: 80.4,
                rtt_ms: Some(101.25),
                loss_out: 0.02,
                loss_in: 0.0,
                send_path: "raw".to_owned(),
            }],
            migrations: 2,
            session: Session {
                rtt_ms: Some(102.0),
                sent_bytes: 5 << 20,
                retransmitted_bytes: 100 << 10,
                received_bytes: 3 << 30,
                goodput_sent_bytes: 4 << 20,
                goodput_received_bytes: 900,
            },
            flows: Flows { open: 3, total: 120 },
            limits: Limits { session_buffer: 64 << 20, process_buffer: 1 << 30, buffered: 1536 },
            injected: Injected { rst: 3, fin: 0 },
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
            ("/carriers/0/age_s", json!(80.4)),
            ("/carriers/0/rtt_ms", json!(101.25)),
            ("/carriers/0/loss_out", json!(0.02)),
            ("/carriers/0/loss_in", json!(0.0)),
            ("/carriers/0/send_path", json!("raw")),
            ("/migrations", json!(2)),
            ("/session/rtt_ms", json!(102.0)),
            ("/session/sent_bytes", json!(5_242_880)),
            ("/session/retransmitted_bytes", json!(102_400)),
            ("/session/received_bytes", json!(3_221_225_472_u64)),
            ("/session/goodput_sent_bytes", json!(4_194_304)),
            ("/session/goodput_received_bytes", json!(900)),
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
