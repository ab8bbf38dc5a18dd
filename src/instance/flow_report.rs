//! The sans-IO list of flows in the words of `status --flows`.
//!
//! It is made in two steps: what the sessions know is copied between two packets, and put into words, sorted and written down
//! beside the loop that carries them.

use std::time::Instant;

use crate::control::{self, Flow, Flows, LISTED_MAX, Role};
use crate::session::{Client, FlowList, FlowState, FlowStatus, Server};

/// What was copied, by peer; of a client without a name.
#[derive(Debug)]
pub(crate) struct FlowReport {
    lists: Vec<(Option<String>, FlowList)>,
}

impl FlowReport {
    pub(crate) fn of_client(client: &Client, now: Instant) -> Self {
        Self { lists: vec![(None, client.flows(LISTED_MAX, now))] }
    }

    pub(crate) fn of_server(server: &Server, now: Instant) -> Self {
        let lists = server.flows(LISTED_MAX, now);
        Self { lists: lists.into_iter().map(|(peer, list)| (Some(peer), list)).collect() }
    }

    /// Writes the list into a status, the busiest first.
    pub(crate) fn add_to(self, flows: &mut Flows) {
        let unlisted = self.lists.iter().map(|(_, list)| list.unlisted as u64).sum();
        let named = |(peer, list): (Option<String>, FlowList)| {
            list.flows.into_iter().map(move |flow| flow_report(peer.clone(), &flow))
        };
        let mut list: Vec<_> = self.lists.into_iter().flat_map(named).collect();
        list.sort_by(|a, b| b.rate().cmp(&a.rate()).then(a.age_s.total_cmp(&b.age_s)));
        flows.list = Some(list);
        flows.unlisted = Some(unlisted);
    }
}

fn flow_report(peer: Option<String>, flow: &FlowStatus) -> Flow {
    let FlowStatus { is_from_client, source, target, state, age, traffic } = *flow;
    Flow {
        peer,
        opened_by: if is_from_client { Role::Client } else { Role::Server },
        source: source.map(|source| source.to_string()),
        target: target.to_string(),
        state: match state {
            FlowState::Connecting => control::FlowState::Connecting,
            FlowState::Open => control::FlowState::Open,
            FlowState::AppFinished => control::FlowState::AppFinished,
            FlowState::TargetFinished => control::FlowState::TargetFinished,
            FlowState::Closing => control::FlowState::Closing,
        },
        age_s: age.as_secs_f64(),
        sent_bytes: traffic.map(|traffic| traffic.sent),
        received_bytes: traffic.map(|traffic| traffic.received),
        sent_bytes_per_s: traffic.map(|traffic| traffic.sent_lately),
        received_bytes_per_s: traffic.map(|traffic| traffic.received_lately),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::FlowTraffic;

    fn flow(sent_lately: u64, received_lately: u64, age: u64) -> FlowStatus {
        FlowStatus {
            is_from_client: true,
            source: Some("10.77.0.2:1".parse().unwrap()),
            target: "203.0.113.7:443".parse().unwrap(),
            state: FlowState::Open,
            age: Duration::from_secs(age),
            traffic: Some(FlowTraffic { sent: 10, received: 20, sent_lately, received_lately }),
        }
    }

    #[test]
    fn the_busiest_come_first_and_of_idle_ones_the_newest() {
        let over = FlowStatus { traffic: None, state: FlowState::Closing, ..flow(0, 0, 1) };
        let alice = FlowList { flows: vec![flow(0, 0, 9), flow(3, 3, 8), over], unlisted: 4 };
        let inbound = FlowStatus { is_from_client: false, ..flow(0, 5, 7) };
        let bob = FlowList { flows: vec![inbound, flow(0, 0, 3)], unlisted: 1 };
        let lists = vec![(Some("alice".to_owned()), alice), (Some("bob".to_owned()), bob)];
        let mut flows = Flows::counted(10, 100);
        FlowReport { lists }.add_to(&mut flows);
        assert_eq!((flows.open, flows.total, flows.unlisted), (10, 100, Some(5)));
        let list = flows.list.unwrap();
        let order: Vec<_> = list.iter().map(|flow| flow.age_s).collect();
        assert_eq!(order, [8.0, 7.0, 1.0, 3.0, 9.0]);
        assert_eq!(list[0].peer.as_deref(), Some("alice"));
        assert_eq!((list[0].sent_bytes, list[0].received_bytes), (Some(10), Some(20)));
        assert_eq!((list[0].sent_bytes_per_s, list[0].received_bytes_per_s), (Some(3), Some(3)));
        assert_eq!(list[0].source.as_deref(), Some("10.77.0.2:1"));
        assert_eq!((list[0].target.as_str(), list[0].opened_by), ("203.0.113.7:443", Role::Client));
        assert_eq!((list[1].peer.as_deref(), list[1].opened_by), (Some("bob"), Role::Server));
        assert_eq!((list[2].state, list[2].sent_bytes), (control::FlowState::Closing, None));
    }

    #[test]
    fn as_many_as_are_listed_fit_an_answer() {
        let longest = "[2001:db8:1111:2222:3333:4444:5555:6666]:65535";
        let flow = FlowStatus {
            source: Some(longest.parse().unwrap()),
            target: longest.parse().unwrap(),
            state: FlowState::TargetFinished,
            age: Duration::from_nanos(u64::MAX),
            traffic: Some(FlowTraffic {
                sent: u64::MAX,
                received: u64::MAX,
                sent_lately: u64::MAX,
                received_lately: u64::MAX,
            }),
            ..flow(0, 0, 0)
        };
        let report = flow_report(Some("a".repeat(64)), &flow);
        let one = serde_json::to_vec(&report).unwrap().len() + 1;
        assert!(one * LISTED_MAX < 12 << 20, "{one} bytes");
    }
}
