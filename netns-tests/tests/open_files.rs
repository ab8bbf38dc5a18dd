//! A server that may open few files: what it has no socket for is refused, and nobody else suffers.
//!
//! ```text
//!   client (connects) ──── router ──── server ──── target (listens)
//!       vpn up  ═══════ tunnel ══════ vpn serve, 150 files
//! ```

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::TARGET;
use netns_tests::scenario::scenario;
use netns_tests::sockets::{self, accept, expect};
use netns_tests::topology::{Setup, Topology};
use netns_tests::vpn::Vpn;

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;
const FILES: u32 = 150;

#[test]
fn connections_beyond_the_open_files_of_the_server_are_refused_and_the_others_live() {
    scenario(
        "connections_beyond_the_open_files_of_the_server_are_refused_and_the_others_live",
        Setup::PLAIN,
        |topology| {
            let vpn = Vpn::prepare(topology)?;
            let mut serve = vpn.serve_with_files(topology, FILES)?;
            vpn.up(topology, 0, "")?;
            let listener = sockets::listen(&topology.target, TARGET, PORT)?;
            let mut pairs = Vec::new();
            let mut refused = 0;
            for _ in 0..FILES {
                match connect(topology) {
                    Ok(here) => pairs.push((here, accept(&listener, LIMIT)?)),
                    Err(error) => {
                        let error = error.downcast_ref::<std::io::Error>().context("not from connect")?;
                        ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
                        refused += 1;
                    }
                }
            }
            ensure!((50..120).contains(&pairs.len()) && refused > 0, "{} opened, {refused} not", pairs.len());
            pairs.iter_mut().try_for_each(talk)?;
            let status = vpn.status(&topology.server)?;
            ensure!(status["tunnels"][0]["drops"]["no_socket"] == refused, "{status}");
            // Each that ends makes room for another.
            pairs.truncate(pairs.len() / 2);
            let mut pair = again(topology, &listener)?;
            talk(&mut pair)?;
            pairs.iter_mut().try_for_each(talk)?;
            ensure!(serve.is_running()?, "{}", serve.logs()?.1);
            vpn.down(topology, 0)?.expect_code(0)?;
            Ok(())
        },
    );
}

fn connect(topology: &Topology) -> Result<TcpStream> {
    sockets::connect(topology.client(), TARGET, PORT, LIMIT)
}

fn talk((here, there): &mut (TcpStream, TcpStream)) -> Result<()> {
    here.write_all(b"question")?;
    expect(there, b"question")?;
    there.write_all(b"answer")?;
    expect(here, b"answer")
}

/// The first connect that is not refused; the server learns a moment later of what was closed.
fn again(topology: &Topology, listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    netns_tests::wait::until("a socket that is free again", LIMIT, || {
        let Ok(here) = connect(topology) else { return Ok(None) };
        Ok(Some((here, accept(listener, LIMIT)?)))
    })
}
