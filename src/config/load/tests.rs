use std::io::Write as _;
use std::time::Duration;

use super::*;
use crate::config::keys::OWNED_PROPERTIES;
use crate::config::{ChangeFormat, Format, Guarantee, LogFormat, Partitioner};
use crate::error::{Fatal, FatalKind};

fn variables(variables: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    owned.collect::<Vec<_>>().into_iter()
}

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Invalid> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    load(Some(file.path()), variables(environment), &[])
}

fn message(text: &str, environment: &[(&str, &str)]) -> String {
    let fatal = Fatal::from(load_text(text, environment).expect_err("must be refused"));
    assert_eq!(fatal.kind, FatalKind::Configuration);
    fatal.message
}

#[test]
fn an_empty_configuration_is_the_default() {
    let loaded = load(None, variables(&[]), &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.config.topics.changelog, "device-status-changelog");
    assert_eq!(loaded.config.rules(), crate::shard::Rules::default());
    assert_eq!(loaded.origin("kafka.brokers"), &Origin::Default);
}

#[test]
fn every_key_is_read_from_the_file() {
    let loaded = load_text(
        r#"
            [kafka]
            brokers = "a:9092,b:9093"
            group = "fleet"
            group_protocol = "classic"
            instance_id = "pod-7"
            oauth_command = ["/bin/token", "eu"]
            properties."sasl.mechanism" = "OAUTHBEARER"
            properties."security.protocol" = "sasl_ssl"
            properties.client.rack = "eu-1a"
            properties."fetch.max.bytes" = 1000
            [topics]
            heartbeats = "h"
            vpn_sessions = "v"
            lifecycle = "l"
            status_changes = "s"
            dead_letters = "d"
            partitions = 3
            replication_factor = 1
            partitioner = "any"
            accept_create_time = true
            unverified = true
            [formats]
            heartbeats = "confluent-protobuf"
            status_changes = "json"
            [processing]
            guarantee = "at_least_once"
            threads = 2
            commit_interval = "50ms"
            replay_window = "1h"
            max_clock_jump = "1m"
            slack = 0
            tombstone_retention = "2days"
            max_input_idle = "15s"
            max_lease_delay = "0s"
            [dead_letters]
            max_share = 0.25
            [heartbeat]
            tolerance = 2
            minimum = "1m"
            grace = "1s"
            default_poll_interval = "5m"
            [vpn]
            enabled_by_default = false
            [redis]
            url = "rediss://user:hunter2@redis:6380/1"
            username = "u"
            password = "hunter2"
            sentinel_username = "s"
            sentinel_password = "hunter2"
            ca_file = ""
            certificate_file = ""
            key_file = ""
            prefix = "x:"
            fleet_members = true
            refresh_interval = "0s"
            [admin]
            listen = "0.0.0.0:80"
            token = "hunter2"
            [log]
            format = "json"
            level = "warn,device_status=debug"
        "#,
        &[],
    )
    .unwrap();
    let config = &loaded.config;
    assert_eq!(config.kafka.brokers, "a:9092,b:9093");
    assert_eq!(config.kafka.group_protocol, GroupProtocol::Classic);
    assert_eq!(config.kafka.instance_id, "pod-7");
    assert_eq!(config.kafka.oauth_command, ["/bin/token", "eu"]);
    assert_eq!(config.kafka.properties["client.rack"], "eu-1a");
    assert_eq!(config.kafka.properties["fetch.max.bytes"], "1000");
    assert_eq!(config.topics.changelog, "fleet-changelog");
    assert_eq!(config.topics.input(crate::shard::Input::VpnSessions), "v");
    assert_eq!(config.topics.partitioner, Partitioner::Any);
    assert!(config.topics.accept_create_time && config.topics.unverified);
    assert_eq!(config.formats.heartbeats, Format::ConfluentProtobuf);
    assert_eq!(config.formats.status_changes, ChangeFormat::Json);
    assert_eq!(config.processing.guarantee, Guarantee::AtLeastOnce);
    assert_eq!(config.processing.threads, 2);
    assert_eq!(config.processing.slack, Duration::ZERO);
    assert_eq!(config.processing.tombstone_retention, Duration::from_secs(2 * 86_400));
    assert_eq!(config.processing.max_input_idle, Duration::from_secs(15));
    assert!((config.dead_letters.max_share - 0.25).abs() < f64::EPSILON);
    assert!((config.heartbeat.tolerance - 2.0).abs() < f64::EPSILON);
    assert_eq!(config.redis.refresh_interval, Duration::ZERO);
    assert_eq!(config.admin.listen.port(), 80);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.rules().grace_ms, 1_000);
    assert!(!config.rules().vpn_enabled_by_default);
    assert_eq!(config.rules().max_lease_delay_ms, 0);
    assert!(!format!("{config:?}").contains("hunter2"));
    let set = KEYS.iter().filter(|key| loaded.origins.contains_key(key.name)).count();
    assert_eq!(set, KEYS.len() - 4, "all but the changelog, two formats and CloudEvents");
}

#[test]
fn the_environment_overrides_the_file() {
    let loaded = load_text(
        "[kafka]\nbrokers = \"file:9092\"\ngroup = \"file\"\n",
        &[
            ("DEVICE_STATUS_KAFKA__BROKERS", "environment:9092"),
            ("DEVICE_STATUS_PROCESSING__THREADS", "3"),
            ("DEVICE_STATUS_HEARTBEAT__TOLERANCE", "1.25"),
            ("DEVICE_STATUS_TOPICS__ACCEPT_CREATE_TIME", "true"),
            ("DEVICE_STATUS_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
            ("DEVICE_STATUS_SERVICE_HOST", "10.0.0.1"),
            ("DEVICE_STATUS_PORT_9464_TCP_PORT", "9464"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap();
    assert_eq!(loaded.config.kafka.brokers, "environment:9092");
    assert_eq!(loaded.config.kafka.group, "file");
    assert_eq!(loaded.config.processing.threads, 3);
    assert!(loaded.config.topics.accept_create_time);
    assert_eq!(loaded.config.kafka.properties["sasl.password"], "hunter2");
    assert!(!format!("{:?}", loaded.config).contains("hunter2"));
    assert_eq!(
        loaded.origin("kafka.brokers").to_string(),
        "environment variable DEVICE_STATUS_KAFKA__BROKERS"
    );
    assert!(matches!(loaded.origin("kafka.group"), Origin::File { line: 3, .. }));
}

#[test]
fn every_variable_of_the_table_is_understood() {
    for key in KEYS {
        let value = match key.shown(&Config::default()) {
            toml::Value::String(text) => text,
            other => other.to_string(),
        };
        let variable = variable_of(key.name);
        let loaded = load(None, variables(&[(&variable, &value)]), &[]).unwrap();
        assert!(loaded.origins.contains_key(key.name), "{variable}");
        assert_eq!(loaded.config, Config::default());
    }
}

#[test]
fn all_errors_are_reported_at_once_with_source_and_remedy() {
    let message = message(
        "[heartbeat]\ntolerance = 0.5\ngracee = \"1s\"\n\n[processing]\nthreads = \"four\"\n\
         commit_interval = \"20\"\n[formats]\nlifecycle = \"avro\"\n",
        &[("DEVICE_STATUS_ADMIN__LISTEN", "9464")],
    );
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines[0], "the configuration is wrong in 6 places:");
    let expected = [
        ":2: heartbeat.tolerance = 0.5: is out of range; it must be from 1 to 100",
        ":3: heartbeat.gracee = \"1s\": is not a known key; did you mean heartbeat.grace?",
        ":6: processing.threads = \"four\": is text, not a whole number;",
        ":7: processing.commit_interval = \"20\": is not a duration",
        ":9: formats.lifecycle = \"avro\": is not a known value; use protobuf or confluent-",
        "environment variable DEVICE_STATUS_ADMIN__LISTEN: admin.listen = \"9464\": is not an IP",
    ];
    for (line, expected) in lines[1..].iter().zip(expected) {
        assert!(line.contains(expected), "{line}\nlacks {expected}");
    }
}

#[test]
fn settings_that_the_service_owns_are_refused_with_the_reason() {
    let owned = OWNED_PROPERTIES
        .iter()
        .flat_map(|(names, what, remedy)| names.iter().map(move |name| (name, what, remedy)));
    for (name, what, remedy) in owned {
        let text = format!("[kafka.properties]\n\"{name}\" = \"x\"\n");
        let message = message(&text, &[]);
        assert!(message.contains(what) && message.contains(remedy), "{message}");
    }
    let text = "[kafka.properties]\n\"session.timeout.ms\" = 6000\n";
    assert!(message(text, &[]).contains("is set by the broker"));
    assert!(load_text(text, &[("DEVICE_STATUS_KAFKA__GROUP_PROTOCOL", "classic")]).is_ok());
}

#[test]
fn librdkafka_is_asked_about_its_settings() {
    let text = "[kafka.properties]\n\"securty.protocol\" = \"ssl\"\n\"fetch.max.bytes\" = \"x\"\n";
    let message = message(text, &[]);
    assert!(message.contains("No such configuration property"), "{message}");
    assert_eq!(message.lines().count(), 3, "{message}");
}

#[test]
fn secrets_are_not_shown_in_errors() {
    let message = message(
        "[redis]\nurl = \"http://user:hunter2@redis\"\n",
        &[("DEVICE_STATUS_KAFKA__PROPERTIES__SSL_KEY_PASSWORT", "hunter2")],
    );
    assert_eq!(message.lines().count(), 3, "{message}");
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn replay_window_must_not_exceed_tombstone_retention() {
    let text = "[processing]\nreplay_window = \"48h\"\n";
    assert!(message(text, &[]).contains("increase processing.tombstone_retention"));
    let longer = [("DEVICE_STATUS_PROCESSING__TOMBSTONE_RETENTION", "49h")];
    assert!(load_text(text, &longer).is_ok());
}

#[test]
fn a_secret_under_a_misspelt_key_is_not_shown() {
    for variable in
        ["REDIS__PASWORD", "KAFKA__PROPERTIES__SASL_PASWORD", "KAFKA__PROPERTIES_SASL_PASSWORD"]
    {
        let variable = format!("DEVICE_STATUS_{variable}");
        let message = message("", &[(&variable, "hunter2")]);
        assert!(message.contains("is not a known key") || message.contains("asword"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn topics_must_differ_and_the_default_changelog_must_be_valid() {
    let text = "[topics]\nlifecycle = \"device-heartbeats\"\n";
    assert!(message(text, &[]).contains("is also the topic of topics.heartbeats"));
    let text = "[kafka]\ngroup = \"a/b\"\n";
    assert!(message(text, &[]).contains("set topics.changelog to a valid name"));
    assert!(load_text(text, &[("DEVICE_STATUS_TOPICS__CHANGELOG", "c")]).is_ok());
}

#[test]
fn a_malformed_file_is_reported_with_its_line() {
    let message = message("[kafka]\nbrokers = localhost\n", &[]);
    assert!(message.contains(":2: is not TOML"), "{message}");
}

#[test]
fn a_missing_file_is_reported() {
    let fatal =
        Fatal::from(load(Some(Path::new("/nowhere.toml")), variables(&[]), &[]).unwrap_err());
    assert!(fatal.message.contains("/nowhere.toml"));
    assert_eq!(fatal.kind.exit_code(), 78);
}

#[test]
fn a_key_in_the_wrong_section_is_found() {
    let message = message("[kafka]\nthreads = 4\nbroker = \"a\"\nxyzzy = 1\n", &[]);
    assert!(message.contains("did you mean processing.threads?"), "{message}");
    assert!(message.contains("did you mean kafka.brokers?"), "{message}");
    assert!(message.contains("config show"), "{message}");
}

fn secret(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn secrets_come_from_files_without_a_line_end() {
    let (password, other, token) = (secret("hunter2\n"), secret("hunter3\r\n"), secret("t0ken"));
    let path = |file: &tempfile::NamedTempFile| file.path().display().to_string();
    let text = format!(
        "[kafka.properties]\n\"sasl.password_file\" = {:?}\n[admin]\ntoken_file = {:?}\n",
        path(&password),
        path(&token)
    );
    let loaded = load_text(&text, &[]).unwrap();
    assert_eq!(loaded.config.kafka.properties["sasl.password"], "hunter2");
    assert_eq!(loaded.config.admin.token, "t0ken");
    let origin = loaded.origin("admin.token").to_string();
    assert!(origin.contains(":4, in ") && origin.ends_with(&path(&token)), "{origin}");
    let shown = crate::config::document::effective(&loaded);
    assert!(!shown.contains("hunter2") && !shown.contains("t0ken"), "{shown}");
    assert!(!format!("{:?}", loaded.config).contains("t0ken"));

    let variable = "DEVICE_STATUS_KAFKA__PROPERTIES__SASL_PASSWORD_FILE";
    let loaded = load_text(&text, &[(variable, &path(&other))]).unwrap();
    assert_eq!(loaded.config.kafka.properties["sasl.password"], "hunter3");
    // One of librdkafka's own names that end in `.file`.
    let variable = "DEVICE_STATUS_KAFKA__PROPERTIES__SASL_OAUTHBEARER_ASSERTION_FILE";
    let loaded = load_text("", &[(variable, "/some/where")]).unwrap();
    assert_eq!(loaded.config.kafka.properties["sasl.oauthbearer.assertion.file"], "/some/where");
}

#[test]
fn an_unusable_secret_file_is_reported_with_its_path() {
    let empty = secret("\n");
    let empty_path = empty.path().display().to_string();
    let message = message(
        "[kafka.properties]\n\"sasl.password_file\" = \"/nowhere/password\"\n\
         \"ssl.ca.location\" = \"/nowhere/ca.pem\"\n\"group.id_file\" = \"/etc/hostname\"\n",
        &[
            ("DEVICE_STATUS_ADMIN__TOKEN_FILE", &empty_path),
            // It never ends.
            ("DEVICE_STATUS_KAFKA__PROPERTIES__SASL_PASSWORD_FILE", "/dev/zero"),
        ],
    );
    assert_eq!(message.lines().count(), 6, "{message}");
    for expected in [
        "has more than 1048576 bytes",
        ":2: kafka.properties.sasl.password_file = \"/nowhere/password\": cannot be read: No such",
        ":3: kafka.properties.ssl.ca.location = \"/nowhere/ca.pem\": cannot be read: No such",
        "kafka.properties.group.id = ",
        "is an empty file",
    ] {
        assert!(message.contains(expected), "{message}\nlacks {expected}");
    }
}

#[test]
fn a_secret_set_twice_is_refused_unless_one_overrides_the_other() {
    let file = secret("hunter2");
    let path = file.path().display().to_string();
    let text = format!("[admin]\ntoken = \"a\"\ntoken_file = {path:?}\n");
    let message = message(&text, &[]);
    assert!(message.contains("is set twice") && !message.contains("hunter2"), "{message}");
    let text = "[admin]\ntoken = \"a\"\n";
    let loaded = load_text(text, &[("DEVICE_STATUS_ADMIN__TOKEN_FILE", &path)]).unwrap();
    assert_eq!(loaded.config.admin.token, "hunter2");
}

#[test]
fn the_command_line_overrides_file_and_environment() {
    let file = secret("[kafka]\ngroup = \"file\"\n");
    let environment = || variables(&[("DEVICE_STATUS_KAFKA__GROUP", "environment")]);
    let flags = ["kafka.group=flag".to_owned(), "kafka.properties.client.rack=r1".to_owned()];
    let loaded = load(Some(file.path()), environment(), &flags).unwrap();
    assert_eq!(loaded.config.kafka.group, "flag");
    assert_eq!(loaded.config.kafka.properties["client.rack"], "r1");
    assert_eq!(loaded.origin("kafka.group"), &Origin::Flag);
    let flags = ["kafka.grup=x".to_owned(), "hunter2".to_owned()];
    let message = Fatal::from(load(None, variables(&[]), &flags).unwrap_err()).message;
    assert!(
        message
            .contains("--set: kafka.grup = \"x\": is not a known key; did you mean kafka.group?")
    );
    assert!(message.contains("--set: has no equals sign") && !message.contains("hunter2"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_harm(
        text in r#"((\[[a-z.]{0,9}\]|kafka|topics|admin|token|properties|group|"sasl.password"|=|\.|"[^"]{0,5}"|[0-9]{1,20}|true|\{|\}|,|\[\]|#) ?\n?){0,20}"#,
        variable in "DEVICE_STATUS_(KAFKA|TOPICS|X)__(BROKERS|PROPERTIES__[A-Z_]{0,9}|[A-Z_]{0,9})",
        value in proptest::prelude::any::<String>(),
        flag in "(kafka|admin)?[.=a-z]{0,12}",
    ) {
        let file = Some((Path::new("fuzzed.toml"), text.as_str()));
        let _ = from_text(file, [(variable, value)].into_iter(), &[flag]);
    }
}

#[test]
fn a_fetch_wait_beyond_max_input_idle_is_refused() {
    let text = "[processing]\nmax_input_idle = \"5s\"\n\
                [kafka.properties]\n\"fetch.wait.max.ms\" = \"5001\"\n";
    let told = message(text, &[]);
    assert!(told.contains("kafka.properties.fetch.wait.max.ms"), "{told}");
    assert!(told.contains("processing.max_input_idle (5000 ms)"), "{told}");
    let just = [("DEVICE_STATUS_PROCESSING__MAX_INPUT_IDLE", "5001ms")];
    let config = load_text(text, &just).unwrap();
    assert_eq!(config.config.rules().max_input_idle_ms, 5_001);
    for wrong in ["\"999ms\"", "\"61m\"", "5"] {
        let told = message(&format!("[processing]\nmax_input_idle = {wrong}\n"), &[]);
        assert!(told.contains("processing.max_input_idle"), "{told}");
    }
}

#[test]
fn a_program_for_tokens_needs_the_mechanism_and_no_other_source() {
    let problem = |text: &str| {
        let invalid = load_text(text, &[]).unwrap_err();
        assert_eq!(invalid.problems().len(), 1, "{invalid}");
        invalid.to_string()
    };
    let with = |command: &str, properties: &str| {
        format!("[kafka]\noauth_command = {command}\n[kafka.properties]\n{properties}")
    };
    let mechanism = "\"sasl.mechanism\" = \"OAUTHBEARER\"\n";
    let protocol = "\"security.protocol\" = \"SASL_SSL\"\n";
    let oidc = "\"sasl.oauthbearer.method\" = \"oidc\"\n";
    let told = problem(&with("[\"x\"]", protocol));
    assert!(told.contains("kafka.properties.sasl.mechanism"), "{told}");
    let told = problem(&with("[\"x\"]", mechanism));
    assert!(told.contains("kafka.properties.security.protocol"), "{told}");
    let told = problem(&with("[\"x\"]", &[mechanism, protocol, oidc].concat()));
    assert!(told.contains("second source"), "{told}");
    let told = problem(&with("\"x y\"", ""));
    assert!(told.contains("is text, not an array of texts"), "{told}");
    let told = problem(&with("[\"\"]", ""));
    assert!(told.contains("names no program"), "{told}");
    assert!(load_text(&with("[]", ""), &[]).is_ok());
    let variable = ("DEVICE_STATUS_KAFKA__OAUTH_COMMAND", "[\"x\", \"y\"]");
    let right = [mechanism, protocol].concat();
    let loaded = load_text(&format!("[kafka.properties]\n{right}"), &[variable]).unwrap();
    assert_eq!(loaded.config.kafka.oauth_command, ["x", "y"]);
}
