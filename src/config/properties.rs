//! `kafka.properties`: librdkafka's own settings, checked before a client is created.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::is_secret_property;
use super::keys::{OWNED_PROPERTIES, PROPERTIES};
use super::read::Wrong;

/// The SASL mechanisms of librdkafka. It accepts any other text as well, and fails only when
/// a client is created.
const SASL_MECHANISMS: [&str; 5] =
    ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI"];

/// The sorted names of all settings of librdkafka, with aliases, to suggest the right name
/// for a misspelt one. The list is a file, since the configuration must not use the C
/// interface; a test of `kafka::native` compares the two.
pub fn known_property_names() -> impl Iterator<Item = &'static str> {
    include_str!("property_names.txt").lines()
}

/// librdkafka's name of a key under `kafka.properties`.
pub(super) fn property_name(key: &str) -> Option<&str> {
    key.strip_prefix(PROPERTIES)?.strip_prefix('.')
}

/// Whether librdkafka has a setting of this name.
pub(super) fn is_known(name: &str) -> bool {
    !matches!(refusal(name, ""), Some((RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _)))
}

fn refusal(name: &str, value: &str) -> Option<(RDKafkaConfRes, String)> {
    let mut native = rdkafka::ClientConfig::new();
    native.set(name, value);
    match native.create_native_config() {
        Ok(_) => None,
        Err(KafkaError::ClientConfig(result, what, ..)) => Some((result, what)),
        Err(error) => Some((RDKafkaConfRes::RD_KAFKA_CONF_INVALID, error.to_string())),
    }
}

/// Checks a setting: against those that are refused, then with librdkafka.
pub(super) fn check(name: &str, value: &str) -> Result<(), Wrong> {
    let owned = OWNED_PROPERTIES.iter().find(|(names, ..)| names.contains(&name));
    if let Some((_, what, remedy)) = owned {
        return Err(Wrong::new(*what, *remedy));
    }
    if ["sasl.mechanism", "sasl.mechanisms"].contains(&name) && !SASL_MECHANISMS.contains(&value) {
        return Err(unknown_mechanism(value));
    }
    let Some((result, what)) = refusal(name, value) else { return Ok(()) };
    let what = if is_secret_property(name) { "is not accepted".to_owned() } else { what };
    let nearest = match result {
        RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN => {
            let plain = name.to_ascii_lowercase().replace(['_', '-'], ".");
            nearest(&plain, known_property_names())
        }
        _ => None,
    };
    let remedy = match nearest {
        Some(nearest) => format!("did you mean {PROPERTIES}.{nearest}?"),
        None => "see librdkafka's CONFIGURATION.md for names and values".to_owned(),
    };
    Err(Wrong::new(format!("is refused by librdkafka: {what}"), remedy))
}

fn unknown_mechanism(value: &str) -> Wrong {
    let known = SASL_MECHANISMS.join(", ");
    let remedy = match value {
        "AWS_MSK_IAM" => {
            "only Java clients with Amazon's library have it: use OAUTHBEARER with a program in \
             kafka.oauth_command that signs tokens, or a SCRAM user with SCRAM-SHA-512"
                .to_owned()
        }
        _ => match SASL_MECHANISMS.iter().find(|known| known.eq_ignore_ascii_case(value.trim())) {
            Some(known) => format!("write {known}, in capitals and without spaces"),
            None => format!("use one of {known}"),
        },
    };
    Wrong::new("is not a SASL mechanism of librdkafka", remedy)
}

/// The most similar name, if one is similar enough.
pub(super) fn nearest(
    unknown: &str,
    names: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    names
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .filter(|(distance, name)| *distance <= 2 + name.len() / 8)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_reported_with_the_right_one() {
        for (slip, meant) in [
            ("securty.protocol", "security.protocol"),
            ("sasl.usrname", "sasl.username"),
            ("sasl_mechanism", "sasl.mechanism"),
            ("Client.Rack", "client.rack"),
        ] {
            let remedy = check(slip, "x").unwrap_err().remedy;
            assert_eq!(remedy, format!("did you mean kafka.properties.{meant}?"));
        }
        assert!(check("xyzzy", "x").unwrap_err().remedy.contains("CONFIGURATION.md"));
    }

    #[test]
    fn an_unknown_mechanism_is_reported_with_an_alternative() {
        let remedy = |value| check("sasl.mechanism", value).unwrap_err().remedy;
        assert!(remedy("AWS_MSK_IAM").contains("with SCRAM-SHA-512"));
        assert!(remedy("scram-sha-512").contains("write SCRAM-SHA-512,"));
        assert!(remedy("DIGEST").contains("PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"));
        for known in SASL_MECHANISMS {
            assert_eq!(check("sasl.mechanisms", known), Ok(()));
        }
    }
}
