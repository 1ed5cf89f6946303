//! `device-status dead-letters list|show|replay`: the records that could not be
//! used, and what became of them.

mod judge;
mod replay;
mod topic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::Subcommand;
use prost::bytes::Bytes;
use serde_json::{Value, json};

use self::topic::{Letter, Position, Topic};
use super::since::{Since, parse_since};
use super::text::{counted, moment, print, print_json, printable};
use crate::config::Config;
use crate::error::Fatal;
use crate::shard::{DeadLetterReason, Timestamp};
use crate::wire::decode::to_json;

/// How many bytes of a value are shown in hexadecimal.
const HEX_MAX_BYTES: usize = 4_096;
/// How many bytes stand in a line of it.
const HEX_LINE_BYTES: usize = 16;

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List dead letters, oldest first
    List {
        /// Which of them
        #[command(flatten)]
        filter: Filter,
        /// Only the latest so many
        #[arg(long, value_name = "NUMBER", default_value_t = 100)]
        limit: usize,
    },
    /// Show one dead letter whole: where it was read, why it was refused, what it holds
    Show {
        /// Partition and offset in the dead letter topic, as `list` prints them
        #[arg(value_name = "PARTITION:OFFSET")]
        position: Position,
    },
    /// Send dead letters back to the topics they were read from
    Replay {
        /// Which ones, by partition and offset as `list` prints them
        #[arg(value_name = "PARTITION:OFFSET", required_unless_present_any = FILTERS)]
        positions: Vec<Position>,
        /// Or all that a filter lets through
        #[command(flatten)]
        filter: Filter,
        /// Or all there are
        #[arg(long, conflicts_with = "positions")]
        all: bool,
        /// Also those that would be refused again
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// What makes a choice of letters to replay.
const FILTERS: [&str; 4] = ["reason", "topic", "since", "all"];

/// Which dead letters are meant.
#[derive(Debug, clap::Args)]
pub struct Filter {
    /// Only those refused for this reason
    #[arg(long, value_name = "REASON", value_parser = DeadLetterReason::ALL.map(DeadLetterReason::code))]
    pub reason: Option<String>,
    /// Only those read from this topic
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Only those written since then: `1h`, `2days`, or a moment such as `2026-01-31T12:00:00Z`
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Since>,
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.reason.is_none() && self.topic.is_none() && self.since.is_none()
    }

    fn since(&self) -> Option<Timestamp> {
        self.since.map(Since::instant)
    }

    fn takes(&self, letter: &Letter) -> bool {
        self.reason.as_ref().is_none_or(|reason| *reason == letter.said.reason)
            && self.topic.as_ref().is_none_or(|topic| *topic == letter.said.topic)
    }
}

/// Does it.
///
/// # Errors
/// When Kafka cannot be reached, a letter is not there, or cannot go back.
pub fn run(command: &Command, config: &Config, json: bool) -> Result<(), Fatal> {
    let topic = Topic::open(config)?;
    match command {
        Command::List { filter, limit } => list(&topic, filter, *limit, json),
        Command::Show { position } => {
            let letter = topic.letter(*position)?;
            if json { print_json(&whole(&letter, config)) } else { print(&shown(&letter, config)) }
        }
        Command::Replay { positions, filter, all: _, force, yes } => {
            if !positions.is_empty() && !filter.is_empty() {
                return Err(Fatal::usage("name dead letters, or filter them, not both"));
            }
            let letters = chosen(&topic, positions, filter)?;
            send_back(&topic, letters, config, (*force, *yes), json)
        }
    }
}

fn list(topic: &Topic<'_>, filter: &Filter, limit: usize, json: bool) -> Result<(), Fatal> {
    let mut latest = BTreeMap::new();
    let mut count = 0_usize;
    topic.read(filter.since(), &mut |letter| {
        if filter.takes(&letter) {
            count += 1;
            latest.insert((letter.written_ms, letter.position), summary(&letter));
            if latest.len() > limit {
                latest.pop_first();
            }
        }
    })?;
    let rows: Vec<Value> = latest.into_values().collect();
    if json {
        return print_json(&rows);
    }
    let mut text = String::new();
    for row in &rows {
        let cell = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let again = if row["replayed"].is_null() { "" } else { "  (sent again before)" };
        let _ = writeln!(
            text,
            "{:>8}  {}  {:20}  {}  {}  {}{again}",
            cell("position"),
            cell("written"),
            cell("reason"),
            printable(&cell("topic")),
            row["key"].as_str().map_or_else(|| "(no key)".to_owned(), printable),
            printable(&cell("message")),
        );
    }
    match count.saturating_sub(rows.len()) {
        0 if count == 0 => text.push_str("no dead letters\n"),
        0 => {}
        more => {
            let _ = writeln!(text, "and {more} before them: say --limit {count} to see them");
        }
    }
    print(&text)
}

/// A letter without what it holds.
fn summary(letter: &Letter) -> Value {
    let said = &letter.said;
    json!({
        "position": letter.position.to_string(),
        "written": moment(letter.written_ms),
        "reason": said.reason,
        "message": said.message,
        "topic": said.topic,
        "partition": said.partition,
        "offset": said.offset,
        "timestamp": said.timestamp_ms.map(moment),
        "key": letter.key.as_deref().map(text_of),
        "value_bytes": letter.value.as_ref().map(Vec::len),
        "truncated": said.truncated,
        "replayed": said.replayed,
    })
}

/// A letter with what it holds.
fn whole(letter: &Letter, config: &Config) -> Value {
    let mut value = summary(letter);
    let headers: Vec<Value> = letter
        .headers
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value.as_deref().map(text_of) }))
        .collect();
    value["headers"] = headers.into();
    value["key_hex"] = letter.key.as_deref().map(hex).into();
    value["value_hex"] = letter.value.as_deref().map(hex).into();
    match decoded(letter, config) {
        Some(Ok(text)) => {
            value["value"] = serde_json::from_str(&text).unwrap_or(Value::String(text));
        }
        Some(Err(error)) => value["value_error"] = error.into(),
        None => {}
    }
    value
}

/// The value as the message that it should have been.
fn decoded(letter: &Letter, config: &Config) -> Option<Result<String, String>> {
    let value = letter.value.as_deref()?;
    let input = judge::input_of(letter, config)?;
    Some(to_json(input, config.formats.input(input), value))
}

fn shown(letter: &Letter, config: &Config) -> String {
    let said = &letter.said;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:12}{}", printable(value));
    };
    let number = |number: Option<i64>| number.map_or_else(|| "?".to_owned(), |n| n.to_string());
    line("position", &letter.position.to_string());
    line("written", &moment(letter.written_ms));
    line("reason", &format!("{}: {}", said.reason, said.message));
    line(
        "read from",
        &format!(
            "{}, partition {}, offset {}",
            said.topic,
            number(said.partition.map(i64::from)),
            number(said.offset)
        ),
    );
    line("timestamp", &said.timestamp_ms.map_or_else(|| "?".to_owned(), moment));
    if let Some(cut) = &said.truncated {
        line("truncated", cut);
    }
    if let Some(place) = &said.replayed {
        line("replayed", &format!("before, from {place}"));
    }
    line("key", &letter.key.as_deref().map_or_else(|| "(none)".to_owned(), text_of));
    for (name, value) in &letter.headers {
        let value = value.as_deref().map_or_else(|| "(null)".to_owned(), text_of);
        line("header", &format!("{name}: {value}"));
    }
    match (&letter.value, decoded(letter, config)) {
        (None, _) => line("value", "(null: a tombstone)"),
        (Some(_), Some(Ok(json))) => line("value", &json),
        (Some(_), Some(Err(error))) => line("value", &format!("no such message: {error}")),
        (Some(_), None) => {}
    }
    let value = letter.value.as_deref().unwrap_or_default();
    for (place, bytes) in value[..value.len().min(HEX_MAX_BYTES)].chunks(HEX_LINE_BYTES).enumerate()
    {
        let ascii: String = bytes
            .iter()
            .map(|byte| if (32..127).contains(byte) { char::from(*byte) } else { '.' })
            .collect();
        let offset = place * HEX_LINE_BYTES;
        let each: Vec<String> = bytes.iter().map(|byte| hex(&[*byte])).collect();
        let _ = writeln!(text, "{offset:08x}    {:47}  {ascii}", each.join(" "));
    }
    if value.len() > HEX_MAX_BYTES {
        let _ = writeln!(text, "and {} bytes more: --json has them", value.len() - HEX_MAX_BYTES);
    }
    text
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Bytes::copy_from_slice(bytes))
}

/// The letters to replay, in the order in which they were written.
fn chosen(
    topic: &Topic<'_>,
    positions: &[Position],
    filter: &Filter,
) -> Result<Vec<Letter>, Fatal> {
    let mut letters = Vec::new();
    let positions: BTreeSet<Position> = positions.iter().copied().collect();
    for position in &positions {
        letters.push(topic.letter(*position)?);
    }
    if positions.is_empty() {
        topic.read(filter.since(), &mut |letter| {
            if filter.takes(&letter) {
                letters.push(letter);
            }
        })?;
    }
    letters.sort_by_key(|letter| (letter.written_ms, letter.position));
    Ok(letters)
}

fn send_back(
    topic: &Topic<'_>,
    letters: Vec<Letter>,
    config: &Config,
    (force, yes): (bool, bool),
    json: bool,
) -> Result<(), Fatal> {
    let mut skipped = Vec::new();
    let mut good = Vec::new();
    for letter in letters {
        let still_wrong = || replay::still_wrong(&letter, config).filter(|_| !force);
        match replay::obstacle(&letter, config).or_else(still_wrong) {
            Some(why) => skipped.push((letter.position, why)),
            None => good.push(letter),
        }
    }
    let go = good.is_empty() || yes || replay::confirm(good.len())?;
    if go && !good.is_empty() {
        replay::replay(&good, config, topic.name)?;
    }
    let replayed: Vec<String> = if go {
        good.iter().map(|letter| letter.position.to_string()).collect()
    } else {
        Vec::new()
    };
    if json {
        let skipped: Vec<Value> = skipped
            .iter()
            .map(|(position, why)| json!({ "position": position.to_string(), "why": why }))
            .collect();
        print_json(&json!({ "replayed": replayed, "skipped": skipped }))?;
    } else {
        let mut text = String::new();
        for (position, why) in &skipped {
            let _ = writeln!(text, "{position} cannot be replayed: {}", printable(why));
        }
        let _ = writeln!(text, "{} sent back", counted(replayed.len() as u64, "record"));
        print(&text)?;
    }
    match skipped.len() {
        0 => Ok(()),
        1 => Err(Fatal::not_found("a dead letter cannot be replayed")),
        count => Err(Fatal::not_found(format!("{count} dead letters cannot be replayed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_partition_and_offset() {
        assert_eq!("3:42".parse(), Ok(Position { partition: 3, offset: 42 }));
        for wrong in ["3", "3:", ":42", "-1:3", "3:-1", "a:b"] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong}");
        }
    }
}
