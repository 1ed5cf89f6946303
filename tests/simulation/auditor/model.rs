//! The auditor's own model of a device: what it shows at an instant, from the
//! text of the rules.

use device_status::shard::Rules;
use device_status::wire::proto::v1::{
    self, Connectivity, Status, lifecycle_event as lifecycle, vpn_event as vpn,
};

use super::sessions::{Lease, Sessions, counted};
use super::{Device, Said, Scopes, duration_ms, ms};

pub type Shown = Option<(Status, Connectivity)>;

/// How long a heartbeat counts.
pub fn span_ms(rules: &Rules, interval_ms: i64) -> i64 {
    let counted = interval_ms.max(rules.minimum_ms);
    (rules.tolerance * counted as f64).ceil() as i64
}

/// What was said of a device and of its scopes, as far as it was read.
#[derive(Clone, Copy)]
pub struct Model<'a> {
    rules: &'a Rules,
    heartbeats: &'a [Said<Option<i64>>],
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
            Some((said.at, poll.as_ref().map(duration_ms), vpn))
        });
        settings.max().map(|(_, poll, vpn)| (poll, vpn))
    }

    fn is_frozen<'b>(
        said: impl Iterator<Item = &'b Said<lifecycle::Event>>,
        deleted: i64,
        what: impl Fn(&lifecycle::Event) -> Option<(i32, bool)>,
    ) -> bool {
        // By reason, 4 is other: the latest, frozen over unfrozen.
        let mut registers = [(i64::MIN, false); 5];
        for said in said.filter(|said| said.at > deleted) {
            let Some((reason, frozen)) = what(&said.event) else { continue };
            let reasons = match (reason, frozen) {
                (0, true) => 4..=4,
                (0, false) => 1..=4,
                (reason, _) => reason as usize..=reason as usize,
            };
            for register in &mut registers[reasons] {
                *register = (*register).max((said.at, frozen));
            }
        }
        registers.iter().any(|(_, frozen)| *frozen)
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

    /// Status and connectivity at an instant; leases as they stand at another.
    pub fn shown(&self, clock: i64, lease_clock: i64) -> Shown {
        use lifecycle::Event as E;
        let Model { heartbeats, vpn, lifecycle, .. } = *self;
        let latest = |is: fn(&E) -> bool| {
            lifecycle.iter().filter(|said| is(&said.event)).map(|said| said.at).max()
        };
        let deleted = latest(|event| matches!(event, E::Deleted(_))).unwrap_or(i64::MIN);
        let after = |at: Option<i64>| at.filter(|at| *at > deleted);
        let registered = after(latest(|event| matches!(event, E::Registered(_))));
        if deleted > i64::MIN && registered.is_none() {
            return None;
        }
        let provisioned = after(latest(|event| matches!(event, E::Provisioned(_))));
        let activated = after(latest(|event| matches!(event, E::Activated(_))));
        let deactivated = after(latest(|event| matches!(event, E::Deactivated(_))));

        let sessions = Sessions::of(self.rules, vpn, deleted);
        let heartbeat =
            heartbeats.iter().filter(|s| s.at > deleted).map(|said| (said.at, said.event)).max();
        let contact = heartbeat.map(|(at, _)| at).max(sessions.contact);
        if contact.is_none() && registered.is_none() && provisioned.is_none() {
            return None;
        }

        let membership = lifecycle
            .iter()
            .filter(|said| said.at > deleted)
            .filter_map(|said| match &said.event {
                E::Registered(v1::Registered { fleet, organization, .. })
                | E::Moved(v1::Moved { fleet, organization }) => {
                    Some((said.at, fleet.as_str(), organization.as_str()))
                }
                _ => None,
            })
            .max();
        let (_, fleet, organization) = membership.unwrap_or_default();

        let own = Self::settings(lifecycle.iter(), deleted, None).unwrap_or_default();
        let mut of_fleet = (None, None);
        if !fleet.is_empty() {
            let settings = Self::settings(self.scope_lifecycle.iter(), i64::MIN, Some(fleet));
            of_fleet = settings.unwrap_or_default();
        }
        let inherited = own.0.or(of_fleet.0).unwrap_or(self.rules.default_poll_interval_ms);
        let vpn_disabled = own.1.or(of_fleet.1) == Some(false);

        let frozen = Self::is_frozen(lifecycle.iter(), deleted, |event| match event {
            E::Frozen(event) => Some((event.reason, true)),
            E::Unfrozen(event) => Some((event.reason, false)),
            _ => None,
        }) || !fleet.is_empty()
            && Self::is_frozen(self.scope_lifecycle.iter(), i64::MIN, |event| match event {
                E::FleetFrozen(event) if event.fleet == fleet => Some((event.reason, true)),
                E::FleetUnfrozen(event) if event.fleet == fleet => Some((event.reason, false)),
                _ => None,
            })
            || !organization.is_empty()
                && Self::is_frozen(self.scope_lifecycle.iter(), i64::MIN, |event| match event {
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
        if let Some((at, carried)) = heartbeat {
            let timeout = at + span_ms(self.rules, carried.unwrap_or(inherited));
            beats = clock < timeout;
            beats_or_grace = clock < timeout + self.rules.grace_ms;
        }
        let preregistered = lifecycle
            .iter()
            .filter(|said| said.at > deleted)
            .filter_map(|said| match &said.event {
                E::Registered(event) => Some((said.at, event.preregistered)),
                _ => None,
            })
            .max()
            .filter(|(_, preregistered)| *preregistered)
            .map(|(at, _)| at);
        let inactive = [preregistered, deactivated]
            .into_iter()
            .flatten()
            .any(|at| contact < Some(at) && activated < Some(at));
        let in_progress = |started: fn(&E) -> bool, finished: fn(&E) -> bool| {
            after(latest(started)) > after(latest(finished))
        };
        let configuring = in_progress(
            |event| matches!(event, E::ConfigurationStarted(_)),
            |event| matches!(event, E::ConfigurationFinished(_)),
        );
        let updating = in_progress(
            |event| matches!(event, E::UpdateStarted(_)),
            |event| matches!(event, E::UpdateFinished(_)),
        );
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
