//! What `run` tells the service manager that started it, by the protocol of
//! `sd_notify(3)`. Without `NOTIFY_SOCKET` in the environment nobody is told.

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::admin::Health;

/// Tells a service manager about the process.
pub struct ServiceManager {
    /// How often it wants to hear that the process is live; `None` if it does not.
    watchdog_ms: Option<i64>,
    told: Told,
    /// Whether the last message failed, so that a failure is logged once.
    failed: bool,
}

/// What the service manager has been told.
#[derive(Clone, Default)]
struct Told {
    ready: bool,
    stopping: bool,
    status: String,
    /// When it last heard that the process is live, on the monotonic clock.
    live_ms: Option<i64>,
}

impl ServiceManager {
    /// The service manager of the environment.
    #[must_use]
    pub fn from_environment() -> ServiceManager {
        // It ends a process that is silent for the whole interval, so it hears of it
        // twice in each.
        let half = |interval: Duration| i64::try_from(interval.as_millis() / 2).ok();
        let watchdog_ms = sd_notify::watchdog_enabled().and_then(half);
        ServiceManager { watchdog_ms, told: Told::default(), failed: false }
    }

    /// Tells what is new. To be called several times a second.
    pub fn tell(&mut self, health: &Health, stopping: bool, now_ms: i64) {
        // What cannot be sent is sent again at the next call.
        let mut told = self.told.clone();
        let news = told.news(health, self.watchdog_ms, stopping, now_ms);
        if news.is_empty() {
            return;
        }
        let result = sd_notify::notify(&news);
        match &result {
            Ok(()) => self.told = told,
            Err(error) if !self.failed => warn!(
                %error,
                "cannot tell the service manager about this process, and it may end it. Check that \
                 NOTIFY_SOCKET in the environment names its socket"
            ),
            Err(_) => {}
        }
        self.failed = result.is_err();
    }
}

impl Told {
    /// What is to be told now. It then counts as told.
    fn news(
        &mut self,
        health: &Health,
        watchdog_ms: Option<i64>,
        stopping: bool,
        now_ms: i64,
    ) -> Vec<NotifyState<'_>> {
        let mut news = Vec::new();
        let unready = health.ready(now_ms).reasons.into_iter().next();
        if stopping && !self.stopping {
            self.stopping = true;
            news.push(NotifyState::Stopping);
        }
        // A process that is stopping is not ready.
        if unready.is_none() && !self.ready {
            self.ready = true;
            news.push(NotifyState::Ready);
        }
        let is_due = watchdog_ms.is_some_and(|interval_ms| {
            self.live_ms.is_none_or(|live_ms| now_ms - live_ms >= interval_ms)
        });
        if is_due && health.live(now_ms).ok {
            self.live_ms = Some(now_ms);
            news.push(NotifyState::Watchdog);
        }
        let status = match unready {
            _ if stopping => "stopping".to_owned(),
            None => "ready".to_owned(),
            // The protocol has one assignment per line.
            Some(reason) => format!("not ready: {}", reason.replace('\n', " ")),
        };
        if status != self.status {
            self.status = status;
            news.push(NotifyState::Status(&self.status));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{MAX_TURN_MS, RedisHealth, ThreadReport};

    /// What is told of a process with one thread and a watchdog of 100 ms.
    fn news(told: &mut Told, health: &Health, stopping: bool, now_ms: i64) -> Vec<String> {
        let news = told.news(health, Some(100), stopping, now_ms);
        news.iter().map(ToString::to_string).collect()
    }

    fn get_ready(health: &Health) {
        health.set_redis(RedisHealth::Available);
        health.report(0, ThreadReport { heard: true, ..ThreadReport::default() });
    }

    #[test]
    fn ready_and_stopping_are_told_once_and_a_status_when_it_changes() {
        let health = Health::new(1, 0);
        let mut told = Told::default();
        let unheard = "STATUS=not ready: stream thread 0 has no partition assignment from the \
                       consumer group yet";
        assert_eq!(news(&mut told, &health, false, 0), ["WATCHDOG=1", unheard]);
        get_ready(&health);
        assert_eq!(news(&mut told, &health, false, 1), ["READY=1", "STATUS=ready"]);
        health.set_redis(RedisHealth::Unavailable("gone\nREADY=1".to_owned()));
        let away = "STATUS=not ready: Redis is unavailable: gone READY=1";
        assert_eq!(news(&mut told, &health, false, 2), [away]);
        get_ready(&health);
        assert_eq!(news(&mut told, &health, false, 3), ["STATUS=ready"]);
        health.set_stopping();
        assert_eq!(news(&mut told, &health, true, 4), ["STOPPING=1", "STATUS=stopping"]);
        assert_eq!(news(&mut told, &health, true, 5), [""; 0]);
    }

    #[test]
    fn the_watchdog_hears_of_a_live_process_only() {
        let health = Health::new(1, 0);
        get_ready(&health);
        let mut told = Told::default();
        news(&mut told, &health, false, 0);
        assert_eq!(news(&mut told, &health, false, 99), [""; 0]);
        assert_eq!(news(&mut told, &health, false, 100), ["WATCHDOG=1"]);
        let stuck_ms = MAX_TURN_MS + 1;
        let stuck = "STATUS=not ready: stream thread 0 is stuck: its loop has not run for 30 s";
        assert_eq!(news(&mut told, &health, false, stuck_ms), [stuck]);
        health.turned(0, stuck_ms);
        assert_eq!(news(&mut told, &health, false, stuck_ms), ["WATCHDOG=1", "STATUS=ready"]);
        // A stop takes its time and is live; a process that has failed is not.
        health.set_stopping();
        let stop_ms = stuck_ms + 100;
        let stop = ["STOPPING=1", "WATCHDOG=1", "STATUS=stopping"];
        assert_eq!(news(&mut told, &health, true, stop_ms), stop);
        health.set_fatal("lost");
        assert_eq!(news(&mut told, &health, true, stop_ms + 100), [""; 0]);
    }
}
