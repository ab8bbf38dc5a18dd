//! `vpn up` returns, the tunnel goes on: the command runs itself again and relays what the child says.
//!
//! The child says lines on its standard output: `say TEXT`, then `up`, or `fail CODE TEXT`. After `up` it lets go of the
//! output, and what it has to say goes to the log.

use std::env;
use std::fs::File;
use std::io::{self, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::control::{InstanceName, Paths};
use crate::failure::{ExitCode, Failure};
use crate::instance;

/// Starts the child with this command's own arguments and waits until it is up or has failed.
pub(super) fn run(name: &InstanceName, paths: &Paths) -> Result<(), Failure> {
    let failed = |error: &io::Error| Failure::of_system("cannot go on in the background", error);
    instance::check_not_up(name, paths)?;
    paths.create_run_dir().map_err(|error| failed(&error))?;
    let log = &paths.log();
    let output = File::create(log).map_err(|error| failed(&error))?;
    let program = env::current_exe().map_err(|error| failed(&error))?;
    let mut child = Command::new(program)
        .args(env::args_os().skip(1))
        .args(["--foreground", "--relayed"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(output)
        .spawn()
        .map_err(|error| failed(&error))?;
    let Some(stdout) = child.stdout.take() else { return Err(died(log)) };
    relay(BufReader::new(stdout), log)
}

/// Leaves the terminal's session, so that its end is not ours.
pub(super) fn detach() -> Result<Voice, Failure> {
    rustix::process::setsid()
        .map_err(|error| Failure::of_system("cannot leave the terminal", &io::Error::from(error)))?;
    Ok(Voice::Relayed)
}

fn relay(lines: impl io::BufRead, log: &Path) -> Result<(), Failure> {
    for line in lines.lines().map_while(Result::ok) {
        match line.split_once(' ') {
            None if line == "up" => return Ok(()),
            Some(("say", text)) => print(text),
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
    pub(super) fn say(&self, text: &str) {
        match self {
            Self::Terminal => print(text),
            Self::Relayed => print(&format!("say {text}")),
            Self::Silent => {}
        }
    }

    /// The tunnel carries packets.
    pub(super) fn up(&mut self) -> io::Result<()> {
        if matches!(self, Self::Relayed) {
            print("up");
            self.fall_silent()?;
        }
        Ok(())
    }

    /// The tunnel failed: hands the reason to whoever shows it.
    pub(super) fn fail(&mut self, failure: &Failure) {
        if matches!(self, Self::Relayed) {
            print(&format!("fail {} {}", failure.class as u8, failure.message));
            *self = Self::Silent;
        }
    }

    fn fall_silent(&mut self) -> io::Result<()> {
        *self = Self::Silent;
        let null = File::options().write(true).open("/dev/null")?;
        Ok(rustix::stdio::dup2_stdout(&null)?)
    }
}

/// Nobody may be listening any more, which is no failure of the tunnel.
fn print(line: &str) {
    let mut output = io::stdout().lock();
    drop(writeln!(output, "{line}").and_then(|()| output.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_success_and_the_class_of_a_failure() {
        let log = Path::new("log");
        assert_eq!(relay(&b"say addresses\nup\n"[..], log), Ok(()));
        let refused = Failure::new(ExitCode::Refused, "the server does not know this key");
        assert_eq!(relay(&b"fail 5 the server does not know this key\n"[..], log), Err(refused));
    }

    #[test]
    fn names_the_log_of_a_child_that_died() {
        let failure = relay(&b"say half\n"[..], Path::new("/run/vpn/x/log")).unwrap_err();
        assert!(failure.message.contains("/run/vpn/x/log"), "{failure}");
    }
}
