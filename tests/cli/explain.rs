//! `device-status explain` as a black box: what it says of the example in
//! `examples/history.jsonl`, and of histories that cannot be read.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const HISTORY: &str = "examples/history.jsonl";

fn explain(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_device-status"));
    command.env_clear().current_dir(env!("CARGO_MANIFEST_DIR")).arg("explain").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that fails early has not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn told(arguments: &[&str], input: &str) -> String {
    let output = explain(arguments, input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stderr, b"");
    String::from_utf8(output.stdout).unwrap()
}

fn failure(arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let output = explain(arguments, input);
    assert_eq!(output.stdout, b"");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn golden(name: &str, actual: &str, how: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (expected, actual)) in (1..).zip(expected.lines().zip(actual.lines())) {
        assert_eq!(actual, expected, "line {number} of {name}; if that is meant: {how}");
    }
    assert_eq!(actual, expected, "{name} is of another length; if that is meant: {how}");
}

#[test]
fn the_example_is_explained() {
    let actual = told(&["--events", HISTORY], "");
    let how = "cargo run -- explain --events examples/history.jsonl > tests/golden/explain.txt";
    golden("explain.txt", &actual, how);
}

#[test]
fn the_example_is_explained_to_programs() {
    let actual = told(&["--events", HISTORY, "--json"], "");
    let how =
        "cargo run -- explain --events examples/history.jsonl --json > tests/golden/explain.jsonl";
    golden("explain.jsonl", &actual, how);
    for line in actual.lines() {
        let device: serde_json::Value = serde_json::from_str(line).unwrap();
        let rungs = device["rungs"].as_array().unwrap();
        let decides = rungs.iter().filter(|rung| rung["decides"] == true);
        let decided: Vec<_> = decides.map(|rung| &rung["status"]).collect();
        match &device["status"] {
            serde_json::Value::Null => assert!(rungs.is_empty() && device["not_shown"].is_string()),
            status => assert_eq!(decided, [status]),
        }
    }
}

#[test]
fn the_documentation_shows_what_is_printed() {
    let page = include_str!("../../docs/explain.md");
    let mut blocks = page.split("```text\n").filter_map(|rest| rest.split("```").next());
    let shown = blocks.find(|block| block.starts_with("$ device-status explain ")).unwrap();
    let actual = told(&["--events", HISTORY, "oven"], "");
    assert_eq!(shown, format!("$ device-status explain --events {HISTORY} oven\n{actual}"));
}

#[test]
fn every_event_that_the_documentation_lists_can_be_read() {
    let page = include_str!("../../docs/explain.md");
    let lines: Vec<&str> = page.lines().filter(|line| line.starts_with("{\"at\"")).collect();
    assert!(lines.len() >= 26, "only {} lines", lines.len());
    told(&["--events", "-"], &lines.join("\n"));
}

#[test]
fn an_earlier_instant_knows_nothing_of_what_came_later() {
    let at = "2026-03-02T10:25:15Z";
    let text = told(&["--events", HISTORY, "oven", "--at", at], "");
    assert!(text.starts_with("oven  Offline\n"), "{text}");
    assert!(text.ends_with("\nEvents after 2026-03-02T10:25:15.000Z, left out: 5\n"), "{text}");
    // A millisecond before its deadline, and in another notation.
    let at = "1772447115249";
    let text = told(&["--events", HISTORY, "oven", "--at", at, "--json"], "");
    let device: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(device["status"], "offline", "{text}");
    let at = "2026-03-02T11:25:14.999+01:00";
    let text = told(&["--events", HISTORY, "oven", "--at", at, "--json"], "");
    let device: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(device["status"], "updating", "{text}");
    assert_eq!(device["heartbeat"]["state"], "timeout", "{text}");
}

#[test]
fn what_the_configuration_says_of_intervals_holds() {
    let history =
        r#"{"at": "2026-03-02T10:00:00Z", "input": "heartbeats", "device": "a", "event": {}}"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("strict.toml");
    std::fs::write(&file, "heartbeat.default_poll_interval = \"1h\"\n").unwrap();
    let at = ["--events", "-", "--at", "2026-03-02T11:00:00Z"];
    assert!(told(&at, history).starts_with("a  Offline\n"));
    let at = [&at[..], &["--config", file.to_str().unwrap()]].concat();
    assert!(told(&at, history).starts_with("a  Online (Heartbeat Only)\n"));
}

#[test]
fn lines_that_cannot_be_read_are_named() {
    let history = "\n{\"at\": 0}\n";
    let expected = "error: standard input: a line cannot be read:\n  \
                    line 2: missing field `input`, at column 9\n";
    assert_eq!(failure(&["--events", "-"], history), (Some(2), expected.to_owned()));
}

#[test]
fn what_is_not_there_is_said() {
    let (code, text) = failure(&["--events", HISTORY, "lamp"], "");
    assert_eq!(code, Some(1));
    assert_eq!(text, format!("error: {HISTORY}: no event of \"lamp\"\n"));
    let (code, text) = failure(&["--events", "no such file"], "");
    assert_eq!(code, Some(2));
    assert!(text.starts_with("error: no such file: "), "{text}");
    let (code, text) = failure(&["--events", "-"], "\n");
    assert_eq!(
        (code, text.as_str()),
        (Some(2), "error: standard input: there are no events in it\n")
    );
    let (code, text) = failure(&["--events", "-", "--at", "noon"], "");
    assert_eq!(code, Some(2));
    assert!(text.contains("\"noon\" is no time"), "{text}");
}

#[test]
fn what_came_with_a_wrong_clock_is_doubted() {
    let history = r#"
{"at": "2026-03-02T08:00:00Z", "input": "vpn_sessions", "event": {"occurred_at": "2026-03-02T07:40:00Z", "instance_alive": {"instance": "vpn-1", "lease": "1m"}}}
{"at": "2026-03-02T08:00:00Z", "input": "vpn_sessions", "event": {"occurred_at": "2026-03-02T07:00:00Z", "instance_alive": {"instance": "vpn-2", "lease": "1m"}}}
{"at": "2026-03-02T08:00:30Z", "input": "vpn_sessions", "device": "oven", "event": {"session_opened": {"instance": "vpn-1", "session": "7f3a"}}}
{"at": "2026-03-02T08:00:30Z", "input": "lifecycle", "device": "oven", "event": {"occurred_at": "2026-03-02T08:12:30Z", "registered": {"fleet": "kitchens"}}}
{"at": "2026-03-02T08:00:40Z", "input": "lifecycle", "event": {"occurred_at": "2026-03-02T07:50:40.750Z", "fleet_settings_changed": {"fleet": "kitchens", "poll_interval": "30m"}}}
{"at": "2026-03-02T08:01:00Z", "input": "heartbeats", "device": "oven", "event": {"occurred_at": "2026-03-02T08:00:01Z"}}
{"at": "2026-03-02T08:01:01Z", "input": "heartbeats", "device": "oven", "event": {"occurred_at": "1970-01-01T00:00:05Z"}}
{"at": "2026-03-02T08:01:00Z", "input": "heartbeats", "device": "lamp", "event": {"occurred_at": "1970-01-01T00:00:05Z"}}
{"at": "2026-03-02T08:02:00Z", "input": "heartbeats", "device": "lamp", "event": {"occurred_at": "2026-03-02T08:01:59Z"}}
"#;
    let text = told(&["--events", "-", "oven"], history);
    let doubts: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("  doubts        ")).collect();
    assert_eq!(
        doubts,
        [
            "heartbeat, of 1970-01-01T00:00:05.000Z, came 56years 1month 29days 21h 27m 20s later, \
             when it had expired: its sender's clock is slow, or kept it back",
            "registered, of 2026-03-02T08:12:30.000Z, came 12m before that: its sender's clock is \
             fast",
            "instance_alive of VPN instance vpn-1, of 2026-03-02T07:40:00.000Z, came 20m later, \
             when its lease was over: its sender's clock is slow, or kept it back",
            "fleet_settings_changed of fleet kitchens, of 2026-03-02T07:50:40.750Z, came 9m 59s \
             later: its sender's clock is slow, or kept it back",
        ]
    );
    let text = told(&["--events", "-", "oven", "--json"], history);
    let device: serde_json::Value = serde_json::from_str(&text).unwrap();
    let kinds: Vec<_> =
        device["doubts"].as_array().unwrap().iter().map(|doubt| &doubt["doubt"]).collect();
    assert_eq!(kinds, ["over", "ahead", "over", "behind"]);
    let doubt = &device["doubts"][2];
    assert_eq!(doubt["event"], "instance_alive");
    assert_eq!(doubt["of"], "VPN instance vpn-1");
    assert_eq!(doubt["occurred_ms"], 1_772_437_200_000_i64);
    assert_eq!(doubt["record_ms"], 1_772_438_400_000_i64);
    // The last one of a kind counts: its sender's clock was set.
    let text = told(&["--events", "-", "lamp"], history);
    assert!(text.starts_with("lamp  Online") && !text.contains("doubts"), "{text}");
}
