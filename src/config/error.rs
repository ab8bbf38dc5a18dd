//! Why a configuration is not accepted, and where.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::failure::{ExitCode, Failure, os_text};

/// Why a configuration is not accepted.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {}", path.display(), os_text(error))]
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

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Unreadable { path, error } => {
                let failure = Self::of_system(format!("cannot read {}", path.display()), &error);
                if failure.class == ExitCode::Rights {
                    return failure;
                }
                Self::new(ExitCode::Usage, failure.message)
            }
            ConfigError::At { .. } => Self::new(ExitCode::Usage, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_a_missing_configuration_as_usage_and_a_forbidden_one_as_a_missing_right() {
        let of = |number| {
            Failure::from(ConfigError::Unreadable {
                path: PathBuf::from("/etc/vpn/client.toml"),
                error: io::Error::from_raw_os_error(number),
            })
        };
        assert_eq!(of(libc::ENOENT).class, ExitCode::Usage);
        assert_eq!(of(libc::ENOENT).message, "cannot read /etc/vpn/client.toml: No such file or directory");
        assert_eq!(of(libc::EACCES).class, ExitCode::Rights);
    }
}
