//! The program under test, by its documented commands only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::addresses::{SERVER, TUNNEL_SERVER, TUNNEL_SERVER_V6, tunnel_client};
use crate::node::Node;
use crate::process::{Finished, Process, Program};
use crate::scenario::target_directory;
use crate::topology::Topology;
use crate::wait;

/// The binary, and where the keys and configs of one topology lie.
#[derive(Debug)]
pub struct Vpn {
    binary: PathBuf,
    directory: PathBuf,
    /// The server's keys.
    pub server_keys: Keys,
    /// The keys of the clients, in their order.
    pub client_keys: Vec<Keys>,
}

/// A key pair, as `vpn genkey` and `vpn pubkey` write it.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The private key.
    pub private: String,
    /// The public key.
    pub public: String,
}

impl Vpn {
    /// Finds the binary, makes keys, and writes `server.toml` and a `client.toml` for each client.
    ///
    /// # Errors
    /// If the binary is not built or fails.
    pub fn prepare(topology: &Topology) -> Result<Self> {
        let binary = binary()?;
        let directory = topology.work().join("vpn");
        std::fs::create_dir_all(&directory)?;
        let server_keys = Keys::generate(&binary, &topology.server)?;
        let client_keys = topology
            .clients
            .iter()
            .map(|client| Keys::generate(&binary, client))
            .collect::<Result<Vec<_>>>()?;
        let vpn = Self { binary, directory, server_keys, client_keys };
        vpn.write("server.toml", &vpn.server_config())?;
        for n in 0..topology.clients.len() {
            vpn.write(&client_file(n), &vpn.client_config(n, ""))?;
        }
        Ok(vpn)
    }

    /// The same for clients that know the server by `address` only; it listens on that version of IP.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_for(topology: &Topology, address: impl Into<IpAddr>) -> Result<Self> {
        let vpn = Self::prepare(topology)?;
        let address = address.into();
        let any: IpAddr =
            if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let [address, any] = [address, any].map(|address| SocketAddr::new(address, PORT).to_string());
        vpn.write("server.toml", &vpn.server_config().replace(&format!("0.0.0.0:{PORT}"), &any))?;
        for n in 0..topology.clients.len() {
            let config = vpn.client_config(n, "").replace(&format!("{SERVER}:{PORT}"), &address);
            vpn.write(&client_file(n), &config)?;
        }
        Ok(vpn)
    }

    /// The config of the server, with every client as its peer.
    #[must_use]
    pub fn server_config(&self) -> String {
        let peers =
            self.client_keys.iter().zip(0..).map(|(keys, n)| peer(&keys.public, n)).collect::<String>();
        format!(
            "private_key = \"{}\"\nlisten = [\"0.0.0.0:{PORT}\"]\n\
             [tunnel]\naddresses = [\"{TUNNEL_SERVER}/24\", \"{TUNNEL_SERVER_V6}/64\"]\ndns = []\n{peers}",
            self.server_keys.private
        )
    }

    /// The config of client `n`, with more lines for its `[tunnel]`.
    #[must_use]
    pub fn client_config(&self, n: usize, tunnel: &str) -> String {
        format!(
            "private_key = \"{}\"\nserver = \"{SERVER}:{PORT}\"\nserver_key = \"{}\"\n[tunnel]\ndns = \"off\"\n{tunnel}\n",
            self.client_keys[n].private, self.server_keys.public
        )
    }

    /// Writes a config, readable by root only, and gives back its path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, config: &str) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(&self.directory))?;
        std::fs::write(&path, config)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// The config file of client `n`.
    #[must_use]
    pub fn client_path(&self, n: usize) -> PathBuf {
        self.directory.join(client_file(n))
    }

    /// The config file of the server.
    #[must_use]
    pub fn server_path(&self) -> PathBuf {
        self.directory.join("server.toml")
    }

    /// The binary.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.binary
    }

    /// `vpn` on `node`.
    ///
    /// # Errors
    /// If the program cannot be prepared.
    pub fn program(&self, node: &Node) -> Result<Program> {
        node.program(&self.binary)
    }

    /// Starts `vpn serve` on the server and waits until it listens on [`PORT`].
    ///
    /// # Errors
    /// If it does not within half a minute.
    pub fn serve(&self, topology: &Topology) -> Result<Process> {
        self.serve_on(topology, PORT)
    }

    /// Starts `vpn serve` on the server and waits until it listens on `port`, one of those in its config.
    ///
    /// # Errors
    /// If it does not within half a minute.
    pub fn serve_on(&self, topology: &Topology, port: u16) -> Result<Process> {
        let program = self.program(&topology.server)?;
        self.wait_for(topology, program.args(["serve", "--config"]).arg(self.server_path()), port)
    }

    /// Starts `vpn serve` on the server with a limit on open files, and waits until it listens.
    ///
    /// # Errors
    /// If it does not within half a minute.
    pub fn serve_with_files(&self, topology: &Topology, most: u32) -> Result<Process> {
        let program = topology.server.program("prlimit")?.arg(format!("--nofile={most}:{most}"));
        let program = program.arg(self.path()).args(["serve", "--config"]).arg(self.server_path());
        self.wait_for(topology, program, PORT)
    }

    fn wait_for(&self, topology: &Topology, program: Program, port: u16) -> Result<Process> {
        let mut serve = program.start()?;
        wait::until("vpn serve to listen", START_LIMIT, || {
            if !serve.is_running()? {
                bail!("vpn serve ended: {}", serve.logs()?.1.trim());
            }
            // Listed as up and not only holding its port: the host's side is arranged then, too.
            Ok((topology.server.is_listening(port)?
                && self.status(&topology.server)?["tunnels"][0]["state"] == "up")
                .then_some(()))
        })?;
        Ok(serve)
    }

    /// Runs `vpn up` on client `n`, with more arguments; it returns when the tunnel carries packets.
    ///
    /// # Errors
    /// If it fails or takes longer than 40 seconds.
    pub fn up(&self, topology: &Topology, n: usize, arguments: &str) -> Result<Finished> {
        self.try_up(&topology.clients[n], &self.client_path(n), arguments)?.expect_code(0)
    }

    /// Runs `vpn up` with a config, whatever comes of it.
    ///
    /// # Errors
    /// If it takes longer than 40 seconds.
    pub fn try_up(&self, node: &Node, config: &Path, arguments: &str) -> Result<Finished> {
        let finished = self.program(node)?.arg("up").arg(config).words(arguments).run(UP_LIMIT)?;
        watch_background_logs(node)?;
        Ok(finished)
    }

    /// Runs `vpn down` on client `n`, whatever comes of it.
    ///
    /// # Errors
    /// If it takes longer than half a minute.
    pub fn down(&self, topology: &Topology, n: usize) -> Result<Finished> {
        self.program(&topology.clients[n])?.arg("down").arg(self.client_path(n)).run(START_LIMIT)
    }

    /// What `vpn status --json` says on `node`.
    ///
    /// # Errors
    /// If it fails or is not JSON.
    pub fn status(&self, node: &Node) -> Result<Value> {
        let output = self.program(node)?.args(["status", "--json"]).output()?;
        serde_json::from_str(&output).with_context(|| format!("status --json: {output:?}"))
    }

    /// The first tunnel of `vpn status --json` on `node`.
    ///
    /// # Errors
    /// If it fails or there is none.
    pub fn tunnel(&self, node: &Node) -> Result<Value> {
        self.status(node)?["tunnels"].get(0).cloned().with_context(|| format!("no tunnel on {}", node.role()))
    }

    /// What KCP measured and counted on `node`: of the client's session, or on the server of the first peer that has one.
    ///
    /// # Errors
    /// If `vpn status` fails or does not say.
    pub fn kcp(&self, node: &Node) -> Result<Value> {
        let tunnel = self.tunnel(node)?;
        let of_peers = tunnel["peers"].as_array().into_iter().flatten();
        std::iter::once(&tunnel)
            .chain(of_peers)
            .map(|end| &end["session"]["kcp"])
            .find(|kcp| kcp.is_object())
            .cloned()
            .with_context(|| format!("no kcp in status --json: {tunnel}"))
    }

    /// How often the tunnel on `node` has moved to another carrier.
    ///
    /// # Errors
    /// If `vpn status` fails or does not say.
    pub fn migrations(&self, node: &Node) -> Result<u64> {
        self.tunnel(node)?["migrations"].as_u64().context("no migrations in status --json")
    }

    /// The ends of the first carrier in use on `node`, local and remote; `None` while there is none.
    ///
    /// # Errors
    /// If `vpn status` fails.
    pub fn carrier(&self, node: &Node) -> Result<Option<(String, String)>> {
        let tunnel = self.tunnel(node)?;
        let end = |which: &str| Some(tunnel["carriers"][0][which].as_str()?.to_owned());
        Ok(end("local").zip(end("remote")))
    }

    /// Waits until the first carrier in use on `node` is one that `is_wanted`, and gives back its ends, local and remote.
    ///
    /// # Errors
    /// If it is not after a minute.
    pub fn wait_for_carrier(
        &self,
        node: &Node,
        what: &str,
        is_wanted: impl Fn(&str, &str) -> bool,
    ) -> Result<(String, String)> {
        let mut last = None;
        let found = wait::until(what, CARRIER_LIMIT, || {
            last = self.carrier(node)?;
            Ok(last.clone().filter(|(local, remote)| is_wanted(local, remote)))
        });
        found.with_context(|| format!("the carrier is {last:?}"))
    }

    /// Waits until every `vpn` on `node` has ended.
    ///
    /// # Errors
    /// If one still runs after half a minute.
    pub fn wait_for_end(&self, node: &Node) -> Result<()> {
        node.wait_for_end_of(PROGRAM, START_LIMIT)
    }
}

impl Keys {
    fn generate(binary: &Path, node: &Node) -> Result<Self> {
        let private = node.program(binary)?.arg("genkey").output()?.trim().to_owned();
        let public =
            node.program(binary)?.arg("pubkey").input(format!("{private}\n")).output()?.trim().to_owned();
        Ok(Self { private, public })
    }

    /// A pair that nobody knows.
    ///
    /// # Errors
    /// If the program fails.
    pub fn of_a_stranger(vpn: &Vpn, node: &Node) -> Result<Self> {
        Self::generate(&vpn.binary, node)
    }
}

/// What goes on in the background writes into a file of its own, which goes with it: it is kept open from its start.
fn watch_background_logs(node: &Node) -> Result<()> {
    for pid in node.pids_of(PROGRAM)? {
        let stderr = PathBuf::from(format!("/proc/{pid}/fd/2"));
        // One that has just ended has no output to look at any more.
        let (Ok(path), Ok(file)) = (std::fs::read_link(&stderr), std::fs::File::open(&stderr)) else {
            continue;
        };
        if path.ends_with("log") {
            node.logs().watch(node.role(), PROGRAM, file)?;
        }
    }
    Ok(())
}

/// The binary under test: `$VPN_BIN`, else the one built beside this program, the release build first.
///
/// # Errors
/// If there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("VPN_BIN") {
        return Ok(path.into());
    }
    let target = target_directory()?;
    let candidates = ["release", "debug"].map(|profile| target.join(profile).join(PROGRAM));
    candidates
        .into_iter()
        .find(|path| path.exists())
        .context("vpn is not built: cargo build --release, or set VPN_BIN")
}

fn client_file(n: usize) -> String {
    // The name of a tunnel is the file's stem, so each client has a directory instead.
    format!("client{n}/client.toml")
}

fn peer(public_key: &str, n: u8) -> String {
    let (v4, v6) = tunnel_client(n);
    format!(
        "[[peer]]\nname = \"client{n}\"\npublic_key = \"{public_key}\"\naddresses = [\"{v4}\", \"{v6}\"]\n"
    )
}

/// The program's name, as the kernel shows it.
pub const PROGRAM: &str = "vpn";

/// Where the server listens.
pub const PORT: u16 = 443;

/// What a small command, or a start on a busy machine, may take.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Another carrier takes a few seconds; an old one may be missed only after its server is given up.
const CARRIER_LIMIT: Duration = Duration::from_secs(60);

/// A first `up` tries for 20 s before it gives up.
const UP_LIMIT: Duration = Duration::from_secs(40);
