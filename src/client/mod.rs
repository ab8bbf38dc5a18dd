//! The client program.

use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::config::ClientConfig;
use crate::control::InstanceName;
use crate::failure::{ExitCode, Failure};

/// What `vpn up` was asked.
#[derive(Debug)]
pub struct UpOptions {
    /// The name of the tunnel.
    pub name: InstanceName,
    /// The file the configuration came from.
    pub file: PathBuf,
    /// The configuration, with the routes and excludes of the command line applied.
    pub config: ClientConfig,
    /// Whether to stay in the foreground.
    pub foreground: bool,
    /// Where the process in the background says that it is up; `None` in any other.
    pub ready_fd: Option<RawFd>,
}

/// What `vpn down` was asked.
#[derive(Debug)]
pub struct DownOptions {
    /// The name of the tunnel.
    pub name: InstanceName,
}

/// Brings a tunnel up.
///
/// # Errors
/// When it cannot be brought up; nothing is left behind then.
pub fn up(options: UpOptions) -> Result<(), Failure> {
    drop(options);
    Err(Failure::new(ExitCode::Failure, "not built yet"))
}

/// Takes a tunnel down, or undoes what is left of it.
///
/// # Errors
/// When there is no such tunnel, or something cannot be undone.
pub fn down(options: DownOptions) -> Result<(), Failure> {
    drop(options);
    Err(Failure::new(ExitCode::NoTunnel, "not built yet"))
}
