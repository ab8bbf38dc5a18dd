//! A scenario: a topology, a body that runs in it, and what is kept when the body fails.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::expected::expected_failure;
use crate::topology::{Setup, Topology};
use crate::vpn::PROGRAM;

/// Builds the network, runs `body` in it and removes it. While the body runs, both sides of the router are captured.
///
/// A scenario on the list in [`crate::expected`] must fail, as it says there.
///
/// # Panics
/// If something fails: without root, in building, or in the body. The logs and captures are kept then, and the panic says where.
/// If the scenario was expected to fail and does not, or fails in another way.
pub fn scenario(name: &str, setup: Setup, body: impl FnOnce(&Topology) -> Result<()>) {
    let topology =
        Topology::build(setup).unwrap_or_else(|error| panic!("{name}: building the network: {error:#}"));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let _captures = capture(&topology)?;
        body(&topology)?;
        topology.logs().expect_quiet(PROGRAM)
    }));
    let failure = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(panic) => Some(message_of(panic.as_ref()).to_owned()),
    };
    match (expected_failure(name), failure) {
        (None, None) => {}
        (Some(expected), None) => {
            panic!("{name} passes: take it off the list of what fails until {:?}", expected.issue)
        }
        (Some(expected), Some(failure)) if failure.contains(expected.failure) => {
            // `scripts/test` looks for this line.
            eprintln!("expected failure: {name} (until {:?})\nit failed so: {failure}", expected.issue);
        }
        (_, Some(failure)) => panic!("{name}: {failure}\n{}", keep(name, &topology)),
    }
}

/// What a panic said.
fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

fn capture(topology: &Topology) -> Result<Vec<crate::node::Capture>> {
    (0..topology.clients.len()).map(|n| topology.router.capture_headers(&format!("client{n}"))).collect()
}

/// Copies the logs and captures to where they outlive the run, and says where that is.
fn keep(name: &str, topology: &Topology) -> String {
    for node in topology.nodes() {
        // A `vpn` that never came up wrote into its run-time folder; what `sh` prints becomes a log like any other.
        node.program("sh").and_then(|sh| sh.args(["-c", "cat /run/vpn/*/log"]).output()).ok();
    }
    let collected = topology.logs().collect();
    match collected.and_then(|()| copy_logs(name, topology.logs().directory())) {
        Ok(directory) => format!("logs and captures are in {}", directory.display()),
        Err(error) => format!("the logs could not be kept: {error:#}"),
    }
}

fn copy_logs(name: &str, logs: &Path) -> Result<PathBuf> {
    let kept = target_directory()?.join("netns-failures").join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&kept)?;
    for entry in std::fs::read_dir(logs)? {
        let entry = entry?;
        if entry.metadata()?.len() > 0 {
            std::fs::copy(entry.path(), kept.join(entry.file_name()))?;
        }
    }
    give_to_invoking_user(kept.parent().unwrap_or(&kept))?;
    Ok(kept)
}

/// The build's target directory: this program lies somewhere in it.
///
/// # Errors
/// If it does not.
pub fn target_directory() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().find(|ancestor| ancestor.join("CACHEDIR.TAG").exists());
    Ok(target.context("this program does not lie in a target directory")?.to_owned())
}

/// Under sudo, what is written into the build's directory belongs to who called it.
fn give_to_invoking_user(path: &Path) -> Result<()> {
    let id = |name: &str| std::env::var(name).ok().and_then(|id| id.parse::<u32>().ok());
    let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) else {
        return Ok(());
    };
    std::os::unix::fs::lchown(path, Some(user), Some(group))?;
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            give_to_invoking_user(&entry?.path())?;
        }
    }
    Ok(())
}
