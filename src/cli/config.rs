//! `device-status config check|show`: checks or shows the configuration. Connects
//! to Kafka and Redis only with `--connect`.

use std::fmt::Write as _;
use std::path::Path;

use clap::Subcommand;
use serde_json::{Value, json};

use super::text::{counted, print, print_json};
use crate::config::errors::{Invalid, Origin};
use crate::config::{Config, Loaded, document, redact_url};
use crate::error::Fatal;
use crate::kafka::topics::{self, Check};
use crate::view;
use crate::view::read::Reader;

/// The subcommands of `config`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Check whether the configuration is valid, and show where it comes from
    Check {
        /// Also connect to Kafka and Redis, and check topics and permissions
        #[arg(long)]
        connect: bool,
    },
    /// Print the effective configuration, without secrets, and where each value
    /// comes from
    Show,
}

/// Prints all problems of a configuration as JSON, for programs.
///
/// # Errors
/// Always: the error of the configuration, or of writing to standard output.
pub fn print_invalid(file: Option<&Path>, invalid: &Invalid) -> Result<(), Fatal> {
    let problems: Vec<Value> = invalid
        .problems()
        .iter()
        .map(|problem| {
            json!({
                "key": (!problem.key.is_empty()).then_some(&problem.key),
                "value": problem.value,
                "source": problem.origin.to_string(),
                "problem": problem.what,
                "remedy": problem.remedy,
            })
        })
        .collect();
    let file = file.map(|file| file.display().to_string());
    print_json(&json!({ "valid": false, "file": file, "problems": problems }))?;
    Err(Fatal::configuration(invalid.summary()))
}

/// Runs the command. An invalid configuration never comes here, because loading it
/// fails.
///
/// # Errors
/// When a check found a problem, or standard output cannot be written to.
pub fn run(command: Command, loaded: &Loaded, json: bool) -> Result<(), Fatal> {
    match command {
        Command::Check { connect } => {
            let checks = connect.then(|| connect_all(&loaded.config));
            if json {
                print_json(&json!({
                    "valid": true,
                    "problems": [],
                    "warnings": loaded.warnings(),
                    "file": loaded.file.as_ref().map(|file| file.display().to_string()),
                    "environment": variables(loaded),
                    "checks": checks,
                }))?;
            } else {
                print(&(summary(loaded) + &table(checks.as_deref().unwrap_or_default())))?;
            }
            verdict(checks.as_deref().unwrap_or_default())
        }
        Command::Show if json => print_json(&document::effective_json(&loaded.config)),
        Command::Show => print(&document::effective(loaded)),
    }
}

fn connect_all(config: &Config) -> Vec<Check> {
    let mut checks = topics::inspect_all(config);
    let redis = format!("Redis at {}", redact_url(&config.redis.url));
    match view::try_connection(&config.redis) {
        Ok(None) => checks.push(Check::ok(redis)),
        Ok(Some(warning)) => checks.push(Check::ok(format!("{redis}, but: {warning}"))),
        Err(fatal) => {
            checks.push(Check::failed(redis, &fatal));
            return checks;
        }
    }
    let prefix = format!("redis.prefix {:?}", config.redis.prefix);
    let owner = Reader::connect(&config.redis)
        .and_then(|mut reader| reader.check_owner(&config.kafka.group));
    checks.push(match owner {
        Ok(()) => Check::ok(prefix),
        Err(fatal) => Check::failed(prefix, &fatal),
    });
    checks
}

fn table(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let _ = match &check.problem {
            None => writeln!(text, "ok       {}", check.check),
            Some(problem) => writeln!(text, "problem  {}: {problem}", check.check),
        };
    }
    text
}

fn verdict(checks: &[Check]) -> Result<(), Fatal> {
    let problems = checks.iter().filter(|check| check.problem.is_some()).count();
    let message = format!("{problems} of {} checks found a problem", checks.len());
    match checks.iter().any(|check| check.misconfigured) {
        _ if problems == 0 => Ok(()),
        true => Err(Fatal::configuration(message)),
        false => Err(Fatal::unavailable(message)),
    }
}

fn variables(loaded: &Loaded) -> Vec<&str> {
    let origins = loaded.origins.values();
    origins
        .filter_map(|origin| match origin.written() {
            Origin::Environment { variable } => Some(variable.as_str()),
            _ => None,
        })
        .collect()
}

fn summary(loaded: &Loaded) -> String {
    let mut text = String::from("configuration is valid\n");
    let variables = variables(loaded);
    if let Some(file) = &loaded.file {
        let of_file = |origin: &&Origin| matches!(origin.written(), Origin::File { .. });
        let count = loaded.origins.values().filter(of_file).count();
        let keys = counted(count as u64, "key");
        let _ = writeln!(text, "  {keys} from {}", file.display());
    }
    for variable in &variables {
        let _ = writeln!(text, "  environment variable {variable}");
    }
    for warning in loaded.warnings() {
        let _ = writeln!(text, "  {warning}");
    }
    if loaded.origins.is_empty() && loaded.file.is_none() {
        text.push_str("  defaults only: name a file with --config FILE\n");
    }
    text
}
