//! kcptun, which forwards one TCP port over KCP in UDP: AES as by default, no compression, `fast2`, windows for the line (it has
//! no congestion control, so they are its rate), and smux 2 with buffers above that; with and without its default FEC of 10 + 3.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use netns_tests::addresses::SERVER;
use netns_tests::process::Process;
use netns_tests::topology::Topology;
use netns_tests::wait;

use super::{Line, START_LIMIT};

/// Starts both ends; what the client gets at [`LOCAL`] goes to `target`.
pub(crate) fn start(topology: &Topology, target: SocketAddr, line: Line, fec: bool) -> Result<[Process; 2]> {
    let shards = if fec { "--datashard 10 --parityshard 3" } else { "--datashard 0 --parityshard 0" };
    let window = window(line);
    let common = format!(
        "--crypt aes --nocomp --mode fast2 {shards} --sndwnd {window} --rcvwnd {window} --mtu {MTU} --quiet \
         --sockbuf 16777216 --smuxver 2 --smuxbuf 16777216 --streambuf 8388608"
    );
    let server = topology
        .server
        .program("kcptun-server")?
        .words(&format!("--listen {SERVER}:{PORT} --target {target} {common}"))
        .start()?;
    wait::until("kcptun's port", START_LIMIT, || {
        Ok((!topology.server.run(&format!("ss -Hlun sport = :{PORT}"))?.trim().is_empty()).then_some(()))
    })?;
    let client = topology
        .client()
        .program("kcptun-client")?
        .words(&format!("--localaddr {LOCAL} --remoteaddr {SERVER}:{PORT} {common}"))
        .start()?;
    topology.client().wait_for_listener(LOCAL.port(), START_LIMIT)?;
    Ok([server, client])
}

/// What the line and its queue hold, and a quarter more: with less it waits for its repeats on a line that loses packets, with
/// more it repeats what only waits in the queue. It has one window for all lines, so this also fills the queue of those without
/// loss, where new connections wait for it.
fn window(line: Line) -> u32 {
    let packets = line.held_bytes() * 1.25 / f64::from(MTU);
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    let packets = packets as u32;
    packets.clamp(SMALLEST_WINDOW, LARGEST_WINDOW)
}

/// Where the client takes connections.
pub(crate) const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 12_948);

/// kcptun's usual port.
pub(crate) const PORT: u16 = 29_900;

/// Its default.
const MTU: u16 = 1350;

/// Its default for the client.
const SMALLEST_WINDOW: u32 = 128;

/// More than any line here holds, and enough for the plain wires.
const LARGEST_WINDOW: u32 = 8192;
