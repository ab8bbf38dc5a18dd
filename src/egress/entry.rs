//! One entry of the egress policy, as it is written in the configuration.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use thiserror::Error;

/// A network, and a port of it or all of them.
///
/// Written `10.0.0.0/8`, `10.0.0.0/8:25`, `fd00::/8` or `[fd00::]/8:25`: always with the length,
/// so that a port cannot be taken for a part of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    network: IpNetwork,
    port: Option<u16>,
}

impl Entry {
    /// Builds an entry; `None` stands for every port, and for what has no ports.
    pub fn new(network: IpNetwork, port: Option<u16>) -> Self {
        Self { network, port }
    }

    /// The network it speaks of.
    pub fn network(&self) -> IpNetwork {
        self.network
    }

    /// The only port it speaks of, if it names one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    pub(super) fn matches(&self, destination: IpAddr, port: Option<u16>) -> bool {
        self.network.contains(destination) && (self.port.is_none() || self.port == port)
    }
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        let (address, rest) = text.split_once('/').ok_or(EntryError::NoLength)?;
        let (length, port) = match rest.split_once(':') {
            Some((length, port)) => (length, Some(parse_port(port)?)),
            None => (rest, None),
        };
        let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
        let address: IpAddr = match bare {
            Some(bare) => IpAddr::V6(bare.parse().map_err(|_| EntryError::Address)?),
            None => address.parse().map_err(|_| EntryError::Address)?,
        };
        let length = length.parse().map_err(|_| EntryError::Length)?;
        let network = IpNetwork::new(address, length).map_err(|_| EntryError::Length)?;
        if network.network() != address {
            return Err(EntryError::HostBits(network.network(), length));
        }
        Ok(Self { network, port })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.network, self.port) {
            (network, None) => write!(f, "{network}"),
            (IpNetwork::V4(network), Some(port)) => write!(f, "{network}:{port}"),
            (IpNetwork::V6(network), Some(port)) => {
                write!(f, "[{}]/{}:{port}", network.ip(), network.prefix())
            }
        }
    }
}

/// Why a text is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// There is no `/length`.
    #[error(r#"has no /length: write "10.0.0.0/8", "10.0.0.0/8:25" or "[fd00::]/8:25""#)]
    NoLength,
    /// What stands before the `/` is no address.
    #[error("the part before the / is no IP address")]
    Address,
    /// The length is no number or too long for the address.
    #[error("the length after the / must be a number up to 32 for IPv4, 128 for IPv6")]
    Length,
    /// The address has bits set behind the length.
    #[error("has bits set behind its length: write {0}/{1}")]
    HostBits(IpAddr, u8),
    /// The port is no number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    Port,
}

fn parse_port(text: &str) -> Result<u16, EntryError> {
    match text.parse() {
        Ok(0) | Err(_) => Err(EntryError::Port),
        Ok(port) => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_networks_with_and_without_a_port() {
        for (text, canonical) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1/32:25", "10.0.0.1/32:25"),
            ("fd00::/8", "fd00::/8"),
            ("[fd00::]/8", "fd00::/8"),
            ("[fd00::]/8:25", "[fd00::]/8:25"),
            ("fd00::/8:25", "[fd00::]/8:25"),
            ("0.0.0.0/0:443", "0.0.0.0/0:443"),
        ] {
            assert_eq!(text.parse::<Entry>().unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn says_what_is_wrong_with_an_entry() {
        for (text, error) in [
            ("10.0.0.1", EntryError::NoLength),
            ("10.0.0.1:25", EntryError::NoLength),
            ("host/8", EntryError::Address),
            ("[10.0.0.0]/8", EntryError::Address),
            ("10.0.0.0/33", EntryError::Length),
            ("10.0.0.0/", EntryError::Length),
            ("10.0.0.1/8", EntryError::HostBits("10.0.0.0".parse().unwrap(), 8)),
            ("10.0.0.0/8:0", EntryError::Port),
            ("10.0.0.0/8:http", EntryError::Port),
            ("10.0.0.0/8:65536", EntryError::Port),
        ] {
            assert_eq!(text.parse::<Entry>(), Err(error), "{text}");
        }
    }
}
