//! Cold facts as bytes in memory. An absent fact takes only a bit, times are
//! differences to the previous one, and numbers take as many bytes as they need.
//! Only the process that wrote them reads them, so the format may change at any
//! time.

use std::sync::Arc;

use crate::shard::device::{Cold, Earlier, Membership, Session};
use crate::shard::event::{FrozenReason, Settings, Timestamp, UpdateOutcome, UpdatePhase};
use crate::shard::scope::Interned;
use crate::shard::snapshot::{Ended, Flag, FrozenRegisters, Opening, Register, ReleaseFacts, Tie};

/// The first time of a record is relative to this: 2026.
const EPOCH_MS: i64 = 1_767_225_600_000;

/// Each fact, in the order of the bytes, with its bits in the record's first
/// number, which say whether it is present. The usual facts have the bits of the
/// first byte.
macro_rules! packed {
    ($($bits:ident = $value:expr => $($path:ident).+,)*) => {
        $(const $bits: u64 = $value;)*
        const _: () = assert!(0 $(+ $bits)* == 0 $(| $bits)*, "no two facts share a bit");

        /// Appends a record to `out`.
        pub(super) fn encode(cold: &Cold, out: &mut Vec<u8>) {
            let held = 0 $(| Fact::held(&cold.$($path).+, $bits))*;
            let mut writer = Writer { out, last_ms: EPOCH_MS };
            writer.number(held);
            $(Fact::write(&cold.$($path).+, &mut writer);)*
        }

        /// Reads a whole record and ignores the bytes after it.
        pub(super) fn decode(bytes: &[u8]) -> Cold {
            let mut reader = Reader::new(bytes);
            let mut cold = Cold::default();
            $(cold.$($path).+ = reader.fact($bits);)*
            cold
        }
    };
}

packed! {
    // The facts that scans need come first.
    MEMBERSHIP = 1 => facts.membership,
    EARLIER_FLEETS = 1 << 30 => facts.earlier_fleets,
    REGISTERED = 1 << 1 => facts.registered,
    PREREGISTERED = 1 << 2 | 1 << 9 | 1 << 23 => facts.preregistered,
    PROVISIONED = 1 << 3 => facts.provisioned,
    SESSIONS = 1 << 4 => facts.sessions,
    OPENING = 1 << 5 => facts.last_vpn_opening,
    EARLIER = 1 << 6 | 1 << 7 => earlier,
    CLOSED = 1 << 8 => closed,
    FROZEN = 1 << 10 => facts.frozen,
    ACTIVE = 1 << 11 | 1 << 12 | 1 << 24 => facts.active,
    SETTINGS = 1 << 13 => facts.settings,
    EARLIER_SETTINGS = 1 << 31 => facts.earlier_settings,
    CONFIGURATION = 1 << 14 | 1 << 15 | 1 << 25 => facts.configuration.started,
    CONFIGURATION_PERCENT = 1 << 16 => facts.configuration.percent,
    CONFIGURATION_OUTCOME = 1 << 26 => facts.configuration.outcome,
    UPDATE_STARTED = 1 << 17 => facts.update.started,
    UPDATES = 1 << 18 => facts.update.releases,
    MEMBERSHIP_SINCE = 1 << 19 => membership_since,
    DELETED = 1 << 20 => facts.deleted,
    TOUCHED = 1 << 21 => facts.deletion_touched,
    TOUCHED_WRITTEN = 1 << 22 => deletion_touched_written,
    DELETION_TIE = 1 << 27 | 1 << 28 => facts.deletion_tie,
    DELETION_INTERVAL = 1 << 29 => facts.deletion_interval_s,
    OPENING_TOLD = 1 << 32 => facts.last_vpn_opening_told,
    UNWRITTEN_OPENINGS = 1 << 33 => unwritten_openings,
}

/// The fleet and organization of the device, without reading more of the record.
pub(super) fn belongs_to(bytes: &[u8]) -> Membership {
    let membership: Option<Register<Membership>> = Reader::new(bytes).fact(MEMBERSHIP);
    membership.map_or_else(Membership::default, |held| held.value)
}

/// Whether the device is in a fleet, or was by the known facts.
pub(super) fn was_in(bytes: &[u8], fleet: Interned) -> bool {
    let mut reader = Reader::new(bytes);
    let membership: Option<Register<Membership>> = reader.fact(MEMBERSHIP);
    let earlier: Vec<Register<Interned>> = reader.fact(EARLIER_FLEETS);
    membership.is_some_and(|held| held.value.fleet == fleet)
        || earlier.iter().any(|held| held.value == fleet)
}

/// Whether an open session is of this VPN instance.
pub(super) fn has_session_of(bytes: &[u8], instance: Interned) -> bool {
    let mut reader = Reader::new(bytes);
    if reader.held & SESSIONS == 0 {
        return false;
    }
    let _: Option<Register<Membership>> = reader.fact(MEMBERSHIP);
    let _: Vec<Register<Interned>> = reader.fact(EARLIER_FLEETS);
    let _: Option<Timestamp> = reader.fact(REGISTERED);
    let _: Option<Flag> = reader.fact(PREREGISTERED);
    let _: Option<Timestamp> = reader.fact(PROVISIONED);
    (0..u32::read(&mut reader)).any(|_| Session::read(&mut reader).instance == instance)
}

/// Whether a session, open or closed, names this VPN instance.
pub(super) fn names_instance(bytes: &[u8], instance: Interned) -> bool {
    match Reader::new(bytes).held & CLOSED {
        0 => has_session_of(bytes, instance),
        _ => decode(bytes).names_instance(instance),
    }
}

/// A fact that may be absent, with its own `bits`.
trait Fact: Default + PartialEq {
    /// The bits for the present parts.
    fn held(&self, bits: u64) -> u64 {
        if *self == Self::default() { 0 } else { bits }
    }
    /// Writes the present parts.
    fn write(&self, writer: &mut Writer<'_>);
    /// Reads a present fact.
    fn read(reader: &mut Reader<'_>, bits: u64) -> Self;
}

/// The parts of a fact.
trait Value: PartialEq {
    fn write(&self, writer: &mut Writer<'_>);
    fn read(reader: &mut Reader<'_>) -> Self;
}

impl<T: Value> Fact for Option<T> {
    fn write(&self, writer: &mut Writer<'_>) {
        if let Some(value) = self {
            value.write(writer);
        }
    }

    fn read(reader: &mut Reader<'_>, _bits: u64) -> Option<T> {
        Some(T::read(reader))
    }
}

/// Three bits: present; the value; more than value and time follows.
impl Fact for Option<Flag> {
    fn held(&self, bits: u64) -> u64 {
        let [is, value, more] = each(bits);
        self.map_or(0, |flag| {
            is | if flag.value { value } else { 0 } | if has_more(flag) { more } else { 0 }
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        if let Some(flag) = self {
            writer.time(flag.at);
            if has_more(*flag) {
                write_more(*flag, writer);
            }
        }
    }

    fn read(reader: &mut Reader<'_>, bits: u64) -> Option<Flag> {
        let [_, value, more] = each(bits).map(|bit| reader.held & bit != 0);
        let mut flag = Flag::new(reader.time(), value);
        if more {
            read_more(&mut flag, reader);
        }
        Some(flag)
    }
}

fn each(bits: u64) -> [u64; 3] {
    let first = lower(bits);
    let second = lower(bits & !first);
    [first, second, bits & !first & !second]
}

fn has_more(flag: Flag) -> bool {
    flag.both_seen || flag.other.is_some()
}

/// A byte, and the time of the other value if there is one.
fn write_more(flag: Flag, writer: &mut Writer<'_>) {
    writer.out.push(u8::from(flag.both_seen) | u8::from(flag.other.is_some()) << 1);
    flag.other.write(writer);
}

fn read_more(flag: &mut Flag, reader: &mut Reader<'_>) {
    let bits = reader.byte();
    flag.both_seen = bits & 1 != 0;
    flag.other = (bits & 2 != 0).then(|| reader.time());
}

/// Two bits, one for each of the two values.
impl Fact for Tie {
    fn held(&self, bits: u64) -> u64 {
        match self {
            Tie::None => 0,
            Tie::Began => lower(bits),
            Tie::Ended => bits & !lower(bits),
        }
    }

    fn write(&self, _writer: &mut Writer<'_>) {}

    fn read(reader: &mut Reader<'_>, bits: u64) -> Tie {
        if reader.held & lower(bits) != 0 { Tie::Began } else { Tie::Ended }
    }
}

/// Two bits: the lower for the status, the upper for the connectivity.
impl Fact for Option<Earlier> {
    fn held(&self, bits: u64) -> u64 {
        self.map_or(0, |earlier| match earlier {
            Earlier::Status(_) => lower(bits),
            Earlier::Connectivity(_) => bits & !lower(bits),
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        if let Some(Earlier::Status(at) | Earlier::Connectivity(at)) = self {
            writer.time(*at);
        }
    }

    fn read(reader: &mut Reader<'_>, bits: u64) -> Option<Earlier> {
        let status = reader.held & lower(bits) != 0;
        let earlier = if status { Earlier::Status } else { Earlier::Connectivity };
        Some(earlier(reader.time()))
    }
}

fn lower(bits: u64) -> u64 {
    bits & bits.wrapping_neg()
}

impl<T: Value> Fact for Vec<T> {
    fn write(&self, writer: &mut Writer<'_>) {
        if !self.is_empty() {
            writer.number(self.len() as u64);
            self.iter().for_each(|value| value.write(writer));
        }
    }

    fn read(reader: &mut Reader<'_>, _bits: u64) -> Vec<T> {
        (0..u32::read(reader)).map(|_| T::read(reader)).collect()
    }
}

/// One byte has the present registers, and in its upper half their values. The
/// next byte says which of them have more than that.
impl Fact for FrozenRegisters {
    fn write(&self, writer: &mut Writer<'_>) {
        let bits = |test: fn(&Flag) -> bool| {
            let set = |fact: &Option<Flag>| u8::from(fact.as_ref().is_some_and(test));
            self.iter().rev().fold(0, |bits, fact| bits << 1 | set(fact))
        };
        let held = bits(|_| true);
        if held != 0 {
            writer.out.push(held | bits(|fact| fact.value) << self.len());
            writer.out.push(bits(|fact| has_more(*fact)));
            for flag in self.iter().flatten() {
                writer.time(flag.at);
                if has_more(*flag) {
                    write_more(*flag, writer);
                }
            }
        }
    }

    fn read(reader: &mut Reader<'_>, _bits: u64) -> Self {
        let (bits, more) = (reader.byte(), reader.byte());
        FrozenReason::ALL.map(|reason| {
            let value = bits >> (FrozenReason::ALL.len() + reason.index()) & 1 == 1;
            let held = bits >> reason.index() & 1 == 1;
            held.then(|| {
                let mut flag = Flag::new(reader.time(), value);
                if more >> reason.index() & 1 == 1 {
                    read_more(&mut flag, reader);
                }
                flag
            })
        })
    }
}

impl<T: Value> Value for Register<T> {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.time(self.at);
        self.value.write(writer);
    }

    fn read(reader: &mut Reader<'_>) -> Register<T> {
        Register { at: reader.time(), value: T::read(reader) }
    }
}

impl Value for Timestamp {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.time(*self);
    }

    fn read(reader: &mut Reader<'_>) -> Timestamp {
        reader.time()
    }
}

impl Value for u8 {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.out.push(*self);
    }

    fn read(reader: &mut Reader<'_>) -> u8 {
        reader.byte()
    }
}

impl Value for u32 {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.number(u64::from(*self));
    }

    fn read(reader: &mut Reader<'_>) -> u32 {
        reader.number() as u32
    }
}

/// One more than the value, so that 0 is none.
impl Value for Option<u32> {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.number(self.map_or(0, |value| u64::from(value) + 1));
    }

    fn read(reader: &mut Reader<'_>) -> Option<u32> {
        reader.number().checked_sub(1).map(|value| value as u32)
    }
}

impl Value for Arc<str> {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.number(self.len() as u64);
        writer.out.extend_from_slice(self.as_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Arc<str> {
        let length = reader.number() as usize;
        reader.text(length)
    }
}

impl Value for Settings {
    fn write(&self, writer: &mut Writer<'_>) {
        Value::write(&self.poll_interval_s, writer);
        // One more than the value, so that 0 is none.
        writer.number(self.vpn_enabled.map_or(0, |enabled| u64::from(enabled) + 1));
    }

    fn read(reader: &mut Reader<'_>) -> Settings {
        Settings {
            poll_interval_s: Value::read(reader),
            vpn_enabled: reader.number().checked_sub(1).map(|enabled| enabled == 1),
        }
    }
}

/// One of a few values, by its index.
macro_rules! one_of {
    ($($type:ty)+) => {$(
        impl Value for $type {
            fn write(&self, writer: &mut Writer<'_>) {
                writer.out.push(*self as u8);
            }

            fn read(reader: &mut Reader<'_>) -> $type {
                let place = usize::from(reader.byte());
                <$type>::ALL[place.min(<$type>::ALL.len() - 1)]
            }
        }
    )+};
}

one_of!(UpdateOutcome UpdatePhase);

/// One byte has the present parts of a release.
impl Value for ReleaseFacts {
    fn write(&self, writer: &mut Writer<'_>) {
        let outcome = self.finished.and_then(|finished| finished.value);
        writer.out.push(
            u8::from(self.finished.is_some())
                | u8::from(outcome.is_some()) << 1
                | u8::from(self.percent.is_some()) << 2
                | u8::from(self.phase.is_some()) << 3
                | u8::from(self.tie == Tie::Began) << 4
                | u8::from(self.tie == Tie::Ended) << 5,
        );
        self.release.write(writer);
        self.finished.map(|finished| finished.at).write(writer);
        outcome.write(writer);
        self.percent.write(writer);
        self.phase.write(writer);
    }

    fn read(reader: &mut Reader<'_>) -> ReleaseFacts {
        let bits = reader.byte();
        let has = |bit: u8| bits >> bit & 1 == 1;
        let release = Value::read(reader);
        let finished_at = has(0).then(|| reader.time());
        let outcome = has(1).then(|| Value::read(reader));
        ReleaseFacts {
            release,
            finished: finished_at.map(|at| Register { at, value: outcome }),
            tie: match (has(4), has(5)) {
                (true, _) => Tie::Began,
                (_, true) => Tie::Ended,
                _ => Tie::None,
            },
            percent: has(2).then(|| Value::read(reader)),
            phase: has(3).then(|| Value::read(reader)),
        }
    }
}

/// The bits of a session with a single opening and no more.
const OPENED: u64 = 1;

/// One bit beside the length of the name says whether there is more than an
/// opening, which is rare. If so, a number has the parts.
impl Value for Session {
    fn write(&self, writer: &mut Writer<'_>) {
        let bits = [
            self.opening.is_some(),
            self.opening.is_some_and(|opening| opening.connected_at != opening.at),
            self.opening.is_some_and(|opening| opening.lease_ms.is_some()),
            self.opening.is_some_and(|opening| opening.counted_at != opening.at),
            self.began_at.is_some(),
            self.closed_at.is_some(),
            self.ended.is_some(),
            self.leased.is_some(),
            self.reopened,
        ];
        let held = bits.iter().rev().fold(0, |number, bit| number << 1 | u64::from(*bit));
        self.instance.write(writer);
        writer.number((self.session.len() as u64) << 1 | u64::from(held != OPENED));
        writer.out.extend_from_slice(self.session.as_bytes());
        if held != OPENED {
            writer.number(held);
        }
        if let Some(opening) = self.opening {
            writer.time(opening.at);
            Some(opening.connected_at).filter(|_| bits[1]).write(writer);
            Fact::write(&opening.lease_ms, writer);
            Some(opening.counted_at).filter(|_| bits[3]).write(writer);
        }
        self.began_at.write(writer);
        self.closed_at.write(writer);
        self.ended.write(writer);
        self.leased.write(writer);
    }

    fn read(reader: &mut Reader<'_>) -> Session {
        let instance = u32::read(reader);
        let length = reader.number();
        let name = reader.text((length >> 1) as usize);
        let bits = if length & 1 == 0 { OPENED } else { reader.number() };
        let mut session = Session::new(instance, name);
        let has = |place: u32| bits >> place & 1 == 1;
        session.opening = has(0).then(|| {
            let at = reader.time();
            let connected_at = if has(1) { reader.time() } else { at };
            let lease_ms = has(2).then(|| u32::read(reader));
            let counted_at = if has(3) { reader.time() } else { at };
            Opening { at, connected_at, counted_at, lease_ms }
        });
        session.began_at = has(4).then(|| reader.time());
        session.closed_at = has(5).then(|| reader.time());
        session.ended = has(6).then(|| Value::read(reader));
        session.leased = has(7).then(|| Value::read(reader));
        session.reopened = has(8);
        session
    }
}

/// Rare: the number has a bit for a lease.
impl Value for Opening {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.time(self.at);
        writer.time(self.connected_at);
        writer.time(self.counted_at);
        // One more than the lease, so that 0 is none.
        writer.number(self.lease_ms.map_or(0, |ms| u64::from(ms) + 1));
    }

    fn read(reader: &mut Reader<'_>) -> Opening {
        Opening {
            at: reader.time(),
            connected_at: reader.time(),
            counted_at: reader.time(),
            lease_ms: reader.number().checked_sub(1).map(|ms| ms as u32),
        }
    }
}

/// Values one after the other.
macro_rules! in_turn {
    ($type:ty: $($field:ident)+) => {
        impl Value for $type {
            fn write(&self, writer: &mut Writer<'_>) {
                $(self.$field.write(writer);)+
            }

            fn read(reader: &mut Reader<'_>) -> $type {
                Self { $($field: Value::read(reader)),+ }
            }
        }
    };
}

in_turn!(Membership: fleet organization);
in_turn!(Ended: until at);

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
        // Zigzag: small differences take few bytes in both directions.
        self.number(((difference << 1) ^ (difference >> 63)).cast_unsigned());
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    last_ms: i64,
    held: u64,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Reader<'a> {
        let mut reader = Reader { rest: bytes, last_ms: EPOCH_MS, held: 0 };
        reader.held = reader.number();
        reader
    }

    fn fact<T: Fact>(&mut self, bits: u64) -> T {
        if self.held & bits == 0 { T::default() } else { T::read(self, bits) }
    }

    /// The next bytes; none at the end of the record. A record never ends early.
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn text(&mut self, length: usize) -> Arc<str> {
        std::str::from_utf8(self.take(length)).unwrap_or_default().into()
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

    fn time(&mut self) -> Timestamp {
        let number = self.number();
        let difference = (number >> 1).cast_signed() ^ (number & 1).cast_signed().wrapping_neg();
        self.last_ms = self.last_ms.wrapping_add(difference);
        Timestamp(self.last_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;
    use crate::shard::snapshot::{ConfigurationFacts, DeviceFacts, UpdateFacts};
    use crate::shard::tests::strategies::{device_facts, session, time};

    fn cold() -> impl Strategy<Value = Cold> {
        let closed = prop::collection::vec(session(any::<u32>()), 0..4);
        let earlier =
            prop_oneof![time().prop_map(Earlier::Status), time().prop_map(Earlier::Connectivity)];
        let times = (of(time()), of(time()), of(time()));
        (device_facts(any::<u32>()), closed, of(earlier), times).prop_map(
            |(facts, closed, earlier, times)| Cold {
                facts,
                earlier,
                closed,
                membership_since: times.0,
                deletion_touched_written: times.1,
                unwritten_openings: times.2,
            },
        )
    }

    fn opened(instance: u32, name: &str, at: Timestamp) -> Session {
        let opening = Opening { at, connected_at: at, counted_at: at, lease_ms: None };
        Session { opening: Some(opening), ..Session::new(instance, name.into()) }
    }

    proptest! {
        #[test]
        fn facts_read_back_as_they_were(cold in cold(), instance in any::<u32>()) {
            let mut bytes = Vec::new();
            encode(&cold, &mut bytes);
            // Slots are larger than their contents.
            bytes.extend([0xff; 3]);
            prop_assert_eq!(belongs_to(&bytes), cold.belongs_to());
            let held = cold.facts.sessions.iter().map(|session| session.instance).collect::<Vec<_>>();
            for held in &held {
                prop_assert!(has_session_of(&bytes, *held));
            }
            prop_assert_eq!(has_session_of(&bytes, instance), held.contains(&instance));
            for held in cold.closed.iter().map(|session| session.instance).chain([instance]) {
                prop_assert_eq!(names_instance(&bytes, held), cold.names_instance(held));
            }
            prop_assert_eq!(decode(&bytes), cold);
        }
    }

    #[test]
    fn a_registered_device_with_a_session_takes_forty_bytes() {
        let at = |days: i64| Timestamp(EPOCH_MS + days * 86_400_000 + 1_234_567);
        let session = opened(300, "1869f-0", at(390));
        let facts = DeviceFacts {
            registered: Some(at(0)),
            preregistered: Some(Flag::new(at(0), false)),
            membership: Some(Register {
                at: at(0),
                value: Membership { fleet: 5_000, organization: 700 },
            }),
            provisioned: Some(at(30)),
            last_vpn_opening: Some(at(390)),
            sessions: vec![session],
            ..DeviceFacts::default()
        };
        let earlier = Some(Earlier::Status(Timestamp(at(390).0 - 900_000)));
        let cold = Cold { facts, earlier, ..Cold::default() };
        let mut bytes = Vec::new();
        encode(&cold, &mut bytes);
        assert!(bytes.len() <= 40, "{} bytes", bytes.len());
    }

    /// If a fact moves or takes more bytes, that must be a deliberate decision.
    #[test]
    #[allow(clippy::needless_update, reason = "a fact that comes later moves none of these")]
    fn every_fact_has_its_place() {
        fn at(ms: i64) -> Timestamp {
            Timestamp(EPOCH_MS + ms)
        }
        fn register<T>(ms: i64, value: T) -> Option<Register<T>> {
            Some(Register { at: at(ms), value })
        }
        fn flag(ms: i64, value: bool) -> Option<Flag> {
            Some(Flag::new(at(ms), value))
        }
        let with_more = |ms, value, other| {
            Some(Flag { both_seen: true, other: Some(at(other)), ..Flag::new(at(ms), value) })
        };
        let leased = Session {
            opening: Some(Opening {
                at: at(500),
                connected_at: at(490),
                counted_at: at(501),
                lease_ms: Some(60_000),
            }),
            leased: Some(Opening {
                at: at(480),
                connected_at: at(470),
                counted_at: at(502),
                lease_ms: None,
            }),
            began_at: Some(at(450)),
            closed_at: Some(at(500)),
            reopened: true,
            ended: Some(Ended { until: at(430), at: at(440) }),
            ..Session::new(301, "t".into())
        };
        let closed =
            |name: &str, ms| Session { closed_at: Some(at(ms)), ..Session::new(302, name.into()) };
        let settings = |poll_interval_s, vpn_enabled| Settings { poll_interval_s, vpn_enabled };
        let full = Cold {
            facts: DeviceFacts {
                last_vpn_opening: Some(at(500)),
                last_vpn_opening_told: Some(at(510)),
                sessions: vec![opened(300, "s", at(400)), leased],
                frozen: [flag(5, true), None, with_more(6, false, 4), flag(7, true)],
                active: with_more(80, false, 70),
                preregistered: flag(10, true),
                provisioned: Some(at(30)),
                registered: Some(at(20)),
                membership: register(10, Membership { fleet: 5_000, organization: 7 }),
                settings: register(40, settings(Some(900), Some(false))),
                configuration: ConfigurationFacts {
                    started: with_more(60, false, 50),
                    percent: register(55, 100),
                    outcome: Some(UpdateOutcome::Failed),
                },
                update: UpdateFacts {
                    started: register(100, "release-2".into()),
                    releases: vec![
                        ReleaseFacts { percent: register(110, 7), ..ReleaseFacts::default() },
                        ReleaseFacts {
                            release: "release-2".into(),
                            finished: register(120, Some(UpdateOutcome::Succeeded)),
                            tie: Tie::Ended,
                            percent: None,
                            phase: register(105, UpdatePhase::Applying),
                        },
                    ],
                },
                deleted: Some(at(-3)),
                deletion_tie: Tie::Began,
                deletion_interval_s: Some(900),
                deletion_touched: Some(at(600)),
                ..DeviceFacts::default()
            },
            earlier: Some(Earlier::Status(at(90))),
            membership_since: Some(at(8)),
            closed: vec![closed("", 1), closed("u", 300)],
            deletion_touched_written: Some(at(550)),
            unwritten_openings: Some(at(505)),
        };
        let other = Cold {
            facts: DeviceFacts {
                preregistered: flag(1, false),
                settings: register(2, settings(None, Some(true))),
                configuration: ConfigurationFacts {
                    percent: register(3, 0),
                    ..ConfigurationFacts::default()
                },
                ..DeviceFacts::default()
            },
            earlier: Some(Earlier::Connectivity(Timestamp(0))),
            ..Cold::default()
        };
        let hex = |cold: &Cold| -> String {
            let mut bytes = Vec::new();
            encode(cold, &mut bytes);
            bytes.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(
            hex(&full),
            "ffdefdfb321488270714132802ac020273e405ad020374ff03c80113e0d4031665648b01145013400003b306\
             02ae020120b101ae02037520d6049d04cd0402030306920103133b8507012803130a64015a0972656c6561\
             73652d3202040014072b0972656c656173652d3214001d02c10115b6096384074f09"
        );
        assert_eq!(hex(&other), "84c1040281a0d5edee6684a0d5edee6600020200");
    }

    #[test]
    fn empty_facts_take_one_byte_and_no_bytes_are_empty_facts() {
        let mut bytes = Vec::new();
        encode(&Cold::default(), &mut bytes);
        assert_eq!(bytes, [0]);
        assert_eq!(decode(&[]), Cold::default());
    }
}
