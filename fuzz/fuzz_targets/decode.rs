//! A record of an input in any format: two bytes choose input and format, the
//! third is the length of the key, or 255 for none; the rest is the value.
#![cfg_attr(fuzzing, no_main)]

use device_status::shard::{EventBody, Input};
use device_status::wire::decode::to_json;
use device_status::wire::{Format, decode};

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| check(data));

pub fn check(data: &[u8]) {
    let [input, format, key_length, rest @ ..] = data else { return };
    let input = Input::ALL[usize::from(*input) % 3];
    let format = Format::ALL[usize::from(*format) % 3];
    let (key, value) = match key_length {
        255 => (None, rest),
        length => {
            let (key, value) = rest.split_at(rest.len().min(usize::from(*length)));
            (Some(key), value)
        }
    };
    let event = decode(input, format, key, Some(value));
    let _ = decode(input, format, key, None);
    let _ = to_json(input, format, value);
    if let Ok(event) = event {
        let broadcast = matches!(event.body, EventBody::Scope(_));
        assert_eq!(broadcast, key.is_none(), "{event:?}");
    }
}
