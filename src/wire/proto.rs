//! The types that `build.rs` generates from `proto/`.

/// The messages of the inputs and outputs.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/device_status.v1.rs"));
}
