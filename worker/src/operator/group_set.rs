//! A set of key groups, one bit each.

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSet(Vec<u64>);

impl GroupSet {
    /// Of these words, as [`GroupSet::words`] gives them, the key groups in `range`.
    pub fn from_words(words: &[u64], range: std::ops::Range<u16>) -> GroupSet {
        let mut set = GroupSet::default();
        GroupSet(words.to_vec()).iter().filter(|group| range.contains(group)).for_each(|group| set.insert(group));
        set
    }

    /// 64 key groups each, the lowest bit first; the last is not 0.
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    pub fn insert(&mut self, group: u16) {
        let at = usize::from(group / 64);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (group % 64);
    }

    pub fn extend(&mut self, other: &GroupSet) {
        other.iter().for_each(|group| self.insert(group));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one out.
    pub fn pop(&mut self) -> Option<u16> {
        let word = self.0.last_mut()?;
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        let group = (self.0.len() - 1) as u16 * 64 + bit as u16;
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        Some(group)
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        let bits = |word: u64| (0..64u16).filter(move |bit| word >> bit & 1 != 0);
        self.0.iter().zip(0u16..).flat_map(move |(word, at)| bits(*word).map(move |bit| at * 64 + bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_gives_back_what_went_in_and_survives_as_words() {
        let mut set = GroupSet::default();
        assert!(set.is_empty());
        for group in [3, 700, 64, 63, 3, 65_535] {
            set.insert(group);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 63, 64, 700, 65_535]);
        assert_eq!(GroupSet::from_words(set.words(), 0..u16::MAX).iter().collect::<Vec<_>>(), [3, 63, 64, 700]);
        let mut part = GroupSet::from_words(set.words(), 64..701);
        assert_eq!(part.iter().collect::<Vec<_>>(), [64, 700]);
        part.extend(&set);
        assert_eq!(part, set);
        let mut popped: Vec<u16> = std::iter::from_fn(|| set.pop()).collect();
        popped.sort_unstable();
        assert_eq!((popped, set.is_empty()), (vec![3, 63, 64, 700, 65_535], true));
    }
}
