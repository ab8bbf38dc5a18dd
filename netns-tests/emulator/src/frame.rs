//! A frame on its way over the line.

use crate::pool::Pool;

/// A frame on its way.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    /// Whether a box has made it up; nothing is forged in answer to what is forged.
    pub(crate) is_forged: bool,
}

impl Frame {
    pub(crate) fn copy(&self, pool: &mut Pool) -> Self {
        Self { bytes: pool.copy(&self.bytes), is_forged: self.is_forged }
    }
}
