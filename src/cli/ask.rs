//! Questions to whoever sits at the terminal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::error::Fatal;

/// Asks whether to go on. `unasked` says what to do where there is nobody to ask.
///
/// # Errors
/// When there is no terminal to ask on.
pub(super) fn confirm(question: &str, unasked: &str) -> Result<bool, Fatal> {
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(Fatal::usage(format!("nobody is there to be asked: {unasked}")));
    }
    let _ = write!(stderr, "{question} [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    let _ = stdin.lock().read_line(&mut answer);
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
