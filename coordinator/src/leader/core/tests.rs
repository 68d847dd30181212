//! The leader's rules on a scripted cluster: what they promise, one promise a test.

mod checkpoints;
mod recovery;
mod requests;
mod script;
