//! Generated facts, for the properties of the code that stores them.

use std::fmt::Debug;
use std::sync::Arc;

use proptest::option::of;
use proptest::prelude::*;

use crate::shard::snapshot::{
    ConfigurationFacts, DeviceFacts, Ended, Flag, FrozenRegisters, HeartbeatInterval, Lease,
    Membership, Opening, Register, ReleaseFacts, Session, Tie, UpdateFacts,
};
use crate::shard::{Settings, Timestamp, UpdateOutcome, UpdatePhase};

/// Usual times and extreme ones.
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

pub(crate) fn settings() -> impl Strategy<Value = Settings> {
    any::<(Option<u32>, Option<bool>)>()
        .prop_map(|(poll_interval_s, vpn_enabled)| Settings { poll_interval_s, vpn_enabled })
}

/// Earlier settings.
pub(crate) fn earlier<T: Debug + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<Vec<Register<T>>> {
    let held = (time(), value).prop_map(|(at, value)| Register { at, value });
    prop::collection::vec(held, 0..4).boxed()
}

pub(crate) fn heartbeat_interval() -> impl Strategy<Value = HeartbeatInterval> {
    let seconds = any::<u32>();
    prop_oneof![
        seconds.prop_map(HeartbeatInterval::Carried),
        seconds.prop_map(HeartbeatInterval::Set),
        seconds.prop_map(HeartbeatInterval::SetOrDefault),
        Just(HeartbeatInterval::Default),
    ]
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

pub(crate) fn lease() -> impl Strategy<Value = Lease> {
    (time(), time(), any::<u32>()).prop_map(|(at, counted_at, lease_ms)| Lease {
        at,
        counted_at,
        lease_ms,
    })
}

fn opening() -> BoxedStrategy<Option<Opening>> {
    let opening = (time(), of(time()), of(time()), any::<Option<u32>>());
    of(opening.prop_map(|(at, connected_at, counted_at, lease_ms)| Opening {
        at,
        connected_at: connected_at.unwrap_or(at),
        counted_at: counted_at.unwrap_or(at),
        lease_ms,
    }))
    .boxed()
}

/// A session with any facts.
pub(crate) fn session<Name: Debug + 'static>(
    instance: impl Strategy<Value = Name> + 'static,
) -> BoxedStrategy<Session<Name>> {
    let ended = of((time(), time()).prop_map(|(until, at)| Ended { until, at }));
    let times = prop::array::uniform2(of(time()));
    (instance, name(), opening(), opening(), times, any::<bool>(), ended)
        .prop_map(|(instance, session, opening, leased, [began_at, closed_at], reopened, ended)| {
            Session { instance, session, opening, leased, began_at, closed_at, reopened, ended }
        })
        .boxed()
}

/// All facts of a device but its heartbeat, with the given names.
pub(crate) fn device_facts<Name: Debug + 'static>(
    name: impl Strategy<Value = Name> + Clone + 'static,
) -> BoxedStrategy<DeviceFacts<Name>> {
    let sessions = prop::collection::vec(session(name.clone()), 0..4);
    let earlier = (earlier(name.clone()), earlier(any::<Option<u32>>()));
    let membership =
        (name.clone(), name).prop_map(|(fleet, organization)| Membership { fleet, organization });
    let changes = (flag(), flag(), register(membership), register(settings()));
    let deletion = (tie(), of(any::<u32>()));
    let progress = (progress(), deletion);
    (prop::array::uniform6(of(time())), sessions, frozen(), changes, progress, earlier)
        .prop_map(|(times, sessions, frozen, changes, progress, earlier)| {
            let (active, preregistered, membership, settings) = changes;
            let (earlier_fleets, earlier_settings) = earlier;
            let ((configuration, update), (deletion_tie, deletion_interval_s)) = progress;
            DeviceFacts {
                last_vpn_opening: times[0],
                last_vpn_opening_told: times[5],
                sessions,
                frozen,
                active,
                preregistered,
                provisioned: times[1],
                registered: times[2],
                membership,
                earlier_fleets,
                settings,
                earlier_settings,
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
