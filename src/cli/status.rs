//! `status`: asks the running tunnels and shows what they say.

use std::path::Path;
use std::time::Duration;

use super::args::Status as Args;
use super::print;
use super::target::Target;
use crate::control::{self, ClientError, InstanceName, Paths, Request, Response, Status, Tunnel};
use crate::failure::{ExitCode, Failure};

/// Shows one tunnel, or all.
pub(super) fn status(args: &Args) -> Result<(), Failure> {
    for (asked, flag) in [(args.watch, "--watch"), (args.flows, "--flows")] {
        if asked {
            let message = format!("status {flag} is not built yet: leave it out");
            return Err(Failure::new(ExitCode::Usage, message));
        }
    }
    let status = match &args.target {
        Some(target) => named(&target.parse::<Target>()?.name)?,
        None => all()?,
    };
    if args.json {
        return print(&format!("{}\n", to_json(&status)?));
    }
    if status.tunnels.is_empty() {
        return print("no tunnel is up\n");
    }
    print(&control::render(&status))
}

fn named(name: &InstanceName) -> Result<Status, Failure> {
    let socket = Paths::of(name).control_socket();
    // A service manager's folder is used by whatever runs in it.
    match ask(&socket)?.filter(|tunnel| tunnel.name == name.as_str()) {
        Some(tunnel) => Ok(Status { tunnels: vec![tunnel] }),
        None => Err(Failure::new(
            ExitCode::NoTunnel,
            format!("there is no tunnel {name}: `vpn status` lists those that are up"),
        )),
    }
}

fn all() -> Result<Status, Failure> {
    let sockets =
        control::control_sockets().map_err(|error| Failure::of_system("cannot look for tunnels", &error))?;
    let mut tunnels = Vec::new();
    for socket in sockets {
        tunnels.extend(ask(&socket)?);
    }
    tunnels.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Status { tunnels })
}

/// Asks who listens at a socket; `None` when nobody does, or no longer.
fn ask(socket: &Path) -> Result<Option<Tunnel>, Failure> {
    let failed = |why: &str| {
        let message = format!("cannot ask the tunnel at {}: {why}", socket.display());
        Failure::new(ExitCode::Failure, message)
    };
    match control::request(socket, Request::Status, TIMEOUT) {
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
