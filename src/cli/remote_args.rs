//! The flags of commands that need a running daemon.

use clap::Args;

/// The address of a running daemon and the credential for it.
#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// Address of a running daemon, `http://host:port` or `unix:/path` [default: http://127.0.0.1:8080]
    #[arg(long, value_name = "URL", env = "NERVEWIRE_URL", hide_env_values = true)]
    pub url: Option<String>,
    /// API key or token; prefer the variable, because other users of the machine may see arguments
    #[arg(long, value_name = "KEY", env = "NERVEWIRE_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Print JSON with stable field names
    #[arg(long)]
    pub json: bool,
}
