//! Measures two executables of the daemon alternately (`--before PATH`), so that a slow moment of the machine
//! affects both.
//!
//! Each turn is a whole run of the mode with a new process. The order is reversed from turn to turn. This
//! executable generates the load for both. Baselines run beside the daemon only.

use crate::common::Common;
use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::Report;
use crate::target::Server;

/// One or several runs of a mode against one executable.
pub(crate) type Mode<'a> = dyn FnMut(Common, &mut dyn Progress) -> Result<Report, BenchError> + 'a;

/// Runs `mode` with `common`. If there is an executable `before`, it is measured alternately, and the report
/// shows it as [`Server::Before`].
pub(crate) fn run(
    common: &Common,
    mode: &mut Mode<'_>,
    progress: &mut dyn Progress,
) -> Result<Report, BenchError> {
    let Some(before) = &common.daemon.before else { return mode(common.clone(), progress) };
    let one = Common { runs: common.runs.min(1), bars: Vec::new(), ..common.clone() };
    let mut other = Common { floor: false, naive: false, ..one.clone() };
    other.daemon.exe = Some(before.clone());
    let mut report = mode(one.clone(), progress)?;
    for turn in 0..common.runs {
        let mut pair = vec![(Server::Daemon, &one), (Server::Before, &other)];
        if turn == 0 {
            pair.remove(0); // it ran above, which checked the settings
        } else if turn % 2 == 1 {
            pair.reverse();
        }
        for (server, common) in pair {
            report.absorb(mode(common.clone(), progress)?, server);
        }
    }
    report.settings["runs"] = common.runs.into();
    report.bars.clone_from(&common.bars);
    report.notes.push(format!("before: {}", before.display()));
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::progress::Silent;
    use crate::target::DaemonSettings;

    #[test]
    fn the_order_changes_from_turn_to_turn_and_ratios_are_of_all_turns() {
        let common = Common {
            daemon: DaemonSettings {
                exe: Some("new".into()),
                before: Some("old".into()),
                ..DaemonSettings::default()
            },
            floor: true,
            runs: 3,
            bars: vec!["cpu<=0.5x:before".parse().unwrap()],
            ..Common::default()
        };
        let mut order = Vec::new();
        let mut mode = |common: Common, _: &mut dyn Progress| {
            let old = common.daemon.exe.as_deref() == Some(Path::new("old"));
            assert_eq!((common.runs, common.floor, common.bars.len()), (1, !old, 0));
            order.push(if old { 'B' } else { 'A' });
            let mut report = Report::new("fanout", String::new(), json!({"runs": 1}), &common.bars);
            report.add(Server::Daemon, "cpu", "CPU", "µs", if old { 8.0 } else { 4.0 });
            Ok(report)
        };
        let report = run(&common, &mut mode, &mut Silent).unwrap();
        assert_eq!(order, ['A', 'B', 'B', 'A', 'A', 'B']);
        assert_eq!(report.rows[0].ratio_to(Server::Before), Some(0.5));
        assert_eq!(report.rows[0].servers[0], (Server::Daemon, vec![4.0; 3]));
        assert_eq!(report.settings["runs"], 3);
        assert!(report.is_ok());
    }
}
