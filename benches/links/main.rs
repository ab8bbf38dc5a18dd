//! What KCP makes of many lines, in virtual time: `cargo bench --bench links > benches/links.md`, or
//! `cargo bench --bench links echoes` for some of it.
//!
//! Nothing depends on the machine or on how busy it is: the same code gives the same table.

#[path = "../../tests/kcp/harness/mod.rs"]
mod harness;
mod jobs;
mod sections;

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let mut out = io::stdout().lock();
    if wanted.is_empty() {
        writeln!(out, "{}", sections::HEAD)?;
    }
    for (name, section) in sections::ALL {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            writeln!(out, "{}", section())?;
        }
    }
    Ok(())
}
