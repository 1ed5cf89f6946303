//! Reads the dead letter topic, without a group: nothing is committed.

use std::fmt;
use std::str::FromStr;

use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::super::reading::{Ranges, Reader};
use crate::config::Config;
use crate::error::Fatal;
use crate::shard::Timestamp;
use crate::wire::dead_letter::{self, Said};

/// Where a dead letter is: partition and offset of the dead letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Position, String> {
        let (partition, offset) = text.split_once(':').ok_or("write PARTITION:OFFSET")?;
        match (partition.parse(), offset.parse()) {
            (Ok(partition), Ok(offset)) if partition >= 0 && offset >= 0 => {
                Ok(Position { partition, offset })
            }
            _ => Err("write PARTITION:OFFSET, such as 3:42".to_owned()),
        }
    }
}

/// A dead letter.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Where it is.
    pub position: Position,
    /// When it was written, in milliseconds since the epoch.
    pub written_ms: i64,
    /// What our headers say.
    pub said: Said,
    /// The original's key.
    pub key: Option<Vec<u8>>,
    /// The original's value.
    pub value: Option<Vec<u8>>,
    /// All headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Letter {
    fn of(message: &BorrowedMessage<'_>) -> Letter {
        let headers: Vec<_> = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                .collect()
        });
        Letter {
            position: Position { partition: message.partition(), offset: message.offset() },
            written_ms: message.timestamp().to_millis().unwrap_or_default(),
            said: dead_letter::read(&headers),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }
}

/// The dead letter topic.
pub struct Topic<'a> {
    /// Its name.
    pub name: &'a str,
    reader: Reader<'a>,
    partitions: Vec<i32>,
}

impl<'a> Topic<'a> {
    /// Reaches the brokers, and finds the topic.
    ///
    /// # Errors
    /// When there are no brokers, or not the topic, or it may not be seen.
    pub fn open(config: &'a Config) -> Result<Topic<'a>, Fatal> {
        let reader = Reader::new(config, "dead-letters")?;
        let name = &config.topics.dead_letters;
        let partitions = reader.partitions(name, "topics.dead_letters")?;
        Ok(Topic { name, reader, partitions })
    }

    /// Lends every letter that was written at or after `since` to `each`, up
    /// to the end as it is now.
    ///
    /// # Errors
    /// When Kafka does not answer any more.
    pub fn read(
        &self,
        since: Option<Timestamp>,
        each: &mut dyn FnMut(Letter),
    ) -> Result<(), Fatal> {
        let ranges = self.reader.ranges(self.name, &self.partitions, since)?;
        self.reader.read(self.name, ranges, &mut |message| each(Letter::of(message)))
    }

    /// One letter.
    ///
    /// # Errors
    /// When it is not there, or Kafka does not answer.
    pub fn letter(&self, position: Position) -> Result<Letter, Fatal> {
        let missing = || {
            Fatal::not_found(format!(
                "there is no dead letter {position} in {}; device-status dead-letters list tells \
                 which there are",
                self.name
            ))
        };
        let Position { partition, offset } = position;
        if !self.partitions.contains(&partition)
            || !self.reader.bounds(self.name, partition)?.contains(&offset)
        {
            return Err(missing());
        }
        let mut found = None;
        let range = Ranges::from([(partition, offset..offset + 1)]);
        self.reader.read(self.name, range, &mut |message| found = Some(Letter::of(message)))?;
        found.ok_or_else(missing)
    }
}
