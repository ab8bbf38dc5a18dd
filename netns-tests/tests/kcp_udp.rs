//! The example `kcp_udp`: its echo server and its client, real programs over plain UDP, on a line that does its worst.
//!
//! ```text
//!   client ──[ 20 Mbit/s, 40 ms, 5 % loss, overtaking, copies ]── router ── server
//!     kcp_udp --connect                                            kcp_udp --listen
//! ```

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::addresses::SERVER;
use netns_tests::emulator::{Jitter, Loss, Profile, Reorder};
use netns_tests::scenario::scenario;
use netns_tests::topology::{Setup, Topology};

const LIMIT: Duration = Duration::from_secs(60);
const PORT: u16 = 9000;
const LINES: usize = 20_000;

#[test]
fn messages_come_back_whole_over_a_bad_line() {
    scenario("messages_come_back_whole_over_a_bad_line", bad_line(), |topology| {
        echo(topology, "--mode fast3")
    });
}

#[test]
fn a_stream_comes_back_whole_over_a_bad_line() {
    scenario("a_stream_comes_back_whole_over_a_bad_line", bad_line(), |topology| {
        echo(topology, "--mode normal --stream --sndwnd 256 --rcvwnd 512 --mtu 1200 --conv 4294967295")
    });
}

#[test]
fn a_client_that_nobody_answers_says_so() {
    scenario("a_client_that_nobody_answers_says_so", Setup::PLAIN, |topology| {
        let words = format!("--connect {SERVER}:{PORT}");
        let client = topology.clients[0].program(example()?)?.words(&words).input("hello\n").run(LIMIT)?;
        client.expect_code(1)?.expect_text("refused")?;
        Ok(())
    });
}

fn bad_line() -> Setup {
    Setup::link(Profile {
        loss: Loss::Random(0.05),
        jitter: Jitter::unordered(Duration::from_millis(5)),
        reorder: Reorder::new(0.05, 10),
        duplicate: 0.05,
        ..Profile::long_line(20_000_000, Duration::from_millis(40), 0.0)
    })
}

/// Two clients at once with `words` beside the addresses: each gets back what it sent.
fn echo(topology: &Topology, words: &str) -> Result<()> {
    let listen = format!("--listen {SERVER}:{PORT} {words}");
    let mut server = topology.server.program(example()?)?.words(&listen).start()?;
    server.wait_for_text("listening on", LIMIT)?;
    let connect = format!("--connect {SERVER}:{PORT} {words}");
    let other = topology.clients[0].program(example()?)?.words(&connect).spoken_to().start()?;
    let text = text()?;
    let client = topology.clients[0].program(example()?)?.words(&connect).input(text.as_str()).run(LIMIT)?;
    let client = client.expect_code(0)?;
    ensure!(client.stdout == text, "{} bytes came back of {}", client.stdout.len(), text.len());
    say_something(other)?;
    for stats in topology.link().stats()? {
        ensure!(stats.lost > 10 && stats.reordered > 10 && stats.duplicated > 10, "a good line: {stats:?}");
    }
    Ok(())
}

/// A client that was there all the time still gets its own words back, as soon as it says them.
fn say_something(mut client: netns_tests::process::Process) -> Result<()> {
    for words in ["one\n", "two\n"] {
        client.say(words)?;
        client.wait_for_text(words, LIMIT)?;
    }
    ensure!(client.is_running()?, "its input has not ended");
    Ok(())
}

/// Lines that tell where they stand.
fn text() -> Result<String> {
    let mut text = String::new();
    for line in 0..LINES {
        writeln!(text, "line {line} of {LINES}")?;
    }
    Ok(text)
}

/// The example, built beside this program, the release build first.
fn example() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program
        .ancestors()
        .find(|ancestor| ancestor.join("CACHEDIR.TAG").exists())
        .context("not in a target directory")?;
    ["release", "debug"]
        .map(|profile| target.join(profile).join("examples/kcp_udp"))
        .into_iter()
        .find(|path| path.exists())
        .context("the example is not built: cargo build --release --example kcp_udp")
}
