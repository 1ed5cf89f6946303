//! `device-status config …` as a black box: what is printed where, and the exit
//! codes.

use std::process::{Command, Output};

use crate::support::redis::RedisServer;

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
    let error: serde_json::Value = serde_json::from_str(stderr(&output)).unwrap();
    assert_eq!(error["error"]["message"], "the configuration is wrong in 4 places");
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
    assert_eq!(column("problem")[2], "is not a known key");
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
fn programs_are_told_an_error_as_json_whatever_it_is() {
    for (arguments, kind, code) in [
        (&["topics", "check", "--json"][..], "unavailable", 69),
        (&["--json", "confiig"], "usage", 2),
        (&["--json", "config", "show", "--set", "log.level=loud"], "configuration", 78),
    ] {
        let variables = [("DEVICE_STATUS_KAFKA__BROKERS", "127.0.0.1:1")];
        let output = device_status(arguments, &variables);
        assert_eq!(output.status.code(), Some(code));
        let line = stderr(&output).lines().last().unwrap();
        let told: serde_json::Value = serde_json::from_str(line).unwrap();
        let error = &told["error"];
        assert_eq!((&error["kind"], &error["exit_code"]), (&kind.into(), &code.into()), "{told}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
}

#[test]
fn a_slip_in_rust_log_is_refused_and_silences_nothing() {
    for slip in ["inof", "device-status=debug", "device_statsu=debug"] {
        let output = device_status(&["config", "show"], &[("RUST_LOG", slip)]);
        assert_eq!(output.status.code(), Some(78), "{slip}");
        let text = stderr(&output);
        assert!(text.contains("RUST_LOG") && text.contains("device_status"), "{text}");
    }
    for right in ["debug", "info,device_status=debug", "librdkafka=debug"] {
        assert!(device_status(&["config", "show"], &[("RUST_LOG", right)]).status.success());
    }
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

/// What `config check` says of a file that must be refused.
fn refused(text: &str, variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device-status.toml");
    std::fs::write(&file, text).unwrap();
    let output = device_status(&["config", "check", "--config", file.to_str().unwrap()], variables);
    assert_eq!(output.status.code(), Some(78), "{text}: {output:?}");
    stderr(&output).to_owned()
}

#[test]
fn what_only_looks_right_is_refused_with_its_remedy() {
    let property =
        |name: &str, value: &str| format!("[kafka.properties]\n\"{name}\" = \"{value}\"");
    for (text, told) in [
        ("[kafka]\nbrokers = \"kafka://a:9092\"".to_owned(), "write host:port alone"),
        (
            "[kafka]\nbrokers = \"a:9092,SASL_SSL://b:9092\"".to_owned(),
            "set kafka.properties.security.protocol to \"sasl_ssl\"",
        ),
        ("[kafka]\nbrokers = [\"a:9092\", \"b:9092\"]".to_owned(), "in one text with commas"),
        ("[kafka]\nbrokers = \"a:9092/\"".to_owned(), "write one such as kafka-1:9092"),
        (property("sasl.mechanism", "AWS_MSK_IAM"), "with SCRAM-SHA-512"),
        (property("sasl.mechanisms", "scram-sha-256"), "write SCRAM-SHA-256,"),
        (property("sasl.usrname", "x"), "did you mean kafka.properties.sasl.username?"),
        (property("client.rack", "${ZONE}"), "DEVICE_STATUS_KAFKA__PROPERTIES__CLIENT_RACK"),
        ("[kafka]\ngroup = \"$(GROUP)\"".to_owned(), "DEVICE_STATUS_KAFKA__GROUP"),
        (
            "[redis]\nurl = \"redis://:${SECRET_NAME}@redis\"".to_owned(),
            "a placeholder that was not replaced",
        ),
        ("[redis]\nurl = \"redis://:hunter2#s@redis\"".to_owned(), "%23 for #"),
        ("[redis]\nurl = \"redis://:hunter2/s@redis:1/3\"".to_owned(), "or set the password with"),
    ] {
        let message = refused(&text, &[]);
        assert!(message.contains(told), "{text}: {message}\nlacks {told}");
        assert!(!message.contains("hunter2") && !message.contains("SECRET_NAME"), "{message}");
    }
}

#[test]
fn a_value_with_a_placeholder_can_still_be_given_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "${odd}").unwrap();
    let variables = [("DEVICE_STATUS_REDIS__PASSWORD", "${odd}")];
    let message = refused("", &variables);
    assert!(message.contains("into a file and set redis.password_file"), "{message}");
    let variables = [("DEVICE_STATUS_REDIS__PASSWORD_FILE", file.to_str().unwrap())];
    assert!(device_status(&["config", "check"], &variables).status.success());
}

#[test]
fn a_variable_with_one_underscore_is_refused_and_kubernetes_s_are_let_be() {
    for (variable, right) in [
        ("DEVICE_STATUS_KAFKA_BROKERS", "DEVICE_STATUS_KAFKA__BROKERS"),
        ("DEVICE_STATUS_REDIS_PASSWORD_FILE", "DEVICE_STATUS_REDIS__PASSWORD_FILE"),
    ] {
        let message = refused("", &[(variable, "kafka:9092")]);
        assert!(message.contains(&format!("name the variable {right}")), "{message}");
    }
    let variables = [
        ("DEVICE_STATUS_SERVICE_HOST", "10.0.0.1"),
        ("DEVICE_STATUS_PORT_9464_TCP_ADDR", "10.0.0.1"),
        ("DEVICE_STATUS_REDIS_SERVICE_PORT_MAIN", "6379"),
        ("DEVICE_STATUS_API_TOKEN_FILE", "/some/where"),
    ];
    let output = device_status(&["config", "check"], &variables);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_file_of_comments_alone_is_told() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/device-status.example.toml");
    let output = device_status(&["config", "check", "--config", example], &[]);
    assert!(output.status.success(), "{output:?}");
    assert!(stdout(&output).contains("example.toml sets no key"), "{}", stdout(&output));
    let output = device_status(&["config", "check", "--json", "--config", example], &[]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(told["warnings"][0].as_str().unwrap().contains("sets no key"), "{told}");
}

#[test]
fn a_redis_that_wants_a_password_is_told_by_every_command() {
    let server = RedisServer::start_with_password(&["--requirepass", "hunter2"], "hunter2");
    let url = format!("redis://127.0.0.1:{}", server.port());
    let variables = [
        // Port 1: nobody listens there.
        ("DEVICE_STATUS_KAFKA__BROKERS", "127.0.0.1:1"),
        ("DEVICE_STATUS_REDIS__URL", &*url),
    ];
    let output = device_status(&["config", "check", "--connect"], &variables);
    assert_eq!(output.status.code(), Some(69));
    let line = stdout(&output).lines().find(|line| line.contains("Redis at")).unwrap();
    assert!(line.starts_with("problem") && line.contains("redis.password"), "{line}");
    for command in [["get", "a"], ["watch", "a"]] {
        let output = device_status(&command, &variables);
        assert_eq!(output.status.code(), Some(69), "{output:?}");
        assert!(stderr(&output).contains("redis.password"), "{output:?}");
    }
    let right = [("DEVICE_STATUS_REDIS__PASSWORD", "hunter2")];
    let output =
        device_status(&["config", "check", "--connect"], &[&variables[..], &right].concat());
    let line = stdout(&output).lines().find(|line| line.contains("Redis at")).unwrap();
    assert!(line.starts_with("ok"), "{line}");
}
