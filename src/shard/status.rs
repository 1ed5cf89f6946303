//! The words for what a device is, and the ladder that decides among them.

/// A device's status (DESIGN section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Connected to the VPN, or communicating within its poll interval.
    Online,
    /// Applying OS configuration; or registered by itself and not seen yet.
    Configuring,
    /// Updating to a new application release.
    Updating,
    /// Not connected to the VPN and no recent API communication.
    Offline,
    /// Provisioned, has not come online since.
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

    /// The name people are shown, together with the connectivity where that
    /// adds to it.
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

/// How the last heartbeat stands against the poll interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeartbeatState {
    /// None was ever received.
    Unknown,
    /// The last is younger than tolerance × max(poll interval, minimum).
    Online,
    /// Older, but not yet by the grace.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}
