//! What must not be shown, and what is shown instead.

/// What is shown in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Whether a librdkafka property's value must not be shown.
#[must_use]
pub fn is_secret_property(name: &str) -> bool {
    let names_a_secret = ["passw", "secret", "key", "pem", "token", "sasl.oauthbearer.config"];
    let names_a_place = [".location", ".file", "_file", ".url", ".type"];
    names_a_secret.iter().any(|word| name.contains(word))
        && !names_a_place.iter().any(|end| name.ends_with(end))
}

/// A librdkafka property's value as it may be shown.
#[must_use]
pub fn shown_property(name: &str, value: &str) -> String {
    match name {
        name if is_secret_property(name) => REDACTED.to_owned(),
        name if name.ends_with(".url") => redact_url(value),
        _ => value.to_owned(),
    }
}

/// A URL without the password in it, if there is one.
#[must_use]
pub fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return if url.contains('@') { REDACTED.to_owned() } else { url.to_owned() };
    };
    // A password may hold a `?` that nobody escaped; and some schemes carry
    // passwords in their query.
    let harmless = |query: &str| {
        query.split('&').all(|part| ["db=", "protocol="].iter().any(|name| part.starts_with(name)))
    };
    let from = rest.rfind('@').unwrap_or(0);
    let (rest, query) = match rest[from..].find('?').map(|at| rest.split_at(from + at)) {
        Some((rest, query)) if harmless(&query[1..]) => (rest, query.to_owned()),
        Some((rest, _)) => (rest, format!("?{REDACTED}")),
        None => (rest, String::new()),
    };
    // The last `@`: a password may hold one that nobody escaped.
    match rest.rsplit_once('@') {
        Some((user, hosts)) => {
            let user = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:{REDACTED}@{hosts}{query}")
        }
        None => format!("{scheme}://{rest}{query}"),
    }
}
