//! The client program: `vpn up` and `vpn down`.
//!
//! Up: lock the journal and undo what an earlier run left → resolve the server → open TUN and sockets → dial until
//! packets make the round trip → only then change the host. Whatever fails, everything before it is undone.

mod background;
mod dns;
mod host;
mod memory;
mod probe;
mod resolve;
mod runner;
mod status;
mod surroundings;

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use ipnetwork::IpNetwork;

use self::background::Voice;
use self::dns::Resolver;
use self::host::Host;
use self::memory::Memory;
pub use self::probe::{ProbeOptions, ProbeOutcome, probe};
use self::resolve::Names;
use self::runner::Runner;
use self::surroundings::Surroundings;
use crate::carrier::Mode;
use crate::config::{self, ClientConfig, ClientDns, Congestion};
use crate::control::{InstanceName, Paths, State, Tunnel};
use crate::crypto::{Refusal, SuiteSet};
use crate::failure::{ExitCode, Failure};
use crate::instance::{self, FlowReport, Instance, Rings};
use crate::io::{self, TunDevice};
use crate::kcp::CongestionKind;
use crate::netcfg::{self, ClientPlan};
use crate::session::{
    Client, ClientEvent, ClientSettings, ClientState, Connect, Ending, Reach, ServerAddress,
};

/// What `vpn up` was asked.
#[derive(Debug)]
pub struct UpOptions {
    /// The name of the tunnel.
    pub name: InstanceName,
    /// The file the configuration came from.
    pub file: PathBuf,
    /// The configuration, with the routes and excludes of the command line applied.
    pub config: ClientConfig,
    /// Whether to stay in the foreground.
    pub foreground: bool,
    /// Whether a command in the foreground waits for us to be up.
    pub relayed: bool,
}

/// What `vpn down` was asked.
#[derive(Debug)]
pub struct DownOptions {
    /// The name of the tunnel.
    pub name: InstanceName,
}

/// Brings a tunnel up.
///
/// # Errors
/// When it cannot be brought up; nothing is left behind then.
pub fn up(options: UpOptions) -> Result<(), Failure> {
    instance::check_rights()?;
    let paths = Paths::of(&options.name);
    if !options.foreground {
        return background::run(&options.name, &paths);
    }
    let mut voice = if options.relayed { background::detach()? } else { Voice::Terminal };
    instance::start_log();
    let result = instance::block_on(run(&options, &paths, &mut voice));
    result.inspect_err(|failure| voice.fail(failure))
}

/// Takes a tunnel down, or undoes what is left of it.
///
/// # Errors
/// When there is no such tunnel, or something cannot be undone.
pub fn down(options: DownOptions) -> Result<(), Failure> {
    instance::check_rights()?;
    let paths = Paths::of(&options.name);
    instance::block_on(instance::take_down(&options.name, &paths))
}

async fn run(options: &UpOptions, paths: &Paths, voice: &mut Voice) -> Result<(), Failure> {
    let mut instance = Instance::start(&options.name, paths).await?;
    let result = tunnel(options, paths, &mut instance, voice).await;
    let undone = instance.stop().await;
    result.and(undone)
}

/// From nothing to the end of the tunnel; what was changed on the host is in the instance's journal.
async fn tunnel(
    options: &UpOptions,
    paths: &Paths,
    instance: &mut Instance,
    voice: &mut Voice,
) -> Result<(), Failure> {
    let config = &options.config;
    let number = netcfg::free_number(config.tunnel.interface.as_str()).await;
    let number = number.map_err(|error| instance::host_failure(&error))?;
    let mut client = Client::new(settings(config), instance::seed()?, io::now());
    client.set_memory(Box::new(Rings::default()));
    voice
        .say(&format!("connecting to {}", config.server))
        .map_err(|error| Failure::of_system("cannot go on in the background", &error))?;
    let mut memory = Memory::load(paths);
    // Whom this host asks before the tunnel may change that.
    let resolver = Resolver::new(netcfg::host_resolvers(), number);
    let names = resolve(&client, config, resolver, &mut memory, instance).await?;
    let Some(names) = names else { return stopped(options) };
    let tun = instance.create_tun(config.tunnel.interface.as_str()).await?;
    let most_files = instance::raise_descriptor_limit();
    let mut runner = Runner::open(client, tun, &names.first_ports(), number, most_files)
        .map_err(|error| Failure::of_system("cannot open raw sockets", &error))?;
    let host = Host::watch(runner.tun.index(), number).await;
    let host = host.map_err(|error| instance::host_failure(&error))?;
    let mut surroundings = Surroundings::new(host, names, memory, number).await;
    runner.client.recall(surroundings.memory.modes().clone());
    runner.client.set_network(surroundings.network());
    runner.set_servers(surroundings.names.servers());
    let connected = connect(&mut runner, &mut surroundings, config, instance).await?;
    let Some(addresses) = connected else { return stopped(options) };
    surroundings.on_carried(runner.client.remote());
    let plan = plan(config, &runner.tun, addresses, number);
    let notes = surroundings.host.apply(&plan, instance.journal()).await;
    let mut notes = notes.map_err(|error| instance::host_failure(&error))?;
    notes.extend_from_slice(surroundings.names.notes());
    introduce(options, &plan, &runner, voice)
        .and_then(|()| notes.iter().try_for_each(|note| voice.say(note)))
        .and_then(|()| voice.up())
        .map_err(|error| Failure::of_system("cannot go on in the background", &error))?;
    let result = carry(&mut runner, &mut surroundings, instance, options).await;
    leave(&mut runner).await;
    result
}

/// Told to end before the tunnel was up: all is well, but not for a command that waits for the tunnel.
fn stopped(options: &UpOptions) -> Result<(), Failure> {
    if options.relayed {
        return Err(Failure::new(ExitCode::Failure, "stopped before the tunnel was up"));
    }
    Ok(())
}

/// The servers' addresses; `None` if told to end before they were known.
async fn resolve(
    client: &Client,
    config: &ClientConfig,
    resolver: Resolver,
    memory: &mut Memory,
    instance: &mut Instance,
) -> Result<Option<Names>, Failure> {
    let mut found = pin!(Names::resolve(&config.server, resolver, memory));
    loop {
        tokio::select! {
            found = &mut found => return found.map(Some),
            order = instance.order() => {
                let status = |instance: &Instance, flows: bool| {
                    let interface = config.tunnel.interface.as_str();
                    let tunnel =
                        status::tunnel(client, Default::default(), 0, interface, None, config, instance);
                    (tunnel, flows.then(|| FlowReport::of_client(client, io::now())))
                };
                if instance.obey(order, status).is_break() {
                    return Ok(None);
                }
            }
        }
    }
}

fn settings(config: &ClientConfig) -> ClientSettings {
    ClientSettings {
        private_key: config.private_key.clone(),
        server_key: config.server_key,
        preshared_key: config.preshared_key.clone(),
        mode: mode(config.carrier.mode),
        suites: SuiteSet::detect(),
        congestion: congestion(config.kcp.congestion),
        connect: connect_answer(config.tunnel.connect),
        inbound: config.inbound.allow.iter().map(|allowed| allowed.ports().range()).collect(),
        session_buffer: config.limits.session_buffer.bytes(),
        process_buffer: config.limits.process_buffer.bytes(),
        dead_after: config.carrier.dead_after,
    }
}

fn mode(choice: config::Mode) -> Option<Mode> {
    match choice {
        config::Mode::Auto => None,
        config::Mode::HandshakeAdvance => Some(Mode::HandshakeAdvance),
        config::Mode::HandshakeFixed => Some(Mode::HandshakeFixed),
        config::Mode::BareAdvance => Some(Mode::BareAdvance),
        config::Mode::BareFixed => Some(Mode::BareFixed),
    }
}

fn connect_answer(choice: config::Connect) -> Connect {
    match choice {
        config::Connect::Faithful => Connect::Faithful,
        config::Connect::Fast => Connect::Fast,
    }
}

fn congestion(choice: Congestion) -> CongestionKind {
    match choice {
        Congestion::Bbr => CongestionKind::Bbr,
        Congestion::Loss => CongestionKind::Loss,
        Congestion::None => CongestionKind::None,
    }
}

/// Waits until packets make the round trip; returns our addresses, or `None` if told to end before.
async fn connect(
    runner: &mut Runner,
    surroundings: &mut Surroundings,
    config: &ClientConfig,
    instance: &mut Instance,
) -> Result<Option<Vec<IpNetwork>>, Failure> {
    let deadline = io::now() + FIRST_UP;
    // What a name was last may be no more.
    surroundings.names.on_outage();
    loop {
        tokio::task::consume_budget().await;
        let mut up = None;
        for event in flush(runner)? {
            report(&event);
            // What stands behind the good news may take it back.
            if let ClientEvent::Ended(ending) = event {
                return Err(ended(ending));
            }
            if let ClientEvent::Up { addresses, .. } = event {
                up = Some(addresses);
            }
        }
        if up.is_some() {
            return Ok(up);
        }
        let left = deadline.saturating_duration_since(io::now());
        if left.is_zero() {
            return Err(unreachable(runner, &surroundings.names.distinct()));
        }
        tokio::select! {
            result = runner.step() => result.map_err(|error| lost_sockets(&error))?,
            () = tokio::time::sleep(left) => {}
            news = surroundings.next() => runner.on_news(news, surroundings),
            order = instance.order() => {
                let status = |instance: &Instance, flows| describe(runner, surroundings, config, instance, flows);
                if instance.obey(order, status).is_break() {
                    return Ok(None);
                }
            }
        }
    }
}

/// Carries packets until told to stop. A session that ended for good ends a tunnel in the foreground; one in the
/// background keeps its routes, so that nothing leaves outside it unnoticed, and `status` says why.
async fn carry(
    runner: &mut Runner,
    surroundings: &mut Surroundings,
    instance: &mut Instance,
    options: &UpOptions,
) -> Result<(), Failure> {
    let config = &options.config;
    loop {
        // Sockets that always have something never let tokio look at signals and commands.
        tokio::task::consume_budget().await;
        for event in flush(runner)? {
            report(&event);
            surroundings.on_event(&event, runner.client.remote());
            if let ClientEvent::Ended(ending) = event {
                if !options.relayed {
                    return Err(ended(ending));
                }
                instance.set_ending(state_of(ending), ended(ending).message);
            }
        }
        surroundings.memory.learn_modes(runner.client.memory());
        tokio::select! {
            result = runner.step() => result.map_err(|error| lost_sockets(&error))?,
            news = surroundings.next() => runner.on_news(news, surroundings),
            order = instance.order() => {
                let status = |instance: &Instance, flows| describe(runner, surroundings, config, instance, flows);
                if instance.obey(order, status).is_break() {
                    return Ok(());
                }
            }
        }
    }
}

fn describe(
    runner: &mut Runner,
    surroundings: &Surroundings,
    config: &ClientConfig,
    instance: &Instance,
    flows: bool,
) -> (Tunnel, Option<FlowReport>) {
    let wire = (runner.sent(), runner.received());
    let (name, mark) = (runner.tun.name(), Some(runner.mark()));
    let no_socket = runner.targets.refused();
    let tunnel = status::tunnel(&runner.client, wire, no_socket, name, mark, config, instance);
    let network = Some(surroundings.network()).filter(|network| !network.is_empty());
    let flows = flows.then(|| FlowReport::of_client(&runner.client, io::now()));
    (Tunnel { network: network.map(str::to_owned), ..tunnel }, flows)
}

/// Tells the server that we leave, and acknowledges its FIN: once the port is free, this host's kernel would answer that with a RST.
async fn leave(runner: &mut Runner) {
    let is_heard = runner.client.status(io::now()).state == ClientState::Up;
    runner.client.close(io::now());
    let end = io::now() + FAREWELL;
    loop {
        if let Err(failure) = flush(runner) {
            tracing::debug!(%failure, "the server could not be told that we leave");
            return;
        }
        let left = end.saturating_duration_since(io::now());
        if !is_heard || runner.client.has_left() || left.is_zero() {
            return;
        }
        tokio::select! {
            result = runner.step() => if result.is_err() { return },
            () = tokio::time::sleep(left) => {}
        }
    }
}

fn flush(runner: &mut Runner) -> Result<Vec<ClientEvent>, Failure> {
    let mut events = Vec::new();
    runner.flush(&mut events).map_err(|error| lost_sockets(&error))?;
    Ok(events)
}

fn plan(config: &ClientConfig, tun: &TunDevice, addresses: Vec<IpNetwork>, number: u32) -> ClientPlan {
    ClientPlan {
        interface: tun.name().to_owned(),
        index: tun.index(),
        addresses,
        routes: config.tunnel.routes.clone(),
        exclude: config.tunnel.exclude.clone(),
        lan: config.tunnel.lan,
        mark: number,
        table: number,
    }
}

/// What was set up, in a few lines.
fn introduce(options: &UpOptions, plan: &ClientPlan, runner: &Runner, voice: &Voice) -> std::io::Result<()> {
    let list =
        |networks: &[IpNetwork]| networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let server = &options.config.server;
    let rtt = runner.client.status(io::now()).carriers.first().and_then(|carrier| carrier.rtt);
    let rtt = rtt.map_or_else(String::new, |rtt| format!(", round trip {} ms", rtt.as_millis()));
    voice.say(&format!("{}: up, {} through {server}{rtt}", plan.interface, list(&plan.addresses)))?;
    voice.say(&format!("{}: routes {}", plan.interface, list(&plan.routes)))?;
    if !plan.exclude.is_empty() {
        voice.say(&format!("{}: outside {}", plan.interface, list(&plan.exclude)))?;
    }
    if options.config.tunnel.dns == ClientDns::Server {
        voice.say("names: left to the resolver of this host")?;
    }
    Ok(())
}

fn report(event: &ClientEvent) {
    match event {
        ClientEvent::Suspect => tracing::info!("the carrier does not answer: opening another beside it"),
        ClientEvent::Recovered => tracing::info!("packets make the round trip again"),
        ClientEvent::Broken(violation) => tracing::info!(%violation, "the server broke the protocol"),
        ClientEvent::Closed(code) => tracing::info!("the session was {code}"),
        ClientEvent::Restarted => tracing::info!("every flow was reset: the other end no longer knows them"),
        ClientEvent::Ended(ending) => tracing::info!("the session is over: {}", ended(*ending)),
        ClientEvent::Up { .. } | ClientEvent::Dial { .. } | ClientEvent::Retired(_) => {}
    }
}

fn state_of(ending: Ending) -> State {
    match ending {
        Ending::Replaced => State::Replaced,
        Ending::Refused(_) | Ending::PresharedKeyDiffers | Ending::Readdressed => State::Failed,
    }
}

fn ended(ending: Ending) -> Failure {
    let message = match ending {
        Ending::Refused(Refusal::UnknownKey) => {
            "the server does not know this key: add its public key to the server's peers".to_owned()
        }
        Ending::Refused(Refusal::Version) => {
            "refused version: the server speaks another one, install the same on both ends".to_owned()
        }
        Ending::Refused(reason) => format!("the server refuses: {}", reason.label()),
        Ending::PresharedKeyDiffers => {
            "preshared_key differs from the server's: give both ends the same one".to_owned()
        }
        Ending::Readdressed => {
            "the server now gives this client other addresses: take the tunnel down and up again".to_owned()
        }
        Ending::Replaced => "replaced: another host or process came up with the same key".to_owned(),
    };
    Failure::new(ExitCode::Refused, message)
}

fn unreachable(runner: &Runner, servers: &[ServerAddress]) -> Failure {
    let remotes: Vec<_> = servers.iter().map(ToString::to_string).collect();
    let remotes = remotes.join(", ");
    let message = match runner.client.reach() {
        Reach::PresharedKeyDiffers => return ended(Ending::PresharedKeyDiffers),
        Reach::None => format!("no route to {remotes}: check the network of this host"),
        Reach::SynSent => format!("no answer to SYN from {remotes}: check `server` and the way to it"),
        Reach::BareSent => {
            format!(
                "no answer from {remotes}, asked without a SYN: check `server`, server_key, and whether the way lets that through"
            )
        }
        Reach::SynReset => format!("{remotes} answers with RST: nothing listens there, check `server`"),
        Reach::SynAcked => {
            format!("{remotes} answers TCP but not our handshake: check that server_key is its public key")
        }
    };
    Failure::new(ExitCode::Unreachable, message)
}

fn lost_sockets(error: &std::io::Error) -> Failure {
    Failure::of_system("the raw sockets or the interface failed", error)
}

/// Our choice: longer than most round trips, and nothing for whoever waits for `down`.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long a first `up` tries.
const FIRST_UP: Duration = Duration::from_secs(20);
