//! Tests of the grammar and of the help texts. `UPDATE_SNAPSHOTS=1 cargo test help_texts` rewrites the
//! snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn helps(mut command: clap::Command, name: &str, found: &mut BTreeMap<String, String>) {
    command = command.term_width(100);
    let children: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    found.insert(name.replace(' ', "-"), command.render_long_help().to_string());
    for child in children {
        let full = format!("{name} {}", child.get_name());
        helps(child.clone().bin_name(full.clone()), &full, found);
    }
}

#[test]
fn the_grammar_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_texts() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/help");
    let mut found = BTreeMap::new();
    helps(Cli::command(), "nervewire", &mut found);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in &found {
            std::fs::write(dir.join(format!("{name}.txt")), text).unwrap();
        }
    }
    let kept: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(".txt").to_owned())
        .collect();
    assert_eq!(kept.len(), found.len(), "snapshots without a command: {kept:?}");
    for (name, text) in &found {
        let snapshot = std::fs::read_to_string(dir.join(format!("{name}.txt"))).unwrap_or_default();
        assert_eq!(*text, snapshot, "{name}: run with UPDATE_SNAPSHOTS=1 if the change is intended");
    }
}

/// The long names of all flags of `command` and of the commands below it.
fn flags(command: &clap::Command, found: &mut BTreeSet<String>) {
    for argument in command.get_arguments() {
        found.extend(argument.get_long().map(str::to_owned));
        found.extend(argument.get_all_aliases().into_iter().flatten().map(str::to_owned));
    }
    command.get_subcommands().for_each(|command| flags(command, found));
}

/// The Rust files below `dir`.
fn sources_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources_below(&path, found),
            false if path.extension().is_some_and(|extension| extension == "rs") => found.push(path),
            false => {}
        }
    }
}

/// A message may name a flag that was renamed or never was.
#[test]
fn every_flag_that_the_sources_name_exists() {
    let of_clap_and_cargo = ["help", "version", "release", "examples"];
    // The programs that `nervewire bench` compares the daemon with.
    let of_baselines = ["bytes", "commits", "depth", "dir", "ids"];
    let others = of_clap_and_cargo.into_iter().chain(of_baselines);
    let (mut known, mut files) = (others.map(str::to_owned).collect::<BTreeSet<String>>(), Vec::new());
    flags(&Cli::command(), &mut known);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    sources_below(&root.join("src"), &mut files);
    sources_below(&root.join("benches/load/src"), &mut files);
    for file in files.into_iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let (code, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices("--") {
                let before = line[..at].chars().next_back().unwrap_or(' ');
                let name: String =
                    line[at + 2..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                let is_flag = matches!(before, ' ' | '"' | '`' | '(') && name.starts_with(|c: char| c != '-');
                assert!(!is_flag || known.contains(&name), "{}: --{name} in {line:?}", file.display());
            }
        }
    }
}

#[test]
fn without_a_command_it_serves() {
    let cli = parse("nervewire --listen 127.0.0.1:0 --listen unix:/a --data-dir d --ready-file r").unwrap();
    assert!(cli.command.is_none());
    assert_eq!(cli.serve.listen.listen, ["127.0.0.1:0", "unix:/a"]);
    assert_eq!(cli.serve.config.data_dir.as_deref(), Some("d"));
    assert!(matches!(
        parse("nervewire serve --listen 127.0.0.1:0").unwrap().command,
        Some(Command::Serve(_))
    ));
}

#[test]
fn what_parses() {
    for line in [
        "nervewire init --json",
        "nervewire org create",
        "nervewire org create acme --name Acme --visibility org --presence --json",
        "nervewire org list --url http://h --key k",
        "nervewire org delete acme --data-dir d --yes",
        "nervewire tail --types a --agents b --channels c",
        "nervewire key create --org acme --name n --scope publish,subscribe --expires 7d --agent a,b --agent c --json",
        "nervewire key list --json",
        "nervewire key delete k1 --org acme",
        "nervewire token --org acme --user alice --role viewer --scope subscribe --expires 15m --type message",
        "nervewire token revoke j1 --org acme --json",
        "nervewire publish {\"type\":\"x\"} --ack durable --idempotency-key k",
        "nervewire publish - --quiet",
        "nervewire publish --channel c --data 1",
        "nervewire tail --ws --json --type a,b --type c --agent a --user u --request r --channel c/* --since t --count 3",
        "nervewire tail --earliest",
        "nervewire tail --after C --no-reconnect",
        "nervewire stream --request-id r --agent-id a --user-id u --metadata {\"k\":1} --lease-seconds 5 --part data:d",
        "nervewire stream --request r --agent a --agent-status --takeover --finish-reason length --json",
        "nervewire stream --read r --all-parts --after C",
        "nervewire connections list --json",
        "nervewire connections kick id1",
        "nervewire connections kick --user u",
        "nervewire stats",
        "nervewire check-config --print",
        "nervewire compact --json",
        "nervewire completions fish",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_does_not_parse() {
    for line in [
        "nervewire frobnicate",
        "nervewire --listen 127.0.0.1:0 tail",
        "nervewire publish",
        "nervewire publish {} --channel c --data 1",
        "nervewire publish --channel c",
        "nervewire publish --channel c --data {oops",
        "nervewire publish --content hi --agent a",
        "nervewire publish --status idle",
        "nervewire publish --chunk x",
        "nervewire publish {} --ack disk",
        "nervewire publish {} --ack fsync",
        "nervewire key create --operator --scope publish",
        "nervewire tail --earliest --since t",
        "nervewire stream --read r --part data:d",
        "nervewire stream --after C",
        "nervewire stream --takeover",
        "nervewire stream --agent-status",
        "nervewire stream --lease-seconds 601",
        "nervewire connections kick",
        "nervewire connections kick a --user u",
        "nervewire key delete",
        "nervewire token --expires soon",
        "nervewire check-config --print --json",
        "nervewire serve --diagnostic-echo nowhere",
        "nervewire completions klingon",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn an_empty_narrowing_matches_nothing_and_an_absent_one_everything() {
    let Some(Command::Token(args)) =
        Cli::try_parse_from(["nervewire", "token", "--agent", ""]).unwrap().command
    else {
        panic!("not `token`");
    };
    let grant = key::grant(args.grant);
    assert_eq!((grant.agents, grant.channels), (Some(vec![]), None));
}

#[test]
fn the_echo_is_for_loopback_only() {
    let prepare = |addr: &str| {
        serve::prepare(args::ServeArgs { diagnostic_echo: Some(addr.parse().unwrap()), ..Default::default() })
    };
    assert_eq!(prepare("127.0.0.1:9001").unwrap().1.diagnostic_echo, Some("127.0.0.1:9001".parse().unwrap()));
    assert!(prepare("[::1]:9001").is_ok());
    assert!(matches!(prepare("0.0.0.0:9001"), Err(CliError::Reported { exit: Exit::Usage, .. })));
}
