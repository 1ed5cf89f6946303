//! What `make fuzz` looks for by luck, looked for here in the neighbourhood of
//! the seeds: each of them, cut off anywhere, and with any byte another.

use std::collections::BTreeSet;
use std::path::Path;

#[path = "../../fuzz/fuzz_targets/change.rs"]
mod change;
#[path = "../../fuzz/fuzz_targets/changelog.rs"]
mod changelog;
#[path = "../../fuzz/fuzz_targets/config.rs"]
mod config;
#[path = "../../fuzz/fuzz_targets/dead_letter.rs"]
mod dead_letter;
#[path = "../../fuzz/fuzz_targets/decode.rs"]
mod decode;
#[path = "../../fuzz/fuzz_targets/json.rs"]
mod json;
#[path = "../../fuzz/fuzz_targets/metadata.rs"]
mod metadata;

type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 7] = [
    ("change", change::check),
    ("changelog", changelog::check),
    ("config", config::check),
    ("dead_letter", dead_letter::check),
    ("decode", decode::check),
    ("json", json::check),
    ("metadata", metadata::check),
];

/// What a byte is replaced by: the ends of ranges, and what means something in
/// one of the formats.
const OTHERS: &[u8] = b"\0\x01\x08\x7f\x80\xff \"-/9:;=e{}";

fn names(directory: &str) -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(directory);
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_target_is_tried_here_and_has_seeds() {
    let here: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), here);
    assert_eq!(names("seeds"), here);
}

#[test]
fn nothing_near_the_seeds_breaks_a_target() {
    for (name, check) in TARGETS {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
        for seed in std::fs::read_dir(seeds).unwrap() {
            let seed = std::fs::read(seed.unwrap().path()).unwrap();
            (0..=seed.len()).for_each(|length| check(&seed[..length]));
            for place in 0..seed.len() {
                let mut changed = seed.clone();
                for other in OTHERS {
                    changed[place] = *other;
                    check(&changed);
                }
            }
        }
    }
}
