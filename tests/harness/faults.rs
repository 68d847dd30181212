//! Breaks a running cluster by a seed and says whether its job still counted every row exactly once.
//!
//! `schedule` draws the faults, purely; the driver here brings them about, ends each after its time, and feeds the job
//! all the while. Every fault and every end of one is logged with seed and time, so that a failure can be read and
//! repeated. Then all is healed, the input ends, the job has to finish, and `checker` has the last word.

mod broker;
mod call;
mod driver;
mod schedule;
mod store;

pub use driver::{Failure, Plan, Report, run, run_over};
pub use schedule::{Cut, Fault, Kind, Menu, Step, schedule};
pub use store::Store;
