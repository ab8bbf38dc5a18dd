//! Byte sizes written with their unit: `64MiB`.

use std::fmt;
use std::str::FromStr;

use super::text::deserialize_from_str;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// A size of so many times 1024 × 1024 bytes.
    pub const fn from_mebibytes(count: u32) -> Self {
        Self(count as u64 * MEBI)
    }

    /// The number of bytes, at most what this machine can address.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no size: write a number and B, KiB, MiB or GiB, as \"64MiB\"");
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (digits, name) = text.split_at(digits_end);
        let unit = UNITS.iter().find(|(unit, _)| *unit == name);
        let (_, unit) = unit.ok_or_else(wrong)?;
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        number.checked_mul(*unit).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |unit: u64| self.0 != 0 && self.0.is_multiple_of(unit);
        let fitting = UNITS.iter().rev().find(|(_, unit)| whole(*unit));
        let (name, unit) = fitting.unwrap_or(&UNITS[0]);
        write!(f, "{}{name}", self.0 / unit)
    }
}

deserialize_from_str!(ByteSize, r#"a string like "64MiB""#);

const MEBI: u64 = 1 << 20;

const UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", MEBI), ("GiB", 1 << 30)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_sizes_with_their_unit() {
        for (text, bytes) in
            [("0B", 0), ("512B", 512), ("3KiB", 3072), ("64MiB", 64 << 20), ("1GiB", 1 << 30)]
        {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string()), (bytes, text.to_owned()));
        }
        assert_eq!("1024MiB".parse::<ByteSize>().unwrap().to_string(), "1GiB");
        for text in ["", "64", "MiB", "64MB", "64 MiB", "-1B", "99999999999GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
