//! The real log port against a real Kafka: what the loop relies on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::support::events::{device_id, heartbeat};
use crate::support::kafka::{KafkaBroker, ServiceTopics};
use crate::support::log::{InProcess, KAFKA_AWAY};
use crate::support::wait::{Deadline, now_ms};
use device_status::clock::SystemClock;
use device_status::config::{Config, GroupProtocol, Guarantee};
use device_status::kafka::log::{KafkaLog, Stamps};
use device_status::shard::{Input, Timestamp};
use device_status::stream_thread::ports::{
    Batch, Bounds, Clock, Commits, Delivery, Log, LogBounds, LogEvent, OffsetAt, Outcome,
    OutputRecord, OutputTopic, QuestionId, ShardBatch, Source,
};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

fn config(broker: &KafkaBroker, topics: &ServiceTopics) -> Config {
    let mut config = Config::default();
    config.kafka.brokers = broker.address();
    config.kafka.group.clone_from(&topics.group);
    config.topics.heartbeats.clone_from(&topics.heartbeats);
    config.topics.vpn_sessions.clone_from(&topics.vpn_sessions);
    config.topics.lifecycle.clone_from(&topics.lifecycle);
    config.topics.status_changes.clone_from(&topics.status_changes);
    config.topics.dead_letters.clone_from(&topics.dead_letters);
    config.topics.changelog.clone_from(&topics.changelog);
    config
}

/// What a group has committed of each partition, or why that is not known.
/// A log and everything it has said.
struct Heard {
    log: KafkaLog,
    records: Vec<(Delivery, i32, i64, bool)>,
    events: Vec<LogEvent>,
    /// Dropped after the log.
    _trace: InProcess,
}

impl Heard {
    fn start(config: &Config, process: &str) -> Heard {
        Heard::start_with(config, process, Stamps::Broker)
    }

    fn start_with(config: &Config, process: &str, stamps: Stamps) -> Heard {
        let trace = InProcess::watch();
        let clock = Arc::new(SystemClock::new());
        let log = KafkaLog::start(config, process, 0, stamps, clock).unwrap();
        Heard { log, records: Vec::new(), events: Vec::new(), _trace: trace }
    }

    /// Polls until an event is what is wanted, and takes it.
    #[track_caller]
    fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(&LogEvent) -> Option<T>) -> T {
        let deadline = Deadline::after(Duration::from_secs(30));
        loop {
            if let Some(found) = self.events.iter().position(|e| wanted(e).is_some()) {
                let event = self.events.remove(found);
                return wanted(&event).unwrap();
            }
            assert!(!deadline.passed(), "waited for {what}; heard {:?}", self.events);
            self.poll();
        }
    }

    fn poll(&mut self) {
        let records = &mut self.records;
        let mut on_record =
            |delivery: Delivery, r: device_status::stream_thread::ports::RecordRef<'_>| {
                records.push((delivery, r.partition, r.offset, r.stamped_by_broker));
            };
        let _ = self.log.poll(Duration::from_millis(10), 1000, &mut on_record, &mut self.events);
    }

    #[track_caller]
    fn wait_records(&mut self, count: usize) {
        let deadline = Deadline::after(Duration::from_secs(30));
        while self.records.len() < count {
            assert!(
                !deadline.passed(),
                "{} of {count} records; {:?}",
                self.records.len(),
                self.events
            );
            self.poll();
        }
    }

    #[track_caller]
    fn bounds(&mut self, question: QuestionId) -> Result<Bounds, String> {
        self.wait("bounds", |event| match event {
            LogEvent::Bounds(id, answer) if *id == question => Some(answer.clone()),
            _ => None,
        })
    }

    /// Asks for what is committed, and waits for the answer.
    #[track_caller]
    fn committed(&mut self, of: &[(Input, i32)]) -> Result<Commits, String> {
        let question = self.log.ask_committed(of);
        self.wait("committed offsets", |event| match event {
            LogEvent::Committed(id, answer) if *id == question => Some(answer.clone()),
            _ => None,
        })
    }

    #[track_caller]
    fn wait_assigned(&mut self) -> Vec<(Input, i32)> {
        self.wait("an assignment", |event| match event {
            LogEvent::Assigned(partitions) if !partitions.is_empty() => Some(partitions.clone()),
            _ => None,
        })
    }
}

fn changelog_batch(value: &str, offset: i64) -> Batch {
    let record = OutputRecord {
        topic: OutputTopic::Changelog,
        partition: Some(0),
        key: Some(b"e".to_vec()),
        value: Some(value.into()),
        headers: Vec::new(),
    };
    let shard = ShardBatch {
        partition: 0,
        records: vec![record],
        offsets: [0, 0, offset],
        metadata: format!("after {value}"),
    };
    Batch { shards: vec![shard] }
}

#[test]
fn reads_commits_and_restores_as_the_loop_does() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("log-port", 2);
    let producer = broker.producer();
    producer.send(&topics, (0..20).map(|n| heartbeat(&device_id(n), now_ms())));
    producer.flush();

    let mut heard = Heard::start(&config(broker, &topics), "p1");
    let assigned = heard.wait_assigned();
    assert_eq!(assigned.len(), 6, "{assigned:?}");

    // Nothing is committed yet.
    let committed = heard.committed(&assigned);
    assert!(committed.unwrap().values().all(Option::is_none));

    // Assigned partitions are paused until they are resumed.
    let starts: Vec<_> = assigned.iter().map(|(input, p)| (*input, *p, 0)).collect();
    heard.log.assign(&starts).unwrap();
    let deadline = Deadline::after(Duration::from_secs(1));
    while !deadline.passed() {
        heard.poll();
    }
    assert_eq!(heard.records.len(), 0, "a paused partition delivered");
    heard.log.resume(&assigned).unwrap();
    heard.wait_records(20);
    assert!(
        heard
            .records
            .iter()
            .all(|(d, .., stamped)| { *d == Delivery::Group(Input::Heartbeats) && *stamped })
    );
    let end = heard.wait("an end of partition", |event| match event {
        LogEvent::EndOfPartition { input: Input::Heartbeats, partition: 0, offset } => {
            Some(*offset)
        }
        _ => None,
    });
    assert!(end > 0);

    // One transaction, with a receipt that tells the broker's time.
    let before = SystemClock::new().wall();
    heard.log.submit(Arc::new(changelog_batch("one", end)));
    let receipt = heard.wait("a commit", |event| match event {
        LogEvent::Submitted(Outcome::Committed(receipt)) => {
            Some((receipt.changelog_end.clone(), receipt.broker_time, receipt.duration))
        }
        LogEvent::Submitted(other) => panic!("{other:?}"),
        _ => None,
    });
    assert_eq!(receipt.0, BTreeMap::from([(0, 1)]));
    let (stamp, _) = receipt.1.expect("the changelog is stamped by the broker");
    assert!((stamp.0 - before.0).abs() < 20_000, "{stamp:?} against {before:?}");

    // Until the transaction's markers are written the answer is that there is
    // none yet (require-stable).
    let deadline = Deadline::after(Duration::from_secs(30));
    let committed = loop {
        let answer = heard.committed(&assigned);
        match answer {
            Ok(committed) => break committed,
            Err(message) => assert!(!deadline.passed(), "{message}"),
        }
    };
    let of_heartbeats = committed[&(Input::Heartbeats, 0)].clone();
    let of_heartbeats = of_heartbeats.expect("committed in the transaction");
    assert_eq!((of_heartbeats.offset, of_heartbeats.metadata.as_str()), (end, "after one"));

    // Ends as both kinds of reader see them, and offsets by time.
    let heartbeats = Source::Input(Input::Heartbeats);
    for from in [OffsetAt::Start, OffsetAt::Time(Timestamp(0))] {
        let of = [(heartbeats, 0), (Source::Changelog, 0)];
        let question = heard.log.ask_bounds(&of, from);
        let found = heard.bounds(question).unwrap();
        assert_eq!(found[&of[0]], LogBounds { start: 0, stable: end, end }, "{from:?}");
        // The record, and the marker of the transaction.
        assert_eq!((found[&of[1]].start, found[&of[1]].end), (0, 2), "{from:?}");
    }

    // A restore reads apart from the group, past the marker.
    heard.records.clear();
    heard.log.start_restore(Source::Changelog, 0, 0).unwrap();
    let end = heard.wait("the end of the restore", |event| match event {
        LogEvent::RestoreEnd { source: Source::Changelog, partition: 0, offset } => Some(*offset),
        _ => None,
    });
    assert_eq!(end, 2);
    assert_eq!(heard.records.len(), 1);
    assert_eq!(heard.records[0].0, Delivery::Restore(Source::Changelog));
    heard.log.stop_restore(Source::Changelog, 0).unwrap();
    heard.log.close();
}

#[test]
fn a_refused_transaction_does_not_get_the_next_one_refused() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("log-refused", 1);
    let mut heard = Heard::start(&config(broker, &topics), "p1");
    heard.wait_assigned();

    // Many records: some are in flight when the offsets are refused, since their
    // metadata is longer than a broker takes.
    let mut good = changelog_batch("one", 1);
    let record = good.shards[0].records[0].clone();
    let large = OutputRecord { value: Some(vec![b'x'; 10_000]), ..record };
    good.shards[0].records = vec![large; 1_000];
    let mut bad = good.clone();
    bad.shards[0].metadata = "x".repeat(10_000);
    let (good, bad) = (Arc::new(good), Arc::new(bad));
    let mut outcome_of = |batch: &Arc<Batch>| {
        heard.log.submit(batch.clone());
        heard.wait("an outcome", |event| match event {
            LogEvent::Submitted(outcome) => Some(format!("{outcome:?}")),
            _ => None,
        })
    };
    for attempt in 0..10 {
        let refused = outcome_of(&bad);
        assert!(refused.starts_with("Refused"), "attempt {attempt}: {refused}");
        let committed = outcome_of(&good);
        assert!(committed.starts_with("Committed"), "attempt {attempt}: {committed}");
    }
    heard.log.close();
}

#[test]
fn a_restore_that_is_begun_anew_at_once_reads_all_again() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("log-anew", 2);
    let producer = broker.producer();
    producer.send(&topics, (0..20).map(|n| heartbeat(&device_id(n), now_ms())));
    producer.flush();
    let heartbeats = Source::Input(Input::Heartbeats);
    let end_of = |wanted: i32| {
        move |event: &LogEvent| match event {
            LogEvent::RestoreEnd { partition, .. } if *partition == wanted => Some(()),
            _ => None,
        }
    };

    let mut heard = Heard::start(&config(broker, &topics), "p1");
    // The other partition keeps the consumer.
    heard.log.start_restore(heartbeats, 1, 0).unwrap();
    heard.wait("the end of the other partition", end_of(1));
    heard.log.start_restore(heartbeats, 0, 0).unwrap();
    heard.wait("the end of the restore", end_of(0));
    let of_first = |heard: &Heard| -> Vec<i64> {
        let records = heard.records.iter().filter(|(_, partition, ..)| *partition == 0);
        records.map(|(.., offset, _)| *offset).collect()
    };
    let all = of_first(&heard);
    assert!(!all.is_empty());

    // librdkafka may end the former reading only after the next one was asked for.
    for _ in 0..10 {
        heard.records.clear();
        for _ in 0..20 {
            heard.log.stop_restore(heartbeats, 0).unwrap();
            heard.log.start_restore(heartbeats, 0, 0).unwrap();
        }
        let deadline = Deadline::after(Duration::from_secs(30));
        while !of_first(&heard).ends_with(&all) {
            assert!(!deadline.passed(), "{:?} of {all:?}; {:?}", of_first(&heard), heard.events);
            heard.poll();
        }
    }
    heard.log.close();
}

#[test]
fn a_broker_that_goes_away_before_it_answers_has_told_no_offset() {
    InProcess::announce(KAFKA_AWAY);
    InProcess::announce(&["Kafka does not answer; the group will notice"]);
    let broker = KafkaBroker::start();
    let topics = broker.service_topics("no-answer", 1);
    let mut heard = Heard::start(&config(&broker, &topics), "p1");
    let of = [(Source::Changelog, 0), (Source::Input(Input::Heartbeats), 0)];
    let at = OffsetAt::Time(Timestamp(0));
    let question = heard.log.ask_bounds(&of, at);
    let found = heard.bounds(question).expect("the broker is there");
    // Of records there are none yet.
    let empty = LogBounds { start: 0, stable: 0, end: 0 };
    assert_eq!(found, Bounds::from(of.map(|place| (place, empty))));

    broker.pause();
    let questions: Vec<_> = (0..20).map(|_| heard.log.ask_bounds(&of, at)).collect();
    let deadline = Deadline::after(Duration::from_secs(2));
    while !deadline.passed() {
        heard.poll();
    }
    broker.kill();
    for question in questions {
        let answer = heard.bounds(question);
        assert!(answer.is_err(), "{answer:?}");
    }
}

#[test]
fn committed_offsets_are_asked_for_again_where_the_coordinator_has_moved() {
    InProcess::announce(KAFKA_AWAY);
    InProcess::announce(&["Kafka does not answer; the group will notice"]);
    // Which error a broker answers is luck; here it is the mock cluster's to say.
    let mock = MockCluster::new(1).unwrap();
    let mut config = Config::default();
    for input in Input::ALL {
        mock.create_topic(config.topics.input(input), 1, 1).unwrap();
    }
    config.kafka.brokers = mock.bootstrap_servers();
    config.kafka.group_protocol = GroupProtocol::Classic;
    let mut heard = Heard::start(&config, "p1");
    let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR; 10];
    mock.request_errors(RDKafkaApiKey::OffsetFetch, &errors);
    let of = Input::ALL.map(|input| (input, 0));
    let deadline = Deadline::after(Duration::from_secs(30));
    loop {
        let answer = heard.committed(&of);
        match answer {
            Ok(_) => break,
            Err(message) => assert!(!deadline.passed(), "{message}"),
        }
    }
}

#[test]
fn the_brokers_stamp_is_its_time_whatever_it_says_unless_it_cannot_stamp() {
    // The mock cluster says 1234 of every record, in milliseconds.
    let mock = MockCluster::new(1).unwrap();
    let mut config = Config::default();
    let topics = &config.topics;
    let inputs = Input::ALL.map(|input| topics.input(input));
    for name in inputs.into_iter().chain([topics.changelog.as_str()]) {
        mock.create_topic(name, 1, 1).unwrap();
    }
    config.kafka.brokers = mock.bootstrap_servers();
    config.kafka.group_protocol = GroupProtocol::Classic;
    config.processing.guarantee = Guarantee::AtLeastOnce;
    for (stamps, group) in [(Stamps::Broker, "stamps"), (Stamps::Own, "own")] {
        config.kafka.group = group.to_owned();
        let mut heard = Heard::start_with(&config, "p1", stamps);
        let assigned = heard.wait_assigned();
        let starts: Vec<_> = assigned.iter().map(|(input, p)| (*input, *p, 0)).collect();
        heard.log.assign(&starts).unwrap();
        let before = now_ms();
        heard.log.submit(Arc::new(changelog_batch("row", 0)));
        let told = heard.wait("a commit", |event| match event {
            LogEvent::Submitted(Outcome::Committed(receipt)) => Some(receipt.broker_time),
            _ => None,
        });
        let (stamp, _) = told.unwrap();
        match stamps {
            Stamps::Broker => assert_eq!(stamp, Timestamp(1234)),
            Stamps::Own => assert!((before..=now_ms()).contains(&stamp.0), "{stamp:?}"),
        }
    }
}

#[test]
fn letting_go_of_clients_while_the_broker_does_not_answer_holds_up_nothing() {
    let broker = KafkaBroker::start();
    let topics = broker.service_topics("letting-go", 1);
    let producer = broker.producer();
    producer.send(&topics, (0..100).map(|n| heartbeat(&device_id(n), now_ms())));
    producer.flush();
    let mut heard = Heard::start(&config(&broker, &topics), "p1");
    heard.wait_assigned();
    let source = Source::Input(Input::Heartbeats);
    heard.log.start_restore(source, 0, 0).unwrap();
    heard.wait_records(100);
    broker.pause();
    let clock = SystemClock::new();
    heard.log.stop_restore(source, 0).unwrap();
    let took_ms = clock.monotonic_ms();
    assert!(took_ms < 50, "the loop stood for {took_ms} ms");
    heard.log.close();
    let took_ms = clock.monotonic_ms();
    assert!(took_ms < 8_000, "closing took {took_ms} ms");
    broker.resume();
}

#[test]
fn members_share_shards_whole_and_give_them_back_when_asked() {
    let broker = KafkaBroker::shared();
    let topics = broker.service_topics("log-members", 4);
    let config = config(broker, &topics);
    let mut first = Heard::start(&config, "p1");
    let assigned = first.wait_assigned();
    assert_eq!(assigned.len(), 12);
    let starts: Vec<_> = assigned.iter().map(|(input, p)| (*input, *p, 0)).collect();
    first.log.assign(&starts).unwrap();

    let mut second = Heard::start(&config, "p2");
    let deadline = Deadline::after(Duration::from_secs(40));
    let mut kept = assigned;
    let mut taken = Vec::new();
    while taken.len() < 6 {
        assert!(!deadline.passed(), "{:?} {:?}", first.events, second.events);
        first.poll();
        second.poll();
        for event in std::mem::take(&mut first.events) {
            if let LogEvent::Revoked(partitions) = event {
                kept.retain(|p| !partitions.contains(p));
                first.log.unassign(&partitions).unwrap();
            }
        }
        for event in std::mem::take(&mut second.events) {
            if let LogEvent::Assigned(partitions) = event {
                let starts: Vec<_> = partitions.iter().map(|(i, p)| (*i, *p, 0)).collect();
                second.log.assign(&starts).unwrap();
                taken.extend(partitions);
            }
        }
    }
    // Co-partitioned: a shard's three inputs are with one member.
    for partitions in [&kept, &taken] {
        for (_, p) in partitions {
            assert_eq!(partitions.iter().filter(|(_, other)| other == p).count(), 3);
        }
    }
    assert_eq!(kept.len() + taken.len(), 12);
    second.log.close();
    first.log.close();
}

#[test]
fn a_partition_without_a_leader_leaves_the_others_their_answers() {
    let mock = MockCluster::new(1).unwrap();
    let mut config = Config::default();
    for input in Input::ALL {
        mock.create_topic(config.topics.input(input), 2, 1).unwrap();
    }
    config.kafka.brokers = mock.bootstrap_servers();
    config.kafka.group_protocol = GroupProtocol::Classic;
    let topic = config.topics.input(Input::VpnSessions);
    mock.partition_leader(topic, 1, None).unwrap();
    let mut heard = Heard::start(&config, "p1");
    let of: Vec<(Source, i32)> =
        Input::ALL.iter().flat_map(|input| [0, 1].map(|p| (Source::Input(*input), p))).collect();
    let question = heard.log.ask_bounds(&of, OffsetAt::Start);
    let found = heard.bounds(question).expect("an answer of the others");
    let without = (Source::Input(Input::VpnSessions), 1);
    let others: Vec<_> = of.iter().copied().filter(|place| *place != without).collect();
    assert!(others.iter().all(|place| found.contains_key(place)), "{found:?}");
    assert_eq!(found.len(), others.len(), "{found:?}");
    let error = heard.wait("word of the other", |event| match event {
        LogEvent::NoAnswer { partition: 1, error } => Some(error.clone()),
        _ => None,
    });
    assert!(error.starts_with(&format!("{topic} [1]: ")), "{error}");

    // Asked for alone, it has no answer at all.
    let question = heard.log.ask_bounds(&[without], OffsetAt::Start);
    assert!(heard.bounds(question).unwrap_err().starts_with(&format!("{topic} [1]: ")));
    mock.partition_leader(topic, 1, Some(1)).unwrap();
    let deadline = Deadline::after(Duration::from_secs(30));
    loop {
        let question = heard.log.ask_bounds(&of, OffsetAt::Start);
        if heard.bounds(question).is_ok_and(|found| found.len() == of.len()) {
            return;
        }
        assert!(!deadline.passed(), "its leader is back; {:?}", heard.events);
    }
}

#[test]
fn what_is_assigned_in_parts_is_read_once_and_whole() {
    for protocol in [GroupProtocol::Consumer, GroupProtocol::Classic] {
        let broker = KafkaBroker::shared();
        let topics = broker.service_topics("log-parts", 2);
        let producer = broker.producer();
        producer.send(&topics, (0..200).map(|n| heartbeat(&device_id(n), now_ms())));
        producer.flush();
        let mut config = config(broker, &topics);
        config.kafka.group_protocol = protocol;
        let mut heard = Heard::start(&config, "p1");
        let assigned = heard.wait_assigned();
        let (first, rest): (Vec<_>, Vec<_>) = assigned.into_iter().partition(|(_, p)| *p == 0);
        let starts = |of: &[(Input, i32)]| of.iter().map(|(i, p)| (*i, *p, 0)).collect::<Vec<_>>();
        heard.log.assign(&starts(&first)).unwrap();
        heard.log.resume(&first).unwrap();
        heard.wait_records(1);
        // While the first ones are read, the others come.
        heard.log.assign(&starts(&rest)).unwrap();
        let deadline = Deadline::after(Duration::from_secs(1));
        while !deadline.passed() {
            heard.poll();
        }
        assert!(heard.records.iter().all(|(_, partition, ..)| *partition == 0), "paused");
        heard.log.resume(&rest).unwrap();
        heard.wait_records(200);
        producer.send(&topics, (0..200).map(|n| heartbeat(&device_id(n), now_ms())));
        producer.flush();
        heard.wait_records(400);
        for partition in [0, 1] {
            let records = heard.records.iter().filter(|(_, p, ..)| *p == partition);
            let offsets: Vec<i64> = records.map(|(.., offset, _)| *offset).collect();
            let expected: Vec<i64> = (0..i64::try_from(offsets.len()).unwrap()).collect();
            assert_eq!(offsets, expected, "{protocol:?}");
        }
        heard.log.close();
    }
}
