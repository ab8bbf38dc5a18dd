//! What a tunnel hears of the world beside its packets: the host's network, and the addresses of its servers.

use super::host::Host;
use super::memory::Memory;
use super::resolve::Names;
use crate::session::ClientEvent;

/// Everything around one tunnel.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) host: Host,
    pub(super) names: Names,
    pub(super) memory: Memory,
}

/// What is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Packets may have another way to the server, or one at last.
    Network,
    /// The servers have other addresses.
    Servers,
}

impl Surroundings {
    /// What became of the tunnel decides whether its server is looked for.
    pub(super) fn on_event(&mut self, event: &ClientEvent) {
        match event {
            ClientEvent::Suspect => self.names.on_outage(),
            ClientEvent::Recovered | ClientEvent::Up { .. } | ClientEvent::Ended(_) => {
                self.names.on_recovered();
            }
            ClientEvent::Dial { .. } | ClientEvent::Retired(_) | ClientEvent::Restarted => {}
        }
    }

    /// Waits for news. Cancel-safe.
    pub(super) async fn next(&mut self) -> News {
        tokio::select! {
            () = self.host.changed() => {
                self.names.on_network_change();
                News::Network
            }
            () = self.names.changed(&mut self.memory) => News::Servers,
        }
    }
}
