//! `device-status config …` as a black box: what is printed where, and the exit
//! codes.

use std::process::{Command, Output};

fn device_status(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_device-status"));
    command.env_clear().args(arguments).envs(variables.iter().copied());
    command.output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn check_says_that_it_is_valid_and_where_it_comes_from() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/device-status.example.toml");
    let variables = [("DEVICE_STATUS_KAFKA__BROKERS", "kafka:9092")];
    let output = device_status(&["config", "check", "--config", example], &variables);
    assert!(output.status.success(), "{output:?}");
    let text = stdout(&output);
    assert!(text.starts_with("configuration is valid\n"), "{text}");
    assert!(text.contains("example.toml") && text.contains("DEVICE_STATUS_KAFKA__BROKERS"));
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_wrong_configuration_exits_with_78_whatever_was_asked_for() {
    let variables =
        [("DEVICE_STATUS_HEARTBEAT__TOLERANCE", "0.5"), ("DEVICE_STATUS_LOG__LEVEL", "loud")];
    for command in [["config", "check"], ["config", "show"], ["topics", "check"]] {
        let output = device_status(&command, &variables);
        assert_eq!(output.status.code(), Some(78));
        assert_eq!(stdout(&output), "");
        let text = stderr(&output);
        assert!(text.starts_with("error: the configuration is wrong in 2 places:\n"), "{text}");
        assert!(text.contains("heartbeat.tolerance") && text.contains("log.level"), "{text}");
    }
}

#[test]
fn programs_are_told_everything_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml");
    let text = "[heartbeat]\ntolerance = 0.5\n[redis]\nurl = \"rediss//:hunter2@redis\"\n\
                [kafka]\nbroker = \"kafka:9092\"\n";
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let variables = [("DEVICE_STATUS_LOG__LEVEL", "loud")];
    let output = device_status(&["config", "check", "--json", "--config", path], &variables);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(stderr(&output), "error: the configuration is wrong in 4 places\n");
    assert!(!stdout(&output).contains("hunter2"), "{}", stdout(&output));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["valid"], &told["file"]), (&false.into(), &path.into()));
    let problems = told["problems"].as_array().unwrap();
    let column = |name: &str| -> Vec<&str> {
        problems.iter().map(|problem| problem[name].as_str().unwrap()).collect()
    };
    let line = |number: u32| format!("{path}:{number}");
    assert_eq!(column("key"), ["heartbeat.tolerance", "redis.url", "kafka.broker", "log.level"]);
    assert_eq!(column("value")[0], "0.5");
    assert_eq!(column("value")[3], "\"loud\"");
    let sources =
        [&*line(2), &*line(4), &*line(6), "environment variable DEVICE_STATUS_LOG__LEVEL"];
    assert_eq!(column("source"), sources);
    assert_eq!(column("problem")[2], "is no key");
    assert_eq!(column("remedy")[2], "did you mean kafka.brokers?");
    assert!(column("problem").iter().chain(&column("remedy")).all(|text| !text.is_empty()));

    // What is no configuration at all is told in the same way.
    let output = device_status(&["config", "check", "--json", "--config", "no such file"], &[]);
    assert_eq!(output.status.code(), Some(78));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let problem = &told["problems"][0];
    assert_eq!(problem["key"], serde_json::Value::Null);
    assert_eq!(
        (&problem["value"], &problem["source"]),
        (&"no such file".into(), &"--config".into())
    );

    let output = device_status(&["config", "check", "--json"], &[]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["valid"], &told["problems"]), (&true.into(), &serde_json::json!([])));
}

#[test]
fn show_prints_what_holds_without_secrets() {
    let variables = [
        ("DEVICE_STATUS_REDIS__URL", "redis://:hunter2@redis:6379"),
        ("DEVICE_STATUS_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
    ];
    let output = device_status(&["config", "show", "--json"], &variables);
    assert!(output.status.success(), "{output:?}");
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["redis"]["url"], "redis://:[redacted]@redis:6379");
    assert_eq!(shown["kafka"]["properties"]["sasl.password"], "[redacted]");
    assert_eq!(shown["heartbeat"]["tolerance"], 1.5);
    let output = device_status(&["config", "show"], &variables);
    assert!(!stdout(&output).contains("hunter2"));
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    assert_eq!(device_status(&["confiig"], &[]).status.code(), Some(2));
}

#[test]
fn kafka_out_of_reach_exits_with_69_and_says_where_it_was_sought() {
    // Port 1: nobody listens there.
    let variables = [("DEVICE_STATUS_KAFKA__BROKERS", "127.0.0.1:1")];
    let output = device_status(&["topics", "check"], &variables);
    assert_eq!(output.status.code(), Some(69));
    let text = stderr(&output);
    assert!(text.starts_with("error: cannot reach Kafka at 127.0.0.1:1: "), "{text}");
    assert!(text.contains("Connection refused") && text.contains("kafka.brokers"), "{text}");
}
