//! What is wrong with a configuration, where it says so, and what to do.

use std::fmt;
use std::path::PathBuf;

use crate::error::Fatal;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// `--config FILE` on the command line.
    Named,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// `--set KEY=VALUE` on the command line.
    Flag,
    /// The contents of a file that somebody named.
    Contents {
        /// The file.
        path: PathBuf,
        /// Where it was named.
        named: Box<Origin>,
    },
}

impl Origin {
    /// Where something was written, be it a value or the name of its file.
    #[must_use]
    pub fn written(&self) -> &Origin {
        match self {
            Origin::Contents { named, .. } => named,
            other => other,
        }
    }

    /// Whether both stand at the same level, so that neither goes before the
    /// other.
    #[must_use]
    pub fn is_beside(&self, other: &Origin) -> bool {
        std::mem::discriminant(self.written()) == std::mem::discriminant(other.written())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Named => f.write_str("--config"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment { variable } => write!(f, "environment variable {variable}"),
            Origin::Flag => f.write_str("--set"),
            Origin::Contents { path, named } => write!(f, "{named}, in {}", path.display()),
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key; empty if the file as a whole is meant, or cannot be read.
    pub key: String,
    /// The value as it was written, secrets left out.
    pub value: Option<String>,
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// Something that no key is to blame for.
    pub(super) fn of_none(origin: Origin, what: impl Into<String>, remedy: &str) -> Problem {
        let (key, value) = (String::new(), None);
        Problem { key, value, origin, what: what.into(), remedy: remedy.to_owned() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        match (self.key.as_str(), &self.value) {
            ("", None) => {}
            ("", Some(value)) => write!(f, "{value} ")?,
            (key, Some(value)) => write!(f, "{key} = {value}: ")?,
            (key, None) => write!(f, "{key}: ")?,
        }
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// A configuration that is not taken, with everything that is wrong with it, in
/// the order of where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    problems: Vec<Problem>,
}

impl Invalid {
    /// For these reasons.
    #[must_use]
    pub fn new(mut problems: Vec<Problem>) -> Invalid {
        problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        Invalid { problems }
    }

    /// What is wrong.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How much is wrong, in half a sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        match self.problems.len() {
            1 => "the configuration is wrong".to_owned(),
            count => format!("the configuration is wrong in {count} places"),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.summary())?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

impl From<Invalid> for Fatal {
    fn from(invalid: Invalid) -> Fatal {
        Fatal::configuration(invalid.to_string())
    }
}
