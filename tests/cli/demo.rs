//! The demo, as a black box: what it promises happens, and nothing is left.

use std::process::Command;
use std::time::Duration;

use crate::support::log::Log;
use crate::support::process::{Process, Signal};
use crate::support::service::binary;

#[test]
fn a_device_is_offline_since_its_deadline_and_nothing_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.args(["--set", "log.format=json", "demo", "--plain", "--devices", "50"]);
    command.env("TMPDIR", directory.path());
    let log = Log::default();
    let reader = log.clone();
    // Log lines stand among those of the demo.
    let mut demo = Process::spawn_read_by("demo", command, move |line| {
        if line.starts_with('{') { reader.line(line) } else { line.to_owned() }
    });
    let told = demo.wait_for_output(Duration::from_secs(90), "is Offline since");
    assert!(told.ends_with("exactly the deadline"), "{told}");
    let status = demo.terminate(Duration::from_secs(20));
    assert!(status.success(), "{status}");
    demo.read_to_end();
    log.assert_as_announced("demo");
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_terminal_that_goes_away_ends_the_demo_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(binary());
    command.args(["demo", "--plain", "--devices", "50"]);
    command.env("TMPDIR", directory.path());
    let mut demo = Process::spawn("demo", command);
    demo.wait_for_output(Duration::from_secs(90), "redis-cli");
    demo.signal(Signal::HUP);
    let status = demo.wait(Duration::from_secs(60));
    assert_eq!(status.code(), Some(0), "{status}");
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
