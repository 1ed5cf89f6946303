//! What is made from the table of keys: the commented example, the reference,
//! and what `config show` prints.

use std::fmt::Write as _;

use super::errors::Origin;
use super::keys::{
    BROKER_OWNED_PROPERTIES, ENVIRONMENT_PREFIX, KEYS, Key, OWNED_PROPERTIES, PROPERTIES,
    PROPERTIES_HELP, SECTIONS,
};
use super::load::Loaded;
use super::{Config, shown_property};

/// The width at which comments are wrapped.
const WIDTH: usize = 80;

fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section() == section)
}

/// `deploy/device-status.example.toml`: every key with its default, commented
/// out.
#[must_use]
pub fn example() -> String {
    let mut out = String::from(
        "# device-status: every key, with its default. Made from the table in\n\
         # src/config/keys.rs by `UPDATE=1 cargo test --test pure configuration`.\n\
         #\n\
         # Check your own with `device-status config check --config FILE`.\n",
    );
    let default = Config::default();
    for (section, about) in SECTIONS {
        let _ = write!(out, "\n[{section}]\n");
        comment(&mut out, about);
        for key in keys_of(section) {
            out.push('\n');
            comment(&mut out, &format!("{} ({})", key.help, key.takes));
            let value = match key.default_note {
                Some(note) if note.contains("cores") => {
                    comment(&mut out, &format!("Default: {note}."));
                    "4".to_owned()
                }
                Some(note) => {
                    comment(&mut out, &format!("Default: {note}."));
                    key.shown(&default).to_string()
                }
                None => key.shown(&default).to_string(),
            };
            let _ = writeln!(out, "#{} = {value}", key.field());
        }
        if *section == "kafka" {
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
    let mut out = String::from(
        "# Configuration\n\
         \n\
         <!-- Made from the table in src/config/keys.rs by\n\
         \u{20}    `UPDATE=1 cargo test --test pure configuration`. -->\n\
         \n\
         Everything has a default. A TOML file, named with `--config FILE`, goes before the\n\
         defaults, the environment before the file, and `--set KEY=VALUE` on the command line\n\
         before both. The variable of a key is `DEVICE_STATUS_`, the section, two underscores\n\
         and the key, in capitals. One underscore too few is an error. Other variables that begin\n\
         with `DEVICE_STATUS_` and have no two underscores are let be, and so are those that\n\
         Kubernetes makes for a service (`…_SERVICE_HOST`, `…_PORT_…`).\n\
         \n\
         Values are taken as they are written: a `${NAME}` or `$(NAME)` that nothing has replaced\n\
         is an error, but in the file that a `_file` key names.\n\
         \n\
         Secrets are best given in files: any of `kafka.properties`, and a key of which the\n\
         table says so, may be named with `_file` behind it, and then takes the path of a text\n\
         file that holds the value; a line's end at the end of the file does not count. The\n\
         files are read once, at the start.\n\
         \n\
         `device-status config check` says all that is wrong at once, without needing Kafka or\n\
         Redis, and exits with 78 if anything is; with `--json` it prints each problem with its\n\
         key, value, source and remedy. With `--connect` it looks at Kafka and Redis too. `device-status config show` prints what holds and where\n\
         it came from, without passwords. A commented example with every key is in\n\
         [`deploy/device-status.example.toml`](../deploy/device-status.example.toml).\n\
         \n\
         Durations are written with their unit: `20ms`, `15s`, `30m`, `24h`.\n",
    );
    let default = Config::default();
    for (section, about) in SECTIONS {
        let _ = write!(out, "\n## `{section}`\n\n{about}\n\n");
        out.push_str("| Key | Default | Takes | What it does |\n|---|---|---|---|\n");
        for key in keys_of(section) {
            let value = key.default_note.map_or_else(
                || match key.shown(&default) {
                    toml::Value::String(text) => format!("`{text}`"),
                    other => format!("`{other}`"),
                },
                str::to_owned,
            );
            let (name, takes, help) = (key.name, key.takes, key.help);
            let _ = writeln!(out, "| `{name}` | {value} | {takes} | {help} |");
        }
        if *section == "kafka" {
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
    let _ = write!(
        out,
        "\n### `{PROPERTIES}`\n\n\
         In the file, by librdkafka's own names; in the environment, with underscores for the\n\
         dots:\n\n\
         ```toml\n[{PROPERTIES}]\n\"client.rack\" = \"eu-1a\"\n\
         \"compression.type\" = \"lz4\"\n```\n\n\
         ```sh\n{ENVIRONMENT_PREFIX}KAFKA__PROPERTIES__SECURITY_PROTOCOL=sasl_ssl\n\
         {ENVIRONMENT_PREFIX}KAFKA__PROPERTIES__SASL_PASSWORD_FILE=/run/secrets/kafka-password\n```\n\n\
         Names and values are checked at the start. These are refused:\n\n\
         | Property | Why | Instead |\n|---|---|---|\n"
    );
    for (name, what, remedy) in OWNED_PROPERTIES {
        let _ = writeln!(out, "| `{name}` | {what} | {remedy} |");
    }
    for name in BROKER_OWNED_PROPERTIES {
        let _ = writeln!(
            out,
            "| `{name}` | is the broker's to decide with `kafka.group_protocol = \"consumer\"` \
             | set it on the broker, or use `classic` |"
        );
    }
}

/// librdkafka's settings, secrets left out.
fn properties_shown(config: &Config) -> impl Iterator<Item = (&str, String)> {
    let properties = config.kafka.properties.iter();
    properties.map(|(name, value)| (name.as_str(), shown_property(name, value)))
}

/// What holds, as a TOML file with a comment for each value that somebody set;
/// secrets left out.
#[must_use]
pub fn effective(loaded: &Loaded) -> String {
    let mut out = String::new();
    let from = |key: &str| match loaded.origin(key) {
        Origin::Default => String::new(),
        origin => format!("  # {origin}"),
    };
    for (section, _) in SECTIONS {
        let _ = writeln!(out, "{}[{section}]", if out.is_empty() { "" } else { "\n" });
        for key in keys_of(section) {
            let value = key.shown(&loaded.config);
            let _ = writeln!(out, "{} = {value}{}", key.field(), from(key.name));
        }
        if *section == "kafka" && !loaded.config.kafka.properties.is_empty() {
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

/// What holds, as JSON, section by section; secrets left out.
#[must_use]
pub fn effective_json(config: &Config) -> serde_json::Value {
    let mut sections = serde_json::Map::new();
    for (section, _) in SECTIONS {
        let mut fields: serde_json::Map<String, serde_json::Value> =
            keys_of(section).map(|key| (key.field().to_owned(), json(key.shown(config)))).collect();
        if *section == "kafka" {
            let properties = properties_shown(config);
            let properties: serde_json::Map<_, _> =
                properties.map(|(name, value)| (name.to_owned(), value.into())).collect();
            fields.insert("properties".to_owned(), properties.into());
        }
        sections.insert((*section).to_owned(), fields.into());
    }
    sections.into()
}

fn json(value: toml::Value) -> serde_json::Value {
    match value {
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => truth.into(),
        toml::Value::String(text) => text.into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_of_a_key_is_documented_and_the_other_way_round() {
        for key in KEYS {
            assert!(SECTIONS.iter().any(|(section, _)| *section == key.section()), "{}", key.name);
        }
        for (section, _) in SECTIONS {
            assert!(keys_of(section).next().is_some(), "{section}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_and_shows_no_secret() {
        let variables = [
            ("DEVICE_STATUS_REDIS__URL", "redis://user:hunter2@redis:6379"),
            ("DEVICE_STATUS_KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
            ("DEVICE_STATUS_KAFKA__PROPERTIES__CLIENT_RACK", "a\"b"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = super::super::load(None, variables.into_iter()).unwrap();
        let shown = effective(&loaded);
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("redis://user:[redacted]@redis:6379"), "{shown}");
        assert!(!effective_json(&loaded.config).to_string().contains("hunter2"));

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &shown).unwrap();
        let again = super::super::load(Some(file.path()), std::iter::empty()).unwrap();
        assert_eq!(effective_json(&again.config), effective_json(&loaded.config));
    }
}
