//! A limit that the median of a figure must keep: the value of `--bar`.

use std::str::FromStr;

use crate::target::Server;

/// A limit for the daemon's median of one row, or for its ratio to another server's median.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Threshold {
    /// The key of the row.
    pub key: String,
    /// True if the limit is a lower bound.
    pub at_least: bool,
    /// The limit.
    pub limit: f64,
    /// The server whose median divides the daemon's. `None` if the limit applies to the daemon's median
    /// itself.
    pub against: Option<Server>,
}

impl FromStr for Threshold {
    type Err = String;

    /// Parses `key<=1.5` or `key>=1000`. An `x` after the number means a ratio to the floor, `x:SERVER` a
    /// ratio to that server.
    fn from_str(text: &str) -> Result<Threshold, String> {
        let (at_least, parts) = match text.split_once("<=") {
            Some(parts) => (false, Some(parts)),
            None => (true, text.split_once(">=")),
        };
        let refuse = || {
            format!(
                "{text:?}: a bar is KEY<=NUMBER or KEY>=NUMBER, with an x behind for a ratio to the floor, or x:SERVER for \
                 one to floor, append, parse or before"
            )
        };
        let (key, limit) = parts.ok_or_else(refuse)?;
        let (limit, against) = match limit.split_once('x') {
            None => (limit, None),
            Some((limit, "")) => (limit, Some(Server::Floor)),
            Some((limit, name)) => {
                let server = name.strip_prefix(':').and_then(Server::named).ok_or_else(refuse)?;
                (limit, Some(server))
            }
        };
        let limit = limit.trim().parse::<f64>().map_err(|_| refuse())?;
        Ok(Threshold { key: key.trim().to_owned(), at_least, limit, against })
    }
}

impl Threshold {
    /// Returns the limit as text for people: `≤ 1.25 × append`.
    pub(crate) fn text(&self) -> String {
        let sign = if self.at_least { "≥" } else { "≤" };
        match self.against {
            Some(server) => format!("{sign} {} × {}", self.limit, server.name()),
            None => format!("{sign} {}", self.limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bar_is_refused() {
        for text in ["", "cpu", "cpu<1", "cpu<=", "cpu<=x", "cpu<=1y", "cpu<=1x:nobody", "cpu<=1xbefore"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
