//! The undo journal: what to take back after the process ended, however it ended.
//!
//! A file of JSON lines, its lock (flock(2)) held as long as the process lives. Each change is written *before* it is made, so a
//! half-written last line belongs to a change that never was. The header names the boot and the network namespace: changes of
//! another boot or namespace are gone with it, and undoing them here would hit somebody else's.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{change::Change, netlink::Netlink};

/// The changes of one tunnel to the host. Dropping it unlocks the file and undoes nothing.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    header: Header,
    changes: Vec<Change>,
}

/// What [`Journal::open`] found.
#[derive(Debug)]
pub enum Opened {
    /// A live process holds the journal.
    Locked {
        /// It lives in another network namespace.
        elsewhere: bool,
    },
    /// The journal is ours; [`Journal::changes`] are what a dead process left and [`Journal::undo`] takes them back.
    Ours(Journal),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    boot: String,
    netns: u64,
}

impl Journal {
    /// Opens and locks a journal, creating it and its folder if need be. Leftovers of another boot or another network
    /// namespace are forgotten.
    ///
    /// # Errors
    /// The file or its folder cannot be written.
    pub fn open(path: &Path) -> Result<Opened> {
        Self::open_here(path, Header::of_this_process()?)
    }

    /// As [`Journal::open`], but while it is locked asks again for up to `patience`: a process that was just killed holds its
    /// lock some milliseconds longer, until the kernel has taken its TUN device down.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub async fn open_within(path: &Path, patience: Duration) -> Result<Opened> {
        let attempts = patience.as_millis() / RETRY_INTERVAL.as_millis();
        for _ in 0..attempts {
            let opened = Self::open(path)?;
            if matches!(opened, Opened::Ours(_)) {
                return Ok(opened);
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
        Self::open(path)
    }

    /// The changes that would be undone, oldest first.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Writes a change down. Must come before the change itself.
    ///
    /// # Errors
    /// The file cannot be written; then the change must not be made.
    pub fn record(&mut self, change: Change) -> Result<()> {
        write_line(&mut self.file, &change).with_context(|| self.cannot("write"))?;
        self.changes.push(change);
        Ok(())
    }

    /// Takes everything back, newest first; may be called again. What could not be undone stays in the journal.
    ///
    /// # Errors
    /// Names what could not be undone; everything else was.
    pub async fn undo(&mut self) -> Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let netlink = Netlink::open()?;
        let (mut remaining, mut failures) = (Vec::new(), Vec::new());
        for change in self.changes.drain(..).rev() {
            if let Err(error) = change.undo(&netlink).await {
                failures.push(format!("{error:#}"));
                remaining.push(change);
            }
        }
        remaining.reverse();
        self.changes = remaining;
        self.rewrite().with_context(|| self.cannot("rewrite"))?;
        if !failures.is_empty() {
            bail!("not everything could be undone: {}", failures.join("; "));
        }
        Ok(())
    }

    /// Undoes what is left and removes the file.
    ///
    /// # Errors
    /// As [`Journal::undo`]; then the file stays.
    pub async fn close(mut self) -> Result<()> {
        self.undo().await?;
        // Under the lock, so that nobody else's new file of this name is hit.
        fs::remove_file(&self.path).with_context(|| self.cannot("remove"))
    }

    fn open_here(path: &Path, here: Header) -> Result<Opened> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create the folder {}", folder.display()))?;
        }
        loop {
            let file =
                open_file(path).with_context(|| format!("cannot open the journal {}", path.display()))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let elsewhere = read(&file)?.0.is_some_and(|header| header != here);
                    return Ok(Opened::Locked { elsewhere });
                }
                Err(error) => bail!("cannot lock the journal {}: {error}", path.display()),
            }
            // Between open and lock its owner may have removed it: then the lock is on a file without a name.
            if is_same_file(&file, path) {
                return Self::adopt(file, path, here);
            }
        }
    }

    fn adopt(file: File, path: &Path, here: Header) -> Result<Opened> {
        let (header, changes) = read(&file)?;
        let changes = if header.as_ref() == Some(&here) { changes } else { Vec::new() };
        let mut journal = Self { file, path: path.to_owned(), header: here, changes };
        // Also rids the file of a half-written line, which the next one would be appended to.
        journal.rewrite().with_context(|| journal.cannot("rewrite"))?;
        Ok(Opened::Ours(journal))
    }

    /// Replaces the contents in place: the lock is on this very file. A crash in between is covered by writing the same lines
    /// at the same places and cutting off the rest afterwards.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut text = to_line(&self.header)?;
        for change in &self.changes {
            text.extend(to_line(change)?);
        }
        self.file.rewind()?;
        self.file.write_all(&text)?;
        self.file.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))
    }

    fn cannot(&self, verb: &str) -> String {
        format!("cannot {verb} the journal {}", self.path.display())
    }
}

impl Header {
    fn of_this_process() -> Result<Self> {
        let boot = fs::read_to_string(BOOT_ID)
            .with_context(|| format!("cannot read {BOOT_ID}: is /proc mounted?"))?;
        let netns = fs::metadata(NETNS).with_context(|| format!("cannot read {NETNS}: is /proc mounted?"))?;
        Ok(Self { boot: boot.trim().to_owned(), netns: netns.ino() })
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn is_same_file(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(named)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (ours.dev(), ours.ino()) == (named.dev(), named.ino())
}

/// Reads the header and every change that can be read.
fn read(file: &File) -> Result<(Option<Header>, Vec<Change>)> {
    let mut reader = BufReader::new(file);
    reader.rewind().context("cannot read the journal")?;
    let mut lines = reader.split(b'\n').map_while(Result::ok);
    let header = lines.next().and_then(|line| serde_json::from_slice(&line).ok());
    let changes = lines.filter_map(|line| serde_json::from_slice(&line).ok()).collect();
    Ok((header, changes))
}

fn to_line<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// One write call for the line: a kill leaves all of it or a tail without newline.
fn write_line<T: Serialize>(file: &mut File, value: &T) -> io::Result<()> {
    file.write_all(&to_line(value)?)
}

/// Our choice: a fraction of what a dying process takes.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Of this thread: a test may run threads in different namespaces.
const NETNS: &str = "/proc/thread-self/ns/net";

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Header {
        Header { boot: "boot".to_owned(), netns: 1 }
    }

    fn change(value: &str) -> Change {
        Change::Sysctl { path: "/nowhere".into(), before: value.to_owned(), after: "1".to_owned() }
    }

    fn ours(path: &Path, header: Header) -> Journal {
        match Journal::open_here(path, header).unwrap() {
            Opened::Ours(journal) => journal,
            Opened::Locked { .. } => panic!("the journal is locked"),
        }
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/journal");
        (folder, path)
    }

    fn write_two(path: &Path) {
        let mut journal = ours(path, here());
        journal.record(change("a")).unwrap();
        journal.record(change("b")).unwrap();
    }

    #[test]
    fn keeps_changes_for_the_next_process_in_order() {
        let (_folder, path) = folder();
        write_two(&path);
        assert_eq!(ours(&path, here()).changes(), [change("a"), change("b")]);
    }

    #[test]
    fn every_kind_of_change_reads_back_as_written() {
        use crate::netcfg::netlink::Rule;
        let changes = [
            Change::Rule(Rule::MainWithoutDefault { v6: true, priority: 7 }),
            Change::Rule(Rule::Tunnel { v6: false, priority: 8, mark: 9, table: 10 }),
            Change::ThrowRoute { table: 10, network: "10.0.0.0/8".parse().unwrap() },
            Change::ThrowRoute { table: 10, network: "fd00::/8".parse().unwrap() },
            Change::NftTable { name: "vpn-x".to_owned() },
            change("a"),
            Change::SysctlSnapshot { path: "/nowhere".into(), value: "1".to_owned() },
        ];
        let (_folder, path) = folder();
        let mut journal = ours(&path, here());
        for change in &changes {
            journal.record(change.clone()).unwrap();
        }
        drop(journal);
        assert_eq!(ours(&path, here()).changes(), changes);
    }

    #[test]
    fn forgets_another_boot_and_another_namespace() {
        for other in [Header { boot: "other".to_owned(), ..here() }, Header { netns: 2, ..here() }] {
            let (_folder, path) = folder();
            write_two(&path);
            assert_eq!(ours(&path, other).changes(), []);
            assert_eq!(ours(&path, here()).changes(), []);
        }
    }

    #[test]
    fn a_live_process_keeps_it_locked_and_untouched() {
        let (_folder, path) = folder();
        let mut journal = ours(&path, here());
        journal.record(change("a")).unwrap();
        assert!(matches!(Journal::open_here(&path, here()).unwrap(), Opened::Locked { elsewhere: false }));
        let other = Header { netns: 2, ..here() };
        assert!(matches!(Journal::open_here(&path, other).unwrap(), Opened::Locked { elsewhere: true }));
        drop(journal);
        assert_eq!(ours(&path, here()).changes(), [change("a")]);
    }

    #[test]
    fn ignores_a_truncated_last_line_and_goes_on_behind_it() {
        let (_folder, path) = folder();
        write_two(&path);
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 5).unwrap();
        let mut journal = ours(&path, here());
        assert_eq!(journal.changes(), [change("a")]);
        journal.record(change("c")).unwrap();
        drop(journal);
        assert_eq!(ours(&path, here()).changes(), [change("a"), change("c")]);
    }

    #[test]
    fn skips_a_corrupt_line_and_forgets_a_file_without_a_header() {
        let (_folder, path) = folder();
        write_two(&path);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("sysctl", "\u{fffd}", 1)).unwrap();
        assert_eq!(ours(&path, here()).changes(), [change("b")]);
        fs::write(&path, [0xff; 100]).unwrap();
        assert_eq!(ours(&path, here()).changes(), []);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn undoes_newest_first_tolerates_what_is_gone_and_removes_the_file() {
        let (folder, path) = folder();
        let parameter = folder.path().join("parameter");
        fs::write(&parameter, "2").unwrap();
        let step = |before: &str, after: &str| Change::Sysctl {
            path: parameter.clone(),
            before: before.into(),
            after: after.into(),
        };
        let mut journal = ours(&path, here());
        for change in [step("0", "1"), change("gone"), step("1", "2")] {
            journal.record(change).unwrap();
        }
        journal.undo().await.unwrap();
        assert_eq!(fs::read_to_string(&parameter).unwrap(), "0");
        assert_eq!(journal.changes(), []);
        journal.undo().await.unwrap();
        journal.close().await.unwrap();
        assert!(!path.exists());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn leaves_a_parameter_that_somebody_else_changed() {
        let (folder, path) = folder();
        let parameter = folder.path().join("parameter");
        fs::write(&parameter, "7").unwrap();
        let mut journal = ours(&path, here());
        journal
            .record(Change::Sysctl { path: parameter.clone(), before: "0".into(), after: "1".into() })
            .unwrap();
        journal.undo().await.unwrap();
        assert_eq!(fs::read_to_string(&parameter).unwrap(), "7");
    }
}
