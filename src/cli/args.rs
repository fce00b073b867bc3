//! The command line's grammar: every command, flag, help text and example, and nothing of what they do.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

pub use super::event_args::{PublishArgs, TailArgs};
use super::parse::seconds;

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failed, for a reason told on standard error
  64  wrong usage or configuration
  69  no daemon reachable, or it refuses for now (429, 503)
  73  the data directory is in use by a daemon
  77  the credential was refused, has expired or was revoked";

const TOP_EXAMPLES: &str = "\
Examples:
  nervewire                          # a daemon on 127.0.0.1:8080 with ./nervewire-data
  export NERVEWIRE_KEY=nwk_…         # the key that its first start, or `nervewire init`, printed
  nervewire tail                     # follow what is published
  nervewire publish --channel chat --data '{\"text\":\"hello\"}'
";

/// Carries the events of AI-agent platforms to very many subscribers over WebSocket and SSE.
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
    /// What to do; `serve` if absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of `serve`, when no command is named.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon (the default)
    #[command(after_help = "\
Examples:
  nervewire serve --listen 0.0.0.0:8080 --listen '[::]:8080' --data-dir /var/lib/nervewire
  nervewire serve --listen 127.0.0.1:0 --ready-file /run/nw.json   # the file tells the port")]
    Serve(ServeArgs),
    /// Make the store, the organization `default` and its first key, and print that key once
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
    /// Mint a token (JWT) for a user or a service, or revoke one
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
  generate | nervewire publish -     # one event a line; lines at hand go together, up to 1,000

From standard input every batch carries an idempotency key, and is sent again after 429, 503 or
a broken connection. A single event is sent once: to repeat it safely, give --idempotency-key.")]
    Publish(Box<PublishArgs>),
    /// Follow events over SSE or WebSocket, across reconnects
    #[command(after_help = "\
Examples:
  nervewire tail                                  # what is published from now on
  nervewire tail --earliest --json | jq .         # everything kept, then live
  nervewire tail --ws --type message,agent_update --agent a1
  nervewire tail --channel 'chat/*' --since 2026-11-22T10:00:00Z

It comes back with its cursor after a lost connection, so nothing is missed or repeated; a
declared gap is told on standard error. It ends when the credential has expired or was revoked.")]
    Tail(TailArgs),
    /// List connections and close them
    #[command(subcommand)]
    Connections(ConnectionsCommand),
    /// Show a running daemon's statistics
    Stats(RemoteArgs),
    /// Measure a daemon under load
    #[command(subcommand)]
    Bench(Box<super::bench::BenchCommand>),
    /// Check the configuration without opening anything
    #[command(after_help = "\
Examples:
  nervewire check-config --config /etc/nervewire/nervewire.toml
  NERVEWIRE_LOG__LEVEL=debug nervewire check-config --print   # each key and where it came from")]
    CheckConfig(CheckConfigArgs),
    /// Copy the live data to a new, smaller store file (the daemon must be stopped)
    Compact(CompactArgs),
    /// Back the store up, beside a running daemon or of a stopped one
    #[command(after_help = "\
Examples:
  nervewire backup /backups/monday              # a new backup, of a stopped daemon
  NERVEWIRE_KEY=nwk_… nervewire backup /backups/monday   # of a running one, with an operator's key
  nervewire backup /backups/monday              # again: adds what came since

A running daemon is asked on its admin listener, and is not disturbed. Run this on its machine, as a
user who may read its data directory.")]
    Backup(BackupArgs),
    /// Restore a backup into a new data directory, under a new identity
    #[command(after_help = "\
Examples:
  nervewire restore /backups/monday /var/lib/nervewire
  nervewire restore /backups/monday ./before --until 2026-11-30T12:00:00Z

The restored store is a store of its own: keys, users and resources are the same, cursors of the
store that was backed up are refused.")]
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

/// Where the configuration comes from.
#[derive(Debug, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file [env: NERVEWIRE_CONFIG] [default: ./nervewire.toml, if it is there]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Directory of the log and of generated keys [default: ./nervewire-data]
    #[arg(long, value_name = "PATH")]
    pub data_dir: Option<String>,
}

/// Flags that set where to listen.
#[derive(Debug, Default, Args)]
pub struct ListenArgs {
    /// Address for clients, `addr:port`, `name:port` or `unix:/path`; may be given several times [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<String>,
    /// Address for metrics and operators, or `off` [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<String>,
}

/// `serve`.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// Configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Listeners.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Write {"listen","admin_listen","pid"} to this file once it serves
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
    /// Serve a plain WebSocket echo at /echo on this loopback address, for conformance tests
    #[arg(long, value_name = "ADDR")]
    pub diagnostic_echo: Option<SocketAddr>,
}

/// `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print {"org_id","key_id","api_key"}
    #[arg(long)]
    pub json: bool,
}

/// Whom to ask: a running daemon, or the data directory of a stopped one. The variables of --url and --key are read in
/// `super::backend`, since a flag that names the data directory is stronger than they are.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// Ask the daemon running there, `http://host:port` or `unix:/path`. Without this and --key the
    /// data directory is worked on directly, which needs the daemon stopped [env: NERVEWIRE_URL]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// API key or token for the daemon; prefer the variable, as others on the machine may see
    /// arguments [env: NERVEWIRE_KEY]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Print JSON with stable field names
    #[arg(long)]
    pub json: bool,
    /// Stopped daemon.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// A running daemon and the credential for it.
#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// Address of a running daemon, `http://host:port` or `unix:/path` [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "NERVEWIRE_URL", hide_env_values = true)]
    pub url: Option<String>,
    /// API key or token; prefer the variable, as others on the machine may see arguments
    #[arg(long, value_name = "KEY", env = "NERVEWIRE_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Print JSON with stable field names
    #[arg(long)]
    pub json: bool,
}

/// `org`.
#[derive(Debug, Subcommand)]
pub enum OrgCommand {
    /// Create an organization
    #[command(after_help = "Examples:\n  nervewire org create acme --name 'Acme Inc.'")]
    Create {
        /// Its id, 1-128 of letters, digits, `.`, `_`, `-` [default: a new one]
        id: Option<String>,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        /// Who sees an event addressed to a user: that user, or every member
        #[arg(long, value_parser = ["private", "org"])]
        visibility: Option<String>,
        /// Tell it which of its users are connected
        #[arg(long)]
        presence: bool,
        /// Whom to ask.
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// List organizations
    List(AdminArgs),
    /// Delete an organization, its keys and its events
    Delete {
        /// Its id
        id: String,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        /// Whom to ask.
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// What a new credential may do; the server refuses more than the caller's own.
#[derive(Debug, Default, Args)]
pub struct GrantArgs {
    /// Scopes: subscribe, publish, write, agents, publish:org, read:all, mint, manage, `*` for all of these; a key must name its own,
    /// a token has those of its role without
    #[arg(long = "scope", alias = "scopes", value_name = "SCOPE", value_delimiter = ',')]
    pub scopes: Option<Vec<String>>,
    /// Lifetime: seconds, or 30m, 8h, 7d
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    pub expires: Option<u64>,
    /// Only events of these agents; repeated or comma-separated, and an empty value matches none
    #[arg(long = "agent", alias = "agents", value_name = "ID", value_delimiter = ',')]
    pub agents: Option<Vec<String>>,
    /// Only events on these channels, `a/*` for all below `a/`
    #[arg(long = "channel", alias = "channels", value_name = "CHANNEL", value_delimiter = ',')]
    pub channels: Option<Vec<String>>,
    /// Only events of these types
    #[arg(long = "type", alias = "types", value_name = "TYPE", value_delimiter = ',')]
    pub types: Option<Vec<String>>,
}

/// `key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create an API key and print it once
    #[command(after_help = "\
Examples:
  nervewire key create --name backend --scope publish,publish:org,write,agents
  nervewire key create --org acme --scope subscribe --expires 90d --json
  nervewire key create --operator                # on a stopped daemon's data directory")]
    Create {
        /// Organization; only an operator may name another than its own [default: the credential's, or `default`]
        #[arg(long, value_name = "ID")]
        org: Option<String>,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        /// An operator key, as the first key is: every scope, and the right to create and delete
        /// organizations. Only on the data directory of a stopped daemon
        #[arg(long, conflicts_with_all = ["scopes", "agents", "channels", "types"])]
        operator: bool,
        /// Rights.
        #[command(flatten)]
        grant: GrantArgs,
        /// Whom to ask.
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// List API keys; secrets are not stored and cannot be shown
    List {
        /// Organization [default: the credential's, or `default`]
        #[arg(long, value_name = "ID")]
        org: Option<String>,
        /// Whom to ask.
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Delete an API key; its connections close within a second
    Delete {
        /// The key's id, the middle part of the key
        key_id: String,
        /// Do not ask for confirmation, also if it is the last operator key
        #[arg(long)]
        yes: bool,
        /// Organization [default: the credential's, or `default`]
        #[arg(long, value_name = "ID")]
        org: Option<String>,
        /// Whom to ask.
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// `token`.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// `revoke`, or minting.
    #[command(subcommand)]
    pub command: Option<TokenCommand>,
    /// Organization; only an operator may name another than its own [default: the credential's, or `default`]
    #[arg(long, value_name = "ID")]
    pub org: Option<String>,
    /// User the token stands for (`sub`)
    #[arg(long, value_name = "SUB")]
    pub user: Option<String>,
    /// Roles: admin, user, viewer
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
    pub roles: Vec<String>,
    /// Rights.
    #[command(flatten)]
    pub grant: GrantArgs,
    /// Whom to ask.
    #[command(flatten)]
    pub admin: AdminArgs,
}

/// `token revoke`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Revoke a token; its connections close within a second
    Revoke {
        /// The token's `jti`, printed when it was minted
        jti: String,
        /// Organization the token speaks for [default: the credential's, or `default`]
        #[arg(long, value_name = "ID")]
        org: Option<String>,
        /// Whom to ask.
        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// `connections`.
#[derive(Debug, Subcommand)]
pub enum ConnectionsCommand {
    /// List connections: the organization's with `manage`, else one's own
    List(RemoteArgs),
    /// Close connections by id, user or key; they are told not to come back
    #[command(group = ArgGroup::new("who").required(true).args(["id", "user", "key_id"]))]
    Kick {
        /// A connection's id
        id: Option<String>,
        /// All connections of this user
        #[arg(long, value_name = "SUB")]
        user: Option<String>,
        /// All connections of this API key
        #[arg(long, value_name = "KEY_ID")]
        key_id: Option<String>,
        /// Daemon.
        #[command(flatten)]
        remote: RemoteArgs,
    },
}

/// `check-config`.
#[derive(Debug, Args)]
pub struct CheckConfigArgs {
    /// Configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Listeners.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Print every key with its effective value and its source, as TOML; secrets are redacted
    #[arg(long, conflicts_with = "json")]
    pub print: bool,
    /// Print {"ok","problems":[{"key","source","what"}]}
    #[arg(long)]
    pub json: bool,
}

/// `compact`.
#[derive(Debug, Args)]
pub struct CompactArgs {
    /// Configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print {"bytes_before","bytes_after"}
    #[arg(long)]
    pub json: bool,
}

/// `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Where to: a directory that is empty or absent, a file `NAME.tar`, or an earlier backup, to which what came since
    /// is added. A file takes as much room again beside it while it is written
    #[arg(value_name = "DIR|FILE.tar")]
    pub to: PathBuf,
    /// Admin listener of the running daemon, `http://host:port` or `unix:/path` [default: the configured
    /// `admin_listen`]
    #[arg(long, value_name = "URL")]
    pub admin_url: Option<String>,
    /// An operator's API key for a running daemon; prefer the variable, as others on the machine may
    /// see arguments
    #[arg(long, value_name = "KEY", env = "NERVEWIRE_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Print {"first","last","first_time","last_time","rows","journal_bytes","added_bytes","damaged"}
    #[arg(long)]
    pub json: bool,
    /// Configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup: a directory or a `.tar`
    #[arg(value_name = "BACKUP")]
    pub from: PathBuf,
    /// The data directory to make: empty or absent
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// As of this position of the journal, or this time (RFC 3339), which must be between the first and
    /// the last that `backup` printed [default: the last]
    #[arg(long, value_name = "POSITION|TIME", value_parser = super::parse::until)]
    pub until: Option<crate::store::Until>,
    /// Print {"position","rows","records"}
    #[arg(long)]
    pub json: bool,
}

/// `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A backup (a directory or a `.tar`) or a data directory [default: the configured data directory]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Print {"backup","segments","records","rows","pieces","events","found","problems"}
    #[arg(long)]
    pub json: bool,
    /// Configuration.
    #[command(flatten)]
    pub config: ConfigArgs,
}
