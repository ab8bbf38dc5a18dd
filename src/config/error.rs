//! Why a configuration is not accepted, and where.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a configuration is not accepted.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {}", path.display(), crate::failure::os_text(error))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The answer of the system.
        error: io::Error,
    },
    /// Something in the file is wrong.
    #[error("{}:{line}:{column}: {what}", path.display())]
    At {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// The key, where there is one, and what is wrong with it.
        what: String,
    },
}
