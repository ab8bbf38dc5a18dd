//! What `vpn status` says to people and to programs: of carriers, while the line loses packets, a box forges RSTs, and a carrier
//! dies; of flows, at both ends, once and again and again.
//!
//! ```text
//!   client ──[ 20 Mbit/s, 40 ms, 2 % loss ]──(RSTs)── router ── server ── target
//! ```

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{SERVER, TARGET, client};
use netns_tests::emulator::{Middlebox, Profile, Segment, Towards};
use netns_tests::node::Node;
use netns_tests::services::HTTP_PORT;
use netns_tests::sockets::{self, accept, expect};
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};
use netns_tests::vpn::PORT;
use netns_tests::wait;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 6 << 20;
const IDLE_PORT: u16 = 9000;

#[test]
fn status_shows_each_carrier_and_what_became_of_the_one_before() {
    let forge =
        Middlebox::Forge { segment: Segment::Reset, towards: Towards::Both, after: 100, every: Some(100) };
    let line = Setup::link(Profile::long_line(20_000_000, Duration::from_millis(40), 0.02)).with(forge);
    let name = "status_shows_each_carrier_and_what_became_of_the_one_before";
    tunnel_scenario(name, line, SIZE, |tunnel| {
        tunnel.download()?;
        tunnel.download_through(|| {
            tunnel.topology.link().kill_newest_tcp_flow()?;
            wait::until("a migration", LIMIT, || {
                Ok((tunnel.vpn.migrations(tunnel.client())? > 0).then_some(()))
            })
        })?;
        tunnel.upload()?;
        let [here, there] = [tunnel.client(), &tunnel.topology.server];
        let of_client = expect_carriers(tunnel, here)?;
        expect_carriers(tunnel, there)?;
        expect_reasons(&of_client)?;
        expect_lines(tunnel, here, &["migrations: ", " silent", "; last "])
    });
}

#[test]
fn status_lists_the_flows() {
    let line = Setup::link(Profile::long_line(20_000_000, Duration::from_millis(40), 0.0));
    tunnel_scenario("status_lists_the_flows", line, SIZE, |tunnel| {
        let [here, there] = [tunnel.client(), &tunnel.topology.server];
        let (idle, bulk) = (format!("{TARGET}:{IDLE_PORT}"), format!("{TARGET}:{HTTP_PORT}"));
        let listener = sockets::listen(&tunnel.topology.target, TARGET, IDLE_PORT)?;
        let flow = sockets::connect(here, TARGET, IDLE_PORT, LIMIT)?;
        let far = accept(&listener, LIMIT)?;
        (&far).write_all(b"greeting")?;
        expect(&flow, b"greeting")?;
        let curl = tunnel.begin_download(1 << 20)?;
        for (node, way) in [(here, "received"), (there, "sent")] {
            let flows = listed(tunnel, node)?;
            ensure!(flows["unlisted"] == 0, "{flows}");
            let [busy, quiet] = [&flows["list"][0], &flows["list"][1]];
            ensure!(busy["target"] == bulk.as_str() && quiet["target"] == idle.as_str(), "{flows}");
            ensure!(quiet["state"] == "open" && busy["opened_by"] == "client", "{flows}");
            ensure!(busy[format!("{way}_bytes")].as_u64() >= Some(1 << 20), "{flows}");
            let rate = busy[format!("{way}_bytes_per_s")].as_u64().context("no rate")?;
            ensure!((100_000..3_000_000).contains(&rate), "{flows}");
            ensure!(quiet[format!("{way}_bytes")].as_u64() >= Some(8), "{flows}");
            ensure!(quiet["age_s"].as_f64() >= busy["age_s"].as_f64(), "{flows}");
            let peer = if way == "sent" { Value::from("client0") } else { Value::Null };
            ensure!(busy["peer"] == peer, "{flows}");
            let text = tunnel.vpn.program(node)?.args(["status", "--flows"]).output()?;
            let row = text.lines().find(|line| line.contains(&bulk)).context("no row")?;
            ensure!(row.contains("iB/s") && text.contains(&idle) && text.contains("flows: 2\n"), "{text}");
        }
        ensure!(tunnel.vpn.tunnel(here)?["flows"].get("list").is_none(), "listed although nobody asked");
        let mut watch = tunnel.vpn.program(here)?.args(["status", "--watch", "--flows"]).start()?;
        watch.wait_for_text("flows: 2\n", LIMIT)?;
        curl.finish(LIMIT)?.expect_code(0)?;
        drop((flow, far));
        watch.wait_for_text("flows: 0\n", LIMIT)?;
        ensure!(watch.is_running()?, "it ended by itself");
        Ok(())
    });
}

/// The flows of the only tunnel on `node`.
fn listed(tunnel: &Tunnel<'_>, node: &Node) -> Result<Value> {
    let output = tunnel.vpn.program(node)?.args(["status", "--flows", "--json"]).output()?;
    let status: Value = serde_json::from_str(&output)?;
    Ok(status["tunnels"][0]["flows"].clone())
}

/// All that is to be known of a carrier, as figures that can be true of this line.
fn expect_carriers(tunnel: &Tunnel<'_>, node: &Node) -> Result<Value> {
    let status = tunnel.vpn.tunnel(node)?;
    let carriers = status["carriers"].as_array().filter(|carriers| !carriers.is_empty());
    let newest = &carriers.context("no carriers")?[0];
    let within = |key: &str, from: f64, to: f64| -> Result<()> {
        let found = newest[key].as_f64().with_context(|| format!("no {key}: {newest}"))?;
        ensure!((from..=to).contains(&found), "{key}: {newest}");
        Ok(())
    };
    ensure!(newest["mode"] == "handshake+advance", "{newest}");
    let ends = [&newest["local"], &newest["remote"]].map(|end| end.as_str().unwrap_or_default().to_owned());
    for end in [format!("{SERVER}:{PORT}"), format!("{}:", client(0))] {
        ensure!(ends.iter().any(|found| found.starts_with(&end)), "{newest}");
    }
    within("age_s", 0.1, 120.0)?;
    within("rtt_ms", 39.0, 500.0)?;
    // Of few packets a share may be far off.
    within("loss_out", 0.0, 0.3)?;
    within("loss_in", 0.0, 0.3)?;
    within("path_mtu", 1280.0, 1500.0)?;
    let lost: f64 = ["loss_out", "loss_in"].iter().filter_map(|key| newest[key].as_f64()).sum();
    ensure!(lost > 0.0, "nothing was lost: {newest}");
    ensure!(status["injected"]["rst"].as_u64() > Some(0), "{}", status["injected"]);
    let path_mtu = format!("packets of {} bytes", newest["path_mtu"]);
    let words =
        ["carrier: ", "handshake+advance", "carries for: ", "path: round trip ", " % out, ", " % in, "];
    expect_lines(tunnel, node, &words)?;
    expect_lines(tunnel, node, &[&ends[0], &ends[1], &path_mtu, "middlebox injected: ", " RST, "])?;
    Ok(status)
}

fn expect_reasons(status: &Value) -> Result<()> {
    let migrated = &status["migrated"];
    let count = |why: &str| migrated[why].as_u64().with_context(|| format!("no {why}: {migrated}"));
    let all: Result<Vec<_>> = ["silent", "lossy", "moved", "closed"].into_iter().map(count).collect();
    ensure!(status["migrations"] == all?.iter().sum::<u64>(), "{status}");
    ensure!(count("silent")? > 0 && migrated["last"].is_string(), "{migrated}");
    Ok(())
}

/// What people are shown has all of these.
fn expect_lines(tunnel: &Tunnel<'_>, node: &Node, words: &[&str]) -> Result<()> {
    let text = tunnel.vpn.program(node)?.arg("status").output()?;
    for word in words {
        ensure!(text.contains(word), "no {word:?} in:\n{text}");
    }
    Ok(())
}
