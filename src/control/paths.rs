//! Where an instance keeps its files, and how instances are named.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

/// The name of an instance: of its configuration, its folder and its firewall table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceName(String);

impl InstanceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for InstanceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let fits = (1..=NAME_MAX).contains(&text.len()) && text.chars().all(plain);
        if fits && text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError(text.to_owned()))
    }
}

/// A text cannot name an instance.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} cannot name a tunnel: use 1 to {NAME_MAX} letters, digits, -, _ or ., beginning with \
     a letter or a digit"
)]
pub struct NameError(String);

/// The folders of an instance and the files in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    run: PathBuf,
    state: PathBuf,
    name: InstanceName,
}

impl Paths {
    /// The folders of an instance: those a service manager gives (`$RUNTIME_DIRECTORY`, `$STATE_DIRECTORY`) as they are, else
    /// `/run/vpn/NAME` and `/var/lib/vpn`.
    pub fn of(name: &InstanceName) -> Self {
        let given = |variable| env::var_os(variable).and_then(first_of);
        Self {
            run: given(RUN_VARIABLE).unwrap_or_else(|| Path::new(RUN_FOLDER).join(name.as_str())),
            state: given(STATE_VARIABLE).unwrap_or_else(|| STATE_FOLDER.into()),
            name: name.clone(),
        }
    }

    /// The folder of run-time files, gone after a boot.
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// The socket that commands ask.
    pub fn control_socket(&self) -> PathBuf {
        self.run.join(SOCKET)
    }

    /// The log of a tunnel in the background.
    pub fn log(&self) -> PathBuf {
        self.run.join("log")
    }

    /// The journal of changes to undo.
    pub fn journal(&self) -> PathBuf {
        self.run.join("journal")
    }

    /// What the instance remembers under this title, also after a boot. Instances share the folder.
    pub fn remembered(&self, title: &str) -> PathBuf {
        self.state.join(format!("{}.{title}.json", self.name))
    }

    /// Makes the folder of run-time files.
    ///
    /// # Errors
    /// The system's.
    pub fn create_run_dir(&self) -> io::Result<()> {
        fs::create_dir_all(&self.run)
    }
}

/// The control sockets of all instances of this host, live or not, in the order of their paths.
///
/// # Errors
/// When the folder of the instances cannot be read; that there is none is no error.
pub fn control_sockets() -> io::Result<Vec<PathBuf>> {
    let given = env::var_os(RUN_VARIABLE).and_then(first_of);
    sockets_under(Path::new(RUN_FOLDER), given)
}

fn sockets_under(folder: &Path, given: Option<PathBuf>) -> io::Result<Vec<PathBuf>> {
    let mut folders: Vec<PathBuf> = given.into_iter().collect();
    match fs::read_dir(folder) {
        Ok(entries) => {
            for entry in entries {
                folders.push(entry?.path());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    folders.sort();
    folders.dedup();
    let sockets = folders.into_iter().map(|folder| folder.join(SOCKET));
    Ok(sockets.filter(|socket| socket.exists()).collect())
}

/// The first of a list as systemd writes it: several `RuntimeDirectory=` are joined by colons.
fn first_of(list: OsString) -> Option<PathBuf> {
    env::split_paths(&list).next().filter(|path| !path.as_os_str().is_empty())
}

const RUN_VARIABLE: &str = "RUNTIME_DIRECTORY";
const RUN_FOLDER: &str = "/run/vpn";
const STATE_VARIABLE: &str = "STATE_DIRECTORY";
const STATE_FOLDER: &str = "/var/lib/vpn";
const SOCKET: &str = "control.sock";

/// Our choice: leaves the path of the socket far below the kernel's 107 bytes.
const NAME_MAX: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_only_what_a_path_and_a_firewall_table_can_hold() {
        for text in ["client", "home-2", "a.b_c", "9"] {
            assert_eq!(text.parse::<InstanceName>().unwrap().as_str(), text);
        }
        for text in ["", ".", "..", "-x", "_x", "a/b", "a b", "ü", &"x".repeat(49)] {
            assert!(text.parse::<InstanceName>().is_err(), "{text}");
        }
    }

    #[test]
    fn keeps_the_files_of_an_instance_in_its_folders() {
        let paths = Paths {
            run: "/run/vpn/home".into(),
            state: "/var/lib/vpn".into(),
            name: "home".parse().unwrap(),
        };
        assert_eq!(paths.control_socket(), Path::new("/run/vpn/home/control.sock"));
        assert_eq!(paths.journal(), Path::new("/run/vpn/home/journal"));
        assert_eq!(paths.log(), Path::new("/run/vpn/home/log"));
        assert_eq!(paths.remembered("networks"), Path::new("/var/lib/vpn/home.networks.json"));
    }

    #[test]
    fn takes_the_first_of_several_folders() {
        assert_eq!(first_of("/run/a:/run/b".into()), Some("/run/a".into()));
        assert_eq!(first_of("".into()), None);
    }

    #[test]
    fn finds_the_sockets_of_all_instances_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a", "empty"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in ["b", "a"] {
            fs::write(folder.path().join(name).join(SOCKET), "").unwrap();
        }
        let found = sockets_under(folder.path(), Some(folder.path().join("a"))).unwrap();
        let expected = ["a", "b"].map(|name| folder.path().join(name).join(SOCKET));
        assert_eq!(found, expected);
        let missing = folder.path().join("missing");
        assert!(sockets_under(&missing, None).unwrap().is_empty());
    }
}
