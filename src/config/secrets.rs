//! Redaction of secrets.

/// The text in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Whether the value of a librdkafka setting is a secret.
#[must_use]
pub fn is_secret_property(name: &str) -> bool {
    let names_a_secret = ["passw", "secret", "key", "pem", "token", "sasl.oauthbearer.config"];
    let names_a_place = [".location", ".file", "_file", ".url", ".type"];
    names_a_secret.iter().any(|word| name.contains(word))
        && !names_a_place.iter().any(|end| name.ends_with(end))
}

/// The value of a librdkafka setting, redacted if it is a secret.
#[must_use]
pub fn shown_property(name: &str, value: &str) -> String {
    match name {
        name if is_secret_property(name) => REDACTED.to_owned(),
        name if name.ends_with(".url") => redact_url(value),
        _ => value.to_owned(),
    }
}

/// A URL with its password redacted.
#[must_use]
pub fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url.contains('@') { REDACTED.to_owned() } else { url.to_owned() };
    };
    // A password may contain an unescaped `?`, and some schemes have passwords in their
    // query.
    let harmless = |query: &str| {
        query.split('&').all(|part| ["db=", "protocol="].iter().any(|name| part.starts_with(name)))
    };
    let from = rest.rfind('@').unwrap_or(0);
    let (rest, query) = match rest[from..].find('?').map(|at| rest.split_at(from + at)) {
        Some((rest, query)) if harmless(&query[1..]) => (rest, query.to_owned()),
        Some((rest, _)) => (rest, format!("?{REDACTED}")),
        None => (rest, String::new()),
    };
    // Split at the last `@`: the password may contain an unescaped one.
    match rest.rsplit_once('@') {
        Some((user, hosts)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:{REDACTED}@{hosts}{query}")
        }
        None => format!("{scheme}://{rest}{query}"),
    }
}
