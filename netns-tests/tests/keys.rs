//! Keys that do not fit, and one key on two hosts.
//!
//! ```text
//!   client 0 ──[ 20 ms ]──┐                 ┌ no preshared key, or
//!                         ├── router ── server another: exit 5, one sentence
//!   client 1 ──[ 20 ms ]──┘ same key: client 0 is replaced
//! ```

use std::time::Duration;

use anyhow::{Result, ensure};
use netns_tests::addresses::{SERVER_BACK, TARGET, tunnel_client};
use netns_tests::emulator::Profile;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, Services};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::Vpn;
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(40);

fn link() -> Setup {
    Setup::link(Profile { delay: Duration::from_millis(10), ..Profile::CLEAR })
}

#[test]
fn a_preshared_key_must_be_the_same_on_both_ends() {
    scenario("a_preshared_key_must_be_the_same_on_both_ends", link(), |topology| {
        let _services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let keys = [preshared_key(topology, &vpn)?, preshared_key(topology, &vpn)?];
        for on_server in [None, Some(&keys[0])] {
            let line = on_server.map_or_else(String::new, |key| psk_line(key));
            vpn.write("server.toml", &(vpn.server_config() + &line))?;
            let _serve = vpn.serve(topology)?;
            for on_client in [None, Some(&keys[0]), Some(&keys[1])] {
                let line = on_client.map_or_else(String::new, |key| psk_line(key));
                let config = vpn.write("client0/client.toml", &(line + &vpn.client_config(0, "")))?;
                let up = vpn.try_up(topology.client(), &config, "")?;
                if on_server == on_client {
                    up.expect_code(0)?;
                    ensure!(services::seen_from(topology.client(), TARGET, LIMIT)? == SERVER_BACK);
                    vpn.down(topology, 0)?.expect_code(0)?;
                } else {
                    up.expect_code(5)?.expect_text("preshared_key differs")?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn of_two_hosts_with_one_key_the_older_is_replaced() {
    scenario("of_two_hosts_with_one_key_the_older_is_replaced", link().clients(2), |topology| {
        let services = Services::start(topology, 1 << 20)?;
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.write("client1/client.toml", &vpn.client_config(0, ""))?;
        vpn.up(topology, 0, "")?;
        services.download(topology.client(), TARGET, LIMIT)?;
        vpn.up(topology, 1, "")?;
        wait::until("the first to be replaced", LIMIT, || {
            Ok((vpn.tunnel(topology.client())?["state"] == "replaced").then_some(()))
        })?;
        // It does not take the tunnel back, and it stays the first's business to take its own end down.
        services.download(&topology.clients[1], TARGET, LIMIT)?;
        let second = vpn.tunnel(&topology.clients[1])?;
        ensure!(second["state"] == "up", "{second}");
        let address = topology.clients[1].ip("-o address show dev vpn0")?;
        ensure!(address.contains(&format!("{}/", tunnel_client(0).0)), "{address}");
        vpn.down(topology, 0)?.expect_code(0)?;
        services.download(&topology.clients[1], TARGET, LIMIT)?;
        vpn.down(topology, 1)?.expect_code(0)?;
        Ok(())
    });
}

#[test]
fn in_the_foreground_a_replaced_tunnel_ends_with_five() {
    scenario("in_the_foreground_a_replaced_tunnel_ends_with_five", link().clients(2), |topology| {
        let vpn = Vpn::prepare(topology)?;
        let _serve = vpn.serve(topology)?;
        vpn.write("client1/client.toml", &vpn.client_config(0, ""))?;
        let first =
            vpn.program(topology.client())?.arg("up").arg(vpn.client_path(0)).arg("--foreground").start()?;
        wait::until("the first to be up", LIMIT, || {
            Ok((vpn.status(topology.client())?["tunnels"][0]["state"] == "up").then_some(()))
        })?;
        vpn.up(topology, 1, "")?;
        first.finish(LIMIT)?.expect_code(5)?.expect_text("replaced")?;
        vpn.down(topology, 1)?.expect_code(0)?;
        Ok(())
    });
}

fn preshared_key(topology: &Topology, vpn: &Vpn) -> Result<String> {
    Ok(vpn.program(topology.client())?.arg("genpsk").output()?.trim().to_owned())
}

fn psk_line(key: &str) -> String {
    format!("preshared_key = \"{key}\"\n")
}
