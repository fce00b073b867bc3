//! Checks the module structure of the crate by reading its sources: imports between modules, cycles between
//! the files of a folder, and the header of each file.
//!
//! * A module imports modules of a strictly lower rank, or stays in its own folder. The ranks are in
//!   [`RANKS`].
//! * Paths are checked everywhere (`use crate::…`, `crate::…` inside a function), also in tests, but not in
//!   comments.
//! * The files and folders in one folder do not import each other in a cycle. A folder's own file (`mod.rs`)
//!   may use its files and be used by them. Test modules are not looked at.
//! * The checks work on text only; the compiler checks what the code means.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each top-level module and its rank. A new module, or the first file of a new folder, needs a line here.
const RANKS: &[(&str, u8)] = &[
    // Leaves: they import no other module of the crate.
    ("close", 0),
    ("config", 0),
    ("descriptors", 0),
    ("ids", 0),
    ("memory_limit", 0),
    ("allocator", 0),
    ("query", 0),
    ("sync", 0),
    ("time", 0),
    ("json_integer", 0),
    ("transport", 0),
    // Data types.
    ("cursor", 1),
    ("event", 1),
    ("metrics", 1),
    ("frame", 2),
    ("filter", 3),
    // Storage and fan-out.
    ("index", 4),
    ("event_ring", 4),
    ("store", 4),
    ("wake", 4),
    // Authorization.
    ("auth", 5),
    ("tenant", 6),
    // Delivery.
    ("connection", 7),
    ("domain", 7),
    ("error_response", 8),
    ("worker", 9),
    ("http", 10),
    // Phases and commands. Only `main` imports both `cli` and `server`.
    ("lifecycle", 11),
    ("cli", 12),
    ("server", 12),
    ("lib", 13),
    ("main", 13),
];

/// The source folders of all members of the workspace.
const SOURCE_FOLDERS: &[&str] = &["src", "clients/rust/src", "benches/load/src"];

struct Source {
    /// Path relative to the source folder, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The top-level module of the file.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The path of the file's module from the crate's root; empty for `lib.rs` and `main.rs`.
    fn module_path(&self) -> Vec<String> {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let path = path.strip_suffix("/mod").unwrap_or(path);
        path.split('/').filter(|name| *name != "lib" && *name != "main").map(str::to_owned).collect()
    }

    /// The code without comments and without the test module at its end; empty for a file of tests.
    fn code(&self) -> String {
        if self.module_path().last().is_some_and(|name| name.ends_with("tests"))
            || self.path.contains("/tests/")
        {
            return String::new();
        }
        let text = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let mut code: Vec<&str> = Vec::new();
        let mut test = false;
        for line in lines {
            // A declaration under `#[cfg(test)]`, such as `mod tests;`, is not part of the program.
            if !std::mem::replace(&mut test, line.trim() == "#[cfg(test)]") {
                code.push(line);
            }
        }
        code.join("\n")
    }

    /// Whether `super` is the crate root in this file.
    fn is_top(&self) -> bool {
        !self.path.contains('/') || self.path.split_once('/').is_some_and(|(_, rest)| rest == "mod.rs")
    }
}

/// The sources of the daemon.
fn sources() -> Vec<Source> {
    let found = sources_below("src");
    assert!(found.len() > 50, "only {} files", found.len());
    found
}

fn sources_below(folder: &str) -> Vec<Source> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path: path.strip_prefix(root).unwrap().display().to_string(), text });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found
}

fn rank(module: &str) -> Option<u8> {
    RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank)
}

/// The modules that a line of code names: the first segment after each `crate::`, and every first segment of
/// a `crate::{…}` that ends on the line. With `top`, `super` is the crate root.
fn named(line: &str, top: bool) -> Vec<&str> {
    let code = line.trim_start();
    if code.starts_with("//") {
        return Vec::new();
    }
    let code = code.split(" //").next().unwrap_or_default();
    let at_margin = top && (line.starts_with("use super::") || line.starts_with("pub use super::"));
    let mut found = Vec::new();
    let of_root = if at_margin { "super::" } else { "crate::" };
    for (at, _) in code.match_indices(of_root) {
        let boundary =
            code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '$');
        let rest = &code[at + of_root.len()..];
        match rest.strip_prefix('{') {
            _ if !boundary => {}
            Some(list) => {
                found.extend(list.split('}').next().unwrap_or_default().split(',').map(first_segment))
            }
            None => found.push(first_segment(rest)),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn first_segment(path: &str) -> &str {
    let path = path.trim_start();
    &path[..path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len())]
}

/// The forbidden imports of one file, one per line.
fn breaches(source: &Source) -> Vec<String> {
    let own = source.module();
    let Some(own_rank) = rank(own) else {
        return vec![format!("src/{}: the module `{own}` has no rank in tests/architecture.rs", source.path)];
    };
    let mut found = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for other in named(line, source.is_top()) {
            let place = format!("src/{}:{}", source.path, number + 1);
            match rank(other) {
                _ if other == own => {}
                Some(rank) if rank < own_rank => {}
                Some(rank) => {
                    found.push(format!("{place}: `{own}` (rank {own_rank}) names `{other}` (rank {rank})"))
                }
                None => found.push(format!("{place}: `{other}` has no rank in tests/architecture.rs")),
            }
        }
    }
    found
}

#[test]
fn modules_import_strictly_lower_ranks() {
    let found: Vec<String> = sources().iter().flat_map(breaches).collect();
    assert!(found.is_empty(), "imports against the ranks:\n{}", found.join("\n"));
}

/// The modules of the crate with what each re-exports, to find the file that a path means.
struct Modules {
    /// Module path, such as `["store", "engine"]`, to (name, path) of its `use` declarations.
    uses: BTreeMap<Vec<String>, Vec<(String, Vec<String>)>>,
}

impl Modules {
    fn new(sources: &[Source]) -> Self {
        let uses = sources
            .iter()
            .map(|source| {
                let own = source.module_path();
                let uses = paths(&source.code())
                    .into_iter()
                    .filter(|path| path.declared)
                    .filter_map(|path| Some((path.segments.last()?.clone(), absolute(&own, &path.segments))))
                    .collect();
                (own, uses)
            })
            .collect();
        Self { uses }
    }

    /// The module in which the item with this absolute path is defined.
    fn resolve(&self, path: &[String], depth: u8) -> Vec<String> {
        let mut module = Vec::new();
        for (n, segment) in path.iter().enumerate() {
            let mut child = module.clone();
            child.push(segment.clone());
            if self.uses.contains_key(&child) {
                module = child;
                continue;
            }
            let reexport = self.uses.get(&module).into_iter().flatten().find(|(name, target)| {
                name == segment && target.starts_with(&module) && target.len() > module.len() + 1
            });
            return match reexport {
                Some((_, target)) if depth > 0 => {
                    let target = target.iter().chain(&path[n + 1..]).cloned().collect::<Vec<_>>();
                    self.resolve(&target, depth - 1)
                }
                _ => module,
            };
        }
        module
    }

    /// Every import between two siblings: (folder, importing child, imported child).
    fn edges(&self, sources: &[Source]) -> BTreeSet<(String, String, String)> {
        let mut found = BTreeSet::new();
        for source in sources {
            let own = source.module_path();
            for path in paths(&source.code()) {
                let target = self.resolve(&absolute(&own, &path.segments), 8);
                let common = own.iter().zip(&target).take_while(|(a, b)| a == b).count();
                if let (Some(from), Some(to)) = (own.get(common), target.get(common)) {
                    found.insert((own[..common].join("/"), from.clone(), to.clone()));
                }
            }
        }
        found
    }
}

/// A path in the code.
struct CodePath {
    segments: Vec<String>,
    /// Whether it is part of a `use` declaration.
    declared: bool,
}

/// The paths in `code` that begin with `crate`, `super` or `self`, and those in `use` declarations. Lists in
/// braces are expanded.
fn paths(code: &str) -> Vec<CodePath> {
    let mut found = Vec::new();
    let mut rest = code;
    let mut previous = ' ';
    let mut declaration = false;
    while let Some(first) = rest.chars().next() {
        if !(first.is_alphanumeric() || first == '_') || previous.is_alphanumeric() || previous == '_' {
            declaration &= first != ';';
            previous = first;
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let word = first_segment(rest);
        let after = &rest[word.len()..];
        previous = 'a';
        if word == "use" {
            declaration = true;
            rest = after;
        } else if after.starts_with("::") && (declaration || ["crate", "super", "self"].contains(&word)) {
            let length = tree(rest, &mut Vec::new(), declaration, &mut found);
            rest = &rest[length..];
        } else {
            rest = after;
        }
    }
    found
}

/// Reads one path, or one tree of a `use` declaration, and returns its length in bytes.
fn tree(text: &str, prefix: &mut Vec<String>, declared: bool, found: &mut Vec<CodePath>) -> usize {
    let depth = prefix.len();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if text[at..].starts_with('{') {
            at += 1;
            while let Some(next) = text[at..].chars().next().filter(|c| *c != '}') {
                if next == ',' || next.is_whitespace() {
                    at += 1;
                } else {
                    at += tree(&text[at..], prefix, declared, found).max(1);
                }
            }
            prefix.truncate(depth);
            return at + 1;
        }
        let segment = first_segment(&text[at..]);
        at += text[at..].find(segment).unwrap_or(0) + segment.len();
        if !segment.is_empty() && (segment != "self" || prefix.is_empty()) {
            prefix.push(segment.to_owned());
        }
        match text[at..].strip_prefix("::") {
            Some(more) if !segment.is_empty() && !more.starts_with('<') => at += 2,
            _ => break,
        }
    }
    let renamed = text[at..].trim_start().strip_prefix("as ").filter(|_| declared);
    found.push(CodePath { segments: prefix.clone(), declared });
    prefix.truncate(depth);
    match renamed {
        Some(name) => text.len() - name.len() + first_segment(name).len(),
        None => at,
    }
}

/// The path from the crate's root; empty for a path of another crate.
fn absolute(own: &[String], segments: &[String]) -> Vec<String> {
    let supers = segments.iter().take_while(|segment| *segment == "super").count();
    match segments.first().map(String::as_str) {
        Some("crate") => segments[1..].to_vec(),
        Some("super") => {
            own[..own.len().saturating_sub(supers)].iter().chain(&segments[supers..]).cloned().collect()
        }
        Some("self") => own.iter().chain(&segments[1..]).cloned().collect(),
        _ => own.iter().chain(segments).cloned().collect(),
    }
}

/// The groups of children that import each other in a cycle, with their folder.
fn cycles(edges: &BTreeSet<(String, String, String)>) -> BTreeSet<(String, Vec<String>)> {
    let mut graphs = BTreeMap::<&str, BTreeMap<&str, BTreeSet<&str>>>::new();
    for (folder, from, to) in edges {
        graphs.entry(folder).or_default().entry(from).or_default().insert(to);
    }
    let mut found = BTreeSet::new();
    for (folder, graph) in graphs {
        let reachable: BTreeMap<&str, BTreeSet<&str>> =
            graph.keys().map(|n| (*n, reached(&graph, n))).collect();
        for (child, below) in &reachable {
            if below.contains(child) {
                let mutual = below
                    .iter()
                    .filter(|other| reachable.get(*other).is_some_and(|back| back.contains(child)));
                found.insert((folder.to_owned(), mutual.map(|other| (*other).to_owned()).collect()));
            }
        }
    }
    found
}

/// What can be reached from `start` in one step or more.
fn reached<'a>(graph: &BTreeMap<&str, BTreeSet<&'a str>>, start: &'a str) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<&str> = vec![start];
    while let Some(node) = open.pop() {
        open.extend(graph.get(node).into_iter().flatten().filter(|next| seen.insert(**next)));
    }
    seen
}

#[test]
fn files_of_a_folder_import_each_other_without_cycles() {
    let mut found = Vec::new();
    for root in SOURCE_FOLDERS {
        let sources = sources_below(root);
        let edges = Modules::new(&sources).edges(&sources);
        assert!(edges.len() > sources.len() / 2, "{root}: only {} imports found", edges.len());
        for (folder, files) in cycles(&edges) {
            let inside = |f: &String, from, to| *f == folder && files.contains(from) && files.contains(to);
            let cycle: Vec<String> = edges
                .iter()
                .filter(|(f, from, to)| inside(f, from, to))
                .map(|(_, from, to)| format!("{from} -> {to}"))
                .collect();
            found.push(format!("{root}/{folder}: {}", cycle.join(", ")));
        }
    }
    assert!(
        found.is_empty(),
        "cycles of imports; move what both need into a file below both:\n{}",
        found.join("\n")
    );
}

#[test]
fn every_rank_has_its_module() {
    let sources = sources();
    let gone: Vec<&str> = RANKS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !sources.iter().any(|source| source.module() == *name))
        .collect();
    assert!(gone.is_empty(), "ranks of modules that are not there: {gone:?}");
}

#[test]
fn files_open_with_a_header() {
    let bare: Vec<String> = SOURCE_FOLDERS
        .iter()
        .flat_map(|folder| sources_below(folder).into_iter().map(move |source| (folder, source)))
        .filter(|(_, source)| !source.text.starts_with("//!"))
        .map(|(folder, source)| format!("{folder}/{}", source.path))
        .collect();
    assert!(bare.is_empty(), "without a `//!` header:\n{}", bare.join("\n"));
}

/// Every commit needs the authority of an actor, which `tenant` and `auth` confirm right before the commit.
/// If another module wrote to the store, it could commit on a right that was revoked while the request
/// waited.
#[test]
fn only_tenant_and_auth_write_to_the_store() {
    let writers = ["store", "tenant", "auth"];
    let calls = [
        "store.write(",
        "store().write(",
        "store.write_",
        "store().write_",
        "store.append(",
        "store().append(",
    ];
    let others: Vec<String> = sources()
        .iter()
        .filter(|source| !writers.contains(&source.module()))
        .flat_map(|source| {
            // White space is removed, so that a call on a line of its own is found as well.
            let code: String = source.text.chars().filter(|c| !c.is_whitespace()).collect();
            calls
                .into_iter()
                .filter(move |call| code.contains(call))
                .map(|call| format!("src/{}: {call}", source.path))
        })
        .collect();
    assert!(
        others.is_empty(),
        "commit by `Tenants` or `Auth`, on the authority of an `Actor`:\n{}",
        others.join("\n")
    );
}

/// Tests the import parser itself: if it missed imports, the rank check would pass wrongly.
#[test]
fn forbidden_imports_are_found() {
    let ring = |text: &str| Source { path: "event_ring/mod.rs".into(), text: text.into() };
    for line in [
        "use crate::worker::Worker;",
        "pub(crate) use crate::worker::Worker;",
        "    let worker = crate::worker::Worker::new();",
        "use crate::{sync::Arc, worker::Worker};",
        "use super::worker::Worker;",
    ] {
        let found = breaches(&ring(line));
        assert_eq!(
            found,
            ["src/event_ring/mod.rs:1: `event_ring` (rank 4) names `worker` (rank 9)"],
            "{line}"
        );
    }
    for line in [
        "use crate::sync::Arc;",
        "use crate::event_ring::pins;",
        "// crate::worker is above",
        "let x = 1; // crate::worker",
        "use othercrate::worker;",
    ] {
        assert_eq!(breaches(&ring(line)), Vec::<String>::new(), "{line}");
    }
    assert_eq!(breaches(&ring("use crate::nowhere::X;")).len(), 1);
    let inner = Source { path: "event_ring/pins.rs".into(), text: "use super::worker;".into() };
    assert_eq!(breaches(&inner), Vec::<String>::new(), "its own folder's");
}

/// Tests the finding of cycles itself.
#[test]
fn cycles_are_found() {
    let file = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let sources = [
        file("a/mod.rs", "pub use deep::{inner::Thing, other as renamed};"),
        file("a/b.rs", "use super::c::{self, C};"),
        file("a/c.rs", "fn f() -> super::Thing { todo() }"),
        file("a/deep/mod.rs", "pub(super) mod inner;"),
        file("a/deep/inner.rs", "use crate::a::b::B; // super::super::c"),
        file("a/lone.rs", "use super::b;\n#[cfg(test)]\nmod tests { use super::super::c; }"),
    ];
    let edges = Modules::new(&sources).edges(&sources);
    let group = ["b", "c", "deep"].map(str::to_owned).to_vec();
    assert_eq!(cycles(&edges), BTreeSet::from([("a".to_owned(), group)]));
}
