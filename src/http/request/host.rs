//! Checks the host that a request names (RFC 9112 §3.2, RFC 9113 §8.3.1).
//!
//! A proxy in front of the daemon may read two names, or an invalid one, differently than we do. Such a
//! request is refused.

use http::Version;
use http::header::{self, HeaderMap};
use http::uri::Authority;

use crate::error_response::ErrorResponse;

/// Checks the `Host` header and the authority of the request target.
///
/// # Errors
/// 400: HTTP/1.1 without `Host`, HTTP/2 with neither `:authority` nor `Host`, more than one `Host`, HTTP/2
/// with a `Host` other than `:authority`, or a value that is not `host[:port]`.
pub(crate) fn check(
    version: Version,
    authority: Option<&str>,
    headers: &HeaderMap,
) -> Result<(), ErrorResponse> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(ErrorResponse::bad_request("Host: must be given once"));
    }
    let host = host.map(|host| host.to_str().ok().filter(|host| is_host(host)).ok_or(())).transpose();
    let Ok(host) = host else { return Err(ErrorResponse::bad_request("Host: must be host or host:port")) };
    if authority.is_some_and(|authority| authority.is_empty() || !is_host(authority)) {
        return Err(ErrorResponse::bad_request(
            "the request target: its authority must be host or host:port",
        ));
    }
    match (version, authority, host) {
        (Version::HTTP_11, _, None) => Err(ErrorResponse::bad_request("Host: is required")),
        (Version::HTTP_2, None, None | Some("")) => {
            Err(ErrorResponse::bad_request(":authority: is required"))
        }
        (Version::HTTP_2, Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            Err(ErrorResponse::bad_request("Host: must equal :authority"))
        }
        _ => Ok(()),
    }
}

/// Returns true if `text` is `uri-host [":" port]`. An empty host is valid: a target without an authority has
/// it.
fn is_host(text: &str) -> bool {
    if text.is_empty() {
        return true;
    }
    // The fast path for nearly all hosts: letters, digits, dots and hyphens, perhaps with a port.
    let (name, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    if !name.is_empty() && name.bytes().all(plain) && (port.is_empty() || is_port(port)) {
        return true;
    }
    if text.contains(',') {
        // a registered name may have a comma, but two `Host` headers joined by a proxy look the same
        return false;
    }
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or("@");
    match port.strip_prefix(':') {
        Some("") => true,
        Some(port) => is_port(port),
        None => port.is_empty(), // other characters around the brackets are not part of a host
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_address_with_an_optional_port() {
        for good in ["", "a", "a:80", "a:", "127.0.0.1:8080", "[::1]", "[::1]:8080", "xn--a.example.", "a_b"]
        {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "a b", "user@a", "a:b", "a:99999", "a:+80", "a/b", "a,b", "[::1", "::1", "http://a", "a?b",
            "a#b", "@",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn each_http_version_has_its_own_host_rule() {
        let headers = |hosts: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, http::HeaderValue::from_static(host));
            }
            headers
        };
        for (version, authority, hosts, good) in [
            (Version::HTTP_11, None, &["a"][..], true),
            (Version::HTTP_11, None, &[], false),
            (Version::HTTP_11, Some("a"), &[], false),
            (Version::HTTP_11, Some("b"), &["a"], true),
            (Version::HTTP_11, None, &["a", "a"], false),
            (Version::HTTP_10, None, &[], true),
            (Version::HTTP_10, None, &["a b"], false),
            (Version::HTTP_2, Some("a"), &[], true),
            (Version::HTTP_2, Some("a"), &["A"], true),
            (Version::HTTP_2, Some("a"), &["b"], false),
            (Version::HTTP_2, None, &["a"], true),
            (Version::HTTP_2, None, &[], false),
        ] {
            let checked = check(version, authority, &headers(hosts));
            assert_eq!(checked.is_ok(), good, "{version:?} {authority:?} {hosts:?}");
        }
    }
}
