//! Draws a report: latency by percentile, and rates per second. The result is plain SVG without scripts or
//! fonts.

use std::fmt::Write as _;

use super::report::{Latencies, Report};

const WIDTH: f64 = 820.0;
const PANEL: f64 = 300.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 180.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 40.0;
const COLOURS: [&str; 6] = ["#1b6ca8", "#d1495b", "#3c8d53", "#8e5ea2", "#c98b1d", "#5a6570"];
/// Percentiles on the axis, with their labels.
const TICKS: [(f64, &str); 6] =
    [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")];

/// Returns the picture as a whole SVG file.
#[must_use]
pub fn svg(report: &Report) -> String {
    let panels = usize::from(!report.latencies.is_empty()) + usize::from(!report.rates.is_empty());
    let height = PANEL * panels.max(1) as f64 + 30.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{} — {}</text>\n",
        escaped(report.mode),
        escaped(&report.about)
    );
    let mut top = 20.0;
    if !report.latencies.is_empty() {
        latencies(&report.latencies, top, &mut out);
        top += PANEL;
    }
    if !report.rates.is_empty() {
        let lines: Vec<Line> = report
            .rates
            .iter()
            .map(|rate| Line {
                name: format!("{}, run {}", rate.server.name(), rate.run + 1),
                points: rate
                    .per_second
                    .iter()
                    .enumerate()
                    .map(|(at, value)| (at as f64 + 1.0, *value))
                    .collect(),
            })
            .collect();
        let most = lines.iter().map(|line| line.points.len()).max().unwrap_or(1).max(2) as f64;
        let seconds: Vec<(f64, String)> = (0..=4)
            .map(|at| 1.0 + (most - 1.0) * f64::from(at) / 4.0)
            .map(|at| (at, format!("{at:.0} s")))
            .collect();
        panel(report.rates[0].name, "1/s", &lines, &seconds, top, &mut out);
    }
    out.push_str("</svg>\n");
    out
}

/// A curve of a panel.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// Returns the position of a quantile on the axis. Each further nine has the same width.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile.min(0.9999)).log10()
}

fn latencies(of: &[Latencies], top: f64, out: &mut String) {
    let steps = 80;
    let lines: Vec<Line> = of
        .iter()
        .map(|it| Line {
            name: it.server.name().to_owned(),
            points: (0..=steps)
                .map(|step| {
                    let x = 4.0 * f64::from(step) / f64::from(steps);
                    (x, it.histogram.value_at_quantile(1.0 - 10f64.powf(-x)) as f64 / 1e3)
                })
                .collect(),
        })
        .collect();
    let ticks: Vec<(f64, String)> = TICKS.iter().map(|(at, name)| (nines(*at), format!("p{name}"))).collect();
    panel(of[0].name, "µs", &lines, &ticks, top, out);
}

fn panel(title: &str, unit: &str, lines: &[Line], x_ticks: &[(f64, String)], top: f64, out: &mut String) {
    let (plot_width, plot_height) = (WIDTH - LEFT - RIGHT, PANEL - TOP - BOTTOM);
    let (first, last) = (x_ticks.first().map_or(0.0, |it| it.0), x_ticks.last().map_or(1.0, |it| it.0));
    let most = lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max).max(1e-9);
    let x = |value: f64| LEFT + plot_width * (value - first) / (last - first).max(1e-9);
    let y = |value: f64| top + TOP + plot_height * (1.0 - value / (most * 1.05));
    // Writing to a String never fails, here and below.
    let _ =
        writeln!(out, "<text x=\"{LEFT}\" y=\"{}\">{}, {}</text>", top + TOP - 10.0, escaped(title), unit);
    for step in 0..=4 {
        let value = most * f64::from(step) / 4.0;
        let (y, end) = (y(value), LEFT + plot_width);
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {y:.1}H{end}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            if most < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
        );
    }
    for (at, name) in x_ticks {
        let (x, bottom) = (x(*at), top + TOP + plot_height);
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            escaped(name)
        );
    }
    for (at, line) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points: Vec<String> =
            line.points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
        let legend = top + TOP + 14.0 * at as f64;
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
             <text x=\"{}\" y=\"{legend}\" fill=\"{colour}\">{}</text>",
            points.join(" "),
            LEFT + plot_width + 12.0,
            escaped(&line.name)
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Rate;
    use crate::target::Server;

    #[test]
    fn both_panels_are_drawn_and_text_is_escaped() {
        let mut report = Report::new("latency", "a < b".into(), serde_json::Value::Null, &[]);
        let mut histogram = crate::histogram().unwrap();
        (1..1_000u64).for_each(|us| histogram.record(us * 1_000).unwrap());
        report.latency(Server::Daemon, "publish to receipt", &histogram);
        report.rates.push(Rate {
            server: Server::Floor,
            name: "deliveries",
            run: 0,
            per_second: vec![1.0, 3.0],
        });
        let svg = svg(&report);
        assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains("floor, run 1") && svg.contains(">p99.9<"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
