//! What is accepted but should be said, as a secret that others can read.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// One sentence about something that is accepted but looks wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(String);

impl Warning {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Warns when a file that holds a secret is readable by more than its owner.
    pub(super) fn of_secret_in(path: &Path) -> io::Result<Option<Self>> {
        let readable = fs::metadata(path)?.permissions().mode() & READABLE_BY_OTHERS != 0;
        Ok(readable.then(|| {
            let path = path.display();
            Self::new(format!("{path} holds a secret and is readable by others: chmod 600 {path}"))
        }))
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The read bits of the group and of everybody (`S_IRGRP`, `S_IROTH`).
const READABLE_BY_OTHERS: u32 = 0o044;
