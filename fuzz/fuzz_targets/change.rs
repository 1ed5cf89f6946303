//! A record of the topic of changes. One that is read is written and read again
//! as the same.
#![cfg_attr(fuzzing, no_main)]

use device_status::wire::status_changed::{ChangeFormat, decode, encode};

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| check(data));

pub fn check(value: &[u8]) {
    if let Ok(change) = decode(value) {
        let (_, written) = encode(&change, ChangeFormat::Protobuf);
        assert_eq!(decode(&written), Ok(change));
    }
}
