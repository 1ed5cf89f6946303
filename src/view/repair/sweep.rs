//! The server's side of the sweep (rule V6): reads the hashes of a page and rewrites
//! those that differ from memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use redis::{Cmd, Value};

use crate::shard::{DeviceId, ViewBody, ViewWrite};
use crate::view::core::answer::{Answer, MarkerContent, is_wrong_type, other_group, pairs};
use crate::view::core::encode::Encoder;
use crate::view::core::keys::Token;
use crate::view::core::port::Server;
use crate::view::core::stats::SweepStats;
use crate::view::core::task::{Sweep, Task};

/// How a hash compares with the row in memory.
#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    /// It is equal.
    Same,
    /// Only its heartbeat is older.
    Stale,
    /// It differs.
    Wrong {
        /// Its token, if that is larger than all of ours: it must be replaced exactly.
        larger: Option<String>,
        /// Its token, if a writer of another partition shows the device.
        foreign: Option<Token>,
    },
    /// It was written after the page was taken.
    Newer,
}

/// A hash to be written again.
struct Difference<'a> {
    write: &'a ViewWrite,
    comparison: Comparison,
}

impl Difference<'_> {
    fn larger(&self) -> Option<&str> {
        match &self.comparison {
            Comparison::Wrong { larger, .. } => larger.as_deref(),
            _ => None,
        }
    }

    fn foreign(&self) -> Option<Token> {
        match &self.comparison {
            Comparison::Wrong { foreign, .. } => *foreign,
            _ => None,
        }
    }

    fn device(&self) -> Option<&DeviceId> {
        match &self.write.body {
            ViewBody::Device(row) => Some(&row.device),
            _ => None,
        }
    }
}

/// A device that the owners of two partitions have a row of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twofold {
    /// The device.
    pub device: DeviceId,
    /// The other partition.
    pub other: i32,
}

/// The result of a task.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The first device that was found on another partition too.
    pub twofold: Option<Twofold>,
    /// The marker may not be ours.
    pub doubt: bool,
    /// The server's first error.
    pub complaint: Option<String>,
}

impl Sweep {
    /// Runs the task.
    ///
    /// # Errors
    /// When the connection was lost.
    pub async fn run(
        self,
        encoder: &Encoder,
        server: &mut impl Server,
        stats: &SweepStats,
    ) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        match &self.task {
            Task::Compare(page) => self.compare(page, encoder, server, stats, &mut outcome).await?,
            Task::Remove(keys) => {
                let marker =
                    server.round_trip(&[encoder.read_marker(self.partition, None)]).await?;
                if self.is_ours(marker.first(), encoder, &mut outcome) {
                    let commands: Vec<Cmd> =
                        keys.iter().map(|key| encoder.remove(self.partition, key)).collect();
                    let answers = server.round_trip(&commands).await?;
                    count(&answers, stats, &mut outcome, |_| &stats.removed);
                }
            }
        }
        Ok(outcome)
    }

    async fn compare(
        &self,
        page: &[ViewWrite],
        encoder: &Encoder,
        server: &mut impl Server,
        stats: &SweepStats,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let mut commands = Vec::with_capacity(page.len() * 2);
        for write in page {
            let (hash, member) = encoder.look(self.partition, &write.body);
            commands.push(hash);
            commands.extend(member);
        }
        let mut answers = server.round_trip(&commands).await?.into_iter();
        let mut wrong = Vec::new();
        for write in page {
            let Some(hash) = answers.next() else { break };
            let of_set = encoder.keeps_members() && matches!(write.body, ViewBody::Device(_));
            let member = if of_set { answers.next() } else { None };
            let comparison = match hash {
                Err(message) if !is_wrong_type(&message) => {
                    add(&stats.failed);
                    outcome.complaint.get_or_insert(message);
                    continue;
                }
                hash => self.classify(write, hash.ok().as_ref(), member.as_ref()),
            };
            match comparison {
                Comparison::Same => add(&stats.same),
                Comparison::Newer => add(&stats.skipped),
                Comparison::Stale | Comparison::Wrong { .. } => {
                    wrong.push(Difference { write, comparison });
                }
            }
        }
        self.admit(&mut wrong, encoder, server, stats, outcome).await?;
        let commands: Vec<Cmd> = wrong
            .iter()
            .filter_map(|found| {
                encoder.repair(self.partition, self.epoch, found.write, found.larger())
            })
            .collect();
        if commands.is_empty() {
            return Ok(());
        }
        let answers = server.round_trip(&commands).await?;
        count(&answers, stats, outcome, |i| match wrong.get(i).map(|found| &found.comparison) {
            Some(Comparison::Stale) | None => &stats.refreshed,
            Some(_) => &stats.repaired,
        });
        Ok(())
    }

    /// Drops repairs whose hash has a larger token of a living owner. The markers are
    /// read after the tokens, and an owner takes its marker before it writes anything,
    /// so a living owner is always seen.
    async fn admit(
        &self,
        wrong: &mut Vec<Difference<'_>>,
        encoder: &Encoder,
        server: &mut impl Server,
        stats: &SweepStats,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let tokens = wrong.iter().flat_map(|found| {
            [found.foreign(), found.larger().and_then(Token::parse)].into_iter().flatten()
        });
        let mut partitions: BTreeSet<i32> = tokens.map(|token| token.partition).collect();
        if partitions.is_empty() {
            return Ok(());
        }
        partitions.insert(self.partition);
        let commands: Vec<Cmd> = partitions.iter().map(|p| encoder.read_marker(*p, None)).collect();
        let markers: BTreeMap<i32, Answer> =
            partitions.into_iter().zip(server.round_trip(&commands).await?).collect();
        let ours = self.is_ours(markers.get(&self.partition), encoder, outcome);
        let marker_of =
            |token: Token| markers.get(&token.partition).and_then(|marker| marker.as_ref().ok());
        let lives =
            |token: Token, marker: &Value| MarkerContent::read(marker).epoch() == Some(token.epoch);
        for found in &*wrong {
            if let (Some(token), Some(device)) = (found.foreign(), found.device())
                && let Some(marker) = marker_of(token)
                && lives(token, marker)
                && other_group(marker, encoder.group()).is_none()
            {
                add(&stats.twofold);
                let (device, other) = (device.clone(), token.partition);
                outcome.twofold.get_or_insert(Twofold { device, other });
            }
        }
        wrong.retain(|found| {
            let Some(token) = found.larger().and_then(Token::parse) else { return true };
            let marker = marker_of(token);
            let is_owner = |marker: &Value| {
                lives(token, marker) || other_group(marker, encoder.group()).is_some()
            };
            // Leave the living owner of another partition alone: if one device has a
            // row in two partitions, they would overwrite each other for ever.
            let theirs = token.partition != self.partition && marker.is_some_and(is_owner);
            let admitted = ours && !theirs;
            if !admitted {
                add(&stats.skipped);
            }
            admitted
        });
        Ok(())
    }

    fn is_ours(&self, marker: Option<&Answer>, encoder: &Encoder, outcome: &mut Outcome) -> bool {
        let marker = marker.and_then(|marker| marker.as_ref().ok());
        let ours = marker.is_some_and(|marker| {
            MarkerContent::read(marker).epoch() == Some(self.epoch)
                && other_group(marker, encoder.group()).is_none()
        });
        outcome.doubt |= !ours;
        ours
    }

    fn classify(
        &self,
        write: &ViewWrite,
        hash: Option<&Value>,
        member: Option<&Answer>,
    ) -> Comparison {
        const WRONG: Comparison = Comparison::Wrong { larger: None, foreign: None };
        let Some(mut held) = hash.and_then(pairs) else { return WRONG };
        let text = held.remove("token".as_bytes());
        let text = text.and_then(|text| std::str::from_utf8(text).ok());
        let Some(token) = text.and_then(Token::parse) else { return WRONG };
        let ours = token.partition == self.partition && token.epoch == self.epoch;
        if ours && token.sequence > write.sequence && token.sequence <= self.latest {
            return Comparison::Newer;
        }
        let larger = (token.epoch, token.sequence) > (self.epoch, self.latest);
        if larger || token.partition != self.partition {
            let is_shown = held.contains_key("status".as_bytes());
            let foreign = (token.partition != self.partition && is_shown).then_some(token);
            let larger = larger.then(|| text.unwrap_or_default().to_owned());
            return Comparison::Wrong { larger, foreign };
        }
        let expected = Encoder::fields(&write.body);
        let right = |(name, value): &(&str, std::borrow::Cow<'_, str>)| {
            held.get(name.as_bytes()).is_some_and(|held| *held == value.as_bytes())
        };
        let is_member = member.is_none_or(|member| matches!(member, Ok(Value::Int(1))));
        if held.len() != expected.len() || !is_member {
            return WRONG;
        }
        let mut differing = expected.iter().filter(|field| !right(field)).peekable();
        if differing.peek().is_none() {
            return Comparison::Same;
        }
        if differing.all(|(name, _)| matches!(*name, "heartbeat" | "heartbeat_ms")) {
            return Comparison::Stale;
        }
        WRONG
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Counts the answers to repairs and removals.
fn count<'a>(
    answers: &[Answer],
    stats: &'a SweepStats,
    outcome: &mut Outcome,
    done: impl Fn(usize) -> &'a AtomicU64,
) {
    for (i, answer) in answers.iter().enumerate() {
        match answer {
            Ok(Value::Int(0)) => add(&stats.skipped),
            Ok(_) => add(done(i)),
            Err(message) => {
                add(&stats.failed);
                outcome.complaint.get_or_insert_with(|| message.clone());
            }
        }
    }
}
