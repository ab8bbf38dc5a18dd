//! OpenVPN over UDP: TLS with certificates pinned by fingerprint, AES-256-GCM, `keepalive 10 60` as its manual's examples have it;
//! MTU 1500 and its own choice of `mssfix`, by which the outer packets are at most 1492 bytes; socket buffers for long lines. Its
//! kernel part is used if it is there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use netns_tests::addresses::SERVER;
use netns_tests::node::Node;
use netns_tests::process::Process;
use netns_tests::topology::Topology;

use super::{START_LIMIT, directory, route_through, tunnel_address};

/// Starts both ends.
pub(crate) fn start(topology: &Topology) -> Result<[Process; 2]> {
    let directory = directory(topology, "openvpn")?;
    let (client, server) = (topology.client(), &topology.server);
    let client_keys = Certificate::make(client, &directory, "client")?;
    let server_keys = Certificate::make(server, &directory, "server")?;
    let [near, far] = [tunnel_address(2), tunnel_address(1)];
    let server_process = common(server, &server_keys, &client_keys)?
        .words(&format!("--tls-server --dh none --local {SERVER} --port {PORT} --ifconfig {far} {near}"))
        .start()?;
    let mut client_process = common(client, &client_keys, &server_keys)?
        .words(&format!("--tls-client --nobind --remote {SERVER} {PORT} --ifconfig {near} {far}"))
        .start()?;
    client_process.wait_for_text("Initialization Sequence Completed", START_LIMIT)?;
    route_through(topology, DEVICE, &format!("{near}/32"))?;
    Ok([server_process, client_process])
}

fn common(node: &Node, own: &Certificate, peer: &Certificate) -> Result<netns_tests::process::Program> {
    let words = format!(
        "--dev {DEVICE} --dev-type tun --proto udp4 --data-ciphers AES-256-GCM --cipher AES-256-GCM \
         --keepalive 10 60 --persist-tun --txqueuelen 1000 --sndbuf {BUFFER} --rcvbuf {BUFFER} --verb 3"
    );
    let openvpn = node.program("openvpn")?.words(&words);
    Ok(openvpn
        .arg("--cert")
        .arg(&own.certificate)
        .arg("--key")
        .arg(&own.key)
        .arg("--peer-fingerprint")
        .arg(&peer.fingerprint))
}

/// A self-signed certificate, its key, and the fingerprint that the other end is told.
#[derive(Debug)]
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    fingerprint: String,
}

impl Certificate {
    fn make(node: &Node, directory: &Path, name: &str) -> Result<Self> {
        let certificate = directory.join(format!("{name}.crt"));
        let key = directory.join(format!("{name}.key"));
        node.program("openssl")?
            .words("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj")
            .arg(format!("/CN={name}"))
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()?;
        let shown = node
            .program("openssl")?
            .words("x509 -noout -fingerprint -sha256 -in")
            .arg(&certificate)
            .output()?;
        let (_, fingerprint) = shown.trim().split_once('=').context("openssl showed no fingerprint")?;
        Ok(Self { certificate, key, fingerprint: fingerprint.to_owned() })
    }
}

/// OpenVPN's usual port.
pub(crate) const PORT: u16 = 1194;

const DEVICE: &str = "ovpn0";

/// Of the UDP socket. With the system's default, bursts of the inner TCP are lost there and a long line stays half empty.
const BUFFER: u32 = 1 << 20;
