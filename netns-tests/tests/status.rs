//! What `vpn status` says of carriers, to people and to programs, while the line loses packets, a box forges RSTs, and a carrier dies.
//!
//! ```text
//!   client ──[ 20 Mbit/s, 40 ms, 2 % loss ]──(RSTs)── router ── server ── target
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{SERVER, client};
use netns_tests::emulator::{Middlebox, Profile, Segment, Towards};
use netns_tests::node::Node;
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};
use netns_tests::vpn::PORT;
use netns_tests::wait;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 6 << 20;

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
