//! Every register, and what contradicts itself in it, in both orders.

use std::fmt;

use crate::support::events::{Outgoing, device_id};
use device_status::shard::Input;
use device_status::wire::proto::v1::{
    Activated, ConfigurationFinished, ConfigurationProgressed, ConfigurationStarted, Connectivity,
    Deactivated, Deleted, FleetFrozen, FleetSettingsChanged, FleetUnfrozen, Frozen, FrozenReason,
    Heartbeat, InstanceAlive, InstanceLost, LifecycleEvent, Moved, OrganizationFrozen,
    OrganizationUnfrozen, Registered, SessionClosed, SessionOpened, SettingsChanged, Status,
    Unfrozen, UpdateFinished, UpdateOutcome, UpdateProgressed, UpdateStarted, VpnEvent,
    lifecycle_event::Event as Life, vpn_event::Event as Vpn,
};
use prost::Message;
use prost_types::{Duration, Timestamp};

use Connectivity::{Full, HeartbeatOnly};
use Status::{Configuring, Frozen as IsFrozen, Inactive, Offline, Online, Updating};
use When::{Batch, BeatOver, PollOver};

/// Something that is said of a device, or of the scope that it is in.
#[derive(Clone, Debug)]
pub enum Said {
    Life(Life),
    Vpn(Vpn),
    Beat(Heartbeat),
    /// A deletion by a key without a value, which can tell no time.
    Tombstone,
}

impl Said {
    /// As a record. Without a time of its own it happens when it is written.
    pub fn of(&self, device: &str, at_ms: Option<i64>) -> Outgoing {
        let occurred_at = at_ms.map(timestamp);
        let value = match self.clone() {
            Said::Life(event) => {
                Some(LifecycleEvent { occurred_at, event: Some(event) }.encode_to_vec())
            }
            Said::Vpn(event) => Some(VpnEvent { occurred_at, event: Some(event) }.encode_to_vec()),
            Said::Beat(heartbeat) => Some(Heartbeat { occurred_at, ..heartbeat }.encode_to_vec()),
            Said::Tombstone => None,
        };
        let key = (!self.is_broadcast()).then(|| device.as_bytes().to_vec());
        Outgoing { input: self.input(), key, value, partition: None, timestamp_ms: None }
    }

    fn input(&self) -> Input {
        match self {
            Said::Life(_) | Said::Tombstone => Input::Lifecycle,
            Said::Vpn(_) => Input::VpnSessions,
            Said::Beat(_) => Input::Heartbeats,
        }
    }

    fn is_broadcast(&self) -> bool {
        matches!(
            self,
            Said::Life(
                Life::FleetFrozen(_)
                    | Life::FleetUnfrozen(_)
                    | Life::FleetSettingsChanged(_)
                    | Life::OrganizationFrozen(_)
                    | Life::OrganizationUnfrozen(_)
            ) | Said::Vpn(Vpn::InstanceAlive(_) | Vpn::InstanceLost(_))
        )
    }
}

/// A date.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// The stamp of the batch.
    Batch,
    /// When a heartbeat of the batch expires whose interval is 2 s.
    BeatOver,
    /// When the poll after the batch expires by an interval of 2 s.
    PollOver,
}

/// A change.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// What of it is new is since then.
    Shows(Status, Connectivity, When),
    /// To this fleet; nothing else.
    Moved(&'static str),
    Deleted,
}

/// What is known of a device before the batch.
#[derive(Clone, Debug)]
pub enum Before {
    Nothing,
    /// It is registered, polls, and there is more.
    Known(Vec<Said>),
}

/// A device, and a batch that contradicts itself.
#[derive(Debug)]
pub struct Case {
    label: String,
    pub device: String,
    pub input: Input,
    pub before: Before,
    /// What it shows before the batch.
    pub base: (Status, Connectivity),
    pub batch: Vec<Said>,
    /// The changes that the batch makes, and those of the poll after it.
    pub told: Vec<Told>,
    /// The changes that it makes when all of it is sent again, with its times. Two
    /// values that were both seen are duplicates; of two names the later in the log
    /// holds, and so each of them is told again.
    pub again: Vec<Told>,
    /// Other fields that Redis shows in the end.
    pub fields: Vec<(&'static str, String)>,
    /// Whether it polls after the batch, and tells no interval.
    pub polls: bool,
}

impl Case {
    /// A name of a scope that no other case has; that of its own fleet is empty.
    pub fn name(&self, of: &str) -> String {
        if of == NONE { String::new() } else { scope(&self.device, of) }
    }

    /// Whether it cannot be sent again with its times.
    pub fn is_timeless(&self) -> bool {
        self.batch.iter().any(|said| matches!(said, Said::Tombstone))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.label, self.batch)
    }
}

/// No fleet.
pub const NONE: &str = "none";

fn scope(device: &str, of: &str) -> String {
    format!("{device}-{of}")
}

fn timestamp(ms: i64) -> Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1000)).unwrap() * 1_000_000;
    Timestamp { seconds: ms.div_euclid(1000), nanos }
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

/// All cases, collected.
struct Table {
    cases: Vec<Case>,
    before_ms: i64,
}

/// What the events of a case are made from.
struct Own<'a> {
    device: &'a str,
    /// The time of what was known before.
    before_ms: i64,
}

impl Own<'_> {
    /// A name of a scope of this case; the empty one is that of its fleet and its
    /// organization.
    fn name(&self, of: &str) -> String {
        scope(self.device, of)
    }
}

impl Table {
    fn add(
        &mut self,
        label: &str,
        before: impl Fn(&Own<'_>) -> Vec<Said>,
        batch: impl Fn(&Own<'_>) -> Vec<Said>,
        told: &[Told],
    ) -> &mut Case {
        let device = device_id(self.cases.len() as u64);
        let own = Own { device: &device, before_ms: self.before_ms };
        let (before, batch) = (Before::Known(before(&own)), batch(&own));
        self.cases.push(Case {
            label: label.to_owned(),
            input: batch[0].input(),
            before,
            base: (Online, HeartbeatOnly),
            batch,
            told: told.to_vec(),
            again: Vec::new(),
            fields: Vec::new(),
            polls: false,
            device,
        });
        self.cases.last_mut().unwrap()
    }

    /// Two events of a device that polls, in both orders.
    fn both(
        &mut self,
        label: &str,
        pair: impl Fn(&Own<'_>) -> [Said; 2],
        told: &[Told],
        told_reversed: &[Told],
    ) {
        self.both_after(label, |_| Vec::new(), (Online, HeartbeatOnly), pair, told, told_reversed);
    }

    /// The same where more is known before.
    fn both_after(
        &mut self,
        label: &str,
        before: impl Fn(&Own<'_>) -> Vec<Said>,
        base: (Status, Connectivity),
        pair: impl Fn(&Own<'_>) -> [Said; 2],
        told: &[Told],
        told_reversed: &[Told],
    ) {
        self.add(label, &before, |own| pair(own).to_vec(), told).base = base;
        let reversed = |own: &Own<'_>| {
            let [first, second] = pair(own);
            vec![second, first]
        };
        self.add(label, &before, reversed, told_reversed).base = base;
    }

    /// The case before the last one, and the last.
    fn last_two(&mut self) -> [&mut Case; 2] {
        let [.., first, second] = self.cases.as_mut_slice() else { panic!("no two cases") };
        [first, second]
    }
}

fn is(status: Status) -> Told {
    Told::Shows(status, HeartbeatOnly, Batch)
}

fn linked(connectivity: Connectivity) -> Told {
    Told::Shows(Online, connectivity, Batch)
}

fn nothing_more(_: &Own<'_>) -> Vec<Said> {
    Vec::new()
}

/// Every register, each case with a device and scopes of its own. What is known before
/// the batch is of `before_ms`.
pub fn cases(before_ms: i64) -> Vec<Case> {
    let mut table = Table { cases: Vec::new(), before_ms };
    lives(&mut table);
    freezes(&mut table);
    updates(&mut table);
    names(&mut table);
    settings(&mut table);
    sessions(&mut table);
    heartbeats(&mut table);
    table.cases
}

/// Activation, registration, deletion.
fn lives(table: &mut Table) {
    let activation = |_: &Own<'_>| {
        [Said::Life(Life::Activated(Activated {})), Said::Life(Life::Deactivated(Deactivated {}))]
    };
    table.both("activated", activation, &[is(Inactive)], &[is(Inactive), is(Online)]);
    let inactive = |_: &Own<'_>| vec![Said::Life(Life::Deactivated(Deactivated {}))];
    let base = (Inactive, HeartbeatOnly);
    let (told, reversed) = ([is(Online), is(Inactive)], [is(Online)]);
    table.both_after("activated, of one inactive", inactive, base, activation, &told, &reversed);

    // Of a device that was never in contact.
    let registered = |own: &Own<'_>, fleet: &str, preregistered| {
        let (fleet, organization) = (own.name(fleet), own.name(""));
        Said::Life(Life::Registered(Registered { fleet, organization, preregistered }))
    };
    let unseen = |status| Told::Shows(status, Connectivity::None, Batch);
    let pair = |own: &Own<'_>| [registered(own, "", false), registered(own, "", true)];
    let (told, reversed) =
        ([unseen(Configuring), unseen(Inactive)], [unseen(Inactive), unseen(Configuring)]);
    table.both("preregistered", pair, &told, &reversed);
    for case in table.last_two() {
        case.before = Before::Nothing;
        case.base = (Status::Unspecified, Connectivity::Unspecified);
    }

    for tombstone in [false, true] {
        let gone = if tombstone { Said::Tombstone } else { Said::Life(Life::Deleted(Deleted {})) };
        let pair = |own: &Own<'_>| [registered(own, "new", false), gone.clone()];
        let told = [Told::Moved("new"), Told::Deleted];
        let reversed = [Told::Deleted, unseen(Configuring)];
        table.both("registered and deleted", pair, &told, &reversed);
        let [_, back] = table.last_two();
        back.fields = vec![("fleet", back.name("new"))];
    }
}

/// Frozen and unfrozen, for each reason and scope.
fn freezes(table: &mut Table) {
    type Make = fn(&Own<'_>, FrozenReason) -> Said;
    let scopes: [(&str, Make, Make); 3] = [
        (
            "device",
            |_, reason| Said::Life(Life::Frozen(Frozen { reason: reason.into() })),
            |_, reason| Said::Life(Life::Unfrozen(Unfrozen { reason: reason.into() })),
        ),
        (
            "fleet",
            |own, reason| {
                let (fleet, reason) = (own.name(""), reason.into());
                Said::Life(Life::FleetFrozen(FleetFrozen { fleet, reason }))
            },
            |own, reason| {
                let (fleet, reason) = (own.name(""), reason.into());
                Said::Life(Life::FleetUnfrozen(FleetUnfrozen { fleet, reason }))
            },
        ),
        (
            "organization",
            |own, reason| {
                let (organization, reason) = (own.name(""), reason.into());
                Said::Life(Life::OrganizationFrozen(OrganizationFrozen { organization, reason }))
            },
            |own, reason| {
                let (organization, reason) = (own.name(""), reason.into());
                let event = OrganizationUnfrozen { organization, reason };
                Said::Life(Life::OrganizationUnfrozen(event))
            },
        ),
    ];
    let reasons = [
        FrozenReason::Unspecified,
        FrozenReason::Allowance,
        FrozenReason::PaidApplicationType,
        FrozenReason::OverdueInvoices,
        FrozenReason::Other,
    ];
    for (scope, freeze, thaw) in scopes {
        for reason in reasons {
            let label = format!("frozen by {scope}");
            let pair = |own: &Own<'_>| [freeze(own, reason), thaw(own, reason)];
            table.both(&label, pair, &[is(IsFrozen), is(Online)], &[is(IsFrozen)]);
            let frozen = |own: &Own<'_>| vec![freeze(own, reason)];
            let base = (IsFrozen, HeartbeatOnly);
            let (told, reversed) = ([is(Online)], [is(Online), is(IsFrozen)]);
            table.both_after(&label, frozen, base, pair, &told, &reversed);
        }
        let label = format!("frozen for a reason, and every reason lifted, by {scope}");
        let pair = |own: &Own<'_>| {
            [freeze(own, FrozenReason::Allowance), thaw(own, FrozenReason::Unspecified)]
        };
        table.both(&label, pair, &[is(IsFrozen), is(Online)], &[is(IsFrozen)]);
        // What was seen is a duplicate.
        let label = format!("frozen three times, by {scope}");
        let thrice = |own: &Own<'_>| {
            let [frozen, lifted] =
                [freeze(own, FrozenReason::Other), thaw(own, FrozenReason::Other)];
            vec![frozen.clone(), lifted, frozen]
        };
        table.add(&label, nothing_more, thrice, &[is(IsFrozen), is(Online)]);
        // One reason for another.
        let label = format!("one reason for another, by {scope}");
        let before = |own: &Own<'_>| vec![freeze(own, FrozenReason::Allowance)];
        let swap = |own: &Own<'_>| {
            [thaw(own, FrozenReason::Unspecified), freeze(own, FrozenReason::OverdueInvoices)]
        };
        let base = (IsFrozen, HeartbeatOnly);
        let told = [is(Online), is(IsFrozen)];
        table.both_after(&label, before, base, swap, &told, &[is(Online)]);
    }
}

/// Configurations and updates.
fn updates(table: &mut Table) {
    let failed = UpdateOutcome::Failed;
    let configuration = |_: &Own<'_>| {
        let finished = ConfigurationFinished { outcome: failed.into() };
        [
            Said::Life(Life::ConfigurationStarted(ConfigurationStarted {})),
            Said::Life(Life::ConfigurationFinished(finished)),
        ]
    };
    let told = [is(Configuring), is(Online)];
    table.both("configuration", configuration, &told, &[is(Configuring)]);

    let started = |release: &str| {
        Said::Life(Life::UpdateStarted(UpdateStarted { release: release.to_owned() }))
    };
    let finished = |release: Option<&str>| {
        let release = release.map(str::to_owned);
        let event = UpdateFinished { release, outcome: failed.into() };
        Said::Life(Life::UpdateFinished(event))
    };
    for release in [Some("r1"), None, Some("")] {
        let pair = |_: &Own<'_>| [started(release.unwrap_or_default()), finished(release)];
        table.both("update", pair, &[is(Updating), is(Online)], &[is(Updating)]);
        let [over, goes_on] = table.last_two();
        let release = release.unwrap_or_default().to_owned();
        over.fields = vec![("release", release.clone()), ("update_outcome", "failed".into())];
        goes_on.fields = vec![("release", release), ("update_outcome", String::new())];
    }
    let pair = |_: &Own<'_>| [started("r1"), finished(None)];
    table.both("the end names none", pair, &[is(Updating), is(Online)], &[is(Updating)]);
    let pair = |_: &Own<'_>| [started(""), finished(Some("r1"))];
    table.both("the start names none", pair, &[is(Updating)], &[is(Updating)]);
    let pair = |_: &Own<'_>| [started("r2"), finished(Some("r1"))];
    table.both("the end of another", pair, &[is(Updating)], &[is(Updating)]);
    let before = |_: &Own<'_>| vec![started("r1")];
    let base = (Updating, HeartbeatOnly);
    let reversed = [is(Online), is(Updating)];
    table.both_after("one release for the next", before, base, pair, &[], &reversed);
    for case in table.last_two() {
        case.fields = vec![("release", "r2".into()), ("update_outcome", String::new())];
    }
    let pair = |_: &Own<'_>| [started("r1"), started("r2")];
    table.both("two releases", pair, &[is(Updating)], &[is(Updating)]);
    let [second, first] = table.last_two();
    (second.fields, first.fields) =
        (vec![("release", "r2".into())], vec![("release", "r1".into())]);

    // Percentages: neither is a change.
    let update = |percent| {
        let event = UpdateProgressed { percent, ..Default::default() };
        Said::Life(Life::UpdateProgressed(event))
    };
    let pair = |_: &Own<'_>| [update(30), update(40)];
    table.both_after("progress of an update", before, base, pair, &[], &[]);
    let [more, less] = table.last_two();
    (more.fields, less.fields) = (vec![("progress", "40".into())], vec![("progress", "30".into())]);
    let configuration =
        |percent| Said::Life(Life::ConfigurationProgressed(ConfigurationProgressed { percent }));
    let before =
        |_: &Own<'_>| vec![Said::Life(Life::ConfigurationStarted(ConfigurationStarted {}))];
    let pair = |_: &Own<'_>| [configuration(30), configuration(40)];
    let base = (Configuring, HeartbeatOnly);
    table.both_after("progress of a configuration", before, base, pair, &[], &[]);
    let [more, less] = table.last_two();
    (more.fields, less.fields) = (vec![("progress", "40".into())], vec![("progress", "30".into())]);
}

/// Fleets: of two the later in the log.
fn names(table: &mut Table) {
    let moved = |own: &Own<'_>, fleet: &str| {
        let (fleet, organization) = (own.name(fleet), own.name(""));
        Said::Life(Life::Moved(Moved { fleet, organization }))
    };
    let registered = |own: &Own<'_>, fleet: &str| {
        let (fleet, organization) = (own.name(fleet), own.name(""));
        Said::Life(Life::Registered(Registered { fleet, organization, preregistered: false }))
    };
    let (there, back) = (Told::Moved("g"), Told::Moved("h"));
    for with_registration in [false, true] {
        let pair = |own: &Own<'_>| {
            let first = if with_registration { registered(own, "g") } else { moved(own, "g") };
            [first, moved(own, "h")]
        };
        table.both("moved", pair, &[there, back], &[back, there]);
        let [last_h, last_g] = table.last_two();
        (last_h.fields, last_g.fields) =
            (vec![("fleet", last_h.name("h"))], vec![("fleet", last_g.name("g"))]);
        (last_h.again, last_g.again) = (vec![there, back], vec![back, there]);
    }
}

/// Settings: of two the later in the log, whole. An interval shows by what becomes of
/// the next poll.
fn settings(table: &mut Table) {
    type Make = fn(&Own<'_>, Option<Duration>, Option<bool>) -> Said;
    let scopes: [(&str, Make); 2] = [
        ("device", |_, poll_interval, vpn_enabled| {
            Said::Life(Life::SettingsChanged(SettingsChanged { poll_interval, vpn_enabled }))
        }),
        ("fleet", |own, poll_interval, vpn_enabled| {
            let fleet = own.name("");
            let event = FleetSettingsChanged { fleet, poll_interval, vpn_enabled };
            Said::Life(Life::FleetSettingsChanged(event))
        }),
    ];
    for (scope, make) in scopes {
        let pair = |own: &Own<'_>| [make(own, seconds(2), None), make(own, seconds(3_600), None)];
        let lost = Told::Shows(Offline, Connectivity::None, PollOver);
        let found = Told::Shows(Online, HeartbeatOnly, PollOver);
        table.both(&format!("interval of the {scope}"), pair, &[], &[lost]);
        let [long, short] = table.last_two();
        (long.polls, short.polls) = (true, true);
        (long.again, short.again) = (vec![lost, found], vec![found, lost]);

        let pair = |own: &Own<'_>| [make(own, None, Some(false)), make(own, None, Some(true))];
        let (off, on) = (linked(Full), linked(HeartbeatOnly));
        table.both(&format!("VPN of the {scope}"), pair, &[off, on], &[off]);
        let [last_on, last_off] = table.last_two();
        (last_on.again, last_off.again) = (vec![off, on], vec![on, off]);

        // The second leaves out what the first sets.
        let pair =
            |own: &Own<'_>| [make(own, seconds(2), Some(false)), make(own, seconds(3_600), None)];
        let label = format!("interval and VPN of the {scope}");
        let lost = Told::Shows(Offline, Connectivity::None, PollOver);
        table.both(&label, pair, &[off, on], &[off, lost]);
        let [long, short] = table.last_two();
        (long.polls, short.polls) = (true, true);
        long.again = vec![lost, found];
        short.again = vec![found, lost];
    }
}

/// Sessions, and the instances that hold them.
fn sessions(table: &mut Table) {
    let opened = |session: &str, lease, own: &Own<'_>| {
        let (instance, session) = (own.name("vpn"), session.to_owned());
        Said::Vpn(Vpn::SessionOpened(SessionOpened { instance, session, opened_at: None, lease }))
    };
    let closed = |session: &str, opened_at: Option<i64>, own: &Own<'_>| {
        let (instance, session) = (own.name("vpn"), session.to_owned());
        let opened_at = opened_at.map(timestamp);
        Said::Vpn(Vpn::SessionClosed(SessionClosed { instance, session, opened_at }))
    };
    for session in ["s1", ""] {
        for lease in [None, seconds(3_600)] {
            let pair = |own: &Own<'_>| [opened(session, lease, own), closed(session, None, own)];
            let label = format!("session {session:?}");
            let (up, down) = (linked(Full), linked(HeartbeatOnly));
            table.both(&label, pair, &[up, down], &[up]);
            let before = |own: &Own<'_>| vec![opened(session, lease, own)];
            let base = (Online, Full);
            table.both_after(&label, before, base, pair, &[down], &[down, up]);
            // The end of the connection that this one takes over.
            let pair = |own: &Own<'_>| {
                [opened(session, lease, own), closed(session, Some(own.before_ms), own)]
            };
            // In the other order the old one is over before the new one is.
            let label = format!("session {session:?} is taken over");
            table.both_after(&label, before, base, pair, &[], &[down, up]);
        }
    }

    let alive = |own: &Own<'_>| {
        let (instance, lease) = (own.name("vpn"), seconds(3_600));
        Said::Vpn(Vpn::InstanceAlive(InstanceAlive { instance, started_at: None, lease }))
    };
    let lost =
        |own: &Own<'_>| Said::Vpn(Vpn::InstanceLost(InstanceLost { instance: own.name("vpn") }));
    let before = |own: &Own<'_>| vec![opened("s1", None, own)];
    let (base, down) = ((Online, Full), [linked(HeartbeatOnly)]);
    let pair = |own: &Own<'_>| [alive(own), lost(own)];
    table.both_after("instance", before, base, pair, &down, &down);
    // The loss wins, whichever is told first.
    let pair = |own: &Own<'_>| [opened("s1", None, own), lost(own)];
    let told = [linked(Full), linked(HeartbeatOnly)];
    table.both("session opened as its instance is lost", pair, &told, &[]);
    let pair = |own: &Own<'_>| [opened("s2", None, own), lost(own)];
    let label = "another session opened as its instance is lost";
    table.both_after(label, before, base, pair, &down, &down);
}

/// Polls: of two the later in the log, whole.
fn heartbeats(table: &mut Table) {
    let every = |interval| {
        let poll_interval = seconds(interval);
        Said::Beat(Heartbeat { poll_interval, ..Default::default() })
    };
    let pair = |_: &Own<'_>| [every(2), every(3_600)];
    let lost = Told::Shows(Offline, Connectivity::None, BeatOver);
    let found = Told::Shows(Online, HeartbeatOnly, BeatOver);
    table.both("heartbeat", pair, &[], &[lost]);
    let [long, short] = table.last_two();
    (long.again, short.again) = (vec![lost, found], vec![found, lost]);

    let going = Heartbeat { going_away: true, ..Default::default() };
    let pair = |_: &Own<'_>| [every(3_600), Said::Beat(going)];
    let (lost, found) = (
        Told::Shows(Offline, Connectivity::None, Batch),
        Told::Shows(Online, HeartbeatOnly, Batch),
    );
    table.both("last words", pair, &[lost], &[lost, found]);
    let [gone, there] = table.last_two();
    (gone.again, there.again) = (vec![found, lost], vec![lost, found]);
}
