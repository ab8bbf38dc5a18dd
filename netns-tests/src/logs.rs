//! Where the output of a topology's programs goes, and what a passing run must not have written there.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};

/// The directory of a topology's logs.
#[derive(Debug)]
pub struct Logs {
    directory: PathBuf,
    next: AtomicU32,
    watched: Mutex<Vec<Watched>>,
    expected: Mutex<Vec<String>>,
}

/// A log that a program writes elsewhere and may remove; it is read by its descriptor, which outlives the name.
#[derive(Debug)]
struct Watched {
    file: File,
    copy: PathBuf,
}

impl Logs {
    /// Makes the directory.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(directory: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        Ok(Self { directory, next: AtomicU32::new(0), watched: Mutex::default(), expected: Mutex::default() })
    }

    /// Where they are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A path for the next log, so that they sort as they were begun.
    pub(crate) fn next(&self, role: &str, label: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("{number:03}-{role}-{label}"))
    }

    /// Counts `file`, which the program `label` on `role` writes elsewhere, among the logs; once, however often it is told.
    ///
    /// # Errors
    /// If the file cannot be asked who it is.
    pub fn watch(&self, role: &str, label: &str, file: File) -> Result<()> {
        let mut watched = lock(&self.watched);
        let id = identity(&file)?;
        for known in watched.iter() {
            if identity(&known.file)? == id {
                return Ok(());
            }
        }
        watched.push(Watched { file, copy: self.next(role, label).with_extension("log") });
        Ok(())
    }

    /// Says that this scenario provokes a warning or error with `text` in it. One that does not come fails the scenario, too.
    pub fn expect(&self, text: &str) {
        lock(&self.expected).push(text.to_owned());
    }

    /// Copies what is written elsewhere into the directory.
    ///
    /// # Errors
    /// If a log cannot be read or written.
    pub fn collect(&self) -> Result<()> {
        for watched in lock(&self.watched).iter() {
            let size = usize::try_from(watched.file.metadata()?.len())?;
            let mut text = vec![0; size];
            watched.file.read_exact_at(&mut text, 0)?;
            std::fs::write(&watched.copy, text)?;
        }
        Ok(())
    }

    /// Checks that no `program` has logged a warning, an error or a panic but those that were expected, and all of those.
    ///
    /// # Errors
    /// With the line that is too much, or the text that is missing.
    pub fn expect_quiet(&self, program: &str) -> Result<()> {
        self.collect()?;
        let endings = [format!("-{program}.stderr"), format!("-{program}.log")];
        let mut logs = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if endings.iter().any(|ending| name.ends_with(ending)) {
                logs.push((name, String::from_utf8_lossy(&std::fs::read(&path)?).into_owned()));
            }
        }
        compare(&logs, &lock(&self.expected))
    }
}

/// Holds the loud lines of `logs`, given by name and text, against what was expected.
fn compare(logs: &[(String, String)], expected: &[String]) -> Result<()> {
    let mut missing: Vec<&String> = expected.iter().collect();
    for (name, log) in logs {
        for line in log.lines().filter(|line| LOUD.iter().any(|level| line.contains(level))) {
            let known = expected.iter().any(|text| line.contains(text.as_str()));
            ensure!(known, "a warning or error in the log {name}: {line}");
            missing.retain(|text| !line.contains(text.as_str()));
        }
    }
    match missing.first() {
        Some(text) => bail!("no log has the expected warning {text:?}"),
        None => Ok(()),
    }
}

fn identity(file: &File) -> Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a passing run does not say: the levels as `tracing` writes them, and a panic as Rust does.
const LOUD: [&str; 3] = [" WARN ", "ERROR ", "panicked at "];

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> Vec<(String, String)> {
        vec![("000-client0-vpn.log".to_owned(), text.to_owned())]
    }

    #[test]
    fn lets_no_warning_error_or_panic_pass() {
        for line in [
            "2026-11-22T10:00:00Z  WARN vpn: odd",
            "2026-11-22T10:00:00Z ERROR vpn: bad",
            "thread 'main' panicked at x.rs",
        ] {
            let error = compare(&log(&format!("INFO vpn: fine\n{line}\n")), &[]).unwrap_err();
            assert!(error.to_string().contains(line), "{error}");
        }
        compare(&log("2026-11-22T10:00:00Z  INFO vpn: fine\n"), &[]).unwrap();
    }

    #[test]
    fn an_expected_warning_must_come_and_excuses_no_other() {
        let expected = ["odd".to_owned()];
        compare(&log(" WARN vpn: odd\n WARN vpn: odd again\n"), &expected).unwrap();
        compare(&log(" WARN vpn: odd\nERROR vpn: bad\n"), &expected).unwrap_err();
        compare(&log(" INFO vpn: odd\n"), &expected).unwrap_err();
    }

    #[test]
    fn a_watched_log_is_read_after_its_name_is_gone() {
        let directory = std::env::temp_dir().join(format!("netns-tests-logs-{}", std::process::id()));
        let logs = Logs::create(directory.clone()).unwrap();
        let elsewhere = directory.join("elsewhere");
        std::fs::write(&elsewhere, "ERROR vpn: bad\n").unwrap();
        for _ in 0..2 {
            logs.watch("client0", "vpn", File::open(&elsewhere).unwrap()).unwrap();
        }
        std::fs::remove_file(&elsewhere).unwrap();
        let error = logs.expect_quiet("vpn").unwrap_err();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1, "told twice, counted once");
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(error.to_string().contains("ERROR vpn: bad"), "{error}");
    }
}
