//! Configuration errors: what is wrong, where, and what to do.

use std::fmt;
use std::path::PathBuf;

use crate::error::Fatal;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// `--config FILE` on the command line.
    Named,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// `--set KEY=VALUE` on the command line.
    Flag,
    /// A file that a `_file` key names.
    Contents {
        /// The file.
        path: PathBuf,
        /// The source of the `_file` key.
        named: Box<Origin>,
    },
}

impl Origin {
    /// The source of the value, or of the `_file` key that names its file.
    #[must_use]
    pub fn written(&self) -> &Origin {
        match self {
            Origin::Contents { named, .. } => named,
            other => other,
        }
    }

    /// Whether both are at the same level, so that neither overrides the other.
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

/// One error in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key; empty if the error is about the file as a whole.
    pub key: String,
    /// The value as written, with secrets redacted.
    pub value: Option<String>,
    /// The source of the value.
    pub origin: Origin,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// An error that belongs to no key.
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

/// All errors of a configuration, ordered by source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    problems: Vec<Problem>,
}

impl Invalid {
    /// Sorts the errors by source.
    #[must_use]
    pub fn new(mut problems: Vec<Problem>) -> Invalid {
        problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        Invalid { problems }
    }

    /// The errors.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The number of errors, as text.
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
