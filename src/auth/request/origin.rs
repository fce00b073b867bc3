//! Which web pages may use the daemon (protocol §4, "Browsers").
//!
//! * A browser sends cookies by itself, so a cookie is accepted only with an allowed `Origin`, except on GET
//!   and HEAD.
//! * The browser's same-origin policy does not cover WebSockets (RFC 6455 §10.2): an upgrade with a foreign
//!   `Origin` is refused, whatever its credential.
//! * `null` (sandboxed frames, `file:`) is never allowed, and the list has no wildcards.
//! * This module does not know credentials: `auth` decides when an origin is checked.

use http::Method;

use crate::sync::Mutex;

/// Methods that a preflight allows.
pub const ALLOW_METHODS: &str = "GET, POST, PUT, PATCH, DELETE";
/// Request headers that a preflight allows.
pub const ALLOW_HEADERS: &str = "authorization, content-type, x-api-key, last-event-id, idempotency-key, if-match, \
     x-producer-token, x-user-id, x-organization-id, x-request-id, traceparent";
/// Response headers that a page may read.
pub const EXPOSE_HEADERS: &str = "x-request-id, Retry-After, Idempotent-Replayed, ETag";
/// Seconds for which a browser may cache a preflight response.
pub const PREFLIGHT_MAX_AGE_SECONDS: &str = "600";

/// Maximum number of refused origins logged within [`REFUSED_WINDOW_MS`].
const REFUSED_ORIGINS: usize = 16;
/// For how long a refused origin is not logged again, in milliseconds.
const REFUSED_WINDOW_MS: u64 = 60_000;
/// Maximum length of an origin that is logged: a scheme, a domain name and a port.
const REFUSED_BYTES: usize = 300;

/// The origin allow-list. The same origin is always allowed.
#[derive(Debug, Clone)]
pub struct OriginPolicy {
    /// Lower case, without a trailing slash. Empty: localhost at any port.
    allowed: Box<[Box<str>]>,
}

impl OriginPolicy {
    /// Builds the policy from a list of origins (`scheme://host[:port]`). An empty list allows pages that are
    /// served from this machine's loopback names, at any port.
    ///
    /// # Errors
    /// The entry that is not an origin.
    pub fn new(allowed: &[String]) -> Result<Self, String> {
        let entry = |entry: &String| {
            let lower = entry.to_ascii_lowercase();
            match OriginParts::of(&lower) {
                Some(_) => Ok(lower.into_boxed_str()),
                None => Err(entry.clone()),
            }
        };
        Ok(OriginPolicy { allowed: allowed.iter().map(entry).collect::<Result<_, _>>()? })
    }

    /// Returns true if a page of `origin` may use the daemon at `host` (the request's `Host` or
    /// `:authority`).
    #[must_use]
    pub fn allows(&self, origin: &str, host: Option<&str>) -> bool {
        let Some(parts) = OriginParts::of(origin) else { return false };
        if host.is_some_and(|host| parts.is_at(host)) {
            return true;
        }
        match self.allowed.is_empty() {
            true => parts.is_loopback(),
            false => self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
        }
    }

    /// Returns true if a request with a cookie may continue: a safe method, or an allowed `Origin`.
    #[must_use]
    pub fn allows_cookie(
        &self,
        method: &Method,
        websocket: bool,
        origin: Option<&str>,
        host: Option<&str>,
    ) -> bool {
        let safe = !websocket && matches!(*method, Method::GET | Method::HEAD);
        safe || origin.is_some_and(|origin| self.allows(origin, host))
    }
}

/// Origins that were refused and logged within the last minute, so that a page that keeps retrying does not
/// fill the log.
#[derive(Debug, Default)]
pub(in crate::auth) struct RefusedOrigins(Mutex<LoggedOrigins>);

#[derive(Debug, Default)]
struct LoggedOrigins {
    /// Time at which the first of them was logged, in Unix milliseconds.
    since_ms: u64,
    origins: Vec<Box<str>>,
}

impl RefusedOrigins {
    /// Returns the text to log for a refused `Origin`; `None` if it, or enough other origins, was logged
    /// already. Only what a browser sends is copied into the log: scheme, host and port.
    pub(in crate::auth) fn to_log(&self, origin: &str, now_ms: u64) -> Option<Box<str>> {
        let known = origin.len() <= REFUSED_BYTES && (origin == "null" || OriginParts::of(origin).is_some());
        let shown = if known { origin } else { "(not an origin)" };
        let mut logged = self.0.lock();
        if now_ms.abs_diff(logged.since_ms) >= REFUSED_WINDOW_MS {
            *logged = LoggedOrigins { since_ms: now_ms, origins: Vec::new() };
        }
        if logged.origins.len() >= REFUSED_ORIGINS || logged.origins.iter().any(|it| **it == *shown) {
            return None;
        }
        logged.origins.push(shown.into());
        Some(shown.into())
    }
}

/// The parts of an origin (RFC 6454 §7: exactly scheme, host and port).
struct OriginParts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
}

impl<'a> OriginParts<'a> {
    fn of(origin: &'a str) -> Option<OriginParts<'a>> {
        let (scheme, authority) = origin.split_once("://")?;
        let scheme_ok = !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        let (host, port) = split_port(authority)?;
        scheme_ok.then_some(OriginParts { scheme, host, port })
    }

    fn is_loopback(&self) -> bool {
        ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| self.host.eq_ignore_ascii_case(name))
    }

    /// Returns true for the same host and port. Behind a proxy the daemon cannot know its own scheme, so the
    /// default port is that of the origin's scheme.
    fn is_at(&self, host: &str) -> bool {
        let default = match self.scheme.to_ascii_lowercase().as_str() {
            "http" => "80",
            "https" => "443",
            _ => return false,
        };
        let Some((name, port)) = split_port(host) else { return false };
        name.eq_ignore_ascii_case(self.host) && port.unwrap_or(default) == self.port.unwrap_or(default)
    }
}

/// Splits `host[:port]`; an IPv6 host keeps its brackets.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let (host, port) = match authority.rfind(']') {
        Some(end) => (authority.get(..=end)?, authority.get(end + 1..)?),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits),
        _ => return None,
    };
    let host_ok = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']'));
    host_ok.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allowed: &[&str]) -> OriginPolicy {
        OriginPolicy::new(&allowed.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).expect("valid list")
    }

    #[test]
    fn by_default_the_same_origin_and_loopback_pages_are_allowed() {
        let policy = policy(&[]);
        for origin in
            ["http://localhost:3000", "https://LOCALHOST", "http://127.0.0.1:8080", "http://[::1]:5173"]
        {
            assert!(policy.allows(origin, Some("nw.example")), "{origin}");
        }
        assert!(policy.allows("https://nw.example", Some("nw.example")));
        assert!(policy.allows("https://nw.example", Some("NW.example:443")));
        assert!(policy.allows("http://nw.example:8080", Some("nw.example:8080")));
        for origin in [
            "https://evil.example",
            "https://nw.example.evil.example",
            "https://localhost.evil.example",
            "http://nw.example:81",
            "null",
            "",
            "https://",
            "nw.example",
            "https://u@nw.example",
            "https://nw.example/",
        ] {
            assert!(!policy.allows(origin, Some("nw.example")), "{origin}");
        }
    }

    #[test]
    fn a_list_replaces_loopback_but_not_the_same_origin() {
        let policy = policy(&["https://App.example", "http://ui.example:8000"]);
        assert!(policy.allows("https://app.example", None));
        assert!(policy.allows("http://ui.example:8000", Some("nw.example")));
        assert!(policy.allows("https://nw.example", Some("nw.example")));
        assert!(!policy.allows("http://localhost:3000", Some("nw.example")));
        assert!(!policy.allows("http://app.example", Some("nw.example")));
        assert!(!policy.allows("http://ui.example", None));
    }

    #[test]
    fn refused_origins_are_logged_once_a_minute_up_to_a_limit() {
        let refused = RefusedOrigins::default();
        assert_eq!(refused.to_log("https://evil.example", 5).as_deref(), Some("https://evil.example"));
        assert_eq!(refused.to_log("https://evil.example", 59_999), None);
        assert_eq!(refused.to_log("https://evil.example", 60_005).as_deref(), Some("https://evil.example"));
        let secret = refused.to_log("https://user:secret@evil.example", 60_006);
        assert_eq!(secret.as_deref(), Some("(not an origin)"));
        let logged = (0..100).filter_map(|n| refused.to_log(&format!("https://{n}.example"), 60_007));
        assert_eq!(logged.count(), REFUSED_ORIGINS - 2);
    }

    #[test]
    fn an_entry_that_is_not_an_origin_is_refused() {
        for bad in ["*", "null", "app.example", "https://app.example/", "https://*.example", ""] {
            assert!(OriginPolicy::new(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    /// A form on another site can make the browser send our cookie, so without an allowed origin it may only
    /// read.
    #[test]
    fn a_cookie_needs_an_allowed_origin_to_change_anything() {
        let policy = policy(&[]);
        let host = Some("nw.example");
        assert!(policy.allows_cookie(&Method::GET, false, None, host));
        assert!(policy.allows_cookie(&Method::HEAD, false, Some("https://evil.example"), host));
        for origin in [None, Some("null"), Some("https://evil.example")] {
            assert!(!policy.allows_cookie(&Method::POST, false, origin, host), "{origin:?}");
            assert!(!policy.allows_cookie(&Method::OPTIONS, false, origin, host), "{origin:?}");
            assert!(!policy.allows_cookie(&Method::GET, true, origin, host), "{origin:?}");
        }
        assert!(policy.allows_cookie(&Method::DELETE, false, Some("https://nw.example"), host));
        assert!(policy.allows_cookie(&Method::GET, true, Some("https://nw.example"), host));
    }
}
