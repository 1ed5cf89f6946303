//! What was measured: a table of ratios against each bar, and report.json.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::load::Fleet;
use crate::plot;

/// So many records in so much time.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Records a second.
    pub per_s: f64,
    /// Nanoseconds of the reading thread's processor time a record; 0: not known.
    pub cpu_ns: f64,
}

impl Measured {
    /// Of a count, the time it took and the time the processor worked on it.
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn new(records: u64, took: Duration, cpu_ns: u64) -> Measured {
        let records = records as f64;
        Measured { per_s: records / took.as_secs_f64().max(1e-9), cpu_ns: cpu_ns as f64 / records }
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

/// Everything measured, by name.
pub struct Report {
    samples: BTreeMap<String, Vec<Measured>>,
    values: BTreeMap<String, Value>,
}

impl Report {
    /// An empty one, which says what was asked for.
    pub fn new(fleet: &Fleet, rounds: usize) -> Report {
        let mut report = Report { samples: BTreeMap::new(), values: BTreeMap::new() };
        report.set("devices", fleet.devices);
        report.set("heartbeats", fleet.heartbeats);
        report.set("partitions", fleet.partitions);
        report.set("rounds", rounds);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        report.set("cores", cores);
        report
    }

    /// Another sample of a measure.
    pub fn add(&mut self, name: &str, measured: Measured) {
        let cpu = match measured.cpu_ns {
            0.0 => String::new(),
            ns => format!(", {ns:.0} ns of its thread each"),
        };
        say(&format!("  {name}: {:.0} records/s{cpu}", measured.per_s));
        self.samples.entry(name.to_owned()).or_default().push(measured);
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
        let mut values: Vec<f64> = self.samples.get(name)?.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
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
        println!("\n{:32} {:>14} {:>12}", "measure (median)", "records/s", "thread ns");
        for name in self.samples.keys().cloned().collect::<Vec<_>>() {
            let per_s = self.median(&name, |sample| sample.per_s).unwrap_or_default();
            let cpu_ns = self.median(&name, |sample| sample.cpu_ns).unwrap_or_default();
            println!("{name:32} {per_s:>14.0} {cpu_ns:>12.0}");
            self.set(&format!("{name}_per_s"), per_s.round());
            if cpu_ns > 0.0 {
                self.set(&format!("{name}_cpu_ns"), cpu_ns.round());
            }
        }
        println!("\n{:32} {:>10} {:>10}", "ratio", "measured", "bar");
        for bar in BARS {
            let of = |name| self.median(name, |sample| sample.per_s);
            let (Some(measure), Some(against)) = (of(bar.measure), of(bar.against)) else {
                continue;
            };
            let ratio = measure / against;
            let verdict = if bar.least.is_none_or(|least| ratio >= least) { "" } else { "  below" };
            let least = bar.least.map_or_else(String::new, |least| format!("{least:.2}+"));
            println!("{:32} {ratio:>10.2} {least:>10}{verdict}", bar.name);
            self.set(bar.name, (ratio * 1000.0).round() / 1000.0);
        }
        for (name, most) in [("latency_p50_ms", 30.0), ("latency_p99_ms", 75.0)] {
            self.at_most(name, most);
        }
        fs::create_dir_all(output).expect("the output directory");
        // What `tests/memory.rs` counted, where `make bench` had it count.
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
        .filter_map(|name| Some((name, self.median(name, |sample| sample.per_s)?)))
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
