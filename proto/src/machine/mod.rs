//! Pure machines: stepped by whoever has the clock and the I/O.

pub mod checkpoint;
