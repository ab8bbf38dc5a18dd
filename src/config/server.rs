//! The configuration of a server.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Deserializer};

use super::client::PRIVATE_KEY_MISSING;
use super::document::Document;
use super::keys::{Key, Secret};
use super::text::deserialize_from_str;
use super::{
    ADDRESSES_MAX, ConfigError, InterfaceName, Limits, Listen, Metrics, Ports, Warning, network, unbuilt,
};
use crate::crypto::{PresharedKey, PrivateKey, PublicKey, is_tunnel_address};
use crate::egress::{Entry, EntryError};

/// Everything a server is told.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Its own key.
    pub private_key: PrivateKey,
    /// Where it listens; never empty.
    pub listen: Vec<Listen>,
    /// `[tunnel]`.
    pub tunnel: ServerTunnel,
    /// `[egress]`.
    pub egress: Egress,
    /// `[[peer]]`.
    pub peers: Vec<Peer>,
    /// `[limits]`.
    pub limits: Limits,
    /// `[metrics]`.
    pub metrics: Metrics,
}

/// `[tunnel]` of a server: its own end of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerTunnel {
    /// The name of the device.
    pub interface: InterfaceName,
    /// Its addresses, each with the length of its network; never empty.
    #[serde(deserialize_with = "network::interfaces")]
    pub addresses: Vec<IpNetwork>,
    /// The resolvers that clients are told; `None` stands for the host's own.
    #[serde(deserialize_with = "network::some_addresses")]
    pub dns: Option<Vec<IpAddr>>,
    /// Whether what leaves for other networks gets the host's address.
    pub masquerade: bool,
}

/// `[egress]`: what clients may reach, as [`EgressPolicy`](crate::egress::EgressPolicy) reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// What is allowed.
    #[serde(deserialize_with = "entries")]
    pub allow: Vec<Entry>,
    /// What is denied.
    #[serde(deserialize_with = "entries")]
    pub deny: Vec<Entry>,
}

/// `[[peer]]`: a client that may connect.
#[derive(Clone, Debug)]
pub struct Peer {
    /// What a person calls it; the text of its key if nothing is given.
    pub name: String,
    /// Its key.
    pub public_key: PublicKey,
    /// The secret shared with it; zero for none.
    pub preshared_key: PresharedKey,
    /// Its addresses in the tunnel, each in a network of the server's; never empty.
    pub addresses: Vec<IpAddr>,
}

impl ServerConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, or anything in it is wrong or not built yet.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), ConfigError> {
        Self::of(&Document::read(path)?)
    }

    /// Checks a text that is to stand in the file `path`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: &Path) -> Result<(Self, Vec<Warning>), ConfigError> {
        Self::of(&Document::new(path, text.to_owned()))
    }

    fn of(document: &Document) -> Result<(Self, Vec<Warning>), ConfigError> {
        let mut warnings = Vec::new();
        let config = document.decode::<File>()?.complete(document, &mut warnings)?;
        config.check(document)?;
        unbuilt::check_server(&config, document)?;
        if config.peers.is_empty() {
            let path = document.path().display();
            warnings.push(Warning::new(format!("{path} has no [[peer]]: no client can connect")));
        }
        Ok((config, warnings))
    }

    fn check(&self, document: &Document) -> Result<(), ConfigError> {
        self.check_listen(document)?;
        self.check_tunnel(document)?;
        self.check_peers(document)?;
        self.limits.check(document)
    }

    fn check_listen(&self, document: &Document) -> Result<(), ConfigError> {
        if self.listen.is_empty() {
            return Err(document.error_at("listen", "is empty: write [\"0.0.0.0:443\"]"));
        }
        let mut ports = 0;
        for (index, listen) in self.listen.iter().enumerate() {
            let wrong = |what| document.error_at(&format!("listen[{index}]"), what);
            if let Some(port) = self.listen.iter().take(index).find_map(|other| listen.shared_port(other)) {
                let address = Listen { ports: Ports { first: port, last: port }, ..*listen };
                return Err(wrong(format!("{address} stands here twice")));
            }
            ports += listen.ports.count();
            if ports > LISTEN_PORTS_MAX {
                return Err(wrong(format!(
                    "makes {ports} ports: {LISTEN_PORTS_MAX} can be listened on at most"
                )));
            }
        }
        Ok(())
    }

    fn check_tunnel(&self, document: &Document) -> Result<(), ConfigError> {
        let addresses = self.tunnel.addresses.len();
        if addresses == 0 {
            return Err(document.error_at("tunnel.addresses", TUNNEL_ADDRESSES_MISSING));
        }
        if addresses > ADDRESSES_MAX {
            let what = format!("names more than {ADDRESSES_MAX}");
            return Err(document.error_at("tunnel.addresses", what));
        }
        for (position, network) in self.tunnel.addresses.iter().enumerate() {
            if !is_tunnel_address(network.ip()) {
                return Err(
                    document.error_at(&format!("tunnel.addresses[{position}]"), no_host(network.ip()))
                );
            }
        }
        let resolvers = self.tunnel.dns.as_ref().map_or(0, Vec::len);
        if resolvers > ADDRESSES_MAX {
            let what = format!("names more than {ADDRESSES_MAX}");
            return Err(document.error_at("tunnel.dns", what));
        }
        Ok(())
    }

    fn check_peers(&self, document: &Document) -> Result<(), ConfigError> {
        let own_key = self.private_key.public_key();
        let mut keys = HashSet::from([own_key]);
        let mut names = HashSet::new();
        let mut taken: HashSet<_> = self.tunnel.addresses.iter().map(IpNetwork::ip).collect();
        for (index, peer) in self.peers.iter().enumerate() {
            let wrong = |key: &str, what: String| document.error_at(&format!("peer[{index}].{key}"), what);
            if !keys.insert(peer.public_key) {
                let whose = if peer.public_key == own_key { "this server's own" } else { "another peer's" };
                return Err(wrong("public_key", format!("is {whose} key: each end has its own")));
            }
            if !names.insert(&peer.name) {
                return Err(wrong("name", format!("{:?} names another peer too", peer.name)));
            }
            for (position, address) in peer.addresses.iter().enumerate() {
                let key = format!("addresses[{position}]");
                self.check_address(*address).map_err(|what| wrong(&key, what))?;
                if !taken.insert(*address) {
                    return Err(wrong(&key, format!("{address} is taken: choose another")));
                }
            }
        }
        Ok(())
    }

    /// Whether a peer can have an address: a host of a network of the tunnel.
    fn check_address(&self, address: IpAddr) -> Result<(), String> {
        if !is_tunnel_address(address) {
            return Err(no_host(address));
        }
        let network = self
            .tunnel
            .addresses
            .iter()
            .find(|network| network.contains(address))
            .ok_or_else(|| format!("{address} is in no network of tunnel.addresses"))?;
        let of_network = match network {
            IpNetwork::V4(network) => {
                network.prefix() < 31
                    && [network.network(), network.broadcast()].map(IpAddr::V4).contains(&address)
            }
            IpNetwork::V6(network) => network.prefix() < 127 && network.network() == address,
        };
        if of_network {
            return Err(format!("{address} stands for the network itself: choose another"));
        }
        Ok(())
    }
}

impl Default for ServerTunnel {
    fn default() -> Self {
        Self {
            interface: InterfaceName::of_default("vpns0"),
            addresses: Vec::new(),
            dns: None,
            masquerade: true,
        }
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    private_key: Option<Key<PrivateKey>>,
    private_key_file: Option<PathBuf>,
    #[serde(default = "default_listen")]
    listen: Vec<Listen>,
    #[serde(default)]
    tunnel: ServerTunnel,
    #[serde(default)]
    egress: Egress,
    #[serde(default)]
    peer: Vec<PeerTable>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    metrics: Metrics,
}

impl File {
    fn complete(self, document: &Document, warnings: &mut Vec<Warning>) -> Result<ServerConfig, ConfigError> {
        let private = Secret { here: self.private_key, file: self.private_key_file };
        let private_key = private
            .read(document, "private_key", warnings)?
            .ok_or_else(|| document.error_at("private_key", PRIVATE_KEY_MISSING))?;
        let peers = self.peer.into_iter().enumerate();
        let peers = peers.map(|(index, peer)| peer.complete(document, index, warnings));
        Ok(ServerConfig {
            private_key,
            peers: peers.collect::<Result<_, _>>()?,
            listen: self.listen,
            tunnel: self.tunnel,
            egress: self.egress,
            limits: self.limits,
            metrics: self.metrics,
        })
    }
}

/// `[[peer]]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PeerTable {
    name: Option<PeerName>,
    public_key: Option<Key<PublicKey>>,
    preshared_key: Option<Key<PresharedKey>>,
    preshared_key_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "network::addresses")]
    addresses: Vec<IpAddr>,
}

impl PeerTable {
    fn complete(
        self,
        document: &Document,
        index: usize,
        warnings: &mut Vec<Warning>,
    ) -> Result<Peer, ConfigError> {
        let prefix = format!("peer[{index}]");
        let wrong = |key: &str, what: &str| document.error_at(&format!("{prefix}.{key}"), what);
        let Some(Key(public_key)) = self.public_key else {
            return Err(wrong("public_key", PUBLIC_KEY_MISSING));
        };
        if !(1..=ADDRESSES_MAX).contains(&self.addresses.len()) {
            return Err(wrong("addresses", PEER_ADDRESSES_WRONG));
        }
        let preshared = Secret { here: self.preshared_key, file: self.preshared_key_file };
        Ok(Peer {
            name: self.name.map_or_else(|| public_key.to_string(), |PeerName(name)| name),
            public_key,
            preshared_key: preshared
                .read(document, &format!("{prefix}.preshared_key"), warnings)?
                .unwrap_or_default(),
            addresses: self.addresses,
        })
    }
}

struct PeerName(String);

impl std::str::FromStr for PeerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = (1..=NAME_MAX).contains(&text.chars().count());
        if fits && !text.chars().any(char::is_control) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("a name has 1 to {NAME_MAX} characters and no control characters"))
    }
}

deserialize_from_str!(PeerName, r#"a string like "alice""#);

/// An [`Entry`] that names itself in its error.
struct EntryText(Entry);

impl std::str::FromStr for EntryText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: EntryError| format!("{text:?}: {error}"))
    }
}

deserialize_from_str!(EntryText, r#"a string like "10.0.0.0/8" or "10.0.0.0/8:25""#);

fn entries<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<Entry>, D::Error> {
    let list = Vec::<EntryText>::deserialize(input)?;
    Ok(list.into_iter().map(|EntryText(entry)| entry).collect())
}

fn default_listen() -> Vec<Listen> {
    let ports = Ports { first: DEFAULT_PORT, last: DEFAULT_PORT };
    let any = [IpAddr::from([0_u8; 4]), IpAddr::from([0_u8; 16])];
    any.map(|address| Listen { address, ports }).to_vec()
}

/// Our choice: each is a guarding socket, and a port more or less to try makes no difference to a provider.
const LISTEN_PORTS_MAX: usize = 1024;

/// The port of HTTPS: open in every network, and long flows to it are ordinary.
const DEFAULT_PORT: u16 = 443;

/// The longest name of a peer, in characters; our choice, so that a status stays readable.
const NAME_MAX: usize = 64;

fn no_host(address: IpAddr) -> String {
    format!("{address} is no address that an end of a tunnel can have: choose another")
}

const TUNNEL_ADDRESSES_MISSING: &str =
    "is missing: write addresses = [\"10.77.0.1/24\", \"fd77::1/64\"] or others of your own";
const PUBLIC_KEY_MISSING: &str =
    "is missing: write public_key = \"…\" with the client's public key (`vpn pubkey`)";
const PEER_ADDRESSES_WRONG: &str =
    "must name 1 to 16 addresses of the tunnel's networks, as [\"10.77.0.2\", \"fd77::2\"]";
