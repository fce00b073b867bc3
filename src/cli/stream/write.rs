//! Writes standard input to a new stream as it comes, and ends the stream in every case.
//!
//! * The end of input finishes the stream, Ctrl-C cancels it, and an error of the input fails it. If this
//!   process is killed, the daemon abandons the stream after its lease.
//! * When somebody else ends the stream, the command ends. The program before it in the pipe then gets
//!   `SIGPIPE` when it writes the next time.

use std::io::Read as _;
use std::time::Duration;

use nervewire_client::{Client, GetStream, OpenStream, StreamError, StreamWriter};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::super::args::StreamArgs;
use super::super::exit::{CliError, Exit, Listener};
use super::super::output;
use super::not_completed;
use super::utf8::Utf8Decoder;

/// Maximum bytes of one read of standard input.
const READ_BYTES_MAX: usize = 16 << 10;
/// Reads that may wait for the stream.
const READS_WAITING_MAX: usize = 4;
/// Ctrl-C goes to all programs of a pipeline. The end of input that the death of another one causes may be
/// noticed before the signal, so the stream is finished only after this time without a signal.
const INTERRUPT_GRACE: Duration = Duration::from_millis(50);
/// How long cancelling may take after Ctrl-C.
const CANCEL_WAIT: Duration = Duration::from_secs(10);

pub(super) async fn write(client: &Client, args: &StreamArgs) -> Result<(), CliError> {
    let open = OpenStream {
        request_id: args.request_id.clone(),
        agent_id: args.agent_id.clone(),
        user_id: args.user_id.clone(),
        metadata: args.metadata.clone(),
        lease_seconds: args.lease_seconds,
        agent_status: args.agent_status,
        takeover: args.takeover,
        fail_if_unreachable: true,
        ..OpenStream::default()
    };
    let cannot_start =
        |error: std::io::Error| CliError::new(Exit::Failed, format!("cannot start: {error}"), "");
    let mut interrupts = signal(SignalKind::interrupt()).map_err(cannot_start)?;
    let mut writer = tokio::select! {
        opened = client.open_stream(open) => opened?,
        _ = interrupts.recv() => {
            let hint = "if the stream was opened, the daemon abandons it when its lease runs out";
            return Err(CliError::new(Exit::Interrupted, "interrupted", hint));
        }
    };
    let request_id = writer.request_id().to_owned();
    output::print_note(&output::plain(&format!("writing to stream {request_id}")));
    if args.remote.json {
        // A reader of standard output that is gone does not end the stream.
        let _ = output::line(&json!({ "request_id": request_id }).to_string());
    }
    let written = tokio::select! {
        biased;
        _ = interrupts.recv() => None,
        written = copy(&mut writer, args) => Some(written),
    };
    match written {
        None => Err(cancel(&mut writer, &mut interrupts).await),
        Some(Ok(())) => Ok(()),
        Some(Err(CopyError::Input(error))) => {
            let message = format!("cannot read standard input: {error}");
            writer.fail("INPUT_FAILED", &message).await.map_err(|error| writer_error(&error))?;
            Err(CliError::new(Exit::Failed, message, ""))
        }
        Some(Err(CopyError::Stream(StreamError::Client(error)))) => {
            // The daemon answers, so the stream can be ended at once instead of after its lease.
            if error.api_error().is_some() {
                let _ = writer.fail("WRITE_FAILED", "the daemon refused text of the stream").await;
            }
            Err(CliError::of(&error, Listener::Clients))
        }
        Some(Err(CopyError::Stream(StreamError::Cancelled))) => {
            // Without the right to read the stream, the reason stays unknown.
            let options = GetStream { without_text: true, ..GetStream::default() };
            let failure = client.get_stream(&request_id, &options).await.ok().and_then(|stream| stream.error);
            Err(not_completed(Exit::StreamCancelled, "the stream was cancelled", failure))
        }
        Some(Err(CopyError::Stream(error))) => Err(writer_error(&error)),
    }
}

enum CopyError {
    Input(std::io::Error),
    Stream(StreamError),
}

impl From<StreamError> for CopyError {
    fn from(error: StreamError) -> Self {
        Self::Stream(error)
    }
}

/// Appends standard input until its end, and finishes the stream.
async fn copy(writer: &mut StreamWriter, args: &StreamArgs) -> Result<(), CopyError> {
    let mut input = read_input();
    let mut decoder = Utf8Decoder::default();
    loop {
        let bytes = tokio::select! {
            bytes = input.recv() => bytes,
            // Somebody may end the stream while the input is silent.
            end = writer.closed() => return Err(end.into()),
        };
        let Some(bytes) = bytes else { break };
        append(writer, args, &decoder.push(&bytes.map_err(CopyError::Input)?)).await?;
    }
    append(writer, args, &decoder.finish()).await?;
    sleep(INTERRUPT_GRACE).await;
    Ok(writer.finish(Some(&args.finish_reason), None).await?)
}

async fn append(writer: &mut StreamWriter, args: &StreamArgs, text: &str) -> Result<(), StreamError> {
    match &args.part {
        Some(part) => writer.append_part(text, part).await,
        None => writer.append(text).await,
    }
}

/// Reads standard input in a thread. It ends with standard input or with the process, because a blocked read
/// cannot be cancelled.
fn read_input() -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(READS_WAITING_MAX);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin();
        let mut buffer = vec![0; READ_BYTES_MAX];
        loop {
            let read = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(buffer.get(..count).unwrap_or_default().to_vec()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if sender.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// Cancels the stream after Ctrl-C. A second Ctrl-C does not wait for the daemon.
async fn cancel(writer: &mut StreamWriter, interrupts: &mut Signal) -> CliError {
    let cancelled = tokio::select! {
        cancelled = timeout(CANCEL_WAIT, writer.cancel(Some("interrupted"))) => cancelled,
        _ = interrupts.recv() => Ok(Ok(())),
    };
    match cancelled {
        Ok(Ok(())) => CliError::new(Exit::Interrupted, "interrupted: the stream was cancelled", ""),
        failed => {
            let why = match failed {
                Ok(Err(error)) => error.to_string(),
                _ => format!("the daemon did not answer within {} s", CANCEL_WAIT.as_secs()),
            };
            let hint = "the daemon abandons the stream when its lease runs out";
            let message = format!("interrupted; the stream could not be cancelled: {why}");
            CliError::new(Exit::Interrupted, message, hint)
        }
    }
}

fn writer_error(error: &StreamError) -> CliError {
    let (exit, hint) = match error {
        StreamError::Fenced => (Exit::StreamTakenOver, "the other producer continues the stream"),
        StreamError::Cancelled => (Exit::StreamCancelled, ""),
        StreamError::Abandoned => (
            Exit::StreamAbandoned,
            "the daemon did not hear from this command for too long; a longer --lease-seconds allows for it",
        ),
        StreamError::Client(error) => return CliError::of(error, Listener::Clients),
        _ => (Exit::Failed, ""),
    };
    CliError::new(exit, error.to_string(), hint)
}
