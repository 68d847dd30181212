//! Store keys of many groups, sorted: all in one buffer, and compared by their first two words, which nearly always
//! decide.

use std::ops::Range;

#[derive(Clone, Copy)]
struct Entry {
    head: u128,
    from: usize,
    len: u32,
    group: u32,
}

#[derive(Default)]
pub struct StoreKeys {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Where all keys are the same: left out of the head.
    common: Range<usize>,
}

impl StoreKeys {
    /// For keys that do not differ in the bytes `common`, nor in length before them.
    pub fn with_common(common: Range<usize>) -> StoreKeys {
        StoreKeys { common, ..StoreKeys::default() }
    }

    /// Adds the key that `write` appends.
    #[inline]
    pub fn push(&mut self, group: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.bytes.len();
        write(&mut self.bytes);
        let key = &self.bytes[from..];
        let mut head = [0; 16];
        let (before, after) = (&key[..self.common.start], &key[self.common.end..]);
        let after = &after[..after.len().min(16 - before.len())];
        head[..before.len()].copy_from_slice(before);
        head[before.len()..before.len() + after.len()].copy_from_slice(after);
        self.entries.push(Entry { head: u128::from_be_bytes(head), from, len: key.len() as u32, group });
    }

    pub fn sort(&mut self) {
        let bytes = &self.bytes;
        self.entries.sort_unstable_by(|a, b| a.head.cmp(&b.head).then_with(|| key_of(bytes, a).cmp(key_of(bytes, b))));
    }

    /// The keys and their groups.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.entries.iter().map(|entry| (key_of(&self.bytes, entry), entry.group))
    }
}

#[inline(always)]
fn key_of<'a>(bytes: &'a [u8], entry: &Entry) -> &'a [u8] {
    &bytes[entry.from..entry.from + entry.len as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn keys_are_sorted_as_bytes() {
        for seed in 0..50 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let common = if seed % 2 == 0 { 0..0 } else { 2..18 };
            let mut keys = StoreKeys::with_common(common.clone());
            let mut plain: Vec<(Vec<u8>, u32)> = Vec::new();
            for group in 0..200 {
                let mut key: Vec<u8> = vec![0, rng.random_range(0..3)];
                key.resize(2 + common.len(), 7);
                // Few different bytes, zeros too: long equal beginnings, and keys that begin others.
                key.extend((0..rng.random_range(0..24)).map(|_| rng.random_range(0..2u8)));
                keys.push(group, |out| out.extend_from_slice(&key));
                plain.push((key, group));
            }
            keys.sort();
            plain.sort();
            let sorted: Vec<&[u8]> = keys.iter().map(|(key, _)| key).collect();
            assert!(sorted.iter().zip(&plain).all(|(key, (same, _))| key == same), "seed {seed}");
            let at_home = |(key, group): (&[u8], u32)| plain.contains(&(key.to_vec(), group));
            assert!(keys.iter().all(at_home), "seed {seed}: a key has lost its group");
        }
    }
}
