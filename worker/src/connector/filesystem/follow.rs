//! What a followed path means as time goes by. A file is known by device, inode and the bytes that have been read of
//! it, not by its name alone:
//!
//! - longer under its name: its new rows are read; shorter, or with another beginning: an error, because rows that were
//!   read have been taken back
//! - under another name that is followed too: the same file, read on where it was
//! - gone, or another file has its name: it is read to its end through the handle that was kept, or beside its old
//!   place, and then forgotten; the other one is new and read from its start
//!
//! A checkpoint is resumed by the same rules, so that files may be rotated while the job is stopped. The inode also says
//! which subtask follows a file.

use super::input::Input;
use super::listing::{self, Codec, File, Gone, Id};
use super::position::FilePosition;
use super::source::FilesystemSource;
use super::splits::{self, Chunk, OPEN_END};
use crate::error::{Context, Error, Result};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Scans that do not find a file before it is forgotten: one may fall between the old and the new name.
const MISSES: u32 = 2;

impl FilesystemSource {
    fn follows(&self, file: &File) -> bool {
        splits::owner(file.id.1, self.place.parallelism) == self.place.index
    }

    /// Looks for new files, and for new rows in known ones.
    pub(super) fn scan(&mut self) -> Result<()> {
        let now = (self.clock)();
        let Some(monitor) = &mut self.monitor else { return Ok(()) };
        let interval = monitor.interval_ms;
        monitor.next_scan = now + interval;
        let listed = listing::list(&self.options.path, self.options.compression, self.gone)?;
        if self.gone == Gone::Below && listed.iter().any(|file| file.path == self.options.path) {
            self.gone = Gone::Anywhere;
        }
        let mut found = self.recognise(&listed)?;
        let claimed: HashSet<usize> = found.iter().flatten().copied().collect();
        for (number, file) in listed.iter().enumerate() {
            if !claimed.contains(&number) && self.follows(file) {
                self.inputs.push(Input::new(file.clone(), (0, 0), vec![Chunk::new(0, OPEN_END)]));
                found.push(Some(number));
            }
        }
        // Sizes change, and positions in `inputs` do below.
        self.constants = None;
        for (index, found) in found.into_iter().enumerate() {
            match found {
                Some(number) => self.inputs[index].is_there(&listed[number])?,
                None => self.left(index, &listed)?,
            }
            let input = &mut self.inputs[index];
            let more = match input.file.regular {
                true => input.file.size > input.seen && (found.is_some() || input.handle.is_some()),
                false => found.is_some() && input.chunks[0].end == OPEN_END && input.lane.is_none(),
            };
            if more && input.file.codec != Codec::Plain {
                input.chunks[0].end = OPEN_END;
            }
            match &mut input.lane {
                None if more => self.open_lane(index),
                None => {}
                Some(lane) if more => lane.quiet_since = None,
                Some(lane) if lane.quiet_since.is_some_and(|since| now - since >= interval) => self.close_lane(index),
                Some(_) => {}
            }
        }
        self.inputs.retain(|input| input.lane.is_some() || input.missing < MISSES);
        Ok(())
    }

    /// For each known file where it is in the list.
    fn recognise(&self, listed: &[File]) -> Result<Vec<Option<usize>>> {
        let mut by_path: HashMap<&str, usize> = HashMap::new();
        let mut by_id: HashMap<Id, Vec<usize>> = HashMap::new();
        for (number, file) in listed.iter().enumerate() {
            by_path.insert(&file.path, number);
            by_id.entry(file.id).or_default().push(number);
        }
        let at_home = |input: &Input| {
            let number = *by_path.get(input.file.path.as_str())?;
            if listed[number].id != input.file.id {
                return None;
            }
            // Under two names: a link, or a file that was renamed while the directory was listed.
            let only = by_id[&input.file.id].len() == 1;
            let still = || File::look(&input.file.path, self.options.compression).is_ok_and(|f| f.id == input.file.id);
            (only || still()).then_some(number)
        };
        let mut found: Vec<Option<usize>> = self.inputs.iter().map(at_home).collect();
        let mut claimed: HashSet<usize> = found.iter().flatten().copied().collect();
        for (input, found) in self.inputs.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
            let names = by_id.get(&input.file.id).map(Vec::as_slice).unwrap_or_default();
            let free = names.iter().copied().filter(|number| !claimed.contains(number));
            let other = |number: &usize| listed[*number].path != input.file.path;
            *found = free.filter(other).find(|number| input.is_begun_by(&listed[*number]));
            claimed.extend(*found);
        }
        Ok(found)
    }

    /// A known file is not at its name any more, nor at another one that is followed.
    fn left(&mut self, index: usize, listed: &[File]) -> Result<()> {
        let compression = self.options.compression;
        let input = &mut self.inputs[index];
        input.missing += 1;
        if input.handle.is_none()
            && input.file.regular
            && let Some(moved) = listing::beside(&input.file.path, input.file.id.1, compression)
            && moved.id == input.file.id
            && input.is_begun_by(&moved)
            && let Ok(handle) = listing::open(&moved.path)
        {
            input.file.path = moved.path;
            input.handle = Some(Arc::new(handle));
        }
        let Input { file, handle, seen, .. } = input;
        match handle {
            Some(handle) => {
                let size = handle.metadata().invalid(|| format!("file \"{}\"", file.path))?.len();
                file.size = file.size.max(size);
            }
            None => {
                let replaced = listed.iter().any(|other| other.path == file.path);
                if replaced && *seen > 0 && *seen < file.size {
                    return Err(Error::invalid(format!(
                        "file \"{}\" was replaced before its bytes from {seen} to {} were read",
                        file.path, file.size
                    )));
                }
                // Deleted, and nothing can be read of it any more.
                if input.lane.is_some() {
                    self.close_lane(index);
                }
            }
        }
        Ok(())
    }

    /// Takes the files of the checkpoint that this subtask follows.
    pub(super) fn resume_followed(&mut self, files: Vec<FilePosition>) -> Result<()> {
        if files.iter().any(|file| file.path == self.options.path) {
            self.gone = Gone::Anywhere;
        }
        let listed = listing::list(&self.options.path, self.options.compression, self.gone)?;
        let known: HashSet<u64> = files.iter().filter_map(|file| file.inode).collect();
        for old in files {
            if let Some(file) = self.find(&old, &listed, &known)?
                && self.follows(&file)
            {
                // What was appended since shall be seen as such.
                let codec = Codec::of(&old.path, self.options.compression);
                let file = File { size: old.size, codec, ..file };
                self.inputs.push(Input::new(file, old.head, old.chunks));
            }
        }
        Ok(())
    }

    /// Where a file of the checkpoint is now. None: it had been read to its end, and is gone.
    fn find(&self, old: &FilePosition, listed: &[File], known: &HashSet<u64>) -> Result<Option<File>> {
        let compression = self.options.compression;
        let is_it = |file: &File| {
            file.regular && file.size >= old.size && file.head(Some(old.head.0)).is_ok_and(|head| head == old.head)
        };
        let here = File::look(&old.path, compression);
        if let Ok(file) = &here
            && old.inode.is_none_or(|inode| inode == file.id.1)
        {
            old.check(file)?;
            return Ok(Some(file.clone()));
        }
        if let Some(inode) = old.inode {
            let moved = listed.iter().find(|file| file.id.1 == inode && is_it(file)).cloned();
            let moved = moved.or_else(|| listing::beside(&old.path, inode, compression).filter(is_it));
            if moved.is_some() {
                return Ok(moved);
            }
        }
        // A copy, as after a move to another disk; not when it is a file that the checkpoint knows as another one.
        if let Ok(file) = &here
            && is_it(file)
            && !known.contains(&file.id.1)
        {
            return Ok((old.head.0 > 0).then(|| file.clone()));
        }
        let all_read = match Codec::of(&old.path, compression) {
            Codec::Plain => old.chunks.iter().all(|chunk| chunk.at >= Some(old.size)),
            _ => old.chunks.iter().all(|chunk| chunk.end != OPEN_END && chunk.at >= Some(chunk.end)),
        };
        match here {
            _ if all_read => Ok(None),
            Ok(file) => old.check(&file).and_then(|()| {
                let what = format!("file \"{}\" was replaced since the checkpoint, before it was read", old.path);
                Err(Error::invalid(what))
            }),
            Err(error) => Err(error).invalid(|| format!("a file of the checkpoint is gone: file \"{}\"", old.path)),
        }
    }
}

impl Input {
    /// The file is there, perhaps longer, perhaps under another name.
    fn is_there(&mut self, file: &File) -> Result<()> {
        let before = self.file.size.max(if file.regular { self.seen } else { 0 });
        if file.size < before {
            return Err(Error::invalid(format!(
                "file \"{}\" shrank from {before} to {} bytes while it was followed; new rows must be appended",
                file.path, file.size
            )));
        }
        let changed = (file.size, file.modified_ms) != (self.file.size, self.file.modified_ms);
        if changed && !self.is_begun_by(file) {
            // Unless it was replaced since it was listed, which the next scan sees.
            if listing::id_of(&file.path) == Some(file.id) {
                return Err(Error::invalid(format!(
                    "file \"{}\" was overwritten while it was followed; new rows must be appended, or come in a new file",
                    file.path
                )));
            }
            return Ok(());
        }
        self.missing = 0;
        // A new name may end in another way than the one by which it was known to be packed.
        self.file = File { codec: self.file.codec, ..file.clone() };
        Ok(())
    }
}
