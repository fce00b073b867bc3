//! The flags of `publish` and `tail`.

use clap::{ArgGroup, Args};

use super::parse::{ack, json_value};
use super::remote_args::RemoteArgs;

/// Flags of `publish`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(false)
    .args(["event", "channel", "content", "status", "chunk"]))]
pub struct PublishArgs {
    /// An event as JSON, or `-` to read events from standard input, one per line
    #[arg(value_name = "EVENT")]
    pub event: Option<String>,
    /// Publish a `custom` event on this channel, with --data
    #[arg(long, requires = "data")]
    pub channel: Option<String>,
    /// Data of the custom event; any JSON
    #[arg(long, value_name = "JSON", value_parser = json_value, requires = "channel")]
    pub data: Option<serde_json::Value>,
    /// Publish a `message` event with this text, with --agent and --user
    #[arg(long, value_name = "TEXT", requires_all = ["agent", "user"])]
    pub content: Option<String>,
    /// Role of the message: user, assistant, system, tool
    #[arg(long, requires = "content")]
    pub role: Option<String>,
    /// Publish an `agent_update` event with this status, with --agent
    #[arg(long, requires = "agent")]
    pub status: Option<String>,
    /// Publish a `stream_chunk` event with this text, with --request
    #[arg(long, value_name = "TEXT", requires = "request")]
    pub chunk: Option<String>,
    /// Stream of the chunk (`request_id`)
    #[arg(long, value_name = "ID", requires = "chunk")]
    pub request: Option<String>,
    /// The chunk is the last of its stream
    #[arg(long = "final", requires = "chunk")]
    pub is_final: bool,
    /// `agent_id`
    #[arg(long, value_name = "ID", conflicts_with = "event")]
    pub agent: Option<String>,
    /// `user_id`: only this user, and readers with `read:all`, see the event
    #[arg(long, value_name = "ID", conflicts_with = "event")]
    pub user: Option<String>,
    /// Metadata of the event, a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_value, conflicts_with_all = ["event", "channel"])]
    pub metadata: Option<serde_json::Value>,
    /// What the response waits for: `durable` (the event is on disk) or `memory` (no wait) [default: durable]
    #[arg(long, value_name = "ACK", value_parser = ack)]
    pub ack: Option<String>,
    /// For 24 h a repeat with the same key and body publishes nothing and returns the first response
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Print nothing on success
    #[arg(long, short)]
    pub quiet: bool,
    /// The running daemon.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// Flags of `tail`.
#[derive(Debug, Default, Args)]
#[command(group = ArgGroup::new("from").args(["since", "earliest", "after"]))]
pub struct TailArgs {
    /// Address of a running daemon, `http://host:port` or `unix:/path` [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "NERVEWIRE_URL", hide_env_values = true)]
    pub url: Option<String>,
    /// API key or token; prefer the variable, because other users of the machine may see arguments
    #[arg(long, value_name = "KEY", env = "NERVEWIRE_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Print each event as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Use WebSocket instead of SSE
    #[arg(long)]
    pub ws: bool,
    /// Only events of these types; may be repeated or comma-separated, like the filters below
    #[arg(long = "type", alias = "types", value_name = "TYPE", value_delimiter = ',')]
    pub types: Vec<String>,
    /// Only events of these agents
    #[arg(long = "agent", alias = "agents", value_name = "ID", value_delimiter = ',')]
    pub agents: Vec<String>,
    /// Only events of these users
    #[arg(long = "user", value_name = "SUB", value_delimiter = ',')]
    pub users: Vec<String>,
    /// Only events of these streams (`request_id`)
    #[arg(long = "request", value_name = "ID", value_delimiter = ',')]
    pub requests: Vec<String>,
    /// Only events on these channels; `a/*` means all channels below `a/`
    #[arg(long = "channel", alias = "channels", value_name = "CHANNEL", value_delimiter = ',')]
    pub channels: Vec<String>,
    /// Start at this time, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Start at the oldest stored event
    #[arg(long)]
    pub earliest: bool,
    /// Start after this cursor, the `id` of an event
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
    /// Exit after this many events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Exit when the connection is lost for the first time
    #[arg(long)]
    pub no_reconnect: bool,
}
