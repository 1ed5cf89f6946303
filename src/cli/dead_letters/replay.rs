//! Sends dead letters back to the topics they were read from.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::topic::Letter;
use crate::clock::SystemClock;
use crate::config::{Config, Partitioner};
use crate::error::Fatal;
use crate::kafka::client_config;
use crate::shard::Input;
use crate::stream_thread::ports::Clock;
use crate::wire::dead_letter;

/// How long the brokers may take for all of it once it is sent.
const DELIVERED_WITHIN: Duration = Duration::from_secs(30);

/// Why a letter cannot go back, if it cannot.
pub fn obstacle(letter: &Letter, config: &Config) -> Option<String> {
    let said = &letter.said;
    if let Some(cut) = &said.truncated {
        return Some(format!("it was cut to fit ({cut}): its producer must send it again"));
    }
    if !Input::ALL.iter().any(|input| config.topics.input(*input) == said.topic) {
        return Some(format!("it was read from {:?}, which is no input of ours", said.topic));
    }
    if said.partition.is_none() {
        return Some("its headers do not say where it was read".to_owned());
    }
    None
}

/// Asks on the terminal whether to go on.
///
/// # Errors
/// When there is no terminal to ask on.
pub fn confirm(count: usize) -> Result<bool, Fatal> {
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(Fatal::usage("nobody is there to be asked: say --yes to replay"));
    }
    let what = match count {
        1 => "1 record back to its topic".to_owned(),
        _ => format!("{count} records back to their topics"),
    };
    let _ = write!(stderr, "send {what}? [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    let _ = stdin.lock().read_line(&mut answer);
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[derive(Default)]
struct Deliveries(Mutex<Option<String>>);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_config::log(level, facility, message);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| error.to_string());
        }
    }
}

/// Sends letters back, keys and headers as they were, with a header that says
/// so, and waits until the brokers have them.
///
/// # Errors
/// When Kafka does not take all of them; some may have arrived, and it does no
/// harm to send those again.
pub fn replay(letters: &[Letter], config: &Config, topic: &str) -> Result<(), Fatal> {
    let mut client = client_config::base(config);
    client.set("enable.idempotence", "true").set("partitioner", "murmur2_random");
    client.set("message.timeout.ms", DELIVERED_WITHIN.as_millis().to_string());
    let max_bytes = dead_letter::DEFAULT_MAX_BYTES.to_string();
    client_config::set_defaults(&mut client, config, &[("message.max.bytes", &max_bytes)]);
    let producer: BaseProducer<Deliveries> = client
        .create_with_context(Deliveries::default())
        .map_err(|error| client_config::refused(&error))?;
    for letter in letters {
        send(&producer, letter, config, topic)?;
    }
    let clock = SystemClock::new();
    let started_ms = clock.monotonic_ms();
    let within_ms = i64::try_from(DELIVERED_WITHIN.as_millis()).unwrap_or(i64::MAX) + 5_000;
    while producer.in_flight_count() > 0 && clock.monotonic_ms() - started_ms < within_ms {
        producer.poll(Duration::from_millis(5));
    }
    let failure = producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failure {
        Some(error) => Err(not_taken(&error)),
        None if producer.in_flight_count() > 0 => Err(not_taken("no answer")),
        None => Ok(()),
    }
}

fn not_taken(why: &str) -> Fatal {
    Fatal::unavailable(format!(
        "Kafka did not take all of the records: {why}; check that Write on the input topics is \
         allowed, and replay again: what has arrived twice does no harm"
    ))
}

fn send(
    producer: &BaseProducer<Deliveries>,
    letter: &Letter,
    config: &Config,
    topic: &str,
) -> Result<(), Fatal> {
    let place = format!("{topic}/{}/{}", letter.position.partition, letter.position.offset);
    let headers = dead_letter::replayed(&letter.headers, &place);
    let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
        headers.insert(Header { key: name, value: value.as_ref() })
    });
    // By its key, which mends a wrong partition; to where it was without one.
    let by_key = letter.key.is_some() && config.topics.partitioner == Partitioner::Murmur2;
    let mut record = BaseRecord::<[u8], [u8]>::to(&letter.said.topic).headers(headers);
    record.key = letter.key.as_deref();
    record.payload = letter.value.as_deref();
    record.partition = letter.said.partition.filter(|_| !by_key);
    // An event without a time of its own has that of its record.
    record.timestamp = letter.said.timestamp_ms;
    while let Err((error, refused)) = producer.send(record) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            return Err(not_taken(&error.to_string()));
        }
        producer.poll(Duration::from_millis(10));
        record = refused;
    }
    Ok(())
}
