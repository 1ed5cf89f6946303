//! The signals that ask a process to end, as a black box.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use crate::support::process::{Process, Signal};
use crate::support::service::binary;

const PATIENCE: Duration = Duration::from_secs(60);

/// A start that waits for a broker which takes connections and says nothing.
fn starting(shell: &str) -> (TcpListener, Process) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{shell}exec \"$0\" run")).arg(binary());
    command.env("DEVICE_STATUS_KAFKA__BROKERS", silent.local_addr().unwrap().to_string());
    let process = Process::spawn("device-status", command);
    // Its connection shows that the handlers are in place.
    crate::support::wait::wait_for(PATIENCE, "the start to seek Kafka", || {
        silent.accept().map_err(|error| error.to_string())
    });
    (silent, process)
}

#[test]
fn a_terminal_that_goes_away_ends_a_start_as_sigterm_does() {
    for signal in [Signal::TERM, Signal::HUP] {
        let (_silent, mut process) = starting("");
        process.signal(signal);
        let status = process.wait(PATIENCE);
        assert_eq!(status.code(), Some(0), "{signal:?}: {status}");
    }
}

#[test]
fn under_nohup_a_terminal_that_goes_away_is_nothing() {
    let (_silent, mut process) = starting("trap '' HUP; ");
    process.signal(Signal::HUP);
    let ignored = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let mask = ignored.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    assert_eq!(u64::from_str_radix(mask.trim(), 16).unwrap() & 1, 1, "SIGHUP is ignored");
    assert!(process.ended().is_none());
    assert_eq!(process.terminate(PATIENCE).code(), Some(0));
}
