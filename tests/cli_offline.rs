//! Administration of a stopped daemon: the real binary on a data directory, and the daemon that starts on it
//! afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

fn nervewire(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nervewire"));
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    command.env_remove("JOURNAL_STREAM"); // under a journal, the first key goes into a file
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

/// Runs a command that must succeed, and parses its output.
fn json(dir: &Path, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.push("--json");
    let done = run(dir, &all);
    assert_eq!(done.code, Some(0), "{arguments:?}: {}", done.stderr);
    serde_json::from_str(&done.stdout).unwrap()
}

/// A daemon on `dir/nervewire-data`. It is killed on drop.
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

/// Changes made while the daemon is stopped take effect at its next start.
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
        json(dir, &["key", "create", "--org", "acme", "--name", "k", "--scope", "*", "--expires", "1h"]);
    let dropped = json(dir, &["key", "create", "--org", "acme", "--scope", "subscribe"]);
    assert_eq!(
        json(dir, &["key", "delete", "--org", "acme", dropped["key_id"].as_str().unwrap()]),
        serde_json::json!({"deleted": dropped["key_id"]})
    );
    let token = json(dir, &["token", "--org", "acme", "--user", "ann", "--role", "user"]);
    let revoked = json(dir, &["token", "--org", "acme", "--user", "bob"]);
    json(dir, &["token", "revoke", "--org", "acme", revoked["jti"].as_str().unwrap()]);
    json(dir, &["org", "delete", "gone", "--yes"]);

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

/// The flags in `text`, except for those inside quoted commands.
fn flags(text: &str) -> Vec<&str> {
    let unquoted = text.split('`').step_by(2);
    let words = unquoted.flat_map(|part| part.split(|c: char| !c.is_ascii_lowercase() && c != '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 2).collect()
}

/// The advice of a failed command only names flags of that command.
#[test]
fn hints_name_flags_of_the_command_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let with_store = tempfile::tempdir().unwrap();
    run(with_store.path(), &["init"]);
    let daemon = Daemon::start(with_store.path());
    let nobody = "http://127.0.0.1:1";
    let admin = |url, key| ["backup", "to", "--admin-url", url, "--key", key];
    let cases: &[(&Path, usize, &[&str])] = &[
        (dir, 1, &admin(nobody, "k")),
        (dir, 1, &admin("nonsense", "k")),
        (dir, 1, &admin(&daemon.url, "k")),
        (dir, 1, &["backup", "to"]),
        (dir, 1, &["compact"]),
        (dir, 1, &["verify"]),
        (dir, 2, &["key", "list"]),
        (dir, 2, &["key", "list", "--url", nobody]),
        (dir, 1, &["stats", "--url", nobody]),
        (dir, 1, &["tail", "--url", "nonsense"]),
        (with_store.path(), 1, &["init"]),
        (with_store.path(), 1, &["backup", "to"]),
        (with_store.path(), 1, &["compact"]),
        (with_store.path(), 2, &["key", "list"]),
    ];
    let mut named = 0;
    for (dir, words, arguments) in cases {
        let failed = run(dir, arguments);
        assert!(failed.code.is_some_and(|code| code != 0), "{arguments:?}: {failed:?}");
        let help = run(dir, &[&arguments[..*words], &["--help"]].concat()).stdout;
        for flag in flags(&failed.stderr) {
            named += 1;
            assert!(flags(&help).contains(&flag), "{arguments:?} names {flag}: {}", failed.stderr);
        }
    }
    assert!(named > 8, "{named}");
}

/// A second `init` must neither create a second bootstrap key nor change the first.
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
        assert!(again.stderr.contains("already initialised; nothing was changed"), "{}", again.stderr);
        assert!(again.stderr.contains("key create"), "{}", again.stderr);
    }
    assert_eq!(json(dir, &["key", "list"]), before);
    assert!(Daemon::start(dir).url.starts_with("http://127.0.0.1:"), "the daemon makes no key either");
    assert_eq!(json(dir, &["key", "list"]), before);
}

#[test]
fn the_directory_of_a_running_daemon_is_refused_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    json(dir, &["init"]);
    let daemon = Daemon::start(dir);
    for arguments in [
        &["org", "list"][..],
        &["org", "create", "acme"],
        &["org", "delete", "default", "--json"],
        &["key", "create", "--scope", "*"],
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
        // `init` and `compact` cannot use a running daemon.
        let advice = if arguments.len() > 1 { "--url and --key" } else { "stop it first" };
        assert!(refused.stderr.contains(advice), "{}", refused.stderr);
        assert!(arguments.len() > 1 || !refused.stderr.contains("--url"), "{}", refused.stderr);
    }
}

#[test]
fn a_data_directory_that_cannot_be_created_is_reported_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    for (data_dir, advice) in
        [("/proc/nervewire", "no directory can be created there"), ("file", "it is a file")]
    {
        for command in [&["init"][..], &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off"]] {
            let refused = run(dir.path(), &[command, &["--data-dir", data_dir]].concat());
            assert!(
                refused.stderr.contains(data_dir) && refused.stderr.contains(advice),
                "{}",
                refused.stderr
            );
        }
    }
}

/// A read must not create a store: a mistyped directory would look like an empty daemon.
#[test]
fn a_directory_without_a_store_is_an_error_and_stays_empty() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in
        [&["org", "list"][..], &["key", "create", "--scope", "*"], &["token", "--user", "ann"], &["compact"]]
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
fn refused_commands_say_why_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let first = json(dir, &["init"]);
    let key_id = first["key_id"].as_str().unwrap();
    let before = (json(dir, &["org", "list"]), json(dir, &["key", "list"]));
    for (arguments, code, why) in [
        (&["org", "create", "default"][..], 1, "exists"),
        (&["org", "create", "sp ace"], 1, "id:"),
        (&["org", "delete", "nobody", "--yes"], 1, "no organization \"nobody\""),
        (&["key", "create", "--org", "nobody", "--scope", "*"], 1, "existing organizations: default"),
        (&["key", "create", "--scope", "operator"], 1, "scopes[0]"),
        (&["key", "create", "--type", "mesage", "--scope", "*"], 1, "types"),
        (&["key", "list", "--org", "nobody"], 1, "existing organizations: default"),
        (&["key", "delete", "nobody"], 1, "not found"),
        (&["token"], 64, "add --user"),
        (&["token", "--user", "ann", "--org", "nobody"], 1, "existing organizations: default"),
        (&["token", "revoke", "j", "--org", "nobody"], 1, "existing organizations: default"),
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
fn compact_keeps_everything_and_prints_the_bytes() {
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

/// The key in `dir/nervewire-data/first-key`. Only its owner may read the file.
fn kept_key(dir: &Path) -> String {
    let path = dir.join("nervewire-data/first-key");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    text.trim().to_owned()
}

/// The first key is the only one with all rights. A start that fails must not create it and then lose it.
#[test]
fn a_port_in_use_creates_no_key_and_the_next_start_prints_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (listen, admin) in [(taken.as_str(), "off"), ("127.0.0.1:0", taken.as_str())] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let refused = run(dir, &["serve", "--listen", listen, "--admin-listen", admin]);
        assert_eq!(refused.code, Some(69), "{}", refused.stderr);
        let first = json(dir, &["init"]);
        assert!(first["api_key"].as_str().unwrap().starts_with("nwk_"), "the failed start made no key");
    }
}

/// If standard output is full, closed, discarded or has no reader, the key stays in a file that only its
/// owner can read.
#[test]
fn a_first_key_that_was_not_printed_is_kept_in_a_file() {
    let serve = "serve --listen 127.0.0.1:0 --admin-listen off --ready-file ready";
    for (command, goes) in [
        ("init", "> /dev/full"),
        ("init --json", ">&-"),
        ("init", "> /dev/null"),
        (serve, "> /dev/full"),
        (serve, ">&-"),
        (serve, "> /dev/null"),
        ("serve --listen 127.0.0.1:0 --admin-listen off --ready-file no/such/place", ""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let line = format!("exec {} {command} {goes} 2>said", env!("CARGO_BIN_EXE_nervewire"));
        let mut shell = nervewire(dir, &[]);
        let mut shell =
            Command::new("sh").args(["-c", &line]).current_dir(dir).envs_of(&mut shell).spawn().unwrap();
        let said = || std::fs::read_to_string(dir.join("said")).unwrap_or_default();
        let reported = || said().contains("nervewire-data/first-key");
        let code = loop {
            match shell.try_wait().unwrap() {
                Some(status) => break status.code(),
                None if reported() => {
                    shell.kill().unwrap();
                    break shell.wait().unwrap().code();
                }
                None => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        };
        assert_ne!(code, Some(0), "{command} {goes}");
        assert!(reported(), "{command} {goes}: {}", said());
        let key = kept_key(dir);
        let id = json(dir, &["key", "list"])[0]["key_id"].as_str().unwrap().to_owned();
        assert!(key.starts_with(&format!("nwk_{id}_")), "{command} {goes}: it is the store's key");
        let again = run(dir, &["init"]);
        assert!(again.stderr.contains("nervewire-data/first-key"), "{}", again.stderr);
    }
}

/// An operator who has lost every operator key can create another with access to the data directory.
#[test]
fn an_operator_key_is_created_only_on_a_stopped_store() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let first = json(dir, &["init"]);
    let first_id = first["key_id"].as_str().unwrap();
    let asked = run(dir, &["key", "delete", first_id]);
    assert_eq!(asked.code, Some(64), "{}", asked.stderr);
    assert!(asked.stderr.contains("last operator key") && asked.stderr.contains("--yes"), "{}", asked.stderr);
    json(dir, &["key", "delete", first_id, "--yes"]);
    let made = json(dir, &["key", "create", "--operator", "--name", "spare"]);
    let key = made["api_key"].as_str().unwrap();
    let remote = |daemon: &Daemon, arguments: &[&str]| {
        run(dir, &[arguments, &["--url", &daemon.url, "--key", key]].concat())
    };

    let daemon = Daemon::start(dir);
    assert_eq!(remote(&daemon, &["org", "list"]).code, Some(0));
    let refused = remote(&daemon, &["key", "create", "--operator"]);
    assert_eq!(refused.code, Some(64));
    assert!(refused.stderr.contains("stop the daemon"), "{}", refused.stderr);
    let kept = remote(&daemon, &["key", "delete", made["key_id"].as_str().unwrap()]);
    assert_eq!(kept.code, Some(1));
    assert!(kept.stderr.contains("409") && kept.stderr.contains("last operator key"), "{}", kept.stderr);
    daemon.terminate();

    let other = json(dir, &["key", "create", "--operator", "--expires", "1h"]);
    let daemon = Daemon::start(dir);
    assert_eq!(remote(&daemon, &["key", "delete", other["key_id"].as_str().unwrap()]).code, Some(0));
    daemon.terminate();
    for flags in [&["--scope", "publish"][..], &["--agent", "a"], &["--channel", "c"], &["--type", "message"]]
    {
        assert_eq!(run(dir, &[&["key", "create", "--operator"], flags].concat()).code, Some(64), "{flags:?}");
    }
}

#[test]
fn an_organization_is_deleted_after_confirmation() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    json(dir, &["init"]);
    let orgs = |dir: &Path| json(dir, &["org", "list"]).as_array().unwrap().len();
    json(dir, &["org", "create", "acme"]);
    let refused = run(dir, &["org", "delete", "acme"]);
    assert_eq!((refused.code, orgs(dir)), (Some(64), 2));
    assert!(refused.stderr.contains("acme") && refused.stderr.contains("--yes"), "{}", refused.stderr);
    for (answer, left) in [("n\n", 2), ("\n", 2), ("", 2), ("yes\n", 1)] {
        // `script` runs it on a terminal of its own.
        let line = format!("{} org delete acme", env!("CARGO_BIN_EXE_nervewire"));
        let mut environment = nervewire(dir, &[]);
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &line, "/dev/null"]).current_dir(dir).envs_of(&mut environment);
        let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains("[y/N]") {
            let mut piece = [0; 256];
            let n = stdout.read(&mut piece).unwrap();
            assert!(n > 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&piece[..n]);
        }
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(answer.as_bytes()).unwrap();
        drop(stdin);
        std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
        assert_eq!(child.wait().unwrap().success(), left == 1, "{answer:?}");
        assert_eq!(orgs(dir), left, "{answer:?}");
    }
}

/// A flag overrides a variable, and two contradicting flags are an error.
#[test]
fn data_dir_selects_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    json(dir, &["init"]);
    json(dir, &["init", "--data-dir", "other"]);
    json(dir, &["org", "create", "acme", "--data-dir", "other"]);
    // A bound socket that does not listen: no client can connect, and no other process can get the port.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    nobody.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let url = format!("http://{}", nobody.local_addr().unwrap().as_socket().unwrap());
    let with_variables = |arguments: &[&str]| {
        let mut command = nervewire(dir, arguments);
        command.env("NERVEWIRE_KEY", "nwk_x_y").env("NERVEWIRE_URL", &url);
        command.output().unwrap()
    };
    assert_eq!(with_variables(&["org", "list"]).status.code(), Some(69), "the variables name a daemon");
    let local = with_variables(&["org", "list", "--json", "--data-dir", "other"]);
    assert_eq!(local.status.code(), Some(0), "{local:?}");
    assert!(String::from_utf8_lossy(&local.stdout).contains("acme"), "{local:?}");
    std::fs::write(dir.join("other.toml"), "data_dir = \"other\"\n").unwrap();
    let local = with_variables(&["org", "list", "--json", "--config", "other.toml"]);
    assert!(String::from_utf8_lossy(&local.stdout).contains("acme"), "{local:?}");

    for local in [["--data-dir", "other"], ["--config", "other.toml"]] {
        for remote in [["--url", url.as_str()], ["--key", "nwk_x_y"]] {
            for command in
                [&["org", "list"][..], &["key", "create", "--scope", "*"], &["token", "--user", "u"]]
            {
                let refused = run(dir, &[command, &local, &remote].concat());
                assert_eq!(refused.code, Some(64), "{command:?} {local:?} {remote:?}");
                for flag in [local[0], remote[0]] {
                    assert!(refused.stderr.contains(flag), "{flag}: {}", refused.stderr);
                }
            }
        }
    }
    for empty in ["--url", "--key"] {
        let refused = run(dir, &["org", "delete", "default", "--yes", empty, ""]);
        assert_eq!(refused.code, Some(64));
        assert!(refused.stderr.contains(&format!("{empty} is empty")), "{}", refused.stderr);
    }
    assert_eq!(json(dir, &["org", "list"]).as_array().unwrap().len(), 1, "nothing was deleted");
}

/// Creates a new command with the environment of another.
trait EnvironmentOf {
    fn envs_of(&mut self, other: &mut Command) -> &mut Command;
}

impl EnvironmentOf for Command {
    fn envs_of(&mut self, other: &mut Command) -> &mut Command {
        for (name, value) in other.get_envs() {
            match value {
                Some(value) => self.env(name, value),
                None => self.env_remove(name),
            };
        }
        self.stdin(Stdio::null())
    }
}
