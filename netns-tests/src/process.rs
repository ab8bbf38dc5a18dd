//! Programs in namespaces: started with their output in files, waited for with a deadline, ended with whoever started them.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{cleanup, wait};

/// A program about to be started.
#[derive(Debug)]
#[must_use = "nothing runs until `start`, `run` or `output`"]
pub struct Program {
    command: Command,
    /// Where its output goes, without the endings `.stdout` and `.stderr`.
    log: PathBuf,
    input: Input,
}

/// What a program reads.
#[derive(Debug)]
enum Input {
    Nothing,
    Text(String),
    /// What [`Process::say`] gives it, until it ends.
    Spoken,
}

impl Program {
    pub(crate) const fn new(command: Command, log: PathBuf) -> Self {
        Self { command, log, input: Input::Nothing }
    }

    /// Adds one argument.
    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<std::ffi::OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Adds the words of `text` as arguments.
    pub fn words(self, text: &str) -> Self {
        self.args(text.split_whitespace())
    }

    /// Gives the program `text` as its standard input, which is empty otherwise.
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = Input::Text(text.into());
        self
    }

    /// Lets [`Process::say`] talk to the program while it runs.
    pub fn spoken_to(mut self) -> Self {
        self.input = Input::Spoken;
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(mut self) -> Result<Process> {
        let name = format!("{} {}", self.command.get_program().display(), arguments(&self.command));
        let [stdout, stderr] = ["stdout", "stderr"].map(|ending| self.log.with_added(ending));
        self.command.stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let nothing = matches!(self.input, Input::Nothing);
        self.command.stdin(if nothing { Stdio::null() } else { Stdio::piped() });
        let started = wait::now();
        let mut child = self.command.spawn().with_context(|| format!("starting {name}"))?;
        if let Input::Text(text) = self.input
            && let Some(mut stdin) = child.stdin.take()
        {
            stdin.write_all(text.as_bytes()).with_context(|| format!("writing to {name}"))?;
        }
        Ok(Process { name, child, started, stdout, stderr })
    }

    /// Starts the program and waits until it has ended.
    ///
    /// # Errors
    /// If it cannot be started or runs longer than `limit`.
    pub fn run(self, limit: Duration) -> Result<Finished> {
        self.start()?.finish(limit)
    }

    /// Runs the program and gives back what it wrote to its standard output.
    ///
    /// # Errors
    /// If it takes longer than half a minute or fails.
    pub fn output(self) -> Result<String> {
        Ok(self.run(COMMAND_LIMIT)?.expect_code(0)?.stdout)
    }
}

/// A running program. Dropping it kills its process group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    started: Instant,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far, standard output and error.
    ///
    /// # Errors
    /// If a log file cannot be read.
    pub fn logs(&self) -> Result<(String, String)> {
        Ok((read(&self.stdout)?, read(&self.stderr)?))
    }

    /// Writes `text` to its standard input.
    ///
    /// # Errors
    /// If it does not read, or was not started to be [spoken to](Program::spoken_to).
    pub fn say(&mut self, text: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("a program that nobody speaks to")?;
        stdin.write_all(text.as_bytes()).with_context(|| format!("writing to {}", self.name))
    }

    /// Waits until one of its outputs holds `text`.
    ///
    /// # Errors
    /// If that takes longer than `limit`, or the program ends before.
    pub fn wait_for_text(&mut self, text: &str, limit: Duration) -> Result<()> {
        let what = format!("{:?} from {}", text, self.name);
        wait::until(&what, limit, || {
            // Asked in this order: what an ended program has written is complete.
            let ended = self.poll_end()?;
            let (stdout, stderr) = self.logs()?;
            if stdout.contains(text) || stderr.contains(text) {
                return Ok(Some(()));
            }
            ensure!(ended.is_none(), "{} ended without {text:?}: {}", self.name, stderr.trim());
            Ok(None)
        })
    }

    /// Sends a signal to the program alone.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.process_id()?, signal).with_context(|| format!("{signal:?} to {}", self.name))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.poll_end()?.is_none())
    }

    /// Waits until the program has ended.
    ///
    /// # Errors
    /// If it runs longer than `limit`; it is killed then.
    pub fn finish(mut self, limit: Duration) -> Result<Finished> {
        let what = format!("the end of {}", self.name);
        let status = wait::until(&what, limit, || self.poll_end())?;
        let elapsed = self.started.elapsed();
        let (stdout, stderr) = self.logs()?;
        Ok(Finished { name: self.name.clone(), status, stdout, stderr, elapsed })
    }

    /// How it has ended, once it has.
    fn poll_end(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        cleanup::hold_while_ending();
        Ok(status)
    }

    fn process_id(&self) -> Result<Pid> {
        Pid::from_raw(i32::try_from(self.child.id())?).context("a process without an id")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A program that has ended may have left others in its group; an id that was reaped is not signalled again by `Child`,
        // so only a group whose leader is still ours is.
        if matches!(self.child.try_wait(), Ok(None)) {
            if let Ok(pid) = self.process_id() {
                kill_process_group(pid, Signal::KILL).ok();
            }
            drop(self.child.wait());
        }
    }
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    name: String,
    status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
    /// From its start to its end.
    pub elapsed: Duration,
}

impl Finished {
    /// Its exit code; `None` if a signal ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Checks the exit code.
    ///
    /// # Errors
    /// With what the program wrote, if its code is another.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        if self.status.code() != Some(code) {
            bail!(
                "{} ended with {}, not {code}: {}{}",
                self.name,
                ended(self.status),
                self.stderr.trim(),
                self.stdout.trim()
            );
        }
        Ok(self)
    }

    /// Checks that the program wrote `text`.
    ///
    /// # Errors
    /// With what it wrote instead.
    pub fn expect_text(self, text: &str) -> Result<Self> {
        if !self.stdout.contains(text) && !self.stderr.contains(text) {
            bail!("{} did not say {text:?}: {}{}", self.name, self.stderr.trim(), self.stdout.trim());
        }
        Ok(self)
    }

    /// Checks that the program took no longer than `limit`.
    ///
    /// # Errors
    /// With the time it took.
    pub fn expect_within(self, limit: Duration) -> Result<Self> {
        ensure!(self.elapsed <= limit, "{} took {:?}, more than {limit:?}", self.name, self.elapsed);
        Ok(self)
    }
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    }
}

fn arguments(command: &Command) -> String {
    command.get_args().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `Path::with_added_extension`, which the oldest Rust we support does not have.
trait WithAdded {
    fn with_added(&self, ending: &str) -> PathBuf;
}

impl WithAdded for PathBuf {
    fn with_added(&self, ending: &str) -> PathBuf {
        let mut name = self.clone().into_os_string();
        name.push(".");
        name.push(ending);
        name.into()
    }
}

/// What a small command may take on a busy machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
