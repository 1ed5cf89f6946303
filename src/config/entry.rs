//! A value that somebody wrote, before it is taken.

use std::io::Read as _;
use std::path::Path;

use super::errors::{Origin, Problem};
use super::keys::{KEYS, SECRET_KEYS};
use super::properties::{self, property_name};
use super::read::{self, Raw, Wrong};
use super::{REDACTED, is_secret_property, redact_url};

/// A value that somebody wrote.
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) raw: Raw,
    pub(super) origin: Origin,
}

/// What is put behind a name to give a file that holds the value.
pub(super) const FILE_SUFFIX: &str = "_file";

/// The largest value in a file: a chain of certificates has room.
const CONTENTS_MAX_BYTES: u64 = 1 << 20;

impl Entry {
    pub(super) fn problem(&self, wrong: Wrong) -> Problem {
        let Wrong { what, remedy } = wrong;
        let value = Some(self.shown());
        Problem { key: self.key.clone(), value, origin: self.origin.clone(), what, remedy }
    }

    /// The value as it was written, without secrets.
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
            // It may be a secret under a slip of its name.
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

    /// Whether it holds `${NAME}` or `$(NAME)`, which a shell, Helm or Kubernetes
    /// should have replaced. What a file holds, as a secret may, is its own
    /// value; and a shell sees the command of Kerberos.
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

/// The key whose value is in the file that this key names: `…_file` of a secret
/// key, or of any of librdkafka's settings.
fn named_by_file(key: &str) -> Option<&str> {
    let base = key.strip_suffix(FILE_SUFFIX)?;
    (property_name(base).is_some() || SECRET_KEYS.contains(&base)).then_some(base)
}

/// What a file holds, without the line's end that editors leave.
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
        return Err(Wrong::new(what, "name the file that holds the value alone"));
    }
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(Wrong::new("is an empty file", "write the value into it"));
    }
    Ok(text.to_owned())
}

/// The secret that a file holds now, as at the start.
///
/// # Errors
/// What is wrong with the file, without its path.
pub fn secret_in(path: &Path) -> Result<String, String> {
    contents(path).map_err(|wrong| wrong.what)
}

/// An entry that names a file becomes one with what the file holds.
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

/// The key that a slip of the finger away is.
pub(super) fn nearest_key(unknown: &str) -> Option<&'static str> {
    properties::nearest(unknown, KEYS.iter().map(|key| key.name))
}
