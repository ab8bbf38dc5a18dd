//! Runs the load program on the client and the target, and reads what it says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::node::Node;
use netns_tests::process::{Process, Program};
use netns_tests::topology::Topology;
use netns_tests::wait;

/// Starts the server on the target.
pub(crate) fn serve(topology: &Topology) -> Result<Process> {
    let mut serve = program(&topology.target)?.args(["serve", &PORT.to_string()]).start()?;
    serve.wait_for_text("listening", START_LIMIT)?;
    Ok(serve)
}

/// Asks for one byte `count` times, each on a fresh connection, one each `gap`; the seconds each took, infinite without an answer.
pub(crate) fn requests(client: &Node, server: SocketAddr, count: u32, gap: Duration) -> Result<Vec<f64>> {
    let words = format!("requests {server} {count} {}", gap.as_millis().max(1));
    let finished =
        program(client)?.words(&words).run(gap * count + REQUEST_LIMIT + START_LIMIT)?.expect_code(0)?;
    finished.stdout.lines().map(seconds).collect()
}

/// Opens `count` downloads at once, of which the first `stopped` are not read for long; the bytes that each had in `time` after
/// `warm`.
pub(crate) fn downloads(
    client: &Node,
    server: SocketAddr,
    count: u32,
    stopped: u32,
    warm: Duration,
    time: Duration,
) -> Result<Vec<f64>> {
    let words = format!("downloads {server} {count} {stopped} {} {}", warm.as_secs(), time.as_secs());
    let finished = program(client)?.words(&words).run(warm + time + START_LIMIT * 2)?.expect_code(0)?;
    finished.stdout.lines().map(|line| line.parse().with_context(|| format!("load said {line:?}"))).collect()
}

fn seconds(line: &str) -> Result<f64> {
    if line.starts_with("failed") {
        return Ok(f64::INFINITY);
    }
    line.parse().with_context(|| format!("load said {line:?}"))
}

/// A running download.
#[derive(Debug)]
pub(crate) struct Download(Process);

impl Download {
    pub(crate) fn start(client: &Node, server: SocketAddr) -> Result<Self> {
        Ok(Self(program(client)?.args(["download", &server.to_string()]).start()?))
    }

    /// What has come so far.
    pub(crate) fn arrivals(&self) -> Result<Vec<Arrival>> {
        let (stdout, _) = self.0.logs()?;
        // A line that is still being written has no end.
        let complete = stdout.rsplit_once('\n').map_or("", |(complete, _)| complete);
        complete
            .lines()
            .map(|line| Arrival::parse(line).with_context(|| format!("load said {line:?}")))
            .collect()
    }

    /// The bytes that had come at `time`.
    pub(crate) fn total_at(&self, time: Duration) -> Result<f64> {
        Ok(self
            .arrivals()?
            .iter()
            .take_while(|arrival| arrival.time <= time.as_secs_f64())
            .last()
            .map_or(0.0, |a| a.total))
    }

    /// Why it has ended, if it has.
    pub(crate) fn end(&mut self) -> Result<Option<String>> {
        if self.0.is_running()? { Ok(None) } else { Ok(Some(self.0.logs()?.1.trim().to_owned())) }
    }

    /// Waits until more than `bytes` have come; false if they do not before `limit` or the download ends.
    pub(crate) fn wait_for(&mut self, bytes: f64, limit: Duration) -> Result<bool> {
        let deadline = wait::now() + limit;
        wait::until("a download", limit * 2, || {
            if self.arrivals()?.last().is_some_and(|arrival| arrival.total > bytes) {
                return Ok(Some(true));
            }
            Ok((self.end()?.is_some() || wait::now() >= deadline).then_some(false))
        })
    }
}

/// Data has come to the app.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// Seconds of [`wait::uptime`].
    pub(crate) time: f64,
    /// Bytes with this.
    pub(crate) total: f64,
}

impl Arrival {
    fn parse(line: &str) -> Option<Self> {
        let (time, total) = line.split_once(' ')?;
        Some(Self { time: time.parse().ok()?, total: total.parse().ok()? })
    }
}

/// Open connections, and what became of the requests on them.
#[derive(Debug)]
pub(crate) struct Flows {
    process: Process,
    /// How many are open.
    pub(crate) open: f64,
    /// How long that took, in seconds.
    pub(crate) took: f64,
}

impl Flows {
    /// Opens `count` connections and carries `bytes` over each, both ways.
    pub(crate) fn used(client: &Node, server: SocketAddr, count: u32, bytes: u32) -> Result<Self> {
        Self::start(client, &format!("used {server} {count} {bytes}"), count)
    }

    /// Opens `count` connections and then asks for `rate` bytes a second for `time`.
    pub(crate) fn open(
        client: &Node,
        server: SocketAddr,
        count: u32,
        rate: u32,
        time: Duration,
    ) -> Result<Self> {
        Self::start(client, &format!("flows {server} {count} {rate} {}", time.as_secs()), count)
    }

    fn start(client: &Node, words: &str, count: u32) -> Result<Self> {
        let mut process = program(client)?.words(words).start()?;
        process.wait_for_text("open", OPEN_LIMIT)?;
        let (stdout, stderr) = process.logs()?;
        let mut words = stdout.split_whitespace().skip(1).map(str::parse);
        let (open, took) = (words.next().context("no count")??, words.next().context("no time")??);
        let flows = Self { process, open, took };
        ensure!(flows.open >= f64::from(count), "{open} of {count} connections opened: {}", stderr.trim());
        Ok(flows)
    }

    /// Waits for the end of the requests; how many were answered.
    pub(crate) fn finish(&mut self, limit: Duration) -> Result<f64> {
        self.process.wait_for_text("done", limit)?;
        let (stdout, _) = self.process.logs()?;
        let (_, answered) = stdout.split_once("done ").context("no count")?;
        Ok(answered.trim().parse()?)
    }
}

/// The program beside this one.
fn program(node: &Node) -> Result<Program> {
    let path: PathBuf = std::env::current_exe()?.with_file_name("load");
    ensure!(path.exists(), "{} is not built: run scripts/bench", path.display());
    node.program(path)
}

/// Where the server listens.
pub(crate) const PORT: u16 = 7000;

/// What the load program gives a request.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

const START_LIMIT: Duration = Duration::from_secs(10);

/// What the opening of the most connections may take.
const OPEN_LIMIT: Duration = Duration::from_secs(120);
