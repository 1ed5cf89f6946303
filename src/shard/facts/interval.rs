//! The interval by which a heartbeat is judged, as stored with the heartbeat
//! (rule J3).

/// The interval of a heartbeat, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeartbeatInterval {
    /// The heartbeat carried it, in seconds.
    Carried(u32),
    /// It was set at the heartbeat's time, in seconds.
    Set(u32),
    /// The same, and the default counts if it is longer: it also applied within
    /// the allowed lateness, or the first setting came after the heartbeat.
    SetOrDefault(u32),
    /// Nothing was set: the present default.
    #[default]
    Default,
}

impl HeartbeatInterval {
    /// The interval, given the default, in milliseconds.
    #[must_use]
    pub fn ms(self, default_ms: i64) -> i64 {
        let ms = |seconds| i64::from(seconds) * 1_000;
        match self {
            HeartbeatInterval::Carried(seconds) | HeartbeatInterval::Set(seconds) => ms(seconds),
            HeartbeatInterval::SetOrDefault(seconds) => ms(seconds).max(default_ms),
            HeartbeatInterval::Default => default_ms,
        }
    }

    /// The known interval without the default, in seconds.
    #[must_use]
    pub fn seconds(self) -> Option<u32> {
        match self {
            HeartbeatInterval::Carried(seconds)
            | HeartbeatInterval::Set(seconds)
            | HeartbeatInterval::SetOrDefault(seconds) => Some(seconds),
            HeartbeatInterval::Default => None,
        }
    }

    /// The interval that the heartbeat carried, in seconds.
    #[must_use]
    pub fn carried(self) -> Option<u32> {
        match self {
            HeartbeatInterval::Carried(seconds) => Some(seconds),
            _ => None,
        }
    }

    /// Whether the default counts in it.
    pub(in crate::shard) fn is_of_default(self) -> bool {
        matches!(self, HeartbeatInterval::SetOrDefault(_) | HeartbeatInterval::Default)
    }
}

/// The same in four bytes, for hot rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct IntervalCode(u32);

impl IntervalCode {
    const CARRIED: u32 = 1 << 31;
    const OR_DEFAULT: u32 = 1 << 30;
    const STEADY: u32 = 1 << 29;
    /// Seconds; 0: nothing was set.
    const SECONDS: u32 = IntervalCode::STEADY - 1;

    pub const DEFAULT: IntervalCode = IntervalCode(0);

    /// The interval of a heartbeat that carries it, in seconds.
    pub fn carried(seconds: u32) -> IntervalCode {
        IntervalCode::new(HeartbeatInterval::Carried(seconds))
    }

    pub fn new(interval: HeartbeatInterval) -> IntervalCode {
        // An interval is never 0. If 0 is read back, it is the shortest interval.
        let held = |seconds: u32| seconds.clamp(1, IntervalCode::SECONDS);
        IntervalCode(match interval {
            HeartbeatInterval::Carried(seconds) => held(seconds) | IntervalCode::CARRIED,
            HeartbeatInterval::Set(seconds) => held(seconds),
            HeartbeatInterval::SetOrDefault(seconds) => held(seconds) | IntervalCode::OR_DEFAULT,
            HeartbeatInterval::Default => 0,
        })
    }

    /// Marks it as steady: by the known facts, every later heartbeat without an
    /// interval has it too. Such a heartbeat then needs no cold facts.
    pub fn steady(self, steady: bool) -> IntervalCode {
        let mark = if steady { IntervalCode::STEADY } else { 0 };
        IntervalCode(self.0 & !IntervalCode::STEADY | mark)
    }

    pub fn is_steady(self) -> bool {
        self.0 & IntervalCode::STEADY != 0
    }

    pub fn get(self) -> HeartbeatInterval {
        let seconds = self.0 & IntervalCode::SECONDS;
        match self.0 & (IntervalCode::CARRIED | IntervalCode::OR_DEFAULT) {
            _ if seconds == 0 => HeartbeatInterval::Default,
            0 => HeartbeatInterval::Set(seconds),
            IntervalCode::OR_DEFAULT => HeartbeatInterval::SetOrDefault(seconds),
            _ => HeartbeatInterval::Carried(seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_read_back_as_they_were() {
        const YEAR_S: u32 = 366 * 24 * 3_600;
        for seconds in [1, 900, YEAR_S] {
            for interval in [
                HeartbeatInterval::Carried(seconds),
                HeartbeatInterval::Set(seconds),
                HeartbeatInterval::SetOrDefault(seconds),
                HeartbeatInterval::Default,
            ] {
                for steady in [false, true] {
                    let code = IntervalCode::new(interval).steady(steady);
                    assert_eq!((code.get(), code.is_steady()), (interval, steady));
                }
            }
        }
    }

    #[test]
    fn the_default_counts_where_nothing_was_set_or_it_is_longer() {
        assert_eq!(HeartbeatInterval::Set(60).ms(900_000), 60_000);
        assert_eq!(HeartbeatInterval::SetOrDefault(60).ms(900_000), 900_000);
        assert_eq!(HeartbeatInterval::SetOrDefault(3_600).ms(900_000), 3_600_000);
        assert_eq!(HeartbeatInterval::Default.ms(900_001), 900_001);
    }
}
