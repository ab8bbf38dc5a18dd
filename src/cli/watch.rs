//! The same thing shown again and again: on a terminal each time in the place of the last, else one after the other.

use std::io::{self, IsTerminal as _};
use std::thread;
use std::time::Duration;

use super::{Reader, put};
use crate::failure::Failure;

/// Shows what `look` returns once a second, until it fails or nobody reads any more.
pub(super) fn watch(mut look: impl FnMut() -> Result<String, Failure>) -> Result<(), Failure> {
    let mut is_first = true;
    loop {
        let text = look()?;
        let shown = match rows() {
            Some(rows) => frame(&text, rows),
            None if is_first || text.lines().nth(1).is_none() => text,
            None => format!("\n{text}"),
        };
        if put(&shown)? == Reader::Gone {
            return Ok(());
        }
        is_first = false;
        pause();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command that shows something once a second waits in between"
)]
fn pause() {
    thread::sleep(PERIOD);
}

/// How many lines the terminal has; `None` without one.
fn rows() -> Option<usize> {
    let output = io::stdout();
    if !output.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(output).ok()?;
    // A terminal that does not know its size is taken for the usual one.
    Some(if size.ws_row == 0 { USUAL_ROWS } else { usize::from(size.ws_row) })
}

/// Writes over what is on a terminal of so many lines, without blanking it first; what does not fit is counted.
fn frame(text: &str, rows: usize) -> String {
    let count = text.lines().count();
    // The cursor stands below the last line.
    let room = rows.saturating_sub(1).max(1);
    let shown = if count <= room { count } else { room - 1 };
    let mut frame = format!("{NO_WRAP}{HOME}");
    for line in text.lines().take(shown) {
        frame.push_str(&format!("{line}{CLEAR_LINE}\n"));
    }
    if shown < count {
        frame.push_str(&format!("({} more lines){CLEAR_LINE}\n", count - shown));
    }
    frame.push_str(&format!("{CLEAR_BELOW}{WRAP}"));
    frame
}

/// Our choice: as `watch` does twice as slowly.
const PERIOD: Duration = Duration::from_secs(1);

/// Of a VT100.
const USUAL_ROWS: usize = 24;

// ECMA-48 and DEC private modes, which every terminal knows.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::ExitCode;

    fn lines(text: &str, rows: usize) -> Vec<String> {
        let frame = frame(text, rows);
        let plain = [HOME, CLEAR_LINE, CLEAR_BELOW, NO_WRAP, WRAP]
            .iter()
            .fold(frame, |frame, sequence| frame.replace(sequence, ""));
        plain.lines().map(str::to_owned).collect()
    }

    #[test]
    fn shows_as_many_lines_as_the_terminal_has() {
        assert_eq!(lines("a\nb\nc\n", 4), ["a", "b", "c"]);
        assert_eq!(lines("a\nb\nc\n", 3), ["a", "(2 more lines)"]);
        assert_eq!(lines("a\nb\nc\n", 1), ["(3 more lines)"]);
        assert_eq!(lines("", 24), [""; 0]);
    }

    #[test]
    fn leaves_nothing_of_what_was_there_before() {
        let frame = frame("a\nb\n", 24);
        assert!(frame.starts_with(&format!("{NO_WRAP}{HOME}a{CLEAR_LINE}\n")), "{frame:?}");
        assert!(frame.ends_with(&format!("{CLEAR_BELOW}{WRAP}")), "{frame:?}");
    }

    #[test]
    fn ends_when_there_is_nothing_to_look_at() {
        let failure = Failure::new(ExitCode::NoTunnel, "gone");
        assert_eq!(watch(|| Err(failure.clone())), Err(failure));
    }
}
