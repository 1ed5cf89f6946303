//! The input of the core: devices, instants, and the events of the three inputs.

use std::fmt;
use std::sync::Arc;

/// An instant, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The earliest instant that a row can hold.
    pub const MIN: Timestamp = Timestamp(0);

    /// This instant moved by `ms` milliseconds, which may be negative.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(ms))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The three inputs, in the order in which records of the same instant are
/// applied (rule T4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// Registrations, settings, billing, updates.
    Lifecycle,
    /// VPN sessions and the VPN instances that hold them.
    VpnSessions,
    /// Polls of the API.
    Heartbeats,
}

impl Input {
    /// All inputs, in merge order; `ALL[i].index() == i`.
    pub const ALL: [Input; 3] = [Input::Lifecycle, Input::VpnSessions, Input::Heartbeats];

    /// The input's place in arrays that hold one value an input.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The input's name in metrics, logs and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Input::Lifecycle => "lifecycle",
            Input::VpnSessions => "vpn_sessions",
            Input::Heartbeats => "heartbeats",
        }
    }
}

/// The longest device id, in bytes.
pub const DEVICE_ID_MAX_BYTES: usize = 128;

/// A device's id: 1 to 128 bytes of UTF-8. The usual 32 lower-case hex digits
/// are held in 16 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceId {
    /// 32 lower-case hex digits.
    Hex([u8; 16]),
    /// Anything else.
    Text(Box<str>),
}

impl DeviceId {
    /// Reads a record's key.
    ///
    /// # Errors
    /// When it is empty, too long or not UTF-8.
    pub fn from_key(key: &[u8]) -> Result<DeviceId, InvalidDeviceId> {
        if let Some(hex) = decode_hex32(key) {
            return Ok(DeviceId::Hex(hex));
        }
        if key.is_empty() {
            return Err(InvalidDeviceId::Empty);
        }
        if key.len() > DEVICE_ID_MAX_BYTES {
            return Err(InvalidDeviceId::TooLong);
        }
        match std::str::from_utf8(key) {
            Ok(text) => Ok(DeviceId::Text(text.into())),
            Err(_) => Err(InvalidDeviceId::NotUtf8),
        }
    }

    /// Appends the id as it is written in keys and messages.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            DeviceId::Hex(bytes) => out.extend_from_slice(&encode_hex32(bytes)),
            DeviceId::Text(text) => out.extend_from_slice(text.as_bytes()),
        }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceId::Hex(bytes) => {
                let digits = encode_hex32(bytes);
                f.write_str(std::str::from_utf8(&digits).unwrap_or_default())
            }
            DeviceId::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a key is no device id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidDeviceId {
    /// No bytes at all.
    Empty,
    /// More than [`DEVICE_ID_MAX_BYTES`].
    TooLong,
    /// Not UTF-8.
    NotUtf8,
}

/// The value of a byte as a lower-case hexadecimal digit; `NO_DIGIT` if it is
/// none.
const HEX_DIGITS: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    table
};
const NO_DIGIT: u8 = 0x80;

fn decode_hex32(key: &[u8]) -> Option<[u8; 16]> {
    let digits: &[u8; 32] = key.try_into().ok()?;
    let mut bytes = [0; 16];
    let mut any = 0;
    // Without a branch for each digit, because this runs for every record.
    for i in 0..16 {
        let high = HEX_DIGITS[usize::from(digits[2 * i])];
        let low = HEX_DIGITS[usize::from(digits[2 * i + 1])];
        any |= high | low;
        bytes[i] = high << 4 | low;
    }
    (any & NO_DIGIT == 0).then_some(bytes)
}

fn encode_hex32(bytes: &[u8; 16]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; 32];
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

/// Why something is frozen. Each reason is lifted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrozenReason {
    /// Outside the organization's allowance.
    Allowance,
    /// A paid application type on a free plan.
    PaidApplicationType,
    /// Overdue invoices.
    OverdueInvoices,
    /// Any other reason.
    Other,
}

impl FrozenReason {
    /// All reasons; `ALL[i].index() == i`.
    pub const ALL: [FrozenReason; 4] = [
        FrozenReason::Allowance,
        FrozenReason::PaidApplicationType,
        FrozenReason::OverdueInvoices,
        FrozenReason::Other,
    ];

    /// The reason's place in arrays that hold one register a reason.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// How a configuration or an update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpdateOutcome {
    /// It succeeded.
    Succeeded,
    /// It failed, or was rolled back.
    Failed,
    /// It was cancelled.
    Aborted,
    /// The device did not take it.
    Rejected,
}

impl UpdateOutcome {
    /// All outcomes, in the order of their numbers in messages, from 1.
    pub const ALL: [UpdateOutcome; 4] = [
        UpdateOutcome::Succeeded,
        UpdateOutcome::Failed,
        UpdateOutcome::Aborted,
        UpdateOutcome::Rejected,
    ];

    /// The name in Redis and JSON.
    #[must_use]
    pub const fn wire_name(self) -> &'static str {
        match self {
            UpdateOutcome::Succeeded => "succeeded",
            UpdateOutcome::Failed => "failed",
            UpdateOutcome::Aborted => "aborted",
            UpdateOutcome::Rejected => "rejected",
        }
    }
}

/// The phase of an update in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpdatePhase {
    /// The device fetches the release.
    Downloading,
    /// The device has the release.
    Downloaded,
    /// The device installs the release.
    Applying,
}

impl UpdatePhase {
    /// All phases, in the order of their numbers in messages, from 1.
    pub const ALL: [UpdatePhase; 3] =
        [UpdatePhase::Downloading, UpdatePhase::Downloaded, UpdatePhase::Applying];

    /// The name in Redis and JSON.
    #[must_use]
    pub const fn wire_name(self) -> &'static str {
        match self {
            UpdatePhase::Downloading => "downloading",
            UpdatePhase::Downloaded => "downloaded",
            UpdatePhase::Applying => "applying",
        }
    }
}

/// Settings of a device or a fleet. A message replaces all of them; an absent one
/// is inherited (rule J2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Settings {
    /// The interval at which devices poll, in seconds, up to 366 days.
    pub poll_interval_s: Option<u32>,
    /// Whether the device is meant to use the VPN.
    pub vpn_enabled: Option<bool>,
}

/// One decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened, by the sender's clock. Absent: the record's timestamp
    /// (rule J1).
    pub occurred_at: Option<Timestamp>,
    /// The event and its subject.
    pub body: EventBody,
}

/// The event and its subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventBody {
    /// The device polled the API.
    Heartbeat {
        /// The device.
        device: DeviceId,
        /// The interval that it was told to keep, in seconds, up to 366 days.
        poll_interval_s: Option<u32>,
        /// It announced that it shuts down (rule J11).
        going_away: bool,
    },
    /// Another event of one device.
    Device {
        /// The device.
        device: DeviceId,
        /// The event.
        event: DeviceEvent,
    },
    /// An event of a VPN instance, a fleet or an organization (rule J7).
    Scope(ScopeEvent),
}

/// An event of one device, other than a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is described in proto/ and docs/events.md")]
pub enum DeviceEvent {
    /// Open since `opened_at`, else since this event; `lease_ms` is 1 s to 7 days
    /// (rule J4).
    SessionOpened {
        instance: Arc<str>,
        session: Arc<str>,
        opened_at: Option<Timestamp>,
        lease_ms: Option<u32>,
    },
    /// With `opened_at`, ends only openings at or before that time (rule J4).
    SessionClosed {
        instance: Arc<str>,
        session: Arc<str>,
        opened_at: Option<Timestamp>,
    },
    Registered {
        fleet: Arc<str>,
        organization: Arc<str>,
        preregistered: bool,
    },
    Provisioned,
    Activated,
    Deactivated,
    Frozen {
        reason: FrozenReason,
    },
    /// Without a reason: lifts every reason of the device.
    Unfrozen {
        reason: Option<FrozenReason>,
    },
    ConfigurationStarted,
    ConfigurationProgressed {
        percent: u8,
    },
    ConfigurationFinished {
        outcome: Option<UpdateOutcome>,
    },
    UpdateStarted {
        release: Arc<str>,
    },
    /// The empty release means the update that was started last (rule J12).
    UpdateProgressed {
        percent: u8,
        phase: Option<UpdatePhase>,
        release: Arc<str>,
    },
    /// The same.
    UpdateFinished {
        release: Arc<str>,
        outcome: Option<UpdateOutcome>,
    },
    SettingsChanged(Settings),
    Moved {
        fleet: Arc<str>,
        organization: Arc<str>,
    },
    Deleted,
}

impl DeviceEvent {
    /// Whether it belongs to the VPN input.
    #[must_use]
    pub fn is_of_vpn(&self) -> bool {
        matches!(self, DeviceEvent::SessionOpened { .. } | DeviceEvent::SessionClosed { .. })
    }

    /// The poll interval that it carries, in seconds.
    #[must_use]
    pub fn poll_interval_s(&self) -> Option<u32> {
        match self {
            DeviceEvent::SettingsChanged(settings) => settings.poll_interval_s,
            _ => None,
        }
    }
}

/// An event that concerns every device of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is described in proto/ and docs/events.md")]
pub enum ScopeEvent {
    /// `lease_ms` is 1 s to 7 days; without `started_at` it belongs to the
    /// current start (rule J4).
    InstanceAlive {
        instance: Arc<str>,
        started_at: Option<Timestamp>,
        lease_ms: u32,
    },
    InstanceLost {
        instance: Arc<str>,
    },
    FleetSettingsChanged {
        fleet: Arc<str>,
        settings: Settings,
    },
    FleetFrozen {
        fleet: Arc<str>,
        reason: FrozenReason,
    },
    FleetUnfrozen {
        fleet: Arc<str>,
        reason: Option<FrozenReason>,
    },
    OrganizationFrozen {
        organization: Arc<str>,
        reason: FrozenReason,
    },
    OrganizationUnfrozen {
        organization: Arc<str>,
        reason: Option<FrozenReason>,
    },
}

/// The headers of a record that tell when its sender was alive, for leases (rule
/// J4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relay {
    /// The timestamp of the record that a relay has copied.
    pub source_timestamp: Option<Timestamp>,
    /// It is a replayed dead letter.
    pub is_replayed: bool,
}

impl Relay {
    /// A time at which the sender was alive, given the record's clamped
    /// timestamp: that timestamp, or the one of its source. `None` if not known.
    #[must_use]
    pub fn sent_at(self, believed: Timestamp) -> Option<Timestamp> {
        let sent = self.source_timestamp.map_or(believed, |source| source.min(believed));
        (!self.is_replayed).then_some(sent)
    }
}

/// A record that was read and waits for its turn in the merge of the inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its position in its partition.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Whether the broker stamped it (`LogAppendTime`). Then the timestamp is
    /// accepted as it is (rule T3).
    pub stamped_by_broker: bool,
    /// Its headers that tell when its sender was alive.
    pub relay: Relay,
    /// Its contents.
    pub content: Content,
}

impl Queued {
    /// Its size in memory, in bytes, without the names in an event.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let letter = match &self.content {
            Content::Event(_) => 0,
            Content::Bad(letter) => letter.bytes(),
        };
        size_of::<Queued>() + letter
    }
}

/// The contents of a record: an event, or a bad record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A good record.
    Event(Event),
    /// A bad one, kept whole.
    Bad(Box<DeadLetter>),
}

/// A record's header: its name and, unless it is null, its value.
pub type Header = (Box<str>, Option<Box<[u8]>>);

/// A record that could not be used, with everything needed to replay it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it was read.
    pub input: Input,
    /// Its partition.
    pub partition: i32,
    /// Its position.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Its key, if it had one.
    pub key: Option<Box<[u8]>>,
    /// Its value, if it had one.
    pub value: Option<Box<[u8]>>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
    /// Why it was refused.
    pub reason: DeadLetterReason,
    /// The reason in words.
    pub detail: Box<str>,
}

impl DeadLetter {
    /// Its size in memory, in bytes, and nearly its size in a transaction.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |bytes: &Option<Box<[u8]>>| bytes.as_ref().map_or(0, |bytes| bytes.len());
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| size_of::<Header>() + name.len() + of(value));
        let whole = size_of::<DeadLetter>() + self.detail.len();
        whole + of(&self.key) + of(&self.value) + headers.sum::<usize>()
    }
}

/// Why a record became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadLetterReason {
    /// The value is not a message of its topic's format.
    Undecodable,
    /// The value decodes, but has no event, or one that this version does not
    /// know.
    UnknownEvent,
    /// No key on a record that concerns one device.
    MissingKey,
    /// A key on a broadcast.
    UnexpectedKey,
    /// A key that is no device id: too long, empty, not UTF-8.
    InvalidKey,
    /// A null value on another topic than lifecycle.
    UnexpectedTombstone,
    /// A required field is absent, or a field is out of range.
    InvalidValue,
    /// The key belongs on another partition (rule R8).
    WrongPartition,
}

impl DeadLetterReason {
    /// All reasons.
    pub const ALL: [DeadLetterReason; 8] = [
        DeadLetterReason::Undecodable,
        DeadLetterReason::UnknownEvent,
        DeadLetterReason::MissingKey,
        DeadLetterReason::UnexpectedKey,
        DeadLetterReason::InvalidKey,
        DeadLetterReason::UnexpectedTombstone,
        DeadLetterReason::InvalidValue,
        DeadLetterReason::WrongPartition,
    ];

    /// The reason code in headers and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            DeadLetterReason::Undecodable => "undecodable",
            DeadLetterReason::UnknownEvent => "unknown_event",
            DeadLetterReason::MissingKey => "missing_key",
            DeadLetterReason::UnexpectedKey => "unexpected_key",
            DeadLetterReason::InvalidKey => "invalid_key",
            DeadLetterReason::UnexpectedTombstone => "unexpected_tombstone",
            DeadLetterReason::InvalidValue => "invalid_value",
            DeadLetterReason::WrongPartition => "wrong_partition",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_id_takes_sixteen_bytes_and_reads_back_as_it_was() {
        let key = b"0123456789abcdef0123456789abcdef";
        let id = DeviceId::from_key(key).unwrap();
        assert!(matches!(id, DeviceId::Hex(_)));
        assert_eq!(id.to_string().as_bytes(), key);
    }

    #[test]
    fn upper_case_hex_is_another_device() {
        let id = DeviceId::from_key(b"0123456789ABCDEF0123456789ABCDEF").unwrap();
        assert!(matches!(id, DeviceId::Text(_)));
    }

    #[test]
    fn invalid_keys_have_different_reasons() {
        assert_eq!(DeviceId::from_key(b""), Err(InvalidDeviceId::Empty));
        assert_eq!(DeviceId::from_key(&[b'x'; 129]), Err(InvalidDeviceId::TooLong));
        assert_eq!(DeviceId::from_key(&[0xff]), Err(InvalidDeviceId::NotUtf8));
        assert!(DeviceId::from_key(&[b'x'; 128]).is_ok());
    }
}
