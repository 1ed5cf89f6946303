//! The statuses of a device, and the ladder that chooses one.

use std::cmp::Ordering;

use crate::shard::event::Timestamp;

/// A device's status (docs/statuses.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Connected to the VPN, or communicating within its poll interval.
    Online,
    /// Applying OS configuration; or it has registered itself and had no contact
    /// yet.
    Configuring,
    /// Updating to a new application release.
    Updating,
    /// Not connected to the VPN and no recent API communication.
    Offline,
    /// Provisioned, and has not come online since.
    PostProvisioning,
    /// Deactivated, or preregistered, and has not connected since.
    Inactive,
    /// The device, its fleet or its organization is frozen.
    Frozen,
}

impl Status {
    /// All statuses; `ALL[i].index() == i`.
    pub const ALL: [Status; 7] = [
        Status::Online,
        Status::Configuring,
        Status::Updating,
        Status::Offline,
        Status::PostProvisioning,
        Status::Inactive,
        Status::Frozen,
    ];

    /// The status's place in arrays that hold one value a status.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in Redis, JSON and metrics.
    #[must_use]
    pub const fn wire_name(self) -> &'static str {
        match self {
            Status::Online => "online",
            Status::Configuring => "configuring",
            Status::Updating => "updating",
            Status::Offline => "offline",
            Status::PostProvisioning => "post-provisioning",
            Status::Inactive => "inactive",
            Status::Frozen => "frozen",
        }
    }

    /// The display name, with the connectivity if that adds information.
    #[must_use]
    pub const fn display(self, connectivity: Connectivity) -> &'static str {
        match (self, connectivity) {
            (Status::Online, Connectivity::VpnOnly) => "Online (VPN Only)",
            (Status::Online, Connectivity::HeartbeatOnly) => "Online (Heartbeat Only)",
            (Status::Online, _) => "Online",
            (Status::Configuring, _) => "Configuring",
            (Status::Updating, _) => "Updating",
            (Status::Offline, _) => "Offline",
            (Status::PostProvisioning, _) => "Post Provisioning",
            (Status::Inactive, _) => "Inactive",
            (Status::Frozen, _) => "Frozen",
        }
    }
}

/// Which of a device's two links works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Connectivity {
    /// Both, or heartbeat alone while the VPN is disabled by setting.
    Full,
    /// VPN, heartbeat missing.
    VpnOnly,
    /// Heartbeat, VPN missing.
    HeartbeatOnly,
    /// Neither.
    None,
}

impl Connectivity {
    /// All connectivities; `ALL[i] as usize == i`.
    pub const ALL: [Connectivity; 4] = [
        Connectivity::Full,
        Connectivity::VpnOnly,
        Connectivity::HeartbeatOnly,
        Connectivity::None,
    ];

    /// The name in Redis, JSON and metrics.
    #[must_use]
    pub const fn wire_name(self) -> &'static str {
        match self {
            Connectivity::Full => "full",
            Connectivity::VpnOnly => "vpn-only",
            Connectivity::HeartbeatOnly => "heartbeat-only",
            Connectivity::None => "none",
        }
    }
}

/// The state of the last heartbeat, by its poll interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeartbeatState {
    /// None was ever received.
    Unknown,
    /// The last is younger than tolerance × max(poll interval, minimum).
    Online,
    /// Older, but within the grace.
    Timeout,
    /// Older than that.
    Offline,
}

impl HeartbeatState {
    /// The name in Redis and JSON.
    #[must_use]
    pub const fn wire_name(self) -> &'static str {
        match self {
            HeartbeatState::Unknown => "unknown",
            HeartbeatState::Online => "online",
            HeartbeatState::Timeout => "timeout",
            HeartbeatState::Offline => "offline",
        }
    }
}

/// The fact or deadline that made a change, in the order in which ties are
/// decided (rule J9). The numbers are those of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is named in proto/ and docs/statuses.md")]
pub enum Cause {
    Deleted = 1,
    Registered,
    Provisioned,
    Activated,
    Deactivated,
    Frozen,
    Unfrozen,
    Moved,
    SettingsChanged,
    Heartbeat,
    HeartbeatTimedOut,
    HeartbeatExpired,
    VpnOpened,
    VpnClosed,
    VpnInstanceAlive,
    VpnInstanceLost,
    VpnLeaseExpired,
    ConfigurationStarted,
    ConfigurationFinished,
    UpdateStarted,
    UpdateFinished,
    RulesChanged,
    HeartbeatEnded,
}

impl Cause {
    /// All causes, in their order.
    pub const ALL: [Cause; 23] = [
        Cause::Deleted,
        Cause::Registered,
        Cause::Provisioned,
        Cause::Activated,
        Cause::Deactivated,
        Cause::Frozen,
        Cause::Unfrozen,
        Cause::Moved,
        Cause::SettingsChanged,
        Cause::Heartbeat,
        Cause::HeartbeatTimedOut,
        Cause::HeartbeatExpired,
        Cause::VpnOpened,
        Cause::VpnClosed,
        Cause::VpnInstanceAlive,
        Cause::VpnInstanceLost,
        Cause::VpnLeaseExpired,
        Cause::ConfigurationStarted,
        Cause::ConfigurationFinished,
        Cause::UpdateStarted,
        Cause::UpdateFinished,
        Cause::RulesChanged,
        Cause::HeartbeatEnded,
    ];

    /// Whether it is a fact or a deadline of the VPN, so that an instance made it.
    #[must_use]
    pub const fn is_of_vpn(self) -> bool {
        matches!(
            self,
            Cause::VpnOpened
                | Cause::VpnClosed
                | Cause::VpnInstanceAlive
                | Cause::VpnInstanceLost
                | Cause::VpnLeaseExpired
        )
    }

    /// Its rank among those of the same instant. The first one is the cause.
    const fn rank(self) -> (u8, bool) {
        match self {
            Cause::HeartbeatEnded => (Cause::HeartbeatExpired as u8, true),
            other => (other as u8, false),
        }
    }

    /// The display name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Deleted => "deleted",
            Cause::Registered => "registered",
            Cause::Provisioned => "provisioned",
            Cause::Activated => "activated",
            Cause::Deactivated => "deactivated",
            Cause::Frozen => "frozen",
            Cause::Unfrozen => "unfrozen",
            Cause::Moved => "moved",
            Cause::SettingsChanged => "settings-changed",
            Cause::Heartbeat => "heartbeat",
            Cause::HeartbeatTimedOut => "heartbeat-timed-out",
            Cause::HeartbeatExpired => "heartbeat-expired",
            Cause::VpnOpened => "vpn-opened",
            Cause::VpnClosed => "vpn-closed",
            Cause::VpnInstanceAlive => "vpn-instance-alive",
            Cause::VpnInstanceLost => "vpn-instance-lost",
            Cause::VpnLeaseExpired => "vpn-lease-expired",
            Cause::ConfigurationStarted => "configuration-started",
            Cause::ConfigurationFinished => "configuration-finished",
            Cause::UpdateStarted => "update-started",
            Cause::UpdateFinished => "update-finished",
            Cause::RulesChanged => "rules-changed",
            Cause::HeartbeatEnded => "heartbeat-ended",
        }
    }
}

impl Ord for Cause {
    fn cmp(&self, other: &Cause) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Cause {
    fn partial_cmp(&self, other: &Cause) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The ladder's questions about a row at an instant. Status and connectivity are
/// a function of these answers alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is one question of the ladder")]
pub struct Ladder {
    /// There was contact, `registered` or `provisioned`, and no deletion since
    /// (rules J5, J6).
    pub exists: bool,
    /// The device, its fleet or its organization is frozen.
    pub frozen: bool,
    /// Preregistered or deactivated, and no contact or activation since.
    pub inactive: bool,
    /// Provisioned, and no contact since.
    pub unseen_since_provisioning: bool,
    /// There was a heartbeat or the opening of a VPN session.
    pub contacted: bool,
    /// The state of the last heartbeat.
    pub heartbeat: HeartbeatState,
    /// A VPN session counts (rule J4).
    pub vpn_connected: bool,
    /// The VPN is disabled by setting.
    pub vpn_disabled: bool,
    /// OS configuration is in progress.
    pub configuring: bool,
    /// An update is in progress.
    pub updating: bool,
}

/// A rung of the ladder. The first that holds decides on the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// The device, its fleet or its organization is frozen.
    Frozen,
    /// Preregistered or deactivated, and no contact or activation since.
    Inactive,
    /// Provisioned, and no contact since.
    PostProvisioning,
    /// Never any contact.
    NeverSeen,
    /// No VPN session open, and no heartbeat that counts.
    Offline,
    /// OS configuration in progress.
    Configuring,
    /// Update in progress, and a heartbeat that counts.
    Updating,
    /// Otherwise.
    Online,
}

impl Rung {
    /// All rungs, from the first.
    pub const ALL: [Rung; 8] = [
        Rung::Frozen,
        Rung::Inactive,
        Rung::PostProvisioning,
        Rung::NeverSeen,
        Rung::Offline,
        Rung::Configuring,
        Rung::Updating,
        Rung::Online,
    ];

    /// The status if this is the first rung that holds.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Rung::Frozen => Status::Frozen,
            Rung::Inactive => Status::Inactive,
            Rung::PostProvisioning => Status::PostProvisioning,
            Rung::NeverSeen | Rung::Configuring => Status::Configuring,
            Rung::Offline => Status::Offline,
            Rung::Updating => Status::Updating,
            Rung::Online => Status::Online,
        }
    }
}

impl Ladder {
    /// The first rung that holds, and the connectivity; nothing for a device
    /// that does not exist.
    #[must_use]
    pub fn shown(&self) -> Option<(Status, Connectivity)> {
        self.exists.then(|| (self.status(), self.connectivity()))
    }

    /// Every rung in its order, and whether it holds.
    pub fn rungs(&self) -> impl Iterator<Item = (Rung, bool)> {
        Rung::ALL.into_iter().map(|rung| (rung, self.holds(rung)))
    }

    fn holds(&self, rung: Rung) -> bool {
        let heard = matches!(self.heartbeat, HeartbeatState::Online | HeartbeatState::Timeout);
        match rung {
            Rung::Frozen => self.frozen,
            Rung::Inactive => self.inactive,
            Rung::PostProvisioning => self.unseen_since_provisioning,
            Rung::NeverSeen => !self.contacted,
            Rung::Offline => !self.vpn_connected && !heard,
            Rung::Configuring => self.configuring,
            Rung::Updating => self.updating && heard,
            Rung::Online => true,
        }
    }

    fn status(&self) -> Status {
        let decides = self.rungs().find(|(_, holds)| *holds);
        decides.map_or(Status::Online, |(rung, _)| rung.status())
    }

    /// A timeout counts as heartbeat if the VPN is down (the grace before
    /// Offline), and as missing if it is up. A session that is open while the VPN
    /// is disabled by setting is a working link and counts like any other. Only
    /// its absence does not matter then.
    fn connectivity(&self) -> Connectivity {
        match (self.vpn_connected, self.heartbeat) {
            (true, HeartbeatState::Online) => Connectivity::Full,
            (true, _) => Connectivity::VpnOnly,
            (false, HeartbeatState::Online | HeartbeatState::Timeout) if self.vpn_disabled => {
                Connectivity::Full
            }
            (false, HeartbeatState::Online | HeartbeatState::Timeout) => {
                Connectivity::HeartbeatOnly
            }
            (false, _) => Connectivity::None,
        }
    }
}

/// The state of a heartbeat with these deadlines at an instant. It is online
/// while it is younger than its span, so no longer at the deadline itself.
#[must_use]
pub fn heartbeat_state(deadlines: Option<(Timestamp, Timestamp)>, at: Timestamp) -> HeartbeatState {
    match deadlines {
        None => HeartbeatState::Unknown,
        Some((timeout, _)) if at < timeout => HeartbeatState::Online,
        Some((_, expiry)) if at < expiry => HeartbeatState::Timeout,
        Some(_) => HeartbeatState::Offline,
    }
}

/// The first of the heartbeat's deadlines that is still to come.
#[must_use]
pub fn next_deadline(
    deadlines: Option<(Timestamp, Timestamp)>,
    after: Timestamp,
) -> Option<Timestamp> {
    let (timeout, expiry) = deadlines?;
    [timeout, expiry].into_iter().find(|&deadline| deadline > after)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDINARY: Ladder = Ladder {
        exists: true,
        frozen: false,
        inactive: false,
        unseen_since_provisioning: false,
        contacted: true,
        heartbeat: HeartbeatState::Online,
        vpn_connected: true,
        vpn_disabled: false,
        configuring: false,
        updating: false,
    };

    #[test]
    fn the_first_rung_that_holds_wins() {
        let mut ladder = Ladder {
            frozen: true,
            inactive: true,
            unseen_since_provisioning: true,
            contacted: false,
            heartbeat: HeartbeatState::Offline,
            vpn_connected: false,
            configuring: true,
            updating: true,
            ..ORDINARY
        };
        assert_eq!(ladder.status(), Status::Frozen);
        ladder.frozen = false;
        assert_eq!(ladder.status(), Status::Inactive);
        ladder.inactive = false;
        assert_eq!(ladder.status(), Status::PostProvisioning);
        ladder.unseen_since_provisioning = false;
        assert_eq!(ladder.status(), Status::Configuring);
        ladder.contacted = true;
        assert_eq!(ladder.status(), Status::Offline);
        ladder.heartbeat = HeartbeatState::Timeout;
        assert_eq!(ladder.status(), Status::Configuring);
        ladder.configuring = false;
        assert_eq!(ladder.status(), Status::Updating);
        ladder.updating = false;
        assert_eq!(ladder.status(), Status::Online);
    }

    #[test]
    fn an_update_shows_only_while_the_api_is_polled() {
        let ladder = Ladder { heartbeat: HeartbeatState::Offline, updating: true, ..ORDINARY };
        assert_eq!(ladder.shown(), Some((Status::Online, Connectivity::VpnOnly)));
    }

    #[test]
    fn a_timeout_is_a_heartbeat_only_where_the_vpn_is_down() {
        let mut ladder = Ladder { heartbeat: HeartbeatState::Timeout, ..ORDINARY };
        assert_eq!(ladder.connectivity(), Connectivity::VpnOnly);
        ladder.vpn_connected = false;
        assert_eq!(ladder.connectivity(), Connectivity::HeartbeatOnly);
        ladder.vpn_disabled = true;
        assert_eq!(ladder.connectivity(), Connectivity::Full);
    }

    #[test]
    fn a_session_counts_although_the_vpn_is_disabled() {
        let mut ladder = Ladder { vpn_disabled: true, ..ORDINARY };
        assert_eq!(ladder.shown(), Some((Status::Online, Connectivity::Full)));
        ladder.heartbeat = HeartbeatState::Offline;
        assert_eq!(ladder.shown(), Some((Status::Online, Connectivity::VpnOnly)));
        ladder.vpn_connected = false;
        assert_eq!(ladder.shown(), Some((Status::Offline, Connectivity::None)));
    }

    #[test]
    fn a_heartbeat_no_longer_counts_at_its_very_deadline() {
        let deadlines = Some((Timestamp(100), Timestamp(115)));
        assert_eq!(heartbeat_state(deadlines, Timestamp(99)), HeartbeatState::Online);
        assert_eq!(heartbeat_state(deadlines, Timestamp(100)), HeartbeatState::Timeout);
        assert_eq!(heartbeat_state(deadlines, Timestamp(114)), HeartbeatState::Timeout);
        assert_eq!(heartbeat_state(deadlines, Timestamp(115)), HeartbeatState::Offline);
        assert_eq!(next_deadline(deadlines, Timestamp(100)), Some(Timestamp(115)));
        assert_eq!(next_deadline(deadlines, Timestamp(115)), None);
    }
}
