//! Client and server on one host, over its loopback or its own address.
//!
//! ```text
//!   client ── router ── server: app ─> vpn0 ══ vpn up ══ lo ══ vpn serve ─> target
//! ```
//!
//! What the server sends on for the tunnel would go into the tunnel again: the user's own rule keeps what this program sends
//! outside, and apps run as another user.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{SERVER, SERVER_V6, TARGET, TARGET_V6, url};
use netns_tests::host_state::HostState;
use netns_tests::node::Node;
use netns_tests::process::Finished;
use netns_tests::scenario::scenario;
use netns_tests::services::{HTTP_PORT, Services, checksum};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{PORT, Vpn};

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 10 << 20;

#[test]
fn client_and_server_work_on_one_host_over_loopback() {
    on_one_host("client_and_server_work_on_one_host_over_loopback", "127.0.0.1");
}

#[test]
fn client_and_server_work_on_one_host_over_its_own_address() {
    on_one_host("client_and_server_work_on_one_host_over_its_own_address", &SERVER.to_string());
}

#[test]
fn client_and_server_work_on_one_host_over_its_own_ipv6_address() {
    on_one_host("client_and_server_work_on_one_host_over_its_own_ipv6_address", &format!("[{SERVER_V6}]"));
}

fn on_one_host(name: &str, address: &str) {
    scenario(name, Setup::PLAIN, |topology| {
        let services = Services::start(topology, SIZE)?;
        let vpn = Vpn::prepare(topology)?;
        let listen = format!("[\"0.0.0.0:{PORT}\", \"[::]:{PORT}\"]");
        vpn.write("server.toml", &vpn.server_config().replace(&format!("[\"0.0.0.0:{PORT}\"]"), &listen))?;
        // This host's own route to the target would otherwise win over the tunnel's.
        let config =
            vpn.client_config(0, "lan = false").replace(&format!("{SERVER}:"), &format!("{address}:"));
        vpn.write("client0/client.toml", &config)?;
        let host = &topology.server;
        let _serve = vpn.serve(topology)?;
        let before = HostState::of(host)?;
        vpn.try_up(host, &vpn.client_path(0), "--route 192.0.2.0/24 --route 2001:db8:200::/64")?
            .expect_code(0)?;
        // In front of the tunnel's rules, which are in front of all that were there before.
        each_version(host, "rule add priority 100 uidrange 0-0 lookup main")?;
        for target in [IpAddr::from(TARGET), TARGET_V6.into()] {
            let seen = as_nobody(host, &url(target, HTTP_PORT, "/seen-from"), &[])?.stdout;
            ensure!(seen.parse::<IpAddr>()?.is_ipv4() == target.is_ipv4(), "{seen}");
            copies_files(topology, &services, target)?;
        }
        let session = client_of(&vpn.status(host)?)?["session"].clone();
        for way in ["goodput_sent_bytes", "goodput_received_bytes"] {
            let bytes = session[way].as_u64().unwrap_or(0);
            ensure!(bytes >= 2 * SIZE as u64, "{bytes} {way} of the tunnel: files went past it");
        }
        vpn.program(host)?.arg("down").arg(vpn.client_path(0)).run(LIMIT)?.expect_code(0)?;
        each_version(host, "rule del priority 100")?;
        before.expect_unchanged(host)
    });
}

/// `ip` for both versions of IP.
fn each_version(host: &Node, arguments: &str) -> Result<()> {
    host.ip(&format!("-4 {arguments}"))?;
    host.ip(&format!("-6 {arguments}"))?;
    Ok(())
}

/// A download and an upload by a user to whom the host's own rule does not apply.
fn copies_files(topology: &Topology, services: &Services, target: IpAddr) -> Result<()> {
    let directory = topology.work().join("nobody");
    std::fs::create_dir_all(&directory)?;
    std::os::unix::fs::chown(&directory, Some(NOBODY), None)?;
    let wanted = checksum(&services.file())?;
    let copy = directory.join("copy");
    as_nobody(&topology.server, &url(target, HTTP_PORT, "/file"), &["-o", &copy.to_string_lossy()])?;
    ensure!(checksum(&copy)? == wanted, "another file was downloaded from {target}");
    let source = services.file();
    as_nobody(
        &topology.server,
        &url(target, HTTP_PORT, "/upload/nobody"),
        &["-T", &source.to_string_lossy()],
    )?;
    let uploaded = topology.work().join("www/upload/nobody");
    ensure!(checksum(&uploaded)? == wanted, "another file was uploaded to {target}");
    std::fs::remove_file(uploaded)?;
    Ok(())
}

/// curl as a user that is not root.
fn as_nobody(host: &Node, url: &str, arguments: &[&str]) -> Result<Finished> {
    let user = NOBODY.to_string();
    let program = host.program("setpriv")?.args(["--reuid", &user, "--clear-groups", "--"]);
    let curl =
        program.args(["curl", "-sS", "--fail", "--noproxy", "*", "--max-time", "30", url]).args(arguments);
    curl.run(LIMIT)?.expect_code(0)
}

/// The client among the tunnels of a host that has both ends.
fn client_of(status: &serde_json::Value) -> Result<&serde_json::Value> {
    let tunnels = status["tunnels"].as_array().map_or(&[][..], Vec::as_slice);
    tunnels.iter().find(|tunnel| tunnel["role"] == "client").context("no client in status --json")
}

/// Nobody's user id.
const NOBODY: u32 = 65_534;
