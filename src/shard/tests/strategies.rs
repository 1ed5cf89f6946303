//! What facts may be, for the properties of all that stores them.

use std::fmt::Debug;
use std::sync::Arc;

use proptest::option::of;
use proptest::prelude::*;

use crate::shard::snapshot::{
    DeviceFacts, Ended, FrozenRegisters, Lease, Membership, Opening, ProgressFacts, Register,
    Session,
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

pub(crate) fn settings() -> impl Strategy<Value = Settings> {
    any::<(Option<u32>, Option<bool>)>()
        .prop_map(|(poll_interval_s, vpn_enabled)| Settings { poll_interval_s, vpn_enabled })
}

pub(crate) fn frozen() -> impl Strategy<Value = FrozenRegisters> {
    prop::array::uniform4(register(any::<bool>()))
}

fn progress() -> BoxedStrategy<ProgressFacts> {
    (register(name()), of(time()), register(any::<u8>()))
        .prop_map(|(started, finished, percent)| ProgressFacts { started, finished, percent })
        .boxed()
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

/// A session of which anything may be known.
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

/// All facts of a device but its heartbeat, of which names are as given.
pub(crate) fn device_facts<Name: Debug + 'static>(
    name: impl Strategy<Value = Name> + Clone + 'static,
) -> BoxedStrategy<DeviceFacts<Name>> {
    let sessions = prop::collection::vec(session(name.clone()), 0..4);
    let membership =
        (name.clone(), name).prop_map(|(fleet, organization)| Membership { fleet, organization });
    let changes = (register(any::<bool>()), register(membership), register(settings()));
    let progress = (progress(), progress());
    (prop::array::uniform8(of(time())), sessions, frozen(), changes, progress)
        .prop_map(|(times, sessions, frozen, (preregistered, membership, settings), progress)| {
            let (configuration, update) = progress;
            DeviceFacts {
                last_vpn_opening: times[0],
                last_vpn_opening_told: times[7],
                sessions,
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
            }
        })
        .boxed()
}
