//! Cold facts as bytes, as they lie in memory: what is absent takes nothing but
//! a bit, times are differences to the one before, numbers take as many bytes
//! as they need. Read by the process that wrote it only, so its form may change
//! at will.

use crate::shard::device::{Closed, Cold, Earlier, Membership, Session};
use crate::shard::event::{FrozenReason, Settings, Timestamp};
use crate::shard::snapshot::{ProgressFacts, Register, SessionFingerprint};

/// From here the first time of a record is counted: 2026.
const EPOCH_MS: i64 = 1_767_225_600_000;

/// What a record holds; the usual ones come first, in one byte.
mod holds {
    pub const MEMBERSHIP: u32 = 1;
    pub const REGISTERED: u32 = 1 << 1;
    pub const PREREGISTERED: u32 = 1 << 2;
    pub const PROVISIONED: u32 = 1 << 3;
    pub const SESSIONS: u32 = 1 << 4;
    pub const OPENING: u32 = 1 << 5;
    pub const EARLIER_STATUS: u32 = 1 << 6;
    pub const EARLIER_CONNECTIVITY: u32 = 1 << 7;
    pub const CLOSED: u32 = 1 << 8;
    pub const PREREGISTERED_SET: u32 = 1 << 9;
    pub const FROZEN: u32 = 1 << 10;
    pub const ACTIVATED: u32 = 1 << 11;
    pub const DEACTIVATED: u32 = 1 << 12;
    pub const SETTINGS: u32 = 1 << 13;
    /// Of the configuration; those of the update are three bits further.
    pub const STARTED: u32 = 1 << 14;
    pub const FINISHED: u32 = 1 << 15;
    pub const PERCENT: u32 = 1 << 16;
    pub const UPDATE_SHIFT: u32 = 3;
    pub const DELETED: u32 = 1 << 20;
    pub const TOUCHED: u32 = 1 << 21;
    pub const TOUCHED_WRITTEN: u32 = 1 << 22;
}

/// Writes a record behind what `out` holds.
pub(in crate::shard) fn encode(cold: &Cold, out: &mut Vec<u8>) {
    let mut writer = Writer { out, last_ms: EPOCH_MS };
    writer.number(u64::from(what_it_holds(cold)));
    // What scans look for comes first.
    if let Some(membership) = &cold.membership {
        writer.time(membership.at);
        writer.number(u64::from(membership.value.fleet));
        writer.number(u64::from(membership.value.organization));
    }
    writer.time_if_any(cold.registered);
    writer.time_if_any(cold.preregistered.map(|fact| fact.at));
    writer.time_if_any(cold.provisioned);
    if !cold.sessions.is_empty() {
        writer.number(cold.sessions.len() as u64);
        for session in &cold.sessions {
            writer.number(u64::from(session.instance));
            writer.out.extend_from_slice(&session.fingerprint.0.to_le_bytes());
            writer.time(session.opened_at);
        }
    }
    writer.time_if_any(cold.last_vpn_opening);
    match cold.earlier {
        None => {}
        Some(Earlier::Status(at) | Earlier::Connectivity(at)) => writer.time(at),
    }
    if !cold.closed.is_empty() {
        writer.number(cold.closed.len() as u64);
        for closed in &cold.closed {
            writer.out.extend_from_slice(&closed.fingerprint.0.to_le_bytes());
            writer.time(closed.closed_at);
        }
    }
    if cold.frozen.iter().any(Option::is_some) {
        let held = bits(&cold.frozen, |fact| fact.is_some());
        let set = bits(&cold.frozen, |fact| fact.is_some_and(|fact| fact.value));
        writer.out.push(held | set << FrozenReason::ALL.len());
        for fact in cold.frozen.iter().flatten() {
            writer.time(fact.at);
        }
    }
    writer.time_if_any(cold.activated);
    writer.time_if_any(cold.deactivated);
    if let Some(settings) = &cold.settings {
        writer.time(settings.at);
        // One more than the value, so that 0 is none.
        writer.number(settings.value.poll_interval_ms.map_or(0, |ms| u64::from(ms) + 1));
        writer.number(settings.value.vpn_enabled.map_or(0, |enabled| u64::from(enabled) + 1));
    }
    for facts in [&cold.configuration, &cold.update] {
        if let Some(started) = &facts.started {
            writer.time(started.at);
            writer.number(started.value.len() as u64);
            writer.out.extend_from_slice(started.value.as_bytes());
        }
        writer.time_if_any(facts.finished);
        if let Some(percent) = facts.percent {
            writer.time(percent.at);
            writer.out.push(percent.value);
        }
    }
    writer.time_if_any(cold.deleted);
    writer.time_if_any(cold.deletion_touched);
    writer.time_if_any(cold.deletion_touched_written);
}

fn bits<T>(facts: &[T], test: impl Fn(&T) -> bool) -> u8 {
    facts.iter().enumerate().fold(0, |bits, (at, fact)| bits | u8::from(test(fact)) << at)
}

fn what_it_holds(cold: &Cold) -> u32 {
    let progress = |facts: &ProgressFacts| {
        flag(holds::STARTED, facts.started.is_some())
            | flag(holds::FINISHED, facts.finished.is_some())
            | flag(holds::PERCENT, facts.percent.is_some())
    };
    flag(holds::MEMBERSHIP, cold.membership.is_some())
        | flag(holds::REGISTERED, cold.registered.is_some())
        | flag(holds::PREREGISTERED, cold.preregistered.is_some())
        | flag(holds::PREREGISTERED_SET, cold.preregistered.is_some_and(|fact| fact.value))
        | flag(holds::PROVISIONED, cold.provisioned.is_some())
        | flag(holds::SESSIONS, !cold.sessions.is_empty())
        | flag(holds::OPENING, cold.last_vpn_opening.is_some())
        | flag(holds::EARLIER_STATUS, matches!(cold.earlier, Some(Earlier::Status(_))))
        | flag(holds::EARLIER_CONNECTIVITY, matches!(cold.earlier, Some(Earlier::Connectivity(_))))
        | flag(holds::CLOSED, !cold.closed.is_empty())
        | flag(holds::FROZEN, cold.frozen.iter().any(Option::is_some))
        | flag(holds::ACTIVATED, cold.activated.is_some())
        | flag(holds::DEACTIVATED, cold.deactivated.is_some())
        | flag(holds::SETTINGS, cold.settings.is_some())
        | progress(&cold.configuration)
        | progress(&cold.update) << holds::UPDATE_SHIFT
        | flag(holds::DELETED, cold.deleted.is_some())
        | flag(holds::TOUCHED, cold.deletion_touched.is_some())
        | flag(holds::TOUCHED_WRITTEN, cold.deletion_touched_written.is_some())
}

fn flag(bit: u32, set: bool) -> u32 {
    if set { bit } else { 0 }
}

/// Reads a whole record; what follows it is not looked at.
pub(in crate::shard) fn decode(bytes: &[u8]) -> Cold {
    let mut reader = Reader::new(bytes);
    let reader = &mut reader;
    let membership = reader.membership();
    let registered = reader.time_if(holds::REGISTERED);
    let preregistered = reader.time_if(holds::PREREGISTERED);
    let value = reader.has(holds::PREREGISTERED_SET);
    let preregistered = preregistered.map(|at| Register { at, value });
    let provisioned = reader.time_if(holds::PROVISIONED);
    let sessions = (0..reader.count_if(holds::SESSIONS)).map(|_| reader.session()).collect();
    let last_vpn_opening = reader.time_if(holds::OPENING);
    let status = reader.time_if(holds::EARLIER_STATUS).map(Earlier::Status);
    let earlier = status.or(reader.time_if(holds::EARLIER_CONNECTIVITY).map(Earlier::Connectivity));
    let closed = (0..reader.count_if(holds::CLOSED))
        .map(|_| Closed { fingerprint: reader.fingerprint(), closed_at: reader.time() })
        .collect();
    let frozen = reader.frozen();
    let activated = reader.time_if(holds::ACTIVATED);
    let deactivated = reader.time_if(holds::DEACTIVATED);
    let settings = reader.settings();
    Cold {
        last_vpn_opening,
        earlier,
        sessions,
        closed,
        frozen,
        deactivated,
        activated,
        preregistered,
        provisioned,
        registered,
        membership,
        settings,
        configuration: reader.progress(0),
        update: reader.progress(holds::UPDATE_SHIFT),
        deleted: reader.time_if(holds::DELETED),
        deletion_touched: reader.time_if(holds::TOUCHED),
        deletion_touched_written: reader.time_if(holds::TOUCHED_WRITTEN),
    }
}

/// Where the device belongs, by a record of which no more is read.
pub(in crate::shard) fn belongs_to(bytes: &[u8]) -> Membership {
    Reader::new(bytes).membership().map_or_else(Membership::default, |held| held.value)
}

/// Whether an open session is held by this VPN instance.
pub(in crate::shard) fn has_session_of(bytes: &[u8], instance: u32) -> bool {
    let mut reader = Reader::new(bytes);
    if !reader.has(holds::SESSIONS) {
        return false;
    }
    reader.membership();
    reader.time_if(holds::REGISTERED);
    reader.time_if(holds::PREREGISTERED);
    reader.time_if(holds::PROVISIONED);
    (0..reader.count_if(holds::SESSIONS)).any(|_| reader.session().instance == instance)
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    last_ms: i64,
}

impl Writer<'_> {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.out.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    fn time(&mut self, at: Timestamp) {
        let difference = at.0.wrapping_sub(self.last_ms);
        self.last_ms = at.0;
        // Small ones are small whichever way they go.
        self.number(((difference << 1) ^ (difference >> 63)).cast_unsigned());
    }

    fn time_if_any(&mut self, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.time(at);
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    last_ms: i64,
    held: u32,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Reader<'a> {
        let mut reader = Reader { rest: bytes, last_ms: EPOCH_MS, held: 0 };
        reader.held = reader.small();
        reader
    }

    fn has(&self, bit: u32) -> bool {
        self.held & bit != 0
    }

    /// The next bytes; none where the record ends, which it never does early.
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte();
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }

    fn small(&mut self) -> u32 {
        self.number() as u32
    }

    fn time(&mut self) -> Timestamp {
        let number = self.number();
        let difference = (number >> 1).cast_signed() ^ (number & 1).cast_signed().wrapping_neg();
        self.last_ms = self.last_ms.wrapping_add(difference);
        Timestamp(self.last_ms)
    }

    fn time_if(&mut self, bit: u32) -> Option<Timestamp> {
        self.has(bit).then(|| self.time())
    }

    fn count_if(&mut self, bit: u32) -> u32 {
        if self.has(bit) { self.small() } else { 0 }
    }

    fn fingerprint(&mut self) -> SessionFingerprint {
        let bytes = self.take(8).try_into().unwrap_or_default();
        SessionFingerprint(u64::from_le_bytes(bytes))
    }

    fn session(&mut self) -> Session {
        Session { instance: self.small(), fingerprint: self.fingerprint(), opened_at: self.time() }
    }

    fn membership(&mut self) -> Option<Register<Membership>> {
        let at = self.time_if(holds::MEMBERSHIP)?;
        let value = Membership { fleet: self.small(), organization: self.small() };
        Some(Register { at, value })
    }

    fn frozen(&mut self) -> [Option<Register<bool>>; FrozenReason::ALL.len()] {
        let bits = if self.has(holds::FROZEN) { self.byte() } else { 0 };
        FrozenReason::ALL.map(|reason| {
            let set = bits >> (FrozenReason::ALL.len() + reason.index()) & 1 == 1;
            let held = bits >> reason.index() & 1 == 1;
            held.then(|| Register { at: self.time(), value: set })
        })
    }

    fn settings(&mut self) -> Option<Register<Settings>> {
        let at = self.time_if(holds::SETTINGS)?;
        let interval = self.number().checked_sub(1).map(|ms| ms as u32);
        let vpn_enabled = self.number().checked_sub(1).map(|enabled| enabled == 1);
        Some(Register { at, value: Settings { poll_interval_ms: interval, vpn_enabled } })
    }

    fn progress(&mut self, shift: u32) -> ProgressFacts {
        let started = self.time_if(holds::STARTED << shift).map(|at| {
            let length = self.small() as usize;
            let value = std::str::from_utf8(self.take(length)).unwrap_or_default().into();
            Register { at, value }
        });
        let finished = self.time_if(holds::FINISHED << shift);
        let percent = self.time_if(holds::PERCENT << shift);
        let percent = percent.map(|at| Register { at, value: self.byte() });
        ProgressFacts { started, finished, percent }
    }
}

#[cfg(test)]
mod tests {
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    fn time() -> impl Strategy<Value = Timestamp> {
        prop_oneof![
            8 => 1_700_000_000_000..1_900_000_000_000_i64,
            1 => any::<i64>(),
            1 => Just(0_i64),
        ]
        .prop_map(Timestamp)
    }

    fn register<T: std::fmt::Debug>(
        value: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = Option<Register<T>>> {
        of((time(), value).prop_map(|(at, value)| Register { at, value }))
    }

    fn progress() -> impl Strategy<Value = ProgressFacts> {
        let release = ".{0,40}".prop_map(std::sync::Arc::from);
        (register(release), of(time()), register(any::<u8>()))
            .prop_map(|(started, finished, percent)| ProgressFacts { started, finished, percent })
    }

    fn fingerprint() -> impl Strategy<Value = SessionFingerprint> {
        any::<u64>().prop_map(SessionFingerprint)
    }

    fn cold() -> impl Strategy<Value = Cold> {
        let membership = (any::<u32>(), 0..5_u32)
            .prop_map(|(fleet, organization)| Membership { fleet, organization });
        let settings = (of(any::<u32>()), of(any::<bool>()))
            .prop_map(|(poll_interval_ms, vpn_enabled)| Settings { poll_interval_ms, vpn_enabled });
        let session =
            (any::<u32>(), fingerprint(), time()).prop_map(|(instance, fingerprint, opened_at)| {
                Session { instance, fingerprint, opened_at }
            });
        let closed = (fingerprint(), time())
            .prop_map(|(fingerprint, closed_at)| Closed { fingerprint, closed_at });
        let earlier = (any::<bool>(), time()).prop_map(|(status, at)| {
            if status { Earlier::Status(at) } else { Earlier::Connectivity(at) }
        });
        let times = prop::array::uniform8(of(time()));
        let sessions = (
            prop::collection::vec(session, 0..4),
            prop::collection::vec(closed, 0..4),
            of(earlier),
        );
        let frozen = prop::array::uniform4(register(any::<bool>()));
        let facts = (register(any::<bool>()), register(membership), register(settings));
        (times, sessions, frozen, facts, progress(), progress()).prop_map(
            |(times, (sessions, closed, earlier), frozen, facts, configuration, update)| {
                let (preregistered, membership, settings) = facts;
                Cold {
                    last_vpn_opening: times[0],
                    earlier,
                    sessions,
                    closed,
                    frozen,
                    deactivated: times[1],
                    activated: times[2],
                    preregistered,
                    provisioned: times[3],
                    registered: times[4],
                    membership,
                    settings,
                    configuration,
                    update,
                    deleted: times[5],
                    deletion_touched: times[6],
                    deletion_touched_written: times[7],
                }
            },
        )
    }

    proptest! {
        #[test]
        fn facts_read_back_as_they_were(cold in cold(), instance in any::<u32>()) {
            let mut bytes = Vec::new();
            encode(&cold, &mut bytes);
            // Slots are larger than what they hold.
            bytes.extend([0xff; 3]);
            prop_assert_eq!(belongs_to(&bytes), cold.belongs_to());
            let held = cold.sessions.iter().map(|session| session.instance).collect::<Vec<_>>();
            for held in &held {
                prop_assert!(has_session_of(&bytes, *held));
            }
            prop_assert_eq!(has_session_of(&bytes, instance), held.contains(&instance));
            prop_assert_eq!(decode(&bytes), cold);
        }
    }

    #[test]
    fn a_registered_device_with_a_session_takes_forty_bytes() {
        let at = |days: i64| Timestamp(EPOCH_MS + days * 86_400_000 + 1_234_567);
        let session = Session {
            instance: 300,
            fingerprint: SessionFingerprint(u64::MAX),
            opened_at: at(390),
        };
        let cold = Cold {
            registered: Some(at(0)),
            preregistered: Some(Register { at: at(0), value: false }),
            membership: Some(Register {
                at: at(0),
                value: Membership { fleet: 5_000, organization: 700 },
            }),
            provisioned: Some(at(30)),
            last_vpn_opening: Some(at(390)),
            sessions: vec![session],
            earlier: Some(Earlier::Status(Timestamp(at(390).0 - 900_000))),
            ..Cold::default()
        };
        let mut bytes = Vec::new();
        encode(&cold, &mut bytes);
        assert!(bytes.len() <= 40, "{} bytes", bytes.len());
    }

    #[test]
    fn nothing_known_takes_a_byte_and_no_bytes_are_nothing_known() {
        let mut bytes = Vec::new();
        encode(&Cold::default(), &mut bytes);
        assert_eq!(bytes, [0]);
        assert_eq!(decode(&[]), Cold::default());
    }
}
