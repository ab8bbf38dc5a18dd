//! wireguard-go: `wg-quick`'s MTU of 1420 and the keepalive of 25 s that its manual gives for hosts behind NAT.

use std::path::Path;

use anyhow::Result;
use netns_tests::addresses::SERVER;
use netns_tests::node::Node;
use netns_tests::process::Process;
use netns_tests::topology::Topology;

use super::{START_LIMIT, directory, route_through, tunnel_address, write};

/// Starts both ends.
pub(crate) fn start(topology: &Topology) -> Result<[Process; 2]> {
    let directory = directory(topology, "wireguard")?;
    let (client, server) = (topology.client(), &topology.server);
    let [client_key, server_key] = [private_key(client)?, private_key(server)?];
    let [client_public, server_public] = [public_key(client, &client_key)?, public_key(server, &server_key)?];
    let client_config = format!(
        "[Interface]\nPrivateKey = {client_key}\nListenPort = {PORT}\n[Peer]\nPublicKey = {server_public}\n\
         Endpoint = {SERVER}:{PORT}\nAllowedIPs = 0.0.0.0/0\nPersistentKeepalive = 25\n"
    );
    let server_config = format!(
        "[Interface]\nPrivateKey = {server_key}\nListenPort = {PORT}\n[Peer]\nPublicKey = {client_public}\n\
         AllowedIPs = {}/32\n",
        tunnel_address(2)
    );
    let processes = [
        start_end(server, &directory.join("server.conf"), &server_config, 1)?,
        start_end(client, &directory.join("client.conf"), &client_config, 2)?,
    ];
    route_through(topology, DEVICE, &format!("{}/24", tunnel_address(0)))?;
    Ok(processes)
}

fn start_end(node: &Node, path: &Path, config: &str, last: u8) -> Result<Process> {
    write(path, config)?;
    let process = node.program("wireguard-go")?.args(["-f", DEVICE]).start()?;
    netns_tests::wait::until("wireguard-go's socket", START_LIMIT, || {
        Ok(node
            .program("wg")?
            .args(["show", DEVICE])
            .run(START_LIMIT)?
            .code()
            .filter(|code| *code == 0)
            .map(drop))
    })?;
    node.program("wg")?.args(["setconf", DEVICE]).arg(path).output()?;
    node.ip_lines(&[
        format!("address add {}/24 dev {DEVICE}", tunnel_address(last)),
        format!("link set {DEVICE} mtu {MTU} up"),
    ])?;
    Ok(process)
}

fn private_key(node: &Node) -> Result<String> {
    Ok(node.run("wg genkey")?.trim().to_owned())
}

fn public_key(node: &Node, private: &str) -> Result<String> {
    Ok(node.program("wg")?.arg("pubkey").input(format!("{private}\n")).output()?.trim().to_owned())
}

/// WireGuard's usual port.
pub(crate) const PORT: u16 = 51_820;

const DEVICE: &str = "wg0";

/// 1500 less what WireGuard adds over IPv6, as `wg-quick` has it.
const MTU: u16 = 1420;
