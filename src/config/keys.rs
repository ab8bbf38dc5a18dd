//! Keys in a configuration: in the file itself, or in a file of their own.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::document::{Document, read_text};
use super::{ConfigError, Warning, text};
use crate::crypto::KeyError;

/// A key that stands in the configuration itself.
pub(super) struct Key<T>(pub(super) T);

impl<'de, T: FromStr<Err = KeyError>> Deserialize<'de> for Key<T> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        text::deserialize(input, "a key in base64").map(Self)
    }
}

/// Where a secret may stand: `name = "…"` or `name_file = "/path"`.
pub(super) struct Secret<T> {
    /// The value of `name`.
    pub(super) here: Option<Key<T>>,
    /// The value of `name_file`.
    pub(super) file: Option<PathBuf>,
}

impl<T: FromStr<Err = KeyError>> Secret<T> {
    /// Reads the secret called `name`, if there is one, and warns of a file that others can read.
    ///
    /// # Errors
    /// When it stands in both places, or its file cannot be read or holds no key.
    pub(super) fn read(
        self,
        document: &Document,
        name: &str,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<T>, ConfigError> {
        let file_key = format!("{name}_file");
        match (self.here, self.file) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => {
                let last = name.rsplit('.').next().unwrap_or(name);
                let what = format!("stands beside {last}: keep one of the two");
                Err(document.error_at(&file_key, what))
            }
            (Some(Key(secret)), None) => {
                warn(document.path(), warnings);
                Ok(Some(secret))
            }
            (None, Some(file)) => {
                let path = document.resolve(&file);
                let text = match read_text(&path) {
                    Ok(text) => Zeroizing::new(text),
                    // A right is missing, not a key.
                    Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                        return Err(ConfigError::Unreadable { path, error });
                    }
                    Err(error) => {
                        let why = crate::failure::os_text(&error);
                        let what = format!("cannot read {}: {why}", path.display());
                        return Err(document.error_at(&file_key, what));
                    }
                };
                let wrong = |error| document.error_at(&file_key, format!("{}: {error}", path.display()));
                let secret = text.parse().map_err(wrong)?;
                warn(&path, warnings);
                Ok(Some(secret))
            }
        }
    }
}

fn warn(path: &Path, warnings: &mut Vec<Warning>) {
    if let Ok(Some(warning)) = Warning::of_secret_in(path)
        && !warnings.contains(&warning)
    {
        warnings.push(warning);
    }
}
