//! What a client remembers from one start to the next: the addresses of its servers' names, and which
//! mode won where.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::dns::ADDRESSES_MAX;
use crate::control::Paths;
use crate::instance::Remembered;
use crate::session;

/// What is remembered, and where.
#[derive(Debug)]
pub(super) struct Memory {
    file: Remembered,
    content: Content,
    /// Of the modes as they were saved.
    version: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Content {
    /// The newest last.
    names: VecDeque<Name>,
    /// Which mode won for which server in which network.
    modes: session::Memory,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Name {
    name: String,
    addresses: Vec<IpAddr>,
    /// Those at which the server proved its key, the last first.
    #[serde(default)]
    proven: Vec<IpAddr>,
}

impl Memory {
    /// What was remembered under these paths.
    pub(super) fn load(paths: &Paths) -> Self {
        Self::at(paths.remembered(TITLE))
    }

    /// What was remembered in the file at `path`.
    pub(super) fn at(path: PathBuf) -> Self {
        let file = Remembered::new(path, TITLE);
        let mut content: Content = file.load();
        // Who wrote into the file has not kept our bounds.
        content.names.truncate(NAMES_MAX);
        for name in &mut content.names {
            name.addresses.truncate(ADDRESSES_MAX);
            name.proven.truncate(PROVEN_MAX);
        }
        let version = content.modes.version();
        Self { file, content, version }
    }

    /// Which mode won for which server in which network.
    pub(super) fn modes(&self) -> &session::Memory {
        &self.content.modes
    }

    /// Remembers what won, if that has changed.
    pub(super) fn learn_modes(&mut self, modes: &session::Memory) {
        if modes.version() != self.version {
            self.version = modes.version();
            self.content.modes.clone_from(modes);
            self.file.save(&self.content);
        }
    }

    /// The addresses that `name` had last; none if it is unknown.
    pub(super) fn addresses(&self, name: &str) -> &[IpAddr] {
        let known = self.content.names.iter().find(|known| known.name == name);
        known.map_or(&[], |known| &known.addresses)
    }

    /// The addresses at which the server of this name proved its key, the last first.
    pub(super) fn proven(&self, name: &str) -> &[IpAddr] {
        let known = self.content.names.iter().find(|known| known.name == name);
        known.map_or(&[], |known| &known.proven)
    }

    /// Remembers what `name` is now. The oldest of too many names is forgotten.
    pub(super) fn learn(&mut self, name: &str, addresses: &[IpAddr]) {
        if self.addresses(name) == addresses {
            return;
        }
        let names = &mut self.content.names;
        let known = names.iter().position(|known| known.name == name).and_then(|at| names.remove(at));
        if names.len() == NAMES_MAX {
            names.pop_front();
        }
        let proven = known.map_or_else(Vec::new, |known| known.proven);
        names.push_back(Name { name: name.to_owned(), addresses: addresses.to_vec(), proven });
        self.file.save(&self.content);
    }

    /// The server of this name proved its key at `address`. If that is one that the name has now, those that it has no more are
    /// forgotten: the last answer was true.
    pub(super) fn prove(&mut self, name: &str, address: IpAddr) {
        let Some(known) = self.content.names.iter_mut().find(|known| known.name == name) else { return };
        let before = known.proven.clone();
        known.proven.retain(|proven| *proven != address);
        if known.addresses.contains(&address) {
            let addresses = &known.addresses;
            known.proven.retain(|proven| addresses.contains(proven));
        }
        known.proven.insert(0, address);
        known.proven.truncate(PROVEN_MAX);
        if known.proven != before {
            self.file.save(&self.content);
        }
    }
}

const TITLE: &str = "client";

/// Our choice: those of a server in both families, and of the one that it was before.
const PROVEN_MAX: usize = 4;

/// Our choice: more than a list of servers has.
const NAMES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_proven_outlives_answers_that_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home.client.json");
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut memory = Memory::at(path.clone());
        memory.prove("a.example", address(1));
        assert!(memory.proven("a.example").is_empty(), "it is no name of ours");
        memory.learn("a.example", &[address(1), address(2)]);
        memory.prove("a.example", address(1));
        memory.prove("a.example", address(2));
        memory.prove("a.example", address(2));
        assert_eq!(memory.proven("a.example"), [address(2), address(1)]);
        for portal in 100..120 {
            memory.learn("a.example", &[address(portal)]);
            memory.prove("a.example", address(1));
        }
        let mut memory = Memory::at(path);
        assert_eq!(memory.proven("a.example"), [address(1), address(2)]);
        assert_eq!(memory.addresses("a.example"), [address(119)]);
        memory.learn("a.example", &[address(3), address(2)]);
        memory.prove("a.example", address(3));
        assert_eq!(memory.proven("a.example"), [address(3), address(2)], "the new answer was true");
        for n in 10..20 {
            memory.learn("a.example", &(10..20).map(address).collect::<Vec<_>>());
            memory.prove("a.example", address(n));
        }
        assert_eq!(memory.proven("a.example"), [19, 18, 17, 16].map(address));
    }

    #[test]
    fn remembers_names_and_forgets_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home.client.json");
        let addresses: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let mut memory = Memory::at(path.clone());
        assert!(memory.addresses("a.example").is_empty());
        memory.learn("a.example", &addresses[..1]);
        memory.learn("a.example", &addresses);
        let mut memory = Memory::at(path);
        assert_eq!(memory.addresses("a.example"), addresses);
        for n in 0..NAMES_MAX {
            memory.learn(&format!("{n}.example"), &addresses);
        }
        assert_eq!(memory.content.names.len(), NAMES_MAX);
        assert!(memory.addresses("a.example").is_empty());
    }
}
