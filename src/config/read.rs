//! Parses the values of keys.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use super::redis_url::RedisServers;
use super::{ChangeFormat, Format, GroupProtocol, Guarantee, LogFormat, Partitioner};

/// A value as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    /// From the environment or a flag, where everything is text.
    Environment(String),
    /// A string of the file.
    Text(String),
    /// An integer of the file.
    Integer(i64),
    /// A float of the file.
    Float(f64),
    /// A boolean of the file.
    Boolean(bool),
    /// An array of strings.
    Texts(Vec<String>),
    /// A type that no key takes, by its name.
    Other(&'static str),
}

impl Raw {
    /// The value as written.
    pub(super) fn shown(&self) -> String {
        match self {
            Raw::Environment(text) | Raw::Text(text) => format!("{text:?}"),
            Raw::Integer(number) => number.to_string(),
            Raw::Float(number) => number.to_string(),
            Raw::Boolean(truth) => truth.to_string(),
            Raw::Texts(_) => format!("({})", self.type_name()),
            Raw::Other(type_name) => format!("({type_name})"),
        }
    }

    /// The value if it is text.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Raw::Environment(text) | Raw::Text(text) => Some(text),
            _ => None,
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Raw::Environment(_) | Raw::Text(_) => "text",
            Raw::Integer(_) => "an integer",
            Raw::Float(_) => "a number",
            Raw::Boolean(_) => "a boolean",
            Raw::Texts(_) => "an array",
            Raw::Other(type_name) => type_name,
        }
    }
}

/// Why a value is not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What is wrong.
    pub(super) what: String,
    /// What to do about it.
    pub(super) remedy: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Wrong {
        Wrong { what: what.into(), remedy: remedy.into() }
    }
}

fn wrong_type(raw: &Raw, expected: &str, example: &str) -> Wrong {
    Wrong::new(format!("is {}, not {expected}", raw.type_name()), format!("write {example}"))
}

fn out_of_range(least: impl Display, greatest: impl Display) -> Wrong {
    Wrong::new("is out of range", format!("it must be from {least} to {greatest}"))
}

fn parsed<T: FromStr>(text: &str, what: &str, remedy: &str) -> Result<T, Wrong> {
    text.trim().parse().map_err(|_| Wrong::new(what, remedy))
}

/// Text; empty means none.
pub(super) fn optional_text(raw: &Raw) -> Result<String, Wrong> {
    raw.as_text().map(str::to_owned).ok_or_else(|| wrong_type(raw, "text", "it in quotes"))
}

pub(super) fn text(raw: &Raw) -> Result<String, Wrong> {
    let text = optional_text(raw)?;
    if text.trim().is_empty() {
        return Err(Wrong::new("is empty", "set a value, or remove the key to use its default"));
    }
    Ok(text)
}

/// A program and its arguments; none means no program.
pub(super) fn command(raw: &Raw) -> Result<Vec<String>, Wrong> {
    let command = match raw {
        Raw::Texts(texts) => texts.clone(),
        Raw::Environment(text) => serde_json::from_str(text).map_err(|_| {
            let remedy = "write one such as [\"/usr/local/bin/token\", \"--region\", \"eu-1\"]";
            Wrong::new("is not a JSON array of texts", remedy)
        })?,
        other => return Err(wrong_type(other, "an array of texts", "[\"program\", \"argument\"]")),
    };
    match command.first() {
        Some(program) if program.trim().is_empty() => {
            Err(Wrong::new("names no program", "write its path first"))
        }
        _ => Ok(command),
    }
}

/// A valid `group.instance.id` of Kafka, with room for the number of the thread; empty
/// means none.
pub(super) fn instance_id(raw: &Raw) -> Result<String, Wrong> {
    let id = optional_text(raw)?;
    if id.len() <= 240 && id.bytes().all(is_legal_in_kafka) {
        return Ok(id);
    }
    Err(Wrong::new(
        "is not a valid Kafka instance id (group.instance.id)",
        "use up to 240 letters, digits, dots, underscores and hyphens",
    ))
}

fn is_legal_in_kafka(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// A token for an HTTP header; empty means none.
pub(super) fn token(raw: &Raw) -> Result<String, Wrong> {
    let token = optional_text(raw)?;
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(token);
    }
    let what = "contains spaces, control characters or letters outside ASCII";
    Err(Wrong::new(
        what,
        "use visible ASCII only, for example the output of `openssl rand -hex 32`",
    ))
}

/// A URI reference; empty means none.
pub(super) fn uri_reference(raw: &Raw) -> Result<String, Wrong> {
    let uri = optional_text(raw)?;
    let is_safe = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    if uri.bytes().all(is_safe) {
        return Ok(uri);
    }
    Err(Wrong::new(
        "is not a URI",
        "write one such as //fleet.example/device-status, percent-encoded",
    ))
}

/// A setting of librdkafka, which takes everything as text.
pub(super) fn property(raw: &Raw) -> Result<String, Wrong> {
    match raw {
        Raw::Environment(text) | Raw::Text(text) => Ok(text.clone()),
        Raw::Integer(_) | Raw::Float(_) | Raw::Boolean(_) => Ok(raw.shown()),
        other @ (Raw::Texts(_) | Raw::Other(_)) => {
            Err(wrong_type(other, "text, a number or a boolean", "one value"))
        }
    }
}

pub(super) fn boolean(raw: &Raw) -> Result<bool, Wrong> {
    match raw {
        Raw::Boolean(truth) => Ok(*truth),
        Raw::Environment(text) => parsed(text, "is neither true nor false", "write true or false"),
        other => Err(wrong_type(other, "true or false", "true or false, without quotes")),
    }
}

pub(super) fn integer<T>(raw: &Raw, least: i64, greatest: i64) -> Result<T, Wrong>
where
    T: TryFrom<i64>,
{
    let number = match raw {
        Raw::Integer(number) => *number,
        Raw::Environment(text) => parsed(text, "is not a whole number", "write digits, such as 4")?,
        other => return Err(wrong_type(other, "a whole number", "it without quotes or fraction")),
    };
    let taken = T::try_from(number).ok().filter(|_| (least..=greatest).contains(&number));
    taken.ok_or_else(|| out_of_range(least, greatest))
}

pub(super) fn number(raw: &Raw, least: f64, greatest: f64) -> Result<f64, Wrong> {
    let number = match raw {
        Raw::Float(number) => *number,
        // An `i32` is exact as a float.
        Raw::Integer(number) => f64::from(i32::try_from(*number).unwrap_or(i32::MAX)),
        Raw::Environment(text) => parsed(text, "is not a number", "write a number, such as 1.5")?,
        other => return Err(wrong_type(other, "a number", "it without quotes")),
    };
    let fits = (least..=greatest).contains(&number);
    fits.then_some(number).ok_or_else(|| out_of_range(least, greatest))
}

pub(super) fn duration(raw: &Raw, least: Duration, greatest: Duration) -> Result<Duration, Wrong> {
    const EXAMPLE: &str = "a number with its unit in quotes, such as \"20ms\" or \"15m\"";
    let text = match raw {
        Raw::Environment(text) | Raw::Text(text) => text.trim(),
        Raw::Integer(0) => "0s",
        other => return Err(wrong_type(other, "a duration", EXAMPLE)),
    };
    let duration = match text {
        "0" => Duration::ZERO,
        text => humantime::parse_duration(text).map_err(|error| {
            Wrong::new(format!("is not a duration ({error})"), format!("write {EXAMPLE}"))
        })?,
    };
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err(Wrong::new("is finer than a millisecond", "use whole milliseconds"));
    }
    let fits = (least..=greatest).contains(&duration);
    fits.then_some(duration)
        .ok_or_else(|| out_of_range(duration_text(least), duration_text(greatest)))
}

/// A duration as in the file: `20ms`, `15m`, `24h`.
pub(super) fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(length, _)| ms > 0 && ms.is_multiple_of(*length));
    match unit {
        Some((length, name)) => format!("{}{name}", ms / length),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

/// As [`duration`], or zero to turn something off.
pub(super) fn duration_or_off(
    raw: &Raw,
    least: Duration,
    greatest: Duration,
) -> Result<Duration, Wrong> {
    match duration(raw, Duration::ZERO, greatest)? {
        Duration::ZERO => Ok(Duration::ZERO),
        _ => duration(raw, least, greatest).map_err(|wrong| {
            Wrong::new(wrong.what, format!("{}, or 0s to switch it off", wrong.remedy))
        }),
    }
}

/// A key with a fixed set of values.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// All values with their names.
    const NAMES: &'static [(Self, &'static str)];
}

impl Choice for Format {
    const NAMES: &'static [(Format, &'static str)] = &[
        (Format::Protobuf, Format::Protobuf.name()),
        (Format::ConfluentProtobuf, Format::ConfluentProtobuf.name()),
        (Format::Json, Format::Json.name()),
    ];
}

impl Choice for ChangeFormat {
    const NAMES: &'static [(ChangeFormat, &'static str)] = &[
        (ChangeFormat::Protobuf, ChangeFormat::Protobuf.name()),
        (ChangeFormat::Json, ChangeFormat::Json.name()),
    ];
}

impl Choice for GroupProtocol {
    const NAMES: &'static [(GroupProtocol, &'static str)] =
        &[(GroupProtocol::Consumer, "consumer"), (GroupProtocol::Classic, "classic")];
}

impl Choice for Partitioner {
    const NAMES: &'static [(Partitioner, &'static str)] =
        &[(Partitioner::Murmur2, "murmur2"), (Partitioner::Any, "any")];
}

impl Choice for Guarantee {
    const NAMES: &'static [(Guarantee, &'static str)] =
        &[(Guarantee::ExactlyOnce, "exactly_once"), (Guarantee::AtLeastOnce, "at_least_once")];
}

impl Choice for LogFormat {
    const NAMES: &'static [(LogFormat, &'static str)] =
        &[(LogFormat::Text, "text"), (LogFormat::Json, "json")];
}

pub(super) fn choice<T: Choice>(raw: &Raw) -> Result<T, Wrong> {
    let names = || T::NAMES.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(" or ");
    let Some(text) = raw.as_text() else {
        return Err(wrong_type(raw, "text", &format!("{} in quotes", names())));
    };
    let named = T::NAMES.iter().find(|(_, name)| *name == text.trim());
    let unknown = || Wrong::new("is not a known value", format!("use {}", names()));
    named.map(|(value, _)| *value).ok_or_else(unknown)
}

/// The name of a topic.
pub(super) fn topic(raw: &Raw) -> Result<String, Wrong> {
    const MAX: usize = 249;
    let name = text(raw)?;
    if name.len() <= MAX && name.bytes().all(is_legal_in_kafka) && name != "." && name != ".." {
        Ok(name)
    } else {
        Err(Wrong::new(
            "is not a valid Kafka topic name",
            format!("use at most {MAX} letters, digits, dots, dashes and underscores"),
        ))
    }
}

pub(super) fn address(raw: &Raw) -> Result<SocketAddr, Wrong> {
    let remedy = "write for example 127.0.0.1:9464, or [::]:9464 to accept other machines";
    parsed(&text(raw)?, "is not an IP address and port", remedy)
}

/// Comma-separated `host:port`.
pub(super) fn brokers(raw: &Raw) -> Result<String, Wrong> {
    if raw.type_name() == "an array" {
        let what = "is an array, not text";
        let remedy = "write all in one text with commas, \"kafka-1:9092,kafka-2:9092\"";
        return Err(Wrong::new(what, remedy));
    }
    let brokers = text(raw)?;
    if let Some((scheme, _)) = brokers.split(',').find_map(|broker| broker.split_once("://")) {
        return Err(scheme_of_broker(scheme.trim()));
    }
    let foreign = |c: char| c.is_whitespace() || "/\\@\"'[]{}".contains(c);
    let good = |broker: &str| {
        let (host, port) = broker.trim().rsplit_once(':').unwrap_or((broker.trim(), "9092"));
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        !bare.is_empty()
            && !bare.contains(foreign)
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    match brokers.split(',').all(good) {
        true => Ok(brokers),
        false => Err(Wrong::new(
            "is not a list of host:port",
            "write one such as kafka-1:9092,kafka-2:9092",
        )),
    }
}

/// The error for brokers as URLs, as with the listeners' names of Kafka's own settings.
fn scheme_of_broker(scheme: &str) -> Wrong {
    let lower = scheme.to_ascii_lowercase();
    let remedy = match lower.as_str() {
        "plaintext" | "ssl" | "sasl_plaintext" | "sasl_ssl" => format!(
            "write host:port alone, and set kafka.properties.security.protocol to {lower:?}"
        ),
        _ => "write host:port alone, such as kafka-1:9092,kafka-2:9092".to_owned(),
    };
    Wrong::new("contains a URL; brokers are given as host:port", remedy)
}

pub(super) fn redis_url(raw: &Raw) -> Result<String, Wrong> {
    let url = text(raw)?;
    RedisServers::parse(&url).map_err(|(what, remedy)| Wrong { what, remedy })?;
    Ok(url)
}

/// A level, or directives as in `RUST_LOG`.
pub(super) fn log_level(raw: &Raw) -> Result<String, Wrong> {
    let level = text(raw)?;
    log_directives(&level)?;
    Ok(level)
}

/// Checks the directives of the environment variable `RUST_LOG`.
///
/// # Errors
/// What is wrong with them, and what to do.
pub fn check_log_directives(directives: &str) -> Result<(), String> {
    log_directives(directives).map_err(|wrong| format!("{}; {}", wrong.what, wrong.remedy))
}

/// Checks directives. It also refuses misspelt ones, which would be accepted and turn the
/// log off.
pub(super) fn log_directives(directives: &str) -> Result<(), Wrong> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const OURS: &str = "device_status";
    const REMEDY: &str = "use off, error, warn, info, debug or trace, or directives such as \
                          info,device_status=debug";
    // A single word that is not a level would count as a target.
    let is_level = |part: &str| LEVELS.contains(&part.trim().to_ascii_lowercase().as_str());
    let good = directives.split(',').all(|part| part.contains('=') || is_level(part))
        && tracing_subscriber::EnvFilter::try_new(directives).is_ok();
    if !good {
        return Err(Wrong::new("is not a log level", REMEDY));
    }
    for part in directives.split(',') {
        let target = part.split(['=', '[', ':']).next().unwrap_or_default().trim();
        let is_slip = target != OURS && strsim::damerau_levenshtein(target, OURS) <= 3;
        if is_slip {
            let what = format!("names the target {target:?}, which logs nothing");
            return Err(Wrong::new(what, format!("did you mean {OURS}?")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_as_they_are_parsed() {
        for text in ["0s", "20ms", "15s", "90s", "15m", "24h", "168h", "1500ms"] {
            let raw = Raw::Text(text.to_owned());
            let read = duration(&raw, Duration::ZERO, Duration::MAX).unwrap();
            assert_eq!(duration_text(read), text);
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        let text = |text: &str| Raw::Text(text.to_owned());
        let day = Duration::from_secs(86_400);
        assert!(duration(&Raw::Integer(15), Duration::ZERO, day).is_err());
        assert!(duration(&text("15"), Duration::ZERO, day).is_err());
        assert!(duration(&text("1us"), Duration::ZERO, day).is_err());
        assert!(duration(&text("25h"), Duration::ZERO, day).is_err());
        assert!(duration_or_off(&text("1s"), Duration::from_secs(10), day).is_err());
        assert!(duration_or_off(&text("0"), Duration::from_secs(10), day).is_ok());
        assert!(number(&Raw::Float(f64::NAN), 1.0, 2.0).is_err());
        assert!(integer::<i32>(&text("3"), 1, 5).is_err());
        assert_eq!(integer::<i32>(&Raw::Environment("3".into()), 1, 5), Ok(3));
        assert!(log_level(&text("inof")).is_err());
        assert!(log_level(&text("info,device_status=debug")).is_ok());
        assert!(log_level(&text("device_status::view=trace,librdkafka=debug")).is_ok());
        assert!(
            log_level(&text("device-status=debug")).unwrap_err().remedy.contains("device_status")
        );
        assert!(log_level(&text("info,device_statsu=debug")).is_err());
        assert!(brokers(&text("a:9092,b:9092")).is_ok());
        assert!(brokers(&text("a:9092,")).is_err());
        assert!(brokers(&text("a:x")).is_err());
        assert!(brokers(&text("a:9092/x")).is_err());
        assert!(brokers(&text("[::1]:9092, b")).is_ok());
        assert!(brokers(&text("a:9092 b:9092")).is_err());
        assert!(topic(&text("a b")).is_err());
        assert!(instance_id(&text("")).is_ok());
        assert!(instance_id(&text("pod-7")).is_ok());
        assert!(instance_id(&text("pod 7")).is_err());
        assert!(redis_url(&text("http://localhost")).is_err());
        assert!(redis_url(&text("rediss://localhost")).is_ok());
        assert_eq!(choice(&text("json")), Ok(Format::Json));
        assert!(choice::<Format>(&text("avro")).unwrap_err().remedy.contains("or json"));
    }
}
