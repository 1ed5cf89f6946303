//! The circles of imports inside `src/`.
//!
//! A file imports another when it names something that the other one defines:
//! in a `use`, or by a path in the code. What a name means is followed through
//! re-exports: `crate::shard::Event` imports `shard/event.rs`, whatever
//! `shard/mod.rs` imports beside it. So none of these is an import:
//!
//! - `mod child;`, and `pub use child::Name;` if the parent does not use the
//!   name itself: a parent that only declares and re-exports is a directory.
//! - `use some::module;` alone: what is used of the module is.
//! - The modules on the way: `crate::a::b::Name` imports `a/b.rs`, not `a.rs`.
//! - What tests import.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;

/// Module path: `["view", "keys"]`.
type Module = Vec<String>;

/// Which file imports which, and in which line first.
pub type Imports = BTreeMap<(String, String), usize>;

#[derive(Clone, Debug)]
struct Named {
    line: usize,
    path: Vec<String>,
    /// How many modules inside the file are around it.
    inside: usize,
}

struct Use {
    named: Named,
    /// What it is called here; `*` is everything.
    alias: String,
    public: bool,
}

struct File {
    path: String,
    uses: Vec<Use>,
    /// Paths in the code.
    paths: Vec<Named>,
    /// Every other word of the code.
    words: BTreeSet<String>,
}

/// All imports between files.
pub fn imports(sources: &[Source]) -> Imports {
    let files: BTreeMap<Module, File> =
        sources.iter().map(|source| (module_of(&source.path), parse(source))).collect();
    let mut imports = Imports::new();
    for (module, file) in &files {
        let re_exported = |import: &Use| import.public && !file.words.contains(&import.alias);
        let used = file.uses.iter().filter(|import| !re_exported(import));
        let named = used.map(|import| &import.named).chain(&file.paths);
        for named in named {
            let Some((target, rest)) = resolve(&files, module, named, 0) else { continue };
            if target != *module && (rest > 0 || named.path.ends_with(&["*".to_owned()])) {
                let pair = (file.path.clone(), files[&target].path.clone());
                let line = imports.entry(pair).or_insert(named.line);
                *line = named.line.min(*line);
            }
        }
    }
    imports
}

/// The circles: sets of files of which each imports each other, by some way.
pub fn circles(imports: &Imports) -> Vec<BTreeSet<&str>> {
    let mut reach: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (file, _) in imports.keys() {
        let seen = reach.entry(file).or_default();
        let mut next = vec![file];
        while let Some(from) = next.pop() {
            for (_, to) in imports.keys().filter(|(other, _)| other == from) {
                if seen.insert(to.as_str()) {
                    next.push(to);
                }
            }
        }
    }
    let mut circles: Vec<BTreeSet<&str>> = Vec::new();
    for (file, seen) in &reach {
        if seen.contains(file) && !circles.iter().any(|circle| circle.contains(file)) {
            let back = |other: &&&str| reach.get(**other).is_some_and(|seen| seen.contains(file));
            circles.push(seen.iter().filter(back).copied().collect());
        }
    }
    circles
}

/// The module that a file is.
fn module_of(path: &str) -> Module {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.trim_end_matches("/mod").split('/').map(str::to_owned);
    path.filter(|name| name != "lib").collect()
}

/// The file that defines what is named, and how many names are left within it.
fn resolve(
    files: &BTreeMap<Module, File>,
    from: &Module,
    named: &Named,
    depth: usize,
) -> Option<(Module, usize)> {
    if depth > 16 {
        return None;
    }
    let mut module = from.clone();
    let mut path = named.path.as_slice();
    match path.first()?.as_str() {
        "crate" => {
            module.clear();
            path = &path[1..];
        }
        "self" => path = &path[1..],
        "super" => {
            let mut up = 0;
            while path.first().is_some_and(|name| name == "super") {
                path = &path[1..];
                up += 1;
                if up > named.inside {
                    module.pop()?;
                }
            }
        }
        first => {
            let mut child = module.clone();
            child.push(first.to_owned());
            let known = files.contains_key(&child)
                || files[&module]
                    .uses
                    .iter()
                    .any(|import| import.alias == first && import.named.path != named.path);
            if !known {
                return None;
            }
        }
    }
    while let Some(name) = path.first() {
        let mut child = module.clone();
        child.push(name.clone());
        if files.contains_key(&child) {
            module = child;
            path = &path[1..];
            continue;
        }
        let file = files.get(&module)?;
        let through = file.uses.iter().find(|import| {
            import.alias == *name && !(module == *from && import.named.path == named.path)
        });
        if let Some(import) = through {
            let mut onward = import.named.clone();
            onward.path.extend(path[1..].iter().cloned());
            return resolve(files, &module, &onward, depth + 1);
        }
        break;
    }
    files.contains_key(&module).then_some((module, path.len()))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

fn parse(source: &Source) -> File {
    let tokens = tokens(&source.text);
    let mut file = File {
        path: source.path.clone(),
        uses: Vec::new(),
        paths: Vec::new(),
        words: BTreeSet::new(),
    };
    // How deep in braces each module inside the file began.
    let (mut depth, mut inside) = (0, Vec::new());
    let text = |at: usize| tokens.get(at).map_or("", |token: &Token| token.text.as_str());
    let mut at = 0;
    while at < tokens.len() {
        let line = tokens[at].line;
        match text(at) {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inside.pop_if(|began| *began == depth);
            }
            "mod" => {
                if text(at + 2) == "{" {
                    inside.push(depth);
                }
                at += 1;
            }
            "use" if is_name(text(at + 1)) || text(at + 1) == "{" => {
                let public = at > 0 && ["pub", ")"].contains(&text(at - 1));
                let named = Named { line, path: Vec::new(), inside: inside.len() };
                let end = tree(&tokens, at + 1, &named, public, &mut file.uses);
                at = end;
                continue;
            }
            name if is_name(name) => {
                let mut path = vec![name.to_owned()];
                let field = at > 0 && text(at - 1) == ".";
                while text(at + 1) == "::" && is_name(text(at + 2)) {
                    path.push(text(at + 2).to_owned());
                    at += 2;
                }
                file.words.insert(path[0].clone());
                if path.len() > 1 && !field {
                    file.paths.push(Named { line, path, inside: inside.len() });
                }
            }
            _ => {}
        }
        at += 1;
    }
    file
}

/// Reads one tree of a `use`, and tells where it ends.
fn tree(
    tokens: &[Token],
    mut at: usize,
    before: &Named,
    public: bool,
    uses: &mut Vec<Use>,
) -> usize {
    let mut named = before.clone();
    loop {
        match tokens[at].text.as_str() {
            "{" => {
                at += 1;
                while tokens[at].text != "}" {
                    at = tree(tokens, at, &named, public, uses);
                    if tokens[at].text == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "::" => at += 1,
            "," | "}" | ";" | "as" => break,
            name => {
                // `module::{self}` is the module.
                if name != "self" || named.path.is_empty() {
                    named.path.push(name.to_owned());
                }
                at += 1;
            }
        }
    }
    let mut alias = named.path.last().cloned().unwrap_or_default();
    if tokens[at].text == "as" {
        alias.clone_from(&tokens[at + 1].text);
        at += 2;
    }
    named.line = tokens[at - 1].line;
    uses.push(Use { named, alias, public });
    at
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The tokens of a text, without comments and literals.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '"' => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            // A literal, not a lifetime.
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => {
                i += if at(i + 1) == '\\' { 3 } else { 2 };
                while at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            ':' if at(i + 1) == ':' => {
                i += 2;
                tokens.push(Token { text: "::".to_owned(), line });
            }
            first if first.is_alphanumeric() || first == '_' => {
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                tokens.push(Token { text: chars[start..i].iter().collect(), line });
            }
            other => {
                i += 1;
                if !other.is_whitespace() {
                    tokens.push(Token { text: other.to_string(), line });
                }
            }
        }
        line += chars[start..i.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

#[test]
fn a_circle_is_found_and_a_directory_is_none() {
    let source = |path: &str, text: &str| Source {
        path: path.to_owned(),
        module: String::new(),
        text: text.to_owned(),
    };
    let found = |parent: &str, child: &str| {
        let sources = [
            source("src/lib.rs", "pub mod a;"),
            source("src/a/mod.rs", parent),
            source("src/a/b.rs", child),
            source("src/a/c.rs", "pub struct C; pub const LENGTH: usize = 1;"),
        ];
        let imports = imports(&sources);
        circles(&imports).into_iter().map(|circle| circle.len()).collect::<Vec<_>>()
    };
    let directory = "mod b; mod c; pub use b::{B}; pub(crate) use c::C as D;";
    for child in [
        "use super::D; pub struct B;",
        "use crate::a::{self, c}; pub struct B(a::D, [u8; c::LENGTH]);",
        "// use super::Own\npub struct B(&'static str); const Q: char = '\"'; // super::Own",
        "mod inner { use super::B; } pub struct B;",
    ] {
        assert!(found(&format!("{directory} pub struct Own;"), child).is_empty(), "{child}");
    }
    for (parent, child) in [
        ("mod b; use b::B; pub struct Own(B);", "use super::Own; pub struct B;"),
        ("mod b; pub use b::B; pub struct Own(B);", "use crate::a::Own; pub struct B;"),
        ("mod b; pub struct Own(b::B);", "pub struct B(*const super::Own);"),
        ("mod b; pub struct Own(b::B);", "mod inner { use super::super::Own; } pub struct B;"),
        ("mod b; use b::B as Other; struct Own(Other);", "use crate::a; struct B(a::Own);"),
    ] {
        assert_eq!(found(parent, child), [2], "{parent} | {child}");
    }
}
