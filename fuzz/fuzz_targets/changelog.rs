//! A record of the changelog: the first byte is the length of the key. What is
//! read is written and read again as the same.
#![cfg_attr(fuzzing, no_main)]

use device_status::wire::changelog::{decode, encode};

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| check(data));

pub fn check(data: &[u8]) {
    let [key_length, rest @ ..] = data else { return };
    let (key, value) = rest.split_at(rest.len().min(usize::from(*key_length)));
    let _ = decode(None, Some(value));
    let _ = decode(Some(key), None);
    if let Ok(Some(entry)) = decode(Some(key), Some(value)) {
        let (key, value) = encode(&entry);
        let again = decode(Some(&key), value.as_deref()).unwrap();
        assert_eq!(again, Some(entry));
    }
}
