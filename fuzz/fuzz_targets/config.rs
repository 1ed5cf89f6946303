//! A configuration file. One that is taken is shown as a file that is taken
//! too.
#![no_main]

use std::path::Path;

use device_status::config::document::effective;
use device_status::config::load::from_text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Files that it names would be read.
    if text.contains("_file") || text.contains("location") || text.contains("keytab") {
        return;
    }
    let path = Path::new("fuzzed.toml");
    if let Ok(loaded) = from_text(Some((path, text)), std::iter::empty(), &[]) {
        let _ = effective(&loaded);
    }
});
