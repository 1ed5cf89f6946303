//! One partition's state machine: pure, single-threaded, deterministic.

pub mod clock;
pub mod event;
pub mod merge;
pub mod outbox;
pub mod rules;
pub mod snapshot;
pub mod status;
pub mod timer;

pub use clock::Now;
pub use event::{
    Content, DeadLetter, DeadLetterReason, DeviceEvent, DeviceId, Event, EventBody, FrozenReason,
    Input, Queued, ScopeEvent, Settings, Timestamp,
};
pub use outbox::{DeviceView, Outbox, StatusChange, ViewBody, ViewWrite};
pub use rules::Rules;
pub use snapshot::Entry;
pub use status::{Cause, Connectivity, HeartbeatState, Status};
