//! What stands beside a committed offset, which an operator's tool may have
//! written.
#![cfg_attr(fuzzing, no_main)]

use device_status::wire::metadata::ShardMetadata;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| check(data));

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(metadata) = ShardMetadata::decode(text) {
        assert_eq!(ShardMetadata::decode(&metadata.encode()), Some(metadata));
    }
}
