//! What is found, for people and for programs. Nothing is judged here: each
//! verdict is the core's, and beside it stand the facts that it rests on.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::doubts::Doubted;
use super::kafka::Restored;
use super::{Origin, Subject};
use crate::cli::text::{Style, counted, length, moment, printable, with_age};
use crate::shard::snapshot::{
    ConfigurationFacts, Flag, FrozenRegisters, Membership, Register, UpdateFacts,
};
use crate::shard::{
    Connectivity, DeviceView, Explanation, FrozenReason, HeartbeatState, Input, IntervalOf,
    RuledOut, Rung, SessionExplained, Status, StatusChange, Timestamp, UpdateOutcome, UpdatePhase,
};
use crate::stream_thread::OpenTransaction;

/// A clock that is further behind the time of day than this is told of: it
/// follows within seconds where all is well, and is committed every few.
const BEHIND_MS: i64 = 60_000;

/// A rung, as it was asked.
struct Asked {
    rung: Rung,
    holds: bool,
    /// It is the first that holds.
    decides: bool,
    /// The facts.
    because: Vec<String>,
}

impl Subject<'_> {
    pub(super) fn text(&self, colour: bool) -> String {
        let style = Style { colour };
        let mut text = String::new();
        let name = printable(&self.device.to_string());
        let shown = match &self.view {
            Some(DeviceView { status, connectivity, .. }) => {
                let shown = status.display(*connectivity).to_owned();
                style.coloured(shown, Some((*status, *connectivity)))
            }
            None => style.faint("not shown"),
        };
        let _ = writeln!(text, "{name}  {shown}");
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:14}{}", printable(&value));
        };
        line(
            "at",
            match self.origin {
                Origin::History { .. } => moment(self.at.0),
                Origin::Kafka { now, .. } => with_age(self.at.0, now.0),
            },
        );
        if let Some(view) = &self.view {
            line("since", moment(view.since.0));
            let since = moment(view.connectivity_since.0);
            line("connectivity", format!("{}, since {since}", view.connectivity.wire_name()));
            if let Some(percent) = view.progress {
                line("progress", format!("{percent} %"));
            }
            if let Some(since) = view.update_since {
                let told = [
                    view.release.as_deref(),
                    view.update_phase.map(UpdatePhase::wire_name),
                    view.update_outcome.map(UpdateOutcome::wire_name),
                ];
                let told: Vec<&str> = told.into_iter().flatten().collect();
                let since = format!("since {}", moment(since.0));
                line("update", [told.join(", "), since].join(" ").trim().to_owned());
            }
        }
        if let Some(why) = &self.why {
            let since = self.view.as_ref().filter(|view| view.fleet.is_some());
            let since = since.map(|view| moment(view.membership_since.0));
            let since = since.map(|since| format!(", since {since}")).unwrap_or_default();
            line("fleet", belongs_to(why) + &since);
            line("heartbeat", heartbeat_in_short(why));
            line("vpn", vpn(why));
            for doubted in self.doubts() {
                line("doubts", doubted.text());
            }
        }
        match &self.origin {
            Origin::Kafka { restored, .. } => {
                line("partition", restored.partition.to_string());
                line("not read yet", unread(restored));
            }
            Origin::History { changes } if changes.is_empty() => text.push_str("  no changes\n"),
            Origin::History { changes } => {
                text.push_str("  changes\n");
                for change in changes {
                    let _ = writeln!(text, "    {}", change_line(change, style));
                }
            }
        }
        if self.view.is_none() {
            let _ = writeln!(text, "  not shown: {}", printable(&self.why_not_shown()));
        } else {
            self.rungs_text(&mut text, style);
        }
        for note in self.notes() {
            let _ = writeln!(text, "  note: {note}");
        }
        text
    }

    fn rungs_text(&self, text: &mut String, style: Style) {
        text.push_str("  why: the first that holds\n");
        for (number, asked) in (1..).zip(self.asked()) {
            let verdict = match (asked.decides, asked.holds) {
                (true, _) => "yes",
                (false, true) => "(yes)",
                (false, false) => "no",
            };
            let what = rung_words(asked.rung).1;
            let head =
                format!("{verdict:<7}{number} {what} -> {}", asked.rung.status().wire_name());
            let head = if asked.decides { style.strong(&head) } else { head };
            let _ = writeln!(text, "    {head}");
            for fact in &asked.because {
                let fact = style.faint(&printable(fact));
                let _ = writeln!(text, "             {fact}");
            }
        }
    }

    /// What of it came with a wrong clock.
    fn doubts(&self) -> Vec<Doubted> {
        let doubts = |why| self.arrivals.doubts(self.shard, self.device, why);
        self.why.as_ref().map(doubts).unwrap_or_default()
    }

    /// What makes the service's knowledge less than it might be.
    fn notes(&self) -> Vec<String> {
        let Origin::Kafka { restored, now } = self.origin else { return Vec::new() };
        let mut notes = Vec::new();
        let behind_ms = now.0.saturating_sub(self.shard.clock().0);
        if behind_ms > BEHIND_MS {
            notes.push(format!(
                "the service has come to {} only: it is stopped, behind, or cannot read an input",
                with_age(self.shard.clock().0, now.0)
            ));
        }
        for (input, OpenTransaction { offset, since, .. }) in &restored.open {
            notes.push(format!(
                "a producer's transaction is open on {}, partition {}, at least since {}, from \
                 offset {offset}: records behind it cannot be read, and no device of this \
                 partition goes Offline. Find it with kafka-transactions.sh find-hanging and \
                 abort it",
                input.name(),
                restored.partition,
                with_age(since.0, now.0),
            ));
        }
        if !restored.other_partitions.is_empty() {
            let others: Vec<String> =
                restored.other_partitions.iter().map(ToString::to_string).collect();
            notes.push(format!(
                "the device has a row in partition {} too: its events are on two partitions, and \
                 each row knows a part of them. Give all producers the same partitioner, then \
                 delete and register the device again",
                others.join(", "),
            ));
        }
        if restored.other_rules {
            notes.push(
                "the service runs with other heartbeat.* settings than this configuration, by \
                 which all this is told"
                    .to_owned(),
            );
        }
        notes
    }

    pub(super) fn json(&self) -> Value {
        let view = self.view.as_ref();
        let rungs: Vec<Value> = self
            .asked()
            .into_iter()
            .map(|asked| {
                json!({
                    "rung": rung_words(asked.rung).0,
                    "status": asked.rung.status().wire_name(),
                    "holds": asked.holds,
                    "decides": asked.decides,
                    "because": asked.because,
                })
            })
            .collect();
        let why = self.why.as_ref();
        let belongs_to = why.and_then(|why| why.facts.membership.as_ref());
        let mut told = json!({
            "device": self.device.to_string(),
            "at_ms": self.at.0,
            "status": view.map(|view| view.status.wire_name()),
            "connectivity": view.map(|view| view.connectivity.wire_name()),
            "display": view.map(|view| view.status.display(view.connectivity)),
            "since_ms": view.map(|view| view.since.0),
            "connectivity_since_ms": view.map(|view| view.connectivity_since.0),
            "progress": view.and_then(|view| view.progress),
            "release": view.and_then(|view| view.release.as_deref()),
            "update_phase": view.and_then(|view| view.update_phase.map(UpdatePhase::wire_name)),
            "update_outcome":
                view.and_then(|view| view.update_outcome.map(UpdateOutcome::wire_name)),
            "update_since_ms": view.and_then(|view| view.update_since.map(|at| at.0)),
            "membership_since_ms": view.map(|view| view.membership_since.0),
            "version": view.map(|view| view.version),
            "fleet": belongs_to.and_then(|held| if_any(&held.value.fleet)),
            "organization": belongs_to.and_then(|held| if_any(&held.value.organization)),
            "heartbeat": why.map(heartbeat_json),
            "vpn": why.map(|why| json!({
                "up": why.ladder.vpn_connected,
                "disabled": why.ladder.vpn_disabled,
                "sessions": why.sessions.iter().map(session_json).collect::<Vec<_>>(),
            })),
            "doubts": self.doubts().iter().map(Doubted::json).collect::<Vec<_>>(),
            "not_shown": view.is_none().then(|| self.why_not_shown()),
            "rungs": rungs,
        });
        match &self.origin {
            Origin::History { changes } => {
                told["changes"] = changes.iter().map(|change| change_json(change)).collect();
            }
            Origin::Kafka { restored, .. } => {
                let of = |input: Input| restored.unread.records[input.index()];
                told["partition"] = restored.partition.into();
                told["clock_ms"] = self.shard.clock().0.into();
                told["unread"] = Input::ALL
                    .map(|input| (input.name().to_owned(), Value::from(of(input))))
                    .into_iter()
                    .collect();
                told["unread_of_device"] = restored.unread.of_device.into();
                told["notes"] = self.notes().into();
            }
        }
        told
    }

    /// Every rung, by the core's ladder, with its facts; none for a device that
    /// is not shown.
    fn asked(&self) -> Vec<Asked> {
        let (Some(why), Some(_)) = (&self.why, &self.view) else { return Vec::new() };
        let mut decided = false;
        let asked = why.ladder.rungs().map(|(rung, holds)| {
            let decides = holds && !decided;
            decided |= holds;
            Asked { rung, holds, decides, because: self.because(rung, why) }
        });
        asked.collect()
    }

    /// The facts that a rung rests on.
    fn because(&self, rung: Rung, why: &Explanation) -> Vec<String> {
        let facts = &why.facts;
        match rung {
            Rung::Frozen => self.freezes(why),
            Rung::Inactive => {
                let mut because = Vec::new();
                if let Some(fact) = &facts.preregistered {
                    let done = if fact.value { "preregistered" } else { "registered" };
                    because.push(format!("{done} {}", moment(fact.at.0)));
                }
                let active = facts.active;
                let deactivated = active.and_then(|active| active.last(false));
                because.extend(deactivated.map(|at| format!("deactivated {}", moment(at.0))));
                if because.is_empty() {
                    return vec!["never preregistered or deactivated".to_owned()];
                }
                let activated = active.and_then(|active| active.last(true));
                because.extend(activated.map(|at| format!("activated {}", moment(at.0))));
                because.push(last_contact(why));
                because
            }
            Rung::PostProvisioning => match facts.provisioned {
                None => vec!["never provisioned".to_owned()],
                Some(at) => vec![format!("provisioned {}", moment(at.0)), last_contact(why)],
            },
            Rung::NeverSeen => vec![last_contact(why)],
            Rung::Offline => {
                let mut because = vec![format!("heartbeat {}", self.heartbeat(why))];
                if !why.sessions.iter().any(|explained| explained.session.is_open()) {
                    because.push("no VPN session is open".to_owned());
                }
                because.extend(why.sessions.iter().map(session_line));
                because
            }
            Rung::Configuring => configuration(&facts.configuration),
            Rung::Updating => {
                let mut because = update(&facts.update);
                if facts.update.started.is_some() {
                    because.push(format!("heartbeat {}", why.ladder.heartbeat.wire_name()));
                }
                because
            }
            Rung::Online => Vec::new(),
        }
    }

    fn freezes(&self, why: &Explanation) -> Vec<String> {
        let Membership { fleet, organization } =
            why.facts.membership.as_ref().map(|fact| fact.value.clone()).unwrap_or_default();
        let mut because = freezes("the device", &why.facts.frozen);
        if let Some(name) = if_any(&fleet)
            && let Some(facts) = self.shard.fleet(name)
        {
            because.extend(freezes(&format!("fleet {name}"), &facts.frozen));
        }
        if let Some(name) = if_any(&organization)
            && let Some(facts) = self.shard.organization(name)
        {
            because.extend(freezes(&format!("organization {name}"), &facts.frozen));
        }
        if because.is_empty() {
            because.push("nothing was ever frozen".to_owned());
        }
        because
    }

    /// How the last heartbeat stands, by which interval, until when.
    fn heartbeat(&self, why: &Explanation) -> String {
        let state = why.ladder.heartbeat;
        let (Some(last), Some((timeout, expiry))) = (&why.heartbeat, why.deadlines) else {
            return format!("{}: none so far", state.wire_name());
        };
        let (interval_ms, whose) = why.interval;
        let least = match interval_ms < self.rules.minimum_ms {
            true => format!(", counted as {}", length(self.rules.minimum_ms)),
            false => String::new(),
        };
        let (online, offline) = match state {
            HeartbeatState::Online => ("online until", "offline from"),
            HeartbeatState::Timeout => ("was online until", "offline from"),
            HeartbeatState::Offline | HeartbeatState::Unknown => {
                ("was online until", "offline since")
            }
        };
        format!(
            "{}: last {}, every {} ({}{least}), {online} {}, {offline} {}",
            state.wire_name(),
            moment(last.at.0),
            length(interval_ms),
            interval_of(whose).1,
            moment(timeout.0),
            moment(expiry.0),
        )
    }

    fn why_not_shown(&self) -> String {
        let Some(why) = &self.why else {
            return "nothing is known of it at this time".to_owned();
        };
        match (why.facts.deleted, why.facts.registered) {
            (Some(deleted), None) => {
                format!("deleted {}, and not registered since", moment(deleted.0))
            }
            _ => "it was never registered, provisioned or in contact".to_owned(),
        }
    }
}

/// What the service has not read yet, in a line.
fn unread(restored: &Restored) -> String {
    let unread = &restored.unread;
    let all: u64 = unread.records.iter().sum();
    if all == 0 {
        return "nothing".to_owned();
    }
    let each: Vec<String> = std::iter::zip(Input::ALL, unread.records)
        .filter(|(_, count)| *count > 0)
        .map(|(input, count)| format!("{} {count}", input.name()))
        .collect();
    let own = unread.of_device;
    let records = counted(all, "record");
    format!("{records} of its partition ({}), {own} of its own", each.join(", "))
}

fn heartbeat_in_short(why: &Explanation) -> String {
    let state = why.ladder.heartbeat.wire_name();
    match &why.heartbeat {
        Some(heartbeat) => format!("{state}, last {}", moment(heartbeat.at.0)),
        None => state.to_owned(),
    }
}

/// What a rung is called, and what it asks.
fn rung_words(rung: Rung) -> (&'static str, &'static str) {
    match rung {
        Rung::Frozen => ("frozen", "frozen: the device, its fleet or its organization"),
        Rung::Inactive => {
            ("inactive", "deactivated and no contact since, or preregistered and never in contact")
        }
        Rung::PostProvisioning => ("post-provisioning", "provisioned, no contact since"),
        Rung::NeverSeen => ("never-seen", "never any contact"),
        Rung::Offline => ("offline", "no VPN session counts, and no heartbeat"),
        Rung::Configuring => ("configuring", "OS configuration in progress"),
        Rung::Updating => ("updating", "update in progress, and a heartbeat"),
        Rung::Online => ("online", "otherwise"),
    }
}

fn freezes(scope: &str, registers: &FrozenRegisters) -> Vec<String> {
    let all = std::iter::zip(FrozenReason::ALL, registers);
    let known = all.filter_map(|(reason, fact)| Some((reason, (*fact)?)));
    let line = |(reason, fact): (FrozenReason, Flag)| {
        let reason = match reason {
            FrozenReason::Allowance => "allowance",
            FrozenReason::PaidApplicationType => "paid application type",
            FrozenReason::OverdueInvoices => "overdue invoices",
            FrozenReason::Other => "other reason",
        };
        let done = if fact.value { "frozen since" } else { "lifted" };
        format!("{scope}: {reason}, {done} {}", moment(fact.at.0))
    };
    known.map(line).collect()
}

fn last_contact(why: &Explanation) -> String {
    match why.last_contact {
        Some(at) => format!("last contact {}", moment(at.0)),
        None => "no contact so far".to_owned(),
    }
}

fn configuration(facts: &ConfigurationFacts) -> Vec<String> {
    let started = facts.started.and_then(|state| state.last(true));
    let finished = facts.finished().map(|at| finished(at, facts.outcome, ""));
    let Some(started) = started else {
        let finished = finished.map(|finished| finished + ", ").unwrap_or_default();
        return vec![format!("{finished}never started")];
    };
    let finished = finished.unwrap_or_else(|| "not finished".to_owned());
    vec![format!("started {}", moment(started.0)), finished]
}

/// What was started last, and each finish that is remembered: also those of other
/// releases, which end nothing.
fn update(facts: &UpdateFacts) -> Vec<String> {
    let mut because = vec![match &facts.started {
        Some(started) => {
            let release = if_any(&started.value).map(|release| format!(" to {release}"));
            format!("started{} {}", release.unwrap_or_default(), moment(started.at.0))
        }
        None => "never started".to_owned(),
    }];
    let ends = facts.releases.iter().filter_map(|held| {
        let Register { at, value } = held.finished?;
        Some(finished(at, value, &held.release))
    });
    because.extend(ends);
    if facts.started.is_some() && because.len() == 1 {
        because.push("not finished".to_owned());
    }
    because.extend(facts.phase().map(|phase| format!("phase {}", phase.wire_name())));
    because
}

fn finished(at: Timestamp, outcome: Option<UpdateOutcome>, release: &str) -> String {
    let release = if_any(release).map(|release| format!(" {release}")).unwrap_or_default();
    let outcome = outcome.map(|outcome| format!(", {}", outcome.wire_name())).unwrap_or_default();
    format!("finished{release} {}{outcome}", moment(at.0))
}

fn belongs_to(why: &Explanation) -> String {
    let Some(fact) = &why.facts.membership else { return "-".to_owned() };
    let Membership { fleet, organization } = &fact.value;
    let fleet = if_any(fleet).unwrap_or("-");
    match if_any(organization) {
        Some(organization) => format!("{fleet}, of organization {organization}"),
        None => fleet.to_owned(),
    }
}

/// The name, unless it is the empty one: none.
fn if_any(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

fn vpn(why: &Explanation) -> String {
    let up = if why.ladder.vpn_connected { "up" } else { "down" };
    let disabled = if why.ladder.vpn_disabled { ", disabled by setting" } else { "" };
    format!("{up}{disabled}")
}

fn session_line(explained: &SessionExplained) -> String {
    let session = &explained.session;
    let name = if_any(&session.session).map_or("without a name".to_owned(), str::to_owned);
    let mut line = format!("VPN session {name} on {}", session.instance);
    match (session.opening, session.began_at()) {
        (Some(opening), Some(began_at)) => {
            let _ = write!(line, ", opened {}", moment(began_at.0));
            if opening.at != began_at {
                let _ = write!(line, ", told of {}", moment(opening.at.0));
            }
        }
        _ => line.push_str(", its opening unknown"),
    }
    let why = match explained.ruled_out {
        None => {
            let mut until = Vec::new();
            until.extend(session.lease_end().map(|at| format!("its lease ends {}", moment(at.0))));
            until.extend(
                explained
                    .instance_lease_end
                    .map(|at| format!("the lease of {} ends {}", session.instance, moment(at.0))),
            );
            let until = until.join(", ");
            let until = if_any(&until).map_or(String::new(), |until| format!(" ({until})"));
            return line + ", counts" + &until;
        }
        Some(RuledOut::Closed(at)) => format!("closed {}", moment(at.0)),
        Some(RuledOut::Lost(at)) => format!("{} was lost {}", session.instance, moment(at.0)),
        Some(RuledOut::Started(at)) => format!("{} was started {}", session.instance, moment(at.0)),
        Some(RuledOut::LeaseEnded(at)) => format!("its lease ended {}", moment(at.0)),
        Some(RuledOut::InstanceLeaseEnded(at)) => {
            format!("the lease of {} ended {}", session.instance, moment(at.0))
        }
    };
    line + ", does not count: " + &why
}

/// Whose interval it is, for programs and for people.
fn interval_of(whose: IntervalOf) -> (&'static str, &'static str) {
    match whose {
        IntervalOf::Heartbeat => ("heartbeat", "as it said"),
        IntervalOf::Device => ("device", "the device's setting"),
        IntervalOf::Fleet => ("fleet", "the fleet's setting"),
        IntervalOf::Default => ("default", "the default"),
    }
}

fn names(shown: Option<(Status, Connectivity)>) -> String {
    match shown {
        Some((status, connectivity)) => {
            format!("{} {}", status.wire_name(), connectivity.wire_name())
        }
        None => "deleted".to_owned(),
    }
}

/// The instant of what changed: the status, if it did, else the connectivity.
fn changed_at(change: &StatusChange) -> Timestamp {
    let status = |shown: Option<(Status, Connectivity)>| shown.map(|(status, _)| status);
    match status(change.previous) == status(change.current) {
        true => change.connectivity_since,
        false => change.since,
    }
}

pub(in crate::cli) fn change_line(change: &StatusChange, style: Style) -> String {
    let mut line = format!(
        "{:<4}{}  {} {}",
        change.version,
        moment(changed_at(change).0),
        style.coloured(format!("{:<28}", names(change.current)), change.current),
        change.cause.name(),
    );
    let links = |shown: Option<(Status, Connectivity)>| shown.map(|(_, links)| links);
    if links(change.previous) != links(change.current)
        && change.connectivity_since != changed_at(change)
        && change.current.is_some()
    {
        let _ = write!(line, " (connectivity since {})", moment(change.connectivity_since.0));
    }
    line
}

pub(in crate::cli) fn change_json(change: &StatusChange) -> Value {
    let pair = |shown: Option<(Status, Connectivity)>| {
        shown.map(|(status, connectivity)| {
            json!({ "status": status.wire_name(), "connectivity": connectivity.wire_name() })
        })
    };
    json!({
        "version": change.version,
        "previous": pair(change.previous),
        "current": pair(change.current),
        "since_ms": change.since.0,
        "connectivity_since_ms": change.connectivity_since.0,
        "cause": change.cause.name(),
        "vpn_instance": change.vpn_instance.as_deref(),
    })
}

fn heartbeat_json(why: &Explanation) -> Value {
    let last = why.heartbeat.as_ref().map(|heartbeat| heartbeat.at.0);
    json!({
        "state": why.ladder.heartbeat.wire_name(),
        "last_ms": last,
        "poll_interval_ms": why.interval.0,
        "poll_interval_of": interval_of(why.interval.1).0,
        "timeout_ms": why.deadlines.map(|(timeout, _)| timeout.0),
        "offline_ms": why.deadlines.map(|(_, expiry)| expiry.0),
    })
}

fn session_json(explained: &SessionExplained) -> Value {
    let session = &explained.session;
    let (why, at) = match explained.ruled_out {
        None => (None, None),
        Some(RuledOut::Closed(at)) => (Some("closed"), Some(at)),
        Some(RuledOut::Lost(at)) => (Some("instance-lost"), Some(at)),
        Some(RuledOut::Started(at)) => (Some("instance-started"), Some(at)),
        Some(RuledOut::LeaseEnded(at)) => (Some("lease-ended"), Some(at)),
        Some(RuledOut::InstanceLeaseEnded(at)) => (Some("instance-lease-ended"), Some(at)),
    };
    json!({
        "instance": &*session.instance,
        "session": &*session.session,
        "opened_ms": session.began_at().map(|at| at.0),
        "told_ms": session.opened_at().map(|at| at.0),
        "counts": explained.ruled_out.is_none(),
        "ruled_out": why,
        "ruled_out_ms": at.map(|at| at.0),
        "lease_end_ms": explained.instance_lease_end.map(|at| at.0),
        "instance_lost_ms": explained.instance_lost.map(|at| at.0),
        "instance_started_ms": explained.instance_started.map(|at| at.0),
        "session_lease_end_ms": session.lease_end().map(|at| at.0),
    })
}
