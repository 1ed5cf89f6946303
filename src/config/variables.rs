//! The environment: tells apart variables that are keys, misspelt keys, and others.

use super::entry::{Entry, FILE_SUFFIX};
use super::errors::{Origin, Problem};
use super::keys::{ENVIRONMENT_PREFIX, KEYS, SECRET_KEYS};
use super::properties::{self, property_name};
use super::read::{Raw, Wrong};

/// The environment variable of a key.
pub(super) fn variable_of(key: &str) -> String {
    let name = match property_name(key) {
        Some(property) => format!("KAFKA__PROPERTIES__{}", property.replace('.', "_")),
        None => key.replacen('.', "__", 1),
    };
    ENVIRONMENT_PREFIX.to_owned() + &name.to_ascii_uppercase()
}

/// The meaning of a variable.
enum Meaning {
    /// It names this key, which may not exist.
    Key(String),
    /// It names this key, but with one underscore in place of two.
    Slip(String),
    /// It is not a key.
    Other,
}

fn meaning(variable: &str) -> Meaning {
    let Some(name) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { return Meaning::Other };
    if is_of_kubernetes(name) {
        return Meaning::Other;
    }
    if name.contains("__") {
        return Meaning::Key(key_of(name));
    }
    let files = SECRET_KEYS.iter().map(|key| format!("{key}{FILE_SUFFIX}"));
    let mut keys = KEYS.iter().map(|key| key.name.to_owned()).chain(files);
    let slip = keys.find(|key| key.replace('.', "_").eq_ignore_ascii_case(name)).or_else(|| {
        let property = name.to_ascii_uppercase().strip_prefix("KAFKA_PROPERTIES_")?.to_owned();
        let key = key_of(&format!("KAFKA__PROPERTIES__{property}"));
        let named = property_name(&key)?;
        properties::is_known(named.strip_suffix(FILE_SUFFIX).unwrap_or(named)).then_some(key)
    });
    slip.map_or(Meaning::Other, Meaning::Slip)
}

/// Whether Kubernetes sets this variable, for a service whose name begins with
/// `device-status`.
fn is_of_kubernetes(name: &str) -> bool {
    let name = format!("_{name}");
    ["_SERVICE_HOST", "_PORT"].iter().any(|end| name.ends_with(end))
        || ["_SERVICE_PORT", "_PORT_"].iter().any(|part| name.contains(part))
}

fn key_of(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let mut parts = name.splitn(3, "__");
    let (section, field) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let Some(property) = parts.next() else { return format!("{section}.{field}") };
    // librdkafka's names have dots and no underscores.
    let dotted = property.replace('_', ".");
    let property = match property.strip_suffix(FILE_SUFFIX) {
        // Some of librdkafka's own names end in `.file`.
        Some(base) if !properties::is_known(&dotted) => base.replace('_', ".") + FILE_SUFFIX,
        _ => dotted,
    };
    format!("{section}.{field}.{property}")
}

/// Whether a variable of this name is a configuration key, or a misspelt one.
#[must_use]
pub fn is_key(variable: &str) -> bool {
    !matches!(meaning(variable), Meaning::Other)
}

pub(super) fn from_environment(
    environment: impl Iterator<Item = (String, String)>,
    entries: &mut Vec<Entry>,
    problems: &mut Vec<Problem>,
) {
    let mut variables: Vec<(String, String)> = environment.collect();
    variables.sort();
    for (variable, value) in variables {
        let meaning = meaning(&variable);
        let origin = Origin::Environment { variable };
        let raw = Raw::Environment(value);
        match meaning {
            Meaning::Key(key) => entries.push(Entry { key, raw, origin }),
            Meaning::Slip(key) => {
                let remedy = format!("name the variable {}", variable_of(&key));
                let wrong =
                    Wrong::new("has one underscore where two must stand for the dot", remedy);
                problems.push(Entry { key, raw, origin }.problem(wrong));
            }
            Meaning::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_with_one_underscore_is_reported_with_its_right_name() {
        for (key, slip) in [
            ("kafka.brokers", "KAFKA_BROKERS"),
            ("redis.password_file", "REDIS_PASSWORD_FILE"),
            ("kafka.properties.sasl.password", "KAFKA_PROPERTIES_SASL_PASSWORD"),
            ("kafka.properties.sasl.password_file", "KAFKA_PROPERTIES_SASL_PASSWORD_FILE"),
        ] {
            let slip = format!("{ENVIRONMENT_PREFIX}{slip}");
            let (mut entries, mut problems) = (Vec::new(), Vec::new());
            let environment = [(slip, "hunter2".to_owned())].into_iter();
            from_environment(environment, &mut entries, &mut problems);
            assert!(entries.is_empty());
            let told = problems[0].to_string();
            assert!(told.contains(&format!("name the variable {}", variable_of(key))), "{told}");
            assert!(key.ends_with("password") != told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn variables_of_kubernetes_and_others_are_ignored() {
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_ADMIN",
            "PORT",
            "PORT_9464_TCP",
            "PORT_9464_TCP_ADDR",
            "REDIS_SERVICE_HOST",
            "A__B_SERVICE_HOST",
            "KAFKA_PORT_9092_TCP_PORT",
            "API_TOKEN_FILE",
            "HOME",
        ] {
            assert!(!is_key(&format!("{ENVIRONMENT_PREFIX}{name}")), "{name}");
        }
        for key in KEYS {
            assert!(is_key(&variable_of(key.name)));
        }
    }
}
