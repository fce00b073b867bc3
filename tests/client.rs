//! `nervewire_client` against the real daemon: its promises to applications hold across cut connections,
//! expired tokens and refusals.
//!
//! Where the real daemon cannot be made to send a response, a scripted server sends it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{Daemon, custom, message, until, within};
use futures_util::{SinkExt as _, StreamExt as _};
use nervewire_client::resources::{
    CoreMemoryChange, MemoryChange, MemoryFilter, MemoryQuery, MemoryType, MessageFilter, NewAgentMessage,
    NewMemory, NewUser, ProfileChange, ToolFilter, UserRole,
};
use nervewire_client::{
    Ack, AgentChange, AgentStatus, Backoff, Client, ClientError, Event, Filter, GetStream, Item, ListOptions,
    NewAgent, NewMessage, NewTool, OpenStream, PartType, Position, ReceivedEvent, Status, StreamItem,
    StreamPart, StreamState, StreamText, Subscription, ToolChange, Transport,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::tungstenite::Message as Frame;

const BOTH: [Transport; 2] = [Transport::WebSocket, Transport::Sse];
/// Reconnects within milliseconds: these tests check what happens, not when.
const SOON: Backoff = Backoff {
    initial: Duration::from_millis(2),
    max: Duration::from_millis(20),
    max_requested: Duration::from_secs(5),
    max_attempts: 6,
    random: || 0,
};
/// As `SOON`, but does not wait for a daemon's `retry: 2000`.
const AT_ONCE: Backoff = Backoff { max_requested: Duration::from_millis(5), ..SOON };

fn client(addr: SocketAddr, key: &str) -> Client {
    Client::builder(format!("http://{addr}").parse().unwrap()).credential(key).backoff(AT_ONCE).build()
}

/// The next item that is not a status.
async fn next(subscription: &mut Subscription) -> Item {
    loop {
        match within("an item", subscription.next()).await {
            Some(Ok(Item::Status(_))) => {}
            Some(Ok(item)) => return item,
            other => panic!("{other:?}"),
        }
    }
}

async fn next_event(subscription: &mut Subscription) -> ReceivedEvent {
    match next(subscription).await {
        Item::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

/// The end of a subscription: the last error, and the losses reported before it.
async fn end(subscription: &mut Subscription) -> (ClientError, Vec<ClientError>) {
    let mut lost = Vec::new();
    let error = loop {
        match within("the end", subscription.next()).await {
            Some(Ok(Item::Status(Status::Lost { error, .. }))) => {
                lost.push(error);
                assert!(lost.len() < 20, "too many retries: {lost:?}");
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("ended without an error"),
        }
    };
    assert!(subscription.next().await.is_none(), "nothing comes after an error");
    (error, lost)
}

async fn connected(subscription: &mut Subscription) {
    match within("`ready`", subscription.next()).await {
        Some(Ok(Item::Status(Status::Connected { .. }))) => {}
        other => panic!("{other:?}"),
    }
}

/// A proxy between client and daemon that cuts connections, alternately with a FIN and with a reset.
struct Proxy {
    addr: SocketAddr,
    /// Connections accepted so far.
    taken: Arc<AtomicUsize>,
    /// Whether it passes anything through. When this becomes false, open connections are cut.
    open: watch::Sender<bool>,
    _serving: JoinHandle<()>,
}

impl Proxy {
    /// Cuts connection number `n` after `bytes(n)` bytes from the daemon.
    async fn start(to: SocketAddr, bytes: fn(usize) -> usize) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let (open, is_open) = watch::channel(true);
        let counted = taken.clone();
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let n = counted.fetch_add(1, SeqCst);
                connections.spawn(pass(stream, to, n, bytes(n), is_open.clone()));
            }
        });
        Proxy { addr, taken, open, _serving: serving }
    }

    fn taken(&self) -> usize {
        self.taken.load(SeqCst)
    }
}

async fn pass(
    mut client: TcpStream,
    to: SocketAddr,
    n: usize,
    mut left: usize,
    mut is_open: watch::Receiver<bool>,
) {
    let mut daemon = TcpStream::connect(to).await.unwrap();
    let (mut up, mut down) = ([0; 4_096], [0; 4_096]);
    while *is_open.borrow_and_update() && left > 0 {
        tokio::select! {
            _ = is_open.changed() => {}
            read = client.read(&mut up) => match read {
                Ok(1..) if daemon.write_all(&up[..read.unwrap()]).await.is_ok() => {}
                _ => return,
            },
            read = daemon.read(&mut down) => match read {
                Ok(read @ 1..) => {
                    let read = read.min(left);
                    left -= read;
                    if client.write_all(&down[..read]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
    if n % 2 == 1 {
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// A daemon that answers one connection after another with these bytes and closes it. Returns the heads of
/// the requests.
async fn scripted(answers: Vec<String>) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let requests = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
            }
            requests.push(String::from_utf8_lossy(&bytes).into_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = stream.shutdown().await; // a client that has its answer may have closed already
        }
        requests
    });
    (addr, requests)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

/// The example of the crate's documentation.
#[tokio::test]
async fn an_agent_is_created_and_its_messages_are_received() {
    let daemon = Daemon::start().await;
    let client = Client::new(daemon.url().parse().unwrap(), daemon.key.as_str());
    let new = NewAgent { name: Some("ada".into()), ..NewAgent::default() };
    let agent = client.agents().create(&new).await.unwrap().value;
    let id = client.publish(&Event::message(agent.id.as_str(), "user-1", "hello")).await.unwrap();

    let filter = Filter::new().types(["message"]).agents([agent.id.as_str()]);
    let mut subscription = client.subscribe(filter).position(Position::Earliest);
    assert_eq!(subscription.cursor(), None);
    let received = next_event(&mut subscription).await;
    let Event::Message(message) = &received.event else { panic!("{received:?}") };
    assert_eq!(
        (message.content.as_str(), message.user_id.as_deref(), &message.agent_id),
        ("hello", Some("user-1"), &agent.id)
    );
    assert_eq!((received.id.as_str(), subscription.cursor()), (id.as_str(), Some(id.as_str())));

    // A second client, over the other transport, as a `Stream`.
    let cursor = subscription.cursor().unwrap().to_owned();
    subscription.close().await;
    assert!(subscription.next().await.is_none());
    client.publish(&Event::message(agent.id.as_str(), "user-1", "again")).await.unwrap();
    let again = client.subscribe(Filter::new()).position(Position::After(cursor)).transport(Transport::Sse);
    let mut contents = std::pin::pin!(again.into_stream().filter_map(async |item| match item.unwrap() {
        Item::Event(ReceivedEvent { event: Event::Message(message), .. }) => Some(message.content),
        _ => None,
    }));
    assert_eq!(within("the message", contents.next()).await.unwrap(), "again");
}

#[tokio::test]
async fn publishing_sends_the_requested_ack_and_key() {
    let daemon = Daemon::start().await;
    let client = client(daemon.addr(), &daemon.key);
    let ids = client.publish_batch(&[Event::custom("n", 1), Event::custom("n", 2)]).await.unwrap();
    assert_eq!(ids.len(), 2);
    let quick = client.publisher().ack(Ack::Memory).publish(&custom("n", json!(3))).await.unwrap();
    let chunks = [Event::chunk("r", "x", true)];
    let once = || client.publisher().idempotency_key("k").publish_batch(&chunks);
    let first = once().await.unwrap();
    assert_eq!(once().await.unwrap(), first);
    let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
    let kept: Vec<&str> =
        page["data"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(kept, [&ids[0], &ids[1], &quick, &first[0]]);

    let error = client.publish(&json!({"type": "custom", "channel": "n", "dat": 1})).await.unwrap_err();
    let refusal = error.api_error().unwrap();
    assert_eq!((refusal.status, refusal.code.as_str()), (400, "VALIDATION_ERROR"));
    assert!(refusal.details["field"].is_string() && refusal.request_id.is_some(), "{refusal:?}");
    let error = client.publisher().idempotency_key("k").publish(&Event::custom("n", 9)).await.unwrap_err();
    assert_eq!(error.api_error().unwrap().status, 409);
}

/// A stream is written and read through connections that are cut repeatedly, inside heads, bodies and events.
/// A reader that comes after the end gets the same text.
#[tokio::test]
async fn a_stream_is_exact_across_many_disconnects() {
    let daemon = Daemon::start().await;
    let proxy = Proxy::start(daemon.addr(), |n| 100 + (n * 397) % 1_600).await;
    let open = OpenStream { request_id: Some("r1".into()), ..OpenStream::default() };
    let through_proxy = client(proxy.addr, &daemon.key);
    let mut reader = through_proxy.read_stream("r1").all_parts();
    let mut writer = within("the opening", through_proxy.open_stream(open)).await.unwrap();
    let reasoning = StreamPart::new(PartType::Reasoning, "r");
    let mut expected: Vec<StreamText> = Vec::new();
    let writing = async {
        for n in 0..300 {
            let text = format!("w\u{f6}rt {n} \u{1f600}, ");
            if n % 50 < 10 {
                within("room", writer.append_part(&text, &reasoning)).await.unwrap();
            } else {
                within("room", writer.append(&text)).await.unwrap();
            }
            if n % 3 == 0 {
                within("the sync", writer.flush()).await.unwrap();
            }
            join(&mut expected, StreamText { text, part: (n % 50 < 10).then(|| reasoning.clone()) });
        }
        within("the end", writer.finish(Some("stop"), None)).await.unwrap();
    };
    let mut read = Vec::new();
    let reading = async {
        loop {
            match within("an item", reader.next()).await {
                Some(Ok(StreamItem::Text(piece))) => join(&mut read, piece),
                Some(Ok(StreamItem::End(end))) => break end,
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let ((), end) = tokio::join!(writing, reading);
    assert_eq!((end.state, end.finish_reason.as_deref()), (StreamState::Completed, Some("stop")));
    assert!(read == expected, "{read:?}");
    assert!(proxy.taken() > 30, "only {} connections", proxy.taken());

    let options = GetStream { all_parts: true, ..GetStream::default() };
    let stream = client(daemon.addr(), &daemon.key).get_stream("r1", &options).await.unwrap();
    let plain: String =
        expected.iter().filter(|piece| piece.part.is_none()).map(|piece| piece.text.as_str()).collect();
    assert_eq!((stream.text, stream.parts, stream.next_index), (Some(plain), Some(expected), 300));
}

/// Appends a piece to the last one if both are of the same part.
fn join(pieces: &mut Vec<StreamText>, next: StreamText) {
    match pieces.last_mut() {
        Some(last) if last.part == next.part => last.text += &next.text,
        _ => pieces.push(next),
    }
}

/// Numbered events, half of them stored and half of them live, through a connection that is cut repeatedly
/// inside heads, frames and lines. The reader gives up every second wait. Each event arrives once, in order.
#[tokio::test]
async fn events_arrive_once_and_in_order_across_many_disconnects() {
    const EVENTS: u64 = 400;
    for transport in BOTH {
        let daemon = Daemon::start().await;
        // From a cut inside the head to several events. The step is a prime, so cuts fall everywhere.
        let proxy = Proxy::start(daemon.addr(), |n| 100 + (n * 397) % 1_600).await;
        let publish = async |from: u64, to: u64| {
            let batch: Vec<_> = (from..to).map(|n| Event::custom("n", n)).collect();
            client(daemon.addr(), &daemon.key).publish_batch(&batch).await.unwrap();
        };
        publish(0, EVENTS / 2).await;
        let mut subscription = client(proxy.addr, &daemon.key)
            .subscribe(Filter::new().channels(["n"]))
            .position(Position::Earliest)
            .transport(transport);
        let (mut expected, mut lost, mut looks) = (0, 0, 0);
        while expected < EVENTS {
            looks += 1;
            let item = match tokio::time::timeout(Duration::ZERO, subscription.next()).await {
                Ok(item) => item,
                Err(_) => within("an item", subscription.next()).await,
            };
            match item.unwrap().unwrap() {
                Item::Event(received) => {
                    let Event::Custom(event) = received.event else { panic!("{received:?}") };
                    assert_eq!(event.data, json!(expected), "{transport:?} after {lost} cuts");
                    expected += 1;
                    if expected >= EVENTS / 2 && expected % 10 == 0 && expected < EVENTS {
                        publish(expected, expected + 10).await;
                    }
                }
                Item::Gap(gap) => panic!("{gap:?}"),
                Item::Status(Status::Lost { .. }) => lost += 1,
                Item::Status(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(lost >= 50, "only {lost} cuts in {looks} looks over {transport:?}");
    }
}

#[tokio::test]
async fn a_disconnect_longer_than_the_retention_is_a_gap() {
    for transport in BOTH {
        let daemon = Daemon::with().env("RETENTION__MAX_EVENTS", 5).start().await;
        let proxy = Proxy::start(daemon.addr(), |_| usize::MAX).await;
        let mut subscription =
            client(proxy.addr, &daemon.key).subscribe(Filter::new().channels(["n"])).transport(transport);
        connected(&mut subscription).await;
        let seen = daemon.publish(custom("n", json!("seen"))).await.remove(0);
        assert_eq!(next_event(&mut subscription).await.id, seen);

        proxy.open.send(false).unwrap();
        for n in 0..20 {
            daemon.publish(custom("n", json!(n))).await; // one stored value for each event
        }
        until("the trim", async || {
            let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
            (page["data"].as_array().unwrap().len() <= 5).then_some(())
        })
        .await;
        // While the proxy passes nothing through, the client retries and is cut.
        while proxy.taken() < 4 {
            match within("a lost connection", subscription.next()).await {
                Some(Ok(Item::Status(Status::Lost { .. }))) => {}
                other => panic!("{other:?}"),
            }
        }
        proxy.open.send(true).unwrap();
        let Item::Gap(gap) = next(&mut subscription).await else { panic!("no gap over {transport:?}") };
        assert_eq!((gap.reason.as_str(), &gap.after), ("trimmed", &seen));
        assert_eq!(subscription.cursor(), Some(gap.resumes_at.as_str()));
        let mut numbers = Vec::new();
        while numbers.last() != Some(&json!(19)) {
            let Event::Custom(event) = next_event(&mut subscription).await.event else { panic!("no custom") };
            numbers.push(event.data);
        }
        assert!(numbers.len() >= 5 && numbers[0] == json!(20 - numbers.len()), "{numbers:?}");
    }
}

#[tokio::test]
async fn an_expired_token_is_renewed_without_losing_an_event() {
    let daemon = Daemon::start().await;
    for transport in BOTH {
        let short = daemon.mint_token(&daemon.key, "ann", json!({"expires_in_seconds": 2})).await;
        let long = daemon.mint_token(&daemon.key, "ann", json!({})).await;
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let client = Client::builder(daemon.url().parse().unwrap())
            .credential(short)
            .credential_provider(move || {
                counted.fetch_add(1, SeqCst);
                let long = long.clone();
                async move { Some(long) }
            })
            .backoff(AT_ONCE)
            .build();
        let mut subscription = client.subscribe(Filter::new()).transport(transport);
        connected(&mut subscription).await;
        daemon.publish(custom("n", json!(1))).await;
        let first = next_event(&mut subscription).await;
        let error = loop {
            match within("the token's end", subscription.next()).await {
                Some(Ok(Item::Status(Status::Lost { error, .. }))) => break error,
                Some(Ok(Item::Status(_))) => {}
                other => panic!("{other:?}"),
            }
        };
        assert!(error.is_unauthorized(), "{error}");
        daemon.publish(custom("n", json!(2))).await;
        let second = next_event(&mut subscription).await;
        assert!(
            first.json.contains("\"data\":1") && second.json.contains("\"data\":2"),
            "{first:?} {second:?}"
        );
        assert_eq!(calls.load(SeqCst), 1);
        // Requests have the new credential as well.
        client.agents().list(&ListOptions::default()).await.unwrap();
        assert_eq!(calls.load(SeqCst), 1);
    }
}

#[tokio::test]
async fn a_request_with_a_refused_credential_renews_it_once() {
    let daemon = Daemon::start().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let client_with = |renewed: Option<String>| {
        let counted = calls.clone();
        Client::builder(daemon.url().parse().unwrap())
            .credential("nwk_none_nothing")
            .credential_provider(move || {
                counted.fetch_add(1, SeqCst);
                let renewed = renewed.clone();
                async move { renewed }
            })
            .backoff(AT_ONCE)
            .build()
    };
    let client = client_with(Some(daemon.key.clone()));
    let (agents, messages, tools) = (client.agents(), client.messages(), client.tools());
    let (any, of_any, tagged) = (ListOptions::default(), ListOptions::default(), ListOptions::default());
    let (a, b, c) = tokio::join!(agents.list(&any), messages.list(&of_any), tools.list(&tagged));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(calls.swap(0, SeqCst), 1, "three refused requests share one call of the provider");

    for (renewed, times) in [(None, 1), (Some("nwk_none_either".to_owned()), 1)] {
        let error = client_with(renewed.clone()).agents().get("x").await.unwrap_err();
        assert!(error.is_unauthorized(), "{error}");
        assert_eq!(calls.swap(0, SeqCst), times);
        for transport in BOTH {
            let (error, _) =
                end(&mut client_with(renewed.clone()).subscribe(Filter::new()).transport(transport)).await;
            assert!(error.is_unauthorized(), "{error}");
            assert_eq!(calls.swap(0, SeqCst), times);
        }
    }
}

#[tokio::test]
async fn a_revoked_key_ends_the_subscription_without_a_reconnect() {
    let daemon = Daemon::start().await;
    for transport in BOTH {
        let key = daemon.create_key(json!({"scopes": ["*"]})).await;
        let proxy = Proxy::start(daemon.addr(), |_| usize::MAX).await;
        let mut subscription = client(proxy.addr, &key).subscribe(Filter::new()).transport(transport);
        connected(&mut subscription).await;
        let key_id = key.split('_').nth(1).unwrap();
        let reply = daemon.call("DELETE", &format!("/api/v1/api-keys/{key_id}")).send().await;
        assert!(reply.status.is_success(), "{reply:?}");
        let (error, lost) = end(&mut subscription).await;
        match (&error, transport) {
            (ClientError::Closed { code: 4403, .. }, Transport::WebSocket) => {}
            (ClientError::Closing { code, .. }, Transport::Sse) if code == "FORBIDDEN" => {}
            _ => panic!("{error:?} over {transport:?}"),
        }
        assert!(lost.is_empty(), "{lost:?}");
        assert_eq!(proxy.taken(), 1);
        assert!(!format!("{error:?} {:?}", client(proxy.addr, &key)).contains(&key));
    }
}

#[tokio::test]
async fn resources_round_trip() {
    let daemon = Daemon::start().await;
    let client = client(daemon.addr(), &daemon.key);
    let agents = client.agents();
    let new = NewAgent {
        name: Some("ada".into()),
        system: Some("Plan.".into()),
        llm_config: Some(json!({"model": "m"})),
        ..NewAgent::default()
    };
    let made = agents.create_once("ada-1", &new).await.unwrap();
    assert_eq!(agents.create_once("ada-1", &new).await.unwrap().value, made.value);
    let id = made.value.id.as_str();
    assert_eq!(
        (made.version, &made.value.state, &made.value.llm_config),
        (Some(1), &AgentStatus::Idle, &new.llm_config)
    );
    assert_eq!(agents.get(id).await.unwrap(), made);
    let change = AgentChange { name: Some(Some("bea".into())), system: Some(None), ..AgentChange::default() };
    let changed = agents.update(id, made.version, &change).await.unwrap();
    assert_eq!(
        (changed.value.name.as_deref(), &changed.value.system, changed.version),
        (Some("bea"), &None, Some(2))
    );
    assert_eq!(changed.value.llm_config, new.llm_config);
    let late = agents.update(id, made.version, &change).await.unwrap_err();
    assert_eq!(
        (late.api_error().unwrap().status, &late.api_error().unwrap().details["version"]),
        (412, &json!(2))
    );
    let state = agents.set_state(id, None, &AgentStatus::Error, Some("out of tea")).await.unwrap().value;
    assert_eq!((state.state, state.error_message.as_deref()), (AgentStatus::Error, Some("out of tea")));
    assert_eq!(agents.state(id).await.unwrap().value.state, AgentStatus::Error);
    let late = agents.set_state(id, made.version, &AgentStatus::Idle, None).await.unwrap_err();
    assert_eq!(late.api_error().unwrap().status, 412);
    let wrong = agents.set_state(id, None, &AgentStatus::Waiting, None).await.unwrap_err();
    assert_eq!(wrong.api_error().unwrap().code, "CONFLICT");

    let messages = client.messages();
    let said = agents
        .send_message(
            id,
            &NewAgentMessage {
                message: "hi".into(),
                user_id: Some("u".into()),
                ..NewAgentMessage::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(messages.get(&said.message_id).await.unwrap().value.content, "hi");
    for n in 0..120 {
        let content = n.to_string();
        let new =
            NewMessage { agent_id: id.into(), user_id: Some("v".into()), content, ..NewMessage::default() };
        messages.create(&new).await.unwrap();
    }
    let of = MessageFilter { user_id: Some("v".into()), ..MessageFilter::default() };
    let page = messages
        .list(&ListOptions { filter: of.clone(), limit: Some(2), ascending: true, cursor: None })
        .await
        .unwrap();
    let next =
        ListOptions { filter: of.clone(), limit: Some(1), ascending: true, cursor: page.next_cursor.clone() };
    let next = messages.list(&next).await.unwrap();
    let contents: Vec<&str> = page.data.iter().chain(&next.data).map(|row| row.content.as_str()).collect();
    assert_eq!(contents, ["0", "1", "2"]);
    let rows = messages.all(of.clone()).take(1_000).await.unwrap();
    assert_eq!(
        rows.iter().map(|row| row.content.parse().unwrap()).collect::<Vec<u32>>(),
        (0..120).rev().collect::<Vec<_>>()
    );
    assert_eq!(messages.all(of).take(101).await.unwrap().len(), 101);
    messages.delete(&said.message_id, None).await.unwrap();

    let tools = client.tools();
    for (name, tags) in [("saw", &["wood", "sharp"][..]), ("axe", &["wood"]), ("pen", &["sharp"])] {
        let tags = tags.iter().map(ToString::to_string).collect();
        tools.create(&NewTool { name: name.into(), tags: Some(tags), ..NewTool::default() }).await.unwrap();
    }
    let tagged = async |tags: &[&str], match_all| {
        let of = ToolFilter { tags: tags.iter().map(ToString::to_string).collect(), match_all };
        let mut names: Vec<_> =
            tools.all(of).take(10).await.unwrap().into_iter().map(|tool| tool.name).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(tagged(&[], false).await, "axe pen saw");
    assert_eq!(tagged(&["wood", "sharp"], true).await, "saw");
    assert_eq!(tagged(&["sharp"], false).await, "pen saw");
    let saw = tools
        .all(ToolFilter::default())
        .take(3)
        .await
        .unwrap()
        .into_iter()
        .find(|tool| tool.name == "saw")
        .unwrap();
    let change = ToolChange { tags: Some(vec!["metal".into()]), ..ToolChange::default() };
    let changed = tools.update(&saw.id, None, &change).await.unwrap();
    assert_eq!((changed.value.tags, changed.version), (vec!["metal".to_owned()], Some(2)));
    tools.delete(&saw.id, changed.version).await.unwrap();
    let gone = tools.get(&saw.id).await.unwrap_err();
    assert_eq!(
        (gone.api_error().unwrap().status, gone.api_error().unwrap().code.as_str()),
        (404, "NOT_FOUND")
    );

    agents.delete(id, None).await.unwrap();
    assert_eq!(agents.all(()).take(10).await.unwrap(), []);
}

#[tokio::test]
async fn the_client_waits_as_long_as_retry_after_says() {
    let busy =
        answer("503 Service Unavailable", "retry-after: 1\r\n", r#"{"code":"UNAVAILABLE","message":"full"}"#);
    let many = answer(
        "429 Too Many Requests",
        "retry-after: 1\r\n",
        r#"{"code":"QUOTA_EXCEEDED","message":"many"}"#,
    );
    let second = Duration::from_secs(1);

    // A publish with a key is retried with the same body.
    let ids = answer("201 Created", "", r#"{"data":{"ids":["I"]},"success":true}"#);
    let (addr, requests) = scripted(vec![busy.clone(), ids]).await;
    let client =
        |addr: SocketAddr| Client::builder(format!("http://{addr}").parse().unwrap()).backoff(SOON).build();
    let began = Instant::now();
    let event = Event::custom("n", 1);
    assert_eq!(client(addr).publisher().idempotency_key("k").publish(&event).await.unwrap(), "I");
    assert!(began.elapsed() >= second, "{:?}", began.elapsed());
    assert!(requests.await.unwrap().iter().all(|request| request.contains("idempotency-key: k\r\n")));
    // Without a key it is not retried.
    let (addr, requests) = scripted(vec![busy.clone()]).await;
    let error = client(addr).publish(&event).await.unwrap_err();
    assert_eq!((error.api_error().unwrap().status, error.api_error().unwrap().retry_after), (503, Some(1)));
    assert_eq!(requests.await.unwrap().len(), 1);

    // A subscription reconnects. Over SSE a refusal may be a stream that closes.
    for (transport, refusal, least) in [
        (Transport::WebSocket, busy.clone(), second),
        (Transport::WebSocket, many.clone(), second),
        (Transport::Sse, many, second),
        (
            Transport::Sse,
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\nretry: 70\n\nevent: closing\n\
             data: {\"type\":\"error\",\"code\":\"UNAVAILABLE\",\"message\":\"full\"}\n\n"
                .to_owned(),
            Duration::from_millis(70),
        ),
    ] {
        let denied = answer("403 Forbidden", "", r#"{"code":"FORBIDDEN","message":"no"}"#);
        let (addr, requests) = scripted(vec![refusal, denied]).await;
        let mut subscription = client(addr).subscribe(Filter::new()).transport(transport);
        let began = Instant::now();
        match subscription.next().await {
            Some(Ok(Item::Status(Status::Lost { retry_in, .. }))) => {
                assert!(retry_in >= least && retry_in <= least * 2, "{retry_in:?}")
            }
            other => panic!("{other:?}"),
        }
        let (error, lost) = end(&mut subscription).await;
        assert!(began.elapsed() >= least, "{:?}", began.elapsed());
        assert_eq!((error.api_error().unwrap().status, lost.len()), (403, 0), "a permanent refusal ends it");
        assert_eq!(requests.await.unwrap().len(), 2);
    }
}

/// After a greeting that promises a heartbeat every second, nothing arrives: the client treats the peer as
/// dead, whatever the kernel reports.
#[tokio::test]
async fn a_daemon_that_misses_two_heartbeats_is_disconnected() {
    const READY: &str = r#"{"type":"ready","connection_id":"c","cursor":"C0","resumed":false,"replaying":0,"heartbeat_seconds":1}"#;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut mute = Vec::new();
        let mut connections = 0;
        while connections < 4 {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections += 1;
            let mut path = [0; 14];
            while within("a request", stream.peek(&mut path)).await.unwrap() < path.len() {}
            if path == *b"GET /api/v1/ws" {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                socket.send(Frame::text(READY)).await.unwrap();
                mute.push(Ok(socket));
            } else {
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: ready\nid: C0\ndata: {READY}\n\n"
                );
                stream.write_all(head.as_bytes()).await.unwrap();
                mute.push(Err(stream));
            }
        }
        mute
    });
    let left = BOTH.map(|transport| async move {
        let mut subscription = client(addr, "key").subscribe(Filter::new()).transport(transport);
        connected(&mut subscription).await;
        let began = Instant::now();
        match within("the read timeout", subscription.next()).await {
            Some(Ok(Item::Status(Status::Lost { error: ClientError::Timeout(..), .. }))) => {}
            other => panic!("{other:?}"),
        }
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
        connected(&mut subscription).await; // and reconnects
        assert_eq!(subscription.cursor(), Some("C0"));
    });
    futures_util::future::join_all(left).await;
    assert_eq!(serving.await.unwrap().len(), 4);
}

/// Polls `looks` times for an instant each before it waits; after that it calls `after_looks`.
async fn look_often<T>(mut look: impl AsyncFnMut() -> T, looks: usize, after_looks: impl FnOnce()) -> T {
    for _ in 0..looks {
        if let Ok(item) = tokio::time::timeout(Duration::from_millis(1), look()).await {
            return item;
        }
    }
    after_looks();
    within("an item", look()).await
}

/// A loop that cancels its read every millisecond still gets its stream from a daemon that needs longer to
/// respond.
#[tokio::test]
async fn a_cancelled_read_does_not_restart_the_subscription() {
    const READY: &str = r#"{"type":"ready","connection_id":"c","cursor":"C0","resumed":false,"replaying":0,"heartbeat_seconds":9}"#;
    for transport in BOTH {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (answer, mut is_answered) = watch::channel(false);
        let serving = tokio::spawn(async move {
            // The first connection; there must be no second.
            let (mut stream, _) = listener.accept().await.unwrap();
            is_answered.changed().await.unwrap();
            if transport == Transport::WebSocket {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                socket.send(Frame::text(READY)).await.unwrap();
                return socket.next().await.is_some();
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent: ready\nid: C0\n";
            stream.write_all(format!("{head}data: {READY}\n\n").as_bytes()).await.unwrap();
            while stream.read(&mut [0; 512]).await.unwrap_or(0) > 0 {}
            true
        });
        let mut subscription = client(addr, "key").subscribe(Filter::new()).transport(transport);
        let item = look_often(async || subscription.next().await, 30, || answer.send(true).unwrap()).await;
        match item {
            Some(Ok(Item::Status(Status::Connected { .. }))) => {}
            other => panic!("{other:?} over {transport:?}"),
        }
        drop(subscription);
        assert!(within("the end", serving).await.unwrap());
    }
}

/// The same while a new credential is requested: the provider is called once, and other requests that need
/// the credential are not blocked by a reader that stopped polling.
#[tokio::test]
async fn a_cancelled_read_renews_the_credential_once() {
    let denied = answer("401 Unauthorized", "", r#"{"code":"UNAUTHORIZED","message":"no"}"#);
    let forbidden = answer("403 Forbidden", "", r#"{"code":"FORBIDDEN","message":"no"}"#);
    for transport in BOTH {
        let (addr, requests) =
            scripted(vec![denied.clone(), denied.clone(), forbidden.clone(), forbidden.clone()]).await;
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let (give, is_given) = watch::channel(false);
        let client = Client::builder(format!("http://{addr}").parse().unwrap())
            .credential("old")
            .credential_provider(move || {
                counted.fetch_add(1, SeqCst);
                let mut is_given = is_given.clone();
                async move {
                    is_given.wait_for(|given| *given).await.unwrap();
                    Some("new")
                }
            })
            .backoff(AT_ONCE)
            .build();
        let mut subscription = client.subscribe(Filter::new()).transport(transport);
        let mut looks = 0;
        while looks < 30 {
            looks += calls.load(SeqCst).min(1); // counted from the call on
            let look = tokio::time::timeout(Duration::from_millis(1), subscription.next()).await;
            assert!(look.is_err(), "{look:?}");
        }

        // The reader has stopped polling, and a request needs the credential too.
        let agents = client.agents();
        let mut listing = std::pin::pin!(async { agents.list(&ListOptions::default()).await });
        let look = tokio::time::timeout(Duration::from_millis(50), &mut listing).await;
        assert!(look.is_err(), "{look:?}");
        give.send(true).unwrap();
        let error = within("an answer", listing).await.unwrap_err();
        assert_eq!(error.api_error().unwrap().status, 403);

        let (error, lost) = end(&mut subscription).await;
        assert_eq!((error.api_error().unwrap().status, lost.len()), (403, 1));
        assert_eq!(calls.load(SeqCst), 1);
        let credentials: Vec<_> =
            requests.await.unwrap().iter().map(|head| head.contains(": Bearer new")).collect();
        assert_eq!(credentials, [false, false, true, true]);
    }
}

#[tokio::test]
async fn the_client_waits_for_a_restarting_daemon_by_default() {
    let mut daemon = Daemon::start().await;
    let mut subscriptions = BOTH.map(|transport| {
        client(daemon.addr(), &daemon.key).subscribe(Filter::new().types(["message"])).transport(transport)
    });
    for subscription in &mut subscriptions {
        connected(subscription).await;
    }
    daemon.restart().await;
    daemon.publish(message("after")).await;
    for subscription in &mut subscriptions {
        let Event::Message(message) = next_event(subscription).await.event else { panic!("no message") };
        assert_eq!(message.content, "after");
    }
    let addr = daemon.addr();
    daemon.kill9().await;
    for transport in BOTH {
        let (error, lost) =
            end(&mut client(addr, "key").subscribe(Filter::new()).transport(transport).fail_if_unreachable())
                .await;
        assert!(matches!(error, ClientError::Connect { .. }) && lost.is_empty(), "{error}");
    }
}

/// Users log in with a password. The memories about them are their own; they are found by their words, and
/// their versions are kept.
#[tokio::test]
async fn users_log_in_and_own_their_memories() {
    let daemon = Daemon::start().await;
    let manager = client(daemon.addr(), &daemon.key);
    let new = NewUser {
        email: "ann@example.org".into(),
        password: "correct horse".into(),
        name: "Ann".into(),
        role: UserRole::User,
    };
    assert!(!format!("{new:?}").contains("horse"));
    let ann = manager.users().register(&new).await.unwrap().value;
    let stranger = Client::builder(manager.endpoint().clone()).build();
    let wrong = stranger.login("default", &new.email, "battery staple").await.unwrap_err();
    assert_eq!(wrong.api_error().unwrap().status, 401);
    let session = stranger.login("default", &new.email, &new.password).await.unwrap();
    assert_eq!(session.user, ann);
    let hers = Client::new(manager.endpoint().clone(), session.token);
    let me = hers.users().me().await.unwrap();
    let profile = ProfileChange { timezone: Some(Some("Europe/Vienna".into())), ..ProfileChange::default() };
    let me = hers.users().update_me(me.version, &profile).await.unwrap();
    assert_eq!((me.value.timezone.as_deref(), me.version), (Some("Europe/Vienna"), Some(2)));
    assert_eq!(manager.users().all(()).take(9).await.unwrap(), [me.value]);

    let agent = manager.agents().create(&NewAgent::default()).await.unwrap().value.id;
    let new = NewMemory {
        content: "Ann likes tea".into(),
        agent_id: Some(agent.clone()),
        memory_type: Some(MemoryType::Episodic),
        ..NewMemory::default()
    };
    let memory = hers.memories().create_once("tea", &new).await.unwrap();
    assert_eq!(memory.value.user_id.as_deref(), Some(ann.id.as_str()));
    let change = MemoryChange { content: Some("Ann likes coffee".into()), ..MemoryChange::default() };
    let changed = hers.memories().update(&memory.value.id, memory.version, &change).await.unwrap();
    assert_eq!((changed.value.version, changed.value.memory_type), (2, MemoryType::Episodic));
    let history = hers.memories().history(&memory.value.id, &ListOptions::default()).await.unwrap();
    let said: Vec<&str> = history.data.iter().map(|version| version.content.as_str()).collect();
    assert_eq!(said, ["Ann likes coffee", "Ann likes tea"]);
    for (query, count) in [("tea", 0), ("coffee", 1), ("cof*", 1)] {
        let found = hers
            .memories()
            .search(&MemoryQuery { query: query.into(), ..MemoryQuery::default() })
            .await
            .unwrap();
        assert_eq!((found.total, found.results.len()), (count, count as usize), "{query}: {found:?}");
    }
    let of = MemoryFilter { agent_id: Some(agent.clone()), ..MemoryFilter::default() };
    assert_eq!(hers.memories().all(of).take(9).await.unwrap().len(), 1);

    let core = hers.core_memory(&agent, Some(&ann.id));
    let holding = CoreMemoryChange { value: "drinks coffee".into(), limit: Some(20) };
    let block = core.put("human", None, &holding).await.unwrap();
    assert_eq!(core.get("human").await.unwrap(), block);
    let late = core.put("human", Some(9), &holding).await.unwrap_err();
    assert_eq!(late.api_error().unwrap().status, 412);
    assert_eq!(core.blocks().await.unwrap().data, [block.value]);
    core.delete("human", block.version).await.unwrap();
    assert_eq!(core.blocks().await.unwrap().data, []);

    let fresh = hers.users().change_password("correct horse", "battery staple").await.unwrap();
    assert_eq!(hers.users().me().await.unwrap_err().api_error().unwrap().status, 401);
    assert!(Client::new(manager.endpoint().clone(), fresh.token).users().me().await.is_ok());
}
