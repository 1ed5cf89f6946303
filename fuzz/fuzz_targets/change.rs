//! A record of the topic of changes. One that is read is written and read again
//! as the same.
#![no_main]

use device_status::wire::status_changed::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    if let Ok(change) = decode(value) {
        let (_, written) = encode(&change);
        assert_eq!(decode(&written), Ok(change));
    }
});
