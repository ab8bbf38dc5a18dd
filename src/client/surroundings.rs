//! What a tunnel hears of the world beside its packets: the host's network, and the addresses of its servers.

use std::future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::host::Host;
use super::memory::Memory;
use super::resolve::Names;
use crate::netcfg;
use crate::session::ClientEvent;

/// Everything around one tunnel.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) host: Host,
    pub(super) names: Names,
    pub(super) memory: Memory,
    mark: u32,
    /// The network that the carriers leave by.
    network: Option<String>,
    /// Asked what it is called now.
    naming: Option<JoinHandle<Option<String>>>,
}

/// What is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Packets may have another way to the server, or one at last.
    Network,
    /// It is known which network that is.
    Name,
    /// The servers have other addresses.
    Servers,
}

impl Surroundings {
    /// `mark` is on the carriers' packets.
    pub(super) async fn new(host: Host, names: Names, memory: Memory, mark: u32) -> Self {
        let mut this = Self { host, names, memory, mark, network: None, naming: None };
        if let Some(server) = this.first_server() {
            this.network = name(server, mark, Duration::ZERO).await;
        }
        this
    }

    /// The network that the carriers leave by; empty if it has no name.
    pub(super) fn network(&self) -> &str {
        self.network.as_deref().unwrap_or_default()
    }

    /// Packets make the round trip to the server at `remote`, which has proven its key.
    pub(super) fn on_carried(&mut self, remote: Option<SocketAddr>) {
        self.names.on_recovered(remote, &mut self.memory);
    }

    /// What became of the tunnel, whose server is at `remote`, decides whether that is looked for.
    pub(super) fn on_event(&mut self, event: &ClientEvent, remote: Option<SocketAddr>) {
        match event {
            ClientEvent::Suspect => self.names.on_outage(),
            ClientEvent::Recovered | ClientEvent::Up { .. } => self.on_carried(remote),
            ClientEvent::Ended(_) => self.names.stop_asking(),
            ClientEvent::Dial { .. }
            | ClientEvent::Retired(_)
            | ClientEvent::Broken(_)
            | ClientEvent::Closed(_)
            | ClientEvent::Restarted => {}
        }
    }

    /// Waits for news. Cancel-safe.
    pub(super) async fn next(&mut self) -> News {
        loop {
            tokio::select! {
                () = self.host.changed() => {
                    self.names.on_network_change();
                    self.ask_for_name();
                    return News::Network;
                }
                () = self.names.changed(&mut self.memory) => return News::Servers,
                found = answer(&mut self.naming) => {
                    self.naming = None;
                    // Between two networks there is none: what is known stays with the one before.
                    if found.is_some() && found != self.network {
                        self.network = found;
                        return News::Name;
                    }
                }
            }
        }
    }

    fn first_server(&self) -> Option<IpAddr> {
        self.names.distinct().first().map(|server| server.address)
    }

    /// In a task of its own, because the tunnel goes on meanwhile.
    fn ask_for_name(&mut self) {
        let mark = self.mark;
        let asked = self.first_server().map(|server| tokio::spawn(name(server, mark, NAMED_WITHIN)));
        if let Some(overtaken) = std::mem::replace(&mut self.naming, asked) {
            overtaken.abort();
        }
    }
}

async fn name(server: IpAddr, mark: u32, patience: Duration) -> Option<String> {
    let found = netcfg::network_name(server, mark, patience).await;
    found.unwrap_or_else(|error| {
        tracing::debug!("the network has no name: {error:#}");
        None
    })
}

async fn answer(naming: &mut Option<JoinHandle<Option<String>>>) -> Option<String> {
    match naming {
        Some(task) => task.await.ok().flatten(),
        None => future::pending().await,
    }
}

/// Our choice: packets to the server ask for the gateway meanwhile.
const NAMED_WITHIN: Duration = Duration::from_secs(1);
