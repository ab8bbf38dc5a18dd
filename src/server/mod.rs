//! The server program.

use crate::config::ServerConfig;
use crate::control::InstanceName;
use crate::failure::{ExitCode, Failure};

/// What `vpn serve` was asked.
#[derive(Debug)]
pub struct ServeOptions {
    /// The name of the instance.
    pub name: InstanceName,
    /// The configuration.
    pub config: ServerConfig,
}

/// Runs a server until it is told to end.
///
/// # Errors
/// When it cannot start or go on; nothing is left behind then.
pub fn serve(options: ServeOptions) -> Result<(), Failure> {
    drop(options);
    Err(Failure::new(ExitCode::Failure, "not built yet"))
}
