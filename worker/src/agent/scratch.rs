//! A deployment's own directory below the worker's, so that one that is slow to leave is not in the way of the next.

use crate::state::tempdir;
use ef_proto::ids::DeploymentId;
use std::path::Path;

/// Characters of a job's name that make it into the directory's.
const NAME_CHARS_MAX: usize = 80;

/// `<work_dir>/<job>-<region>-<incarnation>`; made by whoever writes into it, removed when the value is dropped.
pub(super) fn scratch(work_dir: &Path, id: &DeploymentId) -> tempdir::Owned {
    tempdir::Owned::new(work_dir.join(name(id)))
}

fn name(id: &DeploymentId) -> String {
    format!("{}-{}-{}", job_name(&id.job.0), id.region, id.incarnation)
}

/// A job's id as part of a path.
pub(super) fn job_name(job: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut name: String = job.chars().take(NAME_CHARS_MAX).map(|c| if harmless(c) { c } else { '_' }).collect();
    if name != job {
        // Two names that look the same now are not.
        name = format!("{name}-{:08x}", crc32fast::hash(job.as_bytes()));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use ef_proto::ids::{Incarnation, JobId};

    fn named(job: &str) -> String {
        name(&DeploymentId { job: JobId(job.into()), region: 2, incarnation: Incarnation(7) })
    }

    #[test]
    fn directory_stays_below_the_workers_and_is_its_own() {
        assert_eq!(named("6f1a-22"), "6f1a-22-2-7");
        for job in ["../x", "a/b", "/etc", "..", "", &"long".repeat(100)] {
            let name = named(job);
            assert!(!name.contains('/') && !name.contains('.') && name.len() < 120, "{name}");
        }
        assert_ne!(named("a/b"), named("a_b"));
        assert_ne!(named("a/b"), named("a.b"));
    }
}
