//! How the cluster's things look to a person: tables and descriptions, YAML, ages and sizes. Pure.

pub mod describe;
pub mod human;
pub mod table;
pub mod tiers;
pub mod views;
pub mod yaml;
