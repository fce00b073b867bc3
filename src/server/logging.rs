//! Sets up logging with tracing: text on a terminal, JSON lines otherwise. A log line never contains a
//! credential, because nothing that could be one is passed to tracing.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::{LogFormat, LogLevel};

use super::log_writer::{LogWriter, StandardError};

/// The variable with a tracing filter. It overrides `log.level`.
pub(super) const VARIABLE: &str = "NERVEWIRE_LOG";

/// The writer of the log lines, set when the subscriber is installed.
static WRITER: OnceLock<LogWriter> = OnceLock::new();

/// Waits briefly until the last lines are written. Called at the end of the process.
pub(super) fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush();
    }
}

fn dropped(lines: u64) {
    tracing::warn!(lines, "log lines were dropped: standard error was not read fast enough");
}

/// Installs the subscriber, once.
pub(super) fn init(level: LogLevel, format: LogFormat) {
    let filter = std::env::var(VARIABLE).ok().and_then(|text| EnvFilter::try_new(text).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new(level.word()));
    // At their finest levels these crates may log header values, so their level is fixed.
    let quiet = ["h2=warn", "hyper=warn", "hyper_util=warn", "sled=warn"];
    let filter = quiet.iter().filter_map(|it| it.parse().ok()).fold(filter, EnvFilter::add_directive);
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let writer = match WRITER.get().cloned().map_or_else(|| LogWriter::start(StandardError, dropped), Ok) {
        Ok(writer) => BoxMakeWriter::new(WRITER.get_or_init(|| writer).clone()),
        Err(_) => BoxMakeWriter::new(std::io::stderr), // without a thread, the caller writes
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    // On a second call (tests in one process) the first subscriber stays.
    let _ = match json {
        true => builder.json().flatten_event(true).try_init(),
        false => builder.with_target(false).try_init(),
    };
}
