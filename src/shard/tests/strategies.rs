//! What facts may be, for the properties of all that stores them.

use std::fmt::Debug;
use std::sync::Arc;

use proptest::option::of;
use proptest::prelude::*;

use crate::shard::snapshot::{
    DeviceFacts, FrozenRegisters, HeartbeatInterval, Membership, ProgressFacts, Register, Session,
    SessionFingerprint,
};
use crate::shard::{Settings, Timestamp};

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

/// What was set before.
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
    prop::array::uniform4(register(any::<bool>()))
}

fn progress() -> BoxedStrategy<ProgressFacts> {
    (register(name()), of(time()), register(any::<u8>()))
        .prop_map(|(started, finished, percent)| ProgressFacts { started, finished, percent })
        .boxed()
}

/// All facts of a device but its heartbeat, of which names are as given.
pub(crate) fn device_facts<Name: Debug + 'static>(
    name: impl Strategy<Value = Name> + Clone + 'static,
) -> BoxedStrategy<DeviceFacts<Name>> {
    let session =
        (name.clone(), fingerprint(), time()).prop_map(|(instance, fingerprint, opened_at)| {
            Session { instance, fingerprint, opened_at }
        });
    let earlier = (earlier(name.clone()), earlier(any::<Option<u32>>()));
    let membership =
        (name.clone(), name).prop_map(|(fleet, organization)| Membership { fleet, organization });
    let changes = (register(any::<bool>()), register(membership), register(settings()));
    let progress = (progress(), progress());
    let sessions = prop::collection::vec(session, 0..4);
    (prop::array::uniform7(of(time())), sessions, frozen(), changes, progress, earlier)
        .prop_map(|(times, sessions, frozen, changes, progress, earlier)| {
            let (preregistered, membership, settings) = changes;
            let (earlier_fleets, earlier_settings) = earlier;
            let (configuration, update) = progress;
            DeviceFacts {
                last_vpn_opening: times[0],
                sessions,
                frozen,
                deactivated: times[1],
                activated: times[2],
                preregistered,
                provisioned: times[3],
                registered: times[4],
                membership,
                earlier_fleets,
                settings,
                earlier_settings,
                configuration,
                update,
                deleted: times[5],
                deletion_touched: times[6],
            }
        })
        .boxed()
}
