//! Logs and metrics.

mod ages;
pub mod limit;
mod logs;
mod publish;
mod recorder;
mod table;

pub use logs::init_logging;
pub use publish::{ThreadMetrics, publish_views};
pub use recorder::{describe_all, install, render};
pub use table::*;
