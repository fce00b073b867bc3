//! The modes: what a load is, and which figures it yields.
//!
//! A mode is a file with its flags, `Args`, and the functions `connections` (how many it holds open in this
//! process) and `run`. It has one row in the table below.

mod catchup;
mod churn;
mod fanout;
mod idle;
mod idle_streams;
mod late_join;
mod latency;
mod messages;
mod noisy;
mod open;
mod publish;
mod request_ids;
mod resume;
mod streams;

use crate::common::Common;
use crate::error::BenchError;
use crate::progress::Progress;
use crate::report::Report;

/// Declares the modes: the subcommand's name, and the module of its flags.
macro_rules! modes {
    ($($Mode:ident($module:ident),)*) => {
        /// What to measure: a subcommand of `nervewire bench`.
        #[derive(Clone, Debug, clap::Subcommand)]
        #[allow(missing_docs, reason = "the help of a mode is the documentation of its flags")]
        pub enum Mode {
            $($Mode($module::Args),)*
        }

        impl Mode {
            pub(crate) fn common(&mut self) -> &mut Common {
                match self {
                    $(Mode::$Mode(args) => &mut args.common,)*
                }
            }

            pub(crate) fn connections(&self) -> usize {
                match self {
                    $(Mode::$Mode(args) => $module::connections(args),)*
                }
            }

            pub(crate) fn measure(&self, progress: &mut dyn Progress) -> Result<Report, BenchError> {
                match self {
                    $(Mode::$Mode(args) => $module::run(args, progress),)*
                }
            }
        }
    };
}

modes! {
    Fanout(fanout),
    Idle(idle),
    Latency(latency),
    Churn(churn),
    Publish(publish),
    Messages(messages),
    Catchup(catchup),
    Open(open),
    Resume(resume),
    Noisy(noisy),
    RequestIds(request_ids),
    Streams(streams),
    LateJoin(late_join),
    IdleStreams(idle_streams),
}
