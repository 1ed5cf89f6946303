//! The headers of a dead letter, a line each: name, equals sign, value. A line
//! without one is a header without a value.
#![cfg_attr(fuzzing, no_main)]

use device_status::wire::dead_letter::{HEADER_PREFIX, read, replayed};

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| check(data));

pub fn check(data: &[u8]) {
    let headers: Vec<(String, Option<Vec<u8>>)> = data
        .split(|byte| *byte == b'\n')
        .map(|line| {
            let mut parts = line.splitn(2, |byte| *byte == b'=');
            let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
            (name, parts.next().map(<[u8]>::to_vec))
        })
        .collect();
    let _ = read(&headers);
    let back = replayed(&headers, "topic/0/1");
    assert!(back.iter().all(|(name, _)| !name.starts_with(HEADER_PREFIX)));
    assert_eq!(read(&back).replayed.as_deref(), Some("topic/0/1"));
}
