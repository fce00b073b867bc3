//! Finds the credential in a request (protocol §4, first bullet).
//!
//! * The order is `Authorization: Bearer` > `X-API-Key` > `?ticket=` > `?token=` > cookie `nervewire_token`.
//!   The first one present decides; there is no fallback to a weaker one.
//! * A credential given twice in one place is refused, because two readers could choose different ones.
//! * This module only reads; `Auth` verifies. `Debug` shows where the credential was, never its text.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, Method, header};

use crate::auth::rights::credential::CredentialSource;

/// The cookie that carries a JWT or an API key.
pub const COOKIE: &str = "nervewire_token";
/// Query parameters that carry a credential.
pub const QUERY_PARAMETERS: [&str; 2] = ["ticket", "token"];

/// The credential in a request, not yet verified. `None`: there is none.
pub struct PresentedCredential<'a>(pub(in crate::auth) Option<(CredentialSource, CredentialText<'a>)>);

/// The credential's text; `None` if it was given twice or is not valid text.
pub(in crate::auth) type CredentialText<'a> = Option<Cow<'a, str>>;

impl PresentedCredential<'_> {
    /// Where the credential was; `None`: the request has no credential.
    #[must_use]
    pub fn via(&self) -> Option<CredentialSource> {
        self.0.as_ref().map(|(via, _)| *via)
    }
}

impl fmt::Debug for PresentedCredential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({:?})", self.via())
    }
}

/// What a credential is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CredentialUse {
    /// SSE and `GET /events`, which a reconnect ticket may open.
    Stream,
    /// A WebSocket upgrade.
    WebSocket,
    /// Any other request.
    Rest,
}

/// The parts of a request, besides the credential, that decide whether it is accepted.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    /// The peer's address; `None` on a unix socket.
    pub peer: Option<IpAddr>,
    /// `Origin`, as sent.
    pub origin: Option<&'a str>,
    /// `Host` or `:authority`.
    pub host: Option<&'a str>,
    /// The request's method.
    pub method: &'a Method,
    /// What the request uses the credential for.
    pub use_: CredentialUse,
}

impl<'a> RequestContext<'a> {
    /// Returns the context of a request. An `Origin` that is not text, or is given twice, is taken as `null`.
    /// The authority in the request target (HTTP/2) takes precedence over `Host`.
    #[must_use]
    pub fn of(
        headers: &'a HeaderMap,
        authority: Option<&'a str>,
        method: &'a Method,
        peer: Option<IpAddr>,
        use_: CredentialUse,
    ) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let origin = match headers.get_all(header::ORIGIN).iter().count() {
            0 => None,
            1 => text(header::ORIGIN).or(Some("null")),
            _ => Some("null"),
        };
        RequestContext { peer, origin, host: authority.or_else(|| text(header::HOST)), method, use_ }
    }
}

/// Finds the credential in `headers` and `query` (without `?`). If `token_in_query` is false, `?token=` is
/// ignored.
pub(in crate::auth) fn present<'a>(
    headers: &'a HeaderMap,
    query: &'a str,
    token_in_query: bool,
) -> PresentedCredential<'a> {
    PresentedCredential(
        bearer(headers)
            .map(|text| (CredentialSource::Bearer, text))
            .or_else(|| api_key_header(headers).map(|text| (CredentialSource::ApiKeyHeader, text)))
            .or_else(|| parameter(query, "ticket").map(|text| (CredentialSource::Ticket, text)))
            .or_else(|| {
                let token = token_in_query.then(|| parameter(query, "token")).flatten();
                token.map(|text| (CredentialSource::Query, text))
            })
            .or_else(|| cookie(headers).map(|text| (CredentialSource::Cookie, text))),
    )
}

/// Returns the query with the values of credential parameters replaced by `-`. Only this form may be logged.
#[must_use]
pub fn redact_query(query: &str) -> Cow<'_, str> {
    let secret = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        QUERY_PARAMETERS.contains(&unescape(name).as_deref().unwrap_or("token"))
    };
    if !query.split('&').any(secret) {
        return Cow::Borrowed(query);
    }
    let shown = query.split('&').map(|pair| match secret(pair) {
        true => format!("{}=-", pair.split('=').next().unwrap_or_default()),
        false => pair.to_owned(),
    });
    Cow::Owned(shown.collect::<Vec<_>>().join("&"))
}

/// The outer `None` means absent. Schemes other than Bearer are for proxies in front of the daemon and are
/// ignored.
fn bearer(headers: &HeaderMap) -> Option<CredentialText<'_>> {
    let mut found = None;
    for value in headers.get_all(header::AUTHORIZATION) {
        let bytes = value.as_bytes();
        let scheme = bytes.split(|b| *b == b' ').next().unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            continue;
        }
        if found.is_some() {
            return Some(None);
        }
        let text = bytes.get(scheme.len()..).and_then(|rest| std::str::from_utf8(rest).ok());
        found = Some(text.map(|text| Cow::Borrowed(text.trim_matches(' '))));
    }
    found
}

fn api_key_header(headers: &HeaderMap) -> Option<CredentialText<'_>> {
    let mut values = headers.get_all("x-api-key").iter();
    let first = values.next()?;
    match values.next() {
        Some(_) => Some(None),
        None => Some(first.to_str().ok().map(Cow::Borrowed)),
    }
}

/// An empty parameter counts as absent, because pages write `?token=${token}` before they have a token.
fn parameter<'a>(query: &'a str, name: &str) -> Option<CredentialText<'a>> {
    let mut found = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if value.is_empty() || unescape(key).as_deref() != Some(name) {
            continue;
        }
        if found.is_some() {
            return Some(None);
        }
        found = Some(unescape(value));
    }
    found
}

fn cookie(headers: &HeaderMap) -> Option<CredentialText<'_>> {
    let mut found = None;
    for value in headers.get_all(header::COOKIE) {
        let Ok(pairs) = value.to_str() else { continue };
        for pair in pairs.split(';') {
            let Some((name, value)) = pair.trim_matches(' ').split_once('=') else { continue };
            if name != COOKIE || value.is_empty() {
                continue;
            }
            if found.is_some() {
                return Some(None);
            }
            let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            found = Some(Some(Cow::Borrowed(bare)));
        }
    }
    found
}

/// Decodes percent-encoding; `None` if it is malformed or not UTF-8.
fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |b: u8| (b as char).to_digit(16);
        bytes.push((digit(*high)? << 4 | digit(*low)?) as u8);
        rest = tail;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).expect("a header value"));
        }
        map
    }

    fn seen(pairs: &[(&'static str, &str)], query: &str) -> Option<(CredentialSource, Option<String>)> {
        let headers = headers(pairs);
        present(&headers, query, true).0.map(|(via, text)| (via, text.map(Cow::into_owned)))
    }

    #[test]
    fn the_credential_of_the_highest_precedence_is_used() {
        let all = [("authorization", "Bearer a"), ("x-api-key", "b"), ("cookie", "x=1; nervewire_token=e")];
        let query = "ticket=c&types=message&token=d";
        let text = |t: &str| Some(t.to_owned());
        assert_eq!(seen(&all, query), Some((CredentialSource::Bearer, text("a"))));
        assert_eq!(seen(&all[1..], query), Some((CredentialSource::ApiKeyHeader, text("b"))));
        assert_eq!(seen(&all[2..], query), Some((CredentialSource::Ticket, text("c"))));
        assert_eq!(seen(&all[2..], "token=d"), Some((CredentialSource::Query, text("d"))));
        assert_eq!(seen(&all[2..], ""), Some((CredentialSource::Cookie, text("e"))));
        assert_eq!(seen(&[], ""), None);
    }

    #[test]
    fn a_malformed_credential_is_not_treated_as_absent() {
        assert_eq!(
            seen(&[("authorization", "Bearer")], "token=d"),
            Some((CredentialSource::Bearer, Some(String::new())))
        );
        assert_eq!(
            seen(&[("authorization", "bearer a"), ("authorization", "Bearer b")], ""),
            Some((CredentialSource::Bearer, None))
        );
        assert_eq!(
            seen(&[("x-api-key", "a"), ("x-api-key", "a")], ""),
            Some((CredentialSource::ApiKeyHeader, None))
        );
        assert_eq!(seen(&[], "token=a&token=b"), Some((CredentialSource::Query, None)));
        assert_eq!(seen(&[], "token=%zz"), Some((CredentialSource::Query, None)));
        assert_eq!(
            seen(&[("cookie", "nervewire_token=a; nervewire_token=b")], ""),
            Some((CredentialSource::Cookie, None))
        );
    }

    #[test]
    fn other_schemes_and_names_are_ignored() {
        assert_eq!(seen(&[("authorization", "Basic dTpw")], ""), None);
        assert_eq!(
            seen(&[("authorization", "Basic dTpw")], "token=d"),
            Some((CredentialSource::Query, Some("d".to_owned())))
        );
        assert_eq!(seen(&[("cookie", "other=1; nervewire_token=")], "ticket=&token="), None);
        let none = HeaderMap::new();
        assert_eq!(present(&none, "token=d", false).via(), None);
    }

    #[test]
    fn percent_encoding_is_decoded_in_names_and_values() {
        assert_eq!(seen(&[], "%74oken=a%2Eb"), Some((CredentialSource::Query, Some("a.b".to_owned()))));
    }

    #[test]
    fn debug_and_redacted_queries_never_show_the_credential() {
        let headers = headers(&[("authorization", "Bearer hunter2")]);
        assert_eq!(format!("{:?}", present(&headers, "", true)), "Presented(Some(Bearer))");
        assert_eq!(redact_query("types=message&token=hunter2&a=b"), "types=message&token=-&a=b");
        assert_eq!(redact_query("%74icket=hunter2"), "%74icket=-");
        assert_eq!(redact_query("%zz=hunter2"), "%zz=-");
        assert_eq!(redact_query("types=message"), "types=message");
    }

    #[test]
    fn an_unreadable_origin_is_null_not_absent() {
        let twice = headers(&[("origin", "http://localhost"), ("origin", "http://localhost"), ("host", "h")]);
        let cx = RequestContext::of(&twice, None, &Method::GET, None, CredentialUse::Rest);
        assert_eq!((cx.origin, cx.host), (Some("null"), Some("h")));
    }
}
