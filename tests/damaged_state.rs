//! A state that is not what was written: damaged, gone, or beside the journal of another store. Opening and verifying say what is
//! wrong and what to do, in the same words, and never panic.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail like tests

mod common;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use nervewire::ids::TenantId;
use nervewire::store::{self, Rows, Store, StoreOptions, Table};

/// Every so many bytes of the state one is changed.
const STRIDE: usize = 4_001;

/// A store with some rows, closed.
fn make(dir: &Path) {
    let store = Store::open(StoreOptions::new(dir)).unwrap();
    let mut rows = Rows::new();
    rows.put_organization(&common::organization(1, "one")).unwrap();
    for n in 0..40 {
        rows.put_row(TenantId(1), Table::Agents, &format!("row {n}"), &[7; 1_000]).unwrap();
    }
    store.write_blocking(rows).unwrap();
    store.close_blocking();
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
        match entry.path().is_dir() {
            true => copy_dir(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Why it does not open, if it does not.
fn opening(dir: &Path) -> Result<(), String> {
    let open = || Store::open(StoreOptions::new(dir)).map(|store| store.close_blocking());
    catch_unwind(AssertUnwindSafe(open)).expect("no panic").map_err(|error| error.to_string())
}

/// What verification says is wrong.
fn problems(dir: &Path) -> Vec<String> {
    let verify = || store::verify(dir, &mut |_: &'static str, _: u64, _: u64| {});
    match catch_unwind(AssertUnwindSafe(verify)).expect("no panic") {
        Ok(found) => found.problems,
        Err(error) => vec![error.to_string()],
    }
}

#[test]
fn a_damaged_state_is_reported_with_advice() {
    let temp = tempfile::tempdir().unwrap();
    let (data, copy) = (temp.path().join("data"), temp.path().join("copy"));
    make(&data);
    assert_eq!(problems(&data), Vec::<String>::new());
    let bytes = fs::read(data.join("log/db")).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let mut refused = 0;
    for at in (0..end).step_by(STRIDE) {
        let _ = fs::remove_dir_all(&copy);
        copy_dir(&data, &copy);
        let mut damaged = bytes.clone();
        damaged[at..].iter_mut().take(16).for_each(|byte| *byte ^= 0x5a);
        fs::write(copy.join("log/db"), damaged).unwrap();
        problems(&copy);
        if let Err(error) = opening(&copy) {
            refused += 1;
            let copy = copy.display().to_string();
            assert!(error.contains(&copy) && error.contains("restore a backup"), "byte {at}: {error}");
        }
    }
    assert!(refused > 0);
}

/// The journal may begin later than its first record, and then it does not hold every row.
#[test]
fn every_command_reports_a_missing_state_in_the_same_words() {
    let temp = tempfile::tempdir().unwrap();
    for gone in ["log", "log/db"] {
        let data = temp.path().join(gone.replace('/', "-"));
        make(&data);
        remove(&data.join(gone));
        let first = fs::read_dir(data.join("journal")).unwrap().map(|entry| entry.unwrap().path());
        let first = first.filter(|path| path.extension().is_some_and(|it| it == "seg")).min().unwrap();
        fs::rename(&first, first.with_file_name("0000000000001000.seg")).unwrap();
        let expected = store::find(&data).unwrap_err().to_string();
        assert!(expected.contains("the state that belongs to it, log/db, is gone"), "{expected}");
        for _ in 0..2 {
            assert_eq!(problems(&data), [expected.as_str()]);
            assert_eq!(opening(&data).unwrap_err(), expected);
            assert_eq!(store::compact(&data).unwrap_err().to_string(), expected);
        }
        assert!(!data.join("log/db").exists(), "looking at it makes no state");
    }
}

/// A power cut before the first checkpoint leaves a whole journal without a state.
#[test]
fn a_missing_state_is_rebuilt_from_a_complete_journal() {
    let temp = tempfile::tempdir().unwrap();
    for gone in ["log", "log/db"] {
        let data = temp.path().join(gone.replace('/', "-"));
        make(&data);
        remove(&data.join(gone));
        let found = problems(&data);
        assert!(found.len() == 1 && found[0].contains("builds it again from the journal"), "{found:?}");
        assert!(!data.join("log/db").exists(), "looking at it makes no state");
        let store = Store::open(StoreOptions::new(&data)).unwrap();
        let organizations = store.organizations_blocking().unwrap();
        assert_eq!(organizations.len(), 1, "{organizations:?}");
        store.close_blocking();
        assert_eq!(problems(&data), Vec::<String>::new());
    }
}

fn remove(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir_all(path).unwrap(),
        false => fs::remove_file(path).unwrap(),
    }
}

#[test]
fn a_journal_of_another_store_is_reported() {
    let temp = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| temp.path().join(name));
    make(&one);
    make(&other);
    let journal: PathBuf = one.join("journal");
    fs::remove_dir_all(&journal).unwrap();
    copy_dir(&other.join("journal"), &journal);
    let found = problems(&one);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("of another store"), "{found:?}");
    assert!(opening(&one).unwrap_err().contains("it is of another store than the state"));
}
