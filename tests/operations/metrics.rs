//! The metrics of a running process are those of docs/metrics.md, and Prometheus
//! understands them: promtool, and a real server that scrapes the process and answers each
//! query of the dashboard and of the alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::events::{self, device_id};
use crate::support::kafka::KafkaBroker;
use crate::support::process::{Process, free_port};
use crate::support::redis::RedisServer;
use crate::support::service::{DeviceStatus, ServiceConfig};
use crate::support::wait::{now_ms, wait_for, wait_until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// A metric as it is told of: its type, and its labels.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    kind: String,
    labels: BTreeSet<String>,
}

/// The metrics of the tables in docs/metrics.md.
fn documented() -> BTreeMap<String, Told> {
    let text = page("docs/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter(|row| row.starts_with("device_status_") || row.starts_with("process_"));
    let told = rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let (kind, labels) = cells[1].split_once("; ").unwrap_or((cells[1], ""));
        // What stands in brackets after a label are its values.
        let mut depth = 0;
        let outside = labels.chars().filter(|&c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        let outside: String = outside.collect();
        let labels = outside.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (cells[0].trim_end_matches('`').to_owned(), Told { kind: kind.to_owned(), labels })
    });
    told.collect()
}

/// The metrics of a text that Prometheus scrapes.
fn exposed(text: &str) -> BTreeMap<String, Told> {
    let mut metrics: BTreeMap<String, Told> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let told = Told { kind: kind.to_owned(), labels: BTreeSet::new() };
            assert!(metrics.insert(name.to_owned(), told).is_none(), "{name} twice");
        } else if !line.starts_with('#') && !line.is_empty() {
            let (name, labels) = line.split_once('{').unwrap_or((line, ""));
            let name = name.split(' ').next().unwrap();
            let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                metrics.get(name.strip_suffix(suffix)?).map(|_| name.strip_suffix(suffix).unwrap())
            });
            let told = metrics.get_mut(histogram.unwrap_or(name)).unwrap_or_else(|| {
                panic!("{name} has no type");
            });
            let labels = labels.split('}').next().unwrap().split("\",");
            let names = labels.filter_map(|label| label.split_once('=')).map(|(name, _)| name);
            told.labels.extend(names.filter(|name| *name != "le").map(str::to_owned));
        }
    }
    metrics
}

/// Gives a program its input, and returns what it printed if it is content.
fn content(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root().join("deploy/prometheus"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!("{program}: {error}; scripts/need.sh prometheus installs it")
    });
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text += &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// A real Prometheus that scrapes one process each second, with our alerts.
struct Prometheus {
    port: u16,
    _directory: tempfile::TempDir,
    _process: Process,
}

impl Prometheus {
    fn start(target: &str) -> Prometheus {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("prometheus.yaml");
        let rules = root().join("deploy/prometheus/rules.yaml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs: [{{job_name: device-status, static_configs: [{{targets: ['{target}']}}]}}]\n",
            rules.display()
        );
        std::fs::write(&config, text).unwrap();
        let port = free_port();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::spawn("prometheus", command);
        Prometheus { port, _directory: directory, _process: process }
    }

    /// Asks its API, and returns the data of its answer.
    fn ask(&self, path: &str) -> Result<Value, String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            // HTTP/1.0: no chunks.
            write!(stream, "GET /api/v1/{path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|error| error.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
        let mut body: Value = serde_json::from_str(body).map_err(|_| answer.clone())?;
        match body["status"] == "success" {
            true => Ok(body["data"].take()),
            false => Err(body.to_string()),
        }
    }

    /// The series that a query finds.
    fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let mut encoded = String::new();
        for byte in query.bytes() {
            write!(encoded, "%{byte:02x}").unwrap();
        }
        let data = self.ask(&format!("query?query={encoded}"))?;
        Ok(data["result"].as_array().ok_or("no vector")?.clone())
    }

    /// Waits until a query finds something.
    #[track_caller]
    fn wait_for_data(&self, query: &str) {
        wait_for(SOON, &format!("data of {query}"), || match self.query(query)?.is_empty() {
            true => Err("nothing is found".to_owned()),
            false => Ok(()),
        });
    }
}

/// Each query of the dashboard, as Grafana would send it for all processes.
fn dashboard_queries() -> Vec<String> {
    fn collect(value: &Value, queries: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(query)) = object.get("expr") {
                    queries.push(query.clone());
                }
                object.values().for_each(|value| collect(value, queries));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
            _ => {}
        }
    }
    let dashboard: Value =
        serde_json::from_str(&page("deploy/grafana/device-status.json")).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    let filled = |query: String| {
        let query = query.replace("$__rate_interval", "20s");
        query.replace("$job", ".*").replace("$instance", ".*")
    };
    queries.into_iter().map(filled).collect()
}

/// What a healthy process rightly has nothing to say about.
const EMPTY_WHEN_WELL: &[&str] = &["ALERTS{", "changes(process_start_time_seconds"];

#[test]
fn the_metrics_are_as_documented_and_prometheus_answers_every_query() {
    let broker = KafkaBroker::shared();
    let redis = RedisServer::start();
    let topics = broker.service_topics("metrics", 2);
    let config = ServiceConfig::new(broker, &topics).redis(&redis.url());
    let config = config.set("redis.refresh_interval", "10s");
    let service = DeviceStatus::start_ready(&config.clone().announce(&["becomes a dead letter"]));
    let prometheus = Prometheus::start(config.text("admin.listen"));

    let producer = broker.producer();
    let traffic = |round: u64| {
        // Who was told of some rounds ago falls silent, and expires.
        let device = device_id(round / 10);
        let second = Duration::from_secs(1);
        producer.send(&topics, [events::registered(&device, now_ms(), "berlin", "acme")]);
        producer.send(&topics, [events::heartbeat_every(&device, now_ms(), second)]);
        producer.send(&topics, [events::toggled(&device, now_ms(), "vpn-1", round % 2)]);
        let mut broken = events::heartbeat(&device, now_ms());
        broken.value = Some(b"not a message".to_vec());
        producer.send(&topics, [broken]);
        producer.flush();
    };
    let mut rounds = 0..;
    wait_until(SOON, "changes by events and by deadlines", || {
        traffic(rounds.next().unwrap());
        ["device_status_deadlines_total", "device_status_dead_letters_total"]
            .iter()
            .all(|name| service.metric(name, "").is_some_and(|value| value > 5.0))
    });
    wait_until(SOON, "the sweep to look at all", || {
        service.metric("device_status_redis_scans_total", "").is_some_and(|scans| scans > 0.0)
    });

    let (code, text) = service.get("/metrics").unwrap();
    assert_eq!(code, 200);
    let (documented, exposed) = (documented(), exposed(&text));
    for (name, told) in &documented {
        let found = exposed.get(name);
        let found = found.unwrap_or_else(|| panic!("{name} is documented, and is not there"));
        assert_eq!(found, told, "{name}: as it is, and as docs/metrics.md has it");
    }
    for name in exposed.keys() {
        assert!(documented.contains_key(name), "{name} is missing in docs/metrics.md");
    }
    let sum_of = |name: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    let changes = sum_of("device_status_changes_total{");
    let delays = sum_of("device_status_change_delay_seconds_count");
    assert!(changes > 0.0 && (changes - delays).abs() < 0.5, "{changes} changes, {delays} delays");
    let told_soon = sum_of("device_status_change_delay_seconds_bucket{le=\"60\"}");
    assert!(told_soon > 0.9 * changes, "{told_soon} of {changes} changes within a minute");
    let complaints = content("promtool", &["check", "metrics"], &text).unwrap();
    assert_eq!(complaints, "", "promtool check metrics");

    // Whatever moves needs two scrapes.
    prometheus
        .wait_for_data("increase(device_status_commits_total{result=\"committed\"}[20s]) > 0");
    let queries = dashboard_queries();
    assert!(queries.len() > 30, "the dashboard's queries were not found");
    for query in &queries {
        traffic(rounds.next().unwrap());
        if EMPTY_WHEN_WELL.iter().any(|start| query.starts_with(start)) {
            prometheus.query(query).unwrap_or_else(|error| panic!("{query}: {error}"));
        } else {
            prometheus.wait_for_data(query);
        }
        for name in names(query) {
            assert!(documented.contains_key(&name), "{name} is not a metric: {query}");
        }
    }

    let rules = wait_for(SOON, "all rules to be evaluated", || {
        let data = prometheus.ask("rules")?;
        let groups = data["groups"].as_array().ok_or("no groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        let rules: Vec<Value> = rules.cloned().collect();
        match rules.iter().find(|rule| rule["health"] == "unknown") {
            Some(rule) => Err(rule.to_string()),
            None if rules.is_empty() => Err("no rules".to_owned()),
            None => Ok(rules),
        }
    });
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        for name in names(rule["query"].as_str().unwrap()) {
            assert!(documented.contains_key(&name), "{name} is not a metric: {rule}");
        }
    }
    // The records that could not be used have come to somebody's notice.
    prometheus
        .wait_for_data("ALERTS{alertname=\"DeviceStatusDeadLetters\", alertstate=\"firing\"}");
    let firing = prometheus.query("ALERTS{alertstate=\"firing\"}").unwrap();
    let names: BTreeSet<&str> =
        firing.iter().filter_map(|alert| alert["metric"]["alertname"].as_str()).collect();
    let expected = ["DeviceStatusDeadLetters", "DeviceStatusMassOffline"];
    assert!(names.iter().all(|name| expected.contains(name)), "alerts without a cause: {names:?}");
}

/// Our metrics that a query asks for.
fn names(query: &str) -> Vec<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let ours =
        words.filter(|word| word.starts_with("device_status_") || word.starts_with("process_"));
    ours.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn the_alerts_pass_their_tests_and_each_has_a_place_in_the_documentation() {
    content("promtool", &["check", "rules", "--lint-fatal", "rules.yaml"], "").unwrap();
    content("promtool", &["test", "rules", "rules_test.yaml"], "").unwrap();

    let (rules, tests) =
        (page("deploy/prometheus/rules.yaml"), page("deploy/prometheus/rules_test.yaml"));
    let alerts: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 20, "the alerts were not found");
    let operations = page("docs/operations.md");
    let explained: BTreeSet<&str> =
        operations.lines().filter_map(|line| line.strip_prefix("### DeviceStatus")).collect();
    let explained = explained.into_iter().map(|name| format!("DeviceStatus{name}")).collect();
    let named: BTreeSet<String> = alerts.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(named, explained, "the alerts, and the headings of docs/operations.md");
    for alert in alerts {
        let place = format!("runbook_url: docs/operations.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&place), "{alert} does not name its place");
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "no test lets {alert} fire");
    }
}

/// Somebody who installs the service as the documentation says finds these.
#[test]
fn the_files_that_the_documentation_points_to_are_there() {
    let mut links = 0;
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        links += assert_links(&path);
    }
    links += assert_links(&root().join("README.md"));
    assert!(links > 50, "only {links} links were found");
}

fn assert_links(page: &Path) -> usize {
    let text = std::fs::read_to_string(page).unwrap();
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://") && !target.contains(' '));
    let mut links = 0;
    for target in local {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let file: PathBuf = match file {
            "" => page.to_owned(),
            file => page.parent().unwrap().join(file),
        };
        assert!(file.exists(), "{}: {target} is not there", page.display());
        if !anchor.is_empty() {
            let headings = std::fs::read_to_string(&file).unwrap();
            let mut headings = headings.lines().filter(|line| line.starts_with('#')).map(anchor_of);
            assert!(
                headings.any(|heading| heading == anchor),
                "{}: {target}: no such heading",
                page.display()
            );
        }
        links += 1;
    }
    links
}

/// The anchor that a heading gets.
fn anchor_of(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
