//! Boxes on the way that punish flows: those that have carried much, that are fast, that are old, that look odd, or that are UDP.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 40 ms ]──(box)── router ── server ── target
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{TARGET, client};
use netns_tests::emulator::{Middlebox, Profile};
use netns_tests::services;
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 8 << 20;
const LONG: usize = 3 * SIZE / 2;

fn line() -> Setup {
    lossy(0.0)
}

fn lossy(loss: f64) -> Setup {
    Setup::link(Profile::long_line(50_000_000, Duration::from_millis(40), loss))
}

#[test]
fn files_survive_a_box_that_kills_every_flow_after_two_megabytes() {
    let kill = Middlebox::KillFlow { after_bytes: Some(2 << 20), after_time: None };
    let name = "files_survive_a_box_that_kills_every_flow_after_two_megabytes";
    tunnel_scenario(name, line().with(kill), SIZE, |tunnel| {
        tunnel.download()?;
        let after_download = tunnel.vpn.migrations(tunnel.client())?;
        ensure!(after_download >= 3, "8 MiB with {after_download} migrations");
        tunnel.upload()?;
        let after_upload = tunnel.vpn.migrations(tunnel.client())?;
        ensure!(
            after_upload >= after_download + 3,
            "8 MiB with {after_upload} - {after_download} migrations"
        );
        Ok(())
    });
}

#[test]
fn a_download_survives_a_box_that_kills_every_flow_after_a_second() {
    let kill = Middlebox::KillFlow { after_bytes: None, after_time: Some(Duration::from_secs(1)) };
    let name = "a_download_survives_a_box_that_kills_every_flow_after_a_second";
    tunnel_scenario(name, line().with(kill), LONG, |tunnel| {
        tunnel.download()?;
        let migrations = tunnel.vpn.migrations(tunnel.client())?;
        ensure!(migrations >= 2, "{migrations} migrations in more than two seconds");
        Ok(())
    });
}

#[test]
fn a_box_that_kills_flows_whose_numbers_grow_is_passed_by_those_whose_do_not() {
    let kill = Middlebox::KillAdvancing { after: 200_000 };
    let name = "a_box_that_kills_flows_whose_numbers_grow_is_passed_by_those_whose_do_not";
    tunnel_scenario(name, line().with(kill), SIZE, |tunnel| {
        let mode = || -> Result<_> { Ok(tunnel.vpn.tunnel(tunnel.client())?["carriers"][0]["mode"].clone()) };
        ensure!(mode()? == "handshake+advance", "it begins as {}", mode()?);
        tunnel.download()?;
        ensure!(mode()? == "handshake+fixed", "it goes on as {}", mode()?);
        let migrations = tunnel.vpn.migrations(tunnel.client())?;
        ensure!((3..=5).contains(&migrations), "{migrations} migrations");
        tunnel.upload()?;
        ensure!(tunnel.vpn.migrations(tunnel.client())? == migrations, "fixed numbers were cut, too");
        // The next start remembers.
        tunnel.vpn.down(tunnel.topology, 0)?.expect_code(0)?;
        tunnel.vpn.up(tunnel.topology, 0, "")?;
        ensure!(mode()? == "handshake+fixed", "it begins again as {}", mode()?);
        tunnel.download()?;
        ensure!(tunnel.vpn.migrations(tunnel.client())? == 0, "it was cut again");
        Ok(())
    });
}

#[test]
fn files_are_right_when_each_connection_is_policed() {
    let police = Middlebox::Police { rate: 20_000_000, burst: 60_000 };
    tunnel_scenario(
        "files_are_right_when_each_connection_is_policed",
        line().with(police),
        SIZE / 2,
        |tunnel| {
            tunnel.download()?;
            tunnel.upload()?;
            let policed = tunnel.topology.link().counted(|stats| stats.policed)?;
            ensure!(policed.iter().all(|count| *count > 0), "nothing was policed");
            Ok(())
        },
    );
}

#[test]
fn a_box_that_wants_a_handshake_and_honest_windows_finds_nothing_wrong() {
    let boxes = lossy(0.05).with(Middlebox::RequireHandshake).with(Middlebox::RequireWindow);
    let name = "a_box_that_wants_a_handshake_and_honest_windows_finds_nothing_wrong";
    tunnel_scenario(name, boxes, SIZE, |tunnel| {
        tunnel.download()?;
        tunnel.upload()?;
        let odd = tunnel.topology.link().counted(|stats| stats.no_handshake + stats.out_of_window)?;
        ensure!(odd == [0, 0], "{odd:?} packets were dropped");
        Ok(())
    });
}

#[test]
fn a_limit_for_udp_limits_nothing_in_the_tunnel() {
    let limit = Middlebox::LimitUdp { rate: 500_000, burst: 5000 };
    tunnel_scenario("a_limit_for_udp_limits_nothing_in_the_tunnel", line().with(limit), 1, |tunnel| {
        let (through, _) = (bulk_udp(tunnel)?, expect_limited(tunnel, false)?);
        // The limit would let a tenth through; a busy machine loses some without it.
        ensure!(through < 50.0, "{through} % of the datagrams were lost in the tunnel");
        tunnel.vpn.down(tunnel.topology, 0)?.expect_code(0)?;
        let (beside, _) = (bulk_udp(tunnel)?, expect_limited(tunnel, true)?);
        ensure!(beside > 50.0, "only {beside} % of the datagrams were lost beside the tunnel");
        tunnel.vpn.up(tunnel.topology, 0, "")?;
        Ok(())
    });
}

#[test]
fn a_download_survives_a_nat_that_rebinds() {
    let nat = Middlebox::Nat { every: None, addresses: Vec::new() };
    tunnel_scenario("a_download_survives_a_nat_that_rebinds", line().with(nat), SIZE, |tunnel| {
        let before = remote_seen_by_server(tunnel)?;
        tunnel.download_through(|| tunnel.topology.link().rebind())?;
        let after = remote_seen_by_server(tunnel)?;
        ensure!(before.ip() == after.ip() && before.port() != after.port(), "{before} has become {after}");
        ensure!(
            tunnel.topology.link().counted(|stats| stats.translated)?.iter().all(|count| *count > 0),
            "nothing was translated"
        );
        Ok(())
    });
}

#[test]
fn a_download_survives_a_nat_that_rebinds_to_another_address() {
    let nat = Middlebox::Nat { every: None, addresses: vec![OUTSIDE[0].into()] };
    let name = "a_download_survives_a_nat_that_rebinds_to_another_address";
    tunnel_scenario(name, line().with(nat), SIZE, |tunnel| {
        let before = remote_seen_by_server(tunnel)?;
        ensure!(before.ip() == client(0), "before it was rebound, the server sees {before}");
        tunnel.download_through(|| tunnel.topology.link().rebind())?;
        let after = remote_seen_by_server(tunnel)?;
        ensure!(after.ip() == OUTSIDE[0] && after.port() != before.port(), "{before} has become {after}");
        Ok(())
    });
}

#[test]
fn a_download_survives_a_nat_that_takes_another_address_again_and_again() {
    let every = Some(Duration::from_secs(2));
    let nat = Middlebox::Nat { every, addresses: OUTSIDE.map(IpAddr::from).to_vec() };
    // At this rate, the file takes some ten seconds.
    let setup = Setup::link(Profile::long_line(10_000_000, Duration::from_millis(40), 0.0)).with(nat);
    let name = "a_download_survives_a_nat_that_takes_another_address_again_and_again";
    tunnel_scenario(name, setup, LONG, |tunnel| {
        tunnel.download_through(|| {
            for _ in 0..2 {
                let before = remote_seen_by_server(tunnel)?;
                let what = format!("the server to see another address than {before}");
                wait::until(&what, LIMIT, || {
                    Ok((remote_seen_by_server(tunnel)?.ip() != before.ip()).then_some(()))
                })?;
            }
            let arrived = tunnel.services.downloaded(tunnel.client());
            ensure!(arrived < LONG as u64, "the download has ended before the second address");
            Ok(())
        })?;
        Ok(())
    });
}

fn bulk_udp(tunnel: &Tunnel<'_>) -> Result<f64> {
    let _iperf = services::serve_iperf(&tunnel.topology.target, TARGET)?;
    let report = services::iperf(tunnel.client(), TARGET, "-u -b 5M -l 1200 -n 1M", LIMIT)?;
    report["end"]["sum"]["lost_percent"].as_f64().context("no loss in iperf3's report")
}

fn expect_limited(tunnel: &Tunnel<'_>, limited: bool) -> Result<()> {
    let dropped = tunnel.topology.link().counted(|stats| stats.udp_limited)?;
    ensure!((dropped[0] > 0) == limited, "{dropped:?} datagrams met the limit");
    Ok(())
}

fn remote_seen_by_server(tunnel: &Tunnel<'_>) -> Result<SocketAddr> {
    let status = tunnel.vpn.tunnel(&tunnel.topology.server)?;
    let remote = status["peers"][0]["remote"].as_str().context("no remote in status --json")?;
    remote.parse().with_context(|| remote.to_owned())
}

/// Beyond a NAT, in the client's network.
const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 1, 77), Ipv4Addr::new(10, 0, 1, 78)];
