//! Real programs through the tunnel over a bad link, beside the same programs without it. `scripts/demo` runs this.
//!
//! ```text
//!   client ──[ 100 Mbit/s, 100 ms, 2 % loss each way, no UDP ]── router ── server
//!                                                                  └── target ─┘
//! ```
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{TARGET, TARGET_V6, TUNNEL_SERVER, UNREACHABLE, UNREACHABLE_V6, url};
use netns_tests::emulator::Profile;
use netns_tests::node::Node;
use netns_tests::services::{
    self, FILE, HTTP_PORT, NO_NETWORK, NO_ROUTE, REFUSED, Services, fail_to_connect,
};
use netns_tests::table::Table;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{self, Vpn};

fn main() -> ExitCode {
    match demonstrate() {
        Ok(0) => {
            println!("{CONCLUSION}");
            ExitCode::SUCCESS
        }
        Ok(failures) => {
            println!("{failures} of these failed.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Shows everything and returns how many measurements failed; the network is gone then.
fn demonstrate() -> Result<usize> {
    vpn::binary()?;
    println!("{INTRODUCTION}\n");
    let profile = Profile::long_line(RATE, ROUND_TRIP, LOSS);
    let topology = Topology::build(Setup::link(profile).without_udp()).context("building the network")?;
    let services = Services::start(&topology, FILE_SIZE)?;

    println!("Direct:");
    let direct = measure_all(&services, topology.client(), Way::Direct);
    println!("\nThrough the VPN:");
    let through = through_the_vpn(&topology, &services)?;

    let failures = direct.iter().chain(&through).filter(|outcome| outcome.is_err()).count();
    let mut table = Table::new(&["", "direct", "through the VPN"]);
    for ((row, direct), through) in Row::ALL.into_iter().zip(direct).zip(through) {
        table.row(vec![row.label(), cell(direct), cell(through)]);
    }
    println!("\n{table}");
    Ok(failures)
}

fn through_the_vpn(topology: &Topology, services: &Services) -> Result<Vec<Result<String>>> {
    let vpn = Vpn::prepare(topology)?;
    let _serve = vpn.serve(topology)?;
    announce("vpn up");
    let up = vpn.up(topology, 0, "")?;
    println!("{:.1} s", up.elapsed.as_secs_f64());
    for line in up.stdout.lines().chain(up.stderr.lines()) {
        println!("    {line}");
    }
    let outcomes = measure_all(services, topology.client(), Way::Vpn);
    vpn.down(topology, 0)?.expect_code(0)?;
    Ok(outcomes)
}

fn measure_all(services: &Services, client: &Node, way: Way) -> Vec<Result<String>> {
    let measure = |row: Row| {
        announce(&row.label());
        let outcome = row.measure(services, client, way);
        match &outcome {
            Ok(text) => println!("{text}"),
            Err(error) => println!("FAILED: {error:#}"),
        }
        outcome
    };
    Row::ALL.into_iter().map(measure).collect()
}

/// Begins a line that the outcome ends, so that a reader sees what is being waited for.
fn announce(what: &str) {
    print!("  {what:<30}  ");
    // Who closed the output does not read progress.
    std::io::stdout().flush().ok();
}

/// Which way the packets take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Vpn,
}

impl Way {
    /// Linux hears of an unreachable IPv6 route from its own table as a host, from a router as a network.
    const fn unreachable_v6(self) -> &'static str {
        match self {
            Self::Direct => NO_NETWORK,
            Self::Vpn => NO_ROUTE,
        }
    }
}

/// One thing a program does; each is measured both ways.
#[derive(Debug, Clone, Copy)]
enum Row {
    Download,
    DownloadV6,
    Name,
    Ping,
    PingV6,
    PingServer,
    Refused,
    Unreachable,
    UnreachableV6,
}

impl Row {
    const ALL: [Self; 9] = [
        Self::Download,
        Self::DownloadV6,
        Self::Name,
        Self::Ping,
        Self::PingV6,
        Self::PingServer,
        Self::Refused,
        Self::Unreachable,
        Self::UnreachableV6,
    ];

    fn label(self) -> String {
        let megabytes = FILE_SIZE / 1_000_000;
        match self {
            Self::Download => format!("curl {megabytes} MB"),
            Self::DownloadV6 => format!("curl {megabytes} MB over IPv6"),
            Self::Name => "dig over UDP".to_owned(),
            Self::Ping => "ping".to_owned(),
            Self::PingV6 => "ping over IPv6".to_owned(),
            Self::PingServer => "ping the server in the tunnel".to_owned(),
            Self::Refused => "curl a refused port".to_owned(),
            Self::Unreachable => "curl an unreachable host".to_owned(),
            Self::UnreachableV6 => "the same over IPv6".to_owned(),
        }
    }

    /// Does it; an error is a failure to show in the table, like any other outcome.
    fn measure(self, services: &Services, client: &Node, way: Way) -> Result<String> {
        match self {
            Self::Download => download(services, client, TARGET.into(), way),
            Self::DownloadV6 => download(services, client, TARGET_V6.into(), way),
            Self::Name => name(client, way),
            Self::Ping => ping(client, TARGET.into()),
            Self::PingV6 => ping(client, TARGET_V6.into()),
            Self::PingServer if way == Way::Direct => Ok("-".to_owned()),
            Self::PingServer => ping(client, TUNNEL_SERVER.into()),
            Self::Refused => error(client, &url(TARGET, REFUSED_PORT, "/"), REFUSED),
            Self::Unreachable => error(client, &url(UNREACHABLE, HTTP_PORT, "/"), NO_ROUTE),
            Self::UnreachableV6 => error(client, &url(UNREACHABLE_V6, HTTP_PORT, "/"), way.unreachable_v6()),
        }
    }
}

fn download(services: &Services, client: &Node, host: IpAddr, way: Way) -> Result<String> {
    if way == Way::Direct {
        return direct_rate(client, host);
    }
    let seconds = services.download(client, host, DOWNLOAD_LIMIT)?.elapsed.as_secs_f64();
    Ok(format!("{:.1} Mbit/s ({seconds:.1} s, checksum right)", megabits(FILE_SIZE as f64) / seconds))
}

/// A direct download would take minutes: it is cut, and its rate shown.
fn direct_rate(client: &Node, host: IpAddr) -> Result<String> {
    let url = url(host, HTTP_PORT, FILE);
    let curl = services::curl(client, &url, DIRECT_LIMIT)?;
    let finished = curl.args(["-o", "/dev/null", "-w", "%{size_download}"]).run(DOWNLOAD_LIMIT)?;
    let bytes: f64 = finished.stdout.trim().parse().context("curl wrote no size")?;
    let cut = if finished.code() == Some(CURL_TIMED_OUT) { ", cut" } else { "" };
    let seconds = finished.elapsed.as_secs_f64();
    Ok(format!("{:.1} Mbit/s ({seconds:.0} s{cut})", megabits(bytes) / seconds))
}

fn name(client: &Node, way: Way) -> Result<String> {
    let answer = services::dig(client, DIG_TRIES);
    match way {
        Way::Direct if answer.is_err() => Ok("no answer".to_owned()),
        Way::Direct | Way::Vpn => Ok(milliseconds(answer?.elapsed)),
    }
}

fn ping(client: &Node, host: IpAddr) -> Result<String> {
    let (answered, mean) = services::ping(client, host, PINGS)?;
    ensure!(answered >= LEAST_PINGS, "{:.0} % answered", answered * 100.0);
    Ok(format!("{:.0} ms, {:.0} % answered", mean.context("no time in ping's output")?, answered * 100.0))
}

/// The time to an error for which the kernel has these words.
fn error(client: &Node, url: &str, reason: &str) -> Result<String> {
    let curl = fail_to_connect(client, url, reason, ERROR_LIMIT)?;
    Ok(format!("{reason} after {}", milliseconds(curl.elapsed)))
}

fn cell(outcome: Result<String>) -> String {
    outcome.unwrap_or_else(|_| "FAILED".to_owned())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

fn megabits(bytes: f64) -> f64 {
    bytes * 8.0 / 1e6
}

/// The link: what a bad line to another continent is like.
const RATE: u64 = 100_000_000;
const ROUND_TRIP: Duration = Duration::from_millis(100);
const LOSS: f64 = 0.02;

const FILE_SIZE: usize = 20_000_000;
const DIRECT_LIMIT: Duration = Duration::from_secs(10);
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(30);
const ERROR_LIMIT: Duration = Duration::from_secs(10);
const DIG_TRIES: u32 = 3;
const PINGS: u32 = 20;

/// At 2 % each way an answer is missing now and then; half of them would be a broken tunnel.
const LEAST_PINGS: f64 = 0.5;

/// A port of the target where nobody listens.
const REFUSED_PORT: u16 = 81;

const INTRODUCTION: &str = "\
Four hosts in network namespaces of this machine: client, router, server, target. The client's link is bad:
100 Mbit/s, a round trip of 100 ms, 2 % of the packets lost each way at random, and every UDP packet dropped.
The client runs curl, ping and dig against nginx and dnsmasq on the target, first directly, then through the VPN.";

const CONCLUSION: &str = "\
TCP keeps its speed, because the tunnel repeats what the link loses. UDP arrives, because the link sees nothing but one
TCP connection. Errors are the target's own: a refused port is refused, an unreachable host is unreachable.
The network is removed again; nothing is left on this machine.";

/// curl's exit code, from its manual.
const CURL_TIMED_OUT: i32 = 28;
