//! What a server remembers from one start to the next: how late the last handshake of each peer was, so that a recorded
//! one stays refused.
//!
//! Written at most every [`SAVE_EVERY`] by a thread that may block; without a folder that takes it the server does without: a
//! replay then makes a carrier that nobody can use, and goes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::control::Paths;
use crate::crypto::{PublicKey, Timestamp};
use crate::instance::{Disk, replace};
use crate::session::{PeerMemory, Server};

/// The file, and what of it is written.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    /// [`Server::memory_version`] of what was written last, or is being written.
    version: u64,
    next: Instant,
    writing: Option<JoinHandle<()>>,
}

impl Memory {
    /// Tells `server` what was remembered under these paths.
    pub(super) fn load(paths: &Paths, server: &mut Server, now: Instant) -> Self {
        let path = paths.remembered(TITLE);
        match read(&path) {
            Ok(peers) => server.remember(peers),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::info!(%error, "{}: not read, handshakes begin anew", path.display()),
        }
        Self { path, version: server.memory_version(), next: now, writing: None }
    }

    /// Writes what is new, if it is time to, without waiting for it.
    pub(super) fn save(&mut self, server: &Server, now: Instant) {
        let is_written = self.version == server.memory_version();
        if is_written || now < self.next || self.writing.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        self.next = now + SAVE_EVERY;
        self.version = server.memory_version();
        let (path, peers) = (self.path.clone(), server.memory());
        self.writing = Some(spawn_blocking(move || write_or_tell(&path, &peers)));
    }

    /// Writes what is new, and waits for it.
    pub(super) async fn finish(self, server: &Server) {
        if let Some(task) = self.writing {
            // A thread that panicked has not written; what follows does.
            drop(task.await);
        }
        if self.version != server.memory_version() {
            write_or_tell(&self.path, &server.memory());
        }
    }
}

fn write_or_tell(path: &Path, peers: &[PeerMemory]) {
    if let Err(error) = write(path, peers) {
        tracing::debug!(%error, "{}: handshakes are not remembered", path.display());
    }
}

fn write(path: &Path, peers: &[PeerMemory]) -> io::Result<()> {
    let text = serde_json::to_vec(&peers.iter().map(Line::of).collect::<Vec<_>>())?;
    replace(path, &text, Disk::Awaited)
}

fn read(path: &Path) -> io::Result<Vec<PeerMemory>> {
    if fs::metadata(path)?.len() > FILE_MAX {
        return Err(io::Error::other(format!("longer than {FILE_MAX} bytes")));
    }
    let lines: Vec<Line> = serde_json::from_slice(&fs::read(path)?)?;
    Ok(lines.iter().filter_map(Line::memory).collect())
}

/// One peer as it is written: its key, and the rest in hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    key: String,
    newest: Option<String>,
    seen: Vec<String>,
}

impl Line {
    fn of(peer: &PeerMemory) -> Self {
        Self {
            key: peer.public_key.to_string(),
            newest: peer.newest.map(|newest| hex(&newest.to_bytes())),
            seen: peer.seen.iter().map(|ephemeral| hex(ephemeral)).collect(),
        }
    }

    /// `None` for what nobody of us wrote.
    fn memory(&self) -> Option<PeerMemory> {
        let public_key: PublicKey = self.key.parse().ok()?;
        let newest = match &self.newest {
            Some(text) => Some(Timestamp::from_bytes(bytes(text)?)?),
            None => None,
        };
        let seen = self.seen.iter().map(|text| bytes(text)).collect::<Option<_>>()?;
        Some(PeerMemory { public_key, newest, seen })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let pairs = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
    pairs.collect::<Option<Vec<_>>>()?.try_into().ok()
}

const TITLE: &str = "handshakes";

/// Our choice: what a crash forgets lets a replay make a carrier that nobody can use, for seconds.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// Our choice: room for many thousands of peers.
const FILE_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Vec<PeerMemory> {
        let newest = Some(Timestamp::from_unix(Duration::from_secs(1_700_000_000)));
        let peer =
            |key: u8, newest, seen| PeerMemory { public_key: PublicKey::from_bytes([key; 32]), newest, seen };
        vec![peer(1, newest, vec![[3; 32], [4; 32]]), peer(2, None, vec![])]
    }

    #[test]
    fn reads_back_what_it_wrote_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/server.handshakes.json");
        for _ in 0..2 {
            write(&path, &peers()).unwrap();
            assert_eq!(read(&path).unwrap(), peers());
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_it_did_not_write_is_an_error_or_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for text in ["", "{}", "[1]", "[{\"key\":1}]"] {
            fs::write(&path, text).unwrap();
            assert!(read(&path).is_err(), "{text}");
        }
        let key = PublicKey::from_bytes([1; 32]);
        for (key, newest, seen) in
            [("x", "null", "[]"), (&key.to_string(), "\"00\"", "[]"), (&key.to_string(), "null", "[\"é\"]")]
        {
            fs::write(&path, format!("[{{\"key\":\"{key}\",\"newest\":{newest},\"seen\":{seen}}}]")).unwrap();
            assert_eq!(read(&path).unwrap(), [], "{key} {newest} {seen}");
        }
    }

    #[test]
    fn a_folder_that_takes_no_file_is_an_error_and_no_more() {
        assert!(write(Path::new("/proc/nowhere/file"), &peers()).is_err());
        write_or_tell(Path::new("/proc/nowhere/file"), &peers());
    }
}
