//! Progress output of a bench. A mode reports its stages. The caller decides whether they are shown.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Receives the progress of a bench.
pub(crate) trait Progress {
    /// Begins a stage with a description and a number of steps.
    fn begin(&mut self, what: &str, steps: u64);
    /// Reports the number of completed steps of the stage.
    fn at(&mut self, done: u64);
}

/// Shows no progress.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &str, _: u64) {}
    fn at(&mut self, _: u64) {}
}

/// Redraws per second. This is often enough to see movement, and too rare to affect the measurement.
const DRAWS_PER_SECOND: u8 = 5;

/// A progress bar on standard error, if that is a terminal.
#[derive(Debug)]
pub(crate) struct Shown(ProgressBar);

impl Shown {
    /// Creates a bar without a stage.
    pub(crate) fn new() -> Shown {
        let bar =
            ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        if let Ok(style) = ProgressStyle::with_template("{msg:50} {wide_bar} {pos}/{len} {elapsed}") {
            bar.set_style(style);
        }
        Shown(bar)
    }
}

impl Progress for Shown {
    fn begin(&mut self, what: &str, steps: u64) {
        self.0.set_length(steps);
        self.0.set_position(0);
        self.0.set_message(what.to_owned());
    }
    fn at(&mut self, done: u64) {
        self.0.set_position(done);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
