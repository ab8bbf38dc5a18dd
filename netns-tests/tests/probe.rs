//! `vpn probe`: what it says of networks that let this and that through, and that a tunnel beside it does not notice.
//!
//! ```text
//!   client ──[ 20 ms ]──(box)── router ── server ── target
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{SERVER, TARGET};
use netns_tests::emulator::{Middlebox, Profile, Segment, Towards};
use netns_tests::host_state::HostState;
use netns_tests::scenario::scenario;
use netns_tests::services::Services;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{Keys, PORT, Vpn};
use netns_tests::{firewall, wait};
use rustix::process::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(40);
const MODES: [&str; 4] = ["handshake+advance", "handshake+fixed", "bare+advance", "bare+fixed"];

fn line() -> Setup {
    Setup::link(Profile { delay: Duration::from_millis(20), ..Profile::CLEAR })
}

#[test]
fn probe_says_what_the_network_lets_through() {
    probing("probe_says_what_the_network_lets_through", line(), |topology, vpn| {
        let before = HostState::of(topology.client())?;
        let text = run(topology, vpn, "")?;
        ensure!(text.starts_with("network: gateway 02:00:00:00:00:01\n"), "{text}");
        ensure!(text.contains("auto would choose: handshake+advance"), "{text}");
        for mode in MODES {
            let row = text.lines().find(|row| row.trim_start().starts_with(mode)).context("no row")?;
            ensure!(row.contains("1500 / 1500") && row.contains("0 % / 0 %"), "{text}");
        }
        let json = probe(topology, vpn)?;
        for mode in MODES {
            let found = of(&json, mode)?;
            let rtt = found["rtt_median_ms"].as_f64().context("no round trip")?;
            ensure!((40.0..80.0).contains(&rtt), "{found}");
            ensure!(found["tcp_ms"].is_null() == mode.starts_with("bare"), "{found}");
        }
        before.expect_unchanged(topology.client())
    });
}

#[test]
fn a_probe_beside_a_busy_tunnel_disturbs_nothing() {
    probing("a_probe_beside_a_busy_tunnel_disturbs_nothing", line(), |topology, vpn| {
        let services = Services::start(topology, SIZE)?;
        vpn.up(topology, 0, "")?;
        let carrier = vpn.carrier(topology.client())?;
        services.download_through(topology.client(), TARGET, LIMIT, || {
            let json = probe(topology, vpn)?;
            ensure!(json["choice"]["mode"] == MODES[0], "{json}");
            Ok(())
        })?;
        ensure!(vpn.migrations(topology.client())? == 0 && vpn.carrier(topology.client())? == carrier);
        ensure!(vpn.tunnel(topology.client())?["state"] == "up");
        let peer = vpn.tunnel(&topology.server)?["peers"][0].clone();
        ensure!(peer["state"] == "up", "{peer}");
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn probe_finds_the_mode_for_a_network_without_syns() {
    probing("probe_finds_the_mode_for_a_network_without_syns", line(), |topology, vpn| {
        drop_syns(topology)?;
        let json = probe(topology, vpn)?;
        ensure!(json["choice"]["mode"] == "bare+advance", "{json}");
        for mode in &MODES[..2] {
            ensure!(of(&json, mode)?["obstacle"] == "no answer to SYN", "{json}");
        }
        Ok(())
    });
}

#[test]
fn probe_finds_the_modes_for_a_network_that_cuts_flows_whose_numbers_grow() {
    let name = "probe_finds_the_modes_for_a_network_that_cuts_flows_whose_numbers_grow";
    probing(name, line(), |topology, vpn| {
        topology.router.program("nft")?.words("-f -").input(CUT_GROWING).output()?;
        let json = probe(topology, vpn)?;
        for mode in MODES {
            let found = of(&json, mode)?;
            let expected = mode.ends_with("fixed");
            ensure!(found["carries"] == expected, "{found}");
            let obstacle = found["obstacle"].as_str().unwrap_or_default();
            ensure!(expected || obstacle.contains("sealed packets"), "{found}");
        }
        ensure!(json["choice"]["mode"] == "handshake+fixed", "{json}");
        Ok(())
    });
}

#[test]
fn probe_knows_what_won_in_this_network_before() {
    probing("probe_knows_what_won_in_this_network_before", line(), |topology, vpn| {
        drop_syns(topology)?;
        vpn.up(topology, 0, "")?;
        vpn.down(topology, 0)?.expect_code(0)?;
        topology.router.run("nft flush chain inet strict forward")?;
        topology.router.run("nft chain inet strict forward { policy accept ; }")?;
        let text = run(topology, vpn, "")?;
        let before =
            format!("auto would choose: bare+advance to {SERVER}:{PORT}, as it did in this network before");
        ensure!(text.contains(&before), "{text}");
        // And so it does.
        vpn.up(topology, 0, "")?;
        ensure!(vpn.tunnel(topology.client())?["carriers"][0]["mode"] == "bare+advance");
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn probe_says_that_a_network_wants_to_see_a_handshake() {
    let name = "probe_says_that_a_network_wants_to_see_a_handshake";
    probing(name, line(), |topology, vpn| {
        topology.router.set_sysctl("net/netfilter/nf_conntrack_tcp_loose", "0")?;
        let json = probe(topology, vpn)?;
        ensure!(json["choice"]["mode"] == MODES[0], "{json}");
        for mode in &MODES[2..] {
            ensure!(of(&json, mode)?["obstacle"] == "no answer to our handshake", "{json}");
        }
        Ok(())
    });
}

#[test]
fn probe_counts_the_resets_of_a_provider_and_passes_them() {
    let forge =
        Middlebox::Forge { segment: Segment::Reset, towards: Towards::Both, after: 6, every: Some(5) };
    let name = "probe_counts_the_resets_of_a_provider_and_passes_them";
    probing(name, line().with(forge), |topology, vpn| {
        let found = of(&probe(topology, vpn)?, MODES[0])?;
        ensure!(found["carries"] == true && found["injected_rst"].as_u64() > Some(0), "{found}");
        Ok(())
    });
}

#[test]
fn probe_measures_a_path_of_1280_bytes() {
    let small = Middlebox::Mtu { size: 1280, icmp: false };
    probing("probe_measures_a_path_of_1280_bytes", line().with(small), |topology, vpn| {
        let found = of(&probe(topology, vpn)?, MODES[0])?;
        ensure!(found["mtu_out"] == 1280 && found["mtu_in"] == 1280, "{found}");
        Ok(())
    });
}

#[test]
fn probe_names_the_layer_that_stops_it() {
    probing("probe_names_the_layer_that_stops_it", line(), |topology, vpn| {
        // Beside our server nobody listens.
        let config = vpn.client_config(0, "").replace(&format!("{SERVER}:{PORT}"), &format!("{SERVER}:444"));
        let closed = vpn.write("client0/closed.toml", &config)?;
        let failed = vpn.program(topology.client())?.arg("probe").arg(closed).run(LIMIT)?.expect_code(4)?;
        failed.expect_text("nothing gets through")?;
        // Whose key the server does not know.
        let stranger = Keys::of_a_stranger(vpn, topology.client())?;
        let config = vpn.client_config(0, "").replace(&vpn.client_keys[0].private, &stranger.private);
        let unknown = vpn.write("client0/unknown.toml", &config)?;
        let failed = vpn.program(topology.client())?.arg("probe").arg(unknown).run(LIMIT)?.expect_code(5)?;
        failed.expect_text("does not know this key")?;
        // Which looks for another server than the one that answers.
        let config = vpn.client_config(0, "").replace(&vpn.server_keys.public, &stranger.public);
        let other = vpn.write("client0/other.toml", &config)?;
        let failed = vpn.program(topology.client())?.arg("probe").arg(other).run(LIMIT)?.expect_code(4)?;
        failed.expect_text("wrong server_key")?;
        // Nobody is there at all.
        topology.link().set_blackout(true)?;
        let down = vpn.program(topology.client())?.arg("probe").arg(vpn.client_path(0));
        let failed = down.run(LIMIT)?.expect_code(4)?;
        failed.expect_text("nothing gets through: no answer")?;
        Ok(())
    });
}

#[test]
fn an_interrupted_probe_leaves_nothing() {
    probing("an_interrupted_probe_leaves_nothing", line(), |topology, vpn| {
        let before = HostState::of(topology.client())?;
        topology.link().set_blackout(true)?;
        let started = vpn.program(topology.client())?.arg("probe").arg(vpn.client_path(0)).start()?;
        wait::until("the probe to hold its ports", LIMIT, || {
            let ports = topology.client().run("ss -Hltn src 0.0.0.0")?;
            Ok((ports.lines().count() >= MODES.len()).then_some(()))
        })?;
        started.signal(Signal::INT)?;
        started.finish(LIMIT)?.expect_code(1)?;
        before.expect_unchanged(topology.client())
    });
}

fn drop_syns(topology: &Topology) -> Result<()> {
    let rule =
        format!("insert rule inet strict forward tcp dport {PORT} tcp flags & (syn | ack) == syn drop");
    topology.router.program("nft")?.arg(rule).output()?;
    Ok(())
}

fn probing(name: &str, setup: Setup, body: impl FnOnce(&Topology, &Vpn) -> Result<()>) {
    scenario(name, setup, |topology| {
        firewall::raise(&topology.router, true)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        body(topology, &vpn)
    });
}

/// What it prints, within the time it promises.
fn run(topology: &Topology, vpn: &Vpn, words: &str) -> Result<String> {
    let program = vpn.program(topology.client())?.arg("probe").arg(vpn.client_path(0)).words(words);
    Ok(program.run(LIMIT)?.expect_code(0)?.expect_within(PROMISED)?.stdout.clone())
}

fn probe(topology: &Topology, vpn: &Vpn) -> Result<Value> {
    Ok(serde_json::from_str(&run(topology, vpn, "--json")?)?)
}

/// What was found of one mode.
fn of(json: &Value, mode: &str) -> Result<Value> {
    let modes = json["servers"][0]["modes"].as_array().context("no modes")?;
    let found = modes.iter().find(|found| found["mode"] == mode).cloned();
    found.with_context(|| format!("nothing about {mode}: {json}"))
}

const SIZE: usize = 8 << 20;

/// A SYN, what follows it and a FIN have three sequence numbers: a flow is cut after the fourth.
const CUT_GROWING: &str = "
table inet growing {
    set seen { typeof ip saddr . tcp sport . tcp sequence; flags dynamic; size 65535; }
    set flows { typeof ip saddr . tcp sport; flags dynamic; size 65535; }
    chain forward {
        type filter hook forward priority -10;
        ip saddr . tcp sport . tcp sequence @seen accept
        meta l4proto tcp add @seen { ip saddr . tcp sport . tcp sequence }
        meta l4proto tcp update @flows { ip saddr . tcp sport limit rate over 1/hour burst 3 packets } drop
    }
}
";

/// About 20 seconds, on a busy machine.
const PROMISED: Duration = Duration::from_secs(23);
