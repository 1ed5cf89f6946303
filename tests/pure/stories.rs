//! Tells each story in `tests/stories/*.story` to a shard, and compares what
//! it says. The language is described in `tests/stories/README.md`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use crate::story::{Pace, split, tell};

#[test]
fn every_story_ends_as_told() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut paths: Vec<_> = std::fs::read_dir(&directory)
        .expect("tests/stories is there")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "story"))
        .collect();
    paths.sort();
    let (mut told, mut causes, mut failures) = (0, BTreeSet::new(), String::new());
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a readable story");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let outcome = told_all(&text, &mut |seen| causes.extend(seen));
        told += outcome.0;
        for (line, message) in outcome.1 {
            let _ = writeln!(failures, "tests/stories/{name}:{line}: {message}");
        }
    }
    assert!(failures.is_empty(), "\n{failures}");
    assert!(told >= 80, "only {told} stories in {}", directory.display());
    assert_eq!(causes.len(), 23, "each cause is told of somewhere; here are {causes:?}");
}

type Failures = Vec<(usize, String)>;

/// Tells all stories of a file, and goes on after one that went otherwise.
fn told_all(
    text: &str,
    seen: &mut dyn FnMut(BTreeSet<device_status::shard::Cause>),
) -> (usize, Failures) {
    let stories = match split(text) {
        Ok(stories) => stories,
        Err(failure) => return (0, vec![failure]),
    };
    let mut failures = Failures::new();
    for story in &stories {
        for pace in [Pace::Broad, Pace::Small, Pace::Restarted] {
            match tell(story, pace) {
                Ok(causes) => seen(causes),
                Err((line, message)) => {
                    failures.push((line, format!("{message} ({}, {pace:?})", story.title)));
                    break;
                }
            }
        }
    }
    (stories.len(), failures)
}

#[test]
fn a_story_that_goes_otherwise_is_named_by_its_line() {
    let failures = |text: &str| told_all(text, &mut |_| {}).1;
    let text = "# Comment\n== One\n10:00 a heartbeat | online\n\n10:01 a heartbeat | offline\n";
    let expected = (5, "a: status is online, not offline (One, Broad)".to_string());
    assert_eq!(failures(text), [expected]);
    for (text, line, message) in [
        ("10:00 a heartbeat", 1, "a story begins with a line == title"),
        ("== A\n== A", 2, "a story has a title of its own"),
        ("== A\n10:00 a heartbeat colour=red", 2, "unknown argument colour= (A, Broad)"),
        ("== A\n10:00 a sneezed", 2, "unknown event sneezed (A, Broad)"),
        ("== A\n10:00 a heartbeat | smell=good", 2, "unknown expectation smell= (A, Broad)"),
        ("== A\n10:00 a heartbeat\n9:00 * wait", 3, "steps are in order of time (A, Broad)"),
        ("== A\n10 a heartbeat", 2, "10 is no time (A, Broad)"),
    ] {
        assert_eq!(failures(text), [(line, message.to_string())]);
    }
}
