//! An address to listen on: TCP `addr:port` (IPv4, or IPv6 in brackets) or `unix:/path`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest unix socket path: `sun_path` of unix(7) is 108 bytes with its final NUL.
const UNIX_PATH_MAX: usize = 107;

/// Where to listen. Port 0 lets the kernel choose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// An IPv4 or IPv6 address and port.
    Tcp(SocketAddr),
    /// The path of a unix stream socket, at most 107 bytes.
    Unix(PathBuf),
}

/// Why a text is no [`ListenAddr`]; says what is expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenAddrError {
    /// Neither `addr:port` nor `unix:/path`.
    #[error(
        "{0:?} is not `addr:port` with a numeric address (`127.0.0.1:8080`, `[::1]:8080`) or `unix:/path`"
    )]
    Shape(String),
    /// `unix:` without an absolute path.
    #[error("{0:?} needs an absolute path after `unix:`")]
    Relative(String),
    /// A path the kernel cannot bind.
    #[error("the socket path has {0} bytes, at most 107 fit")]
    TooLong(usize),
}

impl FromStr for ListenAddr {
    type Err = ListenAddrError;

    fn from_str(text: &str) -> Result<Self, ListenAddrError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') || path.contains('\0') {
                return Err(ListenAddrError::Relative(text.to_owned()));
            }
            if path.len() > UNIX_PATH_MAX {
                return Err(ListenAddrError::TooLong(path.len()));
            }
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        text.parse().map(Self::Tcp).map_err(|_| ListenAddrError::Shape(text.to_owned()))
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_parses_prints_the_same() {
        for text in ["127.0.0.1:8080", "[::1]:0", "0.0.0.0:65535", "unix:/run/nervewire/api.sock"] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_does_not_parse_says_what_would() {
        let error = |text: &str| text.parse::<ListenAddr>().unwrap_err();
        for text in ["8080", ":8080", "localhost:8080", "::1:8080", "127.0.0.1", "127.0.0.1:65536", ""] {
            assert_eq!(error(text), ListenAddrError::Shape(text.to_owned()));
        }
        assert_eq!(error("unix:run.sock"), ListenAddrError::Relative("unix:run.sock".to_owned()));
        assert_eq!(error(&format!("unix:/{}", "a".repeat(107))), ListenAddrError::TooLong(108));
        assert!(format!("unix:/{}", "a".repeat(106)).parse::<ListenAddr>().is_ok());
    }
}
