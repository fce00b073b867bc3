//! The flags of `publish` and `tail`.

use clap::{ArgGroup, Args};

use super::args::RemoteArgs;
use super::parse::{ack, json_value};

/// `publish`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(false)
    .args(["event", "channel", "content", "status", "chunk"]))]
pub struct PublishArgs {
    /// An event as JSON, or `-` for one event a line on standard input
    #[arg(value_name = "EVENT")]
    pub event: Option<String>,
    /// A `custom` event on this channel, with --data
    #[arg(long, requires = "data")]
    pub channel: Option<String>,
    /// Data of the custom event, any JSON
    #[arg(long, value_name = "JSON", value_parser = json_value, requires = "channel")]
    pub data: Option<serde_json::Value>,
    /// A `message` event with this text, with --agent and --user
    #[arg(long, value_name = "TEXT", requires_all = ["agent", "user"])]
    pub content: Option<String>,
    /// Role of the message: user, assistant, system, tool
    #[arg(long, requires = "content")]
    pub role: Option<String>,
    /// An `agent_update` event with this status, with --agent
    #[arg(long, requires = "agent")]
    pub status: Option<String>,
    /// A `stream_chunk` event with this text, with --request
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
    /// `user_id`: only this user, and readers of all, will see it
    #[arg(long, value_name = "ID", conflicts_with = "event")]
    pub user: Option<String>,
    /// Free data beside the event's fields, a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_value, conflicts_with_all = ["event", "channel"])]
    pub metadata: Option<serde_json::Value>,
    /// What the answer waits for: `durable`, until the event is on disk, or `memory`, which does not wait [default: durable]
    #[arg(long, value_name = "ACK", value_parser = ack)]
    pub ack: Option<String>,
    /// A repeat with the same key and body publishes nothing and gets the first answer; for 24 h
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Print nothing on success
    #[arg(long, short)]
    pub quiet: bool,
    /// Daemon.
    #[command(flatten)]
    pub remote: RemoteArgs,
}

/// `tail`.
#[derive(Debug, Default, Args)]
#[command(group = ArgGroup::new("from").args(["since", "earliest", "after"]))]
pub struct TailArgs {
    /// Address of a running daemon, `http://host:port` or `unix:/path` [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "NERVEWIRE_URL", hide_env_values = true)]
    pub url: Option<String>,
    /// API key or token; prefer the variable, as others on the machine may see arguments
    #[arg(long, value_name = "KEY", env = "NERVEWIRE_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Print each event as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Over WebSocket instead of SSE
    #[arg(long)]
    pub ws: bool,
    /// Only events of these types; repeated or comma-separated, as each of these
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
    /// Only events on these channels; `a/*` for all below `a/`
    #[arg(long = "channel", alias = "channels", value_name = "CHANNEL", value_delimiter = ',')]
    pub channels: Vec<String>,
    /// From this time on, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// From the oldest event kept
    #[arg(long)]
    pub earliest: bool,
    /// After this cursor, the `id` of an event
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<String>,
    /// End after this many events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// End at the first lost connection
    #[arg(long)]
    pub no_reconnect: bool,
}
