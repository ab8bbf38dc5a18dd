//! Fuzz bytes as the arguments of operations.

/// What is left of the bytes; beyond the end everything is zero.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next operation's number; `None` at the end.
    pub(crate) fn operation(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.operation().unwrap_or(0)
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// One of `count` things.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::from(self.u8()) % count.max(1)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// At most `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes with their length (u16) in front, at most what every packet has room for.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.u16());
        self.take(length.min(60_000))
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// What a damaged path or a forger does to a packet: one change, told by three arguments. Zeros change nothing.
pub(crate) fn damage(packet: &mut Vec<u8>, input: &mut Input<'_>) {
    let (kind, at, value) = (input.u8(), usize::from(input.u16()), input.u8());
    let length = packet.len().max(1);
    match kind % 5 {
        0 => {}
        1 => {
            if let Some(byte) = packet.get_mut(at % length) {
                *byte ^= value;
            }
        }
        2 => packet.truncate(at % length),
        3 => packet.resize(packet.len() + at % 64, value),
        _ => packet.insert(at % length, value),
    }
}
