//! Tests of the configuration as an operator uses it: sources, errors, printing and the documentation.

use super::*;

fn file(text: &str) -> Sources {
    Sources {
        file: Some(FileText { name: "nervewire.toml".into(), text: text.into() }),
        ..Sources::default()
    }
}

fn env(pairs: &[(&str, &str)]) -> Sources {
    Sources { env: pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(), ..Sources::default() }
}

fn refused(sources: &Sources) -> String {
    Config::load(sources).unwrap_err().to_string()
}

const SECRET: &str = "correct-horse-battery-staple-0123456789";

#[test]
fn without_any_source_it_runs_on_loopback() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert_eq!(config.admin_listen, Some("127.0.0.1:8081".parse().unwrap()));
    assert_eq!(config.data_dir, PathBuf::from("./nervewire-data"));
    assert_eq!(config.heartbeat(), Duration::from_secs(30));
    assert_eq!(config.sse_keepalive(), Duration::from_secs(15));
    assert_eq!(config.limits.event_bytes, 65_536);
    assert_eq!(config.limits.body_bytes, 4_194_304);
    assert_eq!(config.limits.ws_frame_bytes, 1_048_576);
    assert_eq!((config.limits.connections_per_user, config.limits.connections_per_address), (64, 1_024));
    assert_eq!(config.store.reserve_bytes, 256 << 20);
    assert_eq!(config, Config::default());
}

#[test]
fn flags_beat_the_environment_and_the_environment_beats_the_file() {
    let mut sources = file("heartbeat_seconds = 1\ndrain_seconds = 1\nsse_keepalive_seconds = 1");
    sources.env = env(&[("NERVEWIRE_HEARTBEAT_SECONDS", "2"), ("NERVEWIRE_DRAIN_SECONDS", "2")]).env;
    sources.flags = vec![FlagValue { flag: "--drain", key: "drain_seconds", values: vec!["3".into()] }];

    let (config, origins) = Config::load_traced(&sources).unwrap();

    assert_eq!((config.sse_keepalive_seconds, config.heartbeat_seconds, config.drain_seconds), (1, 2, 3));
    assert_eq!(origins["sse_keepalive_seconds"].to_string(), "nervewire.toml line 3");
    assert_eq!(origins["heartbeat_seconds"].to_string(), "NERVEWIRE_HEARTBEAT_SECONDS");
    assert_eq!(origins["drain_seconds"].to_string(), "--drain");
    assert!(!origins.contains_key("log.level"));
}

/// Each key is set through its own variable, and only its own field changes.
#[test]
fn every_key_has_a_variable_that_reaches_it_and_nothing_else() {
    for key in KEYS {
        let value = match &key.kind {
            KeyType::Int { default, min, max, .. } => if default == max { min } else { max }.to_string(),
            KeyType::Size { default, min, max, .. } => if default == max { min } else { max }.to_string(),
            KeyType::Bool { default, .. } => (!default).to_string(),
            KeyType::Path { .. } => "/elsewhere".into(),
            KeyType::Listens { .. } => "[::1]:0,unix:/run/x.sock".into(),
            KeyType::Listen { .. } => "off".into(),
            KeyType::WebOrigins { .. } => "https://a.example, http://b.example:8080".into(),
            KeyType::Proxies { .. } => "10.0.0.0/8, ::1, unix".into(),
            KeyType::Word { words, default, .. } => {
                (*words.iter().find(|word| *word != default).unwrap()).into()
            }
            KeyType::JwtKeys => format!(r#"[{{"secret":"{SECRET}","organizations":["default"]}}]"#),
        };
        let mut config = Config::default();
        let sources = env(&[(key.variable().as_str(), value.as_str())]);
        let mut problems = Vec::new();
        for setting in sources.settings(&mut problems) {
            apply::apply(setting.key, &setting.value, &mut config).unwrap();
        }
        assert!(problems.is_empty(), "{problems:?}");
        let defaults = Config::default();
        let changed: Vec<_> =
            KEYS.iter().filter(|k| k.value(&config) != k.value(&defaults)).map(|k| k.name).collect();
        assert_eq!(changed, [key.name], "{value}");
    }
}

#[test]
fn lists_may_be_comma_separated_or_json() {
    for text in ["127.0.0.1:1,[::1]:2", r#"["127.0.0.1:1","[::1]:2"]"#, " 127.0.0.1:1 , [::1]:2 ,"] {
        let config = Config::load(&env(&[("NERVEWIRE_LISTEN", text)])).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()], "{text}");
    }
    let one = Config::load(&env(&[("NERVEWIRE_LISTEN", "[::1]:2")])).unwrap();
    assert_eq!(one.listen, ["[::1]:2".parse().unwrap()]);
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    let error = refused(&file(
        "heartbeat_secs = 3\n[limits]\nring_slot = 2\n[rentention]\nmax_events = 1\nring_slots = 1",
    ));
    assert_eq!(
        error.lines().collect::<Vec<_>>(),
        [
            "the configuration has 3 problems:",
            "  nervewire.toml line 1: heartbeat_secs: is unknown; did you mean heartbeat_seconds?",
            "  nervewire.toml line 3: limits.ring_slot: is unknown; did you mean limits.ring_slots?",
            "  nervewire.toml line 4: rentention: is unknown; did you mean [retention]?",
        ]
    );
    let error = refused(&env(&[("NERVEWIRE_LIMITS_RING_SLOTS", "1")]));
    assert!(
        error.contains("NERVEWIRE_LIMITS_RING_SLOTS: is unknown; did you mean NERVEWIRE_LIMITS__RING_SLOTS?"),
        "{error}"
    );
}

#[test]
fn variables_of_the_command_line_and_of_kubernetes_are_ignored() {
    let names: Vec<&str> = CLI_VARIABLES.iter().map(|(name, _)| *name).collect();
    let mut pairs: Vec<(&str, &str)> = names.iter().map(|name| (*name, "x")).collect();
    pairs.extend([
        ("NERVEWIRE_BIN", "target/release/nervewire"),
        ("NERVEWIRE_SERVICE_HOST", "10.0.0.1"),
        ("NERVEWIRE_SERVICE_PORT_HTTP", "8080"),
        ("NERVEWIRE_PORT", "tcp://10.0.0.1:8080"),
        ("NERVEWIRE_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
    ]);
    assert_eq!(Config::load(&env(&pairs)).unwrap(), Config::default());
}

#[test]
fn all_problems_are_reported_together_with_key_source_and_expectation() {
    let mut sources = file(
        "heartbeat_seconds = \"often\"\ntoken_in_query = 1\n[log]\nlevel = \"loud\"\n[store]\ncache_bytes = -1",
    );
    sources.env = env(&[("NERVEWIRE_DRAIN_SECONDS", "3601"), ("NERVEWIRE_LISTEN", ":80")]).env;
    sources.flags =
        vec![FlagValue { flag: "--admin-listen", key: "admin_listen", values: vec!["8081".into()] }];
    let error = Config::load(&sources).unwrap_err();
    let mut messages: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
    messages.sort();
    assert_eq!(
        messages,
        [
            "--admin-listen: admin_listen: \"8081\" is not `addr:port` (`127.0.0.1:8080`, \
             `[::1]:8080`, `localhost:8080`) or `unix:/path`",
            "NERVEWIRE_DRAIN_SECONDS: drain_seconds: expects an integer from 0 to 3600, got 3601",
            "NERVEWIRE_LISTEN: listen: \":80\" is not `addr:port` (`127.0.0.1:8080`, \
             `[::1]:8080`, `localhost:8080`) or `unix:/path`",
            "nervewire.toml line 1: heartbeat_seconds: expects an integer from 1 to 3600, got \"often\"",
            "nervewire.toml line 2: token_in_query: expects true or false, got 1",
            "nervewire.toml line 4: log.level: expects one of off, error, warn, info, debug, trace, got \"loud\"",
            "nervewire.toml line 6: store.cache_bytes: expects an integer from 1048576 to 1099511627776, got -1",
        ]
    );
}

#[test]
fn invalid_toml_is_refused_with_its_line_and_without_quoting_it() {
    let error = refused(&file(&format!(
        "heartbeat_seconds = 3\n[auth]\njwt_keys = [{{ secret = \"{SECRET}\" }} oops\n"
    )));
    assert!(error.contains("nervewire.toml line 3"), "{error}");
    assert!(!error.contains(SECRET), "{error}");
    assert!(refused(&file("limits = 3")).contains("limits: expects a table, got an integer"));
    assert!(
        refused(&file("heartbeat_seconds = 99999999999999999999999999999999999999999"))
            .contains("of that size")
    );
}

#[test]
fn relations_between_limits_are_checked() {
    for (text, expected) in [
        ("body_bytes = 2048", "limits.event_bytes (65536) to be at most limits.body_bytes (2048)"),
        ("ws_frame_bytes = 2048", "limits.event_bytes (65536) to be at most limits.ws_frame_bytes (2048)"),
        ("ring_slots = 4096", "limits.uncommitted_events (16384) to be at most limits.ring_slots (4096)"),
        ("ring_slots = 65537", "expects a power of two, got 65537; the next is 131072"),
        (
            "ring_bytes_total = 4194304",
            "limits.ring_bytes_per_tenant (67108864) to be at most limits.ring_bytes_total",
        ),
        ("event_bytes = 65537", "expects an integer from 1024 to 65536, got 65537"),
        ("uncommitted_events = 999", "expects an integer from 1000"),
    ] {
        let error = refused(&file(&format!("[limits]\n{text}")));
        assert!(error.contains(expected), "{text}: {error}");
        assert!(error.contains("nervewire.toml line 2"), "{text}: {error}");
    }
    assert!(refused(&file("listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]")).contains("configured twice"));
    assert!(refused(&file("listen = \"127.0.0.1:8081\"")).contains("configured twice"));
    assert!(Config::load(&file("listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"")).is_ok());
}

#[test]
fn allowed_origins_must_be_origins() {
    let load = |origin: &str| Config::load(&file(&format!("allowed_origins = [\"{origin}\"]")));
    for ok in [
        "https://app.example",
        "http://localhost:3000",
        "https://[::1]:8443",
        "chrome-extension://abc",
        "http://[::80]",
    ] {
        assert_eq!(load(ok).unwrap().allowed_origins, [ok]);
    }
    assert_eq!(load("HTTPS://App.Example").unwrap().allowed_origins, ["https://app.example"]);
    for bad in [
        "*",
        "null",
        "app.example",
        "https://app.example/",
        "https://",
        "https://a b",
        "https://u@h",
        "https://a:443",
    ] {
        assert!(load(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_invalid_proxy_is_refused_with_its_index() {
    let text = "\ntrusted_proxies = [\"127.0.0.1\", \"10.0.0.0/33\"]\n";
    let expected =
        "nervewire.toml line 2: trusted_proxies[1]: \"10.0.0.0/33\" is not an address, a network or \"unix\"";
    assert!(refused(&file(text)).contains(expected), "{}", refused(&file(text)));
    let one = refused(&env(&[("NERVEWIRE_TRUSTED_PROXIES", "10.0.0.0/8,nginx")]));
    assert!(one.contains("NERVEWIRE_TRUSTED_PROXIES: trusted_proxies[1]: \"nginx\""), "{one}");
}

#[test]
fn jwt_keys_pin_algorithm_and_organizations() {
    let load = |text: &str| Config::load(&file(&format!("auth.jwt_keys = [{text}]")));
    let orgs = "organizations = [\"acme\"]";
    let keys = load(&format!(
        "{{ kid = \"a\", default = true, secret = \"{SECRET}\", {orgs} }}, \
         {{ kid = \"b\", alg = \"EdDSA\", public_key_file = \"b.pem\", {orgs} }}, {{ jwks_file = \"c.json\", {orgs} }}"
    ))
    .unwrap()
    .auth
    .jwt_keys;
    assert_eq!(keys[0].material, JwtKeyMaterial::Secret(Secret::new(SECRET)));
    assert_eq!(
        keys[1].material,
        JwtKeyMaterial::PublicKeyFile { path: "b.pem".into(), alg: JwtAlgorithm::EdDsa }
    );
    assert_eq!(keys[2].material, JwtKeyMaterial::JwksFile { path: "c.json".into(), alg: None });
    assert!(keys[0].default && keys[0].organizations == ["acme"]);

    for (text, expected) in [
        (format!("{{ secret = \"{SECRET}\" }}"), "[0].organizations expects"),
        (format!("{{ secret = \"{SECRET}\", organizations = [\"*\"] }}"), "[0].organizations expects"),
        (format!("{{ secret = \"{SECRET}\", organizations = [] }}"), "[0].organizations expects"),
        (format!("{{ secret = \"short\", {orgs} }}"), "[0].secret expects at least 32 bytes"),
        (format!("{{ secret = \"(redacted)\", {orgs} }}"), "put the secret back"),
        (format!("{{ secret = \"{SECRET}\", alg = \"RS256\", {orgs} }}"), "[0].alg expects HS256"),
        (format!("{{ secret = \"{SECRET}\", alg = \"none\", {orgs} }}"), "[0].alg expects one of HS256"),
        (format!("{{ public_key_file = \"a.pem\", {orgs} }}"), "[0].alg expects RS256, ES256 or EdDSA"),
        (format!("{{ public_key_file = \"a.pem\", alg = \"HS256\", {orgs} }}"), "[0].alg expects RS256"),
        (format!("{{ jwks_file = \"a\", alg = \"HS256\", {orgs} }}"), "[0].alg expects RS256"),
        (format!("{{ jwks_file = \"a\", kid = \"k\", {orgs} }}"), "leave out kid and default"),
        (format!("{{ secret = \"{SECRET}\", jwks_file = \"a\", {orgs} }}"), "exactly one of"),
        (format!("{{ kid = \"a\", {orgs} }}"), "exactly one of"),
        (
            format!("{{ secret = \"{SECRET}\", issuer = \"\", {orgs} }}"),
            "[0].issuer expects a non-empty string",
        ),
        (
            format!("{{ secret = \"{SECRET}\", audience = [\"a\"], {orgs} }}"),
            "[0].audience expects a non-empty string",
        ),
        (
            format!("{{ secret = \"{SECRET}\", issuer = \"{}\", {orgs} }}", "x".repeat(2_049)),
            "[0].issuer is longer than 2048 bytes",
        ),
        (format!("{{ sekret = \"{SECRET}\", {orgs} }}"), "[0].sekret is unknown; did you mean secret?"),
        (
            format!(
                "{{ kid = \"a\", secret = \"{SECRET}\", {orgs} }}, {{ kid = \"a\", secret = \"{SECRET}\", {orgs} }}"
            ),
            "[1].kid is the same as an earlier one",
        ),
        (
            format!("{{ kid = \"a\", secret = \"{SECRET}\", {orgs} }}, {{ secret = \"{SECRET}\", {orgs} }}"),
            "[1] needs a kid",
        ),
    ] {
        let error = load(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains(SECRET), "{error}");
    }
    let error = refused(&env(&[("NERVEWIRE_AUTH__JWT_KEYS", SECRET)]));
    assert!(error.contains("expects a list of tables") && !error.contains(SECRET), "{error}");
}

#[test]
fn a_printed_configuration_loads_to_the_same() {
    let sources = file(
        "listen = [\"[::1]:0\", \"unix:/run/a \\\"b\\\".sock\"]\nadmin_listen = \"off\"\ndata_dir = \"d\\\\e\\u0001é\"\n\
         allowed_origins = [\"https://a.example\"]\ntoken_in_query = false\ntrusted_proxies = [\"unix\", \"10.0.0.0/8\"]\n[limits]\nconnections = 7\n\
         [log]\nformat = \"json\"\n[store]\ndurability = \"memory\"\n\
         [[auth.jwt_keys]]\njwks_file = \"c.json\"\norganizations = [\"acme\", \"b\"]\nissuer = \"https://id.example\"\naudience = \"chat\"\n",
    );
    for sources in [&sources, &Sources::default()] {
        let (config, origins) = Config::load_traced(sources).unwrap();
        let printed = print(&config, &origins);
        let again = Config::load(&file(&printed)).unwrap_or_else(|error| panic!("{error}\n{printed}"));
        assert_eq!(again, config, "{printed}");
        for key in KEYS {
            assert!(printed.contains(&format!("{} = ", key.leaf())), "{} in\n{printed}", key.name);
        }
    }
    let (config, origins) = Config::load_traced(&sources).unwrap();
    let printed = print(&config, &origins);
    assert!(printed.contains("format = \"json\" # nervewire.toml line 10\n"), "{printed}");
    assert!(printed.contains("level = \"info\" # default\n"), "{printed}");
}

#[test]
fn secrets_are_never_shown() {
    let text = format!("[[auth.jwt_keys]]\nsecret = \"{SECRET}\"\norganizations = [\"acme\"]\n");
    let (config, origins) = Config::load_traced(&file(&text)).unwrap();
    let printed = print(&config, &origins);
    assert!(!printed.contains(SECRET), "{printed}");
    assert!(!format!("{config:?}{config:#?}").contains(SECRET));
    assert!(refused(&file(&printed)).contains("put the secret back"));
    // After the secret is put back, the configuration is the same.
    assert_eq!(Config::load(&file(&printed.replace("(redacted)", SECRET))).unwrap(), config);
}

/// `UPDATE_DOCS=1 cargo test docs_configuration` writes the tables again.
#[test]
fn docs_configuration_holds_the_table_of_keys() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let (start, end) = ("<!-- keys: generated, see src/config/table.rs -->\n", "<!-- end of keys -->");
    let page = std::fs::read_to_string(path).unwrap();
    let (before, rest) = page.split_once(start).unwrap();
    let (tables, after) = rest.split_once(end).unwrap();
    let wanted = format!("\n{}\n", reference());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{start}{wanted}{end}{after}")).unwrap();
    } else {
        assert_eq!(tables, wanted, "docs/configuration.md is behind src/config/table.rs");
    }
    for key in KEYS {
        assert!(!key.text.is_empty() && !key.text.contains('|') && !key.text.contains('\n'), "{}", key.name);
    }
    for (variable, _) in CLI_VARIABLES {
        assert!(page.contains(variable), "{variable}");
    }
}

#[test]
fn flags_may_repeat_for_a_list() {
    let flag = |values: &[&str]| Sources {
        flags: vec![FlagValue {
            flag: "--listen",
            key: "listen",
            values: values.iter().map(|v| (*v).into()).collect(),
        }],
        ..Sources::default()
    };
    assert_eq!(Config::load(&flag(&["127.0.0.1:1", "unix:/a,b"])).unwrap().listen.len(), 2);
    assert_eq!(Config::load(&flag(&["127.0.0.1:1"])).unwrap().listen.len(), 1);
}
