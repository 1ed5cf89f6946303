//! The signals that stop the process.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::error::Fatal;

/// SIGTERM, SIGINT (Ctrl-C) and SIGHUP (the terminal went away). SIGHUP stays
/// ignored if it was ignored at the start, as under `nohup`.
fn asking() -> impl Iterator<Item = i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let hangs_up = !ignores(&status, SIGHUP);
    [SIGTERM, SIGINT].into_iter().chain(hangs_up.then_some(SIGHUP))
}

/// Whether a process of this `/proc/<pid>/status` ignores a signal.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Sets `stop` at every signal.
///
/// # Errors
/// When the system refuses a handler.
pub fn set(stop: &Arc<AtomicBool>) -> Result<(), Fatal> {
    for signal in asking() {
        signal_hook::flag::register(signal, Arc::clone(stop)).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Sets `stop` at the first signal, and ends the process at the second. While
/// `starting` is set, the first signal ends the process, because nothing has to be
/// shut down yet.
///
/// # Errors
/// When the system refuses a handler.
pub fn set_or_end(stop: &Arc<AtomicBool>, starting: &Arc<AtomicBool>) -> Result<(), Fatal> {
    for signal in asking() {
        signal_hook::flag::register_conditional_shutdown(signal, 0, Arc::clone(starting))
            .and_then(|_| {
                signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(stop))
            })
            .map_err(|error| failed(&error))?;
    }
    set(stop)
}

fn failed(error: &std::io::Error) -> Fatal {
    Fatal::internal(format!("cannot set signal handlers: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let status = "Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\n";
        assert!(ignores(status, SIGHUP));
        assert!(!ignores(status, SIGTERM) && !ignores(status, SIGINT) && !ignores("", SIGHUP));
    }
}
