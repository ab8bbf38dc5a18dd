//! The commands: what is written after `vpn`, and what each one runs.

mod args;
mod keys;
mod probe;
mod status;
mod target;
mod watch;

use std::io::{self, Write};

use clap::Parser;

use crate::client::{self, DownOptions, UpOptions};
use crate::config::{ClientConfig, ServerConfig, Warning};
use crate::failure::{self, ExitCode, Failure};
use crate::server::{self, ServeOptions};
use args::{Args, Command, Up};
use target::Target;

/// Runs the command on the command line; on failure says why on standard error.
///
/// Wrong usage ends the process at once, as `clap` does, with the same code as
/// [`ExitCode::Usage`].
pub fn run() -> ExitCode {
    match dispatch(Args::parse().command) {
        Ok(()) => ExitCode::Success,
        Err(failure) => {
            say(&failure);
            failure.class
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Genkey => keys::genkey(),
        Command::Pubkey => keys::pubkey(),
        Command::Genpsk => keys::genpsk(),
        Command::Serve { config } => serve(&config),
        Command::Up(up_args) => up(up_args),
        Command::Down { target } => {
            let target: Target = target.parse()?;
            client::down(DownOptions { name: target.name })
        }
        Command::Status(status_args) => status::status(&status_args),
        Command::Probe(probe_args) => probe::probe(&probe_args),
    }
}

fn serve(target: &str) -> Result<(), Failure> {
    let Target { name, file } = target.parse()?;
    let (config, warnings) = ServerConfig::load(&file)?;
    warn(&warnings);
    server::serve(ServeOptions { name, config })
}

fn up(args: Up) -> Result<(), Failure> {
    let Target { name, file } = args.target.parse()?;
    let (mut config, warnings) = ClientConfig::load(&file)?;
    // The child in the background repeats what its parent has said.
    if !args.relayed {
        warn(&warnings);
    }
    if !args.route.is_empty() {
        config.tunnel.routes = args.route;
    }
    config.tunnel.exclude.extend(args.exclude);
    client::up(UpOptions { name, file, config, foreground: args.foreground, relayed: args.relayed })
}

fn warn(warnings: &[Warning]) {
    for warning in warnings {
        say(&format_args!("warning: {warning}"));
    }
}

/// Says a sentence on standard error; a closed one is nobody's failure.
fn say(sentence: &dyn std::fmt::Display) {
    drop(writeln!(io::stderr(), "vpn: {sentence}"));
}

/// Whoever reads our standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    There,
    /// It has seen enough, as `head` does.
    Gone,
}

/// Writes to standard output.
fn put(text: &str) -> Result<Reader, Failure> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => {
            let why = failure::os_text(&error);
            Err(Failure::new(ExitCode::Failure, format!("cannot write the output: {why}")))
        }
    }
}

/// The same for what is written once.
fn print(text: &str) -> Result<(), Failure> {
    put(text).map(|_| ())
}
