//! The types generated from `proto/`.

/// Package `device_status.v1`: messages that other programs read and write.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/device_status.v1.rs"));
}

/// Package `device_status.changelog.v1`: messages that only this service reads.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod changelog {
    include!(concat!(env!("OUT_DIR"), "/device_status.changelog.v1.rs"));
}
