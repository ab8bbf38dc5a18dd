//! A file of things worth remembering: read once, replaced whole when they change, done without when it cannot be.
//!
//! One JSON object, `{"title": …, "version": 1, "content": …}`, readable by its owner only. It is replaced by renaming, so that
//! nobody reads half of one. It is not forced to the disk: the data path waits for no disk, and a file that a power failure
//! has damaged is as good as none.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A file in the state folder.
#[derive(Debug)]
pub(crate) struct Remembered {
    path: PathBuf,
    title: &'static str,
    /// That it cannot be written was said once.
    complained: bool,
}

/// What stands in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope<T> {
    title: String,
    version: u32,
    content: T,
}

impl Remembered {
    /// The file at `path`; `title` says what it holds, so that another program's is not taken for ours.
    pub(crate) fn new(path: PathBuf, title: &'static str) -> Self {
        Self { path, title, complained: false }
    }

    /// What was remembered. A file that is not there gives the default, and so, with a warning, does one that is damaged, of
    /// another version, or not ours.
    pub(crate) fn load<T: DeserializeOwned + Default>(&self) -> T {
        let why = match self.read() {
            Ok(content) => return content,
            Err(error) if error.kind() == ErrorKind::NotFound => return T::default(),
            Err(error) => error,
        };
        tracing::warn!(file = %self.path.display(), %why, "what was remembered cannot be read and is forgotten");
        T::default()
    }

    /// Replaces what is remembered. Where nothing can be written, nothing is remembered; that is said once.
    pub(crate) fn save<T: Serialize>(&mut self, content: &T) {
        if let Err(error) = self.write(content)
            && !self.complained
        {
            self.complained = true;
            tracing::info!(file = %self.path.display(), %error, "nothing can be remembered for the next start");
        }
    }

    fn read<T: DeserializeOwned>(&self) -> io::Result<T> {
        let mut text = Vec::new();
        File::open(&self.path)?.take(FILE_MAX).read_to_end(&mut text)?;
        let envelope: Envelope<T> = serde_json::from_slice(&text)?;
        if (envelope.title.as_str(), envelope.version) != (self.title, VERSION) {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "it is of another version or another program",
            ));
        }
        Ok(envelope.content)
    }

    fn write<T: Serialize>(&self, content: &T) -> io::Result<()> {
        let envelope = Envelope { title: self.title.to_owned(), version: VERSION, content };
        let mut text = serde_json::to_vec_pretty(&envelope)?;
        text.push(b'\n');
        replace(&self.path, &text, Disk::NotAwaited)
    }
}

/// Whether a power failure may take back what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    Awaited,
    NotAwaited,
}

/// Replaces the file at `path`, which only its owner may read, whole or not at all: a file beside it takes its place. Makes the
/// folder if there is none.
pub(crate) fn replace(path: &Path, text: &[u8], disk: Disk) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    }
    let beside = path.with_extension(process::id().to_string());
    let replaced = write_beside(&beside, text, disk).and_then(|()| fs::rename(&beside, path));
    if replaced.is_err() {
        // A file that was never made needs no removing.
        drop(fs::remove_file(&beside));
    }
    replaced
}

fn write_beside(path: &Path, text: &[u8], disk: Disk) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
    file.write_all(text)?;
    match disk {
        Disk::Awaited => file.sync_data(),
        Disk::NotAwaited => Ok(()),
    }
}

/// Of the envelope and of everything in it: what another version wrote is forgotten.
const VERSION: u32 = 1;

/// Our choice: what is larger is not ours; all that is remembered is bounded far below.
const FILE_MAX: u64 = 1 << 20;

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file() -> (tempfile::TempDir, Remembered) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/home.things.json");
        (folder, Remembered::new(path, "things"))
    }

    fn numbers(file: &Remembered) -> Vec<u32> {
        file.load()
    }

    #[test]
    fn gives_back_what_was_saved_last_and_keeps_it_from_others() {
        let (_folder, mut file) = file();
        assert_eq!(numbers(&file), Vec::<u32>::new());
        file.save(&[1, 2, 3]);
        file.save(&[4]);
        assert_eq!(numbers(&file), [4]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file.path), 0o600);
        assert_eq!(mode(file.path.parent().unwrap()), 0o700);
        assert_eq!(fs::read_dir(file.path.parent().unwrap()).unwrap().count(), 1, "nothing stays beside it");
    }

    #[test]
    fn forgets_what_is_damaged_foreign_of_another_version_or_endless() {
        let (_folder, mut file) = file();
        file.save(&[7]);
        let good = fs::read_to_string(&file.path).unwrap();
        let endless = format!("{}{good}", " ".repeat(usize::try_from(FILE_MAX).unwrap()));
        let bad = [
            good[..good.len() - 9].to_owned(),
            good.replace("things", "thongs"),
            good.replace("\"version\": 1", "\"version\": 2"),
            good.replace('7', "\"seven\""),
            endless,
            String::new(),
            "\u{fffd}".to_owned(),
        ];
        for text in bad {
            fs::write(&file.path, &text).unwrap();
            assert_eq!(numbers(&file), Vec::<u32>::new(), "{text:.60}");
            file.save(&[8]);
            assert_eq!(numbers(&file), [8]);
        }
    }

    #[test]
    fn does_without_a_folder_that_cannot_be_made() {
        let (folder, mut file) = file();
        fs::write(folder.path().join("state"), "a file where the folder should be").unwrap();
        file.save(&[1]);
        assert!(file.complained);
        assert_eq!(numbers(&file), Vec::<u32>::new());
    }
}
