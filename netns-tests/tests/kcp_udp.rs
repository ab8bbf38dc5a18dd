//! The example `kcp_udp`: its echo server and its client, real programs over plain UDP, on a line that does its worst.
//!
//! ```text
//!   client ──[ 20 Mbit/s, 40 ms, 5 % loss, overtaking, copies ]── router ── server
//!     kcp_udp --connect                                            kcp_udp --listen
//! ```

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netns_tests::addresses::SERVER;
use netns_tests::emulator::{Jitter, Loss, Profile, Reorder};
use netns_tests::node::Node;
use netns_tests::process::{Process, Program};
use netns_tests::scenario::{scenario, target_directory};
use netns_tests::sockets::on;
use netns_tests::topology::{Setup, Topology};
use netns_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);
const PORT: u16 = 9000;

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

/// Else the scenarios above would not show that messages keep their bounds.
#[test]
fn a_client_notices_that_a_message_came_back_in_pieces() {
    scenario("a_client_notices_that_a_message_came_back_in_pieces", Setup::PLAIN, |topology| {
        let _server = serve(topology, "--stream")?;
        let client = client(topology, "")?.input(text(1000)?).run(LIMIT)?;
        client.expect_code(1)?.expect_text("a message of")?;
        Ok(())
    });
}

/// What is acknowledged and never answered, and a window that stays closed although it answers, are no reason to wait.
#[test]
fn a_client_that_gets_nowhere_says_so() {
    scenario("a_client_that_gets_nowhere_says_so", Setup::PLAIN, |topology| {
        let mut pairs = Vec::new();
        for (port, window) in [(PORT, 128), (PORT + 1, 0)] {
            let socket = bind(&topology.server, port)?;
            let words = format!("--connect {SERVER}:{port} --sndwnd 1");
            let client = topology.clients[0].program(example()?)?.words(&words);
            pairs.push((socket, window, client.input(text(200)?).start()?));
        }
        let stop = AtomicBool::new(false);
        let ends: Vec<_> = thread::scope(|scope| {
            let answer = |(socket, window, client): (UdpSocket, u16, Process)| {
                let stop = &stop;
                scope.spawn(move || acknowledge(&socket, window, stop));
                client
            };
            let clients: Vec<_> = pairs.into_iter().map(answer).collect();
            let ends = clients.into_iter().map(|client| client.finish(LIMIT)).collect();
            stop.store(true, Ordering::Relaxed);
            ends
        });
        for end in ends {
            end?.expect_code(1)?.expect_text("does not answer")?;
        }
        Ok(())
    });
}

#[test]
fn a_client_whose_output_is_not_read_stays_a_peer_and_goes_on_when_it_is() {
    let line = Setup::link(Profile::CLEAR);
    scenario("a_client_whose_output_is_not_read_stays_a_peer_and_goes_on_when_it_is", line, |topology| {
        let _server = serve(topology, "")?;
        // More than pipe, windows and queues hold.
        let text = text(200_000)?;
        let [input, go] = ["input", "go"].map(|name| topology.work().join(name).display().to_string());
        std::fs::write(&input, &text)?;
        topology.clients[0].run(&format!("mkfifo {go}"))?;
        let client = format!("{} --connect {SERVER}:{PORT} < {input}", example()?.display());
        let script = format!("{client} | {{ read -r _ < {go}; cat; }}");
        let client = topology.clients[0].program("sh")?.args(["-c", script.as_str()]).start()?;
        wait_for_mere_answers(topology)?;
        // For reading, too: it does not wait for the other end.
        OpenOptions::new().read(true).write(true).open(&go)?.write_all(b"go\n")?;
        let client = client.finish(LIMIT)?.expect_code(0)?;
        ensure!(client.stdout == text, "{} bytes came back of {}", client.stdout.len(), text.len());
        Ok(())
    });
}

#[test]
fn a_server_sends_little_to_who_acknowledges_nothing_and_begins_nothing_in_the_middle() {
    let name = "a_server_sends_little_to_who_acknowledges_nothing_and_begins_nothing_in_the_middle";
    scenario(name, Setup::PLAIN, |topology| {
        let server = serve(topology, "--mode fast3")?;
        let peer = bind(&topology.clients[0], 0)?;
        let send = |segment: &[u8]| peer.send_to(segment, (SERVER, PORT));
        send(&push(7, 5, 1))?;
        let first = push(8, 0, 0);
        send(&first)?;
        let mut received = 0;
        while let Some(packet) = receive(&peer, SILENCE)? {
            ensure!(packet.starts_with(&first[..4]), "an answer to conversation 7");
            received += packet.len();
        }
        ensure!(received > 0 && received <= 3 * first.len(), "{received} bytes for {}", first.len());
        // It is not forgotten for that: what comes next acknowledges, and is answered.
        send(&push(8, 1, 1))?;
        receive(&peer, SILENCE)?.context("no answer")?;
        let (_, log) = server.logs()?;
        ensure!(!log.contains("begins conversation 7") && !log.contains("forgotten"), "{log}");
        Ok(())
    });
}

#[test]
fn a_full_server_makes_room_by_forgetting_who_proved_nothing() {
    scenario("a_full_server_makes_room_by_forgetting_who_proved_nothing", Setup::PLAIN, |topology| {
        let mut server = serve(topology, "--mode fast3")?;
        let peer = bind(&topology.clients[0], 0)?;
        let speak = |conv, sn| peer.send_to(&push(conv, sn, sn), (SERVER, PORT));
        // The first acknowledges what came back.
        for sn in 0..2 {
            speak(0, sn)?;
            receive(&peer, SILENCE)?.context("no answer")?;
        }
        for conv in 1..MOST_CLIENTS {
            speak(conv, 0)?;
            server.wait_for_text(&format!("begins conversation {conv}\n"), LIMIT)?;
        }
        let last = format!("begins conversation {MOST_CLIENTS}\n");
        speak(MOST_CLIENTS, 0)?;
        wait::pass(IDLE);
        ensure!(!server.logs()?.1.contains(&last), "room was made for it when nobody was idle");
        speak(MOST_CLIENTS, 0)?;
        server.wait_for_text(&last, LIMIT)?;
        let (_, log) = server.logs()?;
        let forgotten: Vec<_> = log.lines().filter(|line| line.contains("forgotten")).collect();
        ensure!(forgotten.len() == 1 && forgotten[0].contains("conversation 1 of"), "{forgotten:?}");
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

/// Two clients at once with `words` beside the addresses: each gets back what it sent, and messages as they were.
fn echo(topology: &Topology, words: &str) -> Result<()> {
    let _server = serve(topology, words)?;
    let mut other = client(topology, words)?.spoken_to().start()?;
    say(&mut other, "before")?;
    let text = text(100_000)?;
    let long = client(topology, words)?.input(text.as_str());
    let long = thread::scope(|scope| {
        let long = scope.spawn(|| long.run(LIMIT));
        let mut said = 0;
        while !long.is_finished() {
            say(&mut other, &format!("during {said}"))?;
            said += 1;
        }
        // The last may have come back afterwards.
        ensure!(said > 1, "the other client had to wait");
        long.join().unwrap_or_else(|_| bail!("the thread panicked"))
    })?;
    let long = long.expect_code(0)?;
    ensure!(long.stdout == text, "{} bytes came back of {}", long.stdout.len(), text.len());
    say(&mut other, "after")?;
    ensure!(other.is_running()?, "its input has not ended");
    for stats in topology.link().stats()? {
        ensure!(stats.lost > 10 && stats.reordered > 10 && stats.duplicated > 10, "a good line: {stats:?}");
    }
    Ok(())
}

/// A message of several segments, which comes back. A pipe takes so much at once, so that it is read at once.
fn say(client: &mut Process, words: &str) -> Result<()> {
    let words = format!("{words} {:.>3900}\n", "");
    client.say(&words)?;
    client.wait_for_text(&words, LIMIT)
}

fn serve(topology: &Topology, words: &str) -> Result<Process> {
    let listen = format!("--listen {SERVER}:{PORT} {words}");
    let mut server = topology.server.program(example()?)?.words(&listen).start()?;
    server.wait_for_text("listening on", LIMIT)?;
    Ok(server)
}

fn client(topology: &Topology, words: &str) -> Result<Program> {
    let connect = format!("--connect {SERVER}:{PORT} {words}");
    Ok(topology.clients[0].program(example()?)?.words(&connect))
}

/// Waits until the client sends next to nothing, but not nothing: what answers the server's questions for its window.
fn wait_for_mere_answers(topology: &Topology) -> Result<()> {
    let (mut asked, mut before) = (wait::now(), 0);
    wait::until("a client that only answers", LIMIT, || {
        if asked.elapsed() < Duration::from_secs(2) {
            return Ok(None);
        }
        let [sent, _] = topology.link().counted(|stats| stats.received)?;
        let since = sent - before;
        (asked, before) = (wait::now(), sent);
        Ok((1..=10).contains(&since).then_some(()))
    })
}

fn bind(node: &Node, port: u16) -> Result<UdpSocket> {
    on(node, || Ok(UdpSocket::bind(("0.0.0.0", port))?))
}

/// The next packet, if one comes before `silence`.
fn receive(socket: &UdpSocket, silence: Duration) -> Result<Option<Vec<u8>>> {
    socket.set_read_timeout(Some(silence))?;
    let mut packet = vec![0; 2000];
    match socket.recv(&mut packet) {
        Ok(length) => Ok(Some(packet[..length].to_vec())),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A peer that acknowledges all it gets and tells its `window`, until it is to stop; it sends nothing of its own.
fn acknowledge(socket: &UdpSocket, window: u16, stop: &AtomicBool) -> Result<()> {
    let (mut packet, mut next) = ([0; 2000], 0);
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut packet) else { continue };
        let mut rest = &packet[..length];
        while let Some((header, following)) = rest.split_at_checked(HEADER_LEN) {
            let word =
                |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let (conv, ts, sn, len) = (word(0), word(8), word(12), word(20));
            let answer = match header[4] {
                PUSH => ACK,
                ASK => TELL,
                _ => bail!("command {}", header[4]),
            };
            // Nothing is lost here, and with a window of 1 nothing overtakes.
            next = if answer == ACK { sn + 1 } else { next };
            socket.send_to(&segment(conv, answer, window, [ts, sn, next], b""), from)?;
            rest = following.get(usize::try_from(len)?..).context("a segment is cut")?;
        }
    }
    Ok(())
}

/// A message of four bytes.
fn push(conv: u32, sn: u32, una: u32) -> Vec<u8> {
    segment(conv, PUSH, 128, [0, sn, una], b"echo")
}

/// A segment, as ikcp writes it.
fn segment(conv: u32, command: u8, window: u16, [ts, sn, una]: [u32; 3], payload: &[u8]) -> Vec<u8> {
    let mut bytes = conv.to_le_bytes().to_vec();
    bytes.extend([command, 0]);
    bytes.extend(window.to_le_bytes());
    for word in [ts, sn, una, u32::try_from(payload.len()).unwrap_or(0)] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// Lines that tell where they stand.
fn text(lines: usize) -> Result<String> {
    let mut text = String::new();
    for line in 0..lines {
        writeln!(text, "line {line} of {lines}")?;
    }
    Ok(text)
}

/// The example, built for release: `scripts/test` does that.
fn example() -> Result<PathBuf> {
    let path = target_directory()?.join("release/examples/kcp_udp");
    ensure!(path.exists(), "the example is not built: cargo build --release --example kcp_udp");
    Ok(path)
}

/// A silence that no retransmission to somebody near would leave so soon.
const SILENCE: Duration = Duration::from_secs(3);
/// Silence after which any client may be forgotten, and a little more.
const IDLE: Duration = Duration::from_secs(11);
/// Conversations of a server.
const MOST_CLIENTS: u32 = 32;
/// A segment's header.
const HEADER_LEN: usize = 24;
/// ikcp's commands: data, its acknowledgement, a question for the window, its answer.
const PUSH: u8 = 81;
const ACK: u8 = 82;
const ASK: u8 = 83;
const TELL: u8 = 84;
