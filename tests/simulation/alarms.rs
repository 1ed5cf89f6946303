//! What the service says at error level while a world lives. Somebody is called
//! out of bed for it, so that it must be so.

use std::cell::RefCell;
use std::fmt::{Debug, Write as _};
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// What is so in worlds where offsets are lost, retention is ahead of them, or a
/// member is cut off for a minute.
const EXPLAINED: [&str; 5] = [
    "offset out of range",
    "committed offsets or their metadata are gone",
    // The offsets were lost between the two parts of an assignment.
    "no committed offset for this input",
    // By a member that was cut off, whose successor has read them.
    "records were deleted before they were read",
    // The other part of an assignment does not reach a member that is cut off.
    "a shard waits for inputs that are not assigned to this thread",
];

thread_local! {
    static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Listener;

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        TOLD.with_borrow_mut(|told| told.push(line.message + &line.fields));
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

/// From now on alarms are heard; `aloud`: and what `RUST_LOG` asks for is shown.
pub fn listen(aloud: bool) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let shown = aloud.then(|| {
            tracing_subscriber::fmt::layer()
                .without_time()
                .with_filter(EnvFilter::from_default_env())
        });
        let heard = Listener.with_filter(LevelFilter::ERROR);
        tracing_subscriber::registry().with(shown).with(heard).init();
    });
}

/// What was told on this thread since the last call.
pub fn take() -> Vec<String> {
    TOLD.take()
}

/// The first alarm that no fault of a world explains.
pub fn false_alarm(told: Vec<String>) -> Option<String> {
    told.into_iter().find(|line| !EXPLAINED.iter().any(|known| line.starts_with(known)))
}
