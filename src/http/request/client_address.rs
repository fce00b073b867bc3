//! The address of the client behind a trusted proxy, from `Forwarded` (RFC 7239) or `X-Forwarded-For`.
//!
//! * These headers count only from a peer in `trusted_proxies`. Each proxy appends the address it was called
//!   from, so the list is read from its end: trusted addresses are further proxies, and the first untrusted
//!   one is the client. Whatever precedes it was sent by the client and is not even parsed.
//! * `unknown` and obfuscated names (`_gateway`) mean that the proxy does not name its client. The last known
//!   address counts.
//! * If a header cannot be parsed, or both headers name different clients, the proxy's own address counts,
//!   never an address that the client may have chosen.
//!
//! This module does not know limits or connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Once;

use http::HeaderMap;
use http::header::FORWARDED;

use crate::config::TrustedProxies;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The client of a request that came from `peer` (`None` for a Unix socket).
pub(crate) fn client_address(
    peer: Option<IpAddr>,
    headers: &HeaderMap,
    trusted: &TrustedProxies,
) -> Option<IpAddr> {
    let named = headers.contains_key(FORWARDED) || headers.contains_key(X_FORWARDED_FOR);
    if !named {
        return peer;
    }
    if !trusted.contains(peer) {
        warn_of_unknown_proxy(peer);
        return peer;
    }
    client_of(peer, headers, trusted).unwrap_or_else(|UnusableHeader(why)| {
        tracing::debug!(?peer, why, "a trusted proxy does not name its client in a usable way");
        peer
    })
}

/// If `trusted_proxies` is missing in the configuration, all clients share one address. This is logged once.
fn warn_of_unknown_proxy(peer: Option<IpAddr>) {
    static ONCE: Once = Once::new();
    let nearby = match peer {
        None => true,
        Some(IpAddr::V4(v4)) => v4.is_loopback() || v4.is_private(),
        Some(IpAddr::V6(v6)) => v6.is_loopback() || v6.is_unique_local(),
    };
    if nearby {
        ONCE.call_once(|| {
            let peer = peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string());
            tracing::warn!(
                peer,
                "a request names its client in Forwarded or X-Forwarded-For, but its sender is not in trusted_proxies: \
                 if that is a proxy of yours, add it, or limits count all its clients as one address"
            );
        });
    }
}

/// The reason why a header names no client.
#[derive(Debug, PartialEq, Eq)]
struct UnusableHeader(&'static str);

/// One node of a list.
#[derive(Debug, PartialEq, Eq)]
enum ForwardedNode {
    Address(IpAddr),
    /// A node without an address.
    Unnamed,
}

fn client_of(
    peer: Option<IpAddr>,
    headers: &HeaderMap,
    trusted: &TrustedProxies,
) -> Result<Option<IpAddr>, UnusableHeader> {
    let lines = |name: &str| headers.get_all(name).iter().map(|line| line.as_bytes()).collect::<Vec<_>>();
    let (forwarded, x_forwarded_for) = (lines(FORWARDED.as_str()), lines(X_FORWARDED_FOR));
    match (forwarded.is_empty(), x_forwarded_for.is_empty()) {
        (true, _) => last_untrusted(peer, &x_forwarded_for, node, trusted),
        (false, true) => last_untrusted(peer, &forwarded, forwarded_element, trusted),
        (false, false) => {
            let one = last_untrusted(peer, &forwarded, forwarded_element, trusted)?;
            let other = last_untrusted(peer, &x_forwarded_for, node, trusted)?;
            // A proxy that sets one of the headers passes on the client's own value of the other.
            let disagree =
                UnusableHeader("Forwarded and X-Forwarded-For disagree: let the proxy remove one of them");
            if one == other { Ok(one) } else { Err(disagree) }
        }
    }
}

/// Reads all lines of one header as one list, from its end to the first untrusted address.
fn last_untrusted(
    peer: Option<IpAddr>,
    lines: &[&[u8]],
    parse: fn(&str) -> Result<ForwardedNode, UnusableHeader>,
    trusted: &TrustedProxies,
) -> Result<Option<IpAddr>, UnusableHeader> {
    let mut last = peer;
    let elements = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
    for element in elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty()) {
        let text = std::str::from_utf8(element).map_err(|_| UnusableHeader("not UTF-8"))?;
        match parse(text)? {
            ForwardedNode::Unnamed => break,
            ForwardedNode::Address(address) => last = Some(address),
        }
        if !trusted.contains(last) {
            break;
        }
    }
    Ok(last)
}

/// Parses `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`, `unknown`, `_name`,
/// and `unix:`, which nginx sends.
fn node(text: &str) -> Result<ForwardedNode, UnusableHeader> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(ForwardedNode::Address(address.to_canonical()));
    }
    let bad = UnusableHeader("no address");
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(bad)?;
        let address: Ipv6Addr = address.parse().map_err(|_| UnusableHeader("no IPv6 address in brackets"))?;
        let port_ok = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return if port_ok {
            Ok(ForwardedNode::Address(IpAddr::V6(address).to_canonical()))
        } else {
            Err(UnusableHeader("no port"))
        };
    }
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    if name == "unix" {
        return Ok(ForwardedNode::Unnamed);
    }
    if !port.is_none_or(is_port) {
        return Err(UnusableHeader("no port"));
    }
    match name.parse::<Ipv4Addr>() {
        Ok(address) => Ok(ForwardedNode::Address(address.into())),
        Err(_) if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) => Ok(ForwardedNode::Unnamed),
        Err(_) => Err(bad),
    }
}

fn is_port(text: &str) -> bool {
    is_obfuscated(text) || ((1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()))
}

/// Returns true for an obfuscated name (RFC 7239 §6.3).
fn is_obfuscated(text: &str) -> bool {
    text.len() > 1
        && text.starts_with('_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Parses one element of `Forwarded`, `for=…;proto=…` (RFC 7239 §4). Lists are split at every comma, so a
/// comma in a quoted string leaves two halves, which are refused here.
fn forwarded_element(text: &str) -> Result<ForwardedNode, UnusableHeader> {
    let mut found = None;
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(UnusableHeader("no name=value"))?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(UnusableHeader("no name=value"));
        }
        let (value, after) = value(after)?;
        if name.eq_ignore_ascii_case("for") && found.replace(node(&value)?).is_some() {
            return Err(UnusableHeader("for= twice"));
        }
        let after = after.trim_ascii_start();
        rest = match after.strip_prefix(';') {
            Some(next) => next.trim_ascii_start(),
            None if after.is_empty() => after,
            None => return Err(UnusableHeader("text after a value")),
        };
    }
    Ok(found.unwrap_or(ForwardedNode::Unnamed))
}

/// Parses a token or a quoted string and returns it with the remaining text. Addresses with a port are
/// accepted without quotes too, as many proxies write them so.
fn value(text: &str) -> Result<(String, &str), UnusableHeader> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.bytes().position(|b| !is_token(b) && !b":[]".contains(&b)).unwrap_or(text.len());
        let (value, rest) =
            text.split_at_checked(end).filter(|_| end > 0).ok_or(UnusableHeader("no value"))?;
        return Ok((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok((value, chars.as_str())),
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    Err(UnusableHeader("a quoted string without end"))
}

/// Returns true for a token character (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, FileText, Sources};

    fn trusted() -> TrustedProxies {
        let text =
            "trusted_proxies = [\"unix\", \"127.0.0.1\", \"10.0.0.0/8\", \"2001:db8:aa::/48\"]".to_owned();
        let file = Some(FileText { name: "test".to_owned(), text });
        Config::load(&Sources { file, ..Sources::default() }).unwrap().trusted_proxies
    }

    const PROXY: &str = "127.0.0.1";
    const CLIENT: &str = "192.0.2.60";

    /// The client of a request from `peer` with these headers. The result `unix` and the empty `peer` mean a
    /// Unix socket.
    fn client(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let client = client_address(peer.parse().ok(), &map, &trusted());
        client.map_or_else(|| "unix".to_owned(), |address| address.to_string())
    }

    #[test]
    fn the_last_address_that_is_not_trusted_is_the_client() {
        for (value, expected) in [
            (CLIENT, CLIENT),
            ("192.0.2.60:4711", CLIENT),
            ("192.0.2.60:_p", CLIENT),
            ("::ffff:192.0.2.60", CLIENT),
            ("[::ffff:192.0.2.60]:1", CLIENT),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("1.1.1.1, 192.0.2.60", CLIENT),
            ("1.1.1.1 ,192.0.2.60,10.0.0.1,\t10.1.1.1", CLIENT),
            ("192.0.2.60, 10.0.0.1:80, [2001:db8:aa::1]:80", CLIENT),
            ("10.0.0.2, 10.0.0.1", "10.0.0.2"),
            ("garbage \"[;, 192.0.2.60", CLIENT),
            ("\u{e9}, 192.0.2.60, ,", CLIENT),
            ("unknown, 192.0.2.60", CLIENT),
            ("1.1.1.1, unknown", PROXY),
            ("1.1.1.1, Unknown, 10.0.0.1", "10.0.0.1"),
            ("1.1.1.1, _hidden", PROXY),
            ("1.1.1.1, unix:", PROXY),
            (" , ,", PROXY),
            ("", PROXY),
            ("1.1.1.1, garbage", PROXY),
            ("1.1.1.1, 192.0.2", PROXY),
            ("1.1.1.1, 192.0.2.060", PROXY),
            ("1.1.1.1, 192.0.2.60:", PROXY),
            ("1.1.1.1, 192.0.2.60:port", PROXY),
            ("1.1.1.1, 192.0.2.60:999999", PROXY),
            ("1.1.1.1, [192.0.2.60]", PROXY),
            ("1.1.1.1, [2001:db8::1", PROXY),
            ("1.1.1.1, [2001:db8::1]4711", PROXY),
            ("1.1.1.1, fe80::1%eth0", PROXY),
            ("1.1.1.1, garbage, 10.0.0.1", PROXY),
        ] {
            assert_eq!(client(PROXY, &[("x-forwarded-for", value)]), expected, "{value}");
        }
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        for (value, expected) in [
            ("for=192.0.2.60", CLIENT),
            ("For=\"192.0.2.60:4711\"", CLIENT),
            ("for=192.0.2.60:4711", CLIENT),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", CLIENT),
            ("proto=https; FOR=\"192.0.2.60\" ;host=\"a;b=\\\"c\\\"\"", CLIENT),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=[2001:db8::1]:4711", "2001:db8::1"),
            ("for=\"\\1\\92.0.2.60\"", CLIENT),
            ("for=1.1.1.1, for=192.0.2.60;by=10.0.0.1, for=10.0.0.1", CLIENT),
            ("for=\"unclosed, for=192.0.2.60", CLIENT),
            ("for=unknown", PROXY),
            ("for=_gazonk", PROXY),
            ("for=\"_gazonk:_port\"", PROXY),
            ("proto=https", PROXY),
            ("for=1.1.1.1, proto=https", PROXY),
            ("for=1.1.1.1;for=192.0.2.60", PROXY),
            ("192.0.2.60", PROXY),
            ("for=", PROXY),
            ("for=\"192.0.2.60", PROXY),
            ("for=192.0.2.60 by=1.1.1.1", PROXY),
            ("for =192.0.2.60", PROXY),
            ("for=192.0.2.60;=x", PROXY),
            // A comma in a quoted string: the halves are not valid elements.
            ("for=192.0.2.60;host=\"a, for=1.1.1.1\"", PROXY),
            ("for=192.0.2.60;host=\"a, for=1.1.1.1;x=\\\"y\"", PROXY),
        ] {
            assert_eq!(client(PROXY, &[("forwarded", value)]), expected, "{value}");
        }
    }

    #[test]
    fn repeated_headers_form_one_list_and_both_headers_must_agree() {
        let x = |value| ("x-forwarded-for", value);
        let f = |value| ("forwarded", value);
        assert_eq!(client(PROXY, &[x("1.1.1.1"), x("192.0.2.60"), x("10.0.0.1")]), CLIENT);
        assert_eq!(client(PROXY, &[f("for=1.1.1.1"), f("for=192.0.2.60")]), CLIENT);
        assert_eq!(client(PROXY, &[f("for=192.0.2.60"), x("1.1.1.1, 192.0.2.60")]), CLIENT);
        assert_eq!(client(PROXY, &[f("for=1.1.1.1"), x(CLIENT)]), PROXY);
        assert_eq!(client(PROXY, &[f("garbage"), x(CLIENT)]), PROXY);
        assert_eq!(client(PROXY, &[]), PROXY);
        assert_eq!(client("unix", &[]), "unix");
        assert_eq!(client("unix", &[x(CLIENT)]), CLIENT);
        assert_eq!(client("unix", &[x("unknown")]), "unix");
        for peer in ["192.0.2.1", "::1", "2001:db8::1"] {
            assert_eq!(client(peer, &[x("1.1.1.1"), f("for=1.1.1.1")]), peer, "not trusted");
        }
    }

    proptest! {
        /// A client may send anything before the address that the proxy appends, on the same line or on
        /// earlier lines.
        #[test]
        fn a_client_cannot_choose_its_address(
            sent in proptest::collection::vec(prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff, Just(b','), Just(b'"'), Just(b'\\')], 0..60),
            same_line in any::<bool>(),
            ipv6 in any::<bool>(),
        ) {
            let address = if ipv6 { "2001:db8::60" } else { CLIENT };
            let quoted = if ipv6 { "for=\"[2001:db8::60]:4711\"" } else { "for=192.0.2.60;proto=https" };
            for (name, appended) in [("x-forwarded-for", address), ("forwarded", quoted)] {
                let mut headers = HeaderMap::new();
                let mut line = Vec::new();
                if same_line {
                    line = [sent.as_slice(), b", "].concat();
                } else {
                    headers.append(name, HeaderValue::from_bytes(&sent).unwrap());
                }
                line.extend_from_slice(appended.as_bytes());
                headers.append(name, HeaderValue::from_bytes(&line).unwrap());
                let client = client_address(PROXY.parse().ok(), &headers, &trusted());
                prop_assert_eq!(client, address.parse().ok());
            }
        }
    }
}
