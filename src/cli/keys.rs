//! `genkey`, `pubkey` and `genpsk`: keys go through pipes, never through arguments.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use rand::SeedableRng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::{print, say};
use crate::crypto::{PresharedKey, PrivateKey};
use crate::failure::{self, ExitCode, Failure};

/// Prints a new private key.
pub(super) fn genkey() -> Result<(), Failure> {
    print_secret(&PrivateKey::generate(&mut generator()?))
}

/// Prints a new preshared key.
pub(super) fn genpsk() -> Result<(), Failure> {
    print_secret(&PresharedKey::generate(&mut generator()?))
}

/// Prints the public key of the private key on standard input.
pub(super) fn pubkey() -> Result<(), Failure> {
    let wrong =
        |why: &dyn Display| Failure::new(ExitCode::Usage, format!("no private key on standard input: {why}"));
    let mut text = Zeroizing::new(String::new());
    let mut input = io::stdin().lock().take(INPUT_MAX);
    input.read_to_string(&mut text).map_err(|error| wrong(&failure::os_text(&error)))?;
    let key: PrivateKey = text.parse().map_err(|error| wrong(&error))?;
    print(&format!("{}\n", key.public_key()))
}

fn print_secret(secret: &dyn Display) -> Result<(), Failure> {
    if output_is_readable_by_others() {
        say(&"warning: the output is a file that others can read: use umask 077");
    }
    let line = Zeroizing::new(format!("{secret}\n"));
    print(&line)
}

fn output_is_readable_by_others() -> bool {
    let output = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    output
        .and_then(|file| file.metadata())
        .is_ok_and(|about| about.is_file() && about.permissions().mode() & READABLE_BY_OTHERS != 0)
}

/// A generator seeded by the system.
fn generator() -> Result<StdRng, Failure> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|error| {
        Failure::new(ExitCode::Failure, format!("the system has no random numbers: {error}"))
    })?;
    Ok(StdRng::from_seed(*seed))
}

/// The read bits of the group and of everybody (`S_IRGRP`, `S_IROTH`).
const READABLE_BY_OTHERS: u32 = 0o044;

/// Far more than a key and the white space around it.
const INPUT_MAX: u64 = 4096;
