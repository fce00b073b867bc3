//! Which daemon is measured, as flags of every mode.

use std::path::PathBuf;

/// Settings of a measured daemon that differ from the defaults. They lift limits that would refuse a load
/// test, and make nothing faster.
pub(crate) const LIFTED_LIMITS: &[(&str, &str)] = &[
    ("limits.connections_per_user", "0"), // all subscribers of a run with a JWT are one user
    ("limits.publish_per_second_per_organization", "100000000"), // the default is a million
    ("log.level", "warn"),
];

/// The daemon to measure.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DaemonSettings {
    /// Measure the daemon at this address, `http://host:port`; without it a new daemon is started for each
    /// run, in a new directory
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// API key or token (JWT) for the daemon; prefer the variable, because other users of the machine may see
    /// arguments
    #[arg(long, alias = "token", value_name = "KEY", env = "NERVEWIRE_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// Process id of the daemon, to read CPU and memory
    #[arg(long, value_name = "PID", requires = "url")]
    pub pid: Option<u32>,
    /// Admin listener of the daemon, `host:port`, to read counters
    #[arg(long, value_name = "ADDR", requires = "url")]
    pub admin: Option<String>,
    /// Executable to start as the daemon [default: this one]
    #[arg(long = "daemon", value_name = "PATH", conflicts_with = "url")]
    pub exe: Option<PathBuf>,
    /// Another executable, measured alternately with the daemon and reported as `before`, with ratios
    #[arg(long, value_name = "PATH", conflicts_with = "url")]
    pub before: Option<PathBuf>,
    /// A setting for the started daemon, `key=value` as in docs/configuration.md; may be repeated
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "url", value_parser = setting)]
    pub set: Vec<String>,
}

/// Parses a setting of `--set`.
fn setting(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("must be key=value, such as limits.event_bytes=1024".into()),
    }
}
