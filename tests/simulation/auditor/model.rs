//! The auditor's own model of a device: what it shows at an instant, from the
//! text of the rules.

use std::collections::BTreeSet;

use device_status::shard::Rules;
use device_status::wire::proto::v1::{
    self, Connectivity, Status, lifecycle_event as lifecycle, vpn_event as vpn,
};

use super::sessions::{Lease, Sessions, counted};
use super::{Device, Said, Scopes, duration_ms, ms, poll_interval_ms};

pub type Shown = Option<(Status, Connectivity)>;

/// How long a heartbeat counts.
pub fn span_ms(rules: &Rules, interval_ms: i64) -> i64 {
    let counted = interval_ms.max(rules.minimum_ms);
    (rules.tolerance * counted as f64).ceil() as i64
}

/// A register of two values: of one instant, the value that was not yet seen wins.
type Two = Option<(i64, bool, bool)>;

/// Tells it something, in the order of the log.
fn see(register: &mut Two, at: i64, value: bool) {
    match register {
        Some((held, ..)) if at < *held => {}
        Some((held, is, both)) if at == *held => {
            if *is != value && !*both {
                (*is, *both) = (value, true);
            }
        }
        _ => *register = Some((at, value, false)),
    }
}

fn is_set(register: Two) -> bool {
    register.is_some_and(|(_, value, _)| value)
}

/// The deletion that counts.
struct Deletion {
    at: i64,
    /// Where it was read last.
    read_at: i64,
    /// Where it was read last and took away what registrations tell.
    names_read_at: i64,
    /// The device was registered since.
    registered: bool,
}

/// What was said of a device and of its scopes, as far as it was read.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    rules: &'a Rules,
    heartbeats: &'a [Said<Option<i64>>],
    going_away: &'a BTreeSet<i64>,
    vpn: &'a [Said<vpn::Event>],
    lifecycle: &'a [Said<lifecycle::Event>],
    scope_vpn: &'a [Said<vpn::Event>],
    scope_lifecycle: &'a [Said<lifecycle::Event>],
}

fn until<T>(said: &[Said<T>], offset: i64) -> &[Said<T>] {
    &said[..said.partition_point(|said| said.offset < offset)]
}

impl<'a> Model<'a> {
    /// Everything is known.
    pub fn whole(rules: &'a Rules, device: &'a Device, scopes: &'a Scopes) -> Model<'a> {
        let end = i64::MAX;
        Model::read_until(rules, device, scopes, [end; 3], [end; 2])
    }

    /// Read is what is below these offsets: of the device and, of the first two
    /// inputs, of its scopes.
    pub fn read_until(
        rules: &'a Rules,
        device: &'a Device,
        scopes: &'a Scopes,
        [lifecycle, vpn, heartbeats]: [i64; 3],
        [scope_lifecycle, scope_vpn]: [i64; 2],
    ) -> Model<'a> {
        Model {
            rules,
            heartbeats: until(&device.heartbeats, heartbeats),
            going_away: &device.going_away,
            vpn: until(&device.vpn, vpn),
            lifecycle: until(&device.lifecycle, lifecycle),
            scope_vpn: until(&scopes.vpn, scope_vpn),
            scope_lifecycle: until(&scopes.lifecycle, scope_lifecycle),
        }
    }

    /// The scope events of a name.
    fn settings<'b>(
        said: impl Iterator<Item = &'b Said<lifecycle::Event>>,
        deleted: i64,
        fleet: Option<&str>,
    ) -> Option<(Option<i64>, Option<bool>)> {
        let settings = said.filter(|said| said.at > deleted).filter_map(|said| {
            let (poll, vpn) = match (&said.event, fleet) {
                (lifecycle::Event::SettingsChanged(settings), None) => {
                    (&settings.poll_interval, settings.vpn_enabled)
                }
                (lifecycle::Event::FleetSettingsChanged(settings), Some(fleet))
                    if settings.fleet == fleet =>
                {
                    (&settings.poll_interval, settings.vpn_enabled)
                }
                _ => return None,
            };
            Some((said.at, poll.as_ref().map(poll_interval_ms), vpn))
        });
        // Of the same instant the later in the log holds.
        settings.max_by_key(|(at, ..)| *at).map(|(_, poll, vpn)| (poll, vpn))
    }

    /// The interval that was set at a moment: the device's, else that of the fleet
    /// that it was in.
    fn set_at(&self, moment: i64) -> Option<i64> {
        use lifecycle::Event as E;
        let by = |said: &&Said<E>| said.at <= moment;
        let own = Self::settings(self.said().filter(by), i64::MIN, None);
        if let Some((Some(own), _)) = own {
            return Some(own);
        }
        let fleets = self.said().filter(by).filter_map(|said| match &said.event {
            E::Registered(v1::Registered { fleet, .. }) | E::Moved(v1::Moved { fleet, .. }) => {
                Some((said.at, fleet.as_str()))
            }
            _ => None,
        });
        let (_, fleet) = fleets.max_by_key(|(at, _)| *at).filter(|(_, fleet)| !fleet.is_empty())?;
        let scopes = self.scope_lifecycle.iter().filter(by);
        Self::settings(scopes, i64::MIN, Some(fleet))?.0
    }

    /// The interval of a heartbeat at `at` that carries none: what its device had
    /// been told.
    fn told_ms(&self, at: i64) -> i64 {
        let Rules { slack_ms, grace_ms, default_poll_interval_ms: default, .. } = *self.rules;
        let all = self.lifecycle.iter().chain(self.scope_lifecycle);
        let moments: BTreeSet<i64> = all.map(|said| said.at).collect();
        let set = |moment: i64| self.set_at(moment);
        let near = moments.range(at - slack_ms + 1..=at + slack_ms).copied();
        let near: Vec<_> = near.chain([at - slack_ms]).map(set).collect();
        if near.iter().any(Option::is_some) {
            return near.into_iter().map(|set| set.unwrap_or(default)).max().unwrap_or(default);
        }
        let expiry = at + span_ms(self.rules, default) + grace_ms;
        let mut later = moments.range(at + slack_ms + 1..expiry.max(at + slack_ms + 1)).copied();
        later.find_map(set).map_or(default, |set| set.max(default))
    }

    fn is_frozen<'b>(
        said: impl Iterator<Item = &'b Said<lifecycle::Event>>,
        exists: impl Fn(&Said<lifecycle::Event>) -> bool,
        what: impl Fn(&lifecycle::Event) -> Option<(i32, bool)>,
    ) -> bool {
        // By reason, 4 is other.
        let mut registers = [None; 5];
        for said in said.filter(|said| exists(said)) {
            let Some((reason, frozen)) = what(&said.event) else { continue };
            let reasons = match (reason, frozen) {
                (0, true) => 4..=4,
                (0, false) => 1..=4,
                (reason, _) => reason as usize..=reason as usize,
            };
            for register in &mut registers[reasons] {
                see(register, said.at, frozen);
            }
        }
        registers.into_iter().any(is_set)
    }

    fn session_counts(&self, instance: &str, opened: i64, clock: i64) -> bool {
        let of = |name: &str| name == instance;
        let mut lost = i64::MIN;
        let mut started = i64::MIN;
        for said in self.scope_vpn {
            match &said.event {
                vpn::Event::InstanceLost(event) if of(&event.instance) => lost = lost.max(said.at),
                vpn::Event::InstanceAlive(event) if of(&event.instance) => {
                    let start = ms(event.started_at.as_ref()).unwrap_or(i64::MIN);
                    if start <= said.written_at {
                        started = started.max(start);
                    }
                }
                _ => {}
            }
        }
        let mut lease = Lease::default();
        for said in self.scope_vpn {
            if let vpn::Event::InstanceAlive(event) = &said.event
                && of(&event.instance)
                && ms(event.started_at.as_ref()).is_none_or(|start| start == started)
            {
                let lease_ms = event.lease.as_ref().map_or(0, duration_ms);
                lease.tell(counted(self.rules, said), said.at, Some(lease_ms));
            }
        }
        let end = lease.end().unwrap_or(i64::MAX);
        opened > lost && opened >= started && clock < end
    }

    /// The last deletion.
    fn deletion(&self) -> Deletion {
        use lifecycle::Event as E;
        let (mut floor, mut read_at, mut names_read_at) = (i64::MIN, i64::MIN, i64::MIN);
        let mut registered: Two = None;
        for said in self.lifecycle {
            match &said.event {
                E::Deleted(_) => {
                    let is_registered = registered.is_some_and(|(at, is, _)| is && at == said.at);
                    if said.at > floor || said.at == floor && !is_registered {
                        names_read_at = said.offset;
                    }
                    if said.at >= floor {
                        (floor, read_at) = (said.at, said.offset);
                    }
                    see(&mut registered, said.at, false);
                }
                E::Registered(_) => see(&mut registered, said.at, true),
                _ => {}
            }
        }
        Deletion { at: floor, read_at, names_read_at, registered: is_set(registered) }
    }

    /// What the lifecycle says of the device, without what its deletion took away.
    fn said(&self) -> impl Iterator<Item = &'a Said<lifecycle::Event>> + Clone {
        use lifecycle::Event as E;
        let Deletion { at: deleted, read_at, names_read_at, .. } = self.deletion();
        self.lifecycle.iter().filter(move |said| {
            let names = matches!(said.event, E::Registered(_) | E::Moved(_));
            let read_at = if names { names_read_at } else { read_at };
            said.at > deleted || said.at == deleted && said.offset > read_at
        })
    }

    /// Fleet and organization.
    pub fn belongs_to(&self) -> (&'a str, &'a str) {
        use lifecycle::Event as E;
        let membership = self.said().filter_map(|said| match &said.event {
            E::Registered(v1::Registered { fleet, organization, .. })
            | E::Moved(v1::Moved { fleet, organization }) => {
                Some((said.at, (fleet.as_str(), organization.as_str())))
            }
            _ => None,
        });
        // Of one instant the later in the log.
        membership.max_by_key(|(at, _)| *at).unwrap_or_default().1
    }

    /// Status and connectivity at an instant; leases as they stand at another.
    pub fn shown(&self, clock: i64, lease_clock: i64) -> Shown {
        use lifecycle::Event as E;
        let Model { heartbeats, vpn, .. } = *self;
        let Deletion { at: deleted, registered, .. } = self.deletion();
        if deleted > i64::MIN && !registered {
            return None;
        }
        let latest = |is: fn(&E) -> bool| {
            self.said().filter(|said| is(&said.event)).map(|said| said.at).max()
        };
        let two = |what: &dyn Fn(&E) -> Option<bool>| {
            let mut register = None;
            for said in self.said() {
                if let Some(value) = what(&said.event) {
                    see(&mut register, said.at, value);
                }
            }
            register
        };
        let provisioned = latest(|event| matches!(event, E::Provisioned(_)));
        let activated = latest(|event| matches!(event, E::Activated(_)));
        let active = two(&|event| match event {
            E::Activated(_) => Some(true),
            E::Deactivated(_) => Some(false),
            _ => None,
        });

        let sessions = Sessions::of(self.rules, vpn, deleted);
        let heartbeat = heartbeats.iter().filter(|said| said.at > deleted).max_by_key(|s| s.at);
        let went_away = heartbeat.is_some_and(|said| self.going_away.contains(&said.offset));
        let heartbeat = heartbeat.map(|said| (said.at, said.event));
        let contact = heartbeat.map(|(at, _)| at).max(sessions.contact);
        if contact.is_none() && !registered && provisioned.is_none() {
            return None;
        }

        let (fleet, organization) = self.belongs_to();

        let own = Self::settings(self.said(), i64::MIN, None).unwrap_or_default();
        let mut of_fleet = (None, None);
        if !fleet.is_empty() {
            let settings = Self::settings(self.scope_lifecycle.iter(), i64::MIN, Some(fleet));
            of_fleet = settings.unwrap_or_default();
        }
        let vpn_disabled = !own.1.or(of_fleet.1).unwrap_or(self.rules.vpn_enabled_by_default);

        let all = |_: &Said<E>| true;
        let frozen = Self::is_frozen(self.said(), all, |event| match event {
            E::Frozen(event) => Some((event.reason, true)),
            E::Unfrozen(event) => Some((event.reason, false)),
            _ => None,
        }) || !fleet.is_empty()
            && Self::is_frozen(self.scope_lifecycle.iter(), all, |event| match event {
                E::FleetFrozen(event) if event.fleet == fleet => Some((event.reason, true)),
                E::FleetUnfrozen(event) if event.fleet == fleet => Some((event.reason, false)),
                _ => None,
            })
            || !organization.is_empty()
                && Self::is_frozen(self.scope_lifecycle.iter(), all, |event| match event {
                    E::OrganizationFrozen(event) if event.organization == organization => {
                        Some((event.reason, true))
                    }
                    E::OrganizationUnfrozen(event) if event.organization == organization => {
                        Some((event.reason, false))
                    }
                    _ => None,
                });

        // Rung by rung.
        let vpn_up = sessions.open.iter().any(|session| {
            session.lease_end.is_none_or(|end| lease_clock < end)
                && self.session_counts(&session.instance, session.opened_at, lease_clock)
        });
        let (mut beats, mut beats_or_grace) = (false, false);
        if let Some((at, carried)) = heartbeat.filter(|_| !went_away) {
            let interval_ms = carried.unwrap_or_else(|| self.told_ms(at));
            let timeout = at + span_ms(self.rules, interval_ms);
            beats = clock < timeout;
            beats_or_grace = clock < timeout + self.rules.grace_ms;
        }
        let preregistered = two(&|event| match event {
            E::Registered(event) => Some(event.preregistered),
            _ => None,
        });
        // Until the first contact or activation, whatever its time.
        let inactive = is_set(preregistered) && contact.is_none() && activated.is_none()
            || active.is_some_and(|(at, active, _)| !active && contact < Some(at));
        let configuring = is_set(two(&|event| match event {
            E::ConfigurationStarted(_) => Some(true),
            E::ConfigurationFinished(_) => Some(false),
            _ => None,
        }));
        // The last start, until a finish that names its release or none.
        let started = self.said().filter_map(|said| match &said.event {
            E::UpdateStarted(event) => Some((said.at, event.release.as_str())),
            _ => None,
        });
        let started = started.max_by_key(|(at, _)| *at).map(|(_, release)| release);
        let updating = is_set(two(&|event| match event {
            E::UpdateStarted(event) => (Some(&*event.release) == started).then_some(true),
            E::UpdateFinished(event) => {
                let named = event.release.as_deref().unwrap_or_default();
                (named.is_empty() || Some(named) == started).then_some(false)
            }
            _ => None,
        }));
        let status = if frozen {
            Status::Frozen
        } else if inactive {
            Status::Inactive
        } else if provisioned.is_some_and(|at| contact < Some(at)) {
            Status::PostProvisioning
        } else if contact.is_none() {
            Status::Configuring
        } else if !vpn_up && !beats_or_grace {
            Status::Offline
        } else if configuring {
            Status::Configuring
        } else if updating && beats_or_grace {
            Status::Updating
        } else {
            Status::Online
        };
        let connectivity = match (vpn_up, beats, beats_or_grace) {
            (true, true, _) => Connectivity::Full,
            (true, false, _) => Connectivity::VpnOnly,
            (false, _, true) if vpn_disabled => Connectivity::Full,
            (false, _, true) => Connectivity::HeartbeatOnly,
            (false, _, false) => Connectivity::None,
        };
        Some((status, connectivity))
    }
}
