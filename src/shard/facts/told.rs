//! The interval of a heartbeat, from the settings that its device had been told
//! (rule J3).

use super::earlier::{held_at, interval_at};
use super::interval::HeartbeatInterval;
use super::seen::{Facts, IntervalOf, View};
use crate::shard::event::Timestamp;

/// The interval of a heartbeat that carries none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Told {
    pub interval: HeartbeatInterval,
    /// Any later heartbeat has the same.
    pub steady: bool,
}

impl Facts<'_> {
    /// The interval of a heartbeat at `at` that carries none.
    pub fn told(&self, at: Timestamp, view: View) -> Told {
        let slack_ms = self.rules.slack_ms.max(0);
        let (from, to) = (at.plus_ms(-slack_ms), at.plus_ms(slack_ms));
        let first = self.set_at(from, view);
        let later = self.told_after(from, view);
        let later: Vec<_> = later.into_iter().map(|at| (at, self.set_at(at, view))).collect();
        let (within, after) = later.split_at(later.partition_point(|(moment, _)| *moment <= to));
        let held = || std::iter::once(first).chain(within.iter().map(|(_, set)| *set));
        let interval = match held().flatten().max() {
            Some(longest) if held().all(|set| set.is_some()) => HeartbeatInterval::Set(longest),
            Some(longest) => HeartbeatInterval::SetOrDefault(longest),
            // Enrolled just now.
            None => {
                let expiry = self.default_expiry(at);
                let in_time = after.iter().take_while(|(moment, _)| *moment < expiry);
                let set = in_time.filter_map(|(_, set)| *set).next();
                set.map_or(HeartbeatInterval::Default, HeartbeatInterval::SetOrDefault)
            }
        };
        Told { interval, steady: later.iter().all(|(_, set)| *set == first) }
    }

    /// Whether a setting or a move at `at` may change the interval of the last
    /// heartbeat. One that counts only for the next heartbeats may not: so the
    /// stored interval stands, also if the setting at the heartbeat's time is
    /// forgotten.
    pub fn concerns_heartbeat(&self, at: Timestamp) -> bool {
        let Some(heartbeat) = self.hot.heartbeat.get() else { return false };
        let interval = self.hot.interval.get();
        if interval.carried().is_some() {
            return false;
        }
        at <= heartbeat.plus_ms(self.rules.slack_ms.max(0))
            || interval.is_of_default() && at < self.default_expiry(heartbeat)
    }

    /// The interval of the last heartbeat, as it was known then.
    pub fn heartbeat_interval(&self, view: View) -> HeartbeatInterval {
        let kept = self.hot.interval.get();
        let (View::AsOf { .. }, Some(heartbeat)) = (view, self.hot.heartbeat.get()) else {
            return kept;
        };
        let unseen = |at: &Timestamp| !view.sees(*at) && self.concerns_heartbeat(*at);
        if self.told_after(heartbeat, View::Now).iter().any(unseen) {
            self.told(heartbeat, view).interval
        } else {
            kept
        }
    }

    /// All intervals that the last heartbeat may have had.
    pub fn heartbeat_intervals(&self) -> Vec<HeartbeatInterval> {
        let mut all = vec![self.hot.interval.get()];
        if all[0].carried().is_none() {
            all.push(HeartbeatInterval::Default);
            let of_fleets = self.known_fleets().flat_map(|fleet| {
                let facts = self.scopes.fleet(fleet, self.before);
                let last = facts.settings.and_then(|held| held.value.poll_interval_s);
                facts.earlier_settings.iter().filter_map(|held| held.value).chain(last)
            });
            all.extend(self.own_intervals().chain(of_fleets).map(HeartbeatInterval::Set));
        }
        all
    }

    /// The interval of the last heartbeat, in milliseconds, and its origin.
    pub fn interval_explained(&self, judged: Timestamp) -> (i64, IntervalOf) {
        let interval = match self.hot.heartbeat.get() {
            Some(_) => self.hot.interval.get(),
            None => self.told(judged, View::Now).interval,
        };
        let interval_ms = interval.ms(self.rules.default_poll_interval_ms);
        let of_setting = |seconds| match self.own_intervals().any(|own| own == seconds) {
            true => IntervalOf::Device,
            false => IntervalOf::Fleet,
        };
        let whose = match interval {
            HeartbeatInterval::Carried(_) => IntervalOf::Heartbeat,
            HeartbeatInterval::Set(seconds) => of_setting(seconds),
            HeartbeatInterval::SetOrDefault(seconds) => {
                let longer = interval_ms > i64::from(seconds) * 1_000;
                if longer { IntervalOf::Default } else { of_setting(seconds) }
            }
            HeartbeatInterval::Default => IntervalOf::Default,
        };
        (interval_ms, whose)
    }

    /// The known intervals that were set for the device itself.
    fn own_intervals(&self) -> impl Iterator<Item = u32> {
        let known = &self.cold.facts;
        let last = known.settings.and_then(|held| held.value.poll_interval_s);
        known.earlier_settings.iter().filter_map(|held| held.value).chain(last)
    }

    fn default_expiry(&self, at: Timestamp) -> Timestamp {
        self.rules.deadlines(at, HeartbeatInterval::Default).1
    }

    /// The interval that was set at a moment, in seconds: the device's, else that
    /// of its fleet then.
    fn set_at(&self, moment: Timestamp, view: View) -> Option<u32> {
        let known = &self.cold.facts;
        let settings = known.settings.map(|held| held.map(|settings| settings.poll_interval_s));
        let sees = |at| view.sees(at);
        if let Some(own) = held_at(&known.earlier_settings, settings, moment, sees).flatten() {
            return Some(own);
        }
        let fleet = known.membership.map(|held| held.map(|membership| membership.fleet));
        let fleet = held_at(&known.earlier_fleets, fleet, moment, sees)?;
        interval_at(self.scopes.fleet(fleet, self.before), moment, |at| view.sees(at))
    }

    /// All fleets that the device is known to have been in.
    fn known_fleets(&self) -> impl Iterator<Item = u32> {
        let known = &self.cold.facts;
        let last = known.membership.map(|held| held.value.fleet);
        known.earlier_fleets.iter().map(|held| held.value).chain(last)
    }

    /// The times after a moment at which another interval may have been set, in
    /// order.
    fn told_after(&self, moment: Timestamp, view: View) -> Vec<Timestamp> {
        let known = &self.cold.facts;
        let own = known.earlier_settings.iter().map(|held| held.at);
        let own = own.chain(known.settings.map(|held| held.at));
        let moves = known.earlier_fleets.iter().map(|held| held.at);
        let moves = moves.chain(known.membership.map(|held| held.at));
        let of_fleets = self.known_fleets().flat_map(|fleet| {
            let facts = self.scopes.fleet(fleet, self.before);
            let earlier = facts.earlier_settings.iter().map(|held| held.at);
            earlier.chain(facts.settings.map(|held| held.at))
        });
        let own = own.chain(moves).filter(|at| view.sees(*at));
        let all = own.chain(of_fleets.filter(|at| view.sees(*at)));
        let mut all: Vec<_> = all.filter(|at| *at > moment).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::event::{DeviceEvent, ScopeEvent, Settings};
    use crate::shard::facts::device::Cold;
    use crate::shard::facts::scope::Scopes;
    use crate::shard::hot::{Hot, Instant48};
    use crate::shard::rules::Rules;

    /// Settings for a device that polls at 100 s, with an allowed lateness of 2
    /// s.
    struct Device {
        cold: Cold,
        scopes: Scopes,
        rules: Rules,
    }

    impl Device {
        fn new() -> Device {
            let rules = Rules { slack_ms: 2_000, ..Rules::default() };
            Device { cold: Cold::default(), scopes: Scopes::default(), rules }
        }

        fn set(mut self, at_s: i64, interval_s: impl Into<Option<u32>>) -> Device {
            let event = DeviceEvent::SettingsChanged(settings(interval_s.into()));
            self.join(at_s, &event);
            self
        }

        fn moved(mut self, at_s: i64, fleet: &str) -> Device {
            self.join(at_s, &DeviceEvent::Moved { fleet: fleet.into(), organization: "".into() });
            self
        }

        fn join(&mut self, at_s: i64, event: &DeviceEvent) {
            let at = Timestamp(at_s * 1_000);
            self.cold.join(at, event, &mut self.scopes);
        }

        fn fleet(mut self, fleet: &str, at_s: i64, interval_s: impl Into<Option<u32>>) -> Device {
            let (fleet, settings) = (fleet.into(), settings(interval_s.into()));
            let event = ScopeEvent::FleetSettingsChanged { fleet, settings };
            let at = Timestamp(at_s * 1_000);
            self.scopes.apply(at, at, at, Timestamp::MIN, &event);
            self
        }

        fn told(&self) -> (HeartbeatInterval, bool) {
            let at = Timestamp(100_000);
            let hot = Hot { heartbeat: Instant48::some(at), ..Hot::EMPTY };
            let Device { cold, scopes, rules } = self;
            let facts = Facts { hot: &hot, cold, scopes, rules, before: false, leases_at: at };
            let Told { interval, steady } = facts.told(at, View::Now);
            (interval, steady)
        }
    }

    fn settings(poll_interval_s: Option<u32>) -> Settings {
        Settings { poll_interval_s, vpn_enabled: None }
    }

    #[test]
    fn default_is_steady_while_nothing_was_set() {
        assert_eq!(Device::new().told(), (HeartbeatInterval::Default, true));
        let moved = Device::new().moved(90, "f").moved(100, "g").fleet("h", 1, 60);
        assert_eq!(moved.told(), (HeartbeatInterval::Default, true));
    }

    #[test]
    fn set_interval_is_steady_until_another_is_set() {
        let fleet = || Device::new().fleet("f", 50, 600).moved(60, "f");
        assert_eq!(fleet().told(), (HeartbeatInterval::Set(600), true));
        assert_eq!(fleet().set(98, 60).told(), (HeartbeatInterval::Set(60), true));
        assert_eq!(fleet().set(99, 60).told(), (HeartbeatInterval::Set(600), false));
        assert_eq!(fleet().set(102, 900).told(), (HeartbeatInterval::Set(900), false));
        assert_eq!(fleet().set(103, 900).told(), (HeartbeatInterval::Set(600), false));
        assert_eq!(fleet().moved(103, "g").told(), (HeartbeatInterval::Set(600), false));
        assert_eq!(fleet().fleet("f", 103, None).told(), (HeartbeatInterval::Set(600), false));
        // A duplicate makes no difference. Nor does a fleet's setting that the
        // device's own setting overrides.
        assert_eq!(fleet().fleet("f", 103, 600).told(), (HeartbeatInterval::Set(600), true));
        let hidden = fleet().set(50, 60).fleet("f", 103, 900).moved(104, "g");
        assert_eq!(hidden.told(), (HeartbeatInterval::Set(60), true));
    }

    #[test]
    fn default_counts_if_it_applied_or_all_settings_are_later() {
        let at = |at_s| Device::new().set(at_s, 60).told();
        assert_eq!(at(98), (HeartbeatInterval::Set(60), true));
        assert_eq!(at(99), (HeartbeatInterval::SetOrDefault(60), false));
        assert_eq!(at(103), (HeartbeatInterval::SetOrDefault(60), false));
        // It expires by the default after 1 365 s.
        assert_eq!(at(1_464), (HeartbeatInterval::SetOrDefault(60), false));
        assert_eq!(at(1_465), (HeartbeatInterval::Default, false));
        let first = Device::new().set(110, 60).set(120, 70);
        assert_eq!(first.told(), (HeartbeatInterval::SetOrDefault(60), false));
    }
}
