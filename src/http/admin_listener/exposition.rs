//! The text that a Prometheus server scrapes, in the two formats that it accepts: its own 0.0.4, and
//! OpenMetrics 1.0.0.
//!
//! * They differ in the name of a counter's family (OpenMetrics adds `_total` to the sample only), in the
//!   type `info`, and in the end mark.
//! * Names and labels are constants of this program, so only label values are escaped.

use std::fmt::Write as _;

use http::HeaderMap;
use http::header::{self, HeaderValue};

/// A format of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `text/plain; version=0.0.4`, which every scraper reads.
    Text,
    /// OpenMetrics 1.0.0, for scrapers that request it.
    OpenMetrics,
}

impl Format {
    /// Returns the format that `Accept` prefers; [`Format::Text`] if it does not name OpenMetrics.
    pub(super) fn negotiate(headers: &HeaderMap) -> Format {
        let (mut text, mut open) = (0, 0);
        for value in headers.get_all(header::ACCEPT) {
            for range in value.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let media = parts.next().unwrap_or_default();
                let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1_000, thousandths);
                if media.eq_ignore_ascii_case("application/openmetrics-text") {
                    open = open.max(quality);
                } else if media.eq_ignore_ascii_case("text/plain") {
                    text = text.max(quality);
                }
            }
        }
        if open > 0 && open >= text { Format::OpenMetrics } else { Format::Text }
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }
}

/// Converts a quality of `Accept` to thousandths (RFC 9110 §12.4.2). Returns 0 for an invalid one.
fn thousandths(quality: &str) -> u32 {
    let quality: f32 = quality.parse().unwrap_or(0.0);
    (quality.clamp(0.0, 1.0) * 1_000.0) as u32
}

/// A page in progress.
pub(super) struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    pub(super) fn new(format: Format) -> Exposition {
        Exposition { format, text: String::with_capacity(16 * 1024) }
    }

    /// Returns the complete page.
    pub(super) fn end(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// Writes a value that only grows. `name` is without `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.counter_head(name, help);
        self.line(format_args!("{name}_total {value}"));
    }

    /// Writes counters with one label.
    pub(super) fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.counter_head(name, help);
        for (of, value) in values {
            self.line(format_args!("{name}_total{{{label}=\"{}\"}} {value}", escaped(of)));
        }
    }

    /// Writes a value that can rise and fall.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, help, "gauge");
        self.line(format_args!("{name} {value}"));
    }

    /// Writes gauges with one label.
    pub(super) fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, i64)]) {
        self.head(name, help, "gauge");
        for (of, value) in values {
            self.line(format_args!("{name}{{{label}=\"{}\"}} {value}", escaped(of)));
        }
    }

    /// Writes constant texts as labels of the value 1. `name` is without `_info`.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        match self.format {
            Format::Text => self.head(&format!("{name}_info"), help, "gauge"),
            Format::OpenMetrics => self.head(name, help, "info"),
        }
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        self.line(format_args!("{name}_info{{{}}} 1", labels.join(",")));
    }

    /// Writes a histogram. Each bucket is its upper bound in seconds, and the number of values between the
    /// previous bound and this one. The last bound is infinite.
    pub(super) fn histogram(&mut self, name: &str, help: &str, sum_us: u64, buckets: &[(f64, u64)]) {
        self.head(name, help, "histogram");
        let mut below = 0;
        for (bound, count) in buckets {
            below += count;
            let bound = if bound.is_finite() { format!("{bound:?}") } else { "+Inf".to_owned() };
            self.line(format_args!("{name}_bucket{{le=\"{bound}\"}} {below}"));
        }
        self.line(format_args!("{name}_sum {:?}", sum_us as f64 / 1e6));
        self.line(format_args!("{name}_count {below}"));
    }

    fn counter_head(&mut self, name: &str, help: &str) {
        match self.format {
            Format::Text => self.head(&format!("{name}_total"), help, "counter"),
            Format::OpenMetrics => self.head(name, help, "counter"),
        }
    }

    fn head(&mut self, family: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {family} {help}"));
        self.line(format_args!("# TYPE {family} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{line}"); // writing to a String cannot fail
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(accept: &[&'static str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, HeaderValue::from_static(value));
        }
        Format::negotiate(&headers)
    }

    #[test]
    fn open_metrics_is_sent_if_the_client_prefers_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in [&[prometheus][..], &["text/html", "application/OpenMetrics-Text"]] {
            assert_eq!(negotiated(accept), Format::OpenMetrics, "{accept:?}");
        }
        for accept in [
            &[][..],
            &["*/*"],
            &["text/html"],
            &["application/openmetrics-text;q=0"],
            &["application/openmetrics-text;q=0.3, text/plain"],
            &["application/openmetrics-text; q=x"],
        ] {
            assert_eq!(negotiated(accept), Format::Text, "{accept:?}");
        }
    }

    #[test]
    fn the_formats_differ_in_families_and_end() {
        let page = |format| {
            let mut out = Exposition::new(format);
            out.counter("a", "An a.", 1.5);
            out.info("b", "A b.", &[("version", "1\"\\\n")]);
            out.histogram("c_seconds", "A c.", 1_500_000, &[(0.5, 2), (f64::INFINITY, 1)]);
            out.end()
        };
        let rest = "# HELP c_seconds A c.\n# TYPE c_seconds histogram\nc_seconds_bucket{le=\"0.5\"} 2\n\
            c_seconds_bucket{le=\"+Inf\"} 3\nc_seconds_sum 1.5\nc_seconds_count 3\n";
        let text = "# HELP a_total An a.\n# TYPE a_total counter\na_total 1.5\n# HELP b_info A b.\n# TYPE b_info gauge\n\
            b_info{version=\"1\\\"\\\\\\n\"} 1\n";
        assert_eq!(page(Format::Text), format!("{text}{rest}"));
        let open = text.replace("HELP a_total", "HELP a").replace("TYPE a_total", "TYPE a");
        let open = open.replace("HELP b_info", "HELP b").replace("TYPE b_info gauge", "TYPE b info");
        assert_eq!(page(Format::OpenMetrics), format!("{open}{rest}# EOF\n"));
    }
}
