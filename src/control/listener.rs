//! The answering side of the control socket.
//!
//! ```text
//! accept (at most CONNECTIONS_MAX at a time) -> one line -> Listener::next -> Responder -> one line
//! ```
//! A command that is slow, silent or gone costs the tunnel nothing: its connection is a task of
//! its own and ends by itself.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::message::REQUEST_MAX;
use super::{Request, Response};

/// The control socket of a running instance; the file is gone when this is dropped.
#[derive(Debug)]
pub struct Listener {
    path: PathBuf,
    requests: mpsc::Receiver<(Request, Responder)>,
    accepting: JoinHandle<()>,
}

impl Listener {
    /// Listens at `path`, for root and the own user only, in the place of what a dead process
    /// left there.
    ///
    /// # Errors
    /// `AddrInUse` when a live process listens there; else the system's.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if BlockingStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "already up"));
        }
        // Bound beside and moved into place: there is never a moment with other permissions.
        let beside = path.with_extension(process::id().to_string());
        remove(&beside)?;
        let listener = UnixListener::bind(&beside)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(MODE))?;
        fs::rename(&beside, path)?;
        let (sender, requests) = mpsc::channel(CONNECTIONS_MAX);
        Ok(Self { path: path.to_path_buf(), requests, accepting: tokio::spawn(accept(listener, sender)) })
    }

    /// The next request; may be dropped before it is ready without losing one.
    pub async fn next(&mut self) -> (Request, Responder) {
        match self.requests.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Err(error) = remove(&self.path) {
            tracing::debug!(%error, "the control socket stays behind");
        }
    }
}

/// Where the answer to one request goes.
#[derive(Debug)]
pub struct Responder {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
}

impl Responder {
    /// Answers without waiting.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn respond(self, response: Response) {
        tokio::spawn(self.respond_and_wait(response));
    }

    /// Answers with what `make` returns, without waiting. Neither making it nor writing it down keeps this thread from its work:
    /// another does that.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn respond_with(self, make: impl FnOnce() -> Response + Send + 'static) {
        tokio::spawn(async move {
            let Ok(Ok(line)) = spawn_blocking(move || to_line(&make())).await else {
                return tracing::debug!("an answer could not be made");
            };
            self.hand_over(&line).await;
        });
    }

    /// Answers, and waits (a few seconds at most) until the answer is with the asker: for the
    /// last answer of a process.
    pub async fn respond_and_wait(self, response: Response) {
        match to_line(&response) {
            Ok(line) => self.hand_over(&line).await,
            Err(error) => tracing::debug!(%error, "an answer could not be written down"),
        }
    }

    async fn hand_over(mut self, line: &[u8]) {
        let written = timeout(PATIENCE, self.stream.write_all(line)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::debug!("a command did not take its answer");
        }
    }
}

fn to_line(response: &Response) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    Ok(line)
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<(Request, Responder)>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, permit, requests.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a command");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    stream: UnixStream,
    permit: OwnedSemaphorePermit,
    requests: mpsc::Sender<(Request, Responder)>,
) {
    let mut responder = Responder { stream, _permit: permit };
    match timeout(PATIENCE, read_request(&mut responder.stream)).await {
        Ok(Ok(Some(request))) => {
            // The receiver is gone only when the instance ends.
            if requests.send((request, responder)).await.is_err() {
                tracing::debug!("a command came too late");
            }
        }
        Ok(Ok(None)) => {
            let message = "this request is unknown: another version may be running".to_owned();
            responder.respond_and_wait(Response::Error { message }).await;
        }
        Ok(Err(_)) | Err(_) => tracing::debug!("a command did not ask"),
    }
}

/// Reads one request; `None` when the line is none of ours or too long.
async fn read_request(stream: &mut UnixStream) -> io::Result<Option<Request>> {
    let limit = u64::try_from(REQUEST_MAX).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    BufReader::new(stream.take(limit)).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line).ok())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Only the own user may ask, which is root.
const MODE: u32 = 0o600;

/// Commands served at a time; more wait in the kernel's queue. Our choice.
const CONNECTIONS_MAX: usize = 16;

/// How long a command may take to ask, and to take its answer. Our choice.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two failures to accept, as when no descriptor is free. Our choice.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::thread;

    use super::*;
    use crate::control::{ClientError, request};

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn hands_out_a_request_and_carries_the_answer_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let asked = path.clone();
        runtime().block_on(async {
            let mut listener = Listener::bind(&path).unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let asker = thread::spawn(move || request(&asked, Request::Down, TIMEOUT));
            let (asked, responder) = listener.next().await;
            assert_eq!(asked, Request::Down);
            responder.respond_and_wait(Response::Done).await;
            assert_eq!(asker.join().unwrap().unwrap(), Response::Done);
        });
        assert!(!path.exists());
    }

    #[test]
    fn answers_nonsense_and_too_long_lines_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        runtime().block_on(async {
            let mut listener = Listener::bind(&path).unwrap();
            for line in [b"{\"request\":\"fly\"}\n".to_vec(), vec![b'x'; 2 * REQUEST_MAX]] {
                let asked = path.clone();
                let asker = thread::spawn(move || {
                    let mut stream = BlockingStream::connect(asked).unwrap();
                    stream.write_all(&line).unwrap();
                    let mut answer = String::new();
                    // Unread bytes of ours may reset the connection after the answer.
                    drop(stream.read_to_string(&mut answer));
                    answer
                });
                let answer = tokio::select! {
                    _ = listener.next() => panic!("nonsense was handed out"),
                    answer = spawn_blocking(|| asker.join().unwrap()) => answer.unwrap(),
                };
                assert!(answer.contains(r#""response":"error""#), "{answer}");
            }
        });
    }

    #[test]
    fn replaces_what_a_dead_process_left_and_respects_a_live_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let stale = request(&path, Request::Status { flows: false }, TIMEOUT);
        assert!(matches!(stale, Err(ClientError::NotUp)));
        runtime().block_on(async {
            let _live = Listener::bind(&path).unwrap();
            let second = Listener::bind(&path).unwrap_err();
            assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        });
    }

    #[test]
    fn tells_an_asker_whose_instance_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let asked = path.clone();
        runtime().block_on(async {
            let mut listener = Listener::bind(&path).unwrap();
            let asker = thread::spawn(move || request(&asked, Request::Status { flows: false }, TIMEOUT));
            drop(listener.next().await);
            assert!(matches!(asker.join().unwrap(), Err(ClientError::Ended)));
        });
        assert!(matches!(request(&path, Request::Status { flows: false }, TIMEOUT), Err(ClientError::NotUp)));
    }
}
