//! The TCP options of SYN and SYN-ACK (RFC 9293, section 3.2; RFC 7323; RFC 2018). No later segment carries any.
//!
//! ```text
//! like Windows' SYN        02 04 mss.. | 01 03 03 ws | 01 01 04 02     MSS, NOP, WS, NOP, NOP, SACK-permitted
//! like Linux' SYN-ACK      02 04 mss.. | 01 01 04 02 | 01 03 03 ws     MSS, NOP, NOP, SACK-permitted, NOP, WS
//! ```

use pnet::packet::tcp::TcpOptionNumbers;

use super::DropReason;

/// What a SYN or SYN-ACK offers; every field is `None`/false for other segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size, bytes of TCP payload.
    pub mss: Option<u16>,
    /// Window scale, 0 to 14.
    pub window_scale: Option<u8>,
    /// Selective acknowledgements permitted.
    pub sack_permitted: bool,
}

impl Options {
    /// Reads the option bytes of a SYN. Unknown options are skipped by their length.
    ///
    /// # Errors
    /// [`DropReason::BadTcpOptions`]: an option runs over the end, is shorter than its own two bytes, or has not the
    /// length of its kind.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, DropReason> {
        let mut options = Self::default();
        while let [kind, rest @ ..] = bytes {
            bytes = match *kind {
                END => break,
                NOP => rest,
                kind => options.read(kind, bytes)?,
            };
        }
        Ok(options)
    }

    /// Reads the option at the front of `bytes` and returns what follows it.
    fn read<'a>(&mut self, kind: u8, bytes: &'a [u8]) -> Result<&'a [u8], DropReason> {
        let length = usize::from(*bytes.get(1).ok_or(DropReason::BadTcpOptions)?);
        let (option, rest) = bytes.split_at_checked(length).ok_or(DropReason::BadTcpOptions)?;
        match (kind, option) {
            (MSS, [_, _, high, low]) => self.mss = Some(u16::from_be_bytes([*high, *low])),
            (WINDOW_SCALE, [_, _, scale]) => self.window_scale = Some((*scale).min(MAX_WINDOW_SCALE)),
            (SACK_PERMITTED, [_, _]) => self.sack_permitted = true,
            (MSS | WINDOW_SCALE | SACK_PERMITTED, _) | (_, [] | [_]) => {
                return Err(DropReason::BadTcpOptions);
            }
            _ => {}
        }
        Ok(rest)
    }
}

/// The option bytes we write, in the order of the stack that each end resembles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynOptions {
    bytes: [u8; SYN_OPTIONS_MAX],
    length: usize,
}

impl SynOptions {
    /// No options: every segment after the handshake.
    pub const NONE: Self = Self { bytes: [0; SYN_OPTIONS_MAX], length: 0 };

    /// Those of a Windows client's SYN.
    #[must_use]
    pub const fn windows(mss: u16, scale: u8) -> Self {
        let [high, low] = mss.to_be_bytes();
        let bytes = [MSS, 4, high, low, NOP, WINDOW_SCALE, 3, scale, NOP, NOP, SACK_PERMITTED, 2];
        Self { bytes, length: SYN_OPTIONS_MAX }
    }

    /// Those of a Linux server's SYN-ACK: scale and SACK only if the client offered them.
    #[must_use]
    pub fn linux(mss: u16, scale: Option<u8>, sack_permitted: bool) -> Self {
        let [high, low] = mss.to_be_bytes();
        let mut options = Self::NONE;
        options.append([MSS, 4, high, low]);
        if sack_permitted {
            options.append([NOP, NOP, SACK_PERMITTED, 2]);
        }
        if let Some(scale) = scale {
            options.append([NOP, WINDOW_SCALE, 3, scale]);
        }
        options
    }

    /// The option bytes; their length is a multiple of 4.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Appends one 32-bit word; at most three are ever appended.
    fn append(&mut self, word: [u8; 4]) {
        self.bytes[self.length..self.length + 4].copy_from_slice(&word);
        self.length += 4;
    }
}

const END: u8 = TcpOptionNumbers::EOL.0;
const NOP: u8 = TcpOptionNumbers::NOP.0;
const MSS: u8 = TcpOptionNumbers::MSS.0;
const WINDOW_SCALE: u8 = TcpOptionNumbers::WSCALE.0;
const SACK_PERMITTED: u8 = TcpOptionNumbers::SACK_PERMITTED.0;

/// Larger scales are read as this (RFC 7323, section 2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// MSS, window scale and SACK-permitted, padded: three words.
const SYN_OPTIONS_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_each_stack_writes() {
        let full = Options { mss: Some(1460), window_scale: Some(8), sack_permitted: true };
        assert_eq!(Options::parse(SynOptions::windows(1460, 8).as_bytes()), Ok(full));
        assert_eq!(Options::parse(SynOptions::linux(1460, Some(8), true).as_bytes()), Ok(full));
        let bare = Options { mss: Some(536), ..Options::default() };
        assert_eq!(Options::parse(SynOptions::linux(536, None, false).as_bytes()), Ok(bare));
    }

    #[test]
    fn skips_unknown_options_and_stops_at_the_end_mark() {
        let bytes = [8, 10, 0, 0, 0, 0, 0, 0, 0, 0, MSS, 4, 1, 2, END, MSS];
        assert_eq!(Options::parse(&bytes), Ok(Options { mss: Some(258), ..Options::default() }));
        assert_eq!(Options::parse(&[]), Ok(Options::default()));
    }

    #[test]
    fn refuses_options_that_are_truncated_or_would_loop() {
        let hostile: [&[u8]; 7] = [
            &[MSS],
            &[MSS, 4, 1],
            &[8, 0],
            &[8, 1],
            &[NOP, NOP, 254, 200],
            &[WINDOW_SCALE, 2],
            &[SACK_PERMITTED, 3, 0],
        ];
        for bytes in hostile {
            assert_eq!(Options::parse(bytes), Err(DropReason::BadTcpOptions), "{bytes:?}");
        }
    }

    #[test]
    fn clamps_a_window_scale_above_14() {
        let options = Options::parse(&[WINDOW_SCALE, 3, 200]);
        assert_eq!(options, Ok(Options { window_scale: Some(14), ..Options::default() }));
    }
}
