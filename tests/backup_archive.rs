//! A backup in one file: `nervewire backup NAME.tar`. `verify` and `restore` accept it like a directory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::fs;
use std::path::Path;

use nervewire::store::{Rows, Store, StoreOptions};
use serde_json::Value;

/// Runs the command. Returns its exit code, its standard output and its standard error.
async fn run(home: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = common::command(home).args(arguments).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Adds an organization with this name.
fn write(dir: &Path, tenant: u64, name: &str) {
    let store = Store::open(StoreOptions::new(dir)).unwrap();
    let mut rows = Rows::new();
    rows.put_organization(&common::organization(tenant, name)).unwrap();
    store.write_blocking(rows).unwrap();
    store.close_blocking();
}

#[tokio::test]
async fn a_backup_can_be_one_archive_file() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path();
    write(&home.join("data"), 1, "first");
    let backup = ["backup", "b.tar", "--data-dir", "data", "--json"];
    let (code, _, errors) = run(home, &backup).await;
    assert_eq!(code, 0, "{errors}");
    let made = |home: &Path| {
        let mut names: Vec<String> = fs::read_dir(home)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(made(home), ["b.tar", "data"], "nothing is left beside it");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(home.join("b.tar")).unwrap().permissions())
            & 0o777,
        0o600
    );

    write(&home.join("data"), 2, "second");
    let (code, added, errors) = run(home, &backup).await;
    assert_eq!(code, 0, "{errors}");
    let added: Value = serde_json::from_str(&added).unwrap();
    assert!(added["added_bytes"].as_u64().unwrap() > 0);

    let (code, sound, errors) = run(home, &["verify", "b.tar", "--json"]).await;
    assert_eq!(code, 0, "{sound} {errors}");
    assert_eq!(serde_json::from_str::<Value>(&sound).unwrap()["backup"], true);
    let (_, sound, _) = run(home, &["verify", "b.tar"]).await;
    let rows = sound.strip_prefix("The backup is sound: 2 organizations, 0 events, ");
    assert!(rows.is_some_and(|rest| rest.ends_with(" rows checked.\n")), "{sound}");
    let (_, sound, _) = run(home, &["verify", "data"]).await;
    assert!(sound.starts_with("The store is sound: 2 organizations, 0 events, "), "{sound}");
    let (code, _, errors) = run(home, &["restore", "b.tar", "restored"]).await;
    assert_eq!(code, 0, "{errors}");
    let store = Store::open(StoreOptions::new(home.join("restored"))).unwrap();
    let mut names: Vec<String> =
        store.organizations_blocking().unwrap().into_iter().map(|row| row.org_id).collect();
    names.sort();
    assert_eq!(names, ["first", "second"]);
    store.close_blocking();
    assert_eq!(made(home), ["b.tar", "data", "restored"]);
}

#[tokio::test]
async fn a_truncated_archive_is_reported_with_advice() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path();
    write(&home.join("data"), 1, "first");
    let (code, _, errors) = run(home, &["backup", "b.tar", "--data-dir", "data"]).await;
    assert_eq!(code, 0, "{errors}");
    let whole = fs::read(home.join("b.tar")).unwrap();
    // The archive's end is two empty blocks of 512 bytes, and nothing is lost without them.
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for cut in (700..end).step_by(end / 6) {
        fs::write(home.join("b.tar"), &whole[..cut]).unwrap();
        for arguments in [&["verify", "b.tar"][..], &["restore", "b.tar", "r"]] {
            let (code, found, errors) = run(home, arguments).await;
            assert_eq!(code, 1, "{arguments:?} of {cut} bytes: {found} {errors}");
            assert!(errors.contains("b.tar") && !errors.contains("unpacked"), "{errors}");
            assert!(!found.contains("unpacked") && !errors.contains("panicked"), "{found} {errors}");
            let says_what_to_do =
                ["use another backup", "is not a backup"].iter().any(|it| errors.contains(it));
            assert!(says_what_to_do, "{arguments:?} of {cut} bytes: {errors}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_not_an_archive_is_refused_and_unchanged() {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path();
    write(&home.join("data"), 1, "first");
    fs::write(home.join("b.tar"), [7; 2_000]).unwrap();
    for arguments in
        [&["backup", "b.tar", "--data-dir", "data"][..], &["verify", "b.tar"], &["restore", "b.tar", "r"]]
    {
        let (code, _, errors) = run(home, arguments).await;
        assert_eq!(code, 1, "{arguments:?}: {errors}");
        assert!(errors.contains("b.tar"), "{errors}");
    }
    assert_eq!(fs::read(home.join("b.tar")).unwrap(), [7; 2_000]);
    let (code, _, errors) = run(home, &["verify", "absent.tar"]).await;
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains("absent.tar does not exist"), "{errors}");
    let mut left: Vec<_> = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["b.tar", "data"]);
}
