//! Either end starts anew in mid-download: the old connection ends at once, a new one works.
//!
//! ```text
//!   client ──[ 10 Mbit/s, 40 ms ]── router ── server ── target
//!     ⟳ kill -9, or down and up                  ⟳ SIGTERM, or kill -9
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER_BACK, TARGET};
use netns_tests::emulator::Profile;
use netns_tests::process::Process;
use netns_tests::services::{self, HTTP_PORT};
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};
use netns_tests::vpn::PROGRAM;
use netns_tests::wait;
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(60);
const SIZE: usize = 8 << 20;

/// A fifth of the file.
const UNDER_WAY: u64 = SIZE as u64 / 5;

/// Far below the 60 s after which anybody gives up by himself; the machine may be busy.
const PROMPTLY: Duration = Duration::from_secs(10);

#[test]
fn a_server_that_restarts_resets_the_old_connections_and_takes_new_ones() {
    restart_server("a_server_that_restarts_resets_the_old_connections_and_takes_new_ones", Signal::TERM);
}

#[test]
fn a_server_killed_and_started_resets_the_old_connections_and_takes_new_ones() {
    restart_server("a_server_killed_and_started_resets_the_old_connections_and_takes_new_ones", Signal::KILL);
}

fn restart_server(name: &str, signal: Signal) {
    tunnel_scenario(name, link(), SIZE, |tunnel| {
        let curl = tunnel.begin_download(UNDER_WAY)?;
        tunnel.serve.signal(signal)?;
        tunnel.vpn.wait_for_end(&tunnel.topology.server)?;
        tunnel.serve = tunnel.vpn.serve(tunnel.topology)?;
        expect_reset(curl)?;
        tunnel.download()?;
        ensure!(services::seen_from(tunnel.client(), TARGET, LIMIT)? == SERVER_BACK);
        Ok(())
    });
}

#[test]
fn a_client_killed_and_started_replaces_its_session() {
    tunnel_scenario("a_client_killed_and_started_replaces_its_session", link(), SIZE, |tunnel| {
        // An upload: who only receives has nothing to ask, and is not told, by a host that knows nothing of him.
        let curl = tunnel.services.start_upload(tunnel.client(), TARGET, LIMIT)?;
        wait::until("the upload to be under way", LIMIT, || {
            let received =
                tunnel.vpn.tunnel(&tunnel.topology.server)?["session"]["goodput_received_bytes"].as_u64();
            Ok(received.filter(|bytes| *bytes >= UNDER_WAY))
        })?;
        tunnel.client().signal_all(PROGRAM, Signal::KILL)?;
        tunnel.vpn.wait_for_end(tunnel.client())?;
        // The server holds the old session and its connection to the target: it cannot know.
        ensure!(connections_to_target(tunnel)? == 1);
        tunnel.vpn.up(tunnel.topology, 0, "")?;
        expect_new_session(tunnel, curl)
    });
}

#[test]
fn a_client_taken_down_and_up_begins_a_new_session() {
    tunnel_scenario("a_client_taken_down_and_up_begins_a_new_session", link(), SIZE, |tunnel| {
        let curl = tunnel.begin_download(UNDER_WAY)?;
        tunnel.vpn.down(tunnel.topology, 0)?.expect_code(0)?;
        wait::until("the server to end the connections of who left", PROMPTLY, || {
            Ok((connections_to_target(tunnel)? == 0).then_some(()))
        })?;
        tunnel.vpn.up(tunnel.topology, 0, "")?;
        expect_new_session(tunnel, curl)
    });
}

/// The old session is gone from the server, the old curl is told so, and new connections work.
fn expect_new_session(tunnel: &Tunnel<'_>, curl: Process) -> Result<()> {
    wait::until("the server to end the old connection to the target", PROMPTLY, || {
        Ok((connections_to_target(tunnel)? == 0).then_some(()))
    })?;
    expect_reset(curl)?;
    let peers = tunnel.vpn.tunnel(&tunnel.topology.server)?["peers"].clone();
    ensure!(peers[0]["state"] == "up" && peers[0]["flows"]["open"] == 0, "{peers}");
    tunnel.download()?;
    ensure!(services::seen_from(tunnel.client(), TARGET, LIMIT)? == SERVER_BACK);
    Ok(())
}

/// The curl of a connection that nobody knows any more ends soon, with an error.
fn expect_reset(curl: Process) -> Result<()> {
    let curl = curl.finish(PROMPTLY)?.expect_text("reset")?;
    ensure!([CURL_FAILED_TO_SEND, CURL_FAILED_TO_RECEIVE].map(Some).contains(&curl.code()), "{curl:?}");
    Ok(())
}

/// How many connections the server holds to the target's files.
fn connections_to_target(tunnel: &Tunnel<'_>) -> Result<usize> {
    let list = tunnel.topology.server.run(&format!("ss -Htn state established dport = :{HTTP_PORT}"))?;
    Ok(list.lines().count())
}

fn link() -> Setup {
    // So slow that a transfer is under way for seconds, whatever the machine does at the moment.
    Setup::link(Profile::long_line(10_000_000, Duration::from_millis(40), 0.0))
}

/// curl's exit codes for a connection that was reset, from its manual.
const CURL_FAILED_TO_SEND: i32 = 55;
const CURL_FAILED_TO_RECEIVE: i32 = 56;
