//! Administration of a stopped daemon: the real binary on a data directory, and what a daemon then makes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests fail like tests

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

fn nervewire(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nervewire"));
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NERVEWIRE_") {
            command.env_remove(name);
        }
    }
    command
}

#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(dir: &Path, arguments: &[&str]) -> Done {
    let output = nervewire(dir, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs a command that must succeed, and reads what it printed.
fn json(dir: &Path, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.push("--json");
    let done = run(dir, &all);
    assert_eq!(done.code, Some(0), "{arguments:?}: {}", done.stderr);
    serde_json::from_str(&done.stdout).unwrap()
}

/// A daemon on `dir/nervewire-data`; killed when dropped.
struct Daemon {
    child: Child,
    url: String,
}

impl Daemon {
    fn start(dir: &Path) -> Daemon {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off"];
        let mut child =
            nervewire(dir, &arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.contains("serves on"), "{said:?}");
        let address = said.trim().rsplit(' ').next().unwrap().trim_start_matches("http://");
        Daemon { url: format!("http://{address}"), child }
    }

    fn terminate(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is administered while the daemon is stopped is what the daemon serves by afterwards.
#[test]
fn a_stopped_daemon_is_administered_on_its_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let first = json(dir, &["init"]);
    assert_eq!(first["org_id"], "default");
    let bootstrap = first["api_key"].as_str().unwrap();
    assert!(bootstrap.starts_with(&format!("nwk_{}_", first["key_id"].as_str().unwrap())));

    let acme =
        json(dir, &["org", "create", "acme", "--name", "Acme Inc.", "--visibility", "org", "--presence"]);
    assert_eq!((&acme["id"], &acme["visibility"]), (&"acme".into(), &"org".into()));
    assert_eq!(acme["presence"], true);
    json(dir, &["org", "create", "gone"]);
    let key =
        json(dir, &["key", "create", "--org", "acme", "--name", "k", "--scopes", "*", "--expires", "1h"]);
    let dropped = json(dir, &["key", "create", "--org", "acme", "--scope", "subscribe"]);
    assert_eq!(
        json(dir, &["key", "delete", "--org", "acme", dropped["key_id"].as_str().unwrap()]),
        serde_json::json!({"deleted": dropped["key_id"]})
    );
    let token = json(dir, &["token", "--org", "acme", "--user", "ann", "--role", "user"]);
    let revoked = json(dir, &["token", "--org", "acme", "--user", "bob"]);
    json(dir, &["token", "revoke", "--org", "acme", revoked["jti"].as_str().unwrap()]);
    json(dir, &["org", "delete", "gone"]);

    let orgs = json(dir, &["org", "list"]);
    let ids: Vec<&str> = orgs.as_array().unwrap().iter().map(|org| org["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["acme", "default"]);
    let keys = json(dir, &["key", "list", "--org", "acme"]);
    assert_eq!(keys.as_array().unwrap().len(), 1);
    assert_eq!(keys[0]["key_id"], key["key_id"]);
    assert_eq!((&keys[0]["org_id"], &keys[0]["name"]), (&"acme".into(), &"k".into()));
    assert!(keys[0]["expires_at"].is_string());
    assert_eq!(json(dir, &["key", "list"])[0]["key_id"], first["key_id"]);

    let daemon = Daemon::start(dir);
    let publish = |key: &Value, more: &[&str]| {
        let mut all = vec!["publish", "--url", &daemon.url, "--key", key.as_str().unwrap(), "--quiet"];
        all.extend_from_slice(more);
        run(dir, &all).code
    };
    let custom = ["--channel", "c", "--data", "1"];
    let message = ["--agent", "a", "--user", "ann", "--content", "hi"];
    assert_eq!(publish(&first["api_key"], &custom), Some(0));
    assert_eq!(publish(&key["api_key"], &custom), Some(0));
    assert_eq!(publish(&token["token"], &message), Some(0));
    assert_eq!(publish(&dropped["api_key"], &custom), Some(77), "a deleted key");
    assert_eq!(publish(&revoked["token"], &message), Some(77), "a revoked token");
    let remote = ["--url", &daemon.url, "--key", bootstrap];
    let over_rest = |arguments: &[&str]| json(dir, &[arguments, &remote].concat());
    assert_eq!(over_rest(&["org", "list"]), orgs, "both ways show the same");
    let key_id = key["key_id"].as_str().unwrap();
    over_rest(&["key", "delete", "--org", "acme", key_id]);
    assert_eq!(publish(&key["api_key"], &custom), Some(77));
    daemon.terminate();
    assert_eq!(json(dir, &["key", "list", "--org", "acme"]), serde_json::json!([]));
}

/// A second `init` must not make a second bootstrap key, nor touch the first.
#[test]
fn init_on_an_initialised_directory_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = run(dir, &["init"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(said.stdout.contains("organization  default\n"), "{}", said.stdout);
    let before = json(dir, &["key", "list"]);
    for arguments in [&["init"][..], &["init", "--json"]] {
        let again = run(dir, arguments);
        assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""));
        assert!(again.stderr.contains("initialised already; nothing was changed"), "{}", again.stderr);
        assert!(again.stderr.contains("key create"), "{}", again.stderr);
    }
    assert_eq!(json(dir, &["key", "list"]), before);
    assert!(Daemon::start(dir).url.starts_with("http://127.0.0.1:"), "the daemon makes no key either");
    assert_eq!(json(dir, &["key", "list"]), before);
}

#[test]
fn while_a_daemon_runs_its_directory_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    json(dir, &["init"]);
    let daemon = Daemon::start(dir);
    for arguments in [
        &["org", "list"][..],
        &["org", "create", "acme"],
        &["org", "delete", "default", "--json"],
        &["key", "create", "--scopes", "*"],
        &["key", "list"],
        &["key", "delete", "k"],
        &["token", "--user", "ann"],
        &["token", "revoke", "j"],
        &["init"],
        &["compact"],
    ] {
        let refused = run(dir, arguments);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(73), ""), "{arguments:?}");
        let pid = daemon.child.id().to_string();
        assert!(refused.stderr.contains(&format!("process {pid} is using")), "{}", refused.stderr);
        assert!(refused.stderr.contains("--url and --key"), "{}", refused.stderr);
    }
}

/// Asking must not make a store: a mistyped directory would look like an empty daemon.
#[test]
fn a_directory_without_a_store_is_an_error_and_stays_empty() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in
        [&["org", "list"][..], &["key", "create", "--scopes", "*"], &["token", "--user", "ann"], &["compact"]]
    {
        let refused = run(dir.path(), &[arguments, &["--data-dir", "typo"]].concat());
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{arguments:?}");
        assert!(
            refused.stderr.contains("there is no store in the data directory typo"),
            "{}",
            refused.stderr
        );
        assert!(refused.stderr.contains("nervewire init"), "{}", refused.stderr);
    }
    assert!(!dir.path().join("typo").exists());
}

#[test]
fn what_is_refused_says_why_and_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let first = json(dir, &["init"]);
    let key_id = first["key_id"].as_str().unwrap();
    let before = (json(dir, &["org", "list"]), json(dir, &["key", "list"]));
    for (arguments, code, why) in [
        (&["org", "create", "default"][..], 1, "exists"),
        (&["org", "create", "sp ace"], 1, "id:"),
        (&["org", "delete", "nobody"], 1, "not found"),
        (&["key", "create", "--org", "nobody", "--scopes", "*"], 1, "not found"),
        (&["key", "create", "--scope", "operator"], 1, "scopes[0]"),
        (&["key", "create", "--types", "mesage", "--scopes", "*"], 1, "types"),
        (&["key", "list", "--org", "nobody"], 1, "not found"),
        (&["key", "delete", "nobody"], 1, "not found"),
        (&["token"], 64, "needs a user"),
        (&["token", "--user", "ann", "--role", "root"], 1, "roles[0]"),
        (&["token", "--user", "ann", "--expires", "31d"], 1, "30 days"),
        (&["token", "revoke", ""], 1, "jti"),
    ] {
        let refused = run(dir, arguments);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(code), ""), "{arguments:?}");
        assert!(refused.stderr.contains(why), "{arguments:?}: {}", refused.stderr);
    }
    assert_eq!((json(dir, &["org", "list"]), json(dir, &["key", "list"])), before);
    assert_eq!(before.1[0]["key_id"], key_id);
}

#[test]
fn compact_keeps_everything_and_tells_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    json(dir, &["init"]);
    let before = json(dir, &["key", "list"]);
    let done = json(dir, &["compact"]);
    assert!(done["bytes_before"].as_u64().unwrap() > 0 && done["bytes_after"].as_u64().unwrap() > 0);
    assert_eq!(json(dir, &["key", "list"]), before);
    let mut text = String::new();
    std::fs::File::open(dir.join("nervewire-data/lock")).unwrap().read_to_string(&mut text).unwrap();
    assert!(!text.is_empty(), "the directory was locked by whoever worked on it");
}
