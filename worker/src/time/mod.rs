//! time

pub mod civil;
