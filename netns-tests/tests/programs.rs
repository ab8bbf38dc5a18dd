//! More of what people run: names by UDP and by TCP, pings and bulk UDP, over both families.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 40 ms ]── router ── server ── target
//!     dig, ping, iperf3 -u                      dnsmasq, iperf3
//! ```

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{TARGET, TARGET_V6};
use netns_tests::emulator::Profile;
use netns_tests::services::{self, NAME};
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn names_pings_and_bulk_udp_pass_over_both_families() {
    let profile = Profile::long_line(50_000_000, Duration::from_millis(40), 0.0);
    tunnel_scenario("names_pings_and_bulk_udp_pass_over_both_families", Setup::link(profile), 1, |tunnel| {
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

fn names(tunnel: &Tunnel<'_>, host: IpAddr) -> Result<()> {
    for transport in ["+notcp", "+tcp"] {
        for (record, answer) in [("A", TARGET.to_string()), ("AAAA", TARGET_V6.to_string())] {
            let words = format!("{NAME} {record} {transport} +time=3 +tries=3");
            services::dig_with(tunnel.client(), host, &words)?.expect_text(&answer)?;
        }
    }
    Ok(())
}

/// 10 Mbit/s of datagrams as QUIC sends them, over a link that could carry five times as much.
fn bulk_udp(tunnel: &Tunnel<'_>, host: IpAddr, direction: &str) -> Result<()> {
    let report =
        services::iperf(tunnel.client(), host, &format!("-u -b 10M -l 1200 -n 2M {direction}"), LIMIT)?;
    let lost = report["end"]["sum"]["lost_percent"].as_f64().context("no loss in iperf3's report")?;
    ensure!(lost < 5.0, "{host}: {lost} % of the datagrams were lost");
    Ok(())
}
