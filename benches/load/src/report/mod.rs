//! The result of a bench: rows of figures by server and run, faults, histograms and rates; printed as a table
//! or as JSON.
//!
//! * A figure is shown for each run, and as the median. A ratio is the median of the daemon over the median
//!   of the floor in the same call.
//! * A [`Threshold`] comes from the user of the bench (`cpu<=1.10x`), never from here. A missed bar or any fault
//!   makes the report fail.
//! * Two executables measured alternately give two reports of the same mode. [`Report::absorb`] joins them;
//!   each is a server of its own.

pub(crate) mod footprint;
pub(crate) mod meter;
pub(crate) mod threshold;

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::error::BenchError;
use crate::target::Server;
use threshold::Threshold;

/// One figure, for each run and server.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The key in bars and JSON.
    pub key: &'static str,
    /// The name in the table.
    pub name: &'static str,
    /// The unit.
    pub unit: &'static str,
    /// The values of the runs, by server.
    pub servers: Vec<(Server, Vec<f64>)>,
}

impl Row {
    /// Returns the median over the runs of a server.
    pub(crate) fn median(&self, server: Server) -> Option<f64> {
        self.servers.iter().find(|(it, _)| *it == server).and_then(|(_, runs)| median(runs))
    }

    /// Returns the daemon's median over the floor's.
    pub(crate) fn ratio(&self) -> Option<f64> {
        self.ratio_to(Server::Floor)
    }

    /// Returns the daemon's median over another server's.
    pub(crate) fn ratio_to(&self, server: Server) -> Option<f64> {
        let (daemon, other) = (self.median(Server::Daemon)?, self.median(server)?);
        (other != 0.0).then(|| daemon / other)
    }
}

/// Returns the median. For an even number of values it is the mean of the middle two.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// Latencies of one server, over all runs.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    /// The measured server.
    pub server: Server,
    /// The measured interval, for example `publish to receipt`.
    pub name: &'static str,
    /// Latencies in nanoseconds.
    pub histogram: hdrhistogram::Histogram<u64>,
}

/// A count for each second of one run.
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    /// The measured server.
    pub server: Server,
    /// What was counted.
    pub name: &'static str,
    /// The index of the run, from 0.
    pub run: usize,
    /// One value for each second.
    pub per_second: Vec<f64>,
}

/// Losses, repeats and reorderings, over all runs of all servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeliveryFaults {
    /// Pairs of event and subscriber that arrived in the measured part, without repeats.
    pub deliveries: u64,
    /// Pairs that never arrived.
    pub losses: u64,
    /// Pairs that arrived more than once.
    pub repeats: u64,
    /// Pairs that arrived after a later event.
    pub reordered: u64,
}

impl DeliveryFaults {
    /// Adds the counts of another run.
    pub(crate) fn add(&mut self, other: DeliveryFaults) {
        self.deliveries += other.deliveries;
        self.losses += other.losses;
        self.repeats += other.repeats;
        self.reordered += other.reordered;
    }
}

/// The result of a bench.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The mode: `fanout`, `idle`, …
    pub mode: &'static str,
    /// A description of the run, one line for people.
    pub about: String,
    /// The settings, for the JSON output.
    pub settings: Value,
    /// The figures.
    pub rows: Vec<Row>,
    /// The limits for the figures.
    pub bars: Vec<Threshold>,
    /// Latencies.
    pub latencies: Vec<Latencies>,
    /// Rates.
    pub rates: Vec<Rate>,
    /// Deliveries, losses, repeats and reorderings.
    pub delivery_faults: DeliveryFaults,
    /// Faults, one line each. Any fault makes the bench fail.
    pub faults: Vec<String>,
    /// Notes for the reader.
    pub notes: Vec<String>,
}

impl Report {
    /// Creates an empty report.
    pub(crate) fn new(mode: &'static str, about: String, settings: Value, bars: &[Threshold]) -> Report {
        Report { mode, about, settings, bars: bars.to_vec(), ..Report::default() }
    }

    /// Adds the value of one more run to a row. The row is created if it is new.
    pub(crate) fn add(
        &mut self,
        server: Server,
        key: &'static str,
        name: &'static str,
        unit: &'static str,
        value: f64,
    ) {
        let at = match self.rows.iter().position(|row| row.key == key) {
            Some(at) => at,
            None => {
                self.rows.push(Row { key, name, unit, servers: Vec::new() });
                self.rows.len() - 1
            }
        };
        let servers = &mut self.rows[at].servers;
        match servers.iter_mut().find(|(it, _)| *it == server) {
            Some((_, runs)) => runs.push(value),
            None => servers.push((server, vec![value])),
        }
    }

    /// Adds a fault of a run.
    pub(crate) fn fault(&mut self, server: Server, run: usize, what: impl std::fmt::Display) {
        self.faults.push(format!("{}, run {}: {what}", server.name(), run + 1));
    }

    /// Counts the deliveries of a run. Losses and repeats become faults of `server`, and reorderings too if
    /// `ordered` is set.
    pub(crate) fn count(
        &mut self,
        server: Server,
        run: usize,
        delivery_faults: DeliveryFaults,
        ordered: bool,
    ) {
        self.delivery_faults.add(delivery_faults);
        let mut fault = |count: u64, what: &str| {
            if count > 0 {
                self.fault(server, run, format_args!("{count} {what}"));
            }
        };
        fault(delivery_faults.losses, "events lost");
        fault(delivery_faults.repeats, "events repeated");
        if ordered {
            fault(delivery_faults.reordered, "events out of order");
        }
    }

    /// Adds the figures of one more run of the same mode. The daemon's figures in it become those of
    /// `server`.
    pub(crate) fn absorb(&mut self, other: Report, server: Server) {
        let renamed = |it: Server| if it == Server::Daemon { server } else { it };
        for row in other.rows {
            for (measured, runs) in row.servers {
                for value in runs {
                    self.add(renamed(measured), row.key, row.name, row.unit, value);
                }
            }
        }
        for it in other.latencies {
            self.latency(renamed(it.server), it.name, &it.histogram);
        }
        for rate in other.rates {
            let server = renamed(rate.server);
            let run = self.rates.iter().filter(|it| it.server == server && it.name == rate.name).count();
            self.rates.push(Rate { server, run, ..rate });
        }
        self.delivery_faults.add(other.delivery_faults);
        self.faults.extend(other.faults.iter().map(|fault| format!("{}: {fault}", server.name())));
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    /// Adds latencies to those of the same server and name.
    pub(crate) fn latency(
        &mut self,
        server: Server,
        name: &'static str,
        histogram: &hdrhistogram::Histogram<u64>,
    ) {
        match self.latencies.iter_mut().find(|it| it.server == server && it.name == name) {
            Some(it) => it.histogram += histogram,
            None => self.latencies.push(Latencies { server, name, histogram: histogram.clone() }),
        }
    }

    /// Returns whether the figures keep a bar; `None` if the figure was not measured.
    fn meets(&self, bar: &Threshold) -> Option<bool> {
        let row = self.rows.iter().find(|row| row.key == bar.key)?;
        let value = match bar.against {
            Some(server) => row.ratio_to(server)?,
            None => row.median(Server::Daemon)?,
        };
        Some(if bar.at_least { value >= bar.limit } else { value <= bar.limit })
    }

    /// Returns true if there are no faults and every bar is kept. A bar on a figure that was not measured is
    /// not kept.
    pub(crate) fn is_ok(&self) -> bool {
        self.faults.is_empty() && self.bars.iter().all(|bar| self.meets(bar) == Some(true))
    }

    /// Returns the report as JSON with stable field names.
    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row)).collect();
        let latencies: Vec<Value> = self.latencies.iter().map(latency_json).collect();
        let rates: Vec<Value> = self
            .rates
            .iter()
            .map(|it| json!({"server": it.server.name(), "name": it.name, "run": it.run, "per_second": it.per_second}))
            .collect();
        json!({
            "mode": self.mode, "about": self.about, "settings": self.settings, "rows": rows,
            "latencies": latencies, "rates": rates,
            "deliveries": self.delivery_faults.deliveries, "losses": self.delivery_faults.losses,
            "repeats": self.delivery_faults.repeats, "reordered": self.delivery_faults.reordered,
            "faults": self.faults, "notes": self.notes, "ok": self.is_ok(),
        })
    }

    fn row_json(&self, row: &Row) -> Value {
        let servers: Vec<Value> = row
            .servers
            .iter()
            .map(|(server, runs)| {
                let mut entry = json!({"server": server.name(), "runs": runs, "median": median(runs)});
                if *server != Server::Daemon {
                    entry["ratio"] = row.ratio_to(*server).into();
                }
                entry
            })
            .collect();
        let bars: Vec<Value> = self
            .bars
            .iter()
            .filter(|bar| bar.key == row.key)
            .map(|bar| {
                let limit = if bar.at_least { "at_least" } else { "at_most" };
                let mut entry = json!({limit: bar.limit, "of": "median", "ok": self.meets(bar)});
                if let Some(server) = bar.against {
                    entry["of"] = "ratio".into();
                    if server != Server::Floor {
                        entry["to"] = server.name().into();
                    }
                }
                entry
            })
            .collect();
        json!({"key": row.key, "name": row.name, "unit": row.unit, "servers": servers, "ratio": row.ratio(), "bars": bars})
    }

    /// Returns the report as a table for people.
    pub(crate) fn table(&self) -> String {
        let mut lines: Vec<[String; 5]> = vec![["", "runs", "median", "ratio", "bar"].map(str::to_owned)];
        for row in &self.rows {
            for (at, (server, runs)) in row.servers.iter().enumerate() {
                let unit = if row.unit.is_empty() { String::new() } else { format!(", {}", row.unit) };
                let name = if at == 0 { format!("{}{unit}", row.name) } else { String::new() };
                let figures: Vec<String> = runs.iter().map(|value| figure(*value)).collect();
                let ratio = match server {
                    Server::Daemon => String::new(),
                    other => row.ratio_to(*other).map(|it| format!("× {it:.3}")).unwrap_or_default(),
                };
                let bars: Vec<String> = self
                    .bars
                    .iter()
                    .filter(|bar| at == 0 && bar.key == row.key)
                    .map(|bar| {
                        let kept = if self.meets(bar) == Some(true) { "ok" } else { "MISSED" };
                        format!("{} {kept}", bar.text())
                    })
                    .collect();
                let label = format!("{name:44} {}", server.name());
                let median = median(runs).map(figure).unwrap_or_default();
                lines.push([label, figures.join(" "), median, ratio, bars.join(", ")]);
            }
        }
        let mut text = format!("{} — {}\n\n", self.mode, self.about);
        aligned(&lines, &mut text);
        self.latency_table(&mut text);
        let DeliveryFaults { deliveries, losses, repeats, reordered } = self.delivery_faults;
        if deliveries > 0 || losses > 0 {
            // Writing to a String never fails, here and below.
            let _ = writeln!(
                text,
                "\ndeliveries {deliveries}, lost {losses}, repeated {repeats}, out of order {reordered}"
            );
        }
        for bar in self.bars.iter().filter(|bar| self.meets(bar).is_none()) {
            let _ = writeln!(text, "MISSED: {} {}: this figure was not measured", bar.key, bar.text());
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        for fault in &self.faults {
            let _ = writeln!(text, "FAILED: {fault}");
        }
        text.trim_end().to_owned()
    }

    fn latency_table(&self, text: &mut String) {
        if self.latencies.is_empty() {
            return;
        }
        let mut lines = vec![["", "count", "p50", "p90", "p99", "p99.9", "max, µs"].map(str::to_owned)];
        for it in &self.latencies {
            let at = |quantile| figure(it.histogram.value_at_quantile(quantile) as f64 / 1e3);
            lines.push([
                format!("{:44} {}", it.name, it.server.name()),
                it.histogram.len().to_string(),
                at(0.5),
                at(0.9),
                at(0.99),
                at(0.999),
                figure(it.histogram.max() as f64 / 1e3),
            ]);
        }
        text.push('\n');
        aligned(&lines, text);
    }
}

fn latency_json(it: &Latencies) -> Value {
    let us = |quantile| it.histogram.value_at_quantile(quantile) as f64 / 1e3;
    json!({
        "server": it.server.name(), "name": it.name, "unit": "µs", "count": it.histogram.len(),
        "p50": us(0.5), "p90": us(0.9), "p99": us(0.99), "p99.9": us(0.999),
        "mean": it.histogram.mean() / 1e3, "max": it.histogram.max() as f64 / 1e3,
    })
}

/// Formats a number with three significant digits, or more if it is large.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 0.1 => format!("{value:.3}"),
        small if small < 100.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

fn aligned<const N: usize>(lines: &[[String; N]], text: &mut String) {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for line in lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
}

/// Creates an empty histogram of nanoseconds, up to a minute, with three significant digits.
pub(crate) fn histogram() -> Result<hdrhistogram::Histogram<u64>, BenchError> {
    hdrhistogram::Histogram::new_with_max(60_000_000_000, 3)
        .map_err(|error| BenchError::Server(format!("no histogram: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(bars: &[&str]) -> Report {
        let bars: Vec<Threshold> = bars.iter().map(|bar| bar.parse().unwrap()).collect();
        let mut report = Report::new("fanout", "so and so".into(), json!({"size": 128}), &bars);
        for (daemon, floor) in [(7.0, 6.0), (8.0, 6.5), (7.5, 6.2)] {
            report.add(Server::Daemon, "cpu", "CPU per delivery", "µs", daemon);
            report.add(Server::Floor, "cpu", "CPU per delivery", "µs", floor);
        }
        report
    }

    #[test]
    fn the_shape_of_the_json() {
        let mut report = report(&["cpu<=1.10x", "cpu<=7.5"]);
        report.count(
            Server::Daemon,
            0,
            DeliveryFaults { deliveries: 200, ..DeliveryFaults::default() },
            true,
        );
        let parsed = report.json();
        let row = &parsed["rows"][0];
        assert_eq!((row["key"].as_str(), row["unit"].as_str()), (Some("cpu"), Some("µs")));
        assert_eq!(row["servers"][0], json!({"server": "daemon", "runs": [7.0, 8.0, 7.5], "median": 7.5}));
        assert_eq!(row["ratio"].as_f64(), Some(7.5 / 6.2));
        assert_eq!(row["bars"][0], json!({"at_most": 1.1, "of": "ratio", "ok": false}));
        assert_eq!(row["bars"][1], json!({"at_most": 7.5, "of": "median", "ok": true}));
        assert_eq!((parsed["deliveries"].as_u64(), parsed["losses"].as_u64()), (Some(200), Some(0)));
        assert_eq!(parsed["ok"], false, "a bar was missed");
        assert!(report.table().contains("≤ 1.1 × floor MISSED, ≤ 7.5 ok"), "{}", report.table());
    }

    #[test]
    fn a_fault_is_reported_and_fails_the_run() {
        let mut report = report(&[]);
        assert!(report.is_ok());
        report.count(
            Server::Daemon,
            1,
            DeliveryFaults { deliveries: 9, losses: 1, repeats: 0, reordered: 4 },
            false,
        );
        assert_eq!(report.faults, ["daemon, run 2: 1 events lost"]);
        assert!(!report.is_ok() && report.table().contains("FAILED: daemon, run 2: 1 events lost"));
    }

    #[test]
    fn bars_are_read_and_unknown_ones_are_missed() {
        assert_eq!(
            "rate >= 0.5x".parse(),
            Ok(Threshold { key: "rate".into(), at_least: true, limit: 0.5, against: Some(Server::Floor) })
        );
        assert!("cpu<1".parse::<Threshold>().is_err() && "cpu<=fast".parse::<Threshold>().is_err());
        assert!(!report(&["nothing<=1"]).is_ok());
        assert!(report(&["cpu>=7", "cpu>=1x"]).is_ok());
    }

    #[test]
    fn a_bar_is_of_the_median_or_of_a_ratio_to_a_named_server() {
        let servers = vec![
            (Server::Daemon, vec![3.0, 2.0, 4.0]),
            (Server::Floor, vec![2.0]),
            (Server::Before, vec![6.0]),
        ];
        let row = Row { key: "cpu", name: "CPU", unit: "µs", servers };
        let report = Report { rows: vec![row], ..Report::default() };
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
            assert_eq!(report.meets(&text.parse().unwrap()), kept, "{text}");
        }
    }

    #[test]
    fn two_executables_are_reported_side_by_side() {
        let mut both = report(&["cpu<=0.9x:before"]);
        let mut before = report(&[]);
        before.count(
            Server::Daemon,
            0,
            DeliveryFaults { deliveries: 9, repeats: 1, ..DeliveryFaults::default() },
            true,
        );
        before.add(Server::Daemon, "rate", "events", "1/s", 5.0);
        both.absorb(before, Server::Before);
        let parsed = both.json();
        let (cpu, rate) = (&parsed["rows"][0], &parsed["rows"][1]);
        assert_eq!(cpu["servers"][0], json!({"server": "daemon", "runs": [7.0, 8.0, 7.5], "median": 7.5}));
        let runs = [7.0, 8.0, 7.5];
        assert_eq!(cpu["servers"][2], json!({"server": "before", "runs": runs, "median": 7.5, "ratio": 1.0}));
        assert_eq!(cpu["bars"][0], json!({"at_most": 0.9, "of": "ratio", "to": "before", "ok": false}));
        assert_eq!(rate["servers"][0]["server"], "before");
        assert_eq!(both.faults, ["before: daemon, run 1: 1 events repeated"]);
        assert_eq!(both.delivery_faults.deliveries, 9);
    }

    #[test]
    fn medians() {
        assert_eq!(
            (median(&[]), median(&[3.0, 1.0, 2.0]), median(&[1.0, 2.0])),
            (None, Some(2.0), Some(1.5))
        );
    }
}
