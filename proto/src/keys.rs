//! Key hashing, key groups and their ranges. Frozen: state on disk is laid out by these functions, so a golden test
//! holds their outputs, and no change may move a key to another group.

use std::ops::Range;

/// Key groups of a job unless `SET 'pipeline.max-parallelism'` says otherwise.
pub const MAX_PARALLELISM_DEFAULT: u16 = 128;

const M1: u64 = 0x9e37_79b9_7f4a_7c15;
const M2: u64 = 0xbf58_476d_1ce4_e5b9;
const M3: u64 = 0x94d0_49bb_1331_11eb;

/// Hash of a NULL key column.
pub const HASH_NULL: u64 = 0x6a09_e667_f3bc_c909;

/// Hash of one 64-bit value (integers sign-extended, dates, timestamps in their ticks, booleans 0/1; doubles by
/// [`float_bits`]). SplitMix64's finalizer.
#[inline(always)]
pub const fn hash_u64(value: u64) -> u64 {
    let mut x = value.wrapping_add(M1);
    x = (x ^ (x >> 30)).wrapping_mul(M2);
    x = (x ^ (x >> 27)).wrapping_mul(M3);
    x ^ (x >> 31)
}

/// The bits under which equal doubles are equal: -0.0 as 0.0, every NaN as one.
#[inline(always)]
pub fn float_bits(value: f64) -> u64 {
    if value == 0.0 {
        0
    } else if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        value.to_bits()
    }
}

#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let wide = (a as u128).wrapping_mul(b as u128);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// Hash of a byte string (strings in UTF-8, decimals as 16 bytes little endian).
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut h = (bytes.len() as u64) ^ M1;
    let mut chunks = bytes.chunks_exact(16);
    for c in &mut chunks {
        let a = u64::from_le_bytes(c[..8].try_into().expect("8 of 16 bytes"));
        let b = u64::from_le_bytes(c[8..].try_into().expect("8 of 16 bytes"));
        h = fold(a ^ M2 ^ h, b ^ M3);
    }
    let rest = chunks.remainder();
    let (a, b) = match rest.len() {
        0 => (0, 0),
        1..=3 => {
            let n = rest.len();
            ((rest[0] as u64) << 16 | (rest[n / 2] as u64) << 8 | rest[n - 1] as u64, 0)
        }
        4..=7 => {
            let n = rest.len();
            let lo = u32::from_le_bytes(rest[..4].try_into().expect("4 bytes"));
            let hi = u32::from_le_bytes(rest[n - 4..].try_into().expect("4 bytes"));
            (lo as u64, hi as u64)
        }
        n => {
            let lo = u64::from_le_bytes(rest[..8].try_into().expect("8 bytes"));
            let hi = u64::from_le_bytes(rest[n - 8..].try_into().expect("8 bytes"));
            (lo, hi)
        }
    };
    hash_u64(fold(a ^ M2 ^ h, b ^ M3 ^ (bytes.len() as u64)))
}

/// The hash of a key of several columns: fold left to right, starting from the first column's hash.
#[inline(always)]
pub const fn combine(left: u64, right: u64) -> u64 {
    hash_u64(left.rotate_left(5) ^ right)
}

/// The key group of a key's hash. Uses the high half, because hash tables use the low one.
#[inline(always)]
pub const fn key_group(hash: u64, max_parallelism: u16) -> u16 {
    (((hash >> 32) * max_parallelism as u64) >> 32) as u16
}

/// The key groups of subtask `index` of `parallelism`: contiguous, disjoint, covering, sizes differing by one at most.
pub const fn range_of(index: u32, parallelism: u32, max_parallelism: u16) -> Range<u16> {
    assert!(parallelism > 0 && index < parallelism && parallelism <= max_parallelism as u32);
    let (i, p, m) = (index as u64, parallelism as u64, max_parallelism as u64);
    let start = (i * m).div_ceil(p);
    let end = ((i + 1) * m).div_ceil(p);
    start as u16..end as u16
}

/// The subtask that owns `group`: the inverse of [`range_of`].
#[inline(always)]
pub const fn owner_of(group: u16, parallelism: u32, max_parallelism: u16) -> u32 {
    ((group as u64 * parallelism as u64) / max_parallelism as u64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_hashes_never_change() {
        let text: Vec<u64> = ["", "a", "abc", "dev-17", "0123456789abcdef", "0123456789abcdefg"]
            .iter()
            .map(|s| hash_bytes(s.as_bytes()))
            .collect();
        let groups: Vec<u16> = (0..8u64).map(|i| key_group(hash_u64(i), 128)).collect();
        let shown = format!("{text:x?} {groups:?} {:x}", combine(hash_u64(1), hash_u64(2)));
        assert_eq!(shown, include_str!("keys.golden").trim(), "state on disk is laid out by these values");
    }

    #[test]
    fn ranges_are_disjoint_cover_all_groups_and_invert() {
        for max in [1u16, 2, 7, 128, 1000, 32768] {
            for parallelism in 1..=u32::from(max.min(130)) {
                let mut next = 0u16;
                for index in 0..parallelism {
                    let range = range_of(index, parallelism, max);
                    assert_eq!(range.start, next);
                    assert!(range.len() >= usize::from(max) / parallelism as usize);
                    for group in range.clone() {
                        assert_eq!(owner_of(group, parallelism, max), index, "group {group} of {max}, p {parallelism}");
                    }
                    next = range.end;
                }
                assert_eq!(next, max);
            }
        }
    }

    #[test]
    fn equal_floats_hash_equal() {
        assert_eq!(float_bits(0.0), float_bits(-0.0));
        assert_eq!(float_bits(f64::NAN), float_bits(-f64::NAN));
        assert_ne!(float_bits(1.0), float_bits(2.0));
    }

    #[test]
    fn groups_spread_evenly() {
        let mut counts = [0u32; 128];
        for i in 0..128_000u32 {
            counts[usize::from(key_group(hash_bytes(format!("dev-{i}").as_bytes()), 128))] += 1;
        }
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "{counts:?}");
    }
}
