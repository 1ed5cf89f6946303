//! Sends dead letters back to the topics they were read from.

use std::sync::atomic::AtomicBool;

use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use super::judge::{input_of, judge, value_to_send};
use super::topic::Letter;
use crate::cli::ask;
use crate::cli::sender::Sender;
use crate::config::{Config, Partitioner};
use crate::error::Fatal;
use crate::wire::dead_letter;

/// Why a letter cannot go back, if it cannot.
pub fn obstacle(letter: &Letter, config: &Config) -> Option<String> {
    let said = &letter.said;
    if let Some(cut) = &said.truncated {
        return Some(format!("it was cut to fit ({cut}): its producer must send it again"));
    }
    if input_of(letter, config).is_none() {
        return Some(format!("it was read from {:?}, which is no input of ours", said.topic));
    }
    if said.partition.is_none() {
        return Some("its headers do not say where it was read".to_owned());
    }
    None
}

/// Why a letter that goes back would come again, if it would.
pub fn still_wrong(letter: &Letter, config: &Config) -> Option<String> {
    let refusal = judge(letter, input_of(letter, config)?, config).err()?;
    Some(format!("it is still wrong ({refusal}): say --force to send it all the same"))
}

/// Asks on the terminal whether to go on.
///
/// # Errors
/// When there is no terminal to ask on.
pub fn confirm(count: usize) -> Result<bool, Fatal> {
    let what = match count {
        1 => "1 record back to its topic".to_owned(),
        _ => format!("{count} records back to their topics"),
    };
    ask::confirm(&format!("send {what}?"), "say --yes to replay")
}

/// Sends letters back, keys and headers as they were, with a header that says
/// so and the time that they had, and waits until the brokers have them.
///
/// # Errors
/// When Kafka does not take all of them; some may have arrived, and it does no
/// harm to send those again.
pub fn replay(letters: &[Letter], config: &Config, topic: &str) -> Result<(), Fatal> {
    let max_bytes = dead_letter::DEFAULT_MAX_BYTES.to_string();
    let sender = Sender::new(config, &[("message.max.bytes", &max_bytes)])?;
    for letter in letters {
        send(&sender, letter, config, topic).map_err(|error| not_taken(&error.to_string()))?;
    }
    sender.finish(&AtomicBool::new(false)).map_err(|lost| not_taken(&lost.why))
}

fn not_taken(why: &str) -> Fatal {
    Fatal::unavailable(format!(
        "Kafka did not take all of the records: {why}; check that Write on the input topics is \
         allowed, and replay again: what has arrived twice does no harm"
    ))
}

fn send(sender: &Sender, letter: &Letter, config: &Config, topic: &str) -> Result<(), KafkaError> {
    let place = format!("{topic}/{}/{}", letter.position.partition, letter.position.offset);
    let headers = dead_letter::replayed(&letter.headers, &place);
    let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
        headers.insert(Header { key: name, value: value.as_ref() })
    });
    // By its key, which mends a wrong partition; to where it was without one.
    let by_key = letter.key.is_some() && config.topics.partitioner == Partitioner::Murmur2;
    let mut record = BaseRecord::<[u8], [u8]>::to(&letter.said.topic).headers(headers);
    record.key = letter.key.as_deref();
    let value = value_to_send(letter, config);
    record.payload = value.as_deref();
    record.partition = letter.said.partition.filter(|_| !by_key);
    // Where senders stamp records.
    record.timestamp = letter.said.timestamp_ms;
    sender.send(record, &AtomicBool::new(false)).map(drop)
}
