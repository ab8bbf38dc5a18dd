//! The server program: `vpn serve`.

mod memory;
mod runner;
mod status;

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use self::memory::Memory;
use self::runner::Runner;
use crate::config::{Peer, ServerConfig};
use crate::control::{InstanceName, Paths};
use crate::crypto::SuiteSet;
use crate::egress::EgressPolicy;
use crate::failure::Failure;
use crate::instance::{self, FlowReport, Instance, Rings};
use crate::io::{self, PortGuard};
use crate::kcp::CongestionKind;
use crate::netcfg::{self, ServerPlan, Watch};
use crate::session::{PeerSettings, Server, ServerSettings};

/// What `vpn serve` was asked.
#[derive(Debug)]
pub struct ServeOptions {
    /// The name of the instance.
    pub name: InstanceName,
    /// The configuration.
    pub config: ServerConfig,
}

/// Runs a server until it is told to end.
///
/// # Errors
/// When it cannot start or go on; nothing is left behind then.
pub fn serve(options: ServeOptions) -> Result<(), Failure> {
    instance::check_rights()?;
    instance::start_log();
    let most_files = instance::raise_descriptor_limit();
    let paths = Paths::of(&options.name);
    instance::block_on(run(&options, &paths, most_files))
}

async fn run(options: &ServeOptions, paths: &Paths, most_files: usize) -> Result<(), Failure> {
    let mut instance = Instance::start(&options.name, paths).await?;
    let result = tunnel(&options.config, paths, most_files, &mut instance).await;
    let undone = instance.stop().await;
    result.and(undone)
}

async fn tunnel(
    config: &ServerConfig,
    paths: &Paths,
    most_files: usize,
    instance: &mut Instance,
) -> Result<(), Failure> {
    let mut runner = open(config, most_files, instance).await?;
    let number = netcfg::free_number(runner.tun.name()).await;
    let plan = ServerPlan {
        interface: runner.tun.name().to_owned(),
        index: runner.tun.index(),
        addresses: config.tunnel.addresses.clone(),
        masquerade: config.tunnel.masquerade,
        mark: number.map_err(|error| instance::host_failure(&error))?,
        listen: config.listen.iter().map(|listen| (listen.address, listen.ports.range())).collect(),
    };
    let notes = netcfg::apply_server(&plan, instance.journal()).await;
    for note in notes.map_err(|error| instance::host_failure(&error))? {
        tracing::info!("{note}");
    }
    runner.server.set_own_addresses(io::local_networks());
    let watch = Watch::open().await;
    let mut watch = watch.map_err(|error| instance::host_failure(&error))?;
    for listen in &config.listen {
        tracing::info!("listening on {listen}");
    }
    let mut memory = Memory::load(paths, &mut runner.server, io::now());
    let result = carry(&mut runner, &mut memory, &mut watch, config, instance).await;
    runner.close();
    memory.finish(&runner.server).await;
    result
}

async fn open(config: &ServerConfig, most_files: usize, instance: &Instance) -> Result<Runner, Failure> {
    let guards = config.listen.iter().flat_map(|listen| listen.addresses()).map(|address| {
        PortGuard::reserve(address)
            .map_err(|error| Failure::of_system(format!("cannot listen on {address}"), &error))
    });
    let guards = guards.collect::<Result<Vec<_>, _>>()?;
    let tun = instance.create_tun(config.tunnel.interface.as_str()).await?;
    let mut server = Server::new(settings(config), instance::seed()?, io::now());
    server.set_memory(Box::new(Rings::default()));
    Runner::open(server, tun, config.listen.clone(), guards, most_files)
        .map_err(|error| Failure::of_system("cannot open raw sockets", &error))
}

fn settings(config: &ServerConfig) -> ServerSettings {
    ServerSettings {
        private_key: config.private_key.clone(),
        suites: SuiteSet::detect(),
        congestion: CongestionKind::default(),
        peers: config.peers.iter().map(|peer| peer_settings(peer, &config.tunnel.addresses)).collect(),
        addresses: config.tunnel.addresses.iter().map(IpNetwork::ip).collect(),
        dns: resolvers(config),
        egress: EgressPolicy::new(config.egress.allow.clone(), config.egress.deny.clone(), []),
        session_buffer: config.limits.session_buffer.bytes(),
        process_buffer: config.limits.process_buffer.bytes(),
    }
}

/// Each address gets the prefix length of the tunnel network it is in.
fn peer_settings(peer: &Peer, networks: &[IpNetwork]) -> PeerSettings {
    let prefix = |address: IpAddr| {
        let network = networks.iter().find(|network| network.contains(address));
        network.map_or(if address.is_ipv4() { 32 } else { 128 }, IpNetwork::prefix)
    };
    PeerSettings {
        name: peer.name.clone(),
        public_key: peer.public_key,
        preshared_key: peer.preshared_key.clone(),
        addresses: peer
            .addresses
            .iter()
            .filter_map(|&address| IpNetwork::new(address, prefix(address)).ok())
            .collect(),
    }
}

/// What clients are told: the configured resolvers, or those of this host that others can reach.
fn resolvers(config: &ServerConfig) -> Vec<IpAddr> {
    if let Some(dns) = &config.tunnel.dns {
        return dns.clone();
    }
    let mut found = netcfg::host_resolvers();
    found.retain(|address| !address.is_loopback());
    if found.is_empty() {
        tracing::info!("this host has no resolver but itself: clients are told of none, set tunnel.dns");
    }
    found
}

async fn carry(
    runner: &mut Runner,
    memory: &mut Memory,
    watch: &mut Watch,
    config: &ServerConfig,
    instance: &mut Instance,
) -> Result<(), Failure> {
    let lost = |error: &std::io::Error| Failure::of_system("the raw sockets or the interface failed", error);
    loop {
        // Sockets that always have something never let tokio look at signals and commands.
        tokio::task::consume_budget().await;
        runner.flush().map_err(|error| lost(&error))?;
        memory.save(&runner.server, io::now());
        tokio::select! {
            result = runner.step() => result.map_err(|error| lost(&error))?,
            _ = watch.next() => runner.refresh_addresses(),
            order = instance.order() => {
                let status = |instance: &Instance, flows: bool| {
                    let tunnel = status::tunnel(runner, config, instance);
                    (tunnel, flows.then(|| FlowReport::of_server(&runner.server, io::now())))
                };
                if instance.obey(order, status).is_break() {
                    return Ok(());
                }
            }
        }
    }
}
