//! Plans that are refused, and why.
