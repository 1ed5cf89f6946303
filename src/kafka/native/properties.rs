//! Compares the configuration's list of property names with librdkafka's.

use std::ffi::{CStr, c_char};
use std::ptr;

use rdkafka_sys as sys;

use crate::config::known_property_names;

/// All property names that this librdkafka documents, with aliases; empty if out of
/// memory.
fn property_names() -> Vec<String> {
    let mut text: *mut c_char = ptr::null_mut();
    let mut length = 0;
    // SAFETY: `text` and `length` outlive the stream. Closing it makes `text` a
    // C string of ours, which is copied and then freed.
    let table = unsafe {
        let stream = libc::open_memstream(&raw mut text, &raw mut length);
        if stream.is_null() {
            return Vec::new();
        }
        sys::rd_kafka_conf_properties_show(stream.cast());
        libc::fclose(stream);
        if text.is_null() {
            return Vec::new();
        }
        let table = CStr::from_ptr(text).to_string_lossy().into_owned();
        libc::free(text.cast());
        table
    };
    let names =
        table.lines().filter_map(|line| line.split_once(" | ")).map(|(name, _)| name.trim());
    names.filter(|name| *name != "Property").map(str::to_owned).collect()
}

#[test]
fn property_names_of_the_configuration_match_librdkafka() {
    let mut names = property_names();
    names.sort_unstable();
    names.dedup();
    assert!(names.iter().map(String::as_str).eq(known_property_names()), "{names:?}");
}
