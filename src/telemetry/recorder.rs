//! The metrics recorder, and its output for Prometheus.

use metrics::{counter, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::ages;
use super::publish::{publish_counts, publish_view_counts};
use super::table::*;
use crate::error::Fatal;
use crate::shard::{DeadLetterReason, Input, Status};
use crate::stream_thread::report::Counts;

/// Installs the metrics recorder of the process. All metrics are described, and those with
/// known labels start at zero.
///
/// # Errors
/// When a recorder is already installed.
pub fn install() -> Result<PrometheusHandle, Fatal> {
    let failed = |error| Fatal::internal(format!("cannot set up metrics: {error}"));
    let handle = builder().map_err(failed)?.install_recorder().map_err(failed)?;
    describe_all();
    zero_all();
    Ok(handle)
}

fn builder() -> Result<PrometheusBuilder, metrics_exporter_prometheus::BuildError> {
    METRICS.iter().try_fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
        Kind::Histogram(bounds) => {
            builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)
        }
        Kind::Counter | Kind::Gauge | Kind::Counted => Ok(builder),
    })
}

/// Registers type, unit and help of each metric.
pub fn describe_all() {
    for metric in METRICS {
        let Metric { name, kind, help, .. } = *metric;
        let unit = metric.unit();
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, help),
            Kind::Gauge => metrics::describe_gauge!(name, unit, help),
            Kind::Histogram(_) => metrics::describe_histogram!(name, unit, help),
            // `render` writes its description.
            Kind::Counted => {}
        }
    }
    metrics_process::Collector::default().describe();
}

/// Creates the counters with known labels at zero: an alert on a missing counter never
/// fires.
fn zero_all() {
    publish_counts(&Counts::default());
    publish_view_counts(&[]);
    for input in Input::ALL.map(Input::name) {
        counter!(RECORDS, "input" => input, "result" => "dead_letter").increment(0);
        for reason in DeadLetterReason::ALL.map(DeadLetterReason::code) {
            counter!(DEAD_LETTERS, "input" => input, "reason" => reason).increment(0);
        }
    }
    for to in Status::ALL.map(Status::wire_name) {
        for from in Status::ALL.map(Status::wire_name).into_iter().chain(["none"]) {
            counter!(STATUS_CHANGES, "from" => from, "to" => to).increment(0);
        }
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1);
}

/// All metrics in Prometheus's text format, with those of the process.
#[must_use]
pub fn render(handle: &PrometheusHandle) -> String {
    metrics_process::Collector::default().collect();
    let mut text = handle.render();
    ages::OF_EVENTS.render(EVENT_AGE, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::publish::forget_partition;

    #[test]
    fn names_follow_the_conventions_and_are_unique() {
        let mut names = BTreeSet::new();
        for metric in METRICS {
            assert!(metric.name.starts_with("device_status_"), "{}", metric.name);
            assert!(names.insert(metric.name), "{} twice", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter);
        }
    }

    #[test]
    fn every_metric_is_rendered_with_its_help() {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe_all();
            zero_all();
            for metric in METRICS {
                let labels: Vec<metrics::Label> =
                    metric.labels.iter().map(|label| metrics::Label::new(*label, "x")).collect();
                match metric.kind {
                    Kind::Counter => counter!(metric.name, labels).increment(1),
                    Kind::Gauge => gauge!(metric.name, labels).set(1),
                    Kind::Histogram(_) => metrics::histogram!(metric.name, labels).record(0.004),
                    Kind::Counted => {}
                }
            }
            forget_partition(3);
            let text = render(&recorder.handle());
            for metric in METRICS {
                assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.help)));
                assert!(text.contains(&format!("# TYPE {} ", metric.name)));
            }
            assert!(
                text.contains("device_status_transaction_duration_seconds_bucket{le=\"0.005\"} 1")
            );
            assert!(text.contains("process_resident_memory_bytes"));
            assert!(text.contains(
                "device_status_dead_letters_total{input=\"lifecycle\",reason=\"missing_key\"} 0"
            ));
            assert!(text.contains("device_status_devices{partition=\"3\",status=\"online\"} 0"));
        });
    }
}
