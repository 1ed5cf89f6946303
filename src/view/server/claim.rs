//! The ownership of the prefix (rule V8): a prefix belongs to one group. It is claimed
//! before the first write on a connection, and before a marker is taken.

use redis::Cmd;

use super::access::Access;
use super::link::Link;
use crate::config::Redis;
use crate::error::Fatal;
use crate::view::core::answer::{Answer, is_wrong_type, text};
use crate::view::core::keys::Keys;
use crate::view::core::layout::Layout;
pub use crate::view::core::owner::Group;
use crate::view::core::owner::{ForeignMarker, group_read, read_group};
use crate::view::core::partition::{CHECK_INTERVAL_MS, Place};
use crate::view::core::scripts::Script;

/// Markers are read in blocks of this many partitions, until a block is empty.
const PARTITIONS_BLOCK: i32 = 128;

/// How long the prefix must be without an owner before a waiting group claims it. The
/// former owner checks its markers more often than that, so after a flush it claims the
/// prefix again first.
const VACANT_MS: i64 = 2 * CHECK_INTERVAL_MS;

/// A group, and the marker that names it; `None`: the prefix's owner key.
type NamedGroup = (Option<(i32, Place)>, String);

/// Sends commands and collects the answers.
type Ask<'a> = &'a mut dyn FnMut(&[Cmd]) -> Result<Vec<Answer>, String>;

/// All groups that are named under the prefix, on every server: in the owner key, the
/// replica markers of partition 0, `also`, and the markers of all partitions.
fn named_groups(
    keys: &Keys,
    layout: &Layout,
    also: Option<(i32, Place)>,
    ask: Ask<'_>,
) -> Result<Vec<NamedGroup>, String> {
    let replica_markers =
        layout.replica_markers(keys, 0).into_iter().map(|number| Some((0, Some(number))));
    let mut places: Vec<Option<(i32, Place)>> = vec![None];
    places.extend(replica_markers);
    places.extend(also.map(Some));
    let mut first = 0;
    let mut found = Vec::new();
    loop {
        let before = places.len();
        places.extend((first..first + PARTITIONS_BLOCK).map(|partition| Some((partition, None))));
        let key = |place: &Option<(i32, Place)>| match *place {
            None => keys.owner(),
            Some((partition, place)) => keys.marker(partition, place),
        };
        let commands: Vec<Cmd> = places.iter().map(|place| read_group(&key(place))).collect();
        let mut more = false;
        for (i, (place, answer)) in places.drain(..).zip(ask(&commands)?).enumerate() {
            let (exists, group) = group_read(answer)?;
            more |= exists && i >= before;
            found.extend(group.map(|group| (place, group)));
        }
        if !more {
            return Ok(found);
        }
        first += PARTITIONS_BLOCK;
    }
}

/// The groups other than `ours` that are named under the prefix.
///
/// # Errors
/// When a server does not answer.
pub fn others_named(
    keys: &Keys,
    layout: &Layout,
    ours: &str,
    also: Option<(i32, Place)>,
    ask: Ask<'_>,
) -> Result<Vec<String>, String> {
    let found = named_groups(keys, layout, also, ask)?;
    Ok(found.into_iter().map(|(_, group)| group).filter(|group| group != ours).collect())
}

/// Claims the prefix for `ours`. Returns the name of another group that owns it, if
/// any. From the group `from` the prefix is taken over: its markers are removed, which
/// that group notices.
fn claim(
    keys: &Keys,
    layout: &Layout,
    (ours, from): (&str, Option<&str>),
    also: Option<(i32, Place)>,
    ask: Ask<'_>,
) -> Result<Option<String>, String> {
    let found = named_groups(keys, layout, also, ask)?;
    let other = found.iter().map(|(_, group)| group);
    if let Some(other) = other.into_iter().find(|g| *g != ours && Some(g.as_str()) != from) {
        return Ok(Some(other.clone()));
    }
    let mut command = Script::Claim.call(&keys.owner());
    command.arg(ours).arg(from.unwrap_or_default());
    let answer = ask(&[command])?.pop().ok_or("no answer")??;
    if let Some(other) = text(&answer).filter(|group| group != ours) {
        return Ok(Some(other));
    }
    let theirs = found.iter().filter(|(_, group)| group != ours);
    let evict = |marker: String| {
        let mut command = Script::Evict.call(&marker);
        command.arg(from.unwrap_or_default());
        command
    };
    let mut commands = Vec::new();
    for (partition, place) in theirs.filter_map(|(marker, _)| *marker) {
        commands.push(evict(keys.marker(partition, place)));
        let replica_markers = layout.replica_markers(keys, partition).into_iter();
        commands
            .extend(replica_markers.map(|number| evict(keys.replica_marker(partition, number))));
    }
    if !commands.is_empty() {
        for answer in ask(&commands)? {
            if let Err(message) = answer
                && !is_wrong_type(&message)
            {
                return Err(message);
            }
        }
        tracing::info!(group = ours, from, "took the view in Redis over from another group");
    }
    Ok(None)
}

/// Claims the prefix at the start. If the server is not available, the worker claims it
/// later.
///
/// # Errors
/// When the prefix belongs to another group, or the configuration is wrong.
pub fn claim_at_start(config: &Redis, group: &Group) -> Result<(), Fatal> {
    let access = Access::new(config)?;
    let shown_url = access.shown();
    let mut link = Link::new(access);
    if link.connect().is_err() {
        return Ok(());
    }
    let keys = Keys::new(&config.prefix);
    let mut gate = Gate::new(group.clone());
    match gate.pass(&mut link, &keys, None, 0) {
        Ok(Passage::Shut(other)) => {
            Err(Fatal::unavailable(of_another(&shown_url, &keys, &group.name, &other)))
        }
        Ok(Passage::Open) | Err(_) => Ok(()),
    }
}

/// The error message for a prefix that belongs to another group.
#[must_use]
pub fn of_another(shown_url: &str, keys: &Keys, ours: &str, other: &str) -> String {
    format!(
        "Redis at {shown_url}: the keys under {:?} belong to group {other:?}, and kafka.group is \
         {ours:?}. Set redis.prefix to a prefix that no other group uses. To take these keys over, \
         stop {other:?} and start `device-status run --take-view-from {other}`",
        keys.prefix()
    )
}

/// Whether a worker may write.
#[derive(Debug, PartialEq, Eq)]
pub enum Passage {
    /// The prefix belongs to our group.
    Open,
    /// It belongs to this other group.
    Shut(String),
}

/// Why nothing may be written.
struct Shut {
    foreign: ForeignMarker,
    /// When to check again.
    at_ms: i64,
    /// The last check found no owner.
    vacant: bool,
}

/// Prevents a worker from writing to another group's keys.
pub struct Gate {
    group: Group,
    /// The prefix was claimed on this connection.
    open: bool,
    /// Set while the prefix belongs to another group.
    shut: Option<Shut>,
    /// The prefix was claimed once: from then on nothing is taken over.
    passed: bool,
}

impl Gate {
    /// A gate before the first claim.
    #[must_use]
    pub fn new(group: Group) -> Gate {
        Gate { group, open: false, shut: None, passed: false }
    }

    /// A new connection: the prefix must be claimed again.
    pub fn connected(&mut self) {
        self.open = false;
    }

    /// Whether the prefix belongs to another group.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.shut.is_some()
    }

    /// While the prefix belongs to another group: the time until the next check.
    #[must_use]
    pub fn due_in_ms(&self, now_ms: i64) -> Option<i64> {
        self.shut.as_ref().map(|shut| (shut.at_ms - now_ms).max(0))
    }

    /// Whether the prefix must be claimed before anything is written. `doubt`: a marker
    /// of another group was found, or a marker is about to be taken.
    #[must_use]
    pub fn must_ask(&self, doubt: bool, now_ms: i64) -> bool {
        self.due_in_ms(now_ms).map_or(!self.open || doubt, |due_ms| due_ms == 0)
    }

    /// Claims the prefix.
    ///
    /// # Errors
    /// When a server did not answer, or refused.
    pub fn pass(
        &mut self,
        link: &mut Link,
        keys: &Keys,
        foreign: Option<ForeignMarker>,
        now_ms: i64,
    ) -> Result<Passage, String> {
        let Group { name, take_view_from, .. } = &self.group;
        let from = take_view_from.as_deref().filter(|_| !self.passed);
        let foreign = foreign.or_else(|| self.shut.as_ref().map(|shut| shut.foreign.clone()));
        let marker = foreign.as_ref().map(|foreign| foreign.marker);
        let layout = link.layout();
        let mut ask = |commands: &[Cmd]| link.exchange(commands);
        if let Some(shut) = self.shut.as_mut().filter(|shut| !shut.vacant)
            && others_named(keys, &layout, name, marker, &mut ask)?.is_empty()
        {
            // After a flush the former owner claims the prefix again.
            (shut.vacant, shut.at_ms) = (true, now_ms + VACANT_MS);
            return Ok(Passage::Shut(shut.foreign.group.clone()));
        }
        match claim(keys, &layout, (name, from), marker, &mut ask)? {
            None => {
                (self.open, self.passed, self.shut) = (true, true, None);
                Ok(Passage::Open)
            }
            Some(other) => {
                self.open = false;
                let marker = marker.unwrap_or((0, None));
                let foreign = ForeignMarker { group: other.clone(), marker };
                self.shut =
                    Some(Shut { foreign, at_ms: now_ms + CHECK_INTERVAL_MS, vacant: false });
                Ok(Passage::Shut(other))
            }
        }
    }
}
