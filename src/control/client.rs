//! The asking side of the control socket, for commands.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use super::message::RESPONSE_MAX;
use super::{Request, Response};

/// Asks the instance that listens at `path`, and waits at most `timeout` for each part of its
/// answer.
///
/// # Errors
/// [`ClientError::NotUp`] when nobody listens there.
pub fn request(path: &Path, request: Request, timeout: Duration) -> Result<Response, ClientError> {
    let stream = UnixStream::connect(path).map_err(ClientError::of_connect)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut line = serde_json::to_string(&request).map_err(|_| ClientError::Unreadable)?;
    line.push('\n');
    (&stream).write_all(line.as_bytes())?;
    let limit = u64::try_from(RESPONSE_MAX).unwrap_or(u64::MAX);
    let mut answer = String::new();
    BufReader::new(stream.take(limit)).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(ClientError::Ended);
    }
    serde_json::from_str(&answer).map_err(|_| ClientError::Unreadable)
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens: no socket, or one whose process is gone.
    #[error("it is not up")]
    NotUp,
    /// The process ended, or closed the connection, before it answered.
    #[error("it ended before it answered")]
    Ended,
    /// The answer is none of ours; another version may be running.
    #[error("its answer cannot be read: another version may be running")]
    Unreadable,
    /// The socket may not be used, or does not answer in time.
    #[error("{}", crate::failure::os_text(.0))]
    Io(io::Error),
}

impl ClientError {
    fn of_connect(error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
            return Self::NotUp;
        }
        Self::Io(error)
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            return Self::Io(io::Error::new(io::ErrorKind::TimedOut, "it does not answer in time"));
        }
        if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
            return Self::Ended;
        }
        Self::Io(error)
    }
}
