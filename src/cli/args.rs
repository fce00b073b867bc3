//! The grammar of the command line: every command, flag, help text and example. It does not run commands.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

pub use super::event_args::{PublishArgs, TailArgs};
use super::parse::seconds;
use super::remote_args::RemoteArgs;
pub use super::stream_args::StreamArgs;

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed; the reason is on standard error
  3-6 the stream did not complete; see `stream --help`
  64  wrong usage or configuration
  69  the daemon cannot be reached, or refuses for now (429, 503)
  73  the data directory is in use by a daemon
  77  the credential was refused, has expired or was revoked
  130 Ctrl-C: `stream` has cancelled its stream";

const TOP_EXAMPLES: &str = "\
Examples:
  nervewire                          # a daemon on 127.0.0.1:8080 with ./nervewire-data
  export NERVEWIRE_KEY=nwk_…         # the key printed by the first start or by `nervewire init`
  nervewire tail                     # follow what is published
  nervewire publish --channel chat --data '{\"text\":\"hello\"}'
  llm 'Tell me a story' | nervewire stream --request-id story-1
";

/// Delivers the events of AI-agent platforms to very many subscribers over WebSocket and SSE.
#[derive(Debug, Parser)]
#[command(
    name = "nervewire",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    max_term_width = 100,
    after_help = format!("{TOP_EXAMPLES}\n{EXIT_CODES}"),
)]
pub struct Cli {
    /// The command to run; `serve` if absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `serve`, used if no command is given.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon (the default)
    #[command(after_help = "\
Examples:
  nervewire serve --listen 0.0.0.0:8080 --listen '[::]:8080' --data-dir /var/lib/nervewire
  nervewire serve --listen 127.0.0.1:0 --ready-file /run/nw.json   # the port is in the file")]
    Serve(ServeArgs),
    /// Create the store, the organization `default` and its first key, and print that key once
    #[command(after_help = "\
Examples:
  nervewire init --json | jq -r .api_key")]
    Init(InitArgs),
    /// Create, list and delete organizations
    #[command(subcommand)]
    Org(OrgCommand),
    /// Create, list and delete API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Create a token (JWT) for a user or a service, or revoke one
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        after_help = "\
Examples:
  nervewire token --user alice --expires 8h
  nervewire token --org acme --role viewer --channel 'chat/*' --expires 15m --json
  nervewire token revoke 0199a7c2-…"
    )]
    Token(TokenArgs),
    /// Publish events
    #[command(after_help = "\
Examples:
  nervewire publish '{\"type\":\"custom\",\"channel\":\"chat\",\"data\":{\"text\":\"hello\"}}'
  nervewire publish --channel chat --data '{\"text\":\"hello\"}'
  nervewire publish --agent a1 --user alice --content 'Good morning'
  nervewire publish --agent a1 --status thinking
  nervewire publish --request r1 --chunk 'Once upon a time'
  nervewire publish --request r1 --chunk '' --final
  generate | nervewire publish -     # one event per line; up to 1,000 lines per request

Batches from standard input carry an idempotency key. They are sent again after 429, 503 or a
broken connection. A single event is sent once: to repeat it safely, give --idempotency-key.")]
    Publish(Box<PublishArgs>),
    /// Follow events over SSE or WebSocket and reconnect when the connection is lost
    #[command(after_help = "\
Examples:
  nervewire tail                                  # new events
  nervewire tail --earliest --json | jq .         # all stored events, then new ones
  nervewire tail --ws --type message,agent_update --agent a1
  nervewire tail --channel 'chat/*' --since 2026-11-22T10:00:00Z

After a lost connection it resumes at its cursor, so no event is missed or repeated. It reports
a declared gap on standard error. It ends when the credential expires or is revoked.")]
    Tail(TailArgs),
    /// Write standard input to an LLM stream as it comes, or read a stream
    #[command(after_help = "\
Examples:
  llm 'Tell me a story' | nervewire stream --request-id story-1 --agent-id ada
  nervewire stream --read story-1                 # from its start, in any number of terminals
  nervewire stream --read story-1 --json | jq .

The end of input finishes the stream, and Ctrl-C cancels it. Text is sent again after a lost
connection or a restart of the daemon, and is never repeated. The id of the stream is printed on
standard error.

Exit codes of a stream that did not complete:
  3    it failed (--read)
  4    it was cancelled
  5    it was abandoned, because its producer fell silent
  6    another producer took it over
  130  Ctrl-C: it was cancelled")]
    Stream(Box<StreamArgs>),
    /// List connections and close them
    #[command(subcommand)]
    Connections(ConnectionsCommand),
    /// Show a running daemon's statistics
    Stats(RemoteArgs),
    /// Measure a daemon under load
    #[command(subcommand)]
    Bench(Box<nervewire_load::Mode>),
    /// Check the configuration without starting the daemon
    #[command(after_help = "\
Examples:
  nervewire check-config --config /etc/nervewire/nervewire.toml
  NERVEWIRE_LOG__LEVEL=debug nervewire check-config --print   # each key and its source")]
    CheckConfig(CheckConfigArgs),
    /// Copy the live data to a new, smaller store file (the daemon must be stopped)
    Compact(CompactArgs),
    /// Back up the store of a running or a stopped daemon
    #[command(after_help = "\
Examples:
  nervewire backup /backups/monday              # a new backup of a stopped daemon
  NERVEWIRE_KEY=nwk_… nervewire backup /backups/monday   # of a running one, with an operator key
  nervewire backup /backups/monday              # again: adds newer data

A running daemon is reached through its admin listener and keeps serving. Run this command on the
daemon's machine, as a user that can read its data directory.")]
    Backup(BackupArgs),
    /// Restore a backup into a new data directory, with a new identity
    #[command(after_help = "\
Examples:
  nervewire restore /backups/monday /var/lib/nervewire
  nervewire restore /backups/monday ./before --until 2026-11-30T12:00:00Z

The restored store has a new identity. It keeps keys, users and resources, and refuses cursors of
the store that was backed up.")]
    Restore(RestoreArgs),
    /// Verify a backup or the data directory of a stopped daemon: every record, row and counter
    #[command(after_help = "\
Examples:
  nervewire verify /backups/monday && rsync -a /backups/monday elsewhere:")]
    Verify(VerifyArgs),
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  nervewire completions bash > /etc/bash_completion.d/nervewire
  nervewire completions zsh > \"${fpath[1]}/_nervewire\"")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// The sources of the configuration.
#[derive(Debug, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file [env: NERVEWIRE_CONFIG] [default: ./nervewire.toml, if it exists]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Directory of the log and of generated keys [default: ./nervewire-data]
    #[arg(long, value_name = "PATH")]
    pub data_dir: Option<String>,
}

/// The addresses to listen on.
#[derive(Debug, Default, Args)]
pub struct ListenArgs {
    /// Address for clients: `addr:port`, `name:port` or `unix:/path`; may be repeated [default:
    /// 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Address for metrics and operators, or `off` [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<String>,
}

/// Flags of `serve`.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// The sources of the configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The addresses to listen on.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Write {"listen","admin_listen","pid"} to this file when the daemon is ready
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
    /// Serve a plain WebSocket echo at /echo on this loopback address, for conformance tests
    #[arg(long, value_name = "ADDR")]
    pub diagnostic_echo: Option<SocketAddr>,
}

/// Flags of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The sources of the configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print {"org_id","key_id","api_key"}
    #[arg(long)]
    pub json: bool,
}

/// The target of an administrative command: a running daemon, or the data directory of a stopped one.
/// `super::backend` reads the variables of --url and --key, because a flag that names the data directory
/// overrides them.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// Address of a running daemon, `http://host:port` or `unix:/path`. Without this and --key the command
    /// works on the data directory, and the daemon must be stopped [env: NERVEWIRE_URL]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// API key or token for the daemon; prefer the variable, because other users of the machine may see
    /// arguments [env: NERVEWIRE_KEY]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Print JSON with stable field names
    #[arg(long)]
    pub json: bool,
    /// The data directory of a stopped daemon.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Subcommands of `org`.
#[derive(Debug, Subcommand)]
pub enum OrgCommand {
    /// Create an organization
    #[command(after_help = "Examples:\n  nervewire org create acme --name 'Acme Inc.'")]
    Create {
        /// Id of the organization: 1-128 of letters, digits, `.`, `_`, `-` [default: a new id]
        id: Option<String>,
        /// Display name
        #[arg(long)]
        name: Option<String>,
        /// Who sees an event addressed to a user: only that user, or every member
        #[arg(long, value_parser = ["private", "org"])]
        visibility: Option<String>,
        /// Send presence events: which users of the organization are connected
        #[arg(long)]
        presence: bool,
        /// The target of the command.
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// List organizations
    List(AdminArgs),
    /// Delete an organization, its keys and its events
    Delete {
        /// Id of the organization
        id: String,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        /// The target of the command.
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// The rights of a new credential. The server refuses rights that the caller does not have.
#[derive(Debug, Default, Args)]
pub struct GrantArgs {
    /// Scopes: subscribe, publish, write, agents, publish:org, read:all, mint, manage, or `*` for all of
    /// these. Required for a key; a token gets the scopes of its role by default
    #[arg(long = "scope", alias = "scopes", value_name = "SCOPE", value_delimiter = ',')]
    pub scopes: Option<Vec<String>>,
    /// Lifetime: seconds, or 30m, 8h, 7d
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub expires: Option<u64>,
    /// Only events of these agents; may be repeated or comma-separated; an empty value matches none
    #[arg(long = "agent", alias = "agents", value_name = "ID", value_delimiter = ',')]
    pub agents: Option<Vec<String>>,
    /// Only events on these channels; `a/*` means all channels below `a/`
    #[arg(long = "channel", alias = "channels", value_name = "CHANNEL", value_delimiter = ',')]
    pub channels: Option<Vec<String>>,
    /// Only events of these types
    #[arg(long = "type", alias = "types", value_name = "TYPE", value_delimiter = ',')]
    pub types: Option<Vec<String>>,
}

/// Subcommands of `key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create an API key and print it once
    #[command(after_help = "\
Examples:
  nervewire key create --name backend --scope publish,publish:org,write,agents
  nervewire key create --org acme --scope subscribe --expires 90d --json
  nervewire key create --operator                # on a stopped daemon's data directory")]
    Create {
        /// Organization; only an operator may name an organization other than its own [default: the
        /// credential's, or `default`]
        #[arg(long, value_name = "ID")]
        org: Option<String>,
        /// Display name
        #[arg(long)]
        name: Option<String>,
        /// Create an operator key, like the first key: it has every scope and may create and delete
        /// organizations. Only on the data directory of a stopped daemon
        #[arg(long, conflicts_with_all = ["scopes", "agents", "channels", "types"])]
        operator: bool,
        /// The rights of the key.
        #[command(flatten)]
        grant: GrantArgs,
        /// The target of the command.
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// List API keys; secrets are not stored and cannot be shown
    List {
        /// Organization [default: the credential's, or `default`]
        #[arg(long, value_name = "ID")]
        org: Option<String>,
        /// The target of the command.
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Delete an API key; its connections close within a second
    Delete {
        /// Id of the key: the middle part of the key
        key_id: String,
        /// Do not ask for confirmation, even for the last operator key
        #[arg(long)]
        yes: bool,
        /// Organization [default: the credential's, or `default`]
        #[arg(long, value_name = "ID")]
        org: Option<String>,
        /// The target of the command.
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// Flags of `token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// `revoke`; a token is created if absent.
    #[command(subcommand)]
    pub command: Option<TokenCommand>,
    /// Organization; only an operator may name an organization other than its own [default: the credential's,
    /// or `default`]
    #[arg(long, value_name = "ID")]
    pub org: Option<String>,
    /// User that the token represents (`sub`)
    #[arg(long, value_name = "SUB")]
    pub user: Option<String>,
    /// Roles: admin, user, viewer
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
    pub roles: Vec<String>,
    /// The rights of the token.
    #[command(flatten)]
    pub grant: GrantArgs,
    /// The target of the command.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// Subcommands of `token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Revoke a token; its connections close within a second
    Revoke {
        /// The token's `jti`, printed when it was created
        jti: String,
        /// Organization of the token [default: the credential's, or `default`]
        #[arg(long, value_name = "ID")]
        org: Option<String>,
        /// The target of the command.
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// Subcommands of `connections`.
#[derive(Debug, Subcommand)]
pub enum ConnectionsCommand {
    /// List connections: with `manage` those of the organization, else only your own
    List(RemoteArgs),
    /// Close connections by id, user or key, and ask the clients not to reconnect
    #[command(group = ArgGroup::new("who").required(true).args(["id", "user", "key_id"]))]
    Kick {
        /// Id of the connection
        id: Option<String>,
        /// All connections of this user
        #[arg(long, value_name = "SUB")]
        user: Option<String>,
        /// All connections of this API key
        #[arg(long, value_name = "KEY_ID")]
        key_id: Option<String>,
        /// The running daemon.
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// Flags of `check-config`.
#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    /// The sources of the configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The addresses to listen on.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Print every key with its effective value and its source, as TOML; secrets are redacted
    #[arg(long, conflicts_with = "json")]
    pub print: bool,
    /// Print {"ok","problems":[{"key","source","what"}]}
    #[arg(long)]
    pub json: bool,
}

/// Flags of `compact`.
#[derive(Debug, Args)]
pub struct CompactArgs {
    /// The sources of the configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print {"bytes_before","bytes_after"}
    #[arg(long)]
    pub json: bool,
}

/// Flags of `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Target: an empty or new directory, a file `NAME.tar`, or an earlier backup, which is extended with
    /// newer data. Writing a file needs free space of the same size beside it
    #[arg(value_name = "DIR|FILE.tar")]
    pub to: PathBuf,
    /// Admin listener of the running daemon, `http://host:port` or `unix:/path` [default: the configured
    /// `admin_listen`]
    #[arg(long, value_name = "URL")]
    pub admin_url: Option<String>,
    /// Operator key for a running daemon; prefer the variable, because other users of the machine may see
    /// arguments
    #[arg(long, value_name = "KEY", env = "NERVEWIRE_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Print {"first","last","first_time","last_time","rows","journal_bytes","added_bytes","damaged"}
    #[arg(long)]
    pub json: bool,
    /// The sources of the configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Flags of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup: a directory or a `.tar`
    #[arg(value_name = "BACKUP")]
    pub from: PathBuf,
    /// Data directory to create; it must be empty or absent
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Restore as of this journal position or time (RFC 3339), between the first and the last that `backup`
    /// printed [default: the last]
    #[arg(long, value_name = "POSITION|TIME", value_parser = super::parse::until)]
    pub until: Option<crate::store::Until>,
    /// Print {"position","rows","records"}
    #[arg(long)]
    pub json: bool,
}

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A backup (a directory or a `.tar`) or a data directory [default: the configured data directory]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Print {"backup","organizations","segments","records","rows","pieces","events","found","problems"}
    #[arg(long)]
    pub json: bool,
    /// The sources of the configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}
