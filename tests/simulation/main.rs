//! Simulated worlds: the loop of production, over a simulated Kafka, Redis and
//! clocks, with faults, all from one seed; and an auditor that judges from the
//! topics alone.
//!
//! `SIM_SEED=7` replays one seed and prints its trace, `SIM_SEEDS=5000` runs as
//! many, `SIM_FIRST=1000` begins with another than seed 0, `SIM_ENOUGH=300` goes
//! on after so many that fail.

mod alarms;
mod auditor;
mod backlog;
mod client;
mod commit;
mod excuses;
mod group;
mod kafka;
mod redis;
mod script;
mod sim;
mod stories;
mod suspended;
mod workload;
mod world;

#[path = "../oracle/mod.rs"]
mod oracle;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use world::Outcome;

/// How many seeds an ordinary run takes.
const SEEDS: u64 = 300;
/// After how many seeds that fail nobody wants to see more.
const ENOUGH: u64 = 5;
/// How much of a trace is printed of a seed that fails.
const TAIL: usize = 60;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.trim().parse().ok())
}

/// A bar where there is a terminal to draw it on.
fn progress(seeds: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {pos} of {len} seeds, {per_sec}, {eta} to go");
    ProgressBar::new(seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Runs a seed; a panic is a failure like any other.
fn run(seed: u64, trace: bool) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| world::run(seed, trace))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let failure = format!("panic: {}", text.unwrap_or_default());
        Outcome { failures: vec![failure], ..Outcome::default() }
    })
}

fn replay(seed: u64, whole: bool) -> Outcome {
    let outcome = run(seed, true);
    let skip = if whole { 0 } else { outcome.trace.len().saturating_sub(TAIL) };
    for line in outcome.trace.iter().skip(skip) {
        println!("{line}");
    }
    for failure in &outcome.failures {
        println!("seed {seed}: {failure}");
    }
    outcome
}

#[test]
fn every_world_ends_as_its_inputs_say() {
    if let Some(seed) = variable("SIM_SEED") {
        alarms::listen(true);
        let outcome = replay(seed, true);
        println!("seed {seed}: {:?}, hash {:016x}", outcome.counts, outcome.hash);
        assert!(outcome.failures.is_empty(), "seed {seed}");
        return;
    }
    let first = variable("SIM_FIRST").unwrap_or(0);
    let seeds = variable("SIM_SEEDS").unwrap_or(SEEDS);
    let enough = variable("SIM_ENOUGH").unwrap_or(ENOUGH);
    let (next, bad) = (AtomicU64::new(0), AtomicU64::new(0));
    let progress = progress(seeds);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let mut failed = BTreeMap::new();
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    std::thread::scope(|scope| {
        let work = || {
            let mut failed = Vec::new();
            let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds || bad.load(Ordering::Relaxed) >= enough {
                    return (failed, counts);
                }
                let seed = first + seed;
                let outcome = run(seed, false);
                for (what, count) in outcome.counts {
                    *counts.entry(what).or_default() += count;
                }
                if let Some(failure) = outcome.failures.into_iter().next() {
                    progress.println(format!("seed {seed} fails: {failure}"));
                    if progress.is_hidden() {
                        eprintln!("seed {seed} fails: {failure}");
                    }
                    failed.push((seed, failure));
                    bad.fetch_add(1, Ordering::Relaxed);
                }
                progress.inc(1);
                let done = progress.position();
                if progress.is_hidden() && done.is_multiple_of(500) {
                    eprintln!("{done} of {seeds} seeds");
                }
            }
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for handle in handles {
            let (found, counted) = handle.join().expect("a worker");
            failed.extend(found);
            for (what, count) in counted {
                *counts.entry(what).or_default() += count;
            }
        }
    });
    progress.finish_and_clear();
    println!("{} seeds: {counts:?}", progress.position());
    if let Some((&seed, failure)) = failed.first_key_value() {
        replay(seed, false);
        panic!(
            "{} of {} seeds fail, the first is {seed}: {failure}\n\
             make torture SEED={seed} replays it",
            failed.len(),
            progress.position()
        );
    }
    // In fewer worlds the shares vary too much.
    if progress.position() >= SEEDS {
        let beyond = excuses::beyond_their_share(&counts);
        assert!(beyond.is_empty(), "{}", beyond.join("\n"));
    }
}

#[test]
fn a_seed_is_a_world() {
    for seed in [1, 2, 3] {
        let (once, again) = (run(seed, true), run(seed, true));
        let at = once.trace.iter().zip(&again.trace).position(|(a, b)| a != b);
        assert_eq!(at.map(|at| (&once.trace[at], &again.trace[at])), None);
        assert_eq!(once.hash, again.hash);
        assert_ne!(once.hash, 0);
    }
}
