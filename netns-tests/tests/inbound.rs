//! Connections to a client's tunnel address: from the server, from hosts behind it, and from other clients.
//!
//! ```text
//!   client 0 (sshd, nginx) ──[ 10 ms ]──┐
//!   client 1 ───────────────[ 10 ms ]──┼── router ── server ── target
//!   client 2, which is never up ────────┘
//! ```

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netns_tests::addresses::{SERVER_BACK, SERVER_BACK_V6, TARGET_BACK, tunnel_client, url};
use netns_tests::emulator::Profile;
use netns_tests::node::Node;
use netns_tests::scenario::scenario;
use netns_tests::services::{self, HTTP_PORT, NO_ROUTE, REFUSED, Services};
use netns_tests::sockets::{self, accept, expect, expect_end};
use netns_tests::ssh::Ssh;
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::Vpn;
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(20);
const SIZE: usize = 5 << 20;

#[test]
fn programs_of_the_servers_side_reach_services_of_a_client() {
    inbound("programs_of_the_servers_side_reach_services_of_a_client", |topology, vpn| {
        let (v4, v6) = tunnel_client(0);
        let services = Services::start_on(topology.client(), topology, SIZE)?;
        let server = &topology.server;
        for host in [IpAddr::from(v4), v6.into()] {
            services.download(server, host, LIMIT)?;
            services.upload(server, host, LIMIT)?;
        }
        // The services see the client itself: whoever it was is known to the server only.
        ensure!(services::seen_from(server, v4, LIMIT)? == v4);
        // A host behind the server, which is its router to the tunnel's networks.
        let target = &topology.target;
        target.ip(&format!("route add 10.77.0.0/24 via {SERVER_BACK}"))?;
        target.ip(&format!("route add fd77::/64 via {SERVER_BACK_V6}"))?;
        for host in [IpAddr::from(v4), v6.into()] {
            services.download(target, host, LIMIT)?;
        }
        let ssh = Ssh::start_on(topology.client(), v4.into(), topology)?;
        for host in [server, target] {
            let said =
                ssh.program(host, "ssh")?.arg(format!("root@{v4}")).arg("echo $SSH_CONNECTION").run(LIMIT)?;
            said.expect_code(0)?.expect_text(&format!("{v4} 22"))?;
        }
        // Datagrams come from whom they come from.
        exchange_datagrams((target, TARGET_BACK.into()), (topology.client(), v4.into()))?;
        let flows = vpn.tunnel(server)?["peers"][0]["flows"].clone();
        ensure!(flows["total"].as_u64() >= Some(9), "{flows}");
        let flows = vpn.tunnel(topology.client())?["flows"].clone();
        ensure!(flows["total"].as_u64() >= Some(9), "{flows}");
        // What is gone is gone for both ends, at once.
        let listener = sockets::listen(topology.client(), v4, OPEN)?;
        let outside = sockets::connect(server, v4, OPEN, LIMIT)?;
        let inside = accept(&listener, LIMIT)?;
        for node in [server, topology.client()] {
            let flows = vpn.program(node)?.args(["status", "--flows"]).run(LIMIT)?;
            flows.expect_code(0)?.expect_text(&format!("{v4}:{OPEN}"))?;
        }
        vpn.down(topology, 0)?.expect_code(0)?;
        for end in [outside, inside] {
            let error = (&end).read(&mut [0]).err().context("an end instead of a reset")?;
            ensure!(error.kind() == ErrorKind::ConnectionReset, "{error}");
        }
        Ok(())
    });
}

#[test]
fn what_a_client_does_not_offer_is_refused_as_what_it_is() {
    inbound("what_a_client_does_not_offer_is_refused_as_what_it_is", |topology, vpn| {
        let (v4, v6) = tunnel_client(0);
        let (absent, absent_v6) = tunnel_client(2);
        let server = &topology.server;
        let _listener = sockets::listen(topology.client(), v4, CLOSED)?;
        let _inner = sockets::listen(topology.client(), IpAddr::from([127, 0, 0, 1]), OPEN)?;
        for (host, port, words) in [
            // It listens there, and does not let anybody in; nobody listens here but on its loopback.
            (IpAddr::from(v4), CLOSED, REFUSED),
            (v4.into(), OPEN, REFUSED),
            (v6.into(), OPEN, REFUSED),
            (absent.into(), OPEN, NO_ROUTE),
            (absent_v6.into(), OPEN, NO_ROUTE),
        ] {
            for (from, limit) in [(server, MOMENT), (&topology.clients[1], MOMENT)] {
                let error = sockets::connect(from, host, port, LIMIT).err();
                let error = error.with_context(|| format!("{host}:{port} was reached"))?;
                ensure!(error.to_string().contains(words), "{} to {host}:{port}: {error}", from.role());
                let curl = from.program("curl")?.words("-sS --noproxy * -m 10").arg(url(host, port, "/"));
                curl.run(limit)?.expect_code(CURL_FAILED_TO_CONNECT)?;
            }
        }
        let denied = vpn.tunnel(topology.client())?["drops"]["denied"].as_u64();
        ensure!(denied == Some(4), "{denied:?} were not allowed");
        let ping = server.program("ping")?.words(&format!("-n -c 2 -i 0.2 -W 2 {absent}")).run(LIMIT)?;
        ping.expect_code(1)?.expect_text("Destination Host Unreachable")?;
        Ok(())
    });
}

#[test]
fn clients_reach_each_other_through_the_server() {
    inbound("clients_reach_each_other_through_the_server", |topology, _| {
        let [(v4, v6), (other, other_v6)] = [0, 1].map(tunnel_client);
        let services = Services::start_on(topology.client(), topology, SIZE)?;
        let from = &topology.clients[1];
        let capture = from.capture("vpn0", "icmp or icmp6")?;
        for host in [IpAddr::from(v4), v6.into()] {
            services.download(from, host, LIMIT)?;
            services.upload(from, host, LIMIT)?;
            ensure!(services::ping(from, host, 5)?.0 == 1.0, "no answers from {host}");
        }
        ensure!(services::seen_from(from, v4, LIMIT)? == v4);
        exchange_datagrams((from, other.into()), (topology.client(), v4.into()))?;
        exchange_datagrams((from, other_v6.into()), (topology.client(), v6.into()))?;
        let redirects =
            capture.finish(from, "icmp[icmptype] == icmp-redirect or icmp6[icmp6type] == icmp6-redirect")?;
        ensure!(redirects.is_empty(), "the server sends clients elsewhere: {redirects:#?}");
        Ok(())
    });
}

#[test]
fn a_connection_to_a_client_survives_an_outage_and_ends_in_each_direction_by_itself() {
    let name = "a_connection_to_a_client_survives_an_outage_and_ends_in_each_direction_by_itself";
    inbound(name, |topology, vpn| {
        let (v4, _) = tunnel_client(0);
        let server = &topology.server;
        let services = Services::start_on(topology.client(), topology, SIZE)?;
        services.download_through(server, v4, LIMIT, || {
            topology.link().set_blackout(true)?;
            wait::pass(Duration::from_secs(3));
            topology.link().set_blackout(false)
        })?;
        let listener = sockets::listen(topology.client(), v4, OPEN)?;
        for server_first in [true, false] {
            let outside = sockets::connect(server, v4, OPEN, LIMIT)?;
            let inside = accept(&listener, LIMIT)?;
            let (first, second) = if server_first { (&outside, &inside) } else { (&inside, &outside) };
            (&mut &*first).write_all(b"a question")?;
            first.shutdown(Shutdown::Write)?;
            expect(second, b"a question")?;
            expect_end(second)?;
            (&mut &*second).write_all(&[b'x'; 100_000])?;
            expect(first, &[b'x'; 100_000])?;
        }
        let left = || Ok((vpn.tunnel(server)?["flows"]["open"] == 0).then_some(()));
        wait::until("the last flow to end", LIMIT, left)
    });
}

/// Runs `body` with a server and two clients that are up, of which the first offers some ports; a third is not.
fn inbound(name: &str, body: impl FnOnce(&Topology, &Vpn) -> Result<()>) {
    let line = Profile { delay: Duration::from_millis(5), ..Profile::CLEAR };
    scenario(name, Setup::link(line).clients(3), |topology| {
        let vpn = Vpn::prepare(topology)?;
        let allow =
            format!("[inbound]\nallow = [\"tcp/22\", \"tcp/{HTTP_PORT}\", \"tcp/{OPEN}-{}\"]", OPEN + 5);
        vpn.write("client0/client.toml", &vpn.client_config(0, &allow))?;
        let _serve = vpn.serve(topology)?;
        for n in [0, 1] {
            vpn.up(topology, n, "")?;
        }
        body(topology, &vpn)
    });
}

/// A question and its answer, each with its sender's own address.
fn exchange_datagrams(from: (&Node, IpAddr), to: (&Node, IpAddr)) -> Result<()> {
    let socket = |(node, address): (&Node, IpAddr)| {
        let socket = sockets::on(node, || Ok(UdpSocket::bind(SocketAddr::new(address, 0))?))?;
        socket.set_read_timeout(Some(LIMIT))?;
        anyhow::Ok(socket)
    };
    let (here, there) = (socket(from)?, socket(to)?);
    for (sender, receiver) in [(&here, &there), (&there, &here)] {
        let mut buffer = [0; 16];
        sender.send_to(b"datagram", receiver.local_addr()?)?;
        let (length, source) = receiver.recv_from(&mut buffer)?;
        if (&buffer[..length], source) != (b"datagram", sender.local_addr()?) {
            bail!("{} from {source}", buffer[..length].escape_ascii());
        }
    }
    Ok(())
}

/// Ports that the first client offers, from this on, and one that it does not.
const OPEN: u16 = 8080;
const CLOSED: u16 = 8079;

/// A refusal is told at once.
const MOMENT: Duration = Duration::from_secs(5);

/// curl's exit code, from its manual.
const CURL_FAILED_TO_CONNECT: i32 = 7;
