//! The histogram of the events' ages. The exporter's own histograms store each observation
//! until the next scrape, which would be millions for heartbeats. This one takes counts per
//! bucket. It has no sum, since negative ages would let the sum fall.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::table::METRICS;
use crate::shard::skew::AGE_BOUNDS_MS;
use crate::shard::{Ages, Input};

/// The counts of the whole process.
pub(super) static OF_EVENTS: AgeHistogram = AgeHistogram::new();

/// Counts by input and bucket.
pub(super) struct AgeHistogram {
    counts: [[AtomicU64; AGE_BOUNDS_MS.len() + 1]; Input::ALL.len()],
}

impl AgeHistogram {
    const fn new() -> AgeHistogram {
        AgeHistogram { counts: [const { [const { AtomicU64::new(0) }; _] }; _] }
    }

    /// Adds the counts of a thread.
    pub fn add(&self, ages: &[Ages; Input::ALL.len()]) {
        for (sums, ages) in self.counts.iter().zip(ages) {
            for (sum, count) in sums.iter().zip(ages.0) {
                sum.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// Appends the histogram in Prometheus's text format, under the name of a metric.
    pub fn render(&self, name: &str, text: &mut String) {
        let help = METRICS.iter().find(|metric| metric.name == name).map_or("", |it| it.help);
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        for input in Input::ALL {
            let label = format!("input=\"{}\"", input.name());
            let seconds = AGE_BOUNDS_MS.iter().map(|ms| (*ms as f64 / 1_000.0).to_string());
            let bounds = seconds.chain(["+Inf".to_owned()]);
            let mut sum = 0;
            for (bound, count) in bounds.zip(&self.counts[input.index()]) {
                sum += count.load(Ordering::Relaxed);
                let _ = writeln!(text, "{name}_bucket{{{label},le=\"{bound}\"}} {sum}");
            }
            let _ = writeln!(text, "{name}_count{{{label}}} {sum}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::EVENT_AGE;

    #[test]
    fn buckets_are_cumulative_and_include_negative_ages() {
        let histogram = AgeHistogram::new();
        let mut ages = [Ages::default(); Input::ALL.len()];
        for age_ms in [-700_000, -5, 0, 1_500, 600_000, 1_700_000_000_000] {
            ages[Input::Heartbeats.index()].count(age_ms);
        }
        histogram.add(&ages);
        histogram.add(&ages);
        let mut text = String::new();
        histogram.render(EVENT_AGE, &mut text);
        for line in [
            "_bucket{input=\"heartbeats\",le=\"-900\"} 0",
            "_bucket{input=\"heartbeats\",le=\"-300\"} 2",
            "_bucket{input=\"heartbeats\",le=\"0\"} 6",
            "_bucket{input=\"heartbeats\",le=\"2\"} 8",
            "_bucket{input=\"heartbeats\",le=\"900\"} 10",
            "_bucket{input=\"heartbeats\",le=\"31536000\"} 10",
            "_bucket{input=\"heartbeats\",le=\"+Inf\"} 12",
            "_count{input=\"heartbeats\"} 12",
            "_count{input=\"lifecycle\"} 0",
        ] {
            assert!(text.contains(&format!("{EVENT_AGE}{line}\n")), "{line}: {text}");
        }
        assert!(text.contains(&format!("# TYPE {EVENT_AGE} histogram\n")));
    }
}
