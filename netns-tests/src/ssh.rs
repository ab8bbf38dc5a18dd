//! sshd on the target, or another host, with keys, configuration and users of its own, and the programs that speak to it.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::addresses::TARGET;
use crate::node::Node;
use crate::process::{Process, Program};
use crate::topology::Topology;

/// The running sshd. Dropping it ends it.
#[derive(Debug)]
pub struct Ssh {
    directory: PathBuf,
    _sshd: Process,
}

impl Ssh {
    /// Makes the keys and starts sshd on the target.
    ///
    /// # Errors
    /// If one of the programs is missing or fails.
    pub fn start(topology: &Topology) -> Result<Self> {
        Self::start_on(&topology.target, TARGET.into(), topology)
    }

    /// The same on another host, whom its clients know by `address`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(target: &Node, address: IpAddr, topology: &Topology) -> Result<Self> {
        let directory = topology.work().join("ssh");
        std::fs::create_dir_all(directory.join("home"))?;
        for key in [HOST_KEY, CLIENT_KEY] {
            let key = directory.join(key);
            target
                .program("ssh-keygen")?
                .words("-q -t ed25519 -C test -N")
                .arg("")
                .arg("-f")
                .arg(key)
                .output()?;
        }
        let host_key = std::fs::read_to_string(directory.join(HOST_KEY).with_extension("pub"))?;
        std::fs::write(directory.join(KNOWN_HOSTS), format!("{address} {host_key}"))?;
        replace_users(target, &directory)?;
        // Where sshd confines the part of it that has no rights, in the private /run.
        target.run("install -d -m 755 /run/sshd")?;
        let config = directory.join("sshd_config");
        std::fs::write(&config, sshd_config(&directory))?;
        let sshd = target.program("/usr/sbin/sshd")?.words("-D -e -f").arg(&config).start()?;
        target.wait_for_listener(PORT, START_LIMIT)?;
        Ok(Self { directory, _sshd: sshd })
    }

    /// `ssh`, `scp` or `sftp` on `client`, with the options to log in by key.
    ///
    /// # Errors
    /// If the program cannot be prepared.
    pub fn program(&self, client: &Node, name: &str) -> Result<Program> {
        let known = self.directory.join(KNOWN_HOSTS);
        let options = format!(
            "-q -F none -o BatchMode=yes -o StrictHostKeyChecking=yes -o GlobalKnownHostsFile=/dev/null \
             -o ServerAliveInterval=0 -o IdentitiesOnly=yes -o UserKnownHostsFile={} -i",
            known.display()
        );
        Ok(client.program(name)?.words(&options).arg(self.directory.join(CLIENT_KEY)))
    }

    /// The home directory of the user who logs in.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.directory.join("home")
    }
}

/// Who logs in.
#[must_use]
pub fn login() -> String {
    format!("root@{TARGET}")
}

/// On the target alone, root's account is open for keys, with a plain shell and a home where nothing of the host's lies.
fn replace_users(target: &Node, directory: &Path) -> Result<()> {
    let users = std::fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
    let root = format!("root:x:0:0:root:{}:/bin/sh", directory.join("home").display());
    let others = users.lines().filter(|line| !line.starts_with("root:"));
    let users: String = std::iter::once(root.as_str()).chain(others).flat_map(|line| [line, "\n"]).collect();
    mount_over_etc(target, directory, "passwd", &users, 0o644)?;
    // Nobody else logs in, and the hashes of the host's passwords are nobody's business.
    mount_over_etc(target, directory, "shadow", "root:*:20000:0:99999:7:::\n", 0o600)
}

/// Puts `text` in the place of a file of the target's /etc; nobody whom `mode` keeps out can ever read it.
fn mount_over_etc(target: &Node, directory: &Path, name: &str, text: &str, mode: u32) -> Result<()> {
    let file = directory.join(name);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&file)
        .and_then(|mut opened| opened.write_all(text.as_bytes()))
        .with_context(|| file.display().to_string())?;
    target.program("mount")?.arg("--bind").arg(&file).arg(Path::new("/etc").join(name)).output()?;
    Ok(())
}

fn sshd_config(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "Port {PORT}\nHostKey {directory}/{HOST_KEY}\nAuthorizedKeysFile {directory}/{CLIENT_KEY}.pub\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n\
         PidFile none\nUseDNS no\nPrintMotd no\nPrintLastLog no\nSubsystem sftp internal-sftp\n"
    )
}

const HOST_KEY: &str = "host-key";
const CLIENT_KEY: &str = "client-key";
const KNOWN_HOSTS: &str = "known_hosts";
const PORT: u16 = 22;

/// What sshd may take to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(10);
