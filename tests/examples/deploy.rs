//! What the files in deploy/ say of the service holds.

use std::path::{Path, PathBuf};
use std::process::Command;

use device_status::config::load;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// The variables that a file sets for the service, as `NAME: value` or `NAME=value`.
fn environment(path: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(deploy(path)).unwrap();
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let settings = lines.filter_map(|line| {
        let line = line.strip_prefix("ENV ").unwrap_or(line);
        let (name, value) = line.split_once('=').or_else(|| line.split_once(": "))?;
        let set = name.starts_with("DEVICE_STATUS_");
        set.then(|| (name.to_owned(), value.trim_matches('"').to_owned()))
    });
    settings.collect()
}

#[test]
fn the_environment_of_the_containers_is_understood() {
    for path in ["compose/compose.yaml", "Dockerfile"] {
        let environment = environment(path);
        assert!(!environment.is_empty(), "{path}");
        load(None, environment.into_iter(), &[]).unwrap_or_else(|error| panic!("{path}: {error}"));
    }
    let listen = environment("Dockerfile");
    let loaded = load(None, listen.into_iter(), &[]).unwrap();
    assert!(!loaded.config.admin.listen.ip().is_loopback());
}

#[test]
fn the_configuration_of_kubernetes_is_valid_with_what_its_secret_adds() {
    let path = deploy("kubernetes/production/device-status.toml");
    let secrets = [
        ("DEVICE_STATUS_REDIS__URL", "rediss://device-status:secret@redis.example:6380"),
        ("DEVICE_STATUS_KAFKA__PROPERTIES__SASL_PASSWORD", "secret"),
        ("DEVICE_STATUS_ADMIN__LISTEN", "[::]:9464"),
        ("DEVICE_STATUS_LOG__FORMAT", "json"),
    ];
    let secrets = secrets.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let loaded = load(Some(&path), secrets.into_iter(), &[]).unwrap();
    assert_eq!(loaded.config.kafka.properties["sasl.password"], "secret");
    assert_eq!(loaded.config.topics.replication_factor, 3);
}

/// Kubernetes sets such variables for each service of a namespace, unless told not to.
#[test]
fn the_links_that_kubernetes_makes_are_not_taken_for_configuration() {
    let link = ("DEVICE_STATUS_PORT_9464_TCP".to_owned(), "tcp://10.0.0.1:9464".to_owned());
    let loaded = load(None, std::iter::once(link), &[]).unwrap();
    assert!(loaded.origins.is_empty(), "{:?}", loaded.origins);
}

#[test]
fn the_stripped_binary_works_and_names_the_file_of_its_symbols() {
    let whole = crate::support::service::binary();
    let directory = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/split-symbols.sh");
    let split = Command::new(script).arg(whole).arg(directory.path()).output().unwrap();
    assert!(split.status.success(), "{}", String::from_utf8_lossy(&split.stderr));
    let stripped = directory.path().join("device-status");
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert!(size(&stripped) < size(Path::new(whole)) / 2, "{} bytes", size(&stripped));
    assert!(size(&directory.path().join("device-status.debug")) > 0);
    let version = Command::new(&stripped).arg("--version").output().unwrap();
    assert!(version.status.success());
    let bytes = std::fs::read(&stripped).unwrap();
    let name = b"device-status.debug";
    assert!(bytes.windows(name.len()).any(|window| window == name), "no link to the symbols");
}

#[test]
fn the_tools_that_know_the_formats_are_content() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/check-deploy.sh");
    let output = Command::new(script).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
