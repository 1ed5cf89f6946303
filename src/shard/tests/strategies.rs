//! What facts may be, for the properties of all that stores them.

use std::fmt::Debug;
use std::sync::Arc;

use proptest::option::of;
use proptest::prelude::*;

use crate::shard::snapshot::{
    ConfigurationFacts, DeviceFacts, Flag, FrozenRegisters, Membership, Register, ReleaseFacts,
    Session, SessionFingerprint, Tie, UpdateFacts,
};
use crate::shard::{Settings, Timestamp, UpdateOutcome, UpdatePhase};

/// Times as they are, and as nobody expects them.
pub(crate) fn time() -> BoxedStrategy<Timestamp> {
    let usual = 1_700_000_000_000..1_900_000_000_000_i64;
    prop_oneof![8 => usual, 1 => any::<i64>(), 1 => Just(0)].prop_map(Timestamp).boxed()
}

pub(crate) fn register<T: Debug + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Option<Register<T>>> {
    of((time(), value).prop_map(|(at, value)| Register { at, value })).boxed()
}

pub(crate) fn name() -> impl Strategy<Value = Arc<str>> + Clone {
    "\\PC{0,40}".prop_map(Arc::from)
}

pub(crate) fn fingerprint() -> impl Strategy<Value = SessionFingerprint> {
    any::<u64>().prop_map(SessionFingerprint)
}

pub(crate) fn settings() -> impl Strategy<Value = Settings> {
    any::<(Option<u32>, Option<bool>)>()
        .prop_map(|(poll_interval_s, vpn_enabled)| Settings { poll_interval_s, vpn_enabled })
}

pub(crate) fn frozen() -> impl Strategy<Value = FrozenRegisters> {
    prop::array::uniform4(flag())
}

/// The other value was held at another time.
pub(crate) fn flag() -> BoxedStrategy<Option<Flag>> {
    let before = of(1..100_000_i64);
    of((time(), any::<bool>(), any::<bool>(), before).prop_map(|(at, value, both_seen, before)| {
        let other = before.map(|before| Timestamp(at.0.saturating_sub(before)));
        Flag { at, value, both_seen, other: other.filter(|other| *other < at) }
    }))
    .boxed()
}

fn tie() -> impl Strategy<Value = Tie> {
    prop_oneof![Just(Tie::None), Just(Tie::Began), Just(Tie::Ended)]
}

fn outcome() -> impl Strategy<Value = Option<UpdateOutcome>> {
    of(prop::sample::select(UpdateOutcome::ALL.to_vec()))
}

fn release() -> impl Strategy<Value = ReleaseFacts> {
    let phase = register(prop::sample::select(UpdatePhase::ALL.to_vec()));
    (name(), register(outcome()), tie(), register(any::<u8>()), phase).prop_map(
        |(release, finished, tie, percent, phase)| ReleaseFacts {
            release,
            finished,
            tie,
            percent,
            phase,
        },
    )
}

fn progress() -> BoxedStrategy<(ConfigurationFacts, UpdateFacts)> {
    let configuration = (flag(), outcome(), register(any::<u8>()))
        .prop_map(|(started, outcome, percent)| ConfigurationFacts { started, outcome, percent });
    let update = (register(name()), prop::collection::vec(release(), 0..4))
        .prop_map(|(started, releases)| UpdateFacts { started, releases });
    (configuration, update).boxed()
}

/// All facts of a device but its heartbeat, of which names are as given.
pub(crate) fn device_facts<Name: Debug + 'static>(
    name: impl Strategy<Value = Name> + Clone + 'static,
) -> BoxedStrategy<DeviceFacts<Name>> {
    let session =
        (name.clone(), fingerprint(), time()).prop_map(|(instance, fingerprint, opened_at)| {
            Session { instance, fingerprint, opened_at }
        });
    let membership =
        (name.clone(), name).prop_map(|(fleet, organization)| Membership { fleet, organization });
    let changes = (flag(), flag(), register(membership), register(settings()));
    let deletion = (tie(), of(any::<u32>()));
    let progress = (progress(), deletion);
    let sessions = prop::collection::vec(session, 0..4);
    (prop::array::uniform5(of(time())), sessions, frozen(), changes, progress)
        .prop_map(|(times, sessions, frozen, changes, progress)| {
            let (active, preregistered, membership, settings) = changes;
            let ((configuration, update), (deletion_tie, deletion_interval_s)) = progress;
            DeviceFacts {
                last_vpn_opening: times[0],
                sessions,
                frozen,
                active,
                preregistered,
                provisioned: times[1],
                registered: times[2],
                membership,
                settings,
                configuration,
                update,
                deleted: times[3],
                deletion_tie,
                deletion_interval_s,
                deletion_touched: times[4],
            }
        })
        .boxed()
}
