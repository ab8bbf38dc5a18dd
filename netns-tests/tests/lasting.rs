//! Connections that nothing is said on, and hosts that vanish without a word.
//!
//! ```text
//!   client ──[ 10 ms ]── router ── server ── target
//!     idle, with keepalives or unanswered bytes ══ likewise, or gone
//! ```

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::{TARGET, TARGET_V6};
use netns_tests::emulator::Profile;
use netns_tests::firewall;
use netns_tests::sockets::{self, expect, expect_reset, say};
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};
use netns_tests::wait;
use rustix::net::sockopt;

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;
const BOTH: [IpAddr; 2] = [IpAddr::V4(TARGET), IpAddr::V6(TARGET_V6)];

fn lasting(name: &str, body: impl FnOnce(&mut Tunnel<'_>) -> Result<()>) {
    let profile = Profile { delay: Duration::from_millis(5), ..Profile::CLEAR };
    tunnel_scenario(name, Setup::link(profile), 1, body);
}

#[test]
fn an_idle_connection_outlives_many_keepalives_of_either_end_and_an_outage() {
    lasting("an_idle_connection_outlives_many_keepalives_of_either_end_and_an_outage", |tunnel| {
        let connections = pairs(tunnel)?;
        for (here, there) in &connections {
            keep_alive(here)?;
            keep_alive(there)?;
        }
        // Three probes without an answer would end one.
        wait::pass(Duration::from_secs(5));
        tunnel.topology.link().set_blackout(true)?;
        wait::pass(Duration::from_secs(5));
        tunnel.topology.link().set_blackout(false)?;
        for (here, there) in &connections {
            for (first, second) in [(here, there), (there, here)] {
                ensure!(first.take_error()?.is_none(), "an end was given up");
                say(first, b"still there")?;
                expect(second, b"still there")?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_target_that_vanishes_ends_the_connection_as_soon_as_the_servers_kernel_gives_it_up() {
    let name = "a_target_that_vanishes_ends_the_connection_as_soon_as_the_servers_kernel_gives_it_up";
    lasting(name, |tunnel| {
        let server = &tunnel.topology.server;
        // Seconds where it would be a quarter of an hour, and hours.
        for (key, value) in
            [("retries2", 3), ("keepalive_time", 1), ("keepalive_intvl", 1), ("keepalive_probes", 2)]
        {
            server.set_sysctl(&format!("net/ipv4/tcp_{key}"), &value.to_string())?;
        }
        // One app waits for the acknowledgement of a question, the other for whatever the target may say.
        let (asking, waiting) = (pairs(tunnel)?, pairs(tunnel)?);
        let _gone = firewall::drop_input(&tunnel.topology.target, "meta l4proto tcp")?;
        for (here, _) in &asking {
            say(here, b"to nobody")?;
        }
        for (here, _) in asking.iter().chain(&waiting) {
            expect_reset(here)?;
        }
        Ok(())
    });
}

/// A connection over each family, seen from the app and from the target.
fn pairs(tunnel: &Tunnel<'_>) -> Result<Vec<(TcpStream, TcpStream)>> {
    let pair = |host| {
        let listener = sockets::listen(&tunnel.topology.target, host, PORT)?;
        sockets::pair(tunnel.client(), &listener, SocketAddr::new(host, PORT), LIMIT)
            .with_context(|| host.to_string())
    };
    BOTH.into_iter().map(pair).collect()
}

/// A probe after every idle second, and the end after two that nobody answers.
fn keep_alive(stream: &TcpStream) -> Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepcnt(stream, 2)?;
    Ok(())
}
