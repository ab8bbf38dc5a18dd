//! Inner TCP connections in a status: how many, and each of them if that was asked for.

use serde::{Deserialize, Serialize};

use super::Role;

/// Inner TCP connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// Now.
    pub open: u64,
    /// Since the start.
    pub total: u64,
    /// Each of them, the busiest first, then the newest; only if it was asked for, and at most [`LISTED_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<Flow>>,
    /// How many the list leaves out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlisted: Option<u64>,
}

/// One inner TCP connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// On a server: the client it is of.
    #[serde(default)]
    pub peer: Option<String>,
    /// From which side the app opened it.
    pub opened_by: Role,
    /// The app's address and port, where the app is at this end.
    #[serde(default)]
    pub source: Option<String>,
    /// Where the app wants to be connected to.
    pub target: String,
    /// How far it has come.
    pub state: FlowState,
    /// Since the app asked, or since its question came through the tunnel.
    pub age_s: f64,
    /// From this end to the other, without what carries it; `None` once the tunnel's part is over.
    pub sent_bytes: Option<u64>,
    /// From the other end to this.
    pub received_bytes: Option<u64>,
    /// In the last second.
    pub sent_bytes_per_s: Option<u64>,
    /// In the last second.
    pub received_bytes_per_s: Option<u64>,
}

/// How far an inner TCP connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowState {
    /// The target has not answered.
    Connecting,
    /// Both may send.
    Open,
    /// The app sends no more.
    AppFinished,
    /// The target sends no more.
    TargetFinished,
    /// Neither does, or one of them reset it.
    Closing,
    /// A state of another version of the program.
    #[serde(other)]
    Other,
}

impl Flows {
    /// So many, without a list.
    pub const fn counted(open: u64, total: u64) -> Self {
        Self { open, total, list: None, unlisted: None }
    }
}

impl Flow {
    /// What moved in the last second, both ways.
    pub fn rate(&self) -> u64 {
        self.sent_bytes_per_s.unwrap_or(0).saturating_add(self.received_bytes_per_s.unwrap_or(0))
    }
}

impl FlowState {
    /// The words for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Open => "open",
            Self::AppFinished => "app finished",
            Self::TargetFinished => "target finished",
            Self::Closing => "closing",
            Self::Other => "unknown",
        }
    }
}

/// Flows in one answer; our choice: all that one session may have.
pub const LISTED_MAX: usize = 16_384;

#[cfg(test)]
pub(in crate::control) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::control) fn flow() -> Flow {
        Flow {
            peer: None,
            opened_by: Role::Client,
            source: Some("10.77.0.2:51234".to_owned()),
            target: "203.0.113.7:443".to_owned(),
            state: FlowState::Open,
            age_s: 65.5,
            sent_bytes: Some(2048),
            received_bytes: Some(3 << 20),
            sent_bytes_per_s: Some(100),
            received_bytes_per_s: Some(1 << 20),
        }
    }

    #[test]
    fn lists_flows_only_when_asked() {
        let json = serde_json::to_value(Flows::counted(3, 120)).unwrap();
        assert_eq!(json, json!({ "open": 3, "total": 120 }));
        let listed = Flows { list: Some(vec![flow()]), unlisted: Some(2), ..Flows::counted(3, 120) };
        let json = serde_json::to_value(&listed).unwrap();
        assert_eq!(json["unlisted"], 2);
        assert_eq!(
            json["list"],
            json!([{
                "peer": null,
                "opened_by": "client",
                "source": "10.77.0.2:51234",
                "target": "203.0.113.7:443",
                "state": "open",
                "age_s": 65.5,
                "sent_bytes": 2048,
                "received_bytes": 3_145_728,
                "sent_bytes_per_s": 100,
                "received_bytes_per_s": 1_048_576,
            }])
        );
        assert_eq!(serde_json::from_value::<Flows>(json).unwrap(), listed);
    }

    #[test]
    fn says_how_far_a_flow_has_come() {
        for (state, word) in [
            (FlowState::Connecting, "connecting"),
            (FlowState::Open, "open"),
            (FlowState::AppFinished, "app_finished"),
            (FlowState::TargetFinished, "target_finished"),
            (FlowState::Closing, "closing"),
        ] {
            assert_eq!(serde_json::to_value(state).unwrap(), word);
            assert_eq!(serde_json::from_value::<FlowState>(word.into()).unwrap(), state);
            assert_eq!(state.as_str().replace(' ', "_"), word);
        }
        assert_eq!(
            serde_json::from_value::<FlowState>("of_a_later_version".into()).unwrap(),
            FlowState::Other
        );
    }
}
