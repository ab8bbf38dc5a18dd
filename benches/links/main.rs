//! What KCP makes of many lines, in virtual time: `cargo bench --bench links > benches/links.md`,
//! `cargo bench --bench links echoes` for some of it, or `cargo bench --bench links cells` for a quick look.
//!
//! Nothing depends on the machine or on how busy it is: the same code gives the same table.

#[expect(dead_code, reason = "the tests use all of it, the tables a part")]
#[path = "../../tests/kcp/harness/mod.rs"]
mod harness;
mod jobs;
mod sections;

use std::io::{self, Write as _};

use self::sections::{ALL, CELLS, HEAD};

fn main() -> io::Result<()> {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.iter().any(|wanted| name.contains(wanted.as_str()));
    let mut out = io::stdout().lock();
    if wanted.is_empty() {
        writeln!(out, "{HEAD}")?;
    }
    for (name, section) in ALL {
        if wanted.is_empty() || is_wanted(name) {
            writeln!(out, "{}", section())?;
        }
    }
    let (name, section) = CELLS;
    if is_wanted(name) {
        writeln!(out, "{}", section())?;
    }
    Ok(())
}
