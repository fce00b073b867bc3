//! Measures a page of a list in an organization of a thousand rows and in one of very many, over HTTP, in one
//! run.
//!
//! `NERVEWIRE_LIST_ROWS=1000000 cargo bench --bench lists`; the default is 20,000. Messages have 200 bytes.
//! Each agent has a hundred of them, spread over the table, so the pages of the large organization are far
//! apart. Both organizations are measured alternately: `same` requests one page repeatedly, `other` each time
//! that of another agent or user. The bench also prints the rate at which 256 clients created the messages.
//! `NERVEWIRE_LIST_CACHE` sets the daemon's `store.cache_bytes`.

#![allow(missing_docs, clippy::expect_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use nervewire_load::{Access, DaemonSettings, HttpConnection, Target, Tenant};
use serde_json::{Value, json};

const FEW: usize = 1_000;
const OF_AN_AGENT: usize = 100;
const CLIENTS: usize = 256;
const ASKED: usize = 400;

/// The longest wait for a response.
const PATIENCE: Duration = Duration::from_secs(60);

/// A keep-alive connection.
struct Caller(HttpConnection);

impl Caller {
    fn new(access: &Access) -> Caller {
        Caller(HttpConnection::new(access, PATIENCE).expect("connected"))
    }

    /// Sends a request, which must succeed, and returns its response.
    fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> &[u8] {
        let (status, answer) = self.0.request(method, path, body).expect("a response");
        let text = || String::from_utf8_lossy(answer);
        assert!((200..300).contains(&status), "{method} {path}: {status} {}", text());
        answer
    }

    fn make(&mut self, path: &str, body: &Value) -> String {
        let made: Value = serde_json::from_slice(self.call("POST", path, Some(body))).expect("JSON");
        made["data"]["id"].as_str().expect("an id").to_owned()
    }

    /// Returns the duration of a request for a page, and the number of rows in the page.
    fn page(&mut self, path: &str) -> (Duration, usize) {
        let began = Instant::now();
        let body = self.call("GET", path, None);
        let took = began.elapsed();
        let page: Value = serde_json::from_slice(body).expect("JSON");
        (took, page["data"].as_array().expect("rows").len())
    }
}

/// An organization with `rows` messages, the same number of tools, and an agent for each hundred.
struct Organization {
    access: Access,
    agents: Vec<String>,
    users: usize,
}

impl Organization {
    fn fill(access: Access, rows: usize) -> Organization {
        let mut caller = Caller::new(&access);
        let agents: Vec<String> = (0..rows / OF_AN_AGENT)
            .map(|n| caller.make("/api/v1/agents", &json!({"name": format!("agent {n}")})))
            .collect();
        let users = agents.len();
        let each = |client: usize, caller: &mut Caller, body: &dyn Fn(usize) -> (&'static str, Value)| {
            for n in (client..rows).step_by(CLIENTS) {
                let (path, body) = body(n);
                caller.call("POST", path, Some(&body));
            }
        };
        let message = |n: usize| {
            let content = format!("{n:0>200}");
            let body = json!({"agent_id": agents[n % users], "user_id": format!("user-{}", n / 7 % users), "content": content});
            ("/api/v1/messages", body)
        };
        let tool = |n: usize| {
            let tags = [format!("even-{}", n % 2), format!("tag-{}", n % users)];
            ("/api/v1/tools", json!({"name": format!("tool {n}"), "tags": tags}))
        };
        for (what, body) in [("messages", &message as &(dyn Fn(usize) -> _ + Sync)), ("tools", &tool)] {
            let began = Instant::now();
            std::thread::scope(|scope| {
                for client in 0..CLIENTS {
                    let access = &access;
                    scope.spawn(move || each(client, &mut Caller::new(access), &body));
                }
            });
            let rate = rows as f64 / began.elapsed().as_secs_f64();
            println!("{rows} {what} from {CLIENTS} clients: {rate:.0}/s");
        }
        Organization { access, agents, users }
    }

    fn path(&self, list: &str, n: usize) -> String {
        let (agent, user) = (&self.agents[n % self.users], n % self.users);
        list.replace("AGENT", agent)
            .replace("USER", &format!("user-{user}"))
            .replace("TAG", &format!("tag-{user}"))
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn main() {
    let asked = std::env::var("NERVEWIRE_LIST_ROWS").ok().and_then(|rows| rows.parse().ok());
    let exe = std::env::var_os("NERVEWIRE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_nervewire").into());
    let mut set = vec!["limits.publish_per_second=0".into(), "log.level=warn".into()];
    set.extend(std::env::var("NERVEWIRE_LIST_CACHE").ok().map(|bytes| format!("store.cache_bytes={bytes}")));
    let settings = DaemonSettings { exe: Some(exe.into()), set, ..DaemonSettings::default() };
    // `cargo test --benches` runs the bench only to check that it works.
    let rows = asked.unwrap_or(if std::env::args().any(|arg| arg == "--bench") { 20_000 } else { FEW });
    let target = Target::daemon(&settings).expect("the daemon starts");
    let [few, many] = [("few", FEW), ("many", rows)].map(|(name, rows)| {
        let tenant = Tenant::make(&target, name).expect("an organization");
        Organization::fill(tenant.access.clone(), rows)
    });
    println!(
        "{:<44} {:>5} {:>12} {:>12} {:>7}",
        "page",
        "rows",
        format!("{FEW}, µs"),
        format!("{rows}, µs"),
        "ratio"
    );
    let (mut at_few, mut at_many) = (Caller::new(&few.access), Caller::new(&many.access));
    for list in [
        "/api/v1/agents?limit=10",
        "/api/v1/messages?",
        "/api/v1/messages?agent_id=AGENT",
        "/api/v1/messages?user_id=USER",
        "/api/v1/messages?agent_id=AGENT&order=asc",
        "/api/v1/messages?agent_id=AGENT&user_id=USER",
        "/api/v1/tools?",
        "/api/v1/tools?tags=TAG",
        "/api/v1/tools?tags=TAG,even-0&match_all=true",
        "/api/v1/tools?tags=TAG,even-1&match_all=false",
    ] {
        for (how, step) in [("same", 0), ("other", 7_919)] {
            let (mut times_few, mut times_many, mut found) = (Vec::new(), Vec::new(), 0);
            for n in 0..ASKED {
                let (took, _) = at_few.page(&few.path(list, n * step));
                times_few.push(took);
                let (took, rows) = at_many.page(&many.path(list, n * step));
                times_many.push(took);
                found += rows;
            }
            let (few, many, found) = (median(times_few), median(times_many), found / ASKED);
            let name = format!("{} ({how})", list.trim_start_matches("/api/v1/").trim_end_matches('?'));
            println!("{name:<44} {found:>5} {few:>12.0} {many:>12.0} {:>6.2}x", many / few);
        }
    }
}
