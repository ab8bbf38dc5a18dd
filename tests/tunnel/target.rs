//! The servers beyond the tunnel, as the model: what each connection must send and receive, byte for byte.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use vpn::mux::ResetCode;
use vpn::session::{Server, ServerEvent, StreamKey};

/// One connection as it must be: both ends derive the bytes from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) target: SocketAddr,
    pub(crate) upload_len: usize,
    pub(crate) download_len: usize,
}

impl Plan {
    pub(crate) fn upload(&self) -> Vec<u8> {
        bytes(u64::from(self.target.port()), self.upload_len)
    }

    pub(crate) fn download(&self) -> Vec<u8> {
        bytes(u64::from(self.target.port()) << 32, self.download_len)
    }
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Ports below this do something else than serve.
pub(crate) const FIRST_SERVING_PORT: u16 = 1000;
/// Nothing listens here.
pub(crate) const REFUSED_PORT: u16 = 1;
/// The host of this port cannot be reached.
pub(crate) const UNREACHABLE_PORT: u16 = 2;
/// Accepts, then resets.
pub(crate) const RESETTING_PORT: u16 = 3;

/// All targets, by port.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    pub(crate) plans: HashMap<u16, Plan>,
    serving: HashMap<StreamKey, Serving>,
    /// What each port received, and whether its client ended with a FIN.
    pub(crate) received: HashMap<u16, (Vec<u8>, bool)>,
    pub(crate) resets: usize,
}

#[derive(Debug)]
struct Serving {
    port: u16,
    outgoing: Vec<u8>,
    sent: usize,
}

impl Targets {
    pub(crate) fn handle_event(&mut self, event: ServerEvent, server: &mut Server, now: Instant) {
        match event {
            ServerEvent::Connect { stream, target } => self.connect(stream, target.port(), server),
            ServerEvent::Readable(stream) => self.read(stream, server, now),
            ServerEvent::Writable(stream) => self.write(stream, server),
            ServerEvent::Finished(stream) => {
                let port = self.serving[&stream].port;
                self.received.get_mut(&port).expect("it was connected").1 = true;
            }
            ServerEvent::Reset(stream) => {
                self.resets += 1;
                self.serving.remove(&stream);
            }
            ServerEvent::Abandoned(which) => self.serving.retain(|stream, _| !which.includes(*stream)),
        }
    }

    /// Whether every client ended with a FIN.
    pub(crate) fn are_done(&self) -> bool {
        self.received.values().all(|(_, finished)| *finished)
    }

    /// The host they were connected from is gone.
    pub(crate) fn forget_connections(&mut self) {
        self.serving.clear();
        self.received.clear();
    }

    fn connect(&mut self, stream: StreamKey, port: u16, server: &mut Server) {
        match port {
            REFUSED_PORT => return server.reset(stream, ResetCode::Refused),
            UNREACHABLE_PORT => return server.reset(stream, ResetCode::HostUnreachable),
            RESETTING_PORT => {
                server.connected(stream);
                return server.reset(stream, ResetCode::Reset);
            }
            _ => server.connected(stream),
        }
        let outgoing = self.plans[&port].download();
        self.serving.insert(stream, Serving { port, outgoing, sent: 0 });
        self.received.insert(port, (Vec::new(), false));
        self.write(stream, server);
    }

    fn write(&mut self, stream: StreamKey, server: &mut Server) {
        let Some(serving) = self.serving.get_mut(&stream) else { return };
        loop {
            let rest = &serving.outgoing[serving.sent..];
            if rest.is_empty() {
                return server.finish(stream);
            }
            match server.write(stream, rest) {
                0 => return,
                taken => serving.sent += taken,
            }
        }
    }

    fn read(&mut self, stream: StreamKey, server: &mut Server, now: Instant) {
        let Some(serving) = self.serving.get(&stream) else { return };
        let (received, _) = self.received.get_mut(&serving.port).expect("it was connected");
        loop {
            let bytes = server.readable(stream);
            let length = bytes.len();
            if length == 0 {
                return;
            }
            received.extend_from_slice(bytes);
            server.consume(stream, length, now);
        }
    }
}
