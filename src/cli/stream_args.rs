//! The flags of `stream`.

use clap::Args;
use nervewire_client::StreamPart;
use nervewire_client::event::Metadata;

use super::parse::{json_object, lease_seconds, part};
use super::remote_args::RemoteArgs;

/// Flags of `stream`.
#[derive(Debug, Args)]
pub struct StreamArgs {
    /// Id of the new stream, which its readers need; choose one that cannot be guessed [default: the daemon
    /// makes one]
    #[arg(long, alias = "request", value_name = "ID")]
    pub request_id: Option<String>,
    /// The agent that produces the text
    #[arg(long, alias = "agent", value_name = "ID")]
    pub agent_id: Option<String>,
    /// Only this user, and readers with `read:all`, may read the stream
    #[arg(long, alias = "user", value_name = "ID")]
    pub user_id: Option<String>,
    /// Metadata of the stream, a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub metadata: Option<Metadata>,
    /// Seconds after which the stream is abandoned if this command dies, 5-600 [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = lease_seconds)]
    pub lease_seconds: Option<u64>,
    /// Publish that the agent is `thinking` while the stream is open, and `idle` after it
    #[arg(long, requires = "agent_id")]
    pub agent_status: bool,
    /// Append to this part of the stream, such as `reasoning:r1`. Types: text, reasoning, tool_input,
    /// tool_output, source, data
    #[arg(long, value_name = "TYPE:ID", value_parser = part)]
    pub part: Option<StreamPart>,
    /// Why the text ends, for readers
    #[arg(long, value_name = "REASON", default_value = "stop")]
    pub finish_reason: String,
    /// Continue an open stream, and refuse its older producer from then on
    #[arg(long, requires = "request_id")]
    pub takeover: bool,
    /// Read the stream with this id from its start and print its text as it comes
    #[arg(long, value_name = "ID", conflicts_with_all = ["request_id", "agent_id", "user_id", "metadata",
        "lease_seconds", "agent_status", "part", "finish_reason", "takeover"])]
    pub read: Option<String>,
    /// With --read: print the text of all parts, not only the answer
    #[arg(long, requires = "read")]
    pub all_parts: bool,
    /// With --read: start after this cursor
    #[arg(long, value_name = "CURSOR", requires = "read")]
    pub after: Option<String>,
    /// The running daemon.
    #[command(flatten)]
    pub remote: RemoteArgs,
}
