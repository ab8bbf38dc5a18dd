//! How a command fails: the class that becomes the exit code, and the sentence that is said.

use std::fmt;
use std::io;
use std::process;

/// The documented exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// All went well.
    Success = 0,
    /// A failure of this host: a busy port, an existing interface, already up.
    Failure = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// A right is missing.
    Rights = 3,
    /// The server is unreachable: its name is not resolved, nothing answers, or its host resets.
    Unreachable = 4,
    /// The server refused.
    Refused = 5,
    /// There is no such tunnel.
    NoTunnel = 6,
}

impl ExitCode {
    /// The class that a process ended with.
    pub fn from_code(code: u8) -> Option<Self> {
        let all = [
            Self::Success,
            Self::Failure,
            Self::Usage,
            Self::Rights,
            Self::Unreachable,
            Self::Refused,
            Self::NoTunnel,
        ];
        all.into_iter().find(|class| *class as u8 == code)
    }
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// Why a command failed, in one sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is.
    pub class: ExitCode,
    /// What failed and what to do, without a full stop, as `main` prints it after `vpn: `.
    pub message: String,
}

impl Failure {
    /// Builds a failure.
    pub fn new(class: ExitCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { class, message }
    }

    /// Builds the failure of a call to the system: a missing right, or an ordinary failure.
    pub fn of_system(doing: impl fmt::Display, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied {
            let message = format!("{doing}: {}: run with sudo", os_text(error));
            return Self::new(ExitCode::Rights, message);
        }
        Self::new(ExitCode::Failure, format!("{doing}: {}", os_text(error)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The system's own words for an error, without the number Rust appends.
pub(crate) fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_the_classes_as_documented() {
        let codes = [
            ExitCode::Success,
            ExitCode::Failure,
            ExitCode::Usage,
            ExitCode::Rights,
            ExitCode::Unreachable,
            ExitCode::Refused,
            ExitCode::NoTunnel,
        ];
        assert_eq!(codes.map(|code| code as u8), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn tells_a_missing_right_from_another_failure_of_the_system() {
        let denied = io::Error::from_raw_os_error(libc::EPERM);
        let failure = Failure::of_system("cannot create vpn0", &denied);
        assert_eq!(failure.class, ExitCode::Rights);
        assert_eq!(failure.message, "cannot create vpn0: Operation not permitted: run with sudo");
        let busy = io::Error::from_raw_os_error(libc::EBUSY);
        let failure = Failure::of_system("cannot create vpn0", &busy);
        assert_eq!(failure.class, ExitCode::Failure);
        assert_eq!(failure.message, "cannot create vpn0: Device or resource busy");
    }
}
