//! Which subtask reads which partition: one pure function, so that all of them know without asking each other.
//!
//! As in Flink the partitions of a topic go round the subtasks, from a start that depends on the topic's name, so that
//! many topics of one partition do not meet at the first subtask.

/// The subtask of `parallelism` that reads the partition.
pub fn owner(topic: &str, partition: i32, parallelism: u32) -> u32 {
    let start = java_hash(topic).wrapping_mul(31) & 0x7fff_ffff;
    ((start as u64 + partition.max(0) as u64) % parallelism.max(1) as u64) as u32
}

/// `String.hashCode`.
fn java_hash(text: &str) -> u32 {
    text.encode_utf16().fold(0u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(unit as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_those_that_flink_would_choose() {
        assert_eq!(java_hash("hello"), 99_162_322);
        assert_eq!(
            java_hash("naïve→😀"),
            "naïve→😀".encode_utf16().fold(0, |h: u32, u| h.wrapping_mul(31).wrapping_add(u as u32))
        );
        // (99162322 * 31 & 0x7fffffff) % 4
        let start = ((99_162_322u64 * 31) & 0x7fff_ffff) % 4;
        for partition in 0..9 {
            assert_eq!(owner("hello", partition, 4) as u64, (start + partition as u64) % 4);
        }
    }

    #[test]
    fn partitions_of_a_topic_are_spread_evenly() {
        for parallelism in 1..9u32 {
            for topic in ["a", "orders", "zz-top", "äöü"] {
                let mut counts = vec![0u32; parallelism as usize];
                (0..parallelism as i32 * 3).for_each(|p| counts[owner(topic, p, parallelism) as usize] += 1);
                assert!(counts.iter().all(|count| *count == 3), "{topic} {parallelism}: {counts:?}");
            }
        }
    }
}
