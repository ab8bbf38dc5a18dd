//! The text of a configuration.

use std::path::Path;
use std::time::Duration;

use ipnetwork::IpNetwork;
use vpn::config::{ADDRESSES_MAX, ClientConfig, ConfigError, Endpoint, Limits, Listen, ServerConfig};

/// What is accepted keeps every documented bound; what is not is told in one line, with a place in the text.
pub(crate) fn client(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match ClientConfig::parse(text, Path::new(FILE)) {
        Err(error) => check_error(&error, text),
        Ok((config, _)) => {
            let dead_after = config.carrier.dead_after;
            assert!((Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600)).contains(&dead_after));
            assert_ne!(config.server_key, config.private_key.public_key());
            for endpoint in config.server.iter() {
                assert_eq!(endpoint.to_string().parse::<Endpoint>().as_ref(), Ok(endpoint));
            }
            let networks = config.tunnel.routes.iter().chain(&config.tunnel.exclude);
            assert!(networks.into_iter().all(|network| network.ip() == network.network()));
            check_common(config.tunnel.interface.as_str(), &config.limits);
        }
    }
}

/// The same.
pub(crate) fn server(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match ServerConfig::parse(text, Path::new(FILE)) {
        Err(error) => check_error(&error, text),
        Ok((config, _)) => {
            assert!(!config.listen.is_empty());
            for listen in &config.listen {
                assert_eq!(listen.to_string().parse::<Listen>().as_ref(), Ok(listen));
            }
            let own = &config.tunnel.addresses;
            assert!((1..=ADDRESSES_MAX).contains(&own.len()));
            let mut taken: Vec<_> = own.iter().map(IpNetwork::ip).collect();
            for peer in &config.peers {
                assert!((1..=ADDRESSES_MAX).contains(&peer.addresses.len()));
                assert!(!peer.name.is_empty() && !peer.name.chars().any(char::is_control));
                for address in &peer.addresses {
                    assert!(own.iter().any(|network| network.contains(*address)));
                    assert!(!taken.contains(address), "{address} is given twice");
                    taken.push(*address);
                }
            }
            check_common(config.tunnel.interface.as_str(), &config.limits);
        }
    }
}

/// `None` if it is no text, or names another file: what stands there is not the input's.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains("file") && !text.contains('\\'))
}

fn check_common(interface: &str, limits: &Limits) {
    assert!((1..=15).contains(&interface.len()) && !interface.contains(['/', ' ', '%', '"', '\n']));
    assert!(limits.session_buffer.bytes() <= limits.process_buffer.bytes() / 2);
}

fn check_error(error: &ConfigError, text: &str) {
    let said = error.to_string();
    assert!(!said.contains('\n'), "{said:?}");
    let ConfigError::At { line, column, what, .. } = error else { panic!("{error:?} of a text") };
    assert!(!what.is_empty());
    let lines: Vec<_> = text.split('\n').collect();
    let length = lines.get(*line - 1).unwrap_or_else(|| panic!("{said:?} of {text:?}")).chars().count();
    assert!((1..=length + 1).contains(column), "{said:?} of {text:?}");
}

const FILE: &str = "/nowhere/fuzz.toml";

pub(crate) fn client_seeds() -> Vec<Vec<u8>> {
    let head = "private_key = \"YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\"\nserver = \"203.0.113.9:443\"\n\
                server_key = \"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\"\n";
    let rest = "[tunnel]\ninterface = \"vpn0\"\nroutes = [\"0.0.0.0/0\", \"::/0\"]\nexclude = [\"10.0.0.0/8\"]\nlan = true\n\
                domains = []\ndns = \"server\"\nkill_switch = false\nconnect = \"faithful\"\n[carrier]\nmode = \"auto\"\n\
                carriers = 1\ndead_after = \"1h30m\"\npreface = \"off\"\npreface_host = \"\"\n[kcp]\ncongestion = \"loss\"\n\
                [inbound]\nallow = []\n[limits]\nsession_buffer = \"64MiB\"\nprocess_buffer = \"1GiB\"\n[metrics]\nlisten = \"\"\n";
    [head.to_owned(), format!("{head}{rest}"), head.replace("203.0.113.9", "[2001:db8::1]"), rest.to_owned()]
        .into_iter()
        .map(String::into_bytes)
        .collect()
}

pub(crate) fn server_seeds() -> Vec<Vec<u8>> {
    let head = "private_key = \"YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\"\n";
    let tunnel = "[tunnel]\naddresses = [\"10.77.0.1/24\", \"fd77::1/64\"]\n";
    let peer = "[[peer]]\nname = \"alice\"\npublic_key = \"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\"\n\
                addresses = [\"10.77.0.2\", \"fd77::2\"]\n";
    let more = "listen = [\"0.0.0.0:443\", \"[::]:443-450\"]\n";
    let egress = "[egress]\nallow = [\"127.0.0.1/32:80\"]\ndeny = [\"10.0.0.0/8\", \"[fd00::]/8:25\"]\n";
    [
        format!("{head}{tunnel}"),
        format!("{head}{more}{tunnel}{egress}{peer}"),
        format!("{head}{tunnel}{peer}{peer}"),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect()
}
