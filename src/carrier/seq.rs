//! TCP sequence numbers: 32 bits that wrap (RFC 9293, section 3.4).

/// A sequence or acknowledgement number. Comparison is modulo 2^32, so there is no `Ord`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// The number `bytes` further on. Only the low 32 bits of `bytes` matter, as on the wire.
    #[must_use]
    pub const fn advanced_by(self, bytes: usize) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "sequence space is modulo 2^32")]
        Self(self.0.wrapping_add(bytes as u32))
    }

    /// The number one before this.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.wrapping_sub(1))
    }

    /// Whether this number comes after `other` on the shorter way round the circle.
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() > 0
    }

    /// The later of the two.
    #[must_use]
    pub const fn later(self, other: Self) -> Self {
        if other.is_after(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_across_the_wrap() {
        let before = Seq(u32::MAX - 9);
        let after = before.advanced_by(20);
        assert_eq!(after, Seq(10));
        assert!(after.is_after(before));
        assert!(!before.is_after(after));
        assert!(!before.is_after(before));
        assert_eq!(before.later(after), after);
        assert_eq!(after.later(before), after);
        assert_eq!(Seq(0).previous(), Seq(u32::MAX));
    }
}
