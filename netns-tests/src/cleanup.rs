//! What a topology makes on the host does not outlive the process: not by an ordinary end, a panic, a signal or `kill -9`.
//!
//! Every name begins with `vpn-PID-N`, PID being the process that made it. A `Drop` removes what an ordinary end or a panic
//! leaves; a thread that waits for signals removes it on SIGINT, SIGTERM and SIGHUP; and what a process that was killed has left
//! is found by its name and removed at the next start, if that process is dead.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use anyhow::{Context, Result};

use crate::{namespace, sys};

/// One topology of this process; its number makes the names unique.
#[derive(Debug, Clone, Copy)]
pub struct Run(u32);

impl Run {
    /// The next number.
    #[must_use]
    pub fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// How every name of this topology begins.
    #[must_use]
    pub fn name(self) -> String {
        format!("{PREFIX}{}-{}", std::process::id(), self.0)
    }
}

/// Something on the host that must go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    /// A named network namespace and every process in it.
    Namespace(String),
    /// A directory with all that is in it.
    Directory(PathBuf),
}

impl Resource {
    /// Errors are swallowed: this runs while something else has failed.
    fn remove(&self) {
        match self {
            Self::Namespace(name) => namespace::remove(name),
            Self::Directory(path) => drop(std::fs::remove_dir_all(path)),
        }
    }
}

/// Promises that `resource` will be removed, before it is made.
///
/// # Errors
/// If the signals cannot be watched.
pub(crate) fn register(resource: Resource) -> Result<()> {
    guard_against_signals()?;
    registry().insert(resource);
    Ok(())
}

/// Removes `resource` now.
pub(crate) fn remove(resource: Resource) {
    resource.remove();
    registry().remove(&resource);
}

/// Returns at once; but never while a signal ends this process, so that nobody reports the ends of what it kills.
pub(crate) fn hold_while_ending() {
    drop(registry());
}

/// A directory of this topology that is removed with it.
#[derive(Debug)]
pub struct WorkDirectory(PathBuf);

impl WorkDirectory {
    /// Makes the directory among the temporary files.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(run: Run) -> Result<Self> {
        let path = std::env::temp_dir().join(run.name());
        register(Resource::Directory(path.clone()))?;
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        remove(Resource::Directory(std::mem::take(&mut self.0)));
    }
}

/// Removes what processes that are dead have left.
///
/// # Errors
/// If a directory cannot be read.
pub fn remove_stale() -> Result<()> {
    for name in stale(Path::new(namespace::NAMESPACES))? {
        Resource::Namespace(name).remove();
    }
    let temporary = std::env::temp_dir();
    for path in stale(&temporary)?.into_iter().map(|name| temporary.join(name)) {
        // Anybody may make a directory of this name there.
        if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == 0) {
            Resource::Directory(path).remove();
        }
    }
    Ok(())
}

/// The names in `directory` whose creator is dead.
fn stale(directory: &Path) -> Result<Vec<String>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if creator(&name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// The process that made `name`, if it is one of ours.
fn creator(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let run = rest.split_once('-').map_or(rest, |(run, _role)| run);
    run.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// What this process has to remove: a signal ends the process without running any `Drop`.
fn registry() -> MutexGuard<'static, BTreeSet<Resource>> {
    static REGISTRY: Mutex<BTreeSet<Resource>> = Mutex::new(BTreeSet::new());
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From the first call on, SIGINT, SIGTERM and SIGHUP remove everything and then end the process.
fn guard_against_signals() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut outcome = Ok(());
    ONCE.call_once(|| outcome = start_signal_thread());
    outcome
}

fn start_signal_thread() -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    sys::write_signals_to(writer.into(), &[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || end_on_signal(reader))?;
    Ok(())
}

fn end_on_signal(mut reader: std::io::PipeReader) {
    let mut signal = [0];
    if reader.read_exact(&mut signal).is_ok() {
        // The lock is kept, so that nothing is made between this and the end.
        let resources = registry();
        resources.iter().for_each(Resource::remove);
        std::process::exit(128 + i32::from(signal[0]));
    }
}

/// How every name of ours begins.
const PREFIX: &str = "vpn-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_names_and_no_others() {
        assert_eq!(creator("vpn-123-0"), Some(123));
        assert_eq!(creator("vpn-123-0-client"), Some(123));
        assert_eq!(creator("vpn-123-4-client-1"), Some(123));
        for name in
            ["vpn", "vpn-", "vpn-123", "vpn-123-client", "vpn-x-0-client", "other-123-0-client", "host-123"]
        {
            assert_eq!(creator(name), None, "{name}");
        }
    }
}
