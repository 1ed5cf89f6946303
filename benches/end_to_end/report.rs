//! What was measured: a table of ratios against each bar, and report.json.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::load::Fleet;
use crate::plot;

/// A shorter run is no measurement: what begins and ends it counts too much.
pub const LEAST: Duration = Duration::from_secs(5);

/// Runs of one measure that differ by more than this are marked.
const NOISY: f64 = 0.15;

/// So many records in so much time.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// How many.
    pub records: u64,
    /// From the first to the last.
    pub took: Duration,
    /// Nanoseconds of the reading thread's processor time a record; 0: not known.
    pub cpu_ns: f64,
}

impl Measured {
    /// Of a count, the time it took, and the thread's time for each record.
    pub fn new(records: u64, took: Duration, cpu_ns: f64) -> Measured {
        Measured { records, took, cpu_ns }
    }

    /// Records a second.
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn per_s(&self) -> f64 {
        self.records as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Nanoseconds by the wall clock a record.
    pub fn wall_ns(&self) -> f64 {
        1e9 / self.per_s().max(1e-9)
    }
}

/// A ratio: `measure` over `against`, which should reach `least`, if it is a bar.
struct Bar {
    name: &'static str,
    measure: &'static str,
    against: &'static str,
    least: Option<f64>,
}

const BARS: [Bar; 6] = [
    Bar { name: "steady_vs_bare", measure: "steady", against: "bare", least: Some(0.85) },
    Bar { name: "cold_vs_bare", measure: "cold", against: "bare", least: Some(0.4) },
    // For comparison: were the yardstick's memory managed as well as ours.
    Bar {
        name: "steady_vs_bare_with_jemalloc",
        measure: "steady",
        against: "bare_with_jemalloc",
        least: None,
    },
    Bar {
        name: "cold_vs_bare_with_jemalloc",
        measure: "cold",
        against: "bare_with_jemalloc",
        least: None,
    },
    Bar {
        name: "cold_vs_kafka_streams",
        measure: "cold",
        against: "kafka_streams_cold",
        least: Some(4.0),
    },
    Bar {
        name: "restore_vs_bare",
        measure: "restore",
        against: "bare_changelog",
        least: Some(0.5),
    },
];

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get((values.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

/// How far apart the least and the greatest are, as a share of the median.
fn variation(values: &[f64]) -> f64 {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    median(values.to_vec()).map_or(0.0, |median| (most - least) / median.max(1e-9))
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Everything measured, by name.
pub struct Report {
    samples: BTreeMap<String, Vec<Measured>>,
    /// Ratios of runs that followed each other.
    pairs: BTreeMap<&'static str, Vec<f64>>,
    values: BTreeMap<String, Value>,
}

impl Report {
    /// An empty one, which says what was asked for.
    pub fn new(fleet: &Fleet, rounds: usize) -> Report {
        let (samples, pairs, values) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut report = Report { samples, pairs, values };
        report.set("devices", fleet.devices);
        report.set("heartbeats", fleet.heartbeats);
        report.set("partitions", fleet.partitions);
        report.set("rounds", rounds);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        report.set("cores", cores);
        report
    }

    /// Another sample of a measure. Where its yardstick was measured before it,
    /// the two are a pair.
    pub fn add(&mut self, name: &str, measured: Measured) {
        let cpu = match measured.cpu_ns {
            0.0 => String::new(),
            ns => format!(", {ns:.0} ns of its thread"),
        };
        let short = if measured.took < LEAST { "; too short a run" } else { "" };
        say(&format!(
            "  {name}: {:.0} records/s over {:.1} s; a record {:.0} ns{cpu}{short}",
            measured.per_s(),
            measured.took.as_secs_f64(),
            measured.wall_ns(),
        ));
        self.samples.entry(name.to_owned()).or_default().push(measured);
        for bar in &BARS {
            if bar.measure == name
                && let Some(against) = self.samples.get(bar.against).and_then(|all| all.last())
            {
                let ratio = measured.per_s() / against.per_s();
                self.pairs.entry(bar.name).or_default().push(ratio);
            }
        }
    }

    /// A value of another kind.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.values.insert(name.to_owned(), value.into());
    }

    /// Where a process's time went.
    pub fn add_threads(&mut self, name: &str, threads: &BTreeMap<String, u64>) {
        let mut threads: Vec<_> = threads.iter().filter(|(_, ns)| **ns > 50_000_000).collect();
        threads.sort_by_key(|(_, ns)| std::cmp::Reverse(**ns));
        for (thread, ns) in &threads {
            say(&format!("    {thread}: {} ms of processor time", *ns / 1_000_000));
        }
        let by_name: Map<String, Value> = threads
            .into_iter()
            .map(|(thread, ns)| (thread.clone(), json!(ns / 1_000_000)))
            .collect();
        self.set(&format!("{name}_threads_ms"), by_name);
    }

    fn median(&self, name: &str, of: impl Fn(&Measured) -> f64) -> Option<f64> {
        median(self.samples.get(name)?.iter().map(of).collect())
    }

    /// Prints a line for each measure: by the wall clock, by the thread's, and
    /// how far its runs are apart.
    fn measures(&mut self) {
        println!(
            "\n{:32} {:>12} {:>9} {:>10} {:>10}",
            "measure (median)", "records/s", "wall ns", "thread ns", "variation"
        );
        let mut noisy = Vec::new();
        let mut short = Vec::new();
        for (name, samples) in self.samples.clone() {
            let of = |value: fn(&Measured) -> f64| samples.iter().map(value).collect::<Vec<_>>();
            let median = |value| median(of(value)).unwrap_or_default();
            let (per_s, cpu_ns) = (median(Measured::per_s), median(|sample| sample.cpu_ns));
            let wall_ns = 1e9 / per_s.max(1e-9);
            let apart = variation(&of(Measured::per_s));
            let mut marks = String::new();
            if apart > NOISY {
                marks += "  noisy";
                noisy.push(name.clone());
            }
            if samples.iter().any(|sample| sample.took < LEAST) {
                marks += "  short";
                short.push(name.clone());
            }
            let percent = apart * 100.0;
            println!(
                "{name:32} {per_s:>12.0} {wall_ns:>9.0} {cpu_ns:>10.0} {percent:>9.0}%{marks}"
            );
            self.set(&format!("{name}_per_s"), per_s.round());
            self.set(&format!("{name}_wall_ns"), wall_ns.round());
            if cpu_ns > 0.0 {
                self.set(&format!("{name}_cpu_ns"), cpu_ns.round());
            }
            self.set(&format!("{name}_variation"), thousandths(apart));
        }
        self.set("noisy", noisy);
        self.set("short", short);
    }

    /// Prints a line for each ratio: the median of the pairs.
    fn ratios(&mut self) {
        println!("\n{:32} {:>10} {:>10} {:>10}", "ratio", "measured", "bar", "variation");
        for bar in &BARS {
            let Some(pairs) = self.pairs.get(bar.name) else { continue };
            let apart = variation(pairs);
            let Some(ratio) = median(pairs.clone()) else { continue };
            let mut verdict = String::new();
            if bar.least.is_some_and(|least| ratio < least) {
                verdict += "  below";
            }
            if apart > NOISY {
                verdict += "  noisy";
            }
            let least = bar.least.map_or_else(String::new, |least| format!("{least:.2}+"));
            let percent = apart * 100.0;
            println!("{:32} {ratio:>10.2} {least:>10} {percent:>9.0}%{verdict}", bar.name);
            self.set(bar.name, thousandths(ratio));
            self.set(&format!("{}_variation", bar.name), thousandths(apart));
        }
    }

    /// A line of the table for what should be small.
    fn at_most(&self, name: &str, most: f64) {
        if let Some(value) = self.values.get(name).and_then(Value::as_f64) {
            let verdict = if value <= most { "" } else { "  above" };
            println!("{name:32} {value:>10.1} {most:>9.1}-{verdict}");
        }
    }

    /// Prints the table, writes report.json and the plot.
    pub fn finish(mut self, output: &Path) {
        self.measures();
        self.ratios();
        for (name, most) in [("latency_p50_ms", 30.0), ("latency_p99_ms", 75.0)] {
            self.at_most(name, most);
        }
        fs::create_dir_all(output).expect("the output directory");
        // What `tests/pure/memory.rs` counted, where `make bench` had it count.
        if let Ok(counted) = fs::read(output.join("memory.json")) {
            let counted: Map<String, Value> = serde_json::from_slice(&counted).expect("JSON");
            self.values.extend(counted);
        }
        for (name, most) in [
            ("bytes_per_device_heartbeat_only", 72.0),
            ("bytes_per_device_full", 112.0),
            ("bytes_per_closed_session", 64.0),
        ] {
            self.at_most(name, most);
        }
        let text = serde_json::to_string_pretty(&self.values).expect("JSON");
        let path = output.join("report.json");
        fs::write(&path, text + "\n").expect("report.json");
        let rates: Vec<_> = [
            "bare",
            "bare_with_jemalloc",
            "steady",
            "cold",
            "kafka_streams_cold",
            "bare_changelog",
            "restore",
        ]
        .into_iter()
        .filter_map(|name| Some((name, self.median(name, Measured::per_s)?)))
        .collect();
        if !rates.is_empty() {
            fs::write(output.join("rates.svg"), plot::bars(&rates)).expect("rates.svg");
        }
        println!("\n{} and what it draws are in {}", path.display(), output.display());
    }
}

/// Tells the person who waits.
pub fn say(line: &str) {
    eprintln!("{line}");
}
