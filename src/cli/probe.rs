//! `probe`: tries what the network lets through, and shows it as a table or as JSON.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::args::Probe as Args;
use super::target::Target;
use super::{print, say, warn};
use crate::carrier::Mode;
use crate::client::{self, ProbeOptions, ProbeOutcome};
use crate::config::ClientConfig;
use crate::crypto::Refusal;
use crate::failure::{ExitCode, Failure};
use crate::session::{ProbeReport, Reach};

/// Probes, prints what was found, and fails if nothing passes.
pub(super) fn probe(args: &Args) -> Result<(), Failure> {
    let Target { name, file } = args.target.parse()?;
    let (config, warnings) = ClientConfig::load(&file)?;
    warn(&warnings);
    if !args.json {
        say(&format_args!("trying every mode to {}: this takes up to 20 seconds", config.server));
    }
    let outcome = client::probe(&ProbeOptions { name, config })?;
    let text = if args.json { to_json(&outcome)? } else { table(&outcome) };
    print(&text)?;
    verdict(&outcome.reports)
}

/// The mode that `auto` takes in the end: the first in its order that carries sealed packets to some address. What won here before is the
/// first in that order.
fn choice(outcome: &ProbeOutcome) -> Option<&ProbeReport> {
    let carrying = outcome.reports.iter().filter(|report| report.carries());
    carrying.min_by_key(|report| {
        (!won_before(outcome, report), Mode::ALL.iter().position(|mode| *mode == report.mode))
    })
}

fn won_before(outcome: &ProbeOutcome, report: &ProbeReport) -> bool {
    outcome.winners.contains(&(report.remote.ip(), report.mode))
}

/// Whether anything passes, or which layer does not.
fn verdict(reports: &[ProbeReport]) -> Result<(), Failure> {
    if reports.iter().any(ProbeReport::carries) {
        return Ok(());
    }
    if let Some(reason) = reports.iter().find_map(|report| report.refused) {
        return Err(Failure::new(ExitCode::Refused, format!("every packet passes, but {reason}")));
    }
    let furthest = reports.iter().max_by_key(|report| (report.sealed.is_some(), report.reach));
    let why = furthest.map_or_else(|| "there was nothing to try".to_owned(), obstacle);
    Err(Failure::new(ExitCode::Unreachable, format!("nothing gets through: {why}")))
}

/// Why this mode does not carry.
fn obstacle(report: &ProbeReport) -> String {
    if let Some(reason) = report.refused {
        return reason.to_string();
    }
    if report.answered > 0 {
        return "the first sealed packets pass, later ones do not: such flows are cut".to_owned();
    }
    if report.sealed.is_some() {
        return "the handshake passes, sealed packets do not".to_owned();
    }
    match report.reach {
        Reach::None => "no route to the server".to_owned(),
        Reach::SynSent => "no answer to SYN".to_owned(),
        Reach::SynReset if report.mode.is_bare() => "a RST answers our first packet".to_owned(),
        Reach::SynReset => "a RST answers our SYN".to_owned(),
        Reach::BareSent => "no answer to our handshake".to_owned(),
        Reach::SynAcked => {
            "TCP is answered, our handshake is not: wrong server_key, or payloads are filtered".to_owned()
        }
        Reach::PresharedKeyDiffers => "preshared_key differs from the server's".to_owned(),
    }
}

fn table(outcome: &ProbeOutcome) -> String {
    let mut text = String::new();
    if let Some(network) = &outcome.network {
        line(&mut text, &format!("network: {network}"));
    }
    for remote in remotes(&outcome.reports) {
        line(&mut text, &format!("\nserver: {remote}"));
        let head = ["mode", "TCP", "sealed", "round trip", "lost out / in", "MTU out / in", "forged"]
            .map(str::to_owned);
        let of_remote = outcome.reports.iter().filter(|report| report.remote == remote);
        let rows: Vec<_> = std::iter::once(Row::Cells(head)).chain(of_remote.map(row)).collect();
        rows.iter().for_each(|row| line(&mut text, &format!("  {}", row.layout(&rows))));
    }
    if !outcome.untried.is_empty() {
        let untried: Vec<_> = outcome.untried.iter().map(ToString::to_string).collect();
        line(&mut text, &format!("\nnot tried, there are too many: {}", untried.join(", ")));
    }
    let chosen = choice(outcome).map_or("none carries".to_owned(), |report| {
        let before = if won_before(outcome, report) { ", as it did in this network before" } else { "" };
        format!("{} to {}{before}", report.mode, report.remote)
    });
    line(&mut text, &format!("\nauto would choose: {chosen}"));
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Each address once, in the order of the reports.
fn remotes(reports: &[ProbeReport]) -> Vec<SocketAddr> {
    let mut remotes: Vec<_> = reports.iter().map(|report| report.remote).collect();
    remotes.dedup();
    remotes
}

enum Row {
    Cells([String; 7]),
    /// A mode, and why it does not carry.
    Sentence(String, String),
}

impl Row {
    /// The cells below each other, as wide as the widest of `all`.
    fn layout(&self, all: &[Self]) -> String {
        let width = |column: usize| {
            let of = |row: &Self| match row {
                Self::Cells(cells) => cells[column].chars().count(),
                Self::Sentence(mode, _) => {
                    if column == 0 {
                        mode.chars().count()
                    } else {
                        0
                    }
                }
            };
            all.iter().map(of).max().unwrap_or(0)
        };
        let mut text = String::new();
        match self {
            Self::Cells(cells) => {
                for (column, cell) in cells.iter().enumerate() {
                    pad(&mut text, cell, width(column));
                }
            }
            Self::Sentence(mode, why) => {
                pad(&mut text, mode, width(0));
                text.push_str(why);
            }
        }
        text
    }
}

fn pad(text: &mut String, cell: &str, width: usize) {
    // Writing to a string does not fail.
    if write!(text, "{cell:width$}  ").is_err() {
        text.push_str(cell);
    }
}

fn row(report: &ProbeReport) -> Row {
    let mode = report.mode.to_string();
    if !report.carries() {
        let forged = forged(report);
        // Where nobody listens, RSTs are the answer.
        let forged = if forged == NOTHING || report.reach == Reach::SynReset {
            String::new()
        } else {
            format!(" ({forged} forged)")
        };
        return Row::Sentence(mode, format!("does not pass: {}{forged}", obstacle(report)));
    }
    let (out, back) = losses(report);
    let trips = [report.rtt_min, report.rtt_median].map(milliseconds).join(" / ");
    let sizes = [report.size_out, report.size_in]
        .map(|size| size.map_or_else(|| NOTHING.to_owned(), |size| size.to_string()));
    Row::Cells([
        mode,
        milliseconds(report.tcp),
        milliseconds(report.sealed),
        trips,
        format!("{:.0} % / {:.0} %", out * 100.0, back * 100.0),
        sizes.join(" / "),
        forged(report),
    ])
}

fn forged(report: &ProbeReport) -> String {
    match (report.resets, report.fins) {
        (0, 0) => NOTHING.to_owned(),
        (resets, 0) => format!("{resets} RST"),
        (resets, fins) => format!("{resets} RST, {fins} FIN"),
    }
}

fn milliseconds(time: Option<Duration>) -> String {
    time.map_or_else(|| NOTHING.to_owned(), |time| format!("{:.1} ms", time.as_secs_f64() * 1e3))
}

/// The shares of pings that were lost on their way, and of their answers.
fn losses(report: &ProbeReport) -> (f64, f64) {
    let lost = |came: u32, of: u32| f64::from(of.saturating_sub(came)) / f64::from(of.max(1));
    (lost(report.arrived, report.pings), lost(report.answered, report.arrived))
}

const NOTHING: &str = "-";

/// `probe --json`: keys are only ever added.
#[derive(Serialize)]
struct Json<'a> {
    network: Option<&'a str>,
    servers: Vec<JsonServer>,
    /// What `auto` would choose.
    choice: Option<JsonChoice>,
    /// Addresses for which there was no room.
    untried: Vec<String>,
}

#[derive(Serialize)]
struct JsonServer {
    address: String,
    modes: Vec<JsonMode>,
}

#[derive(Serialize)]
struct JsonChoice {
    address: String,
    mode: String,
    /// In this network, as is remembered.
    won_before: bool,
}

#[derive(Serialize)]
struct JsonMode {
    mode: String,
    carries: bool,
    /// Why it does not carry.
    obstacle: Option<String>,
    refused: Option<&'static str>,
    tcp_ms: Option<f64>,
    handshake_ms: Option<f64>,
    rtt_min_ms: Option<f64>,
    rtt_median_ms: Option<f64>,
    pings: u32,
    loss_out: Option<f64>,
    loss_in: Option<f64>,
    mtu_out: Option<u16>,
    mtu_in: Option<u16>,
    injected_rst: u64,
    injected_fin: u64,
}

fn to_json(outcome: &ProbeOutcome) -> Result<String, Failure> {
    let server = |remote: SocketAddr| JsonServer {
        address: remote.to_string(),
        modes: outcome.reports.iter().filter(|report| report.remote == remote).map(json_mode).collect(),
    };
    let json = Json {
        network: outcome.network.as_deref(),
        servers: remotes(&outcome.reports).into_iter().map(server).collect(),
        choice: choice(outcome).map(|report| JsonChoice {
            address: report.remote.to_string(),
            mode: report.mode.to_string(),
            won_before: won_before(outcome, report),
        }),
        untried: outcome.untried.iter().map(ToString::to_string).collect(),
    };
    let text = serde_json::to_string(&json);
    let text = text.map_err(|error| Failure::new(ExitCode::Failure, format!("no JSON: {error}")))?;
    Ok(format!("{text}\n"))
}

fn json_mode(report: &ProbeReport) -> JsonMode {
    let carries = report.carries();
    let (out, back) = losses(report);
    let in_ms = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
    JsonMode {
        mode: report.mode.to_string(),
        carries,
        obstacle: (!carries).then(|| obstacle(report)),
        refused: report.refused.map(Refusal::label),
        tcp_ms: in_ms(report.tcp),
        handshake_ms: in_ms(report.sealed),
        rtt_min_ms: in_ms(report.rtt_min),
        rtt_median_ms: in_ms(report.rtt_median),
        pings: report.pings,
        loss_out: carries.then_some(out),
        loss_in: carries.then_some(back),
        mtu_out: report.size_out,
        mtu_in: report.size_in,
        injected_rst: report.resets,
        injected_fin: report.fins,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> ProbeReport {
        ProbeReport {
            remote: "198.51.100.2:443".parse().unwrap(),
            mode: Mode::HandshakeAdvance,
            reach: Reach::SynAcked,
            tcp: Some(Duration::from_micros(40_150)),
            sealed: Some(Duration::from_micros(41_000)),
            refused: None,
            pings: 50,
            arrived: 40,
            answered: 30,
            rtt_min: Some(Duration::from_millis(40)),
            rtt_median: Some(Duration::from_millis(42)),
            size_out: Some(1500),
            size_in: Some(1400),
            resets: 3,
            fins: 0,
        }
    }

    fn bad(mode: Mode, reach: Reach) -> ProbeReport {
        let nothing = ProbeReport { arrived: 0, answered: 0, sealed: None, tcp: None, resets: 0, ..good() };
        ProbeReport { mode, reach, ..nothing }
    }

    fn outcome() -> ProbeOutcome {
        let bare = ProbeReport { tcp: None, ..ProbeReport { mode: Mode::BareAdvance, ..good() } };
        let reset = ProbeReport { resets: 2, ..bad(Mode::HandshakeFixed, Reach::SynReset) };
        ProbeOutcome {
            network: Some("gateway 02:00:00:00:00:01".to_owned()),
            reports: vec![reset, bare, good(), bad(Mode::BareFixed, Reach::BareSent)],
            winners: Vec::new(),
            untried: Vec::new(),
        }
    }

    #[test]
    fn lays_out_what_passes_and_says_why_the_rest_does_not() {
        assert_eq!(
            table(&outcome()),
            "\
network: gateway 02:00:00:00:00:01

server: 198.51.100.2:443
  mode               TCP      sealed   round trip         lost out / in  MTU out / in  forged
  handshake+fixed    does not pass: a RST answers our SYN
  bare+advance       -        41.0 ms  40.0 ms / 42.0 ms  20 % / 25 %    1500 / 1400   3 RST
  handshake+advance  40.1 ms  41.0 ms  40.0 ms / 42.0 ms  20 % / 25 %    1500 / 1400   3 RST
  bare+fixed         does not pass: no answer to our handshake

auto would choose: handshake+advance to 198.51.100.2:443
"
        );
    }

    #[test]
    fn says_the_same_in_json() {
        let json: serde_json::Value = serde_json::from_str(&to_json(&outcome()).unwrap()).unwrap();
        let modes = &json["servers"][0]["modes"];
        assert_eq!(json["choice"]["mode"], "handshake+advance");
        assert_eq!(modes[0]["carries"], false);
        assert_eq!(modes[0]["loss_out"], serde_json::Value::Null);
        assert_eq!(modes[0]["injected_rst"], 2);
        assert_eq!(modes[2]["mtu_in"], 1400);
        assert_eq!(modes[2]["loss_out"], 0.2);
        assert_eq!(modes[2]["loss_in"], 0.25);
        assert_eq!(modes[2]["tcp_ms"], 40.15);
    }

    #[test]
    fn what_won_before_is_chosen_while_it_carries() {
        let remote = good().remote.ip();
        let chosen = |winner| {
            let outcome = ProbeOutcome { winners: vec![(remote, winner)], ..outcome() };
            let json: serde_json::Value = serde_json::from_str(&to_json(&outcome).unwrap()).unwrap();
            (table(&outcome), json["choice"].clone())
        };
        let (text, json) = chosen(Mode::BareAdvance);
        assert!(
            text.ends_with(
                "auto would choose: bare+advance to 198.51.100.2:443, as it did in this network before\n"
            ),
            "{text}"
        );
        assert_eq!((&json["mode"], &json["won_before"]), (&"bare+advance".into(), &true.into()));
        let (text, json) = chosen(Mode::BareFixed);
        assert!(text.ends_with("auto would choose: handshake+advance to 198.51.100.2:443\n"), "{text}");
        assert_eq!(json["won_before"], false);
    }

    #[test]
    fn says_which_addresses_there_was_no_room_for() {
        let outcome = ProbeOutcome { untried: vec!["192.0.2.9:443".parse().unwrap()], ..outcome() };
        assert!(table(&outcome).contains("\nnot tried, there are too many: 192.0.2.9:443\n"));
    }

    #[test]
    fn fails_with_the_layer_that_does_not_pass() {
        assert_eq!(verdict(&outcome().reports), Ok(()));
        let silent = [bad(Mode::HandshakeAdvance, Reach::SynSent), bad(Mode::BareAdvance, Reach::BareSent)];
        let failure = verdict(&silent).unwrap_err();
        assert_eq!(failure.class, ExitCode::Unreachable);
        let answered = [bad(Mode::HandshakeAdvance, Reach::SynAcked), silent[0].clone()];
        assert!(verdict(&answered).unwrap_err().message.contains("TCP is answered"));
        let filtered = [ProbeReport { sealed: good().sealed, ..silent[0].clone() }, answered[0].clone()];
        assert!(verdict(&filtered).unwrap_err().message.contains("sealed packets do not"));
        let closed = [bad(Mode::BareFixed, Reach::SynReset)];
        assert!(verdict(&closed).unwrap_err().message.contains("a RST answers our first packet"));
        let cut = [ProbeReport { arrived: 3, answered: 3, ..filtered[0].clone() }];
        assert!(verdict(&cut).unwrap_err().message.contains("such flows are cut"));
        let refused = [ProbeReport { refused: Some(Refusal::UnknownKey), ..silent[0].clone() }];
        let failure = verdict(&refused).unwrap_err();
        assert_eq!(failure.class, ExitCode::Refused);
        assert!(failure.message.contains("does not know this key"), "{failure}");
    }
}
