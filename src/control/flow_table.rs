//! The flows of a tunnel as a table for people.

use super::units::{ShortAge, Size};
use super::{Flow, Flows, Role};

/// The list with a heading; `None` if it was not asked for.
pub(super) fn render(flows: &Flows) -> Option<String> {
    let list = flows.list.as_ref()?;
    let mut text = match flows.unlisted {
        Some(more @ 1..) => format!("flows: {} of {}\n", list.len(), more.saturating_add(list.len() as u64)),
        Some(0) | None => format!("flows: {}\n", list.len()),
    };
    if list.is_empty() {
        return Some(text);
    }
    // A column that has nothing to tell is left out: peers on a client, apps on a server.
    let columns: Vec<_> = COLUMNS.iter().filter(|column| column.is_shown(list)).collect();
    let rows: Vec<Vec<_>> =
        list.iter().map(|flow| columns.iter().map(|column| column.cell(flow)).collect()).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> =
        columns.iter().enumerate().map(|(at, column)| width(at).max(column.title.len())).collect();
    let titles: Vec<_> = columns.iter().map(|column| column.title.to_owned()).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let mut line = String::new();
        for ((cell, column), width) in row.iter().zip(&columns).zip(&widths) {
            line.push_str(&if column.is_number {
                format!("  {cell:>width$}")
            } else {
                format!("  {cell:<width$}")
            });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Some(text)
}

/// One column of the table.
struct Column {
    title: &'static str,
    /// Numbers stand to the right.
    is_number: bool,
    /// What stands there of a flow, if that is known.
    value: fn(&Flow) -> Option<String>,
}

impl Column {
    const fn text(title: &'static str, value: fn(&Flow) -> Option<String>) -> Self {
        Self { title, is_number: false, value }
    }

    const fn number(title: &'static str, value: fn(&Flow) -> Option<String>) -> Self {
        Self { title, is_number: true, value }
    }

    fn cell(&self, flow: &Flow) -> String {
        (self.value)(flow).unwrap_or_else(|| "-".to_owned())
    }

    fn is_shown(&self, list: &[Flow]) -> bool {
        list.iter().any(|flow| (self.value)(flow).is_some())
    }
}

const COLUMNS: [Column; 9] = [
    Column::text("peer", |flow| flow.peer.clone()),
    Column::text("app", |flow| flow.source.clone()),
    Column::text("target", |flow| Some(flow.target.clone())),
    // Most are opened by the client.
    Column::text("opened by", |flow| {
        Some(flow.opened_by.as_str().to_owned()).filter(|_| flow.opened_by == Role::Server)
    }),
    Column::text("state", |flow| Some(flow.state.as_str().to_owned())),
    Column::number("age", |flow| Some(ShortAge(flow.age_s).to_string())),
    Column::number("sent", |flow| Some(Size(flow.sent_bytes?).to_string())),
    Column::number("received", |flow| Some(Size(flow.received_bytes?).to_string())),
    Column::number("now", |flow| {
        flow.sent_bytes_per_s.or(flow.received_bytes_per_s)?;
        Some(format!("{}/s", Size(flow.rate())))
    }),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::FlowState;
    use crate::control::flows::tests::flow;

    fn shown(list: Vec<Flow>) -> String {
        render(&Flows { list: Some(list), ..Flows::counted(3, 120) }).unwrap()
    }

    #[test]
    fn lays_a_clients_flows_out_in_columns() {
        let begun = Flow {
            source: Some("[fd77::2]:1".to_owned()),
            target: "[2001:db8::7]:65535".to_owned(),
            state: FlowState::Connecting,
            age_s: 0.2,
            sent_bytes: Some(0),
            received_bytes: Some(0),
            sent_bytes_per_s: Some(0),
            received_bytes_per_s: Some(0),
            ..flow()
        };
        let over = Flow {
            state: FlowState::Closing,
            sent_bytes: None,
            received_bytes: None,
            sent_bytes_per_s: None,
            received_bytes_per_s: None,
            ..flow()
        };
        assert_eq!(
            shown(vec![flow(), begun, over]),
            "\
flows: 3
  app              target               state         age      sent  received         now
  10.77.0.2:51234  203.0.113.7:443      open        1m 5s  2.00 KiB  3.00 MiB  1.00 MiB/s
  [fd77::2]:1      [2001:db8::7]:65535  connecting     0s       0 B       0 B       0 B/s
  10.77.0.2:51234  203.0.113.7:443      closing     1m 5s         -         -           -
"
        );
    }

    #[test]
    fn names_the_peers_of_a_server_and_who_opened_what() {
        let named = |name: &str| Flow { peer: Some(name.to_owned()), source: None, ..flow() };
        let inbound = Flow { opened_by: Role::Server, state: FlowState::TargetFinished, ..named("bob") };
        assert_eq!(
            shown(vec![named("alice"), inbound]),
            "\
flows: 2
  peer   target           opened by  state              age      sent  received         now
  alice  203.0.113.7:443  -          open             1m 5s  2.00 KiB  3.00 MiB  1.00 MiB/s
  bob    203.0.113.7:443  server     target finished  1m 5s  2.00 KiB  3.00 MiB  1.00 MiB/s
"
        );
    }

    #[test]
    fn says_how_many_it_leaves_out() {
        let flows = Flows { list: Some(vec![flow()]), unlisted: Some(7), ..Flows::counted(8, 9) };
        assert!(render(&flows).unwrap().starts_with("flows: 1 of 8\n  app "));
        assert_eq!(shown(Vec::new()), "flows: 0\n");
        assert_eq!(render(&Flows::counted(3, 120)), None);
    }
}
