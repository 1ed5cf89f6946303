//! The producer of a stream thread. It runs on its own thread, so a commit does not
//! block the loop (rules C1, C4, C6, C9).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tracing::{info, warn};

use super::client_config::{self, LoggingContext};
use super::native::Tended;
use super::reaper::Reaped;
use crate::clock::{Clock, SystemClock};
use crate::config::Topics;
use crate::error::{Fatal, lock};
use crate::shard::{Input, Timestamp};
use crate::stream_thread::ports::{Batch, Outcome, OutputRecord, OutputTopic, Receipt};

/// Timeout of one transactional request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A commit that takes longer is given up. The broker's own limit is
/// `transaction.timeout.ms` (rule C4).
const COMMIT_DEADLINE_MS: i64 = 15_000;
/// How long one abort call waits before delivery reports are served again.
const ABORT_STEP_MS: i64 = 100;
const ABORT_STEP: Duration = Duration::from_millis(ABORT_STEP_MS as u64);

/// How often an idle producer is served: its log lines, and new credentials.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// The source of broker time (rule T6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamps {
    /// The broker's timestamps on changelog records. The start has checked that the
    /// broker sets them.
    Broker,
    /// The host's clock when a record is acknowledged: for a broker that sets no
    /// timestamps, such as the demo's mock cluster.
    Own,
}

/// Passes batches to the producer's thread, and outcomes back.
pub struct Committer {
    commands: Option<Sender<Command>>,
    outcomes: Receiver<Outcome>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Command {
    batch: Arc<Batch>,
    member: ConsumerGroupMetadata,
    /// Commits the offsets if there are no transactions.
    consumer: Arc<Reaped<BaseConsumer<LoggingContext>>>,
}

impl Committer {
    /// Starts the thread. Without `transactional`, batches are committed at least
    /// once (rule C9), and the consumer commits the offsets.
    pub fn start(
        config: ClientConfig,
        transactional: bool,
        transactions_remedy: String,
        topics: Topics,
        stamps: Stamps,
        clock: Arc<dyn Clock + Send + Sync>,
    ) -> Committer {
        let (commands, inbox) = channel();
        let (outbox, outcomes) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let deliveries = Arc::new(Deliveries::new(topics.changelog.clone(), stamps, clock.clone()));
        let mut worker = Worker {
            config,
            transactions_remedy,
            topics,
            transactional,
            clock,
            deliveries,
            stop: stop.clone(),
            producer: None,
            tended: Tended::default(),
        };
        let thread = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || worker.run(&inbox, &outbox))
            .ok();
        Committer { commands: Some(commands), outcomes, stop, thread }
    }

    /// Begins a commit.
    pub fn submit(
        &self,
        batch: Arc<Batch>,
        member: ConsumerGroupMetadata,
        consumer: Arc<Reaped<BaseConsumer<LoggingContext>>>,
    ) {
        if let Some(commands) = &self.commands {
            // `poll` reports a thread that has ended.
            let _ = commands.send(Command { batch, member, consumer });
        }
    }

    /// The outcome of the last commit, once it is known.
    pub fn poll(&self) -> Option<Outcome> {
        use std::sync::mpsc::TryRecvError;
        match self.outcomes.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Outcome::Fatal(Fatal::internal(
                "the producer's thread ended; this is a bug, please report it with the log",
            ))),
        }
    }

    /// Stops the thread after its current batch. Returns its handle on the first
    /// call.
    pub fn close(&mut self) -> Option<JoinHandle<()>> {
        self.stop.store(true, Ordering::Relaxed);
        self.commands = None;
        self.thread.take()
    }
}

/// The delivery reports of the current transaction.
struct Deliveries {
    changelog: String,
    stamps: Stamps,
    clock: Arc<dyn Clock + Send + Sync>,
    state: Mutex<DeliveryState>,
}

#[derive(Default)]
struct DeliveryState {
    receipt: Receipt,
    /// Why the first failed record was not written.
    failure: Option<String>,
    /// Records were purged: the consequence of another failure, not its cause.
    purged: bool,
}

impl Deliveries {
    fn new(changelog: String, stamps: Stamps, clock: Arc<dyn Clock + Send + Sync>) -> Deliveries {
        Deliveries { changelog, stamps, clock, state: Mutex::default() }
    }

    fn delivered(&self, message: &BorrowedMessage<'_>) {
        if message.topic() != self.changelog {
            return;
        }
        let mut state = lock(&self.state);
        let end = state.receipt.changelog_end.entry(message.partition()).or_default();
        *end = (*end).max(message.offset() + 1);
        if let Some(ms) = message.timestamp().to_millis() {
            let received = self.clock.monotonic_ms();
            let stamp = match self.stamps {
                Stamps::Broker => Timestamp(ms),
                Stamps::Own => self.clock.wall(),
            };
            if state.receipt.broker_time.is_none_or(|(known, _)| stamp >= known) {
                state.receipt.broker_time = Some((stamp, received));
            }
        }
    }
}

#[derive(Clone)]
struct ProducerSide(Arc<Deliveries>);

impl ClientContext for ProducerSide {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client_config::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client_config::tell_error(&error, reason);
    }
}

impl ProducerContext for ProducerSide {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => self.0.delivered(message),
            Err((error, message)) => {
                let mut state = lock(&self.0.state);
                if is_purge(error) {
                    state.purged = true;
                } else if state.failure.is_none() {
                    state.failure = Some(format!(
                        "a record for {} [{}] was not written: {error}",
                        message.topic(),
                        message.partition()
                    ));
                }
            }
        }
    }
}

struct Worker {
    config: ClientConfig,
    /// The remedy when Kafka refuses transactions.
    transactions_remedy: String,
    topics: Topics,
    transactional: bool,
    clock: Arc<dyn Clock + Send + Sync>,
    deliveries: Arc<Deliveries>,
    stop: Arc<AtomicBool>,
    producer: Option<BaseProducer<ProducerSide>>,
    tended: Tended,
}

/// What to do after a failed step of a commit.
enum Failure {
    /// Abort; the same batch may be sent again.
    Abort { stale_member: bool, message: String },
    /// The outcome is unknown, or the producer is unusable: create a new one.
    Recreate(String),
    /// Stop the process.
    Fatal(Fatal),
}

impl Worker {
    fn run(&mut self, inbox: &Receiver<Command>, outbox: &Sender<Outcome>) {
        if self.producer().is_ok() {
            info!("producer ready");
        }
        loop {
            match inbox.recv_timeout(TEND_EVERY) {
                Ok(command) => {
                    if outbox.send(self.commit(&command)).is_err() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Some(producer) = &self.producer {
                self.tended.tend(producer.client());
                producer.poll(Duration::ZERO);
            }
        }
    }

    fn commit(&mut self, command: &Command) -> Outcome {
        let started_ms = self.clock.monotonic_ms();
        *lock(&self.deliveries.state) = DeliveryState::default();
        let result = self.producer().and_then(|()| {
            if self.transactional {
                self.transaction(command, started_ms)
            } else {
                self.at_least_once(command, started_ms)
            }
        });
        match result {
            Ok(mut receipt) => {
                let took_ms = self.clock.monotonic_ms() - started_ms;
                receipt.duration = Some(Duration::from_millis(u64::try_from(took_ms).unwrap_or(0)));
                Outcome::Committed(receipt)
            }
            Err(Failure::Fatal(fatal)) => Outcome::Fatal(fatal),
            Err(Failure::Abort { stale_member, message }) => match self.abort() {
                Ok(()) => Outcome::Refused { stale_member, message },
                Err(Failure::Fatal(fatal)) => Outcome::Fatal(fatal),
                Err(_) => self.recreate(message),
            },
            Err(Failure::Recreate(message)) => self.recreate(message),
        }
    }

    /// Creates a new producer under the same transactional id. That completes or
    /// aborts what the old one left open (KIP-98, rule C6).
    fn recreate(&mut self, message: String) -> Outcome {
        warn!(
            error = %message,
            "recreating the producer, because the outcome of a commit is unknown; the committed \
             offsets will show whether it succeeded"
        );
        // The old producer is dropped first: while it still requests its
        // transactional id, it would fence the new one. Only this thread waits for
        // it.
        self.producer = None;
        match self.producer() {
            Ok(_) => Outcome::Unknown { message },
            Err(Failure::Fatal(fatal)) => Outcome::Fatal(fatal),
            // Otherwise only a stop ends the attempts.
            Err(_) => Outcome::Unknown { message },
        }
    }

    /// Creates the producer if there is none.
    fn producer(&mut self) -> Result<(), Failure> {
        while self.producer.is_none() {
            let producer: BaseProducer<ProducerSide> = self
                .config
                .create_with_context(ProducerSide(self.deliveries.clone()))
                .map_err(|e| {
                    Failure::Fatal(Fatal::configuration(format!(
                        "cannot create the Kafka producer: {e}; check [kafka.properties]"
                    )))
                })?;
            self.tended = Tended::new(producer.client());
            if self.transactional {
                match producer.init_transactions(REQUEST_TIMEOUT) {
                    Ok(()) => {}
                    Err(KafkaError::Transaction(e)) if e.is_fatal() => {
                        return Err(Failure::Fatal(Fatal::unavailable(format!(
                            "Kafka refuses transactions: {e}; {}",
                            self.transactions_remedy
                        ))));
                    }
                    Err(error) => {
                        if self.stop.load(Ordering::Relaxed) {
                            return Err(Failure::Recreate(error.to_string()));
                        }
                        warn!(
                            %error,
                            "the transaction coordinator does not answer: nothing is committed, \
                             retrying. Check the brokers that lead __transaction_state"
                        );
                        producer.poll(Duration::from_millis(500));
                        continue;
                    }
                }
            }
            self.producer = Some(producer);
        }
        Ok(())
    }

    fn made(&self) -> Result<&BaseProducer<ProducerSide>, Failure> {
        self.producer.as_ref().ok_or_else(|| Failure::Recreate("no producer".into()))
    }

    fn transaction(&self, command: &Command, started_ms: i64) -> Result<Receipt, Failure> {
        let (producer, clock, topics) = (self.made()?, &*self.clock, &self.topics);
        producer.begin_transaction().map_err(failure)?;
        for record in command.batch.shards.iter().flat_map(|shard| &shard.records) {
            send(producer, topics, record, clock, started_ms)?;
        }
        // The records are still in flight meanwhile.
        let offsets = offsets(topics, &command.batch)?;
        until(clock, started_ms, || {
            producer.send_offsets_to_transaction(&offsets, &command.member, REQUEST_TIMEOUT)
        })?;
        drain(producer, clock, started_ms)?;
        self.deliveries.all_written(producer)?;
        until(clock, started_ms, || producer.commit_transaction(REQUEST_TIMEOUT)).map_err(
            |failure| match failure {
                // The commit request may have been sent, so the transaction may be
                // committed.
                Failure::Abort { stale_member: false, message } => Failure::Recreate(message),
                other => other,
            },
        )?;
        Ok(self.deliveries.receipt())
    }

    /// Rule C9: after a crash between two steps, the inputs are processed again.
    /// Nothing is lost.
    fn at_least_once(&self, command: &Command, started_ms: i64) -> Result<Receipt, Failure> {
        let (producer, clock, topics) = (self.made()?, &*self.clock, &self.topics);
        let records = || command.batch.shards.iter().flat_map(|shard| &shard.records);
        for changelog in [false, true] {
            for record in records().filter(|r| (r.topic == OutputTopic::Changelog) == changelog) {
                send(producer, topics, record, clock, started_ms)?;
            }
            drain(producer, clock, started_ms)?;
            self.deliveries.all_written(producer)?;
        }
        let offsets = offsets(topics, &command.batch)?;
        command.consumer.commit(&offsets, CommitMode::Sync).map_err(|error| Failure::Abort {
            stale_member: error.rdkafka_error_code().is_some_and(is_stale_member),
            message: error.to_string(),
        })?;
        Ok(self.deliveries.receipt())
    }

    fn abort(&mut self) -> Result<(), Failure> {
        if !self.transactional {
            return Ok(());
        }
        let clock = self.clock.clone();
        let started_ms = clock.monotonic_ms();
        let Some(producer) = &self.producer else { return Ok(()) };
        // librdkafka purges unsent records, here and at the error that caused the
        // abort, and waits for those in flight. Purging them here would leave a gap
        // in the sequence numbers, and the broker would refuse the next transaction
        // (OUT_OF_ORDER_SEQUENCE_NUMBER). The abort waits for delivery reports but
        // does not serve them, so they are served here.
        until(&*clock, started_ms, || {
            serve_reports(producer, &*clock, clock.monotonic_ms() + ABORT_STEP_MS);
            producer.abort_transaction(ABORT_STEP)
        })
    }
}

impl Deliveries {
    /// Checks that all records are written, and returns the cause if not.
    /// librdkafka knows the cause: it purges the other records of a failed
    /// transaction, and their reports may come before the report of the failed
    /// record.
    fn all_written(&self, producer: &BaseProducer<ProducerSide>) -> Result<(), Failure> {
        let (told, purged) = {
            let mut state = lock(&self.state);
            (state.failure.take(), state.purged)
        };
        if told.is_none() && !purged {
            return Ok(());
        }
        // Inside a transaction this call always fails. If the transaction has
        // failed, it returns that error.
        let cause = producer.begin_transaction().err().map(failure);
        let (stale_member, cause) = match cause {
            Some(Failure::Abort { stale_member, message }) => (stale_member, Some(message)),
            _ => (false, None),
        };
        let purged = || "records were purged before they were written".to_owned();
        Err(Failure::Abort { stale_member, message: told.or(cause).unwrap_or_else(purged) })
    }

    fn receipt(&self) -> Receipt {
        std::mem::take(&mut *lock(&self.state)).receipt
    }
}

fn send(
    producer: &BaseProducer<ProducerSide>,
    topics: &Topics,
    record: &OutputRecord,
    clock: &dyn Clock,
    started_ms: i64,
) -> Result<(), Failure> {
    let mut headers = None;
    if !record.headers.is_empty() {
        headers = Some(record.headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
            all.insert(Header { key, value: value.as_ref() })
        }));
    }
    let mut next = BaseRecord::<Vec<u8>, Vec<u8>>::to(topics.of(record.topic));
    next.partition = record.partition;
    next.key = record.key.as_ref();
    next.payload = record.value.as_ref();
    next.headers = headers;
    loop {
        match producer.send(next) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent))
                if clock.monotonic_ms() - started_ms < COMMIT_DEADLINE_MS =>
            {
                producer.poll(Duration::ZERO);
                SystemClock::pause(REPORTS_STEP);
                next = unsent;
            }
            Err((error, _)) => return Err(failure(error)),
        }
    }
}

/// Pause between two polls for delivery reports. `BaseProducer::poll` busy-waits
/// when less than a millisecond is left, and `flush` sleeps in steps of 100 ms.
const REPORTS_STEP: Duration = Duration::from_micros(500);

/// Waits for the delivery reports.
fn drain(
    producer: &BaseProducer<ProducerSide>,
    clock: &dyn Clock,
    started_ms: i64,
) -> Result<(), Failure> {
    if serve_reports(producer, clock, started_ms + COMMIT_DEADLINE_MS) {
        return Ok(());
    }
    Err(Failure::Recreate(format!(
        "{} records were not acknowledged in {COMMIT_DEADLINE_MS} ms",
        producer.in_flight_count()
    )))
}

/// Serves delivery reports. Returns `true` once none is outstanding, or `false` at
/// `until_ms` of the monotonic clock.
fn serve_reports(producer: &BaseProducer<ProducerSide>, clock: &dyn Clock, until_ms: i64) -> bool {
    loop {
        let before = producer.in_flight_count();
        producer.poll(Duration::ZERO);
        if before == 0 {
            return true;
        }
        if producer.in_flight_count() == before {
            SystemClock::pause(REPORTS_STEP);
        }
        if clock.monotonic_ms() > until_ms {
            return false;
        }
    }
}

fn until(
    clock: &dyn Clock,
    started_ms: i64,
    mut request: impl FnMut() -> Result<(), KafkaError>,
) -> Result<(), Failure> {
    loop {
        match request() {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error))
                if error.is_retriable()
                    && clock.monotonic_ms() - started_ms < COMMIT_DEADLINE_MS => {}
            Err(error) => return Err(failure(error)),
        }
    }
}

fn failure(error: KafkaError) -> Failure {
    if let KafkaError::Transaction(e) = &error
        && e.txn_requires_abort()
        && !e.is_fatal()
    {
        return Failure::Abort { stale_member: is_stale_member(e.code()), message: e.to_string() };
    }
    Failure::Recreate(error.to_string())
}

/// Whether librdkafka dropped a record because of another failure.
fn is_purge(error: &KafkaError) -> bool {
    let purges = [RDKafkaErrorCode::PurgeQueue, RDKafkaErrorCode::PurgeInflight];
    error.rdkafka_error_code().is_some_and(|code| purges.contains(&code))
}

/// Whether the group no longer accepts this member's generation (rule C6).
fn is_stale_member(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::FencedMemberEpoch
            | RDKafkaErrorCode::StaleMemberEpoch
            | RDKafkaErrorCode::RebalanceInProgress
    )
}

fn offsets(topics: &Topics, batch: &Batch) -> Result<TopicPartitionList, Failure> {
    let mut list = TopicPartitionList::new();
    for shard in &batch.shards {
        for input in Input::ALL {
            let topic = topics.input(input);
            let mut added = list.add_partition(topic, shard.partition);
            added.set_metadata(&shard.metadata);
            added
                .set_offset(Offset::Offset(shard.offsets[input.index()]))
                .map_err(|e| Failure::Fatal(Fatal::internal(format!("offset of {topic}: {e}"))))?;
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    #[test]
    fn purged_records_report_the_error_that_failed_the_transaction() {
        let mock = MockCluster::new(1).unwrap();
        mock.create_topic("changelog", 1, 1).unwrap();
        let clock: Arc<dyn Clock + Send + Sync> = Arc::new(SystemClock::new());
        let deliveries = Deliveries::new("changelog".to_owned(), Stamps::Broker, clock.clone());
        let deliveries = Arc::new(deliveries);
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", mock.bootstrap_servers()).set("transactional.id", "t");
        let producer: BaseProducer<ProducerSide> =
            config.create_with_context(ProducerSide(deliveries.clone())).unwrap();
        producer.init_transactions(REQUEST_TIMEOUT).unwrap();
        let write = || {
            *lock(&deliveries.state) = DeliveryState::default();
            producer.begin_transaction().unwrap();
            producer.send(BaseRecord::<(), [u8]>::to("changelog").payload(b"row")).unwrap();
            assert!(drain(&producer, &*clock, clock.monotonic_ms()).is_ok());
            deliveries.all_written(&producer)
        };
        assert!(write().is_ok());
        producer.commit_transaction(REQUEST_TIMEOUT).unwrap();
        let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        mock.request_errors(RDKafkaApiKey::AddPartitionsToTxn, &[denied]);
        let Err(Failure::Abort { stale_member: false, message }) = write() else { panic!() };
        assert!(message.contains("Topic authorization failed"), "{message}");
        producer.abort_transaction(REQUEST_TIMEOUT).unwrap();
        assert!(write().is_ok());
    }
}
