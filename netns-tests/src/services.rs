//! What the target, or another host, offers: nginx with a file to fetch and a place to put one, dnsmasq with a name.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::addresses::{TARGET, TARGET_V6, url};
use crate::node::Node;
use crate::process::{Finished, Process};
use crate::topology::Topology;
use crate::wait;

/// The running services. Dropping them ends them.
#[derive(Debug)]
pub struct Services {
    root: PathBuf,
    _nginx: Process,
    _dnsmasq: Process,
}

impl Services {
    /// Starts both on the target, with a file of `size` random bytes.
    ///
    /// # Errors
    /// If one of them does not start.
    pub fn start(topology: &Topology, size: usize) -> Result<Self> {
        Self::start_on(&topology.target, topology, size)
    }

    /// The same on another host.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(host: &Node, topology: &Topology, size: usize) -> Result<Self> {
        let root = topology.work().join("www");
        std::fs::create_dir_all(root.join("upload"))?;
        std::fs::write(root.join("file"), random_bytes(size))?;
        let nginx = start_nginx(host, topology, &root).context("nginx")?;
        let dnsmasq = start_dnsmasq(host).context("dnsmasq")?;
        Ok(Self { root, _nginx: nginx, _dnsmasq: dnsmasq })
    }

    /// The file that is offered as [`FILE`].
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.root.join("file")
    }

    /// Fetches the file from `host` with curl on `client` and compares its checksum.
    ///
    /// # Errors
    /// If curl fails, takes longer than `limit`, or the file is another.
    pub fn download(&self, client: &Node, host: impl Into<IpAddr>, limit: Duration) -> Result<Finished> {
        let copy = self.copy_path(client);
        let curl = curl(client, &url(host, HTTP_PORT, FILE), limit)?
            .arg("-o")
            .arg(&copy)
            .run(limit + GRACE)?
            .expect_code(0)?;
        self.check(&copy)?;
        Ok(curl)
    }

    /// Puts the file to `host` with curl on `client` and compares its checksum.
    ///
    /// # Errors
    /// If curl fails, takes longer than `limit`, or another file arrives.
    pub fn upload(&self, client: &Node, host: impl Into<IpAddr>, limit: Duration) -> Result<Finished> {
        let path = format!("/upload/{}", client.role());
        let curl = curl(client, &url(host, HTTP_PORT, &path), limit)?
            .arg("-T")
            .arg(self.file())
            .run(limit + GRACE)?
            .expect_code(0)?;
        self.check(&self.root.join("upload").join(client.role()))?;
        Ok(curl)
    }

    /// Starts a download that [`Self::finish_download`] ends.
    ///
    /// # Errors
    /// If curl does not start.
    pub fn start_download(&self, client: &Node, host: impl Into<IpAddr>, limit: Duration) -> Result<Process> {
        curl(client, &url(host, HTTP_PORT, FILE), limit)?.arg("-o").arg(self.copy_path(client)).start()
    }

    /// Starts to put the file to `host`; nobody ends it but curl.
    ///
    /// # Errors
    /// If curl does not start.
    pub fn start_upload(&self, client: &Node, host: impl Into<IpAddr>, limit: Duration) -> Result<Process> {
        let path = format!("/upload/{}", client.role());
        curl(client, &url(host, HTTP_PORT, &path), limit)?.arg("-T").arg(self.file()).start()
    }

    /// How much of a started download has arrived.
    #[must_use]
    pub fn downloaded(&self, client: &Node) -> u64 {
        std::fs::metadata(self.copy_path(client)).map_or(0, |metadata| metadata.len())
    }

    /// Waits for the end of a started download and compares its checksum.
    ///
    /// # Errors
    /// If curl fails, takes longer than `limit`, or the file is another.
    pub fn finish_download(&self, client: &Node, curl: Process, limit: Duration) -> Result<Finished> {
        let finished = curl.finish(limit)?.expect_code(0)?;
        self.check(&self.copy_path(client))?;
        Ok(finished)
    }

    /// Waits until `size` bytes of a started download have arrived.
    ///
    /// # Errors
    /// If they have not after `limit`.
    pub fn wait_for_download(&self, client: &Node, size: u64, limit: Duration) -> Result<()> {
        let what = format!("{size} bytes of the download");
        wait::until(&what, limit, || Ok((self.downloaded(client) >= size).then_some(())))
    }

    /// Starts a download from `host`, does `harm` when a fifth of it has arrived, and checks that the same curl gets the rest.
    ///
    /// # Errors
    /// If `harm` fails, or the download as in [`Self::finish_download`].
    pub fn download_through(
        &self,
        client: &Node,
        host: impl Into<IpAddr>,
        limit: Duration,
        harm: impl FnOnce() -> Result<()>,
    ) -> Result<Finished> {
        let size = std::fs::metadata(self.file())?.len();
        let curl = self.start_download(client, host, limit)?;
        self.wait_for_download(client, size / 5, limit)?;
        // Harm that comes too late would do none.
        let arrived = self.downloaded(client);
        ensure!(arrived < size, "all of the file has arrived before the harm");
        harm()?;
        self.finish_download(client, curl, limit).context("after the harm")
    }

    fn copy_path(&self, client: &Node) -> PathBuf {
        self.root.join(format!("copy-{}", client.role()))
    }

    fn check(&self, copy: &Path) -> Result<()> {
        let (wanted, found) = (checksum(&self.file())?, checksum(copy)?);
        ensure!(wanted == found, "the checksum of the copy is {found}, not {wanted}");
        std::fs::remove_file(copy)?;
        Ok(())
    }
}

/// Who the target sees: the address that a request of `client` to `host` comes from.
///
/// # Errors
/// If curl fails or takes longer than `limit`.
pub fn seen_from(client: &Node, host: impl Into<IpAddr>, limit: Duration) -> Result<IpAddr> {
    let answer = curl(client, &url(host, HTTP_PORT, SEEN_FROM), limit)?.run(limit + GRACE)?.expect_code(0)?;
    answer.stdout.trim().parse().with_context(|| format!("{:?} is not an address", answer.stdout))
}

/// curl on `client`, quiet, with `limit` as its own.
///
/// # Errors
/// If the program cannot be prepared.
pub fn curl(client: &Node, url: &str, limit: Duration) -> Result<crate::process::Program> {
    let limit = format!("{:.3}", limit.as_secs_f64());
    Ok(client.program("curl")?.args(["-sS", "--fail", "--noproxy", "*", "--max-time", &limit, url]))
}

/// curl on `client` to a host that it must not reach; what it writes holds `reason`, the kernel's words for the error.
///
/// # Errors
/// If curl connects, hears nothing before `limit`, or the kernel says something else.
pub fn fail_to_connect(client: &Node, url: &str, reason: &str, limit: Duration) -> Result<Finished> {
    // Only verbose, curl says which error it was.
    let curl = curl(client, url, limit)?.arg("-v").run(limit + GRACE)?;
    curl.expect_code(CURL_FAILED_TO_CONNECT)?.expect_text(reason)
}

/// Asks the target's dnsmasq for [`NAME`] with dig, over UDP, and checks the answer.
///
/// # Errors
/// If there is none, or another.
pub fn dig(client: &Node, tries: u32) -> Result<Finished> {
    let options = format!("+notcp +time=2 +tries={tries}");
    dig_with(client, TARGET, &format!("{NAME} A {options}"))?.expect_text(&TARGET.to_string())
}

/// Asks the DNS server on `host` with dig, `words` being the question and more options; the answer is what it wrote.
///
/// # Errors
/// If there is none.
pub fn dig_with(client: &Node, host: impl Into<IpAddr>, words: &str) -> Result<Finished> {
    let words = format!("@{} +short {words}", host.into());
    client.program("dig")?.words(&words).run(Duration::from_secs(30))?.expect_code(0)
}

/// Starts iperf3 as a server on `address` of `node`, for test after test. It must be told the address: of a host with several it
/// answers datagrams from another than they were sent to.
///
/// # Errors
/// If it does not start.
pub fn serve_iperf(node: &Node, address: impl Into<IpAddr>) -> Result<Process> {
    let iperf =
        node.program("iperf3")?.words(&format!("-s -p {IPERF_PORT} -B {}", address.into())).start()?;
    node.wait_for_listener(IPERF_PORT, START_LIMIT)?;
    Ok(iperf)
}

/// Runs a test of iperf3 from `client` to `host`, `words` being its kind and length, and gives back its report.
///
/// # Errors
/// If iperf3 fails, or takes longer than `limit`.
pub fn iperf(client: &Node, host: impl Into<IpAddr>, words: &str, limit: Duration) -> Result<Value> {
    let words = format!("-J -p {IPERF_PORT} {words} -c {}", host.into());
    // Its server ends a test a moment after its client, and then listens anew.
    wait::until("iperf3's server to be free", limit, || {
        let iperf = client.program("iperf3")?.words(&words).run(limit)?;
        let report: Value = serde_json::from_str(&iperf.stdout).context("iperf3's report")?;
        let error = report["error"].as_str().unwrap_or_default();
        if ["server is busy", REFUSED].iter().any(|busy| error.contains(busy)) {
            return Ok(None);
        }
        ensure!(error.is_empty(), "iperf3 {words}: {error}");
        iperf.expect_code(0)?;
        Ok(Some(report))
    })
}

/// Pings `host` `count` times and gives back the share of answers, 0 to 1, and the mean round trip in milliseconds.
///
/// # Errors
/// If ping does not start or writes nothing that can be read.
pub fn ping(client: &Node, host: impl Into<IpAddr>, count: u32) -> Result<(f64, Option<f64>)> {
    let words = format!("-n -q -c {count} -i 0.1 -W 2 {}", host.into());
    let output = client
        .program("ping")?
        .words(&words)
        .run(Duration::from_secs(60) + Duration::from_millis(100) * count)?;
    let received = output
        .stdout
        .split(", ")
        .find_map(|part| part.strip_suffix(" received"))
        .context("no count in ping's output")?;
    let mean = output
        .stdout
        .split_once("mdev = ")
        .and_then(|(_, times)| times.split('/').nth(1))
        .and_then(|mean| mean.parse().ok());
    Ok((received.parse::<f64>()? / f64::from(count), mean))
}

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// If it cannot be read.
pub fn checksum(path: &Path) -> Result<String> {
    let output = std::process::Command::new("sha256sum").arg(path).output().context("sha256sum")?;
    ensure!(
        output.status.success(),
        "sha256sum {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().next().context("sha256sum wrote nothing")?.to_owned())
}

fn random_bytes(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    StdRng::seed_from_u64(CONTENT_SEED).fill_bytes(&mut bytes);
    bytes
}

/// A resolver on `client` itself, the one that its resolv.conf names, that knows `name` with these addresses.
///
/// # Errors
/// If dnsmasq does not start.
pub fn start_resolver(client: &Node, name: &str, addresses: &[IpAddr]) -> Result<Process> {
    let records = addresses.iter().map(|address| format!("--address=/{name}/{address}"));
    let resolver = client.program("dnsmasq")?.words(DNSMASQ_OPTIONS).args(records).start()?;
    client.wait_for_listener(DNS_PORT, START_LIMIT)?;
    Ok(resolver)
}

fn start_nginx(host: &Node, topology: &Topology, root: &Path) -> Result<Process> {
    let scratch = topology.work().join("nginx");
    std::fs::create_dir_all(&scratch)?;
    let config = scratch.join("nginx.conf");
    std::fs::write(&config, nginx_config(root, &scratch))?;
    let nginx = host
        .program("nginx")?
        .arg("-e")
        .arg("stderr")
        .arg("-p")
        .arg(&scratch)
        .arg("-c")
        .arg(&config)
        .start()?;
    host.wait_for_listener(HTTP_PORT, START_LIMIT)?;
    Ok(nginx)
}

fn nginx_config(root: &Path, scratch: &Path) -> String {
    let (root, scratch) = (root.display(), scratch.display());
    format!(
        "user root; daemon off; pid {scratch}/pid; worker_processes 1; error_log stderr;
        events {{ }}
        http {{
            access_log off; sendfile on; client_max_body_size 0; default_type application/octet-stream;
            client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy; fastcgi_temp_path {scratch}/fastcgi;
            uwsgi_temp_path {scratch}/uwsgi; scgi_temp_path {scratch}/scgi;
            server {{
                listen {HTTP_PORT}; listen [::]:{HTTP_PORT}; root {root};
                location = {SEEN_FROM} {{ return 200 $remote_addr; }}
                location /upload/ {{ dav_methods PUT; }}
            }}
        }}"
    )
}

fn start_dnsmasq(target: &Node) -> Result<Process> {
    let records = [
        format!("--address=/{NAME}/{TARGET}"),
        format!("--address=/{NAME}/{TARGET_V6}"),
        format!("--edns-packet-max={BIG_ANSWER}"),
        format!("--txt-record={BIG_NAME},{}", vec!["x".repeat(200); BIG_ANSWER / 250].join(",")),
    ];
    let dnsmasq = target.program("dnsmasq")?.words(DNSMASQ_OPTIONS).args(records).start()?;
    target.wait_for_listener(DNS_PORT, START_LIMIT)?;
    Ok(dnsmasq)
}

const DNSMASQ_OPTIONS: &str = "--keep-in-foreground --conf-file=/dev/null --user=root --pid-file= --log-facility=- --no-resolv --no-hosts --port=53";
const DNS_PORT: u16 = 53;

/// Where nginx listens.
pub const HTTP_PORT: u16 = 80;
/// Where iperf3 listens.
pub const IPERF_PORT: u16 = 5201;
/// The path of the file to fetch.
pub const FILE: &str = "/file";
/// The name that dnsmasq knows.
pub const NAME: &str = "target.test";

/// The name whose TXT record is larger than an ordinary packet.
pub const BIG_NAME: &str = "big.test";

/// What dnsmasq sends by UDP at most; the record of [`BIG_NAME`] is a little smaller.
const BIG_ANSWER: usize = 4096;

/// What the kernel says of a port where nobody listens, `ECONNREFUSED`.
pub const REFUSED: &str = "Connection refused";
/// What the kernel says of a host that is unreachable, `EHOSTUNREACH`.
pub const NO_ROUTE: &str = "No route to host";
/// What the kernel says of a network that is unreachable, `ENETUNREACH`.
pub const NO_NETWORK: &str = "Network is unreachable";

/// curl's exit code, from its manual.
const CURL_FAILED_TO_CONNECT: i32 = 7;

/// The path that answers with the address a request came from.
const SEEN_FROM: &str = "/seen-from";

/// What a service may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(10);

/// curl ends by its own limit; this is for its start and end.
const GRACE: Duration = Duration::from_secs(5);

/// Any number: the same file in every run.
const CONTENT_SEED: u64 = 1;
