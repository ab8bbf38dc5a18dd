//! The boxes of the emulator against real kernels: what they do to plain TCP and UDP, without a tunnel.
//!
//! ```text
//!   client ──[ 10 ms ]──(box)── router ── target
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{TARGET, TARGET_V6, client, url};
use netns_tests::emulator::{Line, Loss, Middlebox, Profile, Segment, Stats, Towards};
use netns_tests::probe::Probe;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, HTTP_PORT, Services, curl, seen_from};
use netns_tests::topology::{Setup, Topology};
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(30);
const MEBI: usize = 1 << 20;

/// What curl says of a transfer that ended early, of one that took too long, and of one that was reset.
const PARTIAL_FILE: i32 = 18;
const TIMEOUT: i32 = 28;
const RESET: i32 = 56;

fn line() -> Setup {
    Setup::link(Profile { delay: Duration::from_millis(10), ..Profile::CLEAR })
}

fn lossy() -> Setup {
    let profile = Profile { delay: Duration::from_millis(10), loss: Loss::Random(0.01), ..Profile::CLEAR };
    Setup::link(profile)
}

#[test]
fn honest_connections_of_a_kernel_pass_the_boxes_that_look_at_their_numbers() {
    let setup = lossy().with(Middlebox::RequireHandshake).with(Middlebox::RequireWindow);
    scenario("honest_connections_of_a_kernel_pass_the_boxes_that_look_at_their_numbers", setup, |topology| {
        let services = Services::start(topology, 4 * MEBI)?;
        for host in [IpAddr::from(TARGET), IpAddr::from(TARGET_V6)] {
            services.download(topology.client(), host, LIMIT)?;
            services.upload(topology.client(), host, LIMIT)?;
        }
        for stats in topology.link().stats()? {
            ensure!((stats.no_handshake, stats.out_of_window) == (0, 0), "{stats:?}");
            ensure!(stats.lost > 0, "{stats:?}");
        }
        Ok(())
    });
}

#[test]
fn a_kernel_believes_a_forged_reset_and_a_forged_end() {
    let forge = |segment| Middlebox::Forge { segment, towards: Towards::Client, after: 30, every: None };
    scenario("a_kernel_believes_a_forged_reset_and_a_forged_end", line(), |topology| {
        let _services = Services::start(topology, 4 * MEBI)?;
        for (segment, code) in [(Segment::Reset, RESET), (Segment::Fin, PARTIAL_FILE)] {
            for host in [IpAddr::from(TARGET), IpAddr::from(TARGET_V6)] {
                // What an ended connection has under way would be another one for the next box.
                wait_for_quiet(topology)?;
                topology.link().set_middleboxes(vec![forge(segment)])?;
                fetch(topology, host, LIMIT)?.expect_code(code).with_context(|| format!("{segment:?}"))?;
            }
        }
        let forged = topology.link().counted(|stats| stats.forged)?;
        ensure!(forged == [0, 4], "{forged:?} were forged");
        Ok(())
    });
}

#[test]
fn a_connection_is_killed_after_its_bytes_and_a_new_one_works() {
    let kill = Middlebox::KillFlow { after_bytes: Some(2 << 20), after_time: None };
    scenario("a_connection_is_killed_after_its_bytes_and_a_new_one_works", line().with(kill), |topology| {
        let _services = Services::start(topology, 4 * MEBI)?;
        fetch(topology, TARGET, Duration::from_secs(2))?.expect_code(TIMEOUT)?;
        ensure!(topology.link().counted(|stats| stats.killed)?[1] > 0);
        ensure!(seen_from(topology.client(), TARGET, LIMIT)? == client(0));
        Ok(())
    });
}

#[test]
fn a_policer_slows_a_connection_down() {
    let police = Middlebox::Police { rate: 8_000_000, burst: 30_000 };
    scenario("a_policer_slows_a_connection_down", line().with(police), |topology| {
        let services = Services::start(topology, MEBI)?;
        let took = services.download(topology.client(), TARGET, LIMIT)?.elapsed;
        ensure!(took > Duration::from_secs(1), "1 MiB at 8 Mbit/s in {took:?}");
        ensure!(topology.link().counted(|stats| stats.policed)?[1] > 0);
        Ok(())
    });
}

#[test]
fn a_polite_router_shrinks_packets_and_a_black_hole_swallows_them() {
    scenario("a_polite_router_shrinks_packets_and_a_black_hole_swallows_them", line(), |topology| {
        let services = Services::start(topology, MEBI)?;
        topology.link().set_middleboxes(vec![Middlebox::Mtu { size: 1300, icmp: false }])?;
        fetch(topology, TARGET, Duration::from_secs(2))?.expect_code(TIMEOUT)?;
        ensure!(topology.link().counted(|stats| stats.forged)? == [0, 0]);
        topology.link().set_middleboxes(vec![Middlebox::Mtu { size: 1300, icmp: true }])?;
        // One that was told says so to the other end in its next handshake, so each is told about one family.
        services.upload(topology.client(), TARGET, LIMIT)?;
        services.download(topology.client(), TARGET_V6, LIMIT)?;
        let told = topology.link().counted(|stats| stats.forged)?;
        ensure!(told.iter().all(|count| *count > 0), "{told:?} messages");
        Ok(())
    });
}

#[test]
fn a_rebound_nat_breaks_old_connections_and_carries_new_ones() {
    let outside = [IpAddr::from(Ipv4Addr::new(10, 0, 1, 77)), IpAddr::from(OUTSIDE_V6)];
    let nat = Middlebox::Nat { every: None, addresses: outside.to_vec() };
    scenario("a_rebound_nat_breaks_old_connections_and_carries_new_ones", line().with(nat), |topology| {
        let services = Services::start(topology, 32 * MEBI)?;
        ensure!(seen_from(topology.client(), TARGET, LIMIT)? == client(0), "before it was rebound");
        let curl = services.start_download(topology.client(), TARGET, Duration::from_secs(3))?;
        wait::until("the download to run", LIMIT, || {
            Ok((services.downloaded(topology.client()) > 1 << 20).then_some(()))
        })?;
        topology.link().rebind()?;
        // The target has never heard of the new source.
        let code = curl.finish(LIMIT)?.code();
        ensure!(matches!(code, Some(RESET | TIMEOUT)), "curl ended with {code:?}");
        for (host, seen) in [IpAddr::from(TARGET), IpAddr::from(TARGET_V6)].into_iter().zip(outside) {
            ensure!(seen_from(topology.client(), host, LIMIT)? == seen, "{host}");
        }
        services::dig(topology.client(), 1)?;
        ensure!(topology.link().counted(|stats| stats.translated)?.iter().all(|count| *count > 0));
        Ok(())
    });
}

#[test]
fn a_limit_for_udp_lets_so_much_through_and_tcp_passes() {
    let limit = Middlebox::LimitUdp { rate: 4_000_000, burst: 20_000 };
    scenario("a_limit_for_udp_lets_so_much_through_and_tcp_passes", line().with(limit), |topology| {
        let services = Services::start(topology, MEBI)?;
        // Far more than the limit, so that something is dropped however slowly the machine sends.
        let probe = Probe { count: 1000, gap: Duration::from_micros(100), size: 1000 };
        let outcome = probe.run(topology.client(), &topology.target, TARGET)?;
        let (through, span) = (outcome.arrivals.len(), outcome.span());
        let allowed = 20_000.0 + 4e6 / 8.0 * span.as_secs_f64();
        ensure!(through >= 20 && through as f64 * 1000.0 <= allowed, "{through} came in {span:?}");
        let limited = topology.link().counted(|stats| stats.udp_limited)?;
        ensure!(limited == [1000 - through as u64, 0] && limited[0] > 0, "{limited:?}, {through} came");
        services.download(topology.client(), TARGET, LIMIT)?;
        Ok(())
    });
}

#[test]
fn what_line_and_boxes_have_seen_adds_up() {
    let profile = Profile { duplicate: 0.05, corrupt: 0.02, loss: Loss::bursts(0.05, 4.0), ..Profile::CLEAR };
    let forge =
        Middlebox::Forge { segment: Segment::Fin, towards: Towards::Router, after: 5, every: Some(50) };
    let setup = Setup::line(Line::new(profile).with(forge));
    scenario("what_line_and_boxes_have_seen_adds_up", setup, |topology| {
        let _services = Services::start(topology, MEBI)?;
        // Whether it works is not the question.
        fetch(topology, TARGET, Duration::from_secs(1))?;
        let probe = Probe { count: 2000, gap: Duration::from_micros(200), size: 500 };
        probe.run(topology.client(), &topology.target, TARGET)?;
        probe.run(&topology.target, topology.client(), client(0))?;
        topology.client().ip("link set eth0 down")?;
        for stats in topology.link().stats()? {
            let entered = stats.received + stats.duplicated + stats.forged;
            ensure!(entered == stats.forwarded + stats.dropped(), "{stats:?}");
            ensure!(stats.duplicated > 0 && stats.corrupted > 0 && stats.lost > 0, "{stats:?}");
        }
        Ok(())
    });
}

/// Waits until nothing of an ended connection is left: no socket at either end, and nothing on the line.
fn wait_for_quiet(topology: &Topology) -> Result<()> {
    let mut before = None;
    wait::until("the end of all that is under way", LIMIT, || {
        let sockets = [topology.client(), &topology.target].map(|node| node.run("ss -Htn"));
        let stats = topology.link().stats()?;
        let is_empty = |stats: &Stats| {
            stats.received + stats.duplicated + stats.forged == stats.forwarded + stats.dropped()
        };
        let mut is_quiet = before.replace(stats) == Some(stats) && stats.iter().all(is_empty);
        for list in sockets {
            is_quiet &= list?.trim().is_empty();
        }
        Ok(is_quiet.then_some(()))
    })
}

/// Fetches the file and forgets it.
fn fetch(
    topology: &Topology,
    host: impl Into<IpAddr>,
    limit: Duration,
) -> Result<netns_tests::process::Finished> {
    let url = url(host, HTTP_PORT, services::FILE);
    curl(topology.client(), &url, limit)?.args(["-o", "/dev/null"]).run(LIMIT * 2)
}

/// Beyond a NAT, in the client's network.
const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x77);
