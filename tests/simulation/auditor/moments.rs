//! What is committed is one moment: the offsets, the clock beside them, and
//! the changes until then agree. And a scope event holds its shard (rule J7).

use std::collections::BTreeMap;

use device_status::shard::{Input, Rules};
use device_status::wire::proto::changelog;
use device_status::wire::proto::v1::{Cause, lifecycle_event as lifecycle, vpn_event as vpn};
use prost::Message as _;

use super::model::{Model, span_ms};
use super::sessions::counted;
use super::{Device, Scopes, duration_ms, ms};
use crate::kafka::{Kafka, Topic};
use crate::world::Plan;

/// How far an event may carry the judging of its row past the clock (rule T5).
const JUDGED_AHEAD_MS: i64 = 10_000;

/// An input whose broker is back has answered by then, though fetches are late.
const SOON_MS: i64 = 5_000;

/// A shard as it was committed.
pub struct Moment {
    commit: u64,
    transaction: u64,
    /// Of lifecycle, sessions and heartbeats.
    offsets: [i64; 3],
    clock: i64,
    epoch: u64,
    batch: u64,
    /// When the process submitted it: what it processes later is not in it.
    submitted_at: i64,
    /// When the transaction was committed.
    at: i64,
}

/// What a transaction holds besides offsets, by shard.
#[derive(Default)]
struct Held {
    /// Scope facts of the changelog: key and value.
    facts: Vec<(Vec<u8>, Vec<u8>)>,
    /// The last version that each device's row says was emitted.
    rows: BTreeMap<Vec<u8>, Option<u64>>,
    anything: bool,
}

/// Whether the shard had read what follows before its committed clock came to
/// `deadline`: `heartbeat` is the offset of a heartbeat stamped after it.
pub fn was_behind(moments: &[Moment], deadline: i64, heartbeat: i64) -> bool {
    // What is read again after lost offsets says nothing.
    let before = moments.iter().take_while(|moment| moment.offsets[2] <= heartbeat);
    before.map(|moment| moment.clock).max().is_none_or(|clock| clock < deadline)
}

/// Whether somebody did not reach the brokers shortly before a heartbeat was
/// processed: then an input that is to be read may be late by more than others
/// wait for it (rule T4), and the clock stands.
pub fn was_cut_off(moments: &[Moment], heartbeat: i64, unreachable: &[(i64, i64)]) -> bool {
    let Some(index) = moments.iter().position(|moment| moment.offsets[2] > heartbeat) else {
        return false;
    };
    // It was processed between this moment and the one before, which did not
    // have it. A commit may take long, and the process goes on meanwhile.
    let moment = &moments[index];
    let processed_from = moments[..index].last().map_or(i64::MIN, |before| {
        if before.epoch == moment.epoch { before.submitted_at } else { before.at }
    });
    let soon = |until: i64| until.saturating_add(SOON_MS);
    let overlaps =
        |&(from, until): &(i64, i64)| from <= moment.submitted_at && processed_from <= soon(until);
    unreachable.iter().any(overlaps)
}

/// From when until when transactions of other producers were open in the inputs
/// beside the heartbeats of a partition: they hold the clock (rule T4).
pub fn open_transactions(kafka: &Kafka, partition: i32) -> Vec<(i64, i64)> {
    let mut all = Vec::new();
    for input in [Input::Lifecycle, Input::VpnSessions] {
        let mut spans: BTreeMap<u64, (i64, i64)> = BTreeMap::new();
        for record in &kafka.log((Topic::Input(input), partition)).archive {
            let Some(transaction) = record.transaction else { continue };
            let span = spans.entry(transaction).or_insert((record.appended_at, i64::MAX));
            if record.control {
                span.1 = record.appended_at;
            }
        }
        all.extend(spans.into_values());
    }
    all
}

pub fn moments(
    kafka: &Kafka,
    by_partition: &BTreeMap<i32, Vec<Moment>>,
    devices: &BTreeMap<String, Device>,
    scopes: &BTreeMap<i32, Scopes>,
    plan: &Plan,
    counts: &mut BTreeMap<&'static str, u64>,
) -> Result<(), String> {
    let held = held(kafka)?;
    for ((partition, transaction), _) in held.iter().filter(|(_, held)| held.anything) {
        let moments = by_partition.get(partition).into_iter().flatten();
        if !moments.into_iter().any(|moment| moment.transaction == *transaction) {
            return Err(format!("transaction {transaction} has no offsets of {partition}"));
        }
    }
    let none = Vec::new();
    for partition in 0..kafka.partitions {
        let moments = by_partition.get(&partition).unwrap_or(&none);
        *counts.entry("moments").or_default() += moments.len() as u64;
        let scopes = &scopes[&partition];
        let here = |moment: &Moment| {
            let Moment { epoch, batch, offsets, clock, .. } = moment;
            format!("partition {partition}, commit {epoch}/{batch}, {offsets:?} at {clock}")
        };
        holds(partition, moments, &held, scopes, devices, &plan.rules, counts)
            .map_err(|(moment, what)| format!("{}: {what}", here(moment)))?;
        let clear = |(_, device): &(&String, &Device)| !device.absurd;
        let here_only = devices.iter().filter(|(_, device)| device.partition == partition);
        for (id, device) in here_only.filter(clear) {
            states(id, device, moments, &held, scopes, plan)
                .map_err(|(moment, what)| format!("{}: {what}", here(moment)))?;
        }
    }
    Ok(())
}

fn held(kafka: &Kafka) -> Result<BTreeMap<(i32, u64), Held>, String> {
    let mut all: BTreeMap<(i32, u64), Held> = BTreeMap::new();
    for partition in 0..kafka.partitions {
        for record in kafka.log((Topic::Changelog, partition)).committed() {
            let Some(transaction) = record.transaction else { continue };
            let held = all.entry((partition, transaction)).or_default();
            held.anything = true;
            let key = record.message.key.clone().unwrap_or_default();
            let value = record.message.value.clone();
            match (key.first(), value) {
                (Some(b'f' | b'o' | b'i'), Some(value)) => held.facts.push((key, value)),
                (Some(b'd'), value) => {
                    let row = value.map(|value| changelog::Row::decode(&*value)).transpose();
                    let row = row.map_err(|error| format!("a row that cannot be read: {error}"))?;
                    let emitted = row.and_then(|row| row.emitted);
                    held.rows.insert(key[2..].to_vec(), emitted.map(|emitted| emitted.version));
                }
                _ => {}
            }
        }
    }
    Ok(all)
}

/// The committed moments of each partition, in order.
pub fn committed(kafka: &Kafka) -> Result<BTreeMap<i32, Vec<Moment>>, String> {
    let mut all: BTreeMap<i32, Vec<Moment>> = BTreeMap::new();
    for made in &kafka.offset_commits {
        let Some(transaction) = made.transaction else { continue };
        let Some(info) = kafka.transactions.get(&transaction) else { continue };
        let Some(commit) = info.committed else { continue };
        for partition in 0..kafka.partitions {
            let of = |input| {
                let mut offsets = made.offsets.iter();
                offsets.find(|(place, _)| *place == (input, partition)).map(|(_, found)| found)
            };
            let found: Vec<_> = Input::ALL.into_iter().filter_map(of).collect();
            let [lifecycle, vpn, heartbeats] = found[..] else {
                if found.is_empty() {
                    continue;
                }
                return Err(format!("transaction {transaction}: offsets of some inputs only"));
            };
            let fields: Vec<&str> = lifecycle.metadata.split(';').collect();
            let number = |index: usize| {
                let field = fields.get(index).and_then(|field| field.parse::<i64>().ok());
                field.ok_or_else(|| format!("metadata {:?}", lifecycle.metadata))
            };
            all.entry(partition).or_default().push(Moment {
                commit,
                transaction,
                offsets: [lifecycle.offset, vpn.offset, heartbeats.offset],
                clock: number(1)?,
                epoch: number(3)? as u64,
                batch: number(4)? as u64,
                submitted_at: *kafka
                    .submitted
                    .get(&(partition, lifecycle.metadata.clone()))
                    .ok_or_else(|| format!("nobody submitted {:?}", lifecycle.metadata))?,
                at: info.ended_at,
            });
        }
    }
    for moments in all.values_mut() {
        moments.sort_by_key(|moment| moment.commit);
    }
    Ok(all)
}

type Failure<'a> = (&'a Moment, String);

/// The scope events that a shard has begun with and not passed: by input, the
/// offset and the epoch that first had the fact in its changelog.
#[derive(Clone, Copy, Default)]
struct Begun([Option<(i64, u64)>; 2]);

impl Begun {
    fn pass(&mut self, moment: &Moment, facts: &[(Vec<u8>, Vec<u8>)], scopes: &Scopes) {
        let next = [
            first_from(&scopes.lifecycle, moment.offsets[0])
                .filter(|said| facts.iter().any(|(key, value)| shows_lifecycle(key, value, said)))
                .map(|said| said.offset),
            first_from(&scopes.vpn, moment.offsets[1])
                .filter(|said| facts.iter().any(|(key, value)| shows_vpn(key, value, said)))
                .map(|said| said.offset),
        ];
        for (input, (begun, next)) in self.0.iter_mut().zip(next).enumerate() {
            *begun = begun
                .filter(|(offset, _)| *offset >= moment.offsets[input])
                .or(next.map(|offset| (offset, moment.epoch)));
        }
    }

    /// Up to where the scope events are that rows may show. One owner is held
    /// by one event until all rows are settled (rule J7). But an owner that
    /// ends in the middle leaves a fact behind; its successor settles all rows
    /// by it (rule R3), and may then be held by an event of the other input
    /// before it comes to the first again, in which nothing is new (rule J2).
    ///
    /// And an announcement whose lease was over when it came may be the last that
    /// was read: its end, which the clock has passed, is fired next.
    fn scope_until(
        self,
        offsets: [i64; 2],
        clock: i64,
        scopes: &Scopes,
        rules: &Rules,
    ) -> Vec<[i64; 2]> {
        let [lifecycle, vpn] = offsets;
        let over_when_told = first_from(&scopes.vpn, vpn - 1).filter(|said| match &said.event {
            vpn::Event::InstanceAlive(event) => {
                let lease_ms = event.lease.as_ref().map_or(0, duration_ms);
                said.offset == vpn - 1 && counted(rules, said) + lease_ms <= clock
            }
            _ => false,
        });
        let mut all = vec![offsets];
        all.extend(over_when_told.map(|said| [lifecycle, said.offset]));
        all.extend(self.0[0].map(|(next, _)| [next + 1, vpn]));
        all.extend(self.0[1].map(|(next, _)| [lifecycle, next + 1]));
        if let [Some((next_lifecycle, one)), Some((next_vpn, other))] = self.0
            && one != other
        {
            all.push([next_lifecycle + 1, next_vpn + 1]);
        }
        all
    }
}

/// At each commit every device shows what the records before the offsets say
/// at the clock; but for a scope event, or the end of a lease, of which some
/// rows are settled already.
fn states<'m>(
    id: &str,
    device: &Device,
    moments: &'m [Moment],
    held: &BTreeMap<(i32, u64), Held>,
    scopes: &Scopes,
    plan: &Plan,
) -> Result<(), Failure<'m>> {
    let mut changes = device.changes.iter().peekable();
    let mut last = None;
    let mut furthest = [0; 3];
    let mut begun = Begun::default();
    for moment in moments {
        let held_then = held.get(&(device.partition, moment.transaction));
        begun.pass(moment, held_then.map_or(&[], |held| &held.facts), scopes);
        let mut changed = None;
        while let Some(change) =
            changes.next_if(|change| change.commit.is_some_and(|commit| commit <= moment.commit))
        {
            let value = &change.value;
            last = (!value.deleted).then(|| (value.status(), value.connectivity()));
            changed = Some(value.version);
        }
        if let Some(version) = changed {
            let row = held_then.and_then(|held| held.rows.get(id.as_bytes()));
            if row != Some(&Some(version)) {
                let what = format!("{id} changed to version {version}, its row has {row:?}");
                return Err((moment, what));
            }
        }
        // What is read again says nothing new.
        let again = moment.offsets.iter().zip(furthest).any(|(offset, most)| *offset < most);
        furthest = [0, 1, 2].map(|input| furthest[input].max(moment.offsets[input]));
        if again {
            continue;
        }
        let [lifecycle, vpn, _] = moment.offsets;
        let read = |scope_until: [i64; 2]| {
            Model::read_until(&plan.rules, device, scopes, moment.offsets, scope_until)
        };
        let clock = moment.clock;
        if last == read([lifecycle, vpn]).shown(clock, clock) {
            continue;
        }
        let scope_until = begun.scope_until([lifecycle, vpn], clock, scopes, &plan.rules);
        let ahead = clock + JUDGED_AHEAD_MS;
        let heartbeats = device.heartbeats.iter().filter(|said| said.offset < moment.offsets[2]);
        let mut instants = vec![clock, ahead];
        if let Some(beat) = heartbeats.max_by_key(|said| (said.at, said.event)) {
            let mut intervals = beat.event.map_or_else(Vec::new, |carried| vec![carried]);
            if intervals.is_empty() {
                intervals = super::settings_of(device, scopes, &plan.rules);
            }
            for interval in intervals {
                let timeout = beat.at + span_ms(&plan.rules, interval);
                instants.extend([timeout, timeout + plan.rules.grace_ms]);
            }
        }
        instants.retain(|at| (clock..=ahead).contains(at));
        let agrees = scope_until.into_iter().any(|scope_until| {
            let model = read(scope_until);
            instants.iter().any(|at| {
                [clock, clock + 1].into_iter().any(|lease| last == model.shown(*at, lease))
            })
        });
        if !agrees {
            let expected = read([lifecycle, vpn]).shown(clock, clock);
            return Err((moment, format!("{id} shows {last:?}, and was {expected:?}")));
        }
    }
    Ok(())
}

/// While rows are settled for a scope event or for the end of a lease, nothing
/// else of the shard moves (rule J7).
fn holds<'m>(
    partition: i32,
    moments: &'m [Moment],
    held: &BTreeMap<(i32, u64), Held>,
    scopes: &Scopes,
    devices: &BTreeMap<String, Device>,
    rules: &Rules,
    counts: &mut BTreeMap<&'static str, u64>,
) -> Result<(), Failure<'m>> {
    let mut lapses: BTreeMap<u64, Vec<Lapse<'_>>> = BTreeMap::new();
    for device in devices.values().filter(|device| device.partition == partition) {
        for change in &device.changes {
            if change.value.cause() == Cause::VpnLeaseExpired
                && let Some(transaction) = change.transaction
            {
                let value = &change.value;
                let dates = [value.since.as_ref(), value.connectivity_since.as_ref()];
                let at = dates.into_iter().filter_map(ms).max().unwrap_or(0);
                lapses.entry(transaction).or_default().push(Lapse { device, at });
            }
        }
    }
    let mut holding: Option<(&Moment, Hold)> = None;
    for moment in moments {
        if let Some((since, hold)) = &holding
            && since.epoch == moment.epoch
        {
            if (moment.offsets, moment.clock) == (since.offsets, since.clock) {
                *counts.entry("held commits").or_default() += 1;
                continue;
            }
            let through = match *hold {
                Hold::Record { input, offset } => moment.offsets[input] > offset,
                Hold::Lease => moment.clock > since.clock,
            };
            if !through {
                let what = format!("a change came between the chunks of {hold:?}");
                return Err((moment, what));
            }
        }
        let facts = held.get(&(partition, moment.transaction)).map(|held| &held.facts);
        let shown = |shows: &dyn Fn(&[u8], &[u8]) -> bool| {
            facts.into_iter().flatten().any(|(key, value)| shows(key, value))
        };
        let next = first_from(&scopes.lifecycle, moment.offsets[0])
            .filter(|said| shown(&|key, value| shows_lifecycle(key, value, said)))
            .map(|said| (0, said.offset));
        let next = next.or_else(|| {
            first_from(&scopes.vpn, moment.offsets[1])
                .filter(|said| {
                    shown(&|key, value| shows_vpn(key, value, said) && !has_lapsed(value))
                })
                .map(|said| (1, said.offset))
        });
        let lapses = lapses.get(&moment.transaction).map_or(&[][..], Vec::as_slice);
        let lapses_here = |lapse: &Lapse<'_>| lapse.is_of(moment.clock + 1, moment, scopes, rules);
        let lapsing = lapses.iter().any(lapses_here).then_some(Hold::Lease);
        let record = next.map(|(input, offset)| Hold::Record { input, offset });
        holding = record.or(lapsing).map(|hold| (moment, hold));
    }
    Ok(())
}

/// A change that the end of a lease made.
struct Lapse<'a> {
    device: &'a Device,
    /// Its later date.
    at: i64,
}

impl Lapse<'_> {
    /// Whether it was made by a lease that ends at this instant. A date is no
    /// earlier than the one before (rule J9), so that it may be that of a session
    /// that was opened later, and tells nothing of the lease.
    fn is_of(&self, end: i64, moment: &Moment, scopes: &Scopes, rules: &Rules) -> bool {
        let sessions = self.device.vpn.iter().filter(|said| said.offset < moment.offsets[1]);
        let mut instances = sessions.filter_map(|said| match &said.event {
            vpn::Event::SessionOpened(event) => Some(&event.instance),
            _ => None,
        });
        let announced = || scopes.vpn.iter().filter(|said| said.offset < moment.offsets[1]);
        self.at >= end
            && instances.any(|instance| {
                announced().any(|said| match &said.event {
                    vpn::Event::InstanceAlive(event) if event.instance == *instance => {
                        let lease_ms = event.lease.as_ref().map_or(0, duration_ms);
                        counted(rules, said) + lease_ms == end
                    }
                    _ => false,
                })
            })
    }
}

/// What holds a shard: a record not yet passed, or a lease.
#[derive(Debug)]
enum Hold {
    Record { input: usize, offset: i64 },
    Lease,
}

fn first_from<T>(said: &[super::Said<T>], offset: i64) -> Option<&super::Said<T>> {
    said.get(said.partition_point(|said| said.offset < offset))
}

/// Whether the fact in the changelog is that of this record.
fn shows_lifecycle(key: &[u8], value: &[u8], said: &super::Said<lifecycle::Event>) -> bool {
    use lifecycle::Event as E;
    let (name, is_fleet) = match &said.event {
        E::FleetSettingsChanged(event) => (&event.fleet, true),
        E::FleetFrozen(event) => (&event.fleet, true),
        E::FleetUnfrozen(event) => (&event.fleet, true),
        E::OrganizationFrozen(event) => (&event.organization, false),
        E::OrganizationUnfrozen(event) => (&event.organization, false),
        _ => return false,
    };
    let kind = if is_fleet { "f/" } else { "o/" };
    if key != [kind.as_bytes(), name.as_bytes()].concat() {
        return false;
    }
    let (settings, frozen) = if is_fleet {
        let fact = changelog::Fleet::decode(value).unwrap_or_default();
        (fact.earlier_settings.into_iter().chain(fact.settings).collect(), fact.frozen)
    } else {
        (Vec::new(), changelog::Organization::decode(value).unwrap_or_default().frozen)
    };
    match &said.event {
        E::FleetSettingsChanged(_) => settings.iter().any(|held| held.at_ms == said.at),
        _ => frozen.iter().any(|held| held.at_ms == said.at),
    }
}

fn shows_vpn(key: &[u8], value: &[u8], said: &super::Said<vpn::Event>) -> bool {
    let (name, alive) = match &said.event {
        vpn::Event::InstanceAlive(event) => (&event.instance, true),
        vpn::Event::InstanceLost(event) => (&event.instance, false),
        _ => return false,
    };
    if key != [b"i/", name.as_bytes()].concat() {
        return false;
    }
    let fact = changelog::Instance::decode(value).unwrap_or_default();
    if alive {
        fact.alive.is_some_and(|held| held.at_ms == said.at)
    } else {
        fact.lost_ms == Some(said.at)
    }
}

/// Whether the instance was written for the end of its lease, which was over when it
/// was told of.
fn has_lapsed(value: &[u8]) -> bool {
    changelog::Instance::decode(value).is_ok_and(|fact| fact.lapsed)
}

#[cfg(test)]
mod tests {
    use device_status::wire::proto::v1;

    use super::super::{Change, Said};
    use super::*;

    fn moment(epoch: u64, submitted_at: i64, at: i64, heartbeats: i64) -> Moment {
        let offsets = [0, 10, heartbeats];
        Moment { commit: 0, transaction: 0, offsets, clock: 0, epoch, batch: 0, submitted_at, at }
    }

    #[test]
    fn a_heartbeat_was_processed_before_the_commit_that_has_it_was_submitted() {
        // Heartbeat 5 was processed between 10 s and 30 s.
        let moments = [moment(1, 10_000, 29_000, 5), moment(1, 30_000, 60_000, 9)];
        let cut_off = |from, until| was_cut_off(&moments, 5, &[(from, until)]);
        assert!(cut_off(0, 6_000), "the commit before took 19 s");
        assert!(!cut_off(0, 4_000), "before that all was read");
        assert!(cut_off(29_000, 40_000));
        assert!(!cut_off(31_000, 40_000), "it was processed already");
        assert!(!was_cut_off(&moments, 9, &[(0, 60_000)]), "it was never processed");
    }

    #[test]
    fn what_a_new_owner_processes_comes_after_the_last_commit_of_the_one_before() {
        let moments = [moment(1, 10_000, 29_000, 5), moment(2, 60_000, 60_000, 9)];
        assert!(!was_cut_off(&moments, 5, &[(0, 20_000)]));
        assert!(was_cut_off(&moments, 5, &[(0, 25_000)]));
    }

    fn opened(offset: i64, at: i64) -> Said<vpn::Event> {
        let (instance, session) = ("vpn-1".to_owned(), "s1".to_owned());
        let event = vpn::Event::SessionOpened(v1::SessionOpened {
            instance,
            session,
            ..Default::default()
        });
        Said { offset, at, written_at: at, sent_at: Some(at), appended_at: at, event }
    }

    /// Announced at 1 s for 17 s.
    fn announced() -> Said<vpn::Event> {
        let lease = Some(prost_types::Duration { seconds: 17, nanos: 0 });
        let instance = "vpn-1".to_owned();
        let alive = v1::InstanceAlive { instance, started_at: None, lease };
        let event = vpn::Event::InstanceAlive(alive);
        Said { offset: 1, at: 1_000, written_at: 1_000, sent_at: None, appended_at: 1_000, event }
    }

    /// What the auditor says of a commit by the clock, with a change that the end
    /// of a lease made at a date, and of the next one, which has read on.
    fn says(clock: i64, date: i64, opened_at: i64) -> Result<(), String> {
        let at = prost_types::Timestamp {
            seconds: date / 1_000,
            nanos: (date % 1_000) as i32 * 1_000_000,
        };
        let value = v1::StatusChanged {
            cause: Cause::VpnLeaseExpired.into(),
            since: Some(at),
            connectivity_since: Some(at),
            ..v1::StatusChanged::default()
        };
        let change =
            Change { partition_offset: (0, 0), transaction: Some(7), commit: Some(1), value };
        let device =
            Device { vpn: vec![opened(2, opened_at)], changes: vec![change], ..Device::default() };
        let devices = BTreeMap::from([("a".to_owned(), device)]);
        let scopes = Scopes { vpn: vec![announced()], ..Scopes::default() };
        let first = Moment { transaction: 7, clock, ..moment(1, 0, 0, 0) };
        let next = Moment { transaction: 8, clock, offsets: [0, 11, 0], ..moment(1, 0, 0, 0) };
        let moments = [first, next];
        let (held, rules, counts) = (BTreeMap::new(), Rules::default(), &mut BTreeMap::new());
        holds(0, &moments, &held, &scopes, &devices, &rules, counts).map_err(|(_, what)| what)
    }

    #[test]
    fn the_end_of_a_lease_holds_whatever_its_changes_are_dated() {
        let refused = Err("a change came between the chunks of Lease".to_owned());
        assert_eq!(says(17_999, 18_000, 2_000), refused);
        assert_eq!(says(17_999, 18_250, 18_250), refused, "opened after the end that is due");
    }

    /// The session was opened after the lease had ended; the clock has passed
    /// that, and stands just before the opening.
    #[test]
    fn the_date_of_a_session_is_no_end_of_a_lease() {
        assert_eq!(says(18_249, 18_250, 18_250), Ok(()));
    }
}
