//! EdgeFlow's promises, one file each.

mod exactly_once;
mod nexmark;
mod sensor;
mod tidy;
