//! What a package has besides the binary, written by the binary.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::support::service::binary;

fn names(directory: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(directory).unwrap();
    files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

/// What bash offers after these words.
fn offered(completions: &Path, words: &[&str]) -> String {
    let script = r#"
        source "$1"; shift
        COMP_WORDS=(device-status "$@"); COMP_CWORD=$#
        [[ $(complete -p device-status) =~ -F\ ([^\ ]+) ]]
        "${BASH_REMATCH[1]}" device-status "${!#}" "${COMP_WORDS[$#-1]}"
        echo "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    bash.args(["-c", script, "bash"]).arg(completions).args(words);
    let output = bash.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_command_has_a_manual_page_and_shells_complete_it() {
    let directory = tempfile::tempdir().unwrap();
    let written = Command::new(binary()).arg("package-files").arg(directory.path()).output();
    let written = written.unwrap();
    assert!(written.status.success(), "{written:?}");

    let man = names(&directory.path().join("man"));
    let pages = ["", "-run", "-get", "-config-check", "-dead-letters-replay", "-topics-create"];
    for page in pages.map(|command| format!("device-status{command}.1")) {
        assert!(man.contains(&page), "{page} is not among {man:?}");
    }
    assert!(!man.iter().any(|page| page.contains("package-files")), "{man:?}");
    let run = std::fs::read_to_string(directory.path().join("man/device-status-run.1")).unwrap();
    assert!(run.contains(".TH") && run.contains("\\-\\-take\\-view\\-from"), "{run}");

    let completions = directory.path().join("completions");
    let bash = completions.join("device-status.bash");
    assert_eq!(offered(&bash, &["dead-l"]).trim(), "dead-letters");
    assert!(offered(&bash, &["run", "--t"]).contains("--take-view-from"));
    for file in ["_device-status", "device-status.fish"] {
        let text = std::fs::read_to_string(completions.join(file)).unwrap();
        assert!(text.contains("take-view-from"), "{file}");
    }

    let file = directory.path().join("man/device-status.1/none");
    let refused = Command::new(binary()).arg("package-files").arg(&file).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains(file.to_str().unwrap()), "{error}");
}
