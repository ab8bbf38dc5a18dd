//! How a carrier's fake TCP opens and how its numbers move: providers differ in what they let through
//! ("kcptun-raw": Guangdong Mobile cuts flows whose seq grows; cable and 4G need the three-way handshake).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// One of the four ways to look like TCP.
///
/// On the wire (in the first handshake message) a mode is one byte: bit 0 = the numbers are fixed, bit 1 = no TCP handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// SYN, SYN-ACK, ACK; then seq grows with the payload and ack follows the highest seen. Wire byte 0.
    #[default]
    HandshakeAdvance,
    /// SYN, SYN-ACK, ACK; then seq and ack stand still. Wire byte 1.
    HandshakeFixed,
    /// No TCP handshake; seq and ack move. Wire byte 2.
    BareAdvance,
    /// No TCP handshake; seq and ack stand still. Wire byte 3.
    BareFixed,
}

impl Mode {
    /// Every mode, in the order in which they are worth trying.
    pub const ALL: [Self; 4] =
        [Self::HandshakeAdvance, Self::HandshakeFixed, Self::BareAdvance, Self::BareFixed];

    /// The name used in the configuration and in `status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HandshakeAdvance => "handshake+advance",
            Self::HandshakeFixed => "handshake+fixed",
            Self::BareAdvance => "bare+advance",
            Self::BareFixed => "bare+fixed",
        }
    }

    /// The byte that stands for the mode on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::HandshakeAdvance => 0,
            Self::HandshakeFixed => 1,
            Self::BareAdvance => 2,
            Self::BareFixed => 3,
        }
    }

    /// The mode a wire byte stands for; `None` for a byte that stands for none.
    #[must_use]
    pub fn from_wire(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.to_wire() == byte)
    }

    /// Whether data comes without a TCP handshake before it.
    #[must_use]
    pub const fn is_bare(self) -> bool {
        matches!(self, Self::BareAdvance | Self::BareFixed)
    }

    /// Whether seq and ack stand still after the start.
    #[must_use]
    pub const fn is_fixed(self) -> bool {
        matches!(self, Self::HandshakeFixed | Self::BareFixed)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        Self::ALL.into_iter().find(|mode| mode.name() == name).ok_or(UnknownMode)
    }
}

/// The name is none of the four modes'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not one of handshake+advance, handshake+fixed, bare+advance, bare+fixed")]
pub struct UnknownMode;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_wire_bytes_lead_back_to_their_mode() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
            assert_eq!(Mode::from_wire(mode.to_wire()), Some(mode));
            assert_eq!((mode.is_fixed(), mode.is_bare()), (mode.to_wire() & 1 != 0, mode.to_wire() & 2 != 0));
        }
        assert_eq!("auto".parse::<Mode>(), Err(UnknownMode));
        assert_eq!(Mode::from_wire(4), None);
    }
}
