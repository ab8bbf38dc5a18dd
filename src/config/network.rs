//! Networks in CIDR form and lists of them.

use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer};

use super::text::deserialize_from_str;

/// Reads a network, `10.0.0.0/8` or `fd00::/8`; an address alone is the network of that host.
///
/// # Errors
/// When it is none, or has bits set behind its length: a route to it would not be what it says.
pub fn parse_network(text: &str) -> Result<IpNetwork, String> {
    let network = parse_interface(text)?;
    if network.ip() == network.network() {
        return Ok(network);
    }
    Err(format!(
        "{text:?} has bits set behind its length: write \"{}/{}\"",
        network.network(),
        network.prefix()
    ))
}

/// Reads a list of networks.
pub(super) fn networks<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<IpNetwork>, D::Error> {
    let list = Vec::<Network>::deserialize(input)?;
    Ok(list.into_iter().map(|Network(network)| network).collect())
}

/// Reads a list of addresses with the length of their network, `10.77.0.1/24`.
pub(super) fn interfaces<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<IpNetwork>, D::Error> {
    let list = Vec::<Interface>::deserialize(input)?;
    Ok(list.into_iter().map(|Interface(network)| network).collect())
}

/// Reads a list of addresses without a length.
pub(super) fn addresses<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<IpAddr>, D::Error> {
    let list = Vec::<Address>::deserialize(input)?;
    Ok(list.into_iter().map(|Address(address)| address).collect())
}

/// Reads a list of addresses that may be absent.
pub(super) fn some_addresses<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<IpAddr>>, D::Error> {
    addresses(input).map(Some)
}

struct Network(IpNetwork);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_network(text).map(Self)
    }
}

deserialize_from_str!(Network, r#"a string like "10.0.0.0/8""#);

struct Interface(IpNetwork);

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains('/') {
            return Err(format!(
                "{text:?} has no /length: write the length of the network, as \"10.77.0.1/24\""
            ));
        }
        parse_interface(text).map(Self)
    }
}

deserialize_from_str!(Interface, r#"a string like "10.77.0.1/24""#);

struct Address(IpAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text
            .parse()
            .map_err(|_| format!("{text:?} is no IP address: write it without a length, as \"10.77.0.2\""))?;
        Ok(Self(address))
    }
}

deserialize_from_str!(Address, r#"a string like "10.77.0.2""#);

fn parse_interface(text: &str) -> Result<IpNetwork, String> {
    text.parse().map_err(|_| format!("{text:?} is no network: write it as \"10.0.0.0/8\" or \"fd00::/8\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_network_with_bits_behind_its_length_and_says_the_right_one() {
        assert_eq!(parse_network("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(parse_network("10.0.0.7").unwrap().to_string(), "10.0.0.7/32");
        assert_eq!(parse_network("::/0").unwrap().to_string(), "::/0");
        assert_eq!(
            parse_network("192.168.1.5/24"),
            Err(r#""192.168.1.5/24" has bits set behind its length: write "192.168.1.0/24""#.into())
        );
        for text in ["", "10.0.0.0/33", "host/8", "10.0.0.0/8/8"] {
            assert!(parse_network(text).is_err(), "{text}");
        }
    }
}
