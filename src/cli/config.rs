//! `device-status config check|show`: the configuration, without Kafka or Redis.

use std::fmt::Write as _;

use clap::Subcommand;
use serde_json::json;

use super::{print, print_json};
use crate::config::errors::Origin;
use crate::config::{Loaded, document};
use crate::error::Fatal;

/// `device-status config …`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with the configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Command {
    /// Say whether the configuration is valid, and where it comes from
    Check,
    /// Print what holds, without secrets, and where each value comes from
    Show,
}

/// Does it. A configuration that is not valid never comes here: loading it is
/// what says so.
///
/// # Errors
/// When standard output cannot be written to.
pub fn run(args: &Args, loaded: &Loaded, json: bool) -> Result<(), Fatal> {
    match (args.command, json) {
        (Command::Check, true) => print_json(&json!({
            "valid": true,
            "file": loaded.file.as_ref().map(|file| file.display().to_string()),
            "environment": variables(loaded),
        })),
        (Command::Check, false) => print(&summary(loaded)),
        (Command::Show, true) => print_json(&document::effective_json(&loaded.config)),
        (Command::Show, false) => print(&document::effective(loaded)),
    }
}

fn variables(loaded: &Loaded) -> Vec<&str> {
    let origins = loaded.origins.values();
    origins
        .filter_map(|origin| match origin {
            Origin::Environment { variable } => Some(variable.as_str()),
            Origin::Default | Origin::File { .. } => None,
        })
        .collect()
}

fn summary(loaded: &Loaded) -> String {
    let mut text = String::from("configuration is valid\n");
    let variables = variables(loaded);
    if let Some(file) = &loaded.file {
        let count = loaded.origins.len() - variables.len();
        let _ = writeln!(text, "  {count} keys from {}", file.display());
    }
    for variable in &variables {
        let _ = writeln!(text, "  environment variable {variable}");
    }
    if loaded.origins.is_empty() {
        text.push_str("  defaults only: name a file with --config FILE\n");
    }
    text
}
