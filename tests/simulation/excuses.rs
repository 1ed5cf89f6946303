//! The excuses of the auditor: cases in which it accepts a difference or does not
//! judge. It counts each kind. If a kind grows, the auditor sees less than before,
//! and a run with enough worlds fails.

use std::collections::BTreeMap;

/// A kind of excuse, as the auditor counts it.
struct Excuse {
    name: &'static str,
    /// The share is of the sum of these counts.
    of: &'static [&'static str],
    /// The largest share that is accepted, in parts of [`WHOLE`].
    most: u64,
}

/// Shares are parts of ten thousand.
const WHOLE: u64 = 10_000;

/// The limits are about twice the shares of campaigns of 400 to 300,000 worlds. The
/// shares vary with the seeds, above all that of overlooked deadlines, of which 300
/// worlds have about two.
const EXCUSES: [Excuse; 4] = [
    // A deadline was overlooked while an input could not be read: 3 to 8.
    Excuse { name: "overlooked", of: &["plain devices"], most: 20 },
    // A device's last status depends on deadlines after the last clock: 43 to 76.
    Excuse { name: "left open", of: &["left open", "judged"], most: 150 },
    // A commit between two chunks of a scope event: 111 to 158.
    Excuse { name: "held commits", of: &["moments"], most: 300 },
    // A change that was written again, with `at_least_once`: 24 to 44.
    Excuse { name: "repeated changes", of: &["changes"], most: 90 },
];

/// The excuses whose share is too large, for people.
pub fn beyond_their_share(counts: &BTreeMap<&'static str, u64>) -> Vec<String> {
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    let mut found = Vec::new();
    for Excuse { name, of, most } in EXCUSES {
        let (excused, all) = (count(name), of.iter().map(|name| count(name)).sum::<u64>());
        if excused * WHOLE > all * most {
            found.push(format!(
                "the auditor excused {excused} of {all} ({name}), more than {most} in {WHOLE}: \
                 find out why, or record the new share in tests/simulation/excuses.rs"
            ));
        }
    }
    found
}

#[test]
fn excuse_beyond_its_share_is_reported() {
    // A run of 3000 worlds.
    let counted = BTreeMap::from([
        ("changes", 441_764),
        ("held commits", 11_766),
        ("judged", 62_297),
        ("left open", 389),
        ("moments", 905_924),
        ("overlooked", 10),
        ("plain devices", 29_210),
        ("repeated changes", 1_608),
    ]);
    assert_eq!(beyond_their_share(&counted), Vec::<String>::new());
    for excuse in EXCUSES {
        let mut more = counted.clone();
        *more.get_mut(excuse.name).expect("it is counted") *= 8;
        let found = beyond_their_share(&more);
        assert_eq!(found.len(), 1, "{}: {found:?}", excuse.name);
        assert!(found[0].contains(excuse.name), "{found:?}");
    }
}
