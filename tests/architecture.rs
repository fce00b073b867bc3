//! Checks the module structure of the crate by reading its sources: imports between modules, and the header
//! of each file.
//!
//! * A module imports modules of a strictly lower rank, or stays in its own folder. The ranks are in
//!   [`RANKS`].
//! * Paths are checked everywhere (`use crate::…`, `crate::…` inside a function), also in tests, but not in
//!   comments.
//! * The check works on text only; the compiler checks what the code means.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

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
const SOURCE_FOLDERS: &[&str] = &["src", "clients/rust/src"];

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
fn files_open_with_what_keeps_them_correct() {
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
fn imports_are_seen() {
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
