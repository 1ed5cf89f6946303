//! `--since TIME` on the command line.

use crate::clock::SystemClock;
use crate::shard::Timestamp;
use crate::stream_thread::ports::Clock as _;

/// A time, or how long ago it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// In milliseconds since the epoch.
    At(i64),
    /// In milliseconds before now.
    Ago(i64),
}

/// Parses the value of `--since`.
///
/// # Errors
/// The accepted forms.
pub fn parse_since(text: &str) -> Result<Since, String> {
    let ms = |duration: std::time::Duration| i64::try_from(duration.as_millis()).ok();
    let ago = humantime::parse_duration(text).ok().and_then(ms).map(Since::Ago);
    let at = || {
        let at = humantime::parse_rfc3339_weak(text).ok()?;
        ms(at.duration_since(std::time::UNIX_EPOCH).ok()?).map(Since::At)
    };
    ago.or_else(at).ok_or_else(|| "write 1h, 2days, or 2026-01-31T12:00:00Z".to_owned())
}

impl Since {
    /// The time, by the host's clock.
    #[must_use]
    pub fn instant(self) -> Timestamp {
        match self {
            Since::At(ms) => Timestamp(ms),
            Since::Ago(ms) => Timestamp(SystemClock::new().wall().0.saturating_sub(ms).max(0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_how_long_ago() {
        assert_eq!(parse_since("1h"), Ok(Since::Ago(3_600_000)));
        assert_eq!(parse_since("1970-01-01T00:00:01Z"), Ok(Since::At(1_000)));
        assert!(parse_since("yesterday").is_err());
    }
}
