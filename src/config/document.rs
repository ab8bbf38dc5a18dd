//! A configuration file with the places of its keys and values, so that every error can name
//! them.

use std::fs;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// The text of a configuration file and where it came from.
#[derive(Debug)]
pub(super) struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// When the file cannot be read, is not UTF-8 or has no end.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        match read_text(path) {
            Ok(text) => Ok(Self::new(path, text)),
            Err(error) => Err(ConfigError::Unreadable { path: path.to_path_buf(), error }),
        }
    }

    /// A text that stands, or might stand, in the file.
    pub(super) fn new(path: &Path, text: String) -> Self {
        Self { path: path.to_path_buf(), text }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the file: relative ones start at the folder of the file.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.path.parent().map_or_else(|| path.to_path_buf(), |folder| folder.join(path))
    }

    /// Decodes the whole file.
    ///
    /// # Errors
    /// When it is no TOML, or does not fit `T`.
    pub(super) fn decode<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let root = DeTable::parse(&self.text).map_err(|error| {
            let what = format!("not TOML: {}", one_line(error.message()));
            self.error(error.span().unwrap_or(0..0).start, what)
        })?;
        T::deserialize(toml::Deserializer::from(root)).map_err(|error| self.misfit(&error))
    }

    /// An error about a key, written `tunnel.routes` or `peer[2].name`, at its value; for a key
    /// that is absent, at the table where it should be.
    pub(super) fn error_at(&self, key: &str, what: impl std::fmt::Display) -> ConfigError {
        self.error(self.place(key), format!("{key}: {what}"))
    }

    fn misfit(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        let message = one_line(error.message());
        let what = match message.strip_prefix("unknown field ") {
            Some(rest) => match rest.split_once("`, ") {
                Some((_, known)) => format!("unknown key, {known}"),
                None => "unknown key".to_owned(),
            },
            // The name of a Rust type says nothing to who writes the file.
            None => match message.split_once("expected struct ") {
                Some((before, _)) => format!("{before}expected a table"),
                None => message,
            },
        };
        let what = match self.key_at(&span) {
            Some(key) => format!("{key}: {what}"),
            None => what,
        };
        self.error(span.start, what)
    }

    fn error(&self, offset: usize, what: String) -> ConfigError {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ConfigError::At {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
            what,
        }
    }

    fn key_at(&self, span: &Range<usize>) -> Option<String> {
        let root = DeTable::parse(&self.text).ok()?;
        find_in_table(root.get_ref(), span, "")
    }

    fn place(&self, key: &str) -> usize {
        let Ok(root) = DeTable::parse(&self.text) else {
            return 0;
        };
        let mut offset = 0;
        let mut table = Some(root.get_ref());
        for part in key.split('.') {
            let (name, index) = split_index(part);
            let Some(value) = table.and_then(|table| table.get(name)) else {
                break;
            };
            let value = match (value.get_ref().as_array(), index) {
                (Some(array), Some(index)) => array.get(index).unwrap_or(value),
                _ => value,
            };
            offset = value.span().start;
            table = value.get_ref().as_table();
        }
        offset
    }
}

/// Takes `peer[2]` apart.
fn split_index(part: &str) -> (&str, Option<usize>) {
    let index = part
        .strip_suffix(']')
        .and_then(|part| part.split_once('['))
        .and_then(|(name, index)| Some((name, index.parse().ok()?)));
    match index {
        Some((name, index)) => (name, Some(index)),
        None => (part, None),
    }
}

/// The name of the key or value at a place, if one stands there.
fn find_in_table(table: &DeTable<'_>, span: &Range<usize>, prefix: &str) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = format!("{prefix}{}", key.get_ref());
        if key.span() == *span {
            return Some(name);
        }
        find_in_value(value, span, name)
    })
}

fn find_in_value(value: &Spanned<DeValue<'_>>, span: &Range<usize>, name: String) -> Option<String> {
    if let Some(table) = value.get_ref().as_table() {
        if let Some(found) = find_in_table(table, span, &format!("{name}.")) {
            return Some(found);
        }
    } else if let Some(array) = value.get_ref().as_array() {
        let mut elements = array.iter().enumerate();
        let found =
            elements.find_map(|(index, value)| find_in_value(value, span, format!("{name}[{index}]")));
        if found.is_some() {
            return found;
        }
    }
    (value.span() == *span).then_some(name)
}

/// Reads a file to its end, which a device may not have.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than 1 MiB"));
    }
    Ok(text)
}

fn one_line(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

/// Our choice: a thousand peers take a fifth of it.
const FILE_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document { path: PathBuf::from("x.toml"), text: text.to_owned() }
    }

    #[test]
    fn finds_the_place_of_values_elements_and_tables() {
        let document = document("a = 1\n[t]\nlist = [\"ä\", 2]\n[[peer]]\n[[peer]]\nname = 3\n");
        for (key, place) in [
            ("a", "x.toml:1:5: a: bad"),
            ("t.list", "x.toml:3:8: t.list: bad"),
            ("t.list[1]", "x.toml:3:14: t.list[1]: bad"),
            ("t.missing", "x.toml:2:1: t.missing: bad"),
            ("missing", "x.toml:1:1: missing: bad"),
            ("peer[1].name", "x.toml:6:8: peer[1].name: bad"),
            ("peer[1].key", "x.toml:5:1: peer[1].key: bad"),
        ] {
            assert_eq!(document.error_at(key, "bad").to_string(), place);
        }
    }

    #[test]
    fn gives_up_on_a_file_without_an_end() {
        let error = Document::read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /dev/zero: it is longer than 1 MiB");
    }

    #[test]
    fn starts_relative_paths_at_the_folder_of_the_file() {
        let document = Document { path: PathBuf::from("/etc/vpn/client.toml"), text: String::new() };
        assert_eq!(document.resolve(Path::new("key")), Path::new("/etc/vpn/key"));
        assert_eq!(document.resolve(Path::new("/root/key")), Path::new("/root/key"));
    }
}
