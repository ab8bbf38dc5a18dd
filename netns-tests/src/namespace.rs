//! A named network namespace with a mount namespace of its own, so that nothing in it touches the host.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cleanup::{self, Resource, Run};
use crate::{sys, wait};

/// A network namespace and a mount namespace that belong together. Dropping it ends every process in it and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    network: File,
    mounts: OwnedFd,
}

impl Namespace {
    /// Makes the namespace `ROLE` of the topology `run`. In its mount namespace /run and /var/lib are empty,
    /// /etc/resolv.conf is a copy with `resolv_conf` in it, and /sys shows this network namespace.
    ///
    /// # Errors
    /// Without root, or if the kernel refuses.
    pub fn create(run: Run, role: &str, resolv_conf: &str) -> Result<Self> {
        let name = format!("{}-{role}", run.name());
        cleanup::register(Resource::Namespace(name.clone()))?;
        ip(&["netns", "add", &name])?;
        let network = File::open(Path::new(NAMESPACES).join(&name))?;
        let mounts = private_mounts(network.try_clone()?, resolv_conf.to_owned());
        let mounts = mounts.inspect_err(|_| remove(&name)).with_context(|| format!("mounts of {name}"))?;
        Ok(Self { name, network, mounts })
    }

    /// The name, as `ip netns exec` takes it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The network namespace.
    #[must_use]
    pub const fn network(&self) -> &File {
        &self.network
    }

    /// The mount namespace.
    #[must_use]
    pub const fn mounts(&self) -> &OwnedFd {
        &self.mounts
    }

    /// The processes in the network namespace.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn pids(&self) -> Result<Vec<u32>> {
        pids(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        cleanup::remove(Resource::Namespace(std::mem::take(&mut self.name)));
    }
}

/// Fails unless the process is root: without it nothing here can be tested, and a skipped test would look like a passed one.
///
/// # Errors
/// If the effective user is another.
pub fn require_root() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "network namespaces need root: run sudo scripts/test");
    Ok(())
}

/// Runs `ip`.
///
/// # Errors
/// With what it wrote, if it fails.
pub(crate) fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output().context("ip")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A mount namespace made in a thread of its own, which ends with the descriptor as the only trace.
fn private_mounts(network: File, resolv_conf: String) -> Result<OwnedFd> {
    let make = move || -> Result<OwnedFd> {
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&network), Some(LinkNameSpaceType::Network))?;
        sys::unshare_mounts()?;
        arrange_mounts(&resolv_conf)?;
        Ok(File::open("/proc/thread-self/ns/mnt")?.into())
    };
    std::thread::spawn(make).join().unwrap_or_else(|_| bail!("the thread panicked"))
}

fn arrange_mounts(resolv_conf: &str) -> Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
    let nothing = None::<&std::ffi::CStr>;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .context("making mounts private")?;
    // Whole directories, because /run/vpn and /var/lib/vpn need not exist on the host and must not be made there.
    for directory in ["/run", "/var/lib"] {
        mount("tmpfs", directory, "tmpfs", MountFlags::empty(), nothing).context(directory)?;
    }
    show_this_network_in_sys().context("/sys")?;
    std::fs::write(RESOLV_CONF_COPY, resolv_conf)?;
    let target = resolv_conf_target()?;
    mount_bind(RESOLV_CONF_COPY, &target).with_context(|| format!("mounting over {}", target.display()))
}

/// Mounts a /sys of this network namespace, with the control groups of the old one.
fn show_this_network_in_sys() -> Result<()> {
    use rustix::mount::{MountFlags, mount, mount_bind_recursive, mount_move};
    std::fs::create_dir("/run/cgroup")?;
    let groups = mount_bind_recursive("/sys/fs/cgroup", "/run/cgroup");
    mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None::<&std::ffi::CStr>)?;
    if groups.is_ok() {
        mount_move("/run/cgroup", "/sys/fs/cgroup")?;
    }
    Ok(std::fs::remove_dir("/run/cgroup")?)
}

/// The file behind /etc/resolv.conf. Where that is a link into /run, the target is made anew in our own /run.
fn resolv_conf_target() -> Result<std::path::PathBuf> {
    let link = Path::new("/etc/resolv.conf");
    let Ok(target) = std::fs::read_link(link) else {
        ensure!(link.exists(), "this host has no /etc/resolv.conf to mount a private one over");
        return Ok(link.to_owned());
    };
    let target = Path::new("/etc").join(target);
    if !target.exists() {
        std::fs::create_dir_all(target.parent().context("a link to nowhere")?)?;
        File::create(&target)?;
    }
    Ok(std::fs::canonicalize(target)?)
}

/// Ends every process in the namespace and removes it. Errors are swallowed: this runs while something else has failed.
pub(crate) fn remove(name: &str) {
    drop(wait::until("the end of its processes", KILL_LIMIT, || {
        let pids = pids(name).unwrap_or_default();
        pids.iter().for_each(|pid| kill(*pid));
        Ok(pids.is_empty().then_some(()))
    }));
    drop(ip(&["netns", "del", name]));
}

fn pids(name: &str) -> Result<Vec<u32>> {
    let own = std::process::id();
    let pids = ip(&["netns", "pids", name])?;
    Ok(pids.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid != own).collect())
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended by itself.
        kill_process(pid, Signal::KILL).ok();
    }
}

/// Where iproute2 keeps named network namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";

/// The private resolv.conf, seen only in its own mount namespace.
const RESOLV_CONF_COPY: &str = "/run/resolv.conf.private";

/// A process that got SIGKILL ends at once, unless it hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(5);
