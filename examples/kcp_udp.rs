//! KCP over plain UDP, so that any other KCP can be tried against this one.
//!
//! ```text
//! cargo run --release --example kcp_udp -- --listen 127.0.0.1:9000
//! cargo run --release --example kcp_udp -- --connect 127.0.0.1:9000 < file > copy
//! ```
//!
//! The server sends back whatever it reads. The client sends its standard input and prints what comes back; it ends when
//! all of it was acknowledged and has come back. Without `--stream` what one read of the standard input gives (a line that
//! is typed, for one) is a message.

use std::collections::BTreeMap;
use std::future::pending;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use vpn::kcp::{self, Config, HEADER_LEN, Kcp, Messages, Mode, Piece, Refused, Source, Stream};

/// KCP over plain UDP: an echo server, and a client that sends its standard input and prints what comes back.
#[derive(Debug, Parser)]
struct Options {
    /// Serve at this address: send back what each client sends.
    #[arg(long, value_name = "ADDR", required_unless_present = "connect", conflicts_with = "connect")]
    listen: Option<SocketAddr>,
    /// Send standard input to the server at this address, and print what comes back.
    #[arg(long, value_name = "ADDR")]
    connect: Option<SocketAddr>,
    /// The conversation: the client's is 1 if not given; a server takes any if not given.
    #[arg(long, value_name = "N")]
    conv: Option<u32>,
    /// normal, fast, fast2 or fast3, with the values that kcptun gives these names.
    #[arg(long, default_value = "fast")]
    mode: Mode,
    /// Segments that may be on their way.
    #[arg(long, value_name = "SEGMENTS", default_value_t = 1024)]
    sndwnd: u16,
    /// Segments that are held for the reader, at least 128.
    #[arg(long, value_name = "SEGMENTS", default_value_t = 1024)]
    rcvwnd: u16,
    /// Bytes of a UDP payload.
    #[arg(long, value_name = "BYTES", default_value_t = 1350, value_parser = clap::value_parser!(u16).range(50..=65_507))]
    mtu: u16,
    /// Send a stream of bytes and not messages.
    #[arg(long)]
    stream: bool,
}

impl Options {
    fn config(&self) -> Config {
        self.mode.config().with_mtu(usize::from(self.mtu)).with_windows(self.sndwnd, self.rcvwnd)
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
    match (options.listen, options.connect) {
        (Some(address), _) => serve(options, address).await,
        (None, Some(server)) => connect(options, server).await,
        (None, None) => bail!("--listen or --connect is needed"),
    }
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
        let limit = config.send_buffer.max(LEAST_OUTBOX);
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

    /// Sends all packets that may leave now.
    async fn transmit(&mut self, socket: &UdpSocket, to: Option<SocketAddr>) -> io::Result<()> {
        let mut packet = Vec::with_capacity(self.mtu);
        while self.kcp.poll_transmit(self.mtu, &mut self.outbox, &mut packet, now()) {
            match to {
                Some(address) => socket.send_to(&packet, address).await?,
                None => socket.send(&packet).await?,
            };
            packet.clear();
        }
        Ok(())
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

/// The echo server: one conversation for each address, forgotten when nothing was heard of it for a while.
struct Server<'a> {
    options: &'a Options,
    socket: UdpSocket,
    clients: BTreeMap<SocketAddr, Client>,
}

struct Client {
    conversation: Conversation,
    heard: Instant,
}

impl Client {
    fn wakes_at(&self) -> Instant {
        let idle = self.heard + IDLE;
        self.conversation.kcp.poll_timeout().map_or(idle, |at| at.min(idle))
    }
}

async fn serve(options: &Options, address: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(address).await.with_context(|| format!("listening on {address}"))?;
    eprintln!("kcp_udp: listening on {}", socket.local_addr()?);
    let mut server = Server { options, socket, clients: BTreeMap::new() };
    let mut buffer = vec![0; LARGEST_PACKET];
    loop {
        let wake = server.clients.values().map(Client::wakes_at).min();
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
        let mut heard = vec![from];
        self.handle(&buffer[..length], from);
        for _ in 1..BATCH {
            let Ok((length, from)) = self.socket.try_recv_from(buffer) else { break };
            self.handle(&buffer[..length], from);
            heard.push(from);
        }
        heard.sort_unstable();
        heard.dedup();
        for address in heard {
            self.answer(address).await;
        }
    }

    fn handle(&mut self, packet: &[u8], from: SocketAddr) {
        let now = now();
        if let Some(client) = self.clients.get_mut(&from) {
            if client.conversation.kcp.handle_packet(packet, now).is_ok() {
                client.heard = now;
            }
            return;
        }
        let Some(conv) = kcp::conversation(packet) else { return };
        if self.clients.len() >= MOST_CLIENTS || self.options.conv.is_some_and(|ours| ours != conv) {
            return;
        }
        let mut conversation = Conversation::new(conv, self.options, now);
        if conversation.kcp.handle_packet(packet, now).is_ok() {
            eprintln!("kcp_udp: {from} begins conversation {conv}");
            self.clients.insert(from, Client { conversation, heard: now });
        }
    }

    /// Echoes what has come from a client and sends what may leave.
    async fn answer(&mut self, address: SocketAddr) {
        let Some(client) = self.clients.get_mut(&address) else { return };
        // Twice, since what left may have made room for more.
        for _ in 0..2 {
            let echoed = client.conversation.echo();
            let sent = client.conversation.transmit(&self.socket, Some(address)).await;
            let sent = sent.or_else(|error| if is_about_a_peer(&error) { Ok(()) } else { Err(error) });
            if let Err(error) = echoed.and(sent.context("sending")) {
                eprintln!("kcp_udp: {address} is forgotten: {error:#}");
                self.clients.remove(&address);
                return;
            }
        }
    }

    /// Does what is due, and forgets who was silent for too long.
    async fn wake(&mut self) {
        let now = now();
        self.clients.retain(|address, client| {
            let is_idle = now >= client.heard + IDLE;
            if is_idle {
                eprintln!("kcp_udp: {address} is silent and forgotten");
            }
            !is_idle
        });
        let due = |(address, client): (&SocketAddr, &Client)| (client.wakes_at() <= now).then_some(*address);
        for address in self.clients.iter().filter_map(due).collect::<Vec<_>>() {
            self.answer(address).await;
        }
    }
}

async fn connect(options: &Options, server: SocketAddr) -> Result<()> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any).await.context("opening a socket")?;
    socket.connect(server).await.with_context(|| format!("connecting to {server}"))?;
    let mut conversation = Conversation::new(options.conv.unwrap_or(1), options, now());
    let mut input = read_input(conversation.outbox.chunk());
    let mut buffer = vec![0; LARGEST_PACKET];
    // Bytes that have not come back yet.
    let mut missing = 0_usize;
    let mut at_end = false;
    loop {
        let has_room = conversation.release()?;
        conversation.transmit(&socket, None).await.with_context(|| format!("sending to {server}"))?;
        if conversation.kcp.is_dead() {
            bail!("{server} does not answer");
        }
        if at_end && missing == 0 && conversation.is_quiet() {
            return Ok(());
        }
        tokio::select! {
            chunk = input.recv(), if has_room && !at_end => match chunk {
                Some(bytes) => {
                    let bytes = bytes.context("reading standard input")?;
                    missing += bytes.len();
                    conversation.send(bytes)?;
                }
                None => at_end = true,
            },
            received = socket.recv(&mut buffer) => {
                let length = received.with_context(|| format!("receiving from {server}"))?;
                handle_batch(&mut conversation, &socket, length, &mut buffer);
                missing = missing.checked_sub(print(&mut conversation)?).context("more has come back than was sent")?;
            }
            () = sleep_to(conversation.kcp.poll_timeout()) => {}
        }
    }
}

/// Takes a packet and those that wait behind it; what is no KCP of this conversation is ignored.
fn handle_batch(conversation: &mut Conversation, socket: &UdpSocket, length: usize, buffer: &mut [u8]) {
    let mut length = length;
    for _ in 0..BATCH {
        conversation.kcp.handle_packet(&buffer[..length], now()).ok();
        let Ok(next) = socket.try_recv(buffer) else { return };
        length = next;
    }
}

/// Prints what has come, and says how many bytes that were.
fn print(conversation: &mut Conversation) -> Result<usize> {
    let mut stdout = io::stdout().lock();
    let mut printed = 0;
    while let Some(message) = conversation.kcp.poll_message() {
        stdout.write_all(&message).context("writing to standard output")?;
        printed += message.len();
    }
    stdout.flush().context("writing to standard output")?;
    Ok(printed)
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

/// How long a server remembers a silent client.
const IDLE: Duration = Duration::from_secs(60);
/// Clients of a server at a time; each may hold two full windows.
const MOST_CLIENTS: usize = 100;
/// Packets taken in before they are answered.
const BATCH: usize = 64;
/// Bytes of the standard input in one message.
const CHUNK: usize = 16 * 1024;
/// What waits to be sent beside the window, at least: a message of any length that can be sent.
const LEAST_OUTBOX: usize = 1 << 20;
/// The largest UDP payload.
const LARGEST_PACKET: usize = 65_535;
