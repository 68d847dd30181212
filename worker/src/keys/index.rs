//! The hash index under a [`super::KeyTable`]: open addressing, one u64 a slot (the hash's low 32 bits and the group
//! plus one), linear probing, removal by shifting back. It never needs the keys to grow, only to compare.

/// Slots from which on a table no longer fits the cache and prefetching pays.
const BIG: usize = 1 << 15;

#[derive(Default)]
pub struct Index {
    /// 0 is empty.
    slots: Vec<u64>,
    len: usize,
}

impl Index {
    #[inline(always)]
    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }

    pub fn big(&self) -> bool {
        self.slots.len() >= BIG
    }

    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        super::prefetch(self.slots.as_ptr().wrapping_add(hash as u32 as usize & self.mask()));
    }

    /// The group in the first slot of `hash`, whatever its key.
    #[inline(always)]
    pub fn peek(&self, hash: u64) -> Option<u32> {
        let slot = *self.slots.get(hash as u32 as usize & self.mask())?;
        (slot != 0).then(|| (slot as u32).wrapping_sub(1))
    }

    /// The group with this hash for which `same` says that the keys are equal.
    #[inline(always)]
    pub fn find(&self, hash: u64, same: impl Fn(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let (mask, tag) = (self.mask(), hash as u32);
        let mut at = tag as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if (slot >> 32) as u32 == tag && same(slot as u32 - 1) {
                return Some(slot as u32 - 1);
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a group that is not in the index.
    #[inline]
    pub fn insert(&mut self, hash: u64, group: u32) {
        // At most 5/8 full: linear probing stays short, and ten million keys fit 2^24 slots.
        if (self.len + 1) * 8 > self.slots.len() * 5 {
            self.grow();
        }
        self.place(u64::from(hash as u32) << 32 | u64::from(group + 1));
        self.len += 1;
    }

    #[inline(always)]
    fn place(&mut self, entry: u64) {
        let mask = self.mask();
        let mut at = (entry >> 32) as usize & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = entry;
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(64);
        for entry in std::mem::replace(&mut self.slots, vec![0; size]) {
            if entry != 0 {
                self.place(entry);
            }
        }
    }

    pub fn remove(&mut self, hash: u64, group: u32) {
        let mask = self.mask();
        let entry = u64::from(hash as u32) << 32 | u64::from(group + 1);
        let mut hole = hash as u32 as usize & mask;
        while self.slots[hole] != entry {
            assert!(self.slots[hole] != 0, "group {group} is not in the index");
            hole = (hole + 1) & mask;
        }
        // Close the hole with the entries behind it that may move there.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            let home = (slot >> 32) as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = 0;
        self.len -= 1;
    }

    /// Empty again. A large table that was nearly unused shrinks, so that clearing stays as cheap as filling was.
    pub fn clear(&mut self) {
        if self.slots.len() > 1024 && self.len * 16 < self.slots.len() {
            self.slots = Vec::new();
        } else {
            self.slots.fill(0);
        }
        self.len = 0;
    }

    pub fn memory_bytes(&self) -> usize {
        self.slots.capacity() * 8
    }
}
