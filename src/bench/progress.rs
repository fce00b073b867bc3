//! What is shown while a bench works. A mode tells its stages; whoever runs it decides whether anybody looks.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Is told how far a bench is.
pub trait Progress {
    /// A stage begins: what it does, and how many steps it has.
    fn begin(&mut self, what: &str, steps: u64);
    /// So many of its steps are done.
    fn at(&mut self, done: u64);
}

/// Nobody looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: &str, _: u64) {}
    fn at(&mut self, _: u64) {}
}

/// Redraws a second: enough to be seen moving, too few to be measured.
const DRAWS_PER_SECOND: u8 = 5;

/// A bar on standard error, if that is a terminal.
#[derive(Debug)]
pub struct Shown(ProgressBar);

impl Default for Shown {
    fn default() -> Self {
        Shown::new()
    }
}

impl Shown {
    /// A bar without a stage.
    #[must_use]
    pub fn new() -> Shown {
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
