//! An address to listen on: TCP `addr:port` (IPv4, or IPv6 in brackets), `name:port` or `unix:/path`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest unix socket path: `sun_path` of unix(7) is 108 bytes including its final NUL.
const UNIX_PATH_MAX: usize = 107;
/// Longest host name (RFC 1035 §2.3.4).
const NAME_MAX: usize = 253;

/// An address to listen on. With port 0 the kernel chooses the port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// An IPv4 or IPv6 address and port.
    Tcp(SocketAddr),
    /// A host name and a port. The name is resolved when the socket is bound, and the daemon listens on all
    /// of its addresses.
    Name(String, u16),
    /// The path of a unix stream socket, at most 107 bytes.
    Unix(PathBuf),
}

/// Why a text is not a [`ListenAddr`]. The message says what is expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenAddrError {
    /// The text is neither `addr:port` nor `name:port` nor `unix:/path`.
    #[error("{0:?} is not `addr:port` (`127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`) or `unix:/path`")]
    Shape(String),
    /// The path after `unix:` is not absolute.
    #[error("{0:?} needs an absolute path after `unix:`")]
    Relative(String),
    /// The path is too long for the kernel; the number is its length in bytes.
    #[error("the socket path has {0} bytes; the limit is 107")]
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
        let named = || {
            let (name, port) = text.rsplit_once(':')?;
            Some(Self::Name(is_name(name).then(|| name.to_owned())?, port.parse().ok()?))
        };
        text.parse().map(Self::Tcp).ok().or_else(named).ok_or_else(|| ListenAddrError::Shape(text.to_owned()))
    }
}

impl ListenAddr {
    /// Whether the kernel chooses the port.
    #[must_use]
    pub fn has_any_port(&self) -> bool {
        match self {
            Self::Tcp(addr) => addr.port() == 0,
            Self::Name(_, port) => *port == 0,
            Self::Unix(_) => false,
        }
    }
}

/// Whether `name` is a host name (RFC 1123 §2.1). A mistyped IPv4 address is not, because its last label is
/// all digits.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= NAME_MAX && name.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_was_written() {
        for text in [
            "127.0.0.1:8080",
            "[::1]:0",
            "0.0.0.0:65535",
            "localhost:8080",
            "a-1.b_2.example:0",
            "unix:/run/nervewire/api.sock",
        ] {
            assert_eq!(text.parse::<ListenAddr>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_invalid_address_is_refused_with_the_expected_form() {
        let error = |text: &str| text.parse::<ListenAddr>().unwrap_err();
        let number = [
            "8080",
            ":8080",
            "::1:8080",
            "127.0.0.1",
            "127.0.0.1:65536",
            "127.0.0.256:80",
            "1.2.3.4.5:80",
            "",
        ];
        let name = ["localhost", "localhost:", "localhost:http", "a..b:1", "a b:1", "http://localhost:80"];
        for text in number.into_iter().chain(name) {
            assert_eq!(error(text), ListenAddrError::Shape(text.to_owned()));
        }
        assert_eq!(error("unix:run.sock"), ListenAddrError::Relative("unix:run.sock".to_owned()));
        assert_eq!(error(&format!("unix:/{}", "a".repeat(107))), ListenAddrError::TooLong(108));
        assert!(format!("unix:/{}", "a".repeat(106)).parse::<ListenAddr>().is_ok());
    }
}
