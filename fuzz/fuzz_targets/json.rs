//! JSON that is read says the same when it is written and read as Protobuf.
#![cfg_attr(fuzzing, no_main)]

use device_status::wire::json;
use device_status::wire::proto::v1::{Heartbeat, LifecycleEvent, VpnEvent};
use prost::{Message, Name};

fn there_and_back<M: Message + Name + Default + PartialEq + std::fmt::Debug>(text: &[u8]) {
    let Ok(message) = json::read::<M>(text) else { return };
    let written = json::write(&message).unwrap();
    assert_eq!(json::read::<M>(written.as_bytes()).as_ref(), Ok(&message), "{written}");
    assert_eq!(M::decode(message.encode_to_vec().as_slice()).as_ref(), Ok(&message));
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| check(data));

pub fn check(text: &[u8]) {
    there_and_back::<Heartbeat>(text);
    there_and_back::<VpnEvent>(text);
    there_and_back::<LifecycleEvent>(text);
}
