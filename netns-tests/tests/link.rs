//! The ground the other scenarios stand on: the link does what it was asked for, and nothing is left of a topology.
//!
//! ```text
//!   client ──[ link: delay, loss, rate, no UDP ]── router ── target
//! ```

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{TARGET, TARGET_BACK, TARGET_V6, UNREACHABLE, UNREACHABLE_V6, client, url};
use netns_tests::emulator::{Blackouts, Loss, Profile, Reorder};
use netns_tests::probe::Probe;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, HTTP_PORT, NO_NETWORK, NO_ROUTE, REFUSED, Services, fail_to_connect};
use netns_tests::topology::{Setup, Topology};

const LIMIT: Duration = Duration::from_secs(30);
const MEBI: usize = 1 << 20;

#[test]
fn delays_and_loses_as_asked() {
    let profile = Profile { loss: Loss::Random(0.05), ..delayed() };
    scenario("delays_and_loses_as_asked", Setup::link(profile), |topology| {
        let (answered, mean) = services::ping(topology.client(), TARGET, 200)?;
        let mean = mean.context("no answer")?;
        ensure!(mean >= 100.0, "a round trip of {mean} ms");
        // Both ways: 0.95² = 0.9025; three standard deviations of 200.
        ensure!((0.83..=0.97).contains(&answered), "{answered} answered");
        // A busy machine adds to most delays, but not to all. The two clocks may drift a little.
        let probe = Probe { count: 500, gap: Duration::from_millis(1), size: 100 };
        let quickest = probe.run(topology.client(), &topology.target, TARGET)?.delay(0.0);
        let allowed = Duration::from_micros(49_900)..Duration::from_millis(53);
        ensure!(allowed.contains(&quickest), "the quickest took {quickest:?}");
        expect_carried_by_the_shell(topology)
    });
}

#[test]
fn does_to_datagrams_what_it_was_asked_for() {
    scenario("does_to_datagrams_what_it_was_asked_for", Setup::link(Profile::CLEAR), |topology| {
        let probe = Probe { count: 10_000, gap: Duration::from_micros(100), size: 100 };
        let measure = |profile| {
            topology.link().set_profiles([profile, Profile::CLEAR])?;
            probe.run(topology.client(), &topology.target, TARGET)
        };
        let bursts = measure(Profile { loss: Loss::bursts(0.1, 10.0), ..Profile::CLEAR })?;
        let mean = bursts.loss() * f64::from(probe.count) / bursts.losses().len() as f64;
        ensure!((0.05..0.15).contains(&bursts.loss()), "{} lost", bursts.loss());
        ensure!((6.0..15.0).contains(&mean), "bursts of {mean}");

        let mixed = measure(Profile { reorder: Reorder::new(0.05, 3), duplicate: 0.05, ..Profile::CLEAR })?;
        let overtaken = mixed.overtaken();
        ensure!((350..650).contains(&overtaken.len()), "{} overtaken", overtaken.len());
        let mean = overtaken.iter().sum::<usize>() as f64 / overtaken.len() as f64;
        ensure!((2.5..3.5).contains(&mean), "by {mean} on average");
        ensure!((0.035..0.065).contains(&mixed.duplicated()), "{} duplicated", mixed.duplicated());
        ensure!(mixed.loss() == 0.0, "{} lost", mixed.loss());

        let half = Duration::from_millis(500);
        let dark = measure(Profile { blackouts: Some(Blackouts::once(half / 2, half)), ..Profile::CLEAR })?;
        let (surely, at_most) = dark.longest_silence();
        // The two clocks may drift a little.
        let slack = Duration::from_millis(1);
        ensure!(surely < half + slack && at_most > half - slack, "dark for {surely:?} to {at_most:?}");
        expect_carried_by_the_shell(topology)
    });
}

#[test]
fn carries_tcp_at_the_rate_it_was_given() {
    let profile = Profile { rate: Some(100_000_000), queue: Duration::from_millis(100), ..delayed() };
    scenario("carries_tcp_at_the_rate_it_was_given", Setup::link(profile), |topology| {
        let services = Services::start(topology, 50 * MEBI)?;
        for host in [TARGET.into(), std::net::IpAddr::from(TARGET_V6)] {
            let seconds = services.download(topology.client(), host, LIMIT)?.elapsed.as_secs_f64();
            let rate = 50.0 * 8.389 / seconds;
            // How much less is a matter of the machine.
            ensure!((20.0..100.0).contains(&rate), "{rate} Mbit/s from {host}");
        }
        services.upload(topology.client(), TARGET, LIMIT)?;
        expect_carried_by_the_shell(topology)
    });
}

#[test]
fn drops_every_udp_packet_and_nothing_else() {
    scenario(
        "drops_every_udp_packet_and_nothing_else",
        Setup::link(Profile::CLEAR).without_udp(),
        |topology| {
            let services = Services::start(topology, MEBI)?;
            ensure!(services::dig(topology.client(), 1).is_err(), "a name was resolved over UDP");
            services::dig(&topology.server, 1)?;
            services.download(topology.client(), TARGET, LIMIT)?;
            Ok(())
        },
    );
}

#[test]
fn a_capture_gives_back_the_first_data_of_a_connection() {
    scenario("a_capture_gives_back_the_first_data_of_a_connection", Setup::PLAIN, |topology| {
        let _services = Services::start(topology, MEBI)?;
        let capture = topology.router.capture("client0", &format!("tcp port {HTTP_PORT}"))?;
        services::seen_from(topology.client(), TARGET, LIMIT)?;
        let first = capture.finish_first_data(&topology.router)?;
        ensure!(first.contains(&format!("Host: {TARGET}")) && !first.contains("200 OK"), "{first}");
        Ok(())
    });
}

#[test]
fn a_killed_flow_is_dead_and_a_blackout_ends() {
    scenario("a_killed_flow_is_dead_and_a_blackout_ends", Setup::link(delayed()), |topology| {
        let services = Services::start(topology, MEBI)?;
        services.download(topology.client(), TARGET, LIMIT)?;
        let flow = topology.link().kill_newest_tcp_flow()?;
        ensure!(flow.ends.iter().any(|end| end.ip() == client(0)), "{flow:?}");
        topology.link().set_blackout(true)?;
        ensure!(services::ping(topology.client(), TARGET, 3)?.0 == 0.0, "an answer through a blackout");
        topology.link().set_blackout(false)?;
        ensure!(services::ping(topology.client(), TARGET, 3)?.0 == 1.0, "no answer after the blackout");
        services.download(topology.client(), TARGET, LIMIT)?;
        Ok(())
    });
}

#[test]
fn the_target_is_faithful_without_a_tunnel() {
    scenario("the_target_is_faithful_without_a_tunnel", Setup::link(delayed()).clients(2), |topology| {
        let _services = Services::start(topology, MEBI)?;
        for (n, node) in (0..).zip(&topology.clients) {
            ensure!(services::seen_from(node, TARGET, LIMIT)? == client(n));
            ensure!(services::seen_from(node, TARGET_BACK, LIMIT)? == client(n));
        }
        let soon = Duration::from_secs(2);
        fail_to_connect(topology.client(), &url(TARGET, 81, "/"), REFUSED, LIMIT)?.expect_within(soon)?;
        // A router answers for an unreachable route with "host unreachable" in IPv4, with "no route" in IPv6.
        for (url, reason) in
            [(url(UNREACHABLE, 80, "/"), NO_ROUTE), (url(UNREACHABLE_V6, 80, "/"), NO_NETWORK)]
        {
            fail_to_connect(topology.client(), &url, reason, LIMIT)?.expect_within(soon)?;
        }
        Ok(())
    });
}

#[test]
fn nothing_is_left_of_a_topology_and_the_host_is_not_touched() {
    let before = host().unwrap();
    let topology = Topology::build(Setup::link(delayed())).unwrap();
    let services = Services::start(&topology, MEBI).unwrap();
    topology.client().run("mkdir -p /run/vpn/client /var/lib/vpn").unwrap();
    topology
        .client()
        .program("tee")
        .unwrap()
        .arg("/etc/resolv.conf")
        .input("nameserver 192.0.2.53\n")
        .output()
        .unwrap();
    let names: Vec<String> = topology.clients.iter().map(|node| node.namespace().name().to_owned()).collect();
    assert!(Path::new("/run/netns").join(&names[0]).exists());
    let work = topology.work().to_owned();
    drop(services);
    drop(topology);
    assert!(!Path::new("/run/netns").join(&names[0]).exists());
    assert!(!work.exists());
    assert_eq!(before, host().unwrap());
}

fn delayed() -> Profile {
    Profile { delay: Duration::from_millis(50), ..Profile::CLEAR }
}

/// The machine kept up with the link: nothing was lost that the link was not asked to lose.
fn expect_carried_by_the_shell(topology: &Topology) -> Result<()> {
    let shell = topology.link().shell_stats()?;
    ensure!(shell.overruns == 0 && shell.unsent == 0, "{shell:?}");
    Ok(())
}

/// What a topology could have changed on the host itself.
fn host() -> Result<(String, String, bool, bool)> {
    let links = std::process::Command::new("ip").args(["-o", "link"]).output()?;
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let exists = |path| Path::new(path).exists();
    Ok((String::from_utf8(links.stdout)?, resolv_conf, exists("/run/vpn"), exists("/var/lib/vpn")))
}
