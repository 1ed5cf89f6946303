//! The auditor's own model of a device: what it shows at an instant, from the
//! text of the rules.

use std::collections::{BTreeMap, BTreeSet};

use device_status::shard::Rules;
use device_status::wire::proto::v1::{
    self, Connectivity, Status, lifecycle_event as lifecycle, vpn_event as vpn,
};

use super::{Device, Said, Scopes, duration_ms, ms, poll_interval_ms};

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
            Some((said.at, poll.as_ref().map(poll_interval_ms), vpn))
        });
        // Of the same instant the later in the log holds.
        settings.max_by_key(|(at, ..)| *at).map(|(_, poll, vpn)| (poll, vpn))
    }

    /// The interval that was set at a moment: the device's, else that of the fleet
    /// that it was in.
    fn set_at(&self, moment: i64, deleted: i64) -> Option<i64> {
        use lifecycle::Event as E;
        let by = |said: &&Said<E>| said.at <= moment;
        let own = Self::settings(self.lifecycle.iter().filter(by), deleted, None);
        if let Some((Some(own), _)) = own {
            return Some(own);
        }
        let fleets = self.lifecycle.iter().filter(by).filter_map(|said| match &said.event {
            E::Registered(v1::Registered { fleet, .. }) | E::Moved(v1::Moved { fleet, .. }) => {
                (said.at > deleted).then_some((said.at, fleet.as_str()))
            }
            _ => None,
        });
        let (_, fleet) = fleets.max_by_key(|(at, _)| *at).filter(|(_, fleet)| !fleet.is_empty())?;
        let scopes = self.scope_lifecycle.iter().filter(by);
        Self::settings(scopes, i64::MIN, Some(fleet))?.0
    }

    /// The interval of a heartbeat at `at` that carries none: what its device had
    /// been told.
    fn told_ms(&self, at: i64, deleted: i64) -> i64 {
        let Rules { slack_ms, grace_ms, default_poll_interval_ms: default, .. } = *self.rules;
        let all = self.lifecycle.iter().chain(self.scope_lifecycle);
        let moments: BTreeSet<i64> = all.map(|said| said.at).collect();
        let set = |moment: i64| self.set_at(moment, deleted);
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
        let leases = self.scope_vpn.iter().filter_map(|said| match &said.event {
            vpn::Event::InstanceAlive(event) if of(&event.instance) => {
                let start = ms(event.started_at.as_ref());
                let current = start.is_none_or(|start| start == started);
                current.then(|| (said.at, event.lease.as_ref().map_or(0, duration_ms)))
            }
            _ => None,
        });
        let end = leases.max().map_or(i64::MAX, |(at, lease)| at + lease);
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

        let mut opened: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        let mut closed = BTreeSet::new();
        for said in vpn.iter().filter(|said| said.at > deleted) {
            match &said.event {
                vpn::Event::SessionOpened(event) => {
                    let at = opened.entry((&event.instance, &event.session)).or_insert(said.at);
                    *at = (*at).max(said.at);
                }
                vpn::Event::SessionClosed(event) => {
                    closed.insert((event.instance.as_str(), event.session.as_str()));
                }
                _ => {}
            }
        }
        let heartbeat =
            heartbeats.iter().filter(|s| s.at > deleted).map(|said| (said.at, said.event)).max();
        let contact = heartbeat.map(|(at, _)| at).max(opened.values().copied().max());
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
        let vpn_up = opened.iter().any(|((instance, session), at)| {
            !closed.contains(&(*instance, *session))
                && self.session_counts(instance, *at, lease_clock)
        });
        let (mut beats, mut beats_or_grace) = (false, false);
        if let Some((at, carried)) = heartbeat {
            let interval_ms = carried.unwrap_or_else(|| self.told_ms(at, deleted));
            let timeout = at + span_ms(self.rules, interval_ms);
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
