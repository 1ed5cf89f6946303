//! The names of the topics, and what each is to the loop.

use crate::config::Config;
use crate::shard::Input;
use crate::stream_thread::ports::{OutputTopic, Source};

/// The names of the topics that are written and committed.
#[derive(Clone, Debug)]
pub struct TopicNames {
    /// The inputs, in the order of [`Input::ALL`].
    pub inputs: [String; 3],
    /// `<group>-changelog`.
    pub changelog: String,
    /// `device-status-changes`.
    pub status_changes: String,
    /// `device-status-dead-letters`.
    pub dead_letters: String,
}

impl TopicNames {
    /// Those of the configuration.
    #[must_use]
    pub fn configured(config: &Config) -> TopicNames {
        TopicNames {
            inputs: Input::ALL.map(|input| config.topics.input(input).to_owned()),
            changelog: config.topics.changelog.clone(),
            status_changes: config.topics.status_changes.clone(),
            dead_letters: config.topics.dead_letters.clone(),
        }
    }

    /// The topic that a record is read from.
    #[must_use]
    pub fn of_source(&self, source: Source) -> &str {
        match source {
            Source::Input(input) => &self.inputs[input.index()],
            Source::Changelog => &self.changelog,
        }
    }

    /// What is read from a topic of this name, if anything.
    #[must_use]
    pub fn source(&self, topic: &str) -> Option<Source> {
        if topic == self.changelog {
            return Some(Source::Changelog);
        }
        self.input(topic).map(Source::Input)
    }

    /// The input of this name.
    #[must_use]
    pub fn input(&self, topic: &str) -> Option<Input> {
        Input::ALL.into_iter().find(|input| self.inputs[input.index()] == topic)
    }

    /// The name of a topic that is written.
    #[must_use]
    pub fn of(&self, topic: OutputTopic) -> &str {
        match topic {
            OutputTopic::Changelog => &self.changelog,
            OutputTopic::StatusChanges => &self.status_changes,
            OutputTopic::DeadLetters => &self.dead_letters,
        }
    }
}
