//! What stands beside a committed offset, which an operator's tool may have
//! written.
#![no_main]

use device_status::wire::metadata::ShardMetadata;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(metadata) = ShardMetadata::decode(text) {
        assert_eq!(ShardMetadata::decode(&metadata.encode()), Some(metadata));
    }
});
