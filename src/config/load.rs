//! Loads and checks a [`Config`] from the file, the environment and the command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::entry::{Entry, FILE_SUFFIX, nearest_key, resolve};
use super::errors::{Invalid, Origin, Problem};
use super::keys::{BROKER_OWNED_PROPERTIES, FILE_PROPERTIES, KEYS, PROPERTIES, SECRET_KEYS};
use super::properties::{self, property_name};
use super::read::{self, Raw, Wrong};
use super::redis_url::{RedisServers, has_hash_tag};
use super::variables::{from_environment, variable_of};
use super::{Config, GroupProtocol, changelog_of};

/// A configuration with the sources of its values.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values in effect.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// The source of each key that is not at its default. librdkafka's settings have their
    /// full name, `kafka.properties.…`.
    pub origins: BTreeMap<String, Origin>,
}

impl Loaded {
    /// The source of a key's value.
    #[must_use]
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// Warnings about a valid configuration that is probably a mistake.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let is_of_file = |origin: &Origin| matches!(origin.written(), Origin::File { .. });
        let file = self.file.iter().filter(|_| !self.origins.values().any(is_of_file));
        file.map(|file| {
            format!(
                "{} sets no key: all its lines are comments or empty, so all keys have their \
                 defaults. Remove the # before the keys that you want to set",
                file.display()
            )
        })
        .collect()
    }
}

/// librdkafka's setting for how long a fetch may wait at the broker.
const FETCH_WAIT: &str = "fetch.wait.max.ms";

/// Loads the configuration. The environment overrides the file, and the `KEY=VALUE` flags of
/// the command line override both.
///
/// A variable is a configuration key if it begins with `DEVICE_STATUS_` and has `__` for the
/// dot. Others are ignored: Kubernetes sets `DEVICE_STATUS_SERVICE_HOST` and the like where a
/// service is named `device-status`.
///
/// # Errors
/// All errors of the configuration.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    flags: &[String],
) -> Result<Loaded, Invalid> {
    let Some(path) = file else { return from_text(None, environment, flags) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        let remedy = "name the configuration file with --config FILE";
        let what = format!("cannot be read: {error}");
        let value = Some(path.display().to_string());
        Invalid::new(vec![Problem { value, ..Problem::of_none(Origin::Named, what, remedy) }])
    })?;
    from_text(Some((path, &text)), environment, flags)
}

/// As [`load`], with the text of the file.
///
/// # Errors
/// As [`load`].
pub fn from_text(
    file: Option<(&Path, &str)>,
    environment: impl Iterator<Item = (String, String)>,
    flags: &[String],
) -> Result<Loaded, Invalid> {
    let mut problems = Vec::new();
    let mut entries = Vec::new();
    if let Some((path, text)) = file {
        from_file(path, text, &mut entries, &mut problems);
    }
    from_environment(environment, &mut entries, &mut problems);
    from_flags(flags, &mut entries, &mut problems);

    let mut config = Config::default();
    let mut origins: BTreeMap<String, Origin> = BTreeMap::new();
    for entry in entries {
        let entry = match resolve(entry) {
            Ok(entry) => entry,
            Err(problem) => {
                problems.push(*problem);
                continue;
            }
        };
        if let Some(twin) = origins.get(&entry.key).filter(|twin| twin.is_beside(&entry.origin)) {
            let what = format!("is set twice: {twin} sets it too");
            problems.push(entry.problem(Wrong::new(what, "remove one of the two")));
            continue;
        }
        match set(&mut config, &entry) {
            Ok(()) => drop(origins.insert(entry.key, entry.origin)),
            Err(wrong) => problems.push(entry.problem(wrong)),
        }
    }
    if !origins.contains_key("topics.changelog") {
        config.topics.changelog = changelog_of(&config.kafka.group);
    }
    let file_of = |key: &str| match origins.get(key) {
        Some(Origin::Contents { path, .. }) => Some(path.clone()),
        _ => None,
    };
    config.redis.password_file = file_of("redis.password");
    config.redis.sentinel_password_file = file_of("redis.sentinel_password");
    config.kafka.username_file = file_of("kafka.properties.sasl.username");
    config.kafka.password_file = file_of("kafka.properties.sasl.password");
    let loaded = Loaded { config, file: file.map(|(path, _)| path.to_owned()), origins };
    together(&loaded, &mut problems);
    if problems.is_empty() { Ok(loaded) } else { Err(Invalid::new(problems)) }
}

fn set(config: &mut Config, entry: &Entry) -> Result<(), Wrong> {
    if entry.is_left_placeholder() {
        return Err(left_placeholder(entry));
    }
    if let Some(name) = property_name(&entry.key) {
        let value = read::property(&entry.raw)?;
        properties::check(name, &value)?;
        config.kafka.properties.insert(name.to_owned(), value);
        return Ok(());
    }
    match KEYS.iter().find(|key| key.name == entry.key) {
        Some(key) => (key.set)(config, &entry.raw),
        None => Err(unknown_key(&entry.key)),
    }
}

fn left_placeholder(entry: &Entry) -> Wrong {
    let what = "contains a placeholder that was not replaced: values are taken literally";
    let mut remedy = match entry.origin {
        Origin::File { .. } => {
            "write the value itself, or remove the line and set the environment variable "
                .to_owned()
                + &variable_of(&entry.key)
        }
        _ => "replace it before this process starts".to_owned(),
    };
    let may_be_a_secret =
        property_name(&entry.key).is_some() || SECRET_KEYS.contains(&entry.key.as_str());
    if may_be_a_secret {
        let file = format!("{}{FILE_SUFFIX}", entry.key);
        remedy +=
            &format!("; if the value really contains it, put the value into a file and set {file}");
    }
    Wrong::new(what, remedy)
}

fn unknown_key(unknown: &str) -> Wrong {
    let field = unknown.rsplit('.').next().unwrap_or(unknown);
    // The right key in the wrong section is as likely as a typing error.
    let misplaced = KEYS.iter().find(|key| key.field == field).map(|key| key.name);
    let remedy = match misplaced.or_else(|| nearest_key(unknown)) {
        Some(key) => format!("did you mean {key}?"),
        None => "see `device-status config show` for all keys".to_owned(),
    };
    Wrong::new("is not a known key", remedy)
}

/// Checks that involve several keys.
fn together(loaded: &Loaded, problems: &mut Vec<Problem>) {
    let config = &loaded.config;
    let mut problem = |key: &str, value: Option<&str>, what: String, remedy: &str| {
        problems.push(Problem {
            key: key.to_owned(),
            value: value.map(|value| format!("{value:?}")),
            origin: loaded.origin(key).clone(),
            what,
            remedy: remedy.to_owned(),
        });
    };

    let topics = &config.topics;
    let named = [
        ("topics.heartbeats", &topics.heartbeats),
        ("topics.vpn_sessions", &topics.vpn_sessions),
        ("topics.lifecycle", &topics.lifecycle),
        ("topics.status_changes", &topics.status_changes),
        ("topics.dead_letters", &topics.dead_letters),
        ("topics.changelog", &topics.changelog),
    ];
    for (place, (key, name)) in named.iter().enumerate() {
        if let Some((other, _)) = named[..place].iter().find(|(_, other)| other == name) {
            let what = format!("is also the topic of {other}");
            problem(key, Some(name), what, "set a different topic for each");
        }
    }
    if !loaded.origins.contains_key("topics.changelog")
        && read::topic(&Raw::Text(topics.changelog.clone())).is_err()
    {
        problem(
            "kafka.group",
            Some(&config.kafka.group),
            format!(
                "makes {:?} the changelog's name, which is not a valid topic name",
                topics.changelog
            ),
            "set topics.changelog to a valid name",
        );
    }
    for name in FILE_PROPERTIES {
        if let Some(path) = config.kafka.properties.get(*name).filter(|path| *path != "probe")
            && let Err(error) = std::fs::metadata(path).and_then(|found| match found.is_dir() {
                true => Ok(()),
                false => std::fs::File::open(path).map(drop),
            })
        {
            let what = format!("cannot be read: {error}");
            let remedy = "give the path of a file that this process may read";
            problem(&format!("{PROPERTIES}.{name}"), Some(path), what, remedy);
        }
    }
    let processing = &config.processing;
    if processing.replay_window + processing.slack > processing.tombstone_retention {
        let what = format!(
            "is longer than deletions are remembered ({} s): a restart would replay heartbeats \
             from before a deletion that was forgotten, and bring the device back",
            processing.tombstone_retention.as_secs()
        );
        let remedy = "decrease it, or increase processing.tombstone_retention";
        problem("processing.replay_window", None, what, remedy);
    }
    let fetch_wait = config.kafka.properties.get(FETCH_WAIT);
    let idle_ms = processing.max_input_idle.as_millis();
    if let Some(wait) = fetch_wait.filter(|wait| wait.parse().is_ok_and(|ms: u128| ms > idle_ms)) {
        let what = format!(
            "is longer than processing.max_input_idle ({idle_ms} ms): an input whose fetch waits \
             at the broker would count as an input that cannot be read"
        );
        let remedy = "decrease or remove it, or increase processing.max_input_idle";
        problem(&format!("{PROPERTIES}.{FETCH_WAIT}"), Some(wait), what, remedy);
    }
    if let Some((key, what, remedy)) = oauth_together(config) {
        problem(key, None, what.to_owned(), remedy);
    }
    redis_together(config, &mut problem);
    if config.kafka.group_protocol == GroupProtocol::Consumer {
        for name in BROKER_OWNED_PROPERTIES {
            if let Some(value) = config.kafka.properties.get(*name) {
                problem(
                    &format!("{PROPERTIES}.{name}"),
                    Some(value),
                    "is set by the broker with kafka.group_protocol = \"consumer\"".to_owned(),
                    "set it on the broker (group.consumer.*), or use kafka.group_protocol = \
                     \"classic\"",
                );
            }
        }
    }
}

fn from_flags(flags: &[String], entries: &mut Vec<Entry>, problems: &mut Vec<Problem>) {
    for flag in flags {
        match flag.split_once('=') {
            Some((key, value)) => entries.push(Entry {
                key: key.trim().to_owned(),
                raw: Raw::Environment(value.to_owned()),
                origin: Origin::Flag,
            }),
            // Not shown: it may be a secret.
            None => {
                let remedy = "write --set KEY=VALUE, for example --set log.level=debug";
                problems.push(Problem::of_none(Origin::Flag, "has no equals sign", remedy));
            }
        }
    }
}

/// What is wrong with `kafka.oauth_command` beside the properties, if anything is.
fn oauth_together(config: &Config) -> Option<(&'static str, &'static str, &'static str)> {
    const KEY: &str = "kafka.oauth_command";
    let kafka = &config.kafka;
    let property = |name: &str| kafka.properties.get(name).map(String::as_str);
    if kafka.oauth_command.is_empty() {
        return None;
    }
    let mechanism = property("sasl.mechanism").or_else(|| property("sasl.mechanisms"));
    if mechanism != Some("OAUTHBEARER") {
        let what = "has no effect with another SASL mechanism";
        return Some((KEY, what, "set kafka.properties.sasl.mechanism to OAUTHBEARER"));
    }
    let protocol = property("security.protocol").unwrap_or_default().to_ascii_lowercase();
    if !protocol.starts_with("sasl_") {
        let what = "has no effect without SASL";
        return Some((KEY, what, "set kafka.properties.security.protocol to sasl_ssl"));
    }
    if property("sasl.oauthbearer.method").is_some_and(|method| method != "default") {
        let what = "is a second source of tokens beside kafka.properties.sasl.oauthbearer.method";
        return Some((KEY, what, "remove one of the two"));
    }
    None
}

/// Checks that involve several keys of Redis.
fn redis_together(config: &Config, mut problem: impl FnMut(&str, Option<&str>, String, &str)) {
    let redis = &config.redis;
    let Ok(servers) = RedisServers::parse(&redis.url) else { return };
    if matches!(servers, RedisServers::Cluster(_))
        && redis.fleet_members
        && !has_hash_tag(&redis.prefix)
    {
        let what = "does not work on a cluster without a hash tag: a device and the sets of its \
                    fleet are changed by one script, so all keys must be on one node";
        let remedy = "set it to false, or put a hash tag into redis.prefix, for example {ds}:";
        problem("redis.fleet_members", None, what.to_owned(), remedy);
    }
    let files = [
        ("redis.ca_file", &redis.ca_file),
        ("redis.certificate_file", &redis.certificate_file),
        ("redis.key_file", &redis.key_file),
    ];
    for (key, path) in files.into_iter().filter(|(_, path)| !path.is_empty()) {
        if !servers.has_tls() {
            let what = "has no effect without TLS".to_owned();
            problem(key, Some(path), what, "begin redis.url with rediss, or remove this key");
        } else if let Err(error) = std::fs::read(path) {
            let what = format!("cannot be read: {error}");
            let remedy = "give the path of a PEM file that this process may read";
            problem(key, Some(path), what, remedy);
        }
    }
    let (certificate, own_key) = (&redis.certificate_file, &redis.key_file);
    if certificate.is_empty() != own_key.is_empty() {
        let (given, lacking) = match own_key.is_empty() {
            true => ("redis.certificate_file", "redis.key_file"),
            false => ("redis.key_file", "redis.certificate_file"),
        };
        let what = format!("has no effect without {lacking}");
        problem(given, None, what, "set both or neither");
    }
}

fn from_file(path: &Path, text: &str, entries: &mut Vec<Entry>, problems: &mut Vec<Problem>) {
    let at = |offset: usize| {
        let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
        Origin::File { path: path.to_owned(), line }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // Values recovered from a malformed file would be guesses.
        problems.extend(errors.into_iter().map(|error| {
            let origin = at(error.span().map_or(0, |span| span.start));
            let what = format!("is not TOML: {}", error.message());
            Problem::of_none(origin, what, "see https://toml.io for the syntax")
        }));
        return;
    }
    flatten("", table.get_ref(), &at, entries);
}

fn flatten(
    prefix: &str,
    table: &DeTable<'_>,
    at: &impl Fn(usize) -> Origin,
    entries: &mut Vec<Entry>,
) {
    for (name, value) in table {
        let key = match prefix {
            "" => name.get_ref().to_string(),
            prefix => format!("{prefix}.{}", name.get_ref()),
        };
        let raw = match value.get_ref() {
            DeValue::Table(table) => {
                flatten(&key, table, at, entries);
                continue;
            }
            DeValue::String(text) => Raw::Text(text.to_string()),
            DeValue::Boolean(truth) => Raw::Boolean(*truth),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Raw::Integer(number),
                    Err(_) => Raw::Other("an integer out of range"),
                }
            }
            DeValue::Float(number) => {
                number.as_str().parse().map_or(Raw::Other("a malformed number"), Raw::Float)
            }
            DeValue::Datetime(_) => Raw::Other("a date"),
            DeValue::Array(array) => {
                let texts = array.iter().map(|value| match value.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    _ => None,
                });
                texts
                    .collect::<Option<_>>()
                    .map_or(Raw::Other("an array of other values"), Raw::Texts)
            }
        };
        entries.push(Entry { key, raw, origin: at(name.span().start) });
    }
}

#[cfg(test)]
mod tests;
