//! `device-status topics create|check`.

use std::fmt::Write as _;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;

use super::text::{print, print_json};
use crate::config::Config;
use crate::error::Fatal;
use crate::kafka::topics::{Brokers, CreateReport, TopicReport, optional_settings};

/// The subcommands of `topics`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Create missing topics; leave existing ones unchanged
    Create {
        /// Leave out these topic settings, comma-separated, for brokers that do not allow
        /// them: their own defaults hold
        #[arg(
            long,
            value_name = "SETTINGS",
            value_delimiter = ',',
            value_parser = PossibleValuesParser::new(optional_settings())
        )]
        without: Vec<String>,
    },
    /// Check that all topics exist and have the right settings
    Check,
}

/// Runs the command.
///
/// # Errors
/// When Kafka cannot be reached, a topic cannot be created, or a topic has a
/// problem.
pub fn run(command: &Command, config: &Config, json: bool) -> Result<(), Fatal> {
    match command {
        Command::Create { without } => {
            let report = Brokers::connect(config)?.create(without)?;
            if json { print_json(&report) } else { print(&created(&report)) }
        }
        Command::Check => {
            let report = Brokers::connect(config)?.inspect()?;
            if json {
                print_json(&report)?
            } else {
                print(&table(&report))?
            }
            report.into_result().map(drop)
        }
    }
}

fn created(report: &CreateReport) -> String {
    let mut text = String::new();
    for name in &report.created {
        let _ = writeln!(text, "created {name}, {} partitions", report.partitions);
    }
    for name in &report.existed {
        let _ = writeln!(text, "{name} exists already");
    }
    text
}

fn table(report: &TopicReport) -> String {
    let width = report.topics.iter().map(|topic| topic.name.len()).max().unwrap_or(0);
    let mut text = format!("{:width$}  partitions  timestamps     cleanup\n", "topic");
    for topic in &report.topics {
        let partitions =
            topic.partitions.map_or_else(|| "missing".to_owned(), |count| count.to_string());
        let told = |setting: &Option<String>| setting.clone().unwrap_or_else(|| "-".to_owned());
        let _ = writeln!(
            text,
            "{:width$}  {partitions:>10}  {:13}  {}",
            topic.name,
            told(&topic.timestamp_type),
            told(&topic.cleanup_policy),
        );
    }
    for not in &report.unverified {
        let _ = writeln!(text, "not checked: {not}");
    }
    if report.problems.is_empty() && report.unverified.is_empty() {
        text.push_str("all topics exist and have the right settings\n");
    }
    text
}
