//! `vpn up` returns, the tunnel goes on: the command runs itself again and relays what the child says.
//!
//! The child says lines on its standard output: `say TEXT`, then `up`, or `fail CODE TEXT`. After `up` it lets go of the
//! output, and what it has to say goes to the log.

use std::env;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;

use crate::control::{InstanceName, Paths};
use crate::failure::{ExitCode, Failure};
use crate::instance::{self, EndSignals};

/// Starts the child with this command's own arguments and waits until it is up or has failed. A signal that ends this
/// command ends the child, too.
pub(super) fn run(name: &InstanceName, paths: &Paths) -> Result<(), Failure> {
    instance::check_not_up(name, paths)?;
    instance::block_on(async {
        // Caught before there is a child that it could leave alone.
        let signals = EndSignals::catch()?;
        let mut child = spawn(paths).map_err(|error| failed(&error))?;
        follow(&mut child, signals, &paths.log()).await
    })
}

fn spawn(paths: &Paths) -> io::Result<Child> {
    let log = instance::in_run_dir(paths, || File::create(paths.log()))?;
    Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .args(["--foreground", "--relayed"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
}

async fn follow(child: &mut Child, mut signals: EndSignals, log: &Path) -> Result<(), Failure> {
    let Some(stdout) = child.stdout.take() else { return Err(died(log)) };
    let lines = pipe::Receiver::from_owned_fd(stdout.into()).map_err(|error| failed(&error))?;
    let mut relayed = pin!(relay(BufReader::new(lines), log));
    tokio::select! {
        result = &mut relayed => return result,
        () = signals.next() => {}
    }
    kill_process(Pid::from_child(child), Signal::TERM).map_err(|error| failed(&error.into()))?;
    let result = relayed.await;
    child.wait().map_err(|error| failed(&error))?;
    // It came up at this very moment, and went down again.
    result.and(Err(Failure::new(ExitCode::Failure, "stopped")))
}

fn failed(error: &io::Error) -> Failure {
    Failure::of_system("cannot go on in the background", error)
}

/// Leaves the terminal's session, so that its end is not ours.
pub(super) fn detach() -> Result<Voice, Failure> {
    rustix::process::setsid()
        .map_err(|error| Failure::of_system("cannot leave the terminal", &io::Error::from(error)))?;
    Ok(Voice::Relayed)
}

async fn relay(lines: impl AsyncBufRead + Unpin, log: &Path) -> Result<(), Failure> {
    let mut lines = lines.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match line.split_once(' ') {
            None if line == "up" => return Ok(()),
            Some(("say", text)) => tell(text),
            Some(("fail", rest)) => return Err(failure(rest)),
            _ => break,
        }
    }
    Err(died(log))
}

fn failure(line: &str) -> Failure {
    let (code, text) = line.split_once(' ').unwrap_or(("1", line));
    let class = code.parse().ok().and_then(ExitCode::from_code).unwrap_or(ExitCode::Failure);
    Failure::new(class, text)
}

fn died(log: &Path) -> Failure {
    let message = format!("the tunnel's process died before it was up: see {}", log.display());
    Failure::new(ExitCode::Failure, message)
}

/// Where a tunnel in the foreground tells the user what it does.
#[derive(Debug)]
pub(super) enum Voice {
    /// To the terminal.
    Terminal,
    /// To the command that waits for us.
    Relayed,
    /// To nobody any more.
    Silent,
}

impl Voice {
    /// Says one line about what was set up.
    ///
    /// # Errors
    /// The command that waits for us is gone: it was interrupted, and nobody wants the tunnel.
    pub(super) fn say(&self, text: &str) -> io::Result<()> {
        match self {
            Self::Terminal => tell(text),
            Self::Relayed => print(&format!("say {text}"))?,
            Self::Silent => {}
        }
        Ok(())
    }

    /// The tunnel carries packets.
    ///
    /// # Errors
    /// As [`Self::say`].
    pub(super) fn up(&mut self) -> io::Result<()> {
        if matches!(self, Self::Relayed) {
            print("up")?;
            self.fall_silent()?;
        }
        Ok(())
    }

    /// The tunnel failed: hands the reason to whoever shows it.
    pub(super) fn fail(&mut self, failure: &Failure) {
        if matches!(self, Self::Relayed) {
            tell(&format!("fail {} {}", failure.class as u8, failure.message));
            *self = Self::Silent;
        }
    }

    fn fall_silent(&mut self) -> io::Result<()> {
        *self = Self::Silent;
        let null = File::options().write(true).open("/dev/null")?;
        Ok(rustix::stdio::dup2_stdout(&null)?)
    }
}

/// Says what nobody needs to hear: a terminal that is gone is no failure of the tunnel.
fn tell(line: &str) {
    drop(print(line));
}

fn print(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn relays_success_and_the_class_of_a_failure() {
        let log = Path::new("log");
        assert_eq!(relay(&b"say addresses\nup\n"[..], log).await, Ok(()));
        let refused = Failure::new(ExitCode::Refused, "the server does not know this key");
        assert_eq!(relay(&b"fail 5 the server does not know this key\n"[..], log).await, Err(refused));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn names_the_log_of_a_child_that_died() {
        let failure = relay(&b"say half\n"[..], Path::new("/run/vpn/x/log")).await.unwrap_err();
        assert!(failure.message.contains("/run/vpn/x/log"), "{failure}");
    }
}
