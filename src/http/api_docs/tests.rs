//! Tests that the documents match those that are checked in, and match the code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;

/// Compares with the checked-in file, or writes it if `UPDATE_DOCS=1`.
fn is_checked_in(name: &str, document: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return fs::write(&path, document).expect("written");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == document,
        "docs/api/{name} is not what the code says: run `UPDATE_DOCS=1 cargo test --lib http::api_docs` and look at the difference"
    );
}

#[test]
fn the_asyncapi_document_matches_the_checked_in_file() {
    is_checked_in("asyncapi.json", &ASYNCAPI);
}

#[test]
fn the_openapi_document_matches_the_checked_in_file() {
    is_checked_in("openapi.json", &OPENAPI);
}

/// Collects every reference of a document, with its location.
fn references(value: &Value, at: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "$ref") {
                    Some(to) => found.push((at.to_owned(), to.to_owned())),
                    None => references(value, &format!("{at}/{name}"), found),
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| references(item, &format!("{at}/{n}"), found));
        }
        _ => {}
    }
}

#[test]
fn every_reference_resolves() {
    for document in [&*OPENAPI, &*ASYNCAPI] {
        let document: Value = serde_json::from_str(document).unwrap();
        let mut found = Vec::new();
        references(&document, "", &mut found);
        assert!(found.len() > 50, "{}", found.len());
        for (at, to) in found {
            let pointer = to.strip_prefix('#').unwrap_or_else(|| panic!("{at}: {to}"));
            assert!(document.pointer(pointer).is_some(), "{at}: {to}");
        }
    }
}

/// Each operation of the document: method, path, and its description object.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(move |(method, described)| (method.to_uppercase(), path.clone(), described))
        })
        .collect()
}

#[test]
fn routes_and_documented_operations_match() {
    let document: Value = serde_json::from_str(&OPENAPI).unwrap();
    let mut served: Vec<(String, String)> = crate::http::routes::ROUTES
        .iter()
        .flat_map(|route| {
            route.operations.iter().map(|(method, _)| (method.to_string(), route.path.to_owned()))
        })
        .collect();
    let mut described: Vec<(String, String)> =
        operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
    served.sort();
    described.sort();
    let only = |these: &[(String, String)], those: &[(String, String)]| {
        these.iter().filter(|one| !those.contains(one)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(only(&served, &described), [], "served and not described");
    assert_eq!(only(&described, &served), [], "described and not served");
    assert_eq!(served, described);
}

#[test]
fn every_operation_is_fully_described() {
    let document: Value = serde_json::from_str(&OPENAPI).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for (method, path, described) in operations(&document) {
        let at = format!("{method} {path}");
        assert!(
            names.insert(described["operationId"].as_str().unwrap().to_owned()),
            "{at}: its operationId is another's"
        );
        assert!(described["summary"].as_str().is_some_and(|text| text.ends_with('.')), "{at}: no summary");
        assert!(described["tags"][0].is_string(), "{at}: no tag");
        let responses = described["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with(['1', '2', '5'])), "{at}: no answer");
        for parameter in described["parameters"].as_array().unwrap() {
            assert!(
                parameter["$ref"].is_string() || parameter["description"].is_string(),
                "{at}: {parameter}"
            );
        }
        let has_nothing_to_say = path.ends_with("/execute") || path.ends_with("/renew");
        let writes = matches!(method.as_str(), "POST" | "PUT" | "PATCH") && !has_nothing_to_say;
        assert_eq!(described["requestBody"].is_object(), writes, "{at}");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(schema["description"].is_string(), "{name}");
    }
}
