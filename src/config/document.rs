//! Documents generated from the table of keys: the commented example, the
//! reference, and the output of `config show`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::json;

use super::errors::Origin;
use super::keys::{BROKER_OWNED_PROPERTIES, KEYS, Key, OWNED_PROPERTIES, PROPERTIES};
use super::load::Loaded;
use super::{Config, shown_property};

/// The description of [`PROPERTIES`].
const PROPERTIES_HELP: &str = "Any other setting of librdkafka, by its own name, for every \
    client: security, sizes, timeouts. Settings that the service needs for itself are refused.";

/// The width at which comments are wrapped.
const WIDTH: usize = 80;

/// The texts of a section.
#[derive(Deserialize)]
struct SectionText {
    about: String,
    #[serde(flatten)]
    keys: BTreeMap<String, KeyText>,
}

/// The texts of a key.
#[derive(Deserialize)]
struct KeyText {
    takes: String,
    help: String,
    /// A note in place of the default, where that is not a fixed value.
    default: Option<String>,
}

static TEXTS: LazyLock<BTreeMap<String, SectionText>> =
    LazyLock::new(|| toml::from_str(include_str!("keys.toml")).expect("a test reads it"));

/// The sections and their keys, in the order of the file.
fn sections() -> impl Iterator<Item = (&'static str, &'static [Key])> {
    KEYS.chunk_by(|a, b| a.section == b.section).map(|keys| (keys[0].section, keys))
}

/// As [`sections`], with their texts.
fn documented() -> impl Iterator<Item = (&'static str, &'static SectionText, &'static [Key])> {
    sections().map(|(section, keys)| (section, &TEXTS[section], keys))
}

/// `deploy/device-status.example.toml`: every key with its default, commented
/// out.
#[must_use]
pub fn example() -> String {
    let mut out = String::from(
        "# device-status: every key with its default. Generated from src/config/keys.rs\n\
         # and src/config/keys.toml by `UPDATE=1 cargo test --test pure configuration`.\n\
         #\n\
         # Check your own with `device-status config check --config FILE`.\n",
    );
    let default = Config::default();
    for (section, texts, keys) in documented() {
        let _ = write!(out, "\n[{section}]\n");
        comment(&mut out, &texts.about);
        for key in keys {
            let KeyText { takes, help, default: note } = &texts.keys[key.field];
            out.push('\n');
            comment(&mut out, &format!("{help} ({takes})"));
            if let Some(note) = note {
                comment(&mut out, &format!("Default: {note}."));
            }
            let value = match note {
                Some(note) if note.contains("cores") => toml::Value::Integer(4),
                _ => key.shown(&default),
            };
            let _ = writeln!(out, "#{} = {value}", key.field);
        }
        if section == "kafka" {
            let _ = write!(out, "\n#[{PROPERTIES}]\n");
            comment(&mut out, PROPERTIES_HELP);
            out.push_str("#\"client.rack\" = \"eu-1a\"\n#\"compression.type\" = \"lz4\"\n");
        }
    }
    out
}

fn comment(out: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split_whitespace() {
        if width > 0 && width + 1 + word.len() > WIDTH {
            out.push('\n');
            width = 0;
        }
        if width == 0 {
            out.push('#');
            width = 1;
        }
        out.push(' ');
        out.push_str(word);
        width += 1 + word.len();
    }
    out.push('\n');
}

/// `docs/configuration.md`.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(include_str!("reference.txt"));
    let default = Config::default();
    for (section, texts, keys) in documented() {
        let _ = write!(out, "\n## `{section}`\n\n{}\n\n", texts.about);
        out.push_str("| Key | Default | Takes | What it does |\n|---|---|---|---|\n");
        for key in keys {
            let KeyText { takes, help, default: note } = &texts.keys[key.field];
            let value = note.clone().unwrap_or_else(|| match key.shown(&default) {
                toml::Value::String(text) => format!("`{text}`"),
                other => format!("`{other}`"),
            });
            let _ = writeln!(out, "| `{}` | {value} | {takes} | {help} |", key.name);
        }
        if section == "kafka" {
            let _ = writeln!(
                out,
                "| `{PROPERTIES}.<name>` | | text, number or boolean | {PROPERTIES_HELP} |"
            );
            properties(&mut out);
        }
    }
    out
}

fn properties(out: &mut String) {
    out.push_str(include_str!("reference_properties.txt"));
    for (names, what, remedy) in OWNED_PROPERTIES {
        for name in *names {
            let _ = writeln!(out, "| `{name}` | {what} | {remedy} |");
        }
    }
    for name in BROKER_OWNED_PROPERTIES {
        let _ = writeln!(
            out,
            "| `{name}` | is set by the broker with `kafka.group_protocol = \"consumer\"` \
             | set it on the broker, or use `classic` |"
        );
    }
}

/// librdkafka's settings, with secrets redacted.
fn properties_shown(config: &Config) -> impl Iterator<Item = (&str, String)> {
    let properties = config.kafka.properties.iter();
    properties.map(|(name, value)| (name.as_str(), shown_property(name, value)))
}

/// The values in effect, as a TOML file. A comment says where each value comes
/// from that is not the default. Secrets are redacted.
#[must_use]
pub fn effective(loaded: &Loaded) -> String {
    let mut out = String::new();
    let from = |key: &str| match loaded.origin(key) {
        Origin::Default => String::new(),
        origin => format!("  # {origin}"),
    };
    for (section, keys) in sections() {
        let _ = writeln!(out, "{}[{section}]", if out.is_empty() { "" } else { "\n" });
        for key in keys {
            let value = key.shown(&loaded.config);
            let _ = writeln!(out, "{} = {value}{}", key.field, from(key.name));
        }
        if section == "kafka" && !loaded.config.kafka.properties.is_empty() {
            let _ = write!(out, "\n[{PROPERTIES}]\n");
            for (name, value) in properties_shown(&loaded.config) {
                let origin = from(&format!("{PROPERTIES}.{name}"));
                let (name, value) = (toml::Value::from(name), toml::Value::from(value));
                let _ = writeln!(out, "{name} = {value}{origin}");
            }
        }
    }
    out
}

/// The values in effect as JSON, by section. Secrets are redacted.
#[must_use]
pub fn effective_json(config: &Config) -> serde_json::Value {
    let mut shown = serde_json::Map::new();
    for (section, keys) in sections() {
        let mut fields: serde_json::Map<_, _> =
            keys.iter().map(|key| (key.field.to_owned(), json!(key.shown(config)))).collect();
        if section == "kafka" {
            let properties: BTreeMap<_, _> = properties_shown(config).collect();
            fields.insert("properties".to_owned(), json!(properties));
        }
        shown.insert(section.to_owned(), fields.into());
    }
    shown.into()
}

/// Secrets are redacted.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Config {}", effective_json(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_texts_and_every_text_its_key() {
        let mut named: Vec<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
        named.sort_unstable();
        let texts = TEXTS.iter().flat_map(|(section, texts)| {
            texts.keys.keys().map(move |field| format!("{section}.{field}"))
        });
        let mut texts: Vec<String> = texts.collect();
        texts.sort_unstable();
        assert_eq!(named, texts);
        assert_eq!(sections().count(), TEXTS.len());
    }

    #[test]
    fn config_show_reads_back_and_redacts_secrets() {
        let variables = [
            ("DEVICE_STATUS_REDIS__URL", "redis://user:hunter2@redis:6379"),
            ("DEVICE_STATUS_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
            ("DEVICE_STATUS_KAFKA__PROPERTIES__CLIENT_RACK", "a\"b"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = super::super::load(None, variables.into_iter(), &[]).unwrap();
        let shown = effective(&loaded);
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("redis://user:[redacted]@redis:6379"), "{shown}");
        assert!(!effective_json(&loaded.config).to_string().contains("hunter2"));

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &shown).unwrap();
        let again = super::super::load(Some(file.path()), std::iter::empty(), &[]).unwrap();
        assert_eq!(effective_json(&again.config), effective_json(&loaded.config));
    }
}
