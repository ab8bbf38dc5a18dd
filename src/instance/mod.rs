//! What a running client and a running server have in common: one process that owns the run-time folder, the undo
//! journal, the control socket and the signals; and where flows end that the other end began.

mod flow_report;
mod remembered;
mod report;
mod rings;
mod signals;
mod targets;

use std::fs;
use std::future::Future;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;

pub(crate) use self::flow_report::FlowReport;
pub(crate) use self::remembered::{Disk, Remembered, replace};
pub(crate) use self::report::{
    carrier_report, flow_drops, migration_report, mode_report, session_drops, session_report, sum_drops,
    wire_drops,
};
pub(crate) use self::rings::Rings;
pub(crate) use self::signals::EndSignals;
pub(crate) use self::targets::{Source, Targets};
use crate::control::{
    self, ClientError, InstanceName, Listener, Paths, Request, Responder, Response, State, Tunnel,
};
use crate::failure::{ExitCode, Failure};
use crate::io::{self, TunDevice};
use crate::netcfg::{Journal, Opened};

/// A live instance: nobody else is up under this name, and what an earlier one left is undone.
#[derive(Debug)]
pub(crate) struct Instance {
    name: InstanceName,
    paths: Paths,
    journal: Journal,
    listener: Listener,
    signals: EndSignals,
    /// An earlier run did not end by itself.
    was_killed: bool,
    started: Instant,
    ending: Option<(State, String)>,
    waiting: Option<Responder>,
}

/// What comes from outside the tunnel.
#[derive(Debug)]
pub(crate) enum Order {
    /// SIGTERM, SIGINT or SIGHUP.
    Stop,
    /// A command on the control socket.
    Request(Request, Responder),
}

impl Instance {
    /// Takes the name, and undoes what is left of an earlier run.
    pub(crate) async fn start(name: &InstanceName, paths: &Paths) -> Result<Self, Failure> {
        let signals = EndSignals::catch()?;
        let (journal, was_killed) = open_journal(name, paths, LOCK_PATIENCE).await?;
        let socket = paths.control_socket();
        let listener = Listener::bind(&socket).map_err(|error| {
            if error.kind() == ErrorKind::AddrInUse {
                return already_up(name);
            }
            Failure::of_system(format!("cannot listen at {}", socket.display()), &error)
        })?;
        Ok(Self {
            name: name.clone(),
            paths: paths.clone(),
            journal,
            listener,
            signals,
            was_killed,
            started: io::now(),
            ending: None,
            waiting: None,
        })
    }

    /// The next thing from outside. Cancel-safe.
    pub(crate) async fn order(&mut self) -> Order {
        tokio::select! {
            (request, responder) = self.listener.next() => Order::Request(request, responder),
            () = self.signals.next() => Order::Stop,
        }
    }

    /// Does what an order says, and tells whether to go on; `status` describes the tunnel, and its flows if it is told so. Who
    /// asked for the end is answered when everything is undone.
    pub(crate) fn obey(
        &mut self,
        order: Order,
        status: impl FnOnce(&Self, bool) -> (Tunnel, Option<FlowReport>),
    ) -> ControlFlow<()> {
        match order {
            Order::Stop => ControlFlow::Break(()),
            Order::Request(Request::Down, responder) => {
                self.waiting = Some(responder);
                ControlFlow::Break(())
            }
            Order::Request(Request::Status { flows }, responder) => {
                let (tunnel, flows) = status(self, flows);
                let mut tunnel = Box::new(tunnel);
                match flows {
                    None => responder.respond(Response::Status { tunnel }),
                    Some(flows) => responder.respond_with(move || {
                        flows.add_to(&mut tunnel.flows);
                        Response::Status { tunnel }
                    }),
                }
                ControlFlow::Continue(())
            }
        }
    }

    pub(crate) fn name(&self) -> &InstanceName {
        &self.name
    }

    /// Makes the tunnel's device. That of an earlier run that was killed goes a moment after its process.
    pub(crate) async fn create_tun(&self, interface: &str) -> Result<TunDevice, Failure> {
        let deadline = io::now() + LOCK_PATIENCE;
        loop {
            match TunDevice::create(interface) {
                Ok(tun) => return Ok(tun),
                Err(error)
                    if error.kind() == ErrorKind::AlreadyExists
                        && self.was_killed
                        && io::now() < deadline =>
                {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Err(error) => return Err(tun_failure(&error)),
            }
        }
    }

    /// Where changes to the host are written down before they are made.
    pub(crate) fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    pub(crate) fn age(&self) -> Duration {
        io::now().saturating_duration_since(self.started)
    }

    /// The session is over for good; `status` goes on to say why.
    pub(crate) fn set_ending(&mut self, state: State, reason: String) {
        self.ending = Some((state, reason));
    }

    pub(crate) fn ending(&self) -> Option<&(State, String)> {
        self.ending.as_ref()
    }

    /// Undoes every change to the host and leaves no file behind.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let Self { paths, journal, listener, waiting, .. } = self;
        // As long as we are asked here, nobody else makes a file in the folder.
        remove(&paths.log());
        drop(listener);
        let undone = close(journal, &paths).await;
        if let Some(responder) = waiting {
            let response = match &undone {
                Ok(()) => Response::Done,
                Err(failure) => Response::Error { message: failure.message.clone() },
            };
            responder.respond_and_wait(response).await;
        }
        undone
    }
}

/// Whether the name is free, without touching anything: the log of a live instance stays as it is.
pub(crate) fn check_not_up(name: &InstanceName, paths: &Paths) -> Result<(), Failure> {
    match ask(&paths.control_socket(), Request::Status { flows: false }) {
        Ok(_) => Err(already_up(name)),
        Err(_) => Ok(()),
    }
}

/// `down`: tells the instance to end; without one, undoes what it left.
pub(crate) async fn take_down(name: &InstanceName, paths: &Paths) -> Result<(), Failure> {
    let deadline = io::now() + ANSWER_WITHIN;
    loop {
        match try_take_down(name, paths).await {
            // It held the name but did not listen yet: it is starting.
            Err(failure) if failure == already_up(name) && io::now() < deadline => {}
            result => return result,
        }
    }
}

async fn try_take_down(name: &InstanceName, paths: &Paths) -> Result<(), Failure> {
    let socket = paths.control_socket();
    match ask(&socket, Request::Status { flows: false }) {
        Ok(Response::Status { tunnel }) if tunnel.name == name.as_str() => {
            return match ask(&socket, Request::Down) {
                Ok(Response::Error { message }) => Err(Failure::new(ExitCode::Failure, message)),
                Ok(_) => Ok(()),
                Err(ClientError::Ended) => undo_what_is_left(name, paths).await.map(|_| ()),
                Err(error) => {
                    Err(Failure::new(ExitCode::Failure, format!("{name} does not answer: {error}")))
                }
            };
        }
        Ok(_) => return Err(no_tunnel(name)),
        Err(ClientError::NotUp | ClientError::Ended) => {}
        Err(error) => {
            return Err(Failure::new(ExitCode::Failure, format!("{name} does not answer: {error}")));
        }
    }
    if undo_what_is_left(name, paths).await? { Ok(()) } else { Err(no_tunnel(name)) }
}

/// Undoes what a process left that ended, or is about to; whether there was anything.
async fn undo_what_is_left(name: &InstanceName, paths: &Paths) -> Result<bool, Failure> {
    if !paths.journal().exists() {
        remove_run_dir(paths);
        return Ok(false);
    }
    let (journal, _) = open_journal(name, paths, LOCK_PATIENCE).await?;
    remove(&paths.log());
    remove(&paths.control_socket());
    close(journal, paths).await?;
    Ok(true)
}

/// The last step, after which the name is free: everything else of ours is gone before.
async fn close(journal: Journal, paths: &Paths) -> Result<(), Failure> {
    let undone = journal.close().await.map_err(|error| host_failure(&error));
    remove_run_dir(paths);
    undone
}

fn ask(socket: &Path, request: Request) -> Result<Response, ClientError> {
    control::request(socket, request, ANSWER_WITHIN)
}

/// The journal, with whatever an earlier run left undone; says whether there was such a run.
async fn open_journal(
    name: &InstanceName,
    paths: &Paths,
    patience: Duration,
) -> Result<(Journal, bool), Failure> {
    let was_there = paths.journal().exists();
    let mut opened = Journal::open_within(&paths.journal(), patience).await;
    for _ in 0..FOLDER_ATTEMPTS {
        if !opened.as_ref().is_err_and(|error| error.downcast_ref().is_some_and(is_folder_gone)) {
            break;
        }
        opened = Journal::open_within(&paths.journal(), patience).await;
    }
    match opened.map_err(|error| host_failure(&error))? {
        Opened::Locked { elsewhere: true } => {
            let message = format!("{name} is already up in another network namespace: take it down there");
            Err(Failure::new(ExitCode::Failure, message))
        }
        Opened::Locked { elsewhere: false } => Err(already_up(name)),
        Opened::Ours(mut journal) => {
            journal.undo().await.map_err(|error| host_failure(&error))?;
            Ok((journal, was_there))
        }
    }
}

/// The text of such an error says what failed and what to do.
fn tun_failure(error: &std::io::Error) -> Failure {
    let forbidden = error.kind() == ErrorKind::PermissionDenied;
    let class = if forbidden { ExitCode::Rights } else { ExitCode::Failure };
    Failure::new(class, error.to_string())
}

/// A socket for every flow: as many as the system lets us have; says how many files may be open.
pub(crate) fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit on open files stays");
    }
    let most = getrlimit(Resource::Nofile).current;
    most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
}

/// Whether the rights to change the host are there.
pub(crate) fn check_rights() -> Result<(), Failure> {
    match io::missing_rights() {
        None => Ok(()),
        Some(right) => Err(Failure::new(ExitCode::Rights, format!("needs {right}: run with sudo"))),
    }
}

/// Starts the log on standard error; `RUST_LOG` chooses what it says.
pub(crate) fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second subscriber in one process is a test's business; the first goes on.
    drop(log.with_ansi(false).try_init());
}

/// Runs a program's one task to its end.
pub(crate) fn block_on(task: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::of_system("cannot start", &error))?;
    let result = runtime.block_on(task);
    // A name that is still being resolved is not waited for.
    runtime.shutdown_background();
    result
}

/// A seed that nobody can guess.
pub(crate) fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| {
        Failure::new(ExitCode::Failure, format!("the system has no random numbers: {error}"))
    })?;
    Ok(seed)
}

/// A failure to change the host, in the words of its causes.
pub(crate) fn host_failure(error: &anyhow::Error) -> Failure {
    Failure::new(ExitCode::Failure, format!("{error:#}"))
}

fn already_up(name: &InstanceName) -> Failure {
    Failure::new(ExitCode::Failure, format!("{name} is already up: `vpn down {name}` takes it down"))
}

fn no_tunnel(name: &InstanceName) -> Failure {
    Failure::new(
        ExitCode::NoTunnel,
        format!("there is no tunnel {name}: `vpn status` lists those that are up"),
    )
}

/// Makes a file in the run-time folder, which is made if need be.
///
/// An instance that ends takes the folder away when it is empty, perhaps just before our file is in it.
pub(crate) fn in_run_dir<T>(paths: &Paths, make: impl Fn() -> std::io::Result<T>) -> std::io::Result<T> {
    let attempt = || paths.create_run_dir().and_then(|()| make());
    let mut made = attempt();
    for _ in 0..FOLDER_ATTEMPTS {
        if !made.as_ref().is_err_and(is_folder_gone) {
            break;
        }
        made = attempt();
    }
    made
}

fn is_folder_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists)
}

fn remove(file: &Path) {
    if let Err(error) = fs::remove_file(file)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(file = %file.display(), %error, "a file could not be removed");
    }
}

/// The folder may be a service manager's, or hold what a new instance has made: it goes only if it is ours and empty.
fn remove_run_dir(paths: &Paths) {
    if std::env::var_os("RUNTIME_DIRECTORY").is_none()
        && let Err(error) = fs::remove_dir(paths.run_dir())
    {
        tracing::debug!(%error, "the run-time folder stays");
    }
}

/// Our choice: undoing takes milliseconds; a busy machine may need longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Our choice: not felt by a person.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A process that was killed lets go of its lock a moment later.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Our choice: to find the folder gone once is rare, a second time unheard of.
const FOLDER_ATTEMPTS: usize = 3;
