//! The output of commands: standard output, standard error, times and colours.

use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use serde_json::json;

use crate::error::Fatal;
use crate::shard::{Connectivity, Status};
use crate::view::read::{DeviceStatus, Freshness, OLD_MS};

/// Whether the command line asks for JSON, even if it is invalid otherwise.
pub(super) fn wants_json() -> bool {
    std::env::args_os().skip(1).take_while(|word| word != "--").any(|word| word == "--json")
}

/// Prints the error that ended the command to standard error: as text or, with
/// `--json`, as one line of JSON.
pub fn say_error(fatal: &Fatal) {
    if !wants_json() {
        return say(&format!("error: {fatal}"));
    }
    let (kind, code) = (fatal.kind, fatal.kind.exit_code());
    let error = json!({ "kind": kind, "message": fatal.message, "exit_code": code });
    say(&json!({ "error": error }).to_string());
}

/// Prints to standard error. A failure is ignored.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints to standard output. A closed pipe is no failure.
///
/// # Errors
/// When standard output cannot be written to for another reason.
pub(super) fn print(text: &str) -> Result<(), Fatal> {
    let mut stdout = std::io::stdout().lock();
    written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// Prints a value as JSON, for `--json`.
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Fatal> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Fatal::internal(format!("JSON: {error}")))?;
    print(&(text + "\n"))
}

/// Ignores a closed pipe.
pub(super) fn written(result: io::Result<()>) -> Result<(), Fatal> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Fatal::internal(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// A progress bar that is cleared at its end.
pub(super) fn bar(length: Option<u64>, template: &str, drawn: ProgressDrawTarget) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(length, drawn).with_finish(ProgressFinish::AndClear);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Whether to use colours: on a terminal, unless `NO_COLOR` is set
/// (<https://no-color.org>).
pub(super) fn is_coloured(out: &impl IsTerminal) -> bool {
    out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The style of text output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Whether to colour.
    pub colour: bool,
}

impl Style {
    /// The displayed status, in its colour.
    pub(super) fn status(self, device: &DeviceStatus) -> String {
        let shown = printable(&word(device, "display"));
        self.by_name(shown, device.field("status"), device.field("connectivity"))
    }

    /// A text in the colour of a status.
    pub(super) fn coloured(self, text: String, shown: Option<(Status, Connectivity)>) -> String {
        let status = shown.map(|(status, _)| status.wire_name());
        let connectivity = shown.map(|(_, connectivity)| connectivity.wire_name());
        self.by_name(text, status, connectivity)
    }

    fn by_name(self, text: String, status: Option<&str>, connectivity: Option<&str>) -> String {
        if !self.colour {
            return text;
        }
        let colour = match status {
            Some("online") if connectivity == Some("full") => "32",
            Some("online") => "33",
            Some("configuring" | "updating") => "36",
            Some("offline") => "31",
            Some("frozen") => "34",
            _ => "90",
        };
        format!("\x1b[1;{colour}m{text}\x1b[0m")
    }

    /// Bold, for what decides.
    pub(super) fn strong(self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Dimmed, for details.
    pub(super) fn faint(self, text: &str) -> String {
        if self.colour { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
    }
}

pub(super) fn word(device: &DeviceStatus, field: &str) -> String {
    device.field(field).map_or_else(none, str::to_owned)
}

pub(super) fn none() -> String {
    "-".to_owned()
}

/// Replaces control characters, so that an id or a fleet's name cannot control the
/// terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A time as RFC 3339, in UTC.
pub(super) fn moment(ms: i64) -> String {
    let since_epoch = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    // RFC 3339 ends with the year 9999.
    match UNIX_EPOCH.checked_add(since_epoch) {
        Some(at) if since_epoch.as_secs() < 253_402_300_800 => {
            humantime::format_rfc3339_millis(at).to_string()
        }
        _ => format!("{ms} ms"),
    }
}

/// A time, and how long ago it was.
pub(super) fn with_age(ms: i64, now_ms: i64) -> String {
    format!("{} ({})", moment(ms), age(now_ms.saturating_sub(ms)))
}

/// An age in its two largest units.
fn age(ms: i64) -> String {
    let Ok(seconds) = u64::try_from(ms / 1000) else { return "in the future".to_owned() };
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s ago"),
        (0, 0, _) => format!("{minutes} min {} s ago", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min ago"),
        _ => format!("{days} d {hours} h ago"),
    }
}

/// A length of time, as it is given on the command line.
pub(super) fn length(ms: i64) -> String {
    let ms = u64::try_from(ms).unwrap_or(0);
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

/// The time up to which the view is current, as text.
pub(super) fn as_of(freshness: Freshness) -> String {
    match freshness.up_to_ms {
        Some(up_to_ms) if freshness.is_older_than(OLD_MS) => format!(
            "{}, OLD: its partition has no owner, or its owner cannot write; see /ready",
            with_age(up_to_ms, freshness.now_ms)
        ),
        Some(up_to_ms) => with_age(up_to_ms.min(freshness.now_ms), freshness.now_ms),
        None => "not known: its partition is being rewritten, or was never written; see /ready"
            .to_owned(),
    }
}

/// A count with its noun.
pub(super) fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_ages_read_well() {
        assert_eq!(moment(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(moment(i64::MAX), format!("{} ms", i64::MAX));
        assert_eq!(age(59_999), "59 s ago");
        assert_eq!(age(61_000), "1 min 1 s ago");
        assert_eq!(age(3_600_000 * 5), "5 h 0 min ago");
        assert_eq!(age(86_400_000 * 2 + 3_600_000), "2 d 1 h ago");
        assert_eq!(age(-5_000), "in the future");
    }

    #[test]
    fn an_old_view_is_called_old() {
        let at = |up_to_ms| as_of(Freshness { up_to_ms, now_ms: 1_700_000_100_000 });
        assert_eq!(at(Some(1_700_000_099_000)), "2023-11-14T22:14:59.000Z (1 s ago)");
        // The brokers' clock may be ahead of Redis'.
        assert_eq!(at(Some(1_700_000_101_000)), "2023-11-14T22:15:00.000Z (0 s ago)");
        assert!(at(Some(1_700_000_000_000)).contains("(1 min 40 s ago), OLD"));
        assert!(at(None).starts_with("not known"));
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(printable("a\x1b[2Jb"), "a\u{fffd}[2Jb");
    }
}
