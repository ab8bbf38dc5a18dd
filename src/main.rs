//! The `vpn` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    vpn::cli::run().into()
}
