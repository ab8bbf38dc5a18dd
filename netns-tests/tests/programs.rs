//! More of what people run: names by UDP and by TCP, pings and bulk UDP, over both families; traceroute.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 40 ms ]── router ── server ── target
//!     dig, ping, iperf3 -u, traceroute                dnsmasq, iperf3
//! ```

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{TARGET, TARGET_V6, TUNNEL_SERVER};
use netns_tests::emulator::Profile;
use netns_tests::process::Finished;
use netns_tests::services::{self, NAME};
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn names_pings_and_bulk_udp_pass_over_both_families() {
    tunnel_scenario("names_pings_and_bulk_udp_pass_over_both_families", link(), 1, |tunnel| {
        for host in [IpAddr::from(TARGET), IpAddr::from(TARGET_V6)] {
            let _iperf = services::serve_iperf(&tunnel.topology.target, host)?;
            names(tunnel, host)?;
            let (answered, round_trip) = services::ping(tunnel.client(), host, 10)?;
            ensure!(answered > 0.8, "{host} answered {answered} of the pings");
            let round_trip = round_trip.context("no round trip in ping's output")?;
            ensure!(round_trip > 40.0, "{host} answers after {round_trip} ms: not through the link");
            bulk_udp(tunnel, host, "")?;
            bulk_udp(tunnel, host, "-R")?;
        }
        Ok(())
    });
}

#[test]
fn an_app_that_finds_the_path_mtu_itself_is_told() {
    tunnel_scenario("an_app_that_finds_the_path_mtu_itself_is_told", link(), 1, |tunnel| {
        ping(tunnel, &format!("-M do -s 1100 {TARGET}"))?.expect_code(0)?;
        ping(tunnel, &format!("-M do -s 1450 {TARGET}"))?.expect_code(1)?.expect_text("message too long")?;
        Ok(())
    });
}

#[test]
fn traceroute_sees_the_server_and_the_target() {
    tunnel_scenario("traceroute_sees_the_server_and_the_target", link(), 1, |tunnel| {
        let words = format!("-n -q 2 -w 2 -m 4 {TARGET}");
        let hops = tunnel.client().program("traceroute")?.words(&words).run(LIMIT)?.expect_code(0)?;
        let hop = |number: usize| hops.stdout.lines().nth(number).context("too few hops").map(str::to_owned);
        ensure!(hop(1)?.contains(&TUNNEL_SERVER.to_string()), "{}", hops.stdout);
        ensure!(hop(2)?.contains(&TARGET.to_string()), "{}", hops.stdout);
        Ok(())
    });
}

fn link() -> Setup {
    Setup::link(Profile::long_line(50_000_000, Duration::from_millis(40), 0.0))
}

fn ping(tunnel: &Tunnel<'_>, words: &str) -> Result<Finished> {
    tunnel.client().program("ping")?.words("-n -c 3 -i 0.2 -W 2").words(words).run(LIMIT)
}

fn names(tunnel: &Tunnel<'_>, host: IpAddr) -> Result<()> {
    for transport in ["+notcp", "+tcp"] {
        for (record, answer) in [("A", TARGET.to_string()), ("AAAA", TARGET_V6.to_string())] {
            let words = format!("{NAME} {record} {transport} +time=3 +tries=3");
            services::dig_with(tunnel.client(), host, &words)?.expect_text(&answer)?;
        }
    }
    Ok(())
}

/// 10 Mbit/s of datagrams as QUIC sends them, over a link that could carry five times as much; a busy machine loses some.
fn bulk_udp(tunnel: &Tunnel<'_>, host: IpAddr, direction: &str) -> Result<()> {
    let report =
        services::iperf(tunnel.client(), host, &format!("-u -b 10M -l 1200 -n 2M {direction}"), LIMIT)?;
    let lost = report["end"]["sum"]["lost_percent"].as_f64().context("no loss in iperf3's report")?;
    ensure!(lost < 50.0, "{host}: {lost} % of the datagrams were lost");
    Ok(())
}
