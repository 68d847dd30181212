//! What the slices of one window make together. Its keys stay from window to window, and each slice remembers where
//! its groups are here: windows that share slices merge cells, not keys.

use super::pane::{Pane, Span};
use crate::error::Result;
use crate::keys::{KeyTable, Selection, hash_rows};
use crate::operator::accumulate::Accumulators;
use ef_proto::plan::Aggregate;
use ef_proto::schema::DataType;
use std::collections::BTreeMap;

/// Keys that may stay although no slice has them any more.
const STALE: usize = 1 << 10;

pub struct Merged {
    pub keys: KeyTable,
    pub accumulators: Accumulators,
    /// The window in which a group last had rows, counted from 1.
    seen: Vec<u64>,
    windows: u64,
}

impl Merged {
    pub fn new(types: &[DataType], aggregates: &[Aggregate]) -> Result<Merged> {
        Ok(Merged {
            keys: KeyTable::new(types)?,
            accumulators: Accumulators::new(aggregates, false)?,
            seen: Vec::new(),
            windows: 0,
        })
    }

    /// Merges the slices `spans`; answers with the groups that have rows in them.
    pub fn merge(&mut self, panes: &mut BTreeMap<Span, Pane>, spans: &[Span]) -> Result<Vec<u32>> {
        self.windows += 1;
        self.accumulators.clear();
        let (mut hashes, mut groups) = (Vec::new(), Vec::new());
        for span in spans {
            let pane = panes.get_mut(span).expect("the slices of the window");
            let new: Vec<u32> = (pane.merged.len() as u32..pane.keys.bound() as u32).collect();
            if !new.is_empty() {
                let columns = pane.keys.export(&new)?;
                hash_rows(&columns, &mut hashes)?;
                self.keys.intern(&columns, &hashes, Selection::All(new.len()), &mut groups)?;
                pane.merged.extend_from_slice(&groups);
                self.seen.resize(self.keys.bound(), 0);
            }
        }
        self.accumulators.resize(self.keys.bound());
        for span in spans {
            let pane = &panes[span];
            self.accumulators.merge(&pane.merged, &pane.accumulators, None)?;
            pane.merged.iter().for_each(|group| self.seen[*group as usize] = self.windows);
        }
        let all = 0..self.seen.len() as u32;
        Ok(all.filter(|group| self.seen[*group as usize] == self.windows).collect())
    }

    /// Forgets the keys, once most of them are gone from the slices: only `live` were in the last window.
    pub fn tidy(&mut self, live: usize, panes: &mut BTreeMap<Span, Pane>) {
        if self.keys.bound() > 2 * live + STALE {
            self.keys.clear();
            self.seen.clear();
            panes.values_mut().for_each(|pane| pane.merged.clear());
        }
    }

    pub fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes() + self.accumulators.memory_bytes() + self.seen.capacity() * 8
    }
}
