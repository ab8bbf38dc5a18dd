//! The small loads of the bench, run inside the namespaces: a server, and clients that write what they see as lines.
//!
//! A connection whose first byte is [`DOWNLOAD`] gets bytes without end; on any other each byte is answered by itself.
//!
//! ```text
//!   load serve PORT                          "listening", then nothing
//!   load download HOST:PORT                  "SECONDS TOTAL" whenever data has come, at most one line in 10 ms
//!   load downloads HOST:PORT COUNT STOPPED WARM SECONDS
//!                                            opens COUNT downloads; the first STOPPED are not read any more after a first piece;
//!                                            "BYTES" of each that came in SECONDS after WARM
//!   load requests HOST:PORT COUNT GAP_MS     "SECONDS" to a byte's answer, each on a connection of its own, one each GAP
//!   load flows HOST:PORT COUNT RATE SECONDS  "open OPENED SECONDS", then RATE requests a second in turn over all of them,
//!                                            "done ANSWERED", and the connections stay open
//!   load used HOST:PORT COUNT BYTES          "open OPENED SECONDS" once each has carried BYTES both ways, and they stay open
//! ```
//!
//! Times are [`wait::uptime`]. A request without an answer is the line "failed: REASON".

use std::cell::Cell;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use netns_tests::wait::{self, uptime};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, timeout};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("tokio").and_then(|runtime| {
        let local = LocalSet::new();
        local.block_on(&runtime, run(&words))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[&str]) -> Result<()> {
    match words {
        ["serve", port] => serve(port.parse()?).await,
        ["download", server] => download(server.parse()?).await,
        ["downloads", server, count, stopped, warm, seconds] => {
            let (warm, time) = (warm.parse()?, seconds.parse()?);
            let times = (Duration::from_secs(warm), Duration::from_secs(time));
            downloads(server.parse()?, count.parse()?, stopped.parse()?, times).await
        }
        ["used", server, count, bytes] => used(server.parse()?, count.parse()?, bytes.parse()?).await,
        ["requests", server, count, gap] => {
            requests(server.parse()?, count.parse()?, Duration::from_millis(gap.parse()?)).await
        }
        ["flows", server, count, rate, seconds] => {
            let time = Duration::from_secs(seconds.parse()?);
            flows(server.parse()?, count.parse()?, rate.parse()?, time).await
        }
        _ => bail!("see the head of load.rs"),
    }
}

async fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    say("listening")?;
    let bytes: Rc<[u8]> = random_bytes().into();
    loop {
        let (connection, _) = listener.accept().await?;
        // Who leaves in the middle is no concern of the others.
        let bytes = Rc::clone(&bytes);
        spawn_local(async move { drop(answer(connection, &bytes).await) });
    }
}

async fn answer(mut connection: TcpStream, bytes: &[u8]) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    loop {
        let length = connection.read(&mut buffer).await?;
        match &buffer[..length] {
            [] => return Ok(()),
            [DOWNLOAD, ..] => break,
            request => connection.write_all(request).await?,
        }
    }
    loop {
        connection.write_all(bytes).await?;
    }
}

async fn download(server: SocketAddr) -> Result<()> {
    let mut connection = TcpStream::connect(server).await?;
    connection.write_all(&[DOWNLOAD]).await?;
    let mut buffer = vec![0; CHUNK];
    let (mut total, mut said) = (0, Duration::ZERO);
    loop {
        let length = connection.read(&mut buffer).await?;
        ensure!(length > 0, "the download was closed after {total} bytes");
        total += length;
        let now = uptime();
        if now.saturating_sub(said) >= LINE_GAP {
            said = now;
            say(&format!("{:.4} {total}", now.as_secs_f64()))?;
        }
    }
}

async fn downloads(
    server: SocketAddr,
    count: usize,
    stopped: usize,
    (warm, time): (Duration, Duration),
) -> Result<()> {
    let totals: Vec<_> = (0..count).map(|_| Rc::new(Cell::new(0_u64))).collect();
    let mut running = JoinSet::new();
    for (number, total) in totals.iter().enumerate() {
        running.spawn_local(count_download(server, number < stopped, Rc::clone(total)));
    }
    tokio::time::sleep(warm).await;
    let before: Vec<u64> = totals.iter().map(|total| total.get()).collect();
    tokio::time::sleep(time).await;
    if let Some(outcome) = running.try_join_next() {
        bail!("a download ended: {:?}", outcome?);
    }
    for (total, before) in totals.iter().zip(before) {
        say(&(total.get() - before).to_string())?;
    }
    Ok(())
}

async fn count_download(server: SocketAddr, is_stopped: bool, total: Rc<Cell<u64>>) -> Result<()> {
    let mut connection = TcpStream::connect(server).await?;
    connection.write_all(&[DOWNLOAD]).await?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = connection.read(&mut buffer).await?;
        ensure!(length > 0, "it was closed");
        total.set(total.get() + length as u64);
        if is_stopped {
            return std::future::pending().await;
        }
    }
}

async fn used(server: SocketAddr, count: usize, bytes: usize) -> Result<()> {
    let begun = wait::now();
    let mut connections = open(server, count).await?;
    let mut carried = JoinSet::new();
    for mut connection in std::mem::take(&mut connections) {
        carried.spawn_local(async move {
            let (mut reader, mut writer) = connection.split();
            let ask = async { writer.write_all(&vec![REQUEST; bytes]).await };
            let mut answer = vec![0; bytes];
            tokio::try_join!(ask, reader.read_exact(&mut answer))?;
            Ok::<_, anyhow::Error>(connection)
        });
    }
    while let Some(connection) = carried.join_next().await {
        connections.push(connection??);
    }
    say(&format!("open {} {:.4}", connections.len(), begun.elapsed().as_secs_f64()))?;
    std::future::pending().await
}

/// A request is begun each `gap` whether the earlier ones are answered or not.
async fn requests(server: SocketAddr, count: u32, gap: Duration) -> Result<()> {
    let mut ticks = interval(gap);
    let mut running = JoinSet::new();
    for _ in 0..count {
        ticks.tick().await;
        running.spawn_local(async move {
            let begun = uptime();
            let outcome = connect(server).await;
            (uptime().saturating_sub(begun), outcome.map(drop))
        });
    }
    while let Some(outcome) = running.join_next().await {
        match outcome? {
            (time, Ok(())) => say(&format!("{:.4}", time.as_secs_f64()))?,
            (_, Err(error)) => say(&format!("failed: {error:#}"))?,
        }
    }
    Ok(())
}

async fn flows(server: SocketAddr, count: usize, rate: f64, time: Duration) -> Result<()> {
    let begun = wait::now();
    let connections = open(server, count).await?;
    say(&format!("open {} {:.4}", connections.len(), begun.elapsed().as_secs_f64()))?;
    if rate > 0.0 {
        let answered = ask_in_turn(connections, rate, time).await;
        say(&format!("done {answered}"))?;
        return std::future::pending().await;
    }
    std::future::pending::<()>().await;
    drop(connections);
    Ok(())
}

/// Opens `count` connections, [`OPENING`] at a time; the first failure is told and ends it, what was opened stays.
async fn open(server: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let mut opened = Vec::with_capacity(count);
    let mut running = JoinSet::new();
    let mut begun = 0;
    loop {
        while begun < count && running.len() < OPENING {
            begun += 1;
            running.spawn_local(connect(server));
        }
        let Some(outcome) = running.join_next().await else {
            return Ok(opened);
        };
        match outcome? {
            Ok(connection) => opened.push(connection),
            Err(error) => {
                eprintln!("load: after {} connections: {error:#}", opened.len());
                begun = count;
            }
        }
    }
}

/// Sends one byte on each connection in turn, `rate` a second, and returns how many were answered.
///
/// The connections stay open in their tasks.
async fn ask_in_turn(connections: Vec<TcpStream>, rate: f64, time: Duration) -> usize {
    let answered = Rc::new(Cell::new(0));
    let mut writers = Vec::with_capacity(connections.len());
    for connection in connections {
        let (mut reader, writer) = connection.into_split();
        writers.push(writer);
        let answered = Rc::clone(&answered);
        spawn_local(async move {
            let mut buffer = [0; 256];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                answered.set(answered.get() + length);
            }
        });
    }
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut asked) = (wait::now(), 0);
    while begun.elapsed() < time && !writers.is_empty() {
        ticks.tick().await;
        // As many as the clock asks for by now, so that a late tick lowers no rate.
        while (asked as f64) < begun.elapsed().min(time).as_secs_f64() * rate {
            let turn = asked % writers.len();
            asked += 1;
            if writers[turn].try_write(&[REQUEST]).is_err() {
                break;
            }
        }
    }
    // Dropping a writer would send a FIN.
    writers.into_iter().for_each(tokio::net::tcp::OwnedWriteHalf::forget);
    answered.get()
}

/// A connection on which one byte was answered, so that it is open to its far end.
async fn connect(server: SocketAddr) -> Result<TcpStream> {
    let open = async {
        let mut connection = TcpStream::connect(server).await?;
        connection.set_nodelay(true)?;
        connection.write_all(&[REQUEST]).await?;
        connection.read_exact(&mut [0]).await?;
        Ok(connection)
    };
    timeout(REQUEST_LIMIT, open).await.context("no answer in time")?
}

fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// What nobody can compress.
fn random_bytes() -> Vec<u8> {
    let mut bytes = vec![0; CHUNK];
    StdRng::seed_from_u64(1).fill_bytes(&mut bytes);
    bytes
}

/// What is read or written at once.
const CHUNK: usize = 256 << 10;

/// How dense the lines of a download are at most.
const LINE_GAP: Duration = Duration::from_millis(10);

/// Connections being opened at once: enough that one round trip is no limit, few enough for any backlog.
const OPENING: usize = 64;

/// The least that tokio's timer can do.
const TICK: Duration = Duration::from_millis(1);

/// Asks for bytes without end.
const DOWNLOAD: u8 = b'd';

/// Any other byte: it comes back.
const REQUEST: u8 = b'e';

/// Who has waited this long has given up.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
