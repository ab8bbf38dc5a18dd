//! `status`: asks the running tunnels and shows what they say, once or again and again.

use std::path::Path;
use std::time::Duration;

use super::args::Status as Args;
use super::print;
use super::target::Target;
use super::watch::watch;
use crate::control::{self, ClientError, InstanceName, Paths, Request, Response, Status, Tunnel};
use crate::failure::{ExitCode, Failure};

/// Shows one tunnel, or all.
pub(super) fn status(args: &Args) -> Result<(), Failure> {
    let name = args.target.as_ref().map(|target| target.parse::<Target>()).transpose()?;
    let name = name.map(|target| target.name);
    let look = || {
        let request = Request::Status { flows: args.flows };
        let status = match &name {
            Some(name) => named(name, request)?,
            None => all(request)?,
        };
        show(&status, args.json)
    };
    if args.watch { watch(look) } else { print(&look()?) }
}

fn show(status: &Status, as_json: bool) -> Result<String, Failure> {
    if as_json {
        return Ok(format!("{}\n", to_json(status)?));
    }
    if status.tunnels.is_empty() {
        return Ok("no tunnel is up\n".to_owned());
    }
    Ok(control::render(status))
}

fn named(name: &InstanceName, request: Request) -> Result<Status, Failure> {
    let socket = Paths::of(name).control_socket();
    // A service manager's folder is used by whatever runs in it.
    match ask(&socket, request)?.filter(|tunnel| tunnel.name == name.as_str()) {
        Some(tunnel) => Ok(Status { tunnels: vec![tunnel] }),
        None => Err(Failure::new(
            ExitCode::NoTunnel,
            format!("there is no tunnel {name}: `vpn status` lists those that are up"),
        )),
    }
}

fn all(request: Request) -> Result<Status, Failure> {
    let sockets =
        control::control_sockets().map_err(|error| Failure::of_system("cannot look for tunnels", &error))?;
    let mut tunnels = Vec::new();
    for socket in sockets {
        tunnels.extend(ask(&socket, request)?);
    }
    tunnels.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Status { tunnels })
}

/// Asks who listens at a socket; `None` when nobody does, or no longer.
fn ask(socket: &Path, request: Request) -> Result<Option<Tunnel>, Failure> {
    let failed = |why: &str| {
        let message = format!("cannot ask the tunnel at {}: {why}", socket.display());
        Failure::new(ExitCode::Failure, message)
    };
    match control::request(socket, request, TIMEOUT) {
        Ok(Response::Status { tunnel }) => Ok(Some(*tunnel)),
        Ok(Response::Error { message }) => Err(failed(&message)),
        Ok(Response::Done) => Err(failed("it answers another question")),
        Err(ClientError::NotUp | ClientError::Ended) => Ok(None),
        Err(ClientError::Io(error)) => {
            let asking = format!("cannot ask the tunnel at {}", socket.display());
            Err(Failure::of_system(asking, &error))
        }
        Err(error @ ClientError::Unreadable) => Err(failed(&error.to_string())),
    }
}

fn to_json(status: &Status) -> Result<String, Failure> {
    serde_json::to_string(status)
        .map_err(|error| Failure::new(ExitCode::Failure, format!("no JSON: {error}")))
}

/// How long a tunnel may take to answer; our choice: its loop is never away for a second.
const TIMEOUT: Duration = Duration::from_secs(5);
