//! KCP over plain UDP, so that any other KCP can be tried against this one.
//!
//! ```text
//! cargo run --release --example kcp_udp -- --listen 127.0.0.1:9000
//! cargo run --release --example kcp_udp -- --connect 127.0.0.1:9000 < file > copy
//! ```
//!
//! The server sends back whatever it reads. The client sends its standard input and prints what comes back; it ends when
//! all of it was acknowledged and has come back. Without `--stream` what one read of the standard input gives (a line that
//! is typed, for one) is a message, and has to come back as one.
//!
//! KCP authenticates nobody: whoever can forge a source address can speak for it and, with some skill, acknowledge for it.
//! So this is nothing to leave open to the world, although a server sends to an address that has acknowledged nothing no
//! more than three times what came from there (RFC 9000 §8).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::pending;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use vpn::kcp::{self, Config, HEADER_LEN, Kcp, Messages, Mode, Piece, Refused, Source, Stream};

/// KCP over plain UDP: an echo server, and a client that sends its standard input and prints what comes back.
#[derive(Debug, Parser)]
struct Options {
    /// Serve at this address: send back what each client sends.
    #[arg(long, value_name = "ADDR", conflicts_with = "connect")]
    listen: Option<SocketAddr>,
    /// Send standard input to the server at this address, and print what comes back.
    #[arg(long, value_name = "ADDR")]
    connect: Option<SocketAddr>,
    /// The conversation: if not given a client takes one at random, and a server takes any.
    #[arg(long, value_name = "N")]
    conv: Option<u32>,
    /// normal, fast, fast2 or fast3, with the values that kcptun gives these names.
    #[arg(long, default_value = "fast")]
    mode: Mode,
    /// Segments that may be on their way, but no more than 8 MiB.
    #[arg(long, value_name = "SEGMENTS", default_value_t = 1024, value_parser = clap::value_parser!(u16).range(1..))]
    sndwnd: u16,
    /// Segments that are held for the reader, at least 128, but no more than 8 MiB.
    #[arg(long, value_name = "SEGMENTS", default_value_t = 1024)]
    rcvwnd: u16,
    /// Bytes of a UDP payload.
    #[arg(long, value_name = "BYTES", default_value_t = 1350, value_parser = clap::value_parser!(u16).range(50..=i64::from(MOST_MTU)))]
    mtu: u16,
    /// Send a stream of bytes and not messages.
    #[arg(long)]
    stream: bool,
}

impl Options {
    fn config(&self) -> Config {
        let config =
            self.mode.config().with_mtu(usize::from(self.mtu)).with_windows(self.sndwnd, self.rcvwnd);
        Config {
            send_buffer: config.send_buffer.min(MOST_BUFFERED),
            receive_buffer: config.receive_buffer.min(MOST_BUFFERED),
            ..config
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("starting").and_then(|runtime| runtime.block_on(run(&options)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kcp_udp: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    if let Some(address) = options.listen {
        return serve(options, address).await;
    }
    let server = options.connect.context("--listen or --connect is needed")?;
    connect(options, server).await
}

/// One conversation and what it is to send.
struct Conversation {
    kcp: Kcp,
    outbox: Outbox,
    mtu: usize,
    /// What was read and had no room in the outbox yet.
    held: Option<Vec<u8>>,
}

impl Conversation {
    fn new(conv: u32, options: &Options, now: Instant) -> Self {
        let config = options.config();
        // Also with a small window there is room for the longest message.
        let limit = config.send_buffer.max(LONGEST_MESSAGE * config.mss);
        let outbox = if options.stream {
            Outbox::Stream(Stream::new(limit))
        } else {
            Outbox::Messages(Messages::new(&config, limit))
        };
        Self { kcp: Kcp::new(conv, config, now), outbox, mtu: config.mss + HEADER_LEN, held: None }
    }

    /// Adds to what is to be sent, or holds it until there is room. Nothing may be held already.
    fn send(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.held = self.outbox.take(bytes)?;
        Ok(())
    }

    /// Tries to send what is held; whether nothing is any more.
    fn release(&mut self) -> Result<bool> {
        if let Some(bytes) = self.held.take() {
            self.send(bytes)?;
        }
        Ok(self.held.is_none())
    }

    /// Sends back what was read, as long as there is room: a peer that does not read is not read either.
    fn echo(&mut self) -> Result<()> {
        while self.release()? {
            let Some(message) = self.kcp.poll_message() else { break };
            self.send(message)?;
        }
        Ok(())
    }

    /// Makes the next packet that may leave now; `false` if there is none.
    fn poll_packet(&mut self, packet: &mut Vec<u8>) -> bool {
        packet.clear();
        self.kcp.poll_transmit(self.mtu, &mut self.outbox, packet, now())
    }

    /// Segments that the peer has sent and acknowledged: it grows as long as there is any use in waiting.
    fn progress(&self) -> u64 {
        let stats = self.kcp.stats();
        stats.received + stats.sent - u64::from(stats.span)
    }

    /// Whether all was sent and acknowledged, and nothing is left to say.
    fn is_quiet(&self) -> bool {
        let unsent = self.held.is_some() || self.outbox.peek().is_some();
        !unsent && !self.kcp.has_unacked() && self.kcp.poll_timeout().is_none()
    }
}

/// What is to be sent, as messages or as a stream.
enum Outbox {
    Messages(Messages),
    Stream(Stream),
}

impl Outbox {
    /// Takes what there is room for and gives back the rest.
    fn take(&mut self, mut bytes: Vec<u8>) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Messages(messages) => match messages.push(&bytes) {
                Ok(()) => Ok(None),
                Err(Refused::Full) => Ok(Some(bytes)),
                Err(Refused::TooLong) => {
                    let longest = messages.longest();
                    bail!("a message of {} bytes; {longest} is the most at this mtu", bytes.len())
                }
            },
            Self::Stream(stream) => {
                bytes.drain(..stream.write(&bytes));
                Ok((!bytes.is_empty()).then_some(bytes))
            }
        }
    }

    /// Bytes of the standard input that are read at once.
    fn chunk(&self) -> usize {
        match self {
            Self::Messages(messages) => messages.longest().min(CHUNK),
            Self::Stream(_) => CHUNK,
        }
    }
}

impl Source for Outbox {
    fn peek(&self) -> Option<Piece> {
        match self {
            Self::Messages(messages) => messages.peek(),
            Self::Stream(stream) => stream.peek(),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        match self {
            Self::Messages(messages) => messages.fill(buffer),
            Self::Stream(stream) => stream.fill(buffer),
        }
    }
}

/// The echo server. It keeps its conversations, also silent ones, until it needs the room for others.
struct Server<'a> {
    options: &'a Options,
    socket: UdpSocket,
    clients: BTreeMap<Key, Client>,
}

/// An address and its conversation: KCP itself does not show where a conversation begins and ends.
type Key = (SocketAddr, u32);

struct Client {
    conversation: Conversation,
    /// Bytes sent there.
    sent: u64,
    heard: Instant,
}

async fn serve(options: &Options, address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(address).await.with_context(|| format!("listening on {address}"))?;
    eprintln!("kcp_udp: listening on {}", socket.local_addr()?);
    let mut server = Server { options, socket, clients: BTreeMap::new() };
    let mut buffer = vec![0; LARGEST_PACKET];
    loop {
        let wake = server.clients.values().filter_map(Client::wakes_at).min();
        tokio::select! {
            received = server.socket.recv_from(&mut buffer) => match received {
                Ok((length, from)) => server.receive(length, from, &mut buffer).await,
                Err(error) if is_about_a_peer(&error) => {}
                Err(error) => return Err(error).context("receiving"),
            },
            () = sleep_to(wake) => server.wake().await,
        }
    }
}

impl Server<'_> {
    /// Takes a packet and those that wait behind it, then answers whom they came from.
    async fn receive(&mut self, length: usize, from: SocketAddr, buffer: &mut [u8]) {
        let mut heard = BTreeSet::new();
        heard.extend(self.handle(&buffer[..length], from));
        for _ in 1..BATCH {
            let Ok((length, from)) = self.socket.try_recv_from(buffer) else { break };
            heard.extend(self.handle(&buffer[..length], from));
        }
        for key in heard {
            self.answer(key).await;
        }
    }

    /// Takes a packet, and says whose it is.
    fn handle(&mut self, packet: &[u8], from: SocketAddr) -> Option<Key> {
        let (key, now) = ((from, kcp::conversation(packet)?), now());
        match self.clients.get_mut(&key) {
            Some(client) => {
                if client.conversation.kcp.handle_packet(packet, now).is_ok() {
                    client.heard = now;
                }
            }
            None => self.accept(key, packet, now),
        }
        Some(key)
    }

    /// Begins a conversation, if a segment could be taken: one that began elsewhere could never go on.
    fn accept(&mut self, key: Key, packet: &[u8], now: Instant) {
        let (address, conv) = key;
        if self.options.conv.is_some_and(|ours| ours != conv) {
            return;
        }
        let mut conversation = Conversation::new(conv, self.options, now);
        let is_kcp = conversation.kcp.handle_packet(packet, now).is_ok();
        if is_kcp && conversation.kcp.stats().received > 0 && self.make_room(now) {
            eprintln!("kcp_udp: {address} begins conversation {conv}");
            self.clients.insert(key, Client { conversation, sent: 0, heard: now });
        }
    }

    /// Whether there is room for one more: if need be who was silent longest is forgotten, first of those who proved
    /// nothing.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.clients.len() < MOST_CLIENTS {
            return true;
        }
        let idle = self.clients.iter().filter(|(_, client)| client.is_idle(now));
        let Some((key, _)) = idle.min_by_key(|(_, client)| (client.is_proven(), client.heard)) else {
            return false;
        };
        self.forget(*key, "others need the room");
        true
    }

    fn forget(&mut self, key: Key, why: &str) {
        eprintln!("kcp_udp: conversation {} of {} is forgotten: {why}", key.1, key.0);
        self.clients.remove(&key);
    }

    async fn answer(&mut self, key: Key) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        if let Err(error) = client.answer(&self.socket, key.0).await {
            self.forget(key, &format!("{error:#}"));
        }
    }

    /// Does what is due.
    async fn wake(&mut self) {
        let now = now();
        let is_due = |client: &Client| client.wakes_at().is_some_and(|at| at <= now);
        let due: Vec<Key> =
            self.clients.iter().filter(|(_, client)| is_due(client)).map(|(key, _)| *key).collect();
        for key in due {
            self.answer(key).await;
        }
    }
}

impl Client {
    /// Echoes what has come and sends what may leave.
    async fn answer(&mut self, socket: &UdpSocket, address: SocketAddr) -> Result<()> {
        let mut packet = Vec::with_capacity(self.conversation.mtu);
        // Twice, since what left may have made room for more.
        for _ in 0..2 {
            self.conversation.echo()?;
            while self.conversation.poll_packet(&mut packet) {
                // What may not be sent is lost, as far as KCP knows.
                if self.may_send(packet.len()) {
                    let sent = socket.send_to(&packet, address).await.map(drop);
                    let sent =
                        sent.or_else(|error| if is_about_a_peer(&error) { Ok(()) } else { Err(error) });
                    sent.context("sending")?;
                }
            }
        }
        ensure!(!self.conversation.kcp.is_dead(), "it does not answer");
        Ok(())
    }

    /// Counts bytes to be sent, if they may be: three for each that came until one who is there has acknowledged something.
    fn may_send(&mut self, bytes: usize) -> bool {
        let sent = self.sent + bytes as u64;
        let may_send = self.is_proven() || sent <= 3 * self.conversation.kcp.stats().received_bytes;
        if may_send {
            self.sent = sent;
        }
        may_send
    }

    /// Whether what was sent there has arrived.
    fn is_proven(&self) -> bool {
        let stats = self.conversation.kcp.stats();
        u64::from(stats.span) < stats.sent
    }

    /// Whether it may be forgotten for another.
    fn is_idle(&self, now: Instant) -> bool {
        now >= self.heard + if self.is_proven() { IDLE } else { UNPROVEN }
    }

    fn wakes_at(&self) -> Option<Instant> {
        self.conversation.kcp.poll_timeout()
    }
}

/// What was sent and has not come back.
enum Missing {
    /// The length of each message.
    Messages(VecDeque<usize>),
    /// How many bytes.
    Stream(usize),
}

impl Missing {
    fn on_sent(&mut self, length: usize) {
        match self {
            Self::Messages(lengths) => lengths.push_back(length),
            Self::Stream(bytes) => *bytes += length,
        }
    }

    fn on_returned(&mut self, length: usize) -> Result<()> {
        let more = "more has come back than was sent";
        match self {
            Self::Messages(lengths) => {
                let sent = lengths.pop_front().context(more)?;
                ensure!(sent == length, "a message of {sent} bytes came back as {length}: is it a --stream?");
            }
            Self::Stream(bytes) => *bytes = bytes.checked_sub(length).context(more)?,
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Messages(lengths) => lengths.is_empty(),
            Self::Stream(bytes) => *bytes == 0,
        }
    }
}

async fn connect(options: &Options, server: SocketAddr) -> Result<()> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any).await.context("opening a socket")?;
    socket.connect(server).await.with_context(|| format!("connecting to {server}"))?;
    let (output, writer) = write_output();
    exchange(options, &socket, output).await.with_context(|| format!("talking to {server}"))?;
    let Ok(written) = writer.join() else { bail!("the thread that writes has panicked") };
    written.context("writing to standard output")
}

/// Sends the standard input until all of it has come back, or `output` is closed.
async fn exchange(options: &Options, socket: &UdpSocket, output: mpsc::Sender<Vec<u8>>) -> Result<()> {
    let mut conversation = Conversation::new(options.conv.unwrap_or_else(rand::random), options, now());
    let mut input = read_input(conversation.outbox.chunk());
    let mut missing = if options.stream { Missing::Stream(0) } else { Missing::Messages(VecDeque::new()) };
    let (mut buffer, mut packet) = (vec![0; LARGEST_PACKET], Vec::new());
    let (mut progress, mut since, mut at_end) = (0, now(), false);
    while !output.is_closed() {
        receive(&mut conversation, socket, &mut buffer).context("receiving")?;
        print(&mut conversation, &output, &mut missing)?;
        let is_full = output.capacity() == 0;
        let has_room = conversation.release()?;
        while conversation.poll_packet(&mut packet) {
            socket.send(&packet).await.context("sending")?;
        }
        let is_done = missing.is_empty() && conversation.is_quiet();
        if at_end && is_done {
            return Ok(());
        }
        // While the standard output takes nothing the server waits for us.
        if is_done || is_full || progress != conversation.progress() {
            (progress, since) = (conversation.progress(), now());
        }
        let deadline = since + PATIENCE;
        ensure!(now() < deadline, "the server does not answer");
        let wake = conversation.kcp.poll_timeout().map_or(deadline, |at| at.min(deadline));
        tokio::select! {
            chunk = input.recv(), if has_room && !at_end => match chunk {
                Some(bytes) => {
                    let bytes = bytes.context("reading standard input")?;
                    missing.on_sent(bytes.len());
                    conversation.send(bytes)?;
                }
                None => at_end = true,
            },
            ready = socket.readable() => ready.context("receiving")?,
            room = output.reserve(), if is_full => drop(room),
            () = sleep_to(Some(wake)) => {}
        }
    }
    Ok(())
}

/// Takes the packets that have arrived; what is no KCP of this conversation is ignored.
fn receive(conversation: &mut Conversation, socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<()> {
    for _ in 0..BATCH {
        match socket.try_recv(buffer) {
            Ok(length) => {
                conversation.kcp.handle_packet(&buffer[..length], now()).ok();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Hands on what has come, as long as it is taken: what is not read closes KCP's window, and the server stops sending.
fn print(
    conversation: &mut Conversation,
    output: &mpsc::Sender<Vec<u8>>,
    missing: &mut Missing,
) -> Result<()> {
    while let Ok(room) = output.try_reserve() {
        let Some(message) = conversation.kcp.poll_message() else { break };
        missing.on_returned(message.len())?;
        room.send(message);
    }
    Ok(())
}

/// Writes to the standard output in a thread of its own, until the channel is closed or an error.
fn write_output() -> (mpsc::Sender<Vec<u8>>, JoinHandle<io::Result<()>>) {
    let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(UNWRITTEN);
    let writer = thread::spawn(move || {
        let mut stdout = io::stdout().lock();
        while let Some(message) = receiver.blocking_recv() {
            stdout.write_all(&message)?;
            stdout.flush()?;
        }
        Ok(())
    });
    (sender, writer)
}

/// Reads the standard input in a thread of its own, one chunk ahead, until its end or an error.
fn read_input(chunk: usize) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(1);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; chunk];
        loop {
            let read = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(buffer[..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_last = read.is_err();
            if sender.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

async fn sleep_to(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Errors of a UDP socket of many peers that say only that one of them cannot be reached.
fn is_about_a_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied
    )
}

/// Silence after which a client may be forgotten, if there are too many.
const IDLE: Duration = Duration::from_secs(10);
/// The same for who has acknowledged nothing, and may be nobody.
const UNPROVEN: Duration = Duration::from_secs(3);
/// How long a client waits for any progress: a KCP that finds a closed window may ask but every 20 s.
const PATIENCE: Duration = Duration::from_secs(30);
/// Clients of a server at a time.
const MOST_CLIENTS: usize = 32;
/// Bytes in each of a conversation's buffers: sent, received, waiting to be sent, and the message that is held.
const MOST_BUFFERED: usize = 8 << 20;
/// The largest windows and packets make a server hold 1 GiB; with those that are the default it is 140 MB.
const _: () = assert!(MOST_CLIENTS * 4 * MOST_BUFFERED <= 1 << 30);
/// Segments of the longest message, and one to spare.
const LONGEST_MESSAGE: usize = 128;
const _: () = assert!(LONGEST_MESSAGE * (MOST_MTU as usize - HEADER_LEN) <= MOST_BUFFERED);
/// Packets taken in before they are answered.
const BATCH: usize = 64;
/// Bytes of the standard input in one message.
const CHUNK: usize = 16 * 1024;
/// Messages that wait for the standard output beside those in KCP's window.
const UNWRITTEN: usize = 16;
/// The largest payload of UDP over IPv4.
const MOST_MTU: u16 = 65_507;
/// Room for any UDP payload.
const LARGEST_PACKET: usize = 65_535;
