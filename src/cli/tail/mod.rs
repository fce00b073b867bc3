//! `tail`: follows events from its cursor, across lost connections. [`nervewire_client`] reconnects; this file
//! prints what a user needs to know about it.

mod show;

use nervewire_client::{
    Client, ClientError, Filter, Gap, Item, Position, ReceivedEvent, Status, Subscription, Transport,
};

use super::args::TailArgs;
use super::exit::{CliError, Exit};
use super::{non_empty, output, rest};

pub(super) fn run(args: &TailArgs) -> Result<(), CliError> {
    let client = rest::client(non_empty(&args.url), non_empty(&args.key))?;
    let mut subscription = subscription(&client, args);
    let ended = rest::runtime()?.block_on(follow(&mut subscription, args));
    if let (Err(CliError::Reported { .. }), Some(cursor)) = (&ended, subscription.cursor()) {
        output::print_note(&format!("continue with --after {}", output::plain(cursor)));
    }
    ended
}

fn subscription(client: &Client, args: &TailArgs) -> Subscription {
    let filter = Filter::new()
        .types(&args.types)
        .agents(&args.agents)
        .users(&args.users)
        .requests(&args.requests)
        .channels(&args.channels);
    let position = match (&args.after, &args.since) {
        (Some(after), _) => Position::After(after.clone()),
        (None, Some(since)) => Position::Since(since.clone()),
        (None, None) if args.earliest => Position::Earliest,
        (None, None) => Position::Now,
    };
    let transport = if args.ws { Transport::WebSocket } else { Transport::Sse };
    client.subscribe(filter).transport(transport).position(position).fail_if_unreachable()
}

async fn follow(subscription: &mut Subscription, args: &TailArgs) -> Result<(), CliError> {
    let mut shown = 0;
    while let Some(item) = subscription.next().await {
        match item? {
            Item::Event(event) => {
                output::line(&line(&event, args.json)?)?;
                shown += 1;
                if args.count.is_some_and(|count| shown >= count) {
                    break;
                }
            }
            Item::Gap(Gap { after, reason, .. }) => {
                print_note(&format!("gap: {reason}; events after {after} are missing"));
            }
            Item::Status(status) => show_status(status, args)?,
            _ => {}
        }
    }
    subscription.close().await;
    Ok(())
}

fn line(event: &ReceivedEvent, json: bool) -> Result<String, CliError> {
    let parsed = serde_json::from_str(&event.json)
        .map_err(|error| ClientError::UnexpectedResponse(error.to_string()))?;
    Ok(if json { show::json(&event.json, &parsed) } else { show::pretty(&parsed) })
}

fn show_status(status: Status, args: &TailArgs) -> Result<(), CliError> {
    match status {
        Status::Connected { reconnected: true, .. } => print_note("reconnected"),
        Status::ServerError { code, message } => print_note(&format!("error: {code}: {message}")),
        Status::Lost { error, retry_in } => {
            match error {
                ClientError::Ended | ClientError::Closed { .. } => {}
                ClientError::Closing { code, message } => print_note(&format!("closing: {code} {message}")),
                error => print_note(&error.to_string()),
            }
            if args.no_reconnect {
                let hint = "leave out --no-reconnect to reconnect automatically";
                return Err(CliError::new(Exit::Unavailable, "the stream has ended", hint));
            }
            print_note(&format!("the stream has ended; reconnecting in {:.1} s", retry_in.as_secs_f64()));
        }
        _ => {}
    }
    Ok(())
}

/// Prints text that may come from other users.
fn print_note(text: &str) {
    output::print_note(&output::plain(text));
}
