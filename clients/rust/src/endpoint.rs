//! The address of a daemon: `http://host[:port][/prefix]` or `unix:/path`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A daemon's address. Only plain HTTP is supported: beyond one machine, let a proxy terminate TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) target: Target,
    /// Value of the `Host` header.
    pub(crate) host: String,
    /// Path before `/api/v1`, without a trailing slash; usually empty.
    pub(crate) prefix: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Name or address (IPv6 without brackets) and port.
    Tcp(String, u16),
    Unix(PathBuf),
}

/// Why a text is not an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The scheme is `https://` or `wss://`.
    #[error("this client does not support TLS: use the daemon's own http:// address or a tunnel")]
    Tls,
    /// The text has another form.
    #[error("expected http://host[:port][/prefix] or unix:/path")]
    Syntax,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(EndpointError::Syntax);
            }
            return Ok(Self {
                target: Target::Unix(path.into()),
                host: "localhost".into(),
                prefix: String::new(),
            });
        }
        if text.starts_with("https://") || text.starts_with("wss://") {
            return Err(EndpointError::Tls);
        }
        let rest = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("ws://"))
            .ok_or(EndpointError::Syntax)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority: http::uri::Authority = authority.parse().map_err(|_| EndpointError::Syntax)?;
        let plain_path = path.bytes().all(|b| b.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&b));
        if authority.as_str().contains('@') || authority.host().is_empty() || !plain_path {
            return Err(EndpointError::Syntax);
        }
        // `host:` without a number, or with a number that is too large, has no port but is not what the user
        // meant.
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => 80,
            None => return Err(EndpointError::Syntax),
        };
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self {
            target: Target::Tcp(name, port),
            host: authority.to_string(),
            prefix: path.trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Tcp(..) => write!(f, "http://{}{}", self.host, self.prefix),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_addresses_are_parsed() {
        for (text, host, port, prefix) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, ""),
            ("http://example", "example", 80, ""),
            ("http://[::1]:9/", "::1", 9, ""),
            ("ws://h:1/base/", "h", 1, "/base"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.target, Target::Tcp(host.into(), port), "{text}");
            assert_eq!(endpoint.prefix, prefix);
        }
        let unix: Endpoint = "unix:/run/a.sock".parse().unwrap();
        assert_eq!(unix.to_string(), "unix:/run/a.sock");
    }

    #[test]
    fn invalid_addresses_are_rejected() {
        for text in [
            "",
            "127.0.0.1:8080",
            "http://",
            "http://a:99999",
            "http://u:p@h",
            "unix:x",
            "http://h/a?b",
            "ftp://h",
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError::Syntax), "{text}");
        }
        assert_eq!("https://h".parse::<Endpoint>(), Err(EndpointError::Tls));
    }
}
