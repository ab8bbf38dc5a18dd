//! What a configuration can already say and this version does not do yet.
//!
//! Each line names a key, says whether its value asks for what is missing, and what to write
//! instead. Such a value is refused, never ignored; whoever builds the feature deletes its line.

use super::document::Document;
use super::{ClientConfig, ClientDns, ConfigError, Preface, ServerConfig};

/// Refuses what a client's configuration asks for and is not built yet.
pub(super) fn check_client(config: &ClientConfig, document: &Document) -> Result<(), ConfigError> {
    let (tunnel, carrier) = (&config.tunnel, &config.carrier);
    let plain_dns = matches!(tunnel.dns, ClientDns::Server | ClientDns::Off);
    refuse_first(
        document,
        &[
            ("tunnel.domains", !tunnel.domains.is_empty(), "[]"),
            ("tunnel.dns", !plain_dns, r#""server" or "off""#),
            ("tunnel.kill_switch", tunnel.kill_switch, "false"),
            ("carrier.carriers", carrier.carriers != 1, "1"),
            ("carrier.preface", carrier.preface != Preface::Off, r#""off""#),
            ("carrier.preface_host", !carrier.preface_host.is_empty(), r#""""#),
            ("metrics.listen", config.metrics.listen.is_some(), r#""""#),
        ],
    )
}

/// Refuses what a server's configuration asks for and is not built yet.
pub(super) fn check_server(config: &ServerConfig, document: &Document) -> Result<(), ConfigError> {
    refuse_first(document, &[("metrics.listen", config.metrics.listen.is_some(), r#""""#)])
}

/// A key, whether its value asks for what is missing, and what to write instead.
type Line<'a> = (&'a str, bool, &'a str);

fn refuse_first(document: &Document, lines: &[Line<'_>]) -> Result<(), ConfigError> {
    match lines.iter().find(|(_, asks, _)| *asks) {
        Some((key, _, instead)) => {
            let what = format!("this value is not built yet: use {instead}");
            Err(document.error_at(key, what))
        }
        None => Ok(()),
    }
}
