//! The command line.

mod ask;
pub mod config;
mod date;
pub mod dead_letters;
pub mod demo;
pub mod explain;
pub mod get;
pub mod history;
pub mod package_files;
mod reading;
pub mod run;
pub mod send;
mod sender;
mod service_manager;
mod signals;
pub mod simulate;
mod since;
mod text;
pub mod topics;
mod traffic;
pub mod watch;

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::clock::SystemClock;
use crate::config::Loaded;
use crate::config::variables::is_key;
use crate::error::Fatal;
use crate::stream_thread::ports::Clock as _;
pub use text::say_error;
use text::wants_json;

/// Computes the status of every device of a fleet from events in Kafka, and writes
/// it to Redis and Kafka, exactly once.
#[derive(Debug, Parser)]
#[command(name = "device-status", version, propagate_version = true)]
pub struct Cli {
    /// Configuration file (TOML); environment variables override it
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set a configuration key, overriding file and environment; can be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The command.
#[derive(Debug, Subcommand)]
pub enum Command {
    // A new command needs a line here, one in `dispatch`, and a `pub mod` above.
    /// Run the service: read events, compute statuses, write Redis and status
    /// changes
    Run(run::Args),
    /// Show the service at work on a simulated fleet, in one process
    Demo(demo::Args),
    /// Write the events of a simulated fleet to the input topics
    Simulate(simulate::Args),
    /// Send one event to the input topics, by hand
    Send(send::Args),
    /// Show devices, or a fleet's counts, from Redis
    Get(get::Args),
    /// Follow the changes of devices, from Redis
    Watch(watch::Args),
    /// Explain why a device has its status: every rule, and the facts behind it
    Explain(explain::Args),
    /// Show the status changes of a device, from Kafka
    History(history::Args),
    /// List, show and replay dead letters: records that could not be used
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Create or check the Kafka topics
    #[command(subcommand)]
    Topics(topics::Command),
    /// Check or show the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Write the manual pages and the shell completions
    #[command(hide = true)]
    PackageFiles(package_files::Args),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// The error that ended the command.
    pub fn dispatch(&self, loaded: &Loaded, json: bool) -> Result<(), Fatal> {
        match self {
            Command::Run(args) => run::run(args, &loaded.config, json),
            Command::Demo(args) => demo::run(args, &loaded.config, json),
            Command::Simulate(args) => simulate::run(args, &loaded.config, json),
            Command::Send(args) => send::run(args, &loaded.config, json),
            Command::Get(args) => get::run(args, &loaded.config, json),
            Command::Watch(args) => watch::run(args, &loaded.config, json),
            Command::Explain(args) => explain::run(args, &loaded.config, json),
            Command::History(args) => history::run(args, &loaded.config, json),
            Command::DeadLetters(what) => dead_letters::run(what, &loaded.config, json),
            Command::Topics(what) => topics::run(what, &loaded.config, json),
            Command::Config(what) => config::run(*what, loaded, json),
            Command::PackageFiles(args) => package_files::run(args, Cli::command()),
        }
    }
}

/// Parses the command line, loads the configuration, starts logging, and runs the
/// command.
///
/// # Errors
/// The error that ended the process.
pub fn main() -> Result<(), Fatal> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && wants_json() => {
            return Err(Fatal::usage(error.render().to_string().trim()));
        }
        Err(error) => error.exit(),
    };
    let mut environment = Vec::new();
    // No key has a name that is not UTF-8, so such variables are skipped.
    for (name, value) in
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
    {
        match value.into_string() {
            Ok(value) => environment.push((name, value)),
            Err(_) if is_key(&name) => {
                return Err(Fatal::configuration(format!(
                    "environment variable {name}: its value is not UTF-8, and no key takes such a \
                     value; write it as UTF-8"
                )));
            }
            Err(_) => {}
        }
    }
    let file = cli.config.as_deref();
    let loaded = match crate::config::load(file, environment.into_iter(), &cli.set) {
        Ok(loaded) => loaded,
        Err(invalid) => match &cli.command {
            Command::Config(config::Command::Check { .. }) if cli.json => {
                return config::print_invalid(file, &invalid);
            }
            _ => return Err(invalid.into()),
        },
    };
    // A picture that fills the terminal leaves no room for log lines.
    if !matches!(&cli.command, Command::Demo(args) if args.fills_terminal()) {
        let clock = SystemClock::new();
        let clock = Box::new(move || clock.monotonic_ms());
        crate::telemetry::init_logging(&loaded.config.log, clock)?;
        for warning in loaded.warnings().iter().filter(|_| matches!(cli.command, Command::Run(_))) {
            tracing::warn!("{warning}");
        }
    }
    cli.command.dispatch(&loaded, cli.json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_come_before_or_after_the_command() {
        let cli = Cli::parse_from(["device-status", "config", "show", "--json", "--config", "f"]);
        assert!(cli.json && cli.config.is_some());
        let cli = Cli::parse_from(["device-status", "--json", "--config", "f", "topics", "check"]);
        assert!(cli.json && cli.config.is_some());
    }
}
