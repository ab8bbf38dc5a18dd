//! Buffers that are used again, so that a frame costs no allocation.

/// Buffers nobody uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Vec<Vec<u8>>,
}

impl Pool {
    /// A buffer that holds a copy of `bytes`.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = self.free.pop().unwrap_or_else(|| Vec::with_capacity(bytes.len().max(USUAL_FRAME)));
        buffer.clear();
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Takes a buffer that is no longer needed.
    pub(crate) fn recycle(&mut self, buffer: Vec<u8>) {
        if self.free.len() < MOST_FREE {
            self.free.push(buffer);
        }
    }
}

/// What a buffer is made for: a full Ethernet frame.
const USUAL_FRAME: usize = 1514;

/// Bound on the buffers kept: 6 MB, 80 ms of full packets at 600 Mbit/s.
const MOST_FREE: usize = 4096;
