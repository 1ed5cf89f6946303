//! A fleet with hours of history in all three inputs, and the changes that the
//! oracle tells of each device: one sequence alone is right (T8), since no record
//! of a device comes close to another of it or to a deadline.

use std::collections::BTreeMap;

use device_status::shard::{
    DeviceEvent, DeviceId, EventBody, FrozenReason, Input, Rules, UpdateOutcome, UpdatePhase,
};
use device_status::wire::proto::v1::{self, lifecycle_event as lifecycle, vpn_event as vpn};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use prost::Message as _;

use super::history::{DEVICES, FOREVER_MS, Gap, History, Sent, Step, What, devices, wide_steps};
use super::sequence::{Expected, sequences};

/// Longer than the last heartbeat of a history counts.
const SILENCE_MS: i64 = 300_000_000;

/// A record to be written.
pub struct Written {
    pub at: i64,
    pub input: Input,
    pub device: String,
    pub value: Vec<u8>,
}

/// A change: what is shown from then on, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub shown: String,
    pub since: i64,
    pub connectivity_since: i64,
}

pub struct Fleet {
    pub rules: Rules,
    /// In the order of their times.
    pub records: Vec<Written>,
    /// Of each device, what the oracle tells.
    pub changes: BTreeMap<String, Vec<Told>>,
}

impl Fleet {
    /// At least so many devices, whose history has come to rest by `end`, some days
    /// after the last record of each.
    pub fn new(devices: usize, steps: usize, end: i64) -> Fleet {
        // Nothing is forgotten. An input has nothing to say for longer than a
        // clock may jump (T3), again and again.
        let rules = Rules { tombstone_retention_ms: FOREVER_MS, ..Rules::default() };
        let config = Config::default();
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner = TestRunner::new_with_rng(config, random);
        let mut fleet = Fleet { rules, records: Vec::new(), changes: BTreeMap::new() };
        for group in 0..devices.div_ceil(usize::from(DEVICES)) {
            let steps = wide_steps(steps).new_tree(&mut runner).expect("steps").current();
            fleet.add(group, steps, end);
        }
        fleet.records.sort_by_key(|record| record.at);
        fleet
    }

    /// A few devices, whose histories leave each other alone.
    fn add(&mut self, group: usize, mut steps: Vec<Step>, end: i64) {
        steps.retain(|step| !matches!(step.what, What::Alive { .. } | What::Scope(_)));
        for step in &mut steps {
            (step.sent, step.again) = (Sent::Late(0), None);
            if !group.is_multiple_of(4) {
                livelier(&mut step.what);
            }
            // Times of connections would not move with the history.
            if let What::Opened { opened_ms, .. } | What::Closed { opened_ms, .. } = &mut step.what
            {
                *opened_ms = None;
            }
        }
        let history = History::wide(&steps, &self.rules, Gap::Ms(SILENCE_MS));
        let later_ms = end - history.end;
        let first = group * usize::from(DEVICES) + 1;
        let names: BTreeMap<DeviceId, String> = devices()
            .enumerate()
            .map(|(number, device)| (device, format!("{:032x}", first + number)))
            .collect();
        let nothing_late = |_: &DeviceId| Vec::new();
        for (device, changes) in sequences(&history, &nothing_late) {
            let told = changes.iter().map(|change| Told::expected(change, later_ms)).collect();
            self.changes.insert(names[&device].clone(), told);
        }
        for record in &history.records {
            let at = record.written + later_ms;
            let device = match &record.event.body {
                EventBody::Heartbeat { device, .. } | EventBody::Device { device, .. } => device,
                EventBody::Scope(_) => unreachable!("there are none"),
            };
            let (device, value) = (names[device].clone(), encode(&record.event.body, at));
            self.records.push(Written { at, input: record.input, device, value });
        }
    }

    /// How many changes there are to come.
    pub fn count(&self) -> usize {
        self.changes.values().map(Vec::len).sum()
    }

    /// What is wrong with the changes that were told: the first few devices.
    pub fn differences(&self, told: &BTreeMap<String, Vec<Told>>) -> Vec<String> {
        let nothing = Vec::new();
        self.changes
            .iter()
            .filter_map(|(device, expected)| {
                let told = told.get(device).unwrap_or(&nothing);
                (told != expected).then(|| {
                    let same = told.iter().zip(expected).take_while(|(a, b)| a == b).count();
                    format!(
                        "{device}: {} changes of {}; the {same}th is {:?}, and should be {:?}",
                        told.len(),
                        expected.len(),
                        told.get(same),
                        expected.get(same)
                    )
                })
            })
            .collect()
    }
}

impl Told {
    fn expected(change: &Expected, later_ms: i64) -> Told {
        Told {
            shown: change.current.map_or_else(
                || "deleted".to_owned(),
                |(status, connectivity)| format!("{status:?} {connectivity:?}"),
            ),
            since: change.since + later_ms,
            connectivity_since: change.connectivity_since + later_ms,
        }
    }

    pub fn of(change: &v1::StatusChanged) -> Told {
        let ms = |at: Option<prost_types::Timestamp>| {
            at.map_or(0, |at| at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000)
        };
        Told {
            shown: if change.deleted {
                "deleted".to_owned()
            } else {
                format!("{:?} {:?}", change.status(), change.connectivity())
            },
            since: ms(change.since),
            connectivity_since: ms(change.connectivity_since),
        }
    }
}

/// What covers everything else for hours becomes a poll: devices come and go.
fn livelier(what: &mut What) {
    use DeviceEvent::{Deleted, Frozen, SettingsChanged};
    match what {
        What::Heartbeat(interval) => *interval = interval.filter(|ms| *ms < 1_000_000),
        What::GoingAway | What::Device(Deleted | Frozen { .. } | SettingsChanged(_)) => {
            *what = What::Heartbeat(None);
        }
        _ => {}
    }
}

fn time(ms: i64) -> Option<prost_types::Timestamp> {
    let nanos = (ms.rem_euclid(1_000) * 1_000_000) as i32;
    Some(prost_types::Timestamp { seconds: ms.div_euclid(1_000), nanos })
}

fn seconds(seconds: Option<u32>) -> Option<prost_types::Duration> {
    seconds.map(|seconds| prost_types::Duration { seconds: i64::from(seconds), nanos: 0 })
}

fn interval(ms: Option<u32>) -> Option<prost_types::Duration> {
    let nanos = |ms: u32| (ms % 1_000 * 1_000_000) as i32;
    ms.map(|ms| prost_types::Duration { seconds: i64::from(ms / 1_000), nanos: nanos(ms) })
}

fn reason(reason: FrozenReason) -> i32 {
    let place = FrozenReason::ALL.iter().position(|each| *each == reason);
    place.map_or(0, |place| place as i32 + 1)
}

fn outcome(outcome: Option<UpdateOutcome>) -> i32 {
    match outcome {
        None => 0,
        Some(UpdateOutcome::Succeeded) => 1,
        Some(UpdateOutcome::Failed) => 2,
        Some(UpdateOutcome::Aborted) => 3,
        Some(UpdateOutcome::Rejected) => 4,
    }
}

/// An event as its producer writes it.
fn encode(body: &EventBody, at: i64) -> Vec<u8> {
    let occurred_at = time(at);
    let event = match body {
        EventBody::Heartbeat { poll_interval_s, going_away, .. } => {
            let (poll_interval, going_away) = (seconds(*poll_interval_s), *going_away);
            return v1::Heartbeat { occurred_at, poll_interval, going_away }.encode_to_vec();
        }
        EventBody::Device { event, .. } => event,
        EventBody::Scope(_) => unreachable!("there are none"),
    };
    let event = match event {
        DeviceEvent::SessionOpened { instance, session, opened_at, lease_ms } => {
            let (instance, session) = (instance.to_string(), session.to_string());
            let opened_at = opened_at.and_then(|opened_at| time(opened_at.0));
            let lease = interval(*lease_ms);
            let opened = v1::SessionOpened { instance, session, opened_at, lease };
            let event = Some(vpn::Event::SessionOpened(opened));
            return v1::VpnEvent { occurred_at, event }.encode_to_vec();
        }
        DeviceEvent::SessionClosed { instance, session, opened_at } => {
            let (instance, session) = (instance.to_string(), session.to_string());
            let opened_at = opened_at.and_then(|opened_at| time(opened_at.0));
            let closed = v1::SessionClosed { instance, session, opened_at };
            let event = Some(vpn::Event::SessionClosed(closed));
            return v1::VpnEvent { occurred_at, event }.encode_to_vec();
        }
        DeviceEvent::Registered { fleet, organization, preregistered } => {
            let (fleet, organization) = (fleet.to_string(), organization.to_string());
            let preregistered = *preregistered;
            lifecycle::Event::Registered(v1::Registered { fleet, organization, preregistered })
        }
        DeviceEvent::Moved { fleet, organization } => lifecycle::Event::Moved(v1::Moved {
            fleet: fleet.to_string(),
            organization: organization.to_string(),
        }),
        DeviceEvent::Provisioned => lifecycle::Event::Provisioned(v1::Provisioned {}),
        DeviceEvent::Activated => lifecycle::Event::Activated(v1::Activated {}),
        DeviceEvent::Deactivated => lifecycle::Event::Deactivated(v1::Deactivated {}),
        DeviceEvent::Frozen { reason: why } => {
            lifecycle::Event::Frozen(v1::Frozen { reason: reason(*why) })
        }
        DeviceEvent::Unfrozen { reason: why } => {
            lifecycle::Event::Unfrozen(v1::Unfrozen { reason: why.map_or(0, reason) })
        }
        DeviceEvent::ConfigurationStarted => {
            lifecycle::Event::ConfigurationStarted(v1::ConfigurationStarted {})
        }
        DeviceEvent::ConfigurationProgressed { percent } => {
            let percent = u32::from(*percent);
            lifecycle::Event::ConfigurationProgressed(v1::ConfigurationProgressed { percent })
        }
        DeviceEvent::ConfigurationFinished { outcome: how } => {
            let outcome = outcome(*how);
            lifecycle::Event::ConfigurationFinished(v1::ConfigurationFinished { outcome })
        }
        DeviceEvent::UpdateStarted { release } => {
            lifecycle::Event::UpdateStarted(v1::UpdateStarted { release: release.to_string() })
        }
        DeviceEvent::UpdateProgressed { percent, phase, release } => {
            lifecycle::Event::UpdateProgressed(v1::UpdateProgressed {
                percent: u32::from(*percent),
                phase: match phase {
                    None => 0,
                    Some(UpdatePhase::Downloading) => 1,
                    Some(UpdatePhase::Downloaded) => 2,
                    Some(UpdatePhase::Applying) => 3,
                },
                release: Some(release.to_string()),
            })
        }
        DeviceEvent::UpdateFinished { release, outcome: how } => {
            let (release, outcome) = (Some(release.to_string()), outcome(*how));
            lifecycle::Event::UpdateFinished(v1::UpdateFinished { release, outcome })
        }
        DeviceEvent::SettingsChanged(settings) => {
            lifecycle::Event::SettingsChanged(v1::SettingsChanged {
                poll_interval: seconds(settings.poll_interval_s),
                vpn_enabled: settings.vpn_enabled,
            })
        }
        DeviceEvent::Deleted => lifecycle::Event::Deleted(v1::Deleted {}),
    };
    v1::LifecycleEvent { occurred_at, event: Some(event) }.encode_to_vec()
}
