//! The types generated from `proto/`.

/// Package `device_status.v1`: what is read and written by others.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/device_status.v1.rs"));
}

/// Package `device_status.changelog.v1`: read only by ourselves.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod changelog {
    include!(concat!(env!("OUT_DIR"), "/device_status.changelog.v1.rs"));
}
