//! A configured value before it is parsed.

use std::io::Read as _;
use std::path::Path;

use super::errors::{Origin, Problem};
use super::keys::{KEYS, SECRET_KEYS};
use super::properties::{self, property_name};
use super::read::{self, Raw, Wrong};
use super::{REDACTED, is_secret_property, redact_url};

/// A configured value before it is parsed.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// The suffix of a key that names a file with the value.
pub(super) const FILE_SUFFIX: &str = "_file";

/// The maximum size of a value in a file: enough for a chain of certificates.
const CONTENTS_MAX_BYTES: u64 = 1 << 20;

impl Entry {
    pub(super) fn problem(&self, wrong: Wrong) -> Problem {
        let Wrong { what, remedy } = wrong;
        let value = Some(self.shown());
        Problem { key: self.key.clone(), value, origin: self.origin.clone(), what, remedy }
    }

    /// The value as written, with secrets redacted.
    fn shown(&self) -> String {
        match (&self.raw, property_name(&self.key)) {
            (_, Some(name)) if is_secret_property(name) => REDACTED.to_owned(),
            (Raw::Text(url) | Raw::Environment(url), Some(name)) if name.ends_with(".url") => {
                format!("{:?}", redact_url(url))
            }
            _ if SECRET_KEYS.contains(&self.key.as_str()) => REDACTED.to_owned(),
            (Raw::Text(url) | Raw::Environment(url), None) if self.key == "redis.url" => {
                format!("{:?}", redact_url(url))
            }
            // A misspelt key may hold a secret.
            (_, property) if self.is_unknown(property) && self.sounds_secret() => {
                REDACTED.to_owned()
            }
            (raw, _) => raw.shown(),
        }
    }

    fn is_unknown(&self, property: Option<&str>) -> bool {
        match property {
            _ if named_by_file(&self.key).is_some() => false,
            Some(name) => !properties::is_known(name),
            None => !KEYS.iter().any(|key| key.name == self.key),
        }
    }

    /// Whether the value contains `${NAME}` or `$(NAME)`, which a shell, Helm or Kubernetes
    /// should have replaced. Values from a `_file` may contain it, and a shell runs the
    /// command of Kerberos.
    pub(super) fn is_left_placeholder(&self) -> bool {
        let (Raw::Text(text) | Raw::Environment(text)) = &self.raw else { return false };
        let is_exempt = matches!(self.origin, Origin::Contents { .. })
            || property_name(&self.key) == Some("sasl.kerberos.kinit.cmd");
        !is_exempt
            && [("${", '}'), ("$(", ')')].iter().any(|(open, close)| {
                let names = text.split(open).skip(1).filter_map(|rest| rest.split_once(*close));
                names.map(|(name, _)| name).any(|name| name.starts_with(is_name_start))
            })
    }

    fn sounds_secret(&self) -> bool {
        let sounds = ["pas", "psw", "pw", "tok", "tkn", "sec", "sct", "cred", "key"];
        sounds.iter().any(|sound| self.key.contains(sound))
            || nearest_key(&self.key).is_some_and(|key| SECRET_KEYS.contains(&key))
    }
}

fn is_name_start(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_'
}

/// The key without its suffix `_file`, where that names a file with the value: for secret
/// keys and for all settings of librdkafka.
fn named_by_file(key: &str) -> Option<&str> {
    let base = key.strip_suffix(FILE_SUFFIX)?;
    (property_name(base).is_some() || SECRET_KEYS.contains(&base)).then_some(base)
}

/// The contents of a file, without a line end at its end.
fn contents(path: &Path) -> Result<String, Wrong> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(CONTENTS_MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| {
            let remedy = "give the path of a text file that this process may read";
            Wrong::new(format!("cannot be read: {error}"), remedy)
        })?;
    if text.len() as u64 > CONTENTS_MAX_BYTES {
        let what = format!("has more than {CONTENTS_MAX_BYTES} bytes");
        return Err(Wrong::new(what, "give the path of a file that holds only the value"));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(Wrong::new("is an empty file", "write the value into it"));
    }
    Ok(text.to_owned())
}

/// Reads a secret from its file again.
///
/// # Errors
/// What is wrong with the file, without its path.
pub fn secret_in(path: &Path) -> Result<String, String> {
    contents(path).map_err(|wrong| wrong.what)
}

/// Replaces an entry that names a file by one with the contents of the file.
pub(super) fn resolve(entry: Entry) -> Result<Entry, Box<Problem>> {
    let Some(key) = named_by_file(&entry.key).map(str::to_owned) else { return Ok(entry) };
    match read::text(&entry.raw).and_then(|path| Ok((contents(path.as_ref())?, path))) {
        Ok((text, path)) => {
            let origin = Origin::Contents { path: path.into(), named: Box::new(entry.origin) };
            Ok(Entry { key, raw: Raw::Environment(text), origin })
        }
        Err(wrong) => Err(Box::new(entry.problem(wrong))),
    }
}

/// The known key that is most similar to a misspelt one.
pub(super) fn nearest_key(unknown: &str) -> Option<&'static str> {
    properties::nearest(unknown, KEYS.iter().map(|key| key.name))
}
