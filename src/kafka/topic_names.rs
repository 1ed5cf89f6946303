//! Maps topic names to the loop's sources and outputs, and back.

use crate::config::Topics;
use crate::shard::Input;
use crate::stream_thread::ports::{OutputTopic, Source};

impl Topics {
    /// The names of the inputs, in the order of [`Input::ALL`].
    pub(super) fn inputs(&self) -> [&str; 3] {
        Input::ALL.map(|input| self.input(input))
    }

    /// The topic that a record is read from.
    pub(super) fn of_source(&self, source: Source) -> &str {
        match source {
            Source::Input(input) => self.input(input),
            Source::Changelog => &self.changelog,
        }
    }

    /// The source with this topic name, if there is one.
    pub(super) fn source(&self, topic: &str) -> Option<Source> {
        if topic == self.changelog {
            return Some(Source::Changelog);
        }
        self.input_of(topic).map(Source::Input)
    }

    /// The input of this name.
    pub(super) fn input_of(&self, topic: &str) -> Option<Input> {
        Input::ALL.into_iter().find(|input| self.input(*input) == topic)
    }

    /// The name of a topic that is written.
    pub(super) fn of(&self, topic: OutputTopic) -> &str {
        match topic {
            OutputTopic::Changelog => &self.changelog,
            OutputTopic::StatusChanges => &self.status_changes,
            OutputTopic::DeadLetters => &self.dead_letters,
        }
    }
}
