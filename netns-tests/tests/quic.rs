//! HTTP/3 through the tunnel: QUIC is UDP to it, and finds by itself how large its packets may be.
//!
//! ```text
//!   client ──[ 50 Mbit/s, 40 ms, 1 % loss ]── router ── server ── target
//!     h3 over quinn ════════════════════════════════════ likewise
//! ```

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3_quinn::OpenStreams;
use http::{Method, Request, Response};
use netns_tests::addresses::{TARGET, TARGET_V6};
use netns_tests::emulator::Profile;
use netns_tests::node::Node;
use netns_tests::sockets;
use netns_tests::topology::Setup;
use netns_tests::tunnel::tunnel_scenario;
use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::rustls::{self, RootCertStore, pki_types::PrivateKeyDer};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig,
};

const LIMIT: Duration = Duration::from_secs(60);
const PORT: u16 = 443;
const SIZE: usize = 20 << 20;

#[test]
fn files_come_and_go_by_http3_and_its_packets_grow_to_what_the_tunnel_carries() {
    let name = "files_come_and_go_by_http3_and_its_packets_grow_to_what_the_tunnel_carries";
    let line = Profile::long_line(50_000_000, Duration::from_millis(40), 0.01);
    tunnel_scenario(name, Setup::link(line), 1, |tunnel| {
        for (host, headers) in [(IpAddr::from(TARGET), 28), (IpAddr::from(TARGET_V6), 48)] {
            let certified = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
            let endpoint = Side::serve(&tunnel.topology.target, host, &certified)?;
            let client = Side::ask(tunnel.client(), host, &certified)?;
            let (there, here) = (endpoint.ended()?, client.ended()?);
            for (whose, packets) in [("the app's", here), ("the target's", there)] {
                let largest = packets.mtu + headers;
                ensure!(LARGEST.contains(&largest), "{whose} packets to {host} grew to {largest} bytes");
                ensure!(
                    packets.black_holes == 0,
                    "{host}: {whose} packets vanished {} times",
                    packets.black_holes
                );
            }
        }
        Ok(())
    });
}

/// One end, in a thread with a runtime of its own.
struct Side(std::thread::JoinHandle<Result<Packets>>);

/// What an end found out about the path.
#[derive(Debug)]
struct Packets {
    /// UDP payload of the largest, in bytes.
    mtu: u16,
    /// How often large ones stopped arriving.
    black_holes: u64,
}

impl Packets {
    fn of(connection: &Connection) -> Self {
        let path = connection.stats().path;
        Self { mtu: path.current_mtu, black_holes: path.black_holes_detected }
    }
}

impl Side {
    /// A server on `node` that answers at `host`, until its client has gone.
    fn serve(node: &Node, host: IpAddr, certified: &Certified) -> Result<Self> {
        let key =
            PrivateKeyDer::try_from(certified.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config.transport_config(transport());
        let socket = socket(node, SocketAddr::new(host, PORT))?;
        Ok(Self::run(move || async move {
            let endpoint =
                Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))?;
            let connection = endpoint.accept().await.context("nobody asks")?.await?;
            serve(connection.clone()).await?;
            Ok(Packets::of(&connection))
        }))
    }

    /// A client on `node` that fetches a file and puts one.
    fn ask(node: &Node, host: IpAddr, certified: &Certified) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(certified.cert.der().clone())?;
        let mut tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(transport());
        let any = if host.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = socket(node, any.parse()?)?;
        Ok(Self::run(move || async move {
            let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
            let connection = endpoint.connect_with(config, SocketAddr::new(host, PORT), NAME)?.await?;
            ask(connection.clone()).await?;
            let packets = Packets::of(&connection);
            endpoint.wait_idle().await;
            Ok(packets)
        }))
    }

    fn run<F: Future<Output = Result<Packets>>>(begin: impl FnOnce() -> F + Send + 'static) -> Self {
        Self(std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { tokio::time::timeout(LIMIT, begin()).await.context("took too long")? })
        }))
    }

    fn ended(self) -> Result<Packets> {
        self.0.join().unwrap_or_else(|_| bail!("a thread panicked"))
    }
}

/// Answers a GET with the file, and a PUT of the file with 200.
async fn serve(connection: Connection) -> Result<()> {
    let mut requests = h3::server::Connection::<_, Bytes>::new(h3_quinn::Connection::new(connection)).await?;
    while let Ok(Some(resolver)) = requests.accept().await {
        let (request, mut stream) = resolver.resolve_request().await?;
        if request.method() == Method::GET {
            stream.send_response(Response::new(())).await?;
            for at in (0..SIZE).step_by(CHUNK) {
                stream.send_data(file(at, CHUNK)).await?;
            }
        } else {
            let mut read = 0;
            while let Some(piece) = stream.recv_data().await? {
                check(piece, &mut read)?;
            }
            ensure!(read == SIZE, "{read} bytes were put");
            stream.send_response(Response::new(())).await?;
        }
        stream.finish().await?;
    }
    Ok(())
}

async fn ask(connection: Connection) -> Result<()> {
    let (mut driver, mut requests) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
    let driving =
        tokio::spawn(async move { std::future::poll_fn(|context| driver.poll_close(context)).await });
    fetch(&mut requests).await.context("fetching")?;
    put(&mut requests).await.context("putting")?;
    // The connection is closed with the last of these.
    drop(requests);
    driving.await?;
    Ok(())
}

async fn fetch(requests: &mut SendRequest<OpenStreams, Bytes>) -> Result<()> {
    let mut stream = requests.send_request(request(Method::GET)?).await?;
    stream.finish().await?;
    ensure!(stream.recv_response().await?.status().is_success());
    let mut read = 0;
    while let Some(piece) = stream.recv_data().await? {
        check(piece, &mut read)?;
    }
    ensure!(read == SIZE, "{read} bytes were fetched");
    Ok(())
}

async fn put(requests: &mut SendRequest<OpenStreams, Bytes>) -> Result<()> {
    let mut stream = requests.send_request(request(Method::PUT)?).await?;
    for at in (0..SIZE).step_by(CHUNK) {
        stream.send_data(file(at, CHUNK)).await?;
    }
    stream.finish().await?;
    ensure!(stream.recv_response().await?.status().is_success());
    Ok(())
}

fn request(method: Method) -> Result<Request<()>> {
    Ok(Request::builder().method(method).uri(format!("https://{NAME}/file")).body(())?)
}

/// A part of the file: bytes that say where they are.
fn file(at: usize, length: usize) -> Bytes {
    (at..at + length).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 16).to_le_bytes()[0]).collect()
}

/// Compares the next piece with the file.
fn check(mut piece: impl Buf, read: &mut usize) -> Result<()> {
    let bytes = piece.copy_to_bytes(piece.remaining());
    ensure!(bytes == file(*read, bytes.len()), "other bytes behind {read}");
    *read += bytes.len();
    Ok(())
}

fn socket(node: &Node, address: SocketAddr) -> Result<UdpSocket> {
    sockets::on(node, || Ok(UdpSocket::bind(address)?))
}

/// What is lost on the line is QUIC's to repair: with its default, cubic, that takes a minute.
fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport.congestion_controller_factory(Arc::new(BbrConfig::default()));
    Arc::new(transport)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

type Certified = rcgen::CertifiedKey<rcgen::KeyPair>;

const NAME: &str = "target.test";
const ALPN: &[u8] = b"h3";
const CHUNK: usize = 64 << 10;

/// What QUIC's probes find: more than the 1200 bytes it begins with, at most what one packet of the tunnel holds over a path of 1500
/// bytes.
const LARGEST: RangeInclusive<u16> = 1300..=1433;
