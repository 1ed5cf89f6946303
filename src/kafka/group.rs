//! The state of the consumer group: partitions without an owner, our threads
//! without partitions, and instance ids that another process has taken (rules C4,
//! C11).
//!
//! The owner of a partition is the member that the group's coordinator names.
//! Whether that member works on the partition is not visible here; its own process
//! reports that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rdkafka::error::RDKafkaErrorCode;
use tracing::{debug, warn};

use super::client_config;
use super::native::{Group, GroupQuestion, Member};
use crate::config::{Config, GroupProtocol};
use crate::error::{Fatal, lock};

/// How often the coordinator is asked.
const ASK_INTERVAL_MS: i64 = 5_000;
/// Two answers further apart than this say nothing about the time between them.
const APART_MS: i64 = 30_000;
/// How long the group may take to assign a new owner after the session of the old
/// one has ended.
const HANDOVER_MS: i64 = 30_000;
/// The default of `session.timeout.ms`, and of the brokers'
/// `group.consumer.session.timeout.ms`, which clients cannot read.
const SESSION_TIMEOUT_MS: i64 = 45_000;
/// How long the coordinator may be silent before that is logged.
const SILENCE_LIMIT_MS: i64 = 60_000;

/// A stream thread's identity in the group.
#[derive(Debug, Default)]
pub struct Identity {
    instance_id: Option<String>,
    member_id: Mutex<Option<String>>,
    /// When the last answered request was sent, and whether a member then had our
    /// instance id.
    named: Mutex<Option<(i64, bool)>>,
}

impl Identity {
    /// The identity of a thread that has not joined yet.
    #[must_use]
    pub fn new(instance_id: Option<String>) -> Identity {
        Identity { instance_id, ..Identity::default() }
    }

    /// Sets the member id of the next join, if the client chooses one.
    pub fn joins_as(&self, member_id: Option<String>) {
        *lock(&self.member_id) = member_id;
    }

    /// Whether a member has our instance id; `None` without an answer to a request
    /// after `since_ms`.
    #[must_use]
    pub fn named_since(&self, since_ms: i64) -> Option<bool> {
        let (_, named) = (*lock(&self.named)).filter(|(asked_ms, _)| *asked_ms > since_ms)?;
        Some(named)
    }

    /// Records whether a member had our instance id, by the answer to a request at
    /// `asked_ms`.
    pub fn set_named(&self, asked_ms: i64, named: bool) {
        *lock(&self.named) = Some((asked_ms, named));
    }
}

/// A summary of the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupReport {
    /// Partitions that no member owns.
    pub without_owner: Vec<i32>,
    /// Those without an owner for longer than a takeover takes, and the longest
    /// time in milliseconds.
    pub abandoned: Option<(Vec<i32>, i64)>,
    /// Threads that are members, and to which the group assigns no partition.
    pub spare: BTreeSet<usize>,
    /// An instance id of ours that another process has taken.
    pub taken: Option<String>,
}

impl GroupReport {
    /// What is wrong with the group, if anything is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let (partitions, for_ms) = self.abandoned.as_ref()?;
        Some(format!(
            "partitions {partitions:?} have had no owner in the consumer group for {} s",
            for_ms / 1_000
        ))
    }
}

/// Asks the group's coordinator at an interval.
pub struct GroupWatch {
    question: GroupQuestion,
    group: String,
    known: Known,
    asked_ms: Option<i64>,
    /// Time of the last answer; at first, the start of the watch.
    heard_ms: Option<i64>,
    /// The brokers do not support the request.
    useless: bool,
    complained: bool,
}

impl GroupWatch {
    /// Watches the configured group. `members` are the stream threads of this
    /// process.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &Config, members: Vec<Arc<Identity>>) -> Result<GroupWatch, Fatal> {
        Ok(GroupWatch {
            question: GroupQuestion::new(client_config::asking(config)?),
            group: config.kafka.group.clone(),
            known: Known::new(config, members),
            asked_ms: None,
            heard_ms: None,
            useless: false,
            complained: false,
        })
    }

    /// Sends a request if one is due. Returns a report if an answer has come.
    pub fn look(&mut self, now_ms: i64) -> Option<GroupReport> {
        let heard_ms = *self.heard_ms.get_or_insert(now_ms);
        let answer = self.question.poll();
        let due = self.asked_ms.is_none_or(|asked_ms| now_ms - asked_ms >= ASK_INTERVAL_MS);
        if due && !self.question.asked && !self.useless {
            self.asked_ms = Some(now_ms);
            self.question.ask(&self.group);
        }
        match answer {
            Some(Ok(group)) => {
                self.heard_ms = Some(now_ms);
                self.complained = false;
                self.known.tell_names(&group, self.asked_ms.unwrap_or(now_ms));
                return Some(self.known.learn(&group, now_ms));
            }
            Some(Err(error)) => {
                // For example the demo's mock cluster.
                self.useless = error.code == RDKafkaErrorCode::UnsupportedFeature;
                debug!(%error, "the group's coordinator does not return the members");
            }
            None => {}
        }
        if now_ms - heard_ms > SILENCE_LIMIT_MS && !self.complained && !self.useless {
            self.complained = true;
            warn!(
                group = self.group,
                "no answer from the group coordinator for a minute: partitions without an owner \
                 go unnoticed. Check that it is reachable, and that this client is allowed to \
                 Describe the group"
            );
        }
        None
    }
}

/// State collected from the coordinator's answers.
struct Known {
    topics: [String; 3],
    partitions: i32,
    /// How long a partition may be without an owner.
    patience_ms: i64,
    members: Vec<Arc<Identity>>,
    /// Since when partitions have had no owner.
    since_ms: BTreeMap<i32, i64>,
    answered_ms: Option<i64>,
    /// Our member ids that have been in an answer.
    named: BTreeSet<String>,
}

impl Known {
    fn new(config: &Config, members: Vec<Arc<Identity>>) -> Known {
        Known {
            topics: config.topics.inputs().map(str::to_owned),
            partitions: config.topics.partitions,
            patience_ms: patience_ms(config),
            members,
            since_ms: BTreeMap::new(),
            answered_ms: None,
            named: BTreeSet::new(),
        }
    }

    fn learn(&mut self, group: &Group, now_ms: i64) -> GroupReport {
        let without_owner = self.without_owner(group);
        if self.answered_ms.is_none_or(|answered_ms| now_ms - answered_ms > APART_MS) {
            self.since_ms.clear();
        }
        self.answered_ms = Some(now_ms);
        self.since_ms.retain(|partition, _| without_owner.contains(partition));
        for partition in &without_owner {
            self.since_ms.entry(*partition).or_insert(now_ms);
        }
        let late = |since_ms: &i64| now_ms - since_ms > self.patience_ms;
        let abandoned: Vec<i32> =
            self.since_ms.iter().filter(|(_, since)| late(since)).map(|(p, _)| *p).collect();
        let longest_ms = self.since_ms.values().map(|since_ms| now_ms - since_ms).max();
        let abandoned = (!abandoned.is_empty()).then_some((abandoned, longest_ms.unwrap_or(0)));
        let (spare, taken) = self.ours(group);
        GroupReport { without_owner, abandoned, spare, taken }
    }

    fn without_owner(&self, group: &Group) -> Vec<i32> {
        let holds = group.stable || !group.classic;
        let holders = group.members.iter().filter(|_| holds);
        let owned: BTreeSet<(&str, i32)> = holders
            .flat_map(|member| &member.assigned)
            .map(|(topic, partition)| (topic.as_str(), *partition))
            .collect();
        let has_all = |partition: i32| {
            self.topics.iter().all(|topic| owned.contains(&(topic.as_str(), partition)))
        };
        (0..self.partitions).filter(|partition| !has_all(*partition)).collect()
    }

    /// Records for each of our threads whether a member has its instance id.
    fn tell_names(&self, group: &Group, asked_ms: i64) {
        for identity in self.members.iter().filter(|identity| identity.instance_id.is_some()) {
            let named = |member: &Member| member.instance_id == identity.instance_id;
            identity.set_named(asked_ms, group.members.iter().any(named));
        }
    }

    /// Which of our threads are spare, and which of our instance ids is taken.
    fn ours(&mut self, group: &Group) -> (BTreeSet<usize>, Option<String>) {
        let mut spare = BTreeSet::new();
        let mut taken = None;
        for (thread, identity) in self.members.iter().enumerate() {
            let Some(id) = lock(&identity.member_id).clone() else { continue };
            if let Some(member) = group.members.iter().find(|member| member.id == id) {
                // `target` already holds partitions that the member is still to
                // get.
                if group.stable && member.target.as_ref().is_some_and(Vec::is_empty) {
                    spare.insert(thread);
                }
                self.named.insert(id);
                continue;
            }
            // A thread that has just joined is not listed yet, and its instance id
            // may still be listed for the member before it.
            let has_ours = |member: &&Member| {
                member.instance_id.is_some() && member.instance_id == identity.instance_id
            };
            if self.named.contains(&id) && group.members.iter().any(|member| has_ours(&member)) {
                taken.clone_from(&identity.instance_id);
            }
        }
        (spare, taken)
    }
}

/// How long a partition may have no owner before that is a fault.
fn patience_ms(config: &Config) -> i64 {
    session_timeout_ms(config) + HANDOVER_MS
}

/// How long a member may be silent before the group excludes it, as far as a
/// client knows.
pub fn session_timeout_ms(config: &Config) -> i64 {
    let own = config.kafka.properties.get("session.timeout.ms").and_then(|own| own.parse().ok());
    match config.kafka.group_protocol {
        GroupProtocol::Classic => own.unwrap_or(SESSION_TIMEOUT_MS),
        GroupProtocol::Consumer => SESSION_TIMEOUT_MS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE_MS: i64 = SESSION_TIMEOUT_MS + HANDOVER_MS;

    fn known(partitions: i32, ids: &[(&str, Option<&str>)]) -> Known {
        let mut config = Config::default();
        config.topics.partitions = partitions;
        let identities = ids.iter().map(|(id, instance_id)| {
            let identity = Identity::new(instance_id.map(str::to_owned));
            identity.joins_as(Some((*id).to_owned()));
            Arc::new(identity)
        });
        Known::new(&config, identities.collect())
    }

    /// A member with whole partitions.
    fn member(id: &str, partitions: &[i32]) -> Member {
        let config = Config::default();
        let topics = config.topics.inputs().map(str::to_owned);
        let of =
            |topic: &String| partitions.iter().map(|p| (topic.clone(), *p)).collect::<Vec<_>>();
        let assigned: Vec<_> = topics.iter().flat_map(of).collect();
        Member { id: id.to_owned(), target: Some(assigned.clone()), assigned, instance_id: None }
    }

    fn group(members: Vec<Member>) -> Group {
        Group { stable: true, classic: false, members }
    }

    #[test]
    fn unowned_partition_is_reported_after_session_timeout_and_handover() {
        let mut known = known(3, &[]);
        let half = group(vec![member("a", &[0]), member("b", &[2])]);
        for now_ms in (0..=PATIENCE_MS).step_by(5_000) {
            let report = known.learn(&half, now_ms);
            assert_eq!((report.without_owner, report.abandoned), (vec![1], None), "{now_ms}");
        }
        let report = known.learn(&half, PATIENCE_MS + 1_000);
        assert_eq!(
            report.trouble().unwrap(),
            "partitions [1] have had no owner in the consumer group for 76 s"
        );
        let whole = group(vec![member("a", &[0, 1]), member("b", &[2])]);
        assert_eq!(known.learn(&whole, PATIENCE_MS + 2_000), GroupReport::default());
        let report = known.learn(&half, PATIENCE_MS + 3_000);
        assert_eq!(report.abandoned, None, "it had an owner meanwhile");
    }

    #[test]
    fn partition_is_unowned_if_one_input_is_unowned() {
        let mut known = known(1, &[]);
        let mut torn = member("a", &[0]);
        torn.assigned.pop();
        assert_eq!(known.learn(&group(vec![torn]), 0).without_owner, [0]);
        assert_eq!(known.learn(&Group::default(), 1).without_owner, [0]);
    }

    #[test]
    fn unstable_classic_group_owns_no_partitions() {
        let mut known = known(2, &[]);
        let mut moving = group(vec![member("a", &[0, 1])]);
        moving.stable = false;
        assert_eq!(known.learn(&moving, 0), GroupReport::default(), "each moves by itself");
        moving.classic = true;
        assert_eq!(known.learn(&moving, 1).without_owner, [0, 1]);
        moving.stable = true;
        assert_eq!(known.learn(&moving, 2), GroupReport::default());
    }

    #[test]
    fn gap_between_answers_does_not_count_as_time_without_owner() {
        let mut known = known(1, &[]);
        known.learn(&Group::default(), 0);
        let late_ms = 10 * PATIENCE_MS;
        assert_eq!(known.learn(&Group::default(), late_ms).abandoned, None);
        for now_ms in (late_ms..=late_ms + PATIENCE_MS).step_by(5_000) {
            known.learn(&Group::default(), now_ms);
        }
        let report = known.learn(&Group::default(), late_ms + PATIENCE_MS + 1_000);
        assert!(report.abandoned.is_some());
    }

    #[test]
    fn thread_is_spare_once_a_stable_group_assigns_it_nothing() {
        let mut known = known(1, &[("a", None), ("b", None)]);
        let both = || vec![member("a", &[0]), member("b", &[])];
        assert!(known.learn(&group(vec![member("a", &[0])]), 0).spare.is_empty(), "b is unknown");
        let moving = Group { stable: false, classic: false, members: both() };
        assert!(known.learn(&moving, 1).spare.is_empty(), "b may get something yet");
        let mut to_come = both();
        to_come[1].target = member("b", &[0]).target;
        assert!(known.learn(&group(to_come), 2).spare.is_empty(), "b gets something");
        let mut classic = both();
        classic[1].target = None;
        assert!(known.learn(&group(classic), 3).spare.is_empty(), "the callback tells");
        assert_eq!(known.learn(&group(both()), 4).spare, BTreeSet::from([1]));
    }

    #[test]
    fn instance_id_is_taken_once_another_member_has_it_after_us() {
        let mut known = known(1, &[("old", Some("pod-0"))]);
        let under = |id: &str| {
            let instance_id = Some("pod-0".to_owned());
            group(vec![Member { instance_id, ..member(id, &[0]) }])
        };
        assert_eq!(known.learn(&under("former"), 0).taken, None, "we have not joined yet");
        assert_eq!(known.learn(&under("old"), 1).taken, None);
        assert_eq!(known.learn(&group(Vec::new()), 2).taken, None, "our session ended");
        assert_eq!(known.learn(&under("new"), 3).taken.as_deref(), Some("pod-0"));
        known.members[0].joins_as(Some("anew".to_owned()));
        assert_eq!(known.learn(&under("new"), 4).taken, None, "we ask for it again");
    }

    #[test]
    fn member_without_instance_id_is_never_taken() {
        let mut known = known(1, &[("old", None)]);
        known.learn(&group(vec![member("old", &[0])]), 0);
        assert_eq!(known.learn(&group(vec![member("new", &[0])]), 1).taken, None);
    }

    #[test]
    fn session_timeout_setting_counts_with_the_classic_protocol() {
        let mut config = Config::default();
        assert_eq!(patience_ms(&config), 75_000);
        config.kafka.group_protocol = GroupProtocol::Classic;
        config.kafka.properties.insert("session.timeout.ms".to_owned(), "6000".to_owned());
        assert_eq!(patience_ms(&config), 36_000);
    }
}
