//! A limit that the median of a figure must keep: the value of `--bar`.

use std::str::FromStr;

use super::report::Row;
use super::target::Server;

/// A limit for the daemon's median of one row, or for its ratio to another server's median.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
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
    /// Returns whether the limit is kept; `None` if the figure was not measured.
    #[must_use]
    pub fn is_met(&self, rows: &[Row]) -> Option<bool> {
        let row = rows.iter().find(|row| row.key == self.key)?;
        let value = match self.against {
            Some(server) => row.ratio_to(server)?,
            None => row.median(Server::Daemon)?,
        };
        Some(if self.at_least { value >= self.limit } else { value <= self.limit })
    }

    /// Returns the limit as text for people: `≤ 1.25 × append`.
    #[must_use]
    pub fn text(&self) -> String {
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

    fn row() -> Row {
        let servers = vec![
            (Server::Daemon, vec![3.0, 2.0, 4.0]),
            (Server::Floor, vec![2.0]),
            (Server::Before, vec![6.0]),
        ];
        Row { key: "cpu", name: "CPU", unit: "µs", servers }
    }

    #[test]
    fn a_bar_is_of_the_median_or_of_a_ratio_to_a_named_server() {
        for (text, kept) in [
            ("cpu<=3", Some(true)),
            ("cpu<=2.9", Some(false)),
            ("cpu>=3", Some(true)),
            ("cpu<=1.5x", Some(true)),
            ("cpu<=1.4x:floor", Some(false)),
            ("cpu<=0.5x:before", Some(true)),
            ("cpu<=0.49x:before", Some(false)),
            ("cpu<=2x:append", None),
            ("rate>=1", None),
        ] {
            assert_eq!(text.parse::<Threshold>().unwrap().is_met(&[row()]), kept, "{text}");
        }
    }

    #[test]
    fn what_is_no_bar_is_refused() {
        for text in ["", "cpu", "cpu<1", "cpu<=", "cpu<=x", "cpu<=1y", "cpu<=1x:nobody", "cpu<=1xbefore"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}
