//! The example file and the reference say what the table of keys says.

use std::path::Path;

use device_status::config::{Config, document, load};

fn agrees(path: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{} is not what the table says: run UPDATE=1 cargo test --test pure configuration",
        path.display()
    );
}

#[test]
fn the_example_agrees_with_the_table() {
    agrees("deploy/device-status.example.toml", &document::example());
}

#[test]
fn the_reference_agrees_with_the_table() {
    agrees("docs/configuration.md", &document::reference());
}

#[test]
fn the_example_is_valid_with_and_without_its_comments() {
    let load_text = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(Some(file.path()), std::iter::empty(), &[])
    };
    let example = document::example();
    assert_eq!(load_text(&example).unwrap().config, Config::default());

    let is_value = |line: &str| line.starts_with('#') && !line.starts_with("# ");
    let told: Vec<&str> =
        example.lines().map(|line| if is_value(line) { &line[1..] } else { line }).collect();
    let loaded = load_text(&told.join("\n")).unwrap();
    let expected = Config::default();
    assert_eq!(loaded.config.topics, expected.topics);
    assert_eq!(loaded.config.heartbeat, expected.heartbeat);
    assert_eq!(loaded.config.kafka.properties["client.rack"], "eu-1a");
}
