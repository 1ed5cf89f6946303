//! The house's rules, kept by a test: which module may know which, where
//! `unsafe` stands, what a comment may cite.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

mod circles;

/// Each module and the modules of this crate it may import, besides itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("shard", &[]),
    ("wire", &["shard", "error"]),
    ("stream_thread", &["wire", "shard", "clock", "error"]),
    ("clock", &["shard"]),
    ("config", &["wire", "shard", "error"]),
    ("telemetry", &["stream_thread", "view", "config", "shard", "error"]),
    ("admin", &["telemetry", "stream_thread", "error"]),
    ("simulate", &["wire", "shard"]),
    ("view", &["stream_thread", "config", "shard", "error"]),
    ("kafka", &["stream_thread", "config", "shard", "wire", "error", "clock"]),
];

/// Crates that the pure core may use besides `std`.
const SHARD_CRATES: &[&str] = &["hashbrown", "foldhash"];
const WIRE_CRATES: &[&str] = &["prost", "prost_types", "prost_reflect", "serde_json"];

/// Where `unsafe` may stand.
const UNSAFE_MODULES: &[&str] = &["src/kafka/native.rs", "src/kafka/native/"];

/// What the core must not touch.
const IMPURE: &[&str] = &["std::time", "std::thread", "std::fs", "std::net", "std::io", "async "];

struct Source {
    path: String,
    module: String,
    text: String,
}

/// The sources without their tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    walk(&root.join("src"), &mut files);
    let mut sources = Vec::new();
    for file in files {
        let path = file.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        if name == "tests" || name == "properties" || path.contains("/tests/") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("mod tests {\n").next().unwrap().to_owned();
        let module = path.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        sources.push(Source { path, module, text });
    }
    assert!(sources.len() > 30, "the sources were not found");
    sources
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The lines of code, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The names that follow `prefix` in a line.
fn names_after<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    line.match_indices(prefix)
        .filter(|(at, _)| {
            !line[..*at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
        })
        .map(|(at, _)| {
            let rest = &line[at + prefix.len()..];
            rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap()
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(module, _)| *module == source.module)
        else {
            // The command line and the entry points know all.
            assert!(
                ["cli", "lib", "main"].contains(&source.module.as_str()),
                "tests/pure/tidy.rs does not know the module of {}",
                source.path
            );
            continue;
        };
        for (number, line) in code(&source.text) {
            for name in names_after(line, "crate::") {
                if name != source.module && !allowed.contains(&name) {
                    wrong.push(format!("{}:{}: imports {name}", source.path, number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_imports_go_in_a_circle() {
    let imports = circles::imports(&sources());
    assert!(imports.len() > 400, "only {} imports were found", imports.len());
    let mut told = String::new();
    for circle in circles::circles(&imports) {
        told += "a circle:\n";
        for ((from, to), line) in &imports {
            if circle.contains(from.as_str()) && circle.contains(to.as_str()) {
                told += &format!("  {from}:{line} imports {to}\n");
            }
        }
    }
    assert!(told.is_empty(), "{told}");
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    for source in sources() {
        let crates = match source.module.as_str() {
            "shard" => SHARD_CRATES,
            "wire" => WIRE_CRATES,
            _ => continue,
        };
        for (number, line) in code(&source.text) {
            for impure in IMPURE.iter().filter(|impure| line.contains(**impure)) {
                wrong.push(format!("{}:{}: {impure}", source.path, number + 1));
            }
            let Some(import) = line.trim_start().strip_prefix("use ") else { continue };
            let root = import.split("::").next().unwrap();
            let local = ["crate", "super", "self", "std"].contains(&root);
            let module =
                import.starts_with(|first: char| first.is_lowercase()) && !import.contains("::");
            if !local && !module && !crates.contains(&root) && is_dependency(root) {
                wrong.push(format!("{}:{}: uses {root}", source.path, number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The dependencies of a section of the manifest, as the code names them.
fn dependencies(section: &str) -> Vec<String> {
    let manifest = include_str!("../../Cargo.toml");
    let lines = manifest.lines().skip_while(|line| *line != section).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split_once([' ', '.', '=']));
    names.map(|(name, _)| name.replace('-', "_")).collect()
}

fn is_dependency(name: &str) -> bool {
    dependencies("[dependencies]").iter().any(|dependency| dependency == name)
}

/// Dependencies that no code names, and why they are there.
const UNNAMED: &[(&str, &str)] =
    &[("rustls", "chooses what TLS of the Redis client is made of, by its features")];

#[test]
fn every_dependency_is_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut unused = Vec::new();
    for (section, folders) in [
        ("[dependencies]", &["src"][..]),
        ("[dev-dependencies]", &["src", "tests", "benches"]),
        ("[build-dependencies]", &["build.rs"]),
    ] {
        let mut files = Vec::new();
        for folder in folders {
            match root.join(folder) {
                file if file.is_file() => files.push(file),
                folder => walk(&folder, &mut files),
            }
        }
        let texts: Vec<String> =
            files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let dependencies = dependencies(section);
        assert!(dependencies.len() > 2, "{section} was not found");
        for name in dependencies {
            let is_named = |line: &str| {
                let after = |(at, _): (usize, &str)| line[at + name.len()..].chars().next();
                let is_whole = |(at, _): &(usize, &str)| {
                    !line[..*at].ends_with(|c: char| c.is_alphanumeric() || "_:.".contains(c))
                };
                let mut places = line.match_indices(&name).filter(is_whole).map(after);
                let is_import = line.trim_start().starts_with("use ");
                places.any(|next| next == Some(':') || is_import && matches!(next, Some(';' | ' ')))
            };
            let is_used = texts.iter().any(|text| code(text).any(|(_, line)| is_named(line)));
            if !is_used && UNNAMED.iter().all(|(unnamed, _)| *unnamed != name) {
                unused.push(format!("{section} {name}"));
            }
        }
    }
    assert!(unused.is_empty(), "nobody uses {}", unused.join(", "));
}

#[test]
fn unsafe_stands_where_it_is_allowed_and_says_why() {
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in code(&source.text) {
            let is_unsafe = line.contains("unsafe {") || line.contains("unsafe impl");
            if !is_unsafe && !line.contains("unsafe fn") {
                continue;
            }
            let here = format!("{}:{}", source.path, number + 1);
            let allowed = UNSAFE_MODULES.iter().any(|module| source.path.starts_with(module));
            assert!(allowed, "{here}: unsafe");
            let above = &lines[number.saturating_sub(4)..number];
            let reasoned = above.iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety"));
            assert!(reasoned, "{here}: unsafe without a reason");
        }
    }
}

#[test]
fn files_are_readable_in_one_sitting() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= 750, "{} has {lines} lines: look for the room it wants", source.path);
    }
}

#[test]
fn every_rule_that_a_comment_cites_is_defined() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = std::fs::read_to_string(root.join("docs/rules.md")).unwrap();
    let defined: BTreeSet<String> = rules
        .lines()
        .filter_map(|line| line.strip_prefix("- **"))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    let mut files = Vec::new();
    walk(&root.join("src"), &mut files);
    let mut cited = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for line in text.lines().filter(|line| line.trim_start().starts_with("//")) {
            for rule in line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| is_rule(w)) {
                cited += 1;
                assert!(
                    defined.contains(rule),
                    "{}: {rule} is not defined in docs/rules.md: {line}",
                    file.display()
                );
            }
        }
    }
    assert!(cited > 100, "only {cited} citations were found");
}

/// What a log line has beside its fields, or around them: a field of such a name
/// would stand twice in its JSON.
const LOG_KEYS: &[&str] =
    &["message", "level", "target", "timestamp", "fields", "span", "spans", "filename"];

#[test]
fn no_field_of_a_log_line_has_the_name_of_another_of_its_keys() {
    let mut lines = 0;
    for source in sources() {
        for level in ["error!(", "warn!(", "info!(", "debug!(", "trace!("] {
            for (at, _) in source.text.match_indices(level) {
                lines += 1;
                for field in log_fields(&source.text[at + level.len()..]) {
                    let line = source.text[..at].lines().count();
                    assert!(
                        !LOG_KEYS.contains(&field.as_str()),
                        "{}:{line}: a log line has a field {field:?}; a cause belongs in \"error\"",
                        source.path
                    );
                }
            }
        }
    }
    assert!(lines > 50, "only {lines} log lines were found");
}

/// The names of the fields that stand before the message of a log line, whose
/// arguments begin here.
fn log_fields(arguments: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut rest = arguments.trim_start();
    while !rest.starts_with(['"', ')']) && !rest.is_empty() {
        let start = rest.trim_start_matches(['%', '?']);
        let end = start.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(start.len());
        // `target: "…"` says where the line comes from.
        if !start[end..].starts_with(':') {
            fields.push(start[..end].to_owned());
        }
        rest = after_argument(start).trim_start();
    }
    fields
}

/// What follows the comma that ends an argument.
fn after_argument(text: &str) -> &str {
    let (mut depth, mut quoted) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' if !text[..at].ends_with('\\') => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return &text[at..],
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

/// A letter of a family of rules, and a number.
fn is_rule(word: &str) -> bool {
    let Some(family) = word.chars().next() else { return false };
    let number = &word[family.len_utf8()..];
    "JTCRV".contains(family) && !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
}
