//! What TCP promises to apps holds through the tunnel, where it is ended at one end and begun anew at the other.
//!
//! ```text
//!   client ──[ 10 ms ]── router ── server ── target
//!     half-close, reset, urgent byte, ═══════ likewise
//!     both at once, stopped readers
//! ```
//!
//! How connections begin is seen in `connecting`, what becomes of those that nothing happens to in `lasting`.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netns_tests::addresses::{TARGET, TARGET_V6};
use netns_tests::emulator::Profile;
use netns_tests::sockets::{self, expect, expect_end, expect_reset, reset, say};
use netns_tests::topology::Setup;
use netns_tests::tunnel::{Tunnel, tunnel_scenario};
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 7000;

fn faithful(name: &str, body: impl FnOnce(&mut Tunnel<'_>) -> Result<()>) {
    let profile = Profile { delay: Duration::from_millis(5), ..Profile::CLEAR };
    tunnel_scenario(name, Setup::link(profile), 1, body);
}

#[test]
fn each_direction_ends_by_itself() {
    faithful("each_direction_ends_by_itself", |tunnel| {
        for target in Target::of_both_families(tunnel)? {
            for client_first in [true, false] {
                let (first, second) = target.pair(tunnel, client_first)?;
                say(&first, b"a question")?;
                first.shutdown(Shutdown::Write)?;
                expect(&second, b"a question")?;
                expect_end(&second)?;
                // The other direction goes on long after.
                for _ in 0..20 {
                    say(&second, &[b'x'; 10_000])?;
                    expect(&first, &[b'x'; 10_000])?;
                }
                second.shutdown(Shutdown::Write)?;
                expect_end(&first)?;
            }
        }
        Ok(())
    });
}

#[test]
fn both_ends_may_end_at_once_and_nobody_is_reset() {
    faithful("both_ends_may_end_at_once_and_nobody_is_reset", |tunnel| {
        let [at_client, at_target] = [(tunnel.client(), "vpn0"), (&tunnel.topology.target, "eth1")]
            .map(|(node, interface)| node.capture(interface, IS_RESET));
        let (at_client, at_target) = (at_client?, at_target?);
        for target in Target::of_both_families(tunnel)? {
            for is_late in [true, false].repeat(5) {
                let (here, there) = target.pair(tunnel, true)?;
                // Both say and end at the same moment; what each said is on its way then.
                both([here, there], |stream| {
                    if is_late {
                        say(&stream, &WORDS)?;
                        expect(&stream, &WORDS)?;
                        return Ok(());
                    }
                    std::thread::scope(|scope| {
                        let said = scope.spawn(|| {
                            say(&stream, &WORDS)?;
                            Ok(stream.shutdown(Shutdown::Write)?)
                        });
                        expect(&stream, &WORDS)?;
                        expect_end(&stream)?;
                        said.join().unwrap_or_else(|_| bail!("a thread panicked"))
                    })
                })?;
            }
        }
        for (capture, node) in [(at_client, tunnel.client()), (at_target, &tunnel.topology.target)] {
            let resets = capture.finish(node, "")?;
            ensure!(resets.is_empty(), "{} saw {resets:#?}", node.role());
        }
        Ok(())
    });
}

#[test]
fn a_reset_arrives_as_a_reset_behind_the_bytes_before_it() {
    faithful("a_reset_arrives_as_a_reset_behind_the_bytes_before_it", |tunnel| {
        for target in Target::of_both_families(tunnel)? {
            for client_first in [true, false] {
                let (first, second) = target.pair(tunnel, client_first)?;
                let whose = if client_first { "the app's" } else { "the target's" };
                say(&first, b"last words")?;
                // Acknowledged at the near end, and perhaps no further.
                sockets::wait_until_acknowledged(&first, LIMIT)?;
                reset(first)?;
                expect(&second, b"last words").with_context(|| format!("{whose} last words"))?;
                expect_reset(&second)?;

                // To close with something unread resets, too.
                let (first, second) = target.pair(tunnel, client_first)?;
                say(&second, b"a question")?;
                ensure!(first.peek(&mut [0])? == 1);
                drop(first);
                expect_reset(&second)?;

                // And so does one that had ended its own direction.
                let (first, second) = target.pair(tunnel, client_first)?;
                first.shutdown(Shutdown::Write)?;
                expect_end(&second)?;
                reset(first)?;
                // What is read stays the end; who writes learns it.
                wait::until("a broken pipe", LIMIT, || {
                    let error = second.take_error()?;
                    Ok(error.filter(|error| error.kind() == ErrorKind::BrokenPipe))
                })?;
            }
        }
        Ok(())
    });
}

#[test]
fn an_urgent_byte_is_delivered_in_its_place() {
    faithful("an_urgent_byte_is_delivered_in_its_place", |tunnel| {
        for target in Target::of_both_families(tunnel)? {
            for client_first in [true, false] {
                let (first, second) = target.pair(tunnel, client_first)?;
                rustix::net::sockopt::set_socket_oobinline(&second, true)?;
                say(&first, b"before ")?;
                ensure!(rustix::net::send(&first, b"!", rustix::net::SendFlags::OOB)? == 1);
                say(&first, b" after")?;
                expect(&second, b"before ! after")?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_reader_that_stops_stops_its_writer_and_nobody_else() {
    faithful("a_reader_that_stops_stops_its_writer_and_nobody_else", |tunnel| {
        for target in Target::of_both_families(tunnel)? {
            for client_first in [true, false] {
                let (mut writer, mut stopped) = target.pair(tunnel, client_first)?;
                writer.set_write_timeout(Some(Duration::from_secs(1)))?;
                let mut written = 0;
                let error = loop {
                    match writer.write(&[7; 65_536]) {
                        Ok(size) => written += size,
                        Err(error) => break error,
                    }
                    ensure!(written < BOUND, "{written} bytes are buffered for a reader that has read none");
                };
                ensure!(error.kind() == ErrorKind::WouldBlock, "{error}");
                let (other_writer, other_reader) = target.pair(tunnel, client_first)?;
                both([(other_writer, true), (other_reader, false)], |(stream, writes)| {
                    if writes { say(&stream, &[8; 100_000]) } else { expect(&stream, &[8; 100_000]) }
                })?;
                // And who reads on gets everything.
                drop(writer);
                let mut rest = Vec::new();
                stopped.read_to_end(&mut rest)?;
                ensure!(
                    rest.len() == written && rest.iter().all(|byte| *byte == 7),
                    "{} of {written} bytes",
                    rest.len()
                );
            }
        }
        Ok(())
    });
}

/// A listener on the target.
struct Target {
    address: SocketAddr,
    listener: TcpListener,
}

impl Target {
    fn of_both_families(tunnel: &Tunnel<'_>) -> Result<[Self; 2]> {
        let [v4, v6] = [IpAddr::from(TARGET), IpAddr::from(TARGET_V6)].map(|host| {
            let listener = sockets::listen(&tunnel.topology.target, host, PORT)?;
            Ok::<_, anyhow::Error>(Self { address: SocketAddr::new(host, PORT), listener })
        });
        Ok([v4?, v6?])
    }

    /// The two ends of a connection of an app on the client; the app's is the first, or the second.
    fn pair(&self, tunnel: &Tunnel<'_>, client_first: bool) -> Result<(TcpStream, TcpStream)> {
        let (here, there) = sockets::pair(tunnel.client(), &self.listener, self.address, LIMIT)?;
        Ok(if client_first { (here, there) } else { (there, here) })
    }
}

/// Does the same with both at the same time.
fn both<T: Send>(ends: [T; 2], act: impl Fn(T) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let threads = ends.map(|end| scope.spawn(|| act(end)));
        let [here, there] =
            threads.map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")));
        here.context("one end")?;
        there.context("the other end")
    })
}

/// More than a packet, and less than what two kernels take of somebody who does not read.
static WORDS: [u8; 50_000] = [9; 50_000];

/// Segments of either family with RST.
const IS_RESET: &str = "tcp[13] & 4 != 0 or (ip6[6] == 6 and ip6[53] & 4 != 0)";

/// Beyond every buffer on the way: those of two kernels and of both ends of the tunnel.
const BOUND: usize = 64 << 20;
