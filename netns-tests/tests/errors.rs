//! What goes wrong is said in one sentence with the documented exit code, and leaves nothing behind.
//!
//! ```text
//!   client ──── router ──── server
//!     vpn up: exit 1, 2, 3, 4, 5
//! ```

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::SERVER;
use netns_tests::host_state::HostState;
use netns_tests::process::Finished;
use netns_tests::scenario::scenario;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::{Keys, PORT, Vpn};

const LIMIT: Duration = Duration::from_secs(40);

#[test]
fn an_unknown_client_key_is_refused_with_five() {
    fails("an_unknown_client_key_is_refused_with_five", |topology, vpn| {
        let _serve = vpn.serve(topology)?;
        let stranger = Keys::of_a_stranger(vpn, topology.client())?;
        let config = vpn.client_config(0, "").replace(&vpn.client_keys[0].private, &stranger.private);
        up(topology, vpn, &config)?.expect_code(5)?.expect_text("does not know this key")?;
        Ok(())
    });
}

#[test]
fn a_wrong_server_key_ends_with_four_and_is_named() {
    fails("a_wrong_server_key_ends_with_four_and_is_named", |topology, vpn| {
        let _serve = vpn.serve(topology)?;
        let stranger = Keys::of_a_stranger(vpn, topology.client())?;
        let config = vpn.client_config(0, "").replace(&vpn.server_keys.public, &stranger.public);
        up(topology, vpn, &config)?.expect_code(4)?.expect_text("server_key")?;
        Ok(())
    });
}

#[test]
fn a_server_that_does_not_answer_ends_with_four() {
    fails("a_server_that_does_not_answer_ends_with_four", |topology, vpn| {
        // Nobody there at all: the router does not know the way.
        let config = vpn.client_config(0, "").replace(&format!("{SERVER}:"), "192.0.2.200:");
        up(topology, vpn, &config)?.expect_code(4)?;
        Ok(())
    });
}

#[test]
fn a_host_without_a_server_ends_with_four() {
    fails("a_host_without_a_server_ends_with_four", |topology, vpn| {
        up(topology, vpn, &vpn.client_config(0, ""))?.expect_code(4)?.expect_text(&SERVER.to_string())?;
        Ok(())
    });
}

#[test]
fn a_busy_port_ends_the_server_with_one() {
    fails("a_busy_port_ends_the_server_with_one", |topology, vpn| {
        let _busy = topology.server.program("iperf3")?.words(&format!("-s -p {PORT}")).start()?;
        topology.server.wait_for_listener(PORT, LIMIT)?;
        let before = HostState::of(&topology.server)?;
        serve(topology, vpn, &vpn.server_path())?.expect_code(1)?.expect_text(&PORT.to_string())?;
        before.expect_unchanged(&topology.server)
    });
}

#[test]
fn an_existing_interface_ends_either_with_one() {
    fails("an_existing_interface_ends_either_with_one", |topology, vpn| {
        for (node, interface) in [(&topology.server, "vpns0"), (topology.client(), "vpn0")] {
            node.ip(&format!("link add {interface} type veth peer other"))?;
        }
        serve(topology, vpn, &vpn.server_path())?.expect_code(1)?.expect_text("vpns0")?;
        topology.server.ip("link del vpns0")?;
        let _serve = vpn.serve(topology)?;
        up(topology, vpn, &vpn.client_config(0, ""))?.expect_code(1)?.expect_text("vpn0")?;
        topology.client().ip("link del vpn0")?;
        Ok(())
    });
}

#[test]
fn a_missing_right_ends_either_with_three() {
    fails("a_missing_right_ends_either_with_three", |topology, vpn| {
        for (node, arguments) in [
            (&topology.server, vec!["serve".into(), "--config".into(), vpn.server_path()]),
            (topology.client(), vec!["up".into(), vpn.client_path(0)]),
        ] {
            for missing in ["-net_admin", "-net_raw"] {
                let dropped = ["--bounding-set", missing, "--inh-caps", missing, "--"];
                let program = node.program("setpriv")?.args(dropped).arg(vpn.path()).args(&arguments);
                program.run(LIMIT)?.expect_code(3)?.expect_text("CAP_NET_")?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_config_error_ends_either_with_two_and_names_its_place() {
    fails("a_config_error_ends_either_with_two_and_names_its_place", |topology, vpn| {
        let bad_client = vpn.client_config(0, "routs = []");
        let failed = up(topology, vpn, &bad_client)?.expect_code(2)?.expect_text("routs")?;
        let line = bad_client.lines().position(|line| line.starts_with("routs")).unwrap_or_default() + 1;
        failed.expect_text(&format!("client.toml:{line}:"))?;
        let bad_server = vpn.write("bad/server.toml", &vpn.server_config().replace("dns = []", "dns = 7"))?;
        serve(topology, vpn, &bad_server)?.expect_code(2)?.expect_text("dns")?;
        let refused = vpn.client_config(0, "kill_switch = true");
        up(topology, vpn, &refused)?.expect_code(2)?.expect_text("kill_switch")?;
        vpn.program(topology.client())?.arg("upp").run(LIMIT)?.expect_code(2)?;
        Ok(())
    });
}

/// Runs `body`, and checks that neither host shows a trace of what failed.
fn fails(name: &str, body: impl FnOnce(&Topology, &Vpn) -> Result<()>) {
    scenario(name, Setup::PLAIN, |topology| {
        let vpn = Vpn::prepare(topology)?;
        let nodes = [topology.client(), &topology.server];
        let before = [HostState::of(nodes[0])?, HostState::of(nodes[1])?];
        body(topology, &vpn)?;
        // `body` has dropped its server by SIGKILL: what that left, the next start removes and the stop after it.
        if !topology.server.is_listening(PORT)? {
            let serve = vpn.serve(topology)?;
            serve.signal(rustix::process::Signal::TERM)?;
            serve.finish(LIMIT)?.expect_code(0)?;
        }
        for (node, before) in nodes.into_iter().zip(before) {
            ensure!(
                node.pids_of(netns_tests::vpn::PROGRAM)?.is_empty(),
                "a vpn still runs on {}",
                node.role()
            );
            before.expect_unchanged(node)?;
        }
        Ok(())
    });
}

fn up(topology: &Topology, vpn: &Vpn, config: &str) -> Result<Finished> {
    let path = vpn.write("failing/client.toml", config)?;
    let finished = vpn.try_up(topology.client(), &path, "")?;
    ensure!(finished.stderr.lines().count() <= 4, "more than a few lines: {}", finished.stderr);
    Ok(finished)
}

fn serve(topology: &Topology, vpn: &Vpn, config: &Path) -> Result<Finished> {
    vpn.program(&topology.server)?.args(["serve", "--config"]).arg(config).run(LIMIT)
}
