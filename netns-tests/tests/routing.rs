//! The user's own routes and rules beside the tunnel's: loops that end, uplinks that are the right ones.
//!
//! ```text
//!          ┌─ eth0 ─ client0 ─┐          ┌─ server ── eth0 ─┐
//!   client ┤                  ├─ router ─┤                  ├ server ── target
//!          └─ eth1 ─ second ──┘          └─ second ── eth1 ─┘
//! ```

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{SERVER, SERVER_BACK, TARGET, TARGET_BACK, client, url};
use netns_tests::emulator::{Direction, Profile};
use netns_tests::host_state::HostState;
use netns_tests::node::Node;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, PROGRAM, Vpn};
use netns_tests::wait;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 20 << 20;

fn link() -> Setup {
    Setup::link(Profile::long_line(50_000_000, Duration::from_millis(40), 0.0))
}

#[test]
fn a_route_that_holds_the_server_leaves_the_carrier_outside() {
    scenario("a_route_that_holds_the_server_leaves_the_carrier_outside", link(), |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, &format!("--route {SERVER}/32 --route 192.0.2.0/24"))?;
        let route = topology.client().ip(&format!("route get {SERVER}"))?;
        ensure!(route.contains("dev vpn0"), "{route}");
        let before = bytes_out(topology)?;
        services.upload(topology.client(), TARGET, LIMIT)?;
        let share = (bytes_out(topology)? - before) as f64 / SIZE as f64;
        ensure!((1.0..1.5).contains(&share), "{share} bytes on the link for each byte sent");
        // What an app sends to the server's address comes out at the server, which does not offer itself.
        let refused = services::curl(topology.client(), &url(SERVER, PORT, "/"), LIMIT)?.run(LIMIT)?;
        refused.expect_code(7)?.expect_within(Duration::from_secs(5))?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn a_carrier_that_the_user_routes_into_its_own_tunnel_is_no_storm() {
    scenario("a_carrier_that_the_user_routes_into_its_own_tunnel_is_no_storm", link(), |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.up(topology, 0, "--route 192.0.2.0/24")?;
        let client = topology.client();
        services.download_through(topology.client(), TARGET, LIMIT, || {
            let before = Effort::of(client)?;
            client.ip(&format!("route add {SERVER} dev vpn0"))?;
            wait::until("the client to notice", LIMIT, || {
                Ok((vpn.tunnel(client)?["state"] == "recovering").then_some(()))
            })?;
            // Each attempt takes a port of its own.
            wait::until("two more attempts", LIMIT, || Ok((guarded_ports(client)? >= 3).then_some(())))?;
            let after = Effort::of(client)?;
            let packets = after.packets - before.packets;
            ensure!(packets < 3_000, "{packets} packets went into the tunnel's device");
            let busy = after.cpu - before.cpu;
            ensure!(busy < Duration::from_secs(3), "the client was busy for {busy:?}");
            client.ip(&format!("route del {SERVER} dev vpn0"))?;
            Ok(())
        })?;
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn a_flow_that_goes_round_through_one_host_ends() {
    scenario("a_flow_that_goes_round_through_one_host_ends", Setup::PLAIN, |topology| {
        let _services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let host = &topology.server;
        let _serve = vpn.serve(topology)?;
        // So little that flows are refused before the SYNs that wait for an answer have no place left: beyond those nothing but the
        // kernel's patience of two minutes would end it.
        let limits = "lan = false\n[limits]\nsession_buffer = \"16MiB\"\nprocess_buffer = \"48MiB\"";
        vpn.write("client0/client.toml", &vpn.client_config(0, limits))?;
        vpn.try_up(host, &vpn.client_path(0), "--route 192.0.2.0/24")?.expect_code(0)?;
        // The server's own connection to the target goes into the tunnel again, and the next one, and the next.
        let round = services::curl(host, &url(TARGET, 80, "/"), LIMIT)?.run(LIMIT)?;
        ensure!(round.code() != Some(0), "curl got an answer: {}", round.stdout);
        wait::until("every flow to end", LIMIT, || {
            let status = vpn.status(host)?;
            let tunnels = status["tunnels"].as_array().context("no tunnels")?;
            let open: u64 = tunnels.iter().filter_map(|tunnel| tunnel["flows"]["open"].as_u64()).sum();
            Ok((open == 0).then_some(()))
        })?;
        // Both are as good as new.
        host.ip("rule add priority 100 to 192.0.2.0/24 lookup main")?;
        ensure!(services::seen_from(host, TARGET, LIMIT)? == SERVER_BACK);
        vpn.program(host)?.arg("down").arg(vpn.client_path(0)).run(LIMIT)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn the_users_rules_and_the_tunnels_leave_each_other_alone() {
    scenario("the_users_rules_and_the_tunnels_leave_each_other_alone", Setup::PLAIN, |topology| {
        let services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        let client = topology.client();
        topology.join((client, "eth1", "10.1.1.2/24"), ("second", "10.1.1.1/24"))?;
        // By source, by mark, and by destination: what is of this uplink or for the server takes the second one.
        for rule in ["from 10.1.1.2", "fwmark 7", &format!("to {SERVER}")] {
            client.ip(&format!("rule add {rule} lookup 101"))?;
        }
        client.ip("route add default via 10.1.1.1 table 101")?;
        let before = HostState::of(client)?;
        vpn.up(topology, 0, "--route 192.0.2.0/24")?;
        let (local, _) = vpn.carrier(topology.client())?.unwrap_or_default();
        ensure!(local.starts_with("10.1.1.2:"), "the carrier leaves from {local}");
        let captures = ["eth0", "eth1"].map(|interface| client.capture(interface, "icmp or tcp port 443"));
        services.download(client, TARGET, LIMIT)?;
        ensure!(services::seen_from(client, TARGET, LIMIT)? == SERVER_BACK);
        ensure!(services::seen_from(client, TARGET_BACK, LIMIT)? == client_address());
        // An answer leaves by the uplink that was asked; what is marked by the one of its mark.
        ping(&topology.target, &format!("-I {TARGET_BACK} 10.1.1.2"))?;
        ping(client, &format!("-m 7 {TARGET_BACK}"))?;
        let [first, second] = captures;
        let first = first?.finish(client, "")?;
        ensure!(first.is_empty(), "on the first uplink: {first:#?}");
        let second = second?.finish(client, "icmp and src 10.1.1.2")?;
        ensure!(second.len() == 2, "on the second uplink: {second:#?}");
        vpn.down(topology, 0)?.expect_code(0)?;
        before.expect_unchanged(client)
    });
}

#[test]
fn a_server_with_two_uplinks_answers_on_the_one_it_was_asked_on() {
    scenario("a_server_with_two_uplinks_answers_on_the_one_it_was_asked_on", Setup::PLAIN, |topology| {
        let services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let server = &topology.server;
        topology.join((server, "eth1", "198.51.101.2/24"), ("second", "198.51.101.1/24"))?;
        server.ip("rule add from 198.51.101.2 lookup 101")?;
        server.ip("route add default via 198.51.101.1 table 101")?;
        // A provider drops what comes from another's addresses.
        topology.router.set_sysctl("net/ipv4/conf/all/rp_filter", "1")?;
        let config = vpn.client_config(0, "").replace(&format!("{SERVER}:"), "198.51.101.2:");
        vpn.write("client0/client.toml", &config)?;
        let _serve = vpn.serve(topology)?;
        let capture = server.capture("eth0", &format!("tcp port {PORT}"))?;
        vpn.up(topology, 0, "")?;
        services.download(topology.client(), TARGET, LIMIT)?;
        services.upload(topology.client(), TARGET, LIMIT)?;
        let wrong = capture.finish(server, "")?;
        ensure!(wrong.is_empty(), "on the other uplink: {:#?}", wrong.first());
        vpn.down(topology, 0)?.expect_code(0)?;
        Ok(())
    });
}

/// What a client has done so far.
struct Effort {
    /// Sent into the tunnel's device by the kernel.
    packets: u64,
    cpu: Duration,
}

impl Effort {
    fn of(node: &Node) -> Result<Self> {
        let links: Value = serde_json::from_str(&node.ip("-json -statistics link show dev vpn0")?)?;
        let packets = links[0]["stats64"]["tx"]["packets"].as_u64().context("no counters of vpn0")?;
        let times = node.pids_of(PROGRAM)?.into_iter().map(cpu_time).collect::<Result<Vec<_>>>()?;
        Ok(Self { packets, cpu: times.into_iter().sum() })
    }
}

/// The processor time that a process has used (proc_pid_stat(5)).
fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
    let ticks = |field: usize| fields.split(' ').nth(field).and_then(|ticks| ticks.parse::<u64>().ok());
    let total = ticks(11).zip(ticks(12)).map(|(user, system)| user + system).context("no times in stat")?;
    Ok(Duration::from_secs(total) / u32::try_from(rustix::param::clock_ticks_per_second())?)
}

/// The ports that a client holds silent: one for each carrier, one for each attempt of the last minute.
fn guarded_ports(node: &Node) -> Result<usize> {
    Ok(node.run("ss -Hltn src 0.0.0.0")?.lines().count())
}

fn bytes_out(topology: &Topology) -> Result<u64> {
    Ok(topology.link().stats()?.get(Direction::Out.index()).context("no lane")?.forwarded_bytes)
}

fn client_address() -> IpAddr {
    client(0).into()
}

/// One ping, answered.
fn ping(node: &Node, words: &str) -> Result<()> {
    node.program("ping")?.words("-n -q -c 1 -W 5").words(words).run(LIMIT)?.expect_code(0)?;
    Ok(())
}
