//! A configuration file. One that is taken is shown as a file that is taken
//! too.
#![cfg_attr(fuzzing, no_main)]

use std::path::Path;

use device_status::config::document::effective;
use device_status::config::load::from_text;

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| check(data));

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Files that it names would be read.
    if text.contains("_file") || text.contains("location") || text.contains("keytab") {
        return;
    }
    let path = Path::new("fuzzed.toml");
    if let Ok(loaded) = from_text(Some((path, text)), std::iter::empty(), &[]) {
        let _ = effective(&loaded);
    }
}
