//! Time of the processor: of a thread, and of a process by the names of its
//! threads. Unlike time of day it hardly depends on what else the machine does.

use std::collections::BTreeMap;
use std::fs;

/// Of the calling thread.
pub fn this_thread_ns() -> u64 {
    of_stat("/proc/thread-self/schedstat").unwrap_or_default()
}

/// Of each thread of a process, added up by name.
pub fn threads_ns(process: u32) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return all };
    for task in tasks.flatten() {
        let path = task.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let ns = of_stat(&path.join("schedstat").to_string_lossy()).unwrap_or_default();
        *all.entry(name.trim().to_owned()).or_default() += ns;
    }
    all
}

/// Resident memory of a process, in bytes.
pub fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: Option<u64> = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    kilobytes.unwrap_or_default() * 1024
}

fn of_stat(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}
