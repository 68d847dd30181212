//! Reads files into batches: one lane a file, its chunks one after another, the lane furthest behind first.
//!
//! Bounded, the files are listed once. Monitoring, new files and new lines of plain files are looked for at every
//! interval; a file that has been quiet for an interval closes its lane, so that it holds back no watermark, and gets a
//! new one when it grows. At most [`PLAIN_MAX`] plain files are kept open (others are reopened where they were) and
//! [`PACKED_MAX`] compressed ones, which cannot be reopened cheaply: more of them with one time range are an error.

use super::super::{Place, Polled, Source, SourceBatch};
use super::listing::{self, Codec, File};
use super::position::{self, FilePosition};
use super::reader::{Reader, count_lines};
use super::splits::{self, Chunk, OPEN_END};
use crate::error::{Context, Error, Result};
use crate::format::decode::DecodeError;
use crate::format::{Decoder, ErrorRows, Stop, decoder};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use ef_proto::connector::{FilesystemSource as Options, Format, OnError};
use ef_proto::plan;
use ef_proto::schema::{Field, Schema};
use std::collections::VecDeque;
use std::path::Path;

const PLAIN_MAX: usize = 128;
const PACKED_MAX: usize = 512;

/// Bytes of a read; smaller ones when many lanes have buffers.
const BUFFER_BYTES: usize = 256 << 10;
const SMALL_BUFFER_BYTES: usize = 64 << 10;
const MANY_LANES: usize = 32;

/// Skipped rows that close a batch.
const ERRORS_MAX: usize = 1024;

/// Longest answer of `Wait`.
const WAIT_MS: i64 = 10;

/// Elapsed milliseconds, from any start.
pub type Clock = Box<dyn FnMut() -> i64 + Send>;

/// A file of this subtask.
struct Input {
    file: File,
    head: (u64, u32),
    /// What is left to read, in order; of a monitored file one chunk, for ever.
    chunks: VecDeque<Chunk>,
    lane: Option<Lane>,
    /// Monitoring: all bytes before this one have been looked at, the part of a last line too.
    seen: u64,
    /// Line ends counted so far for messages: (up to this offset, so many).
    counted: (u64, u64),
}

/// An open lane.
struct Lane {
    number: usize,
    reader: Option<Reader>,
    /// When the lane was last read, in polls.
    used: u64,
    /// Monitoring: nothing to read since this clock.
    quiet_since: Option<i64>,
    done: bool,
}

struct Monitor {
    interval_ms: i64,
    next_scan: i64,
}

pub struct FilesystemSource {
    table: String,
    options: Options,
    place: Place,
    schema: SchemaRef,
    /// METADATA columns: position in the schema, field, key.
    metadata: Vec<(usize, Field, String)>,
    decoder: Box<dyn Decoder>,
    inputs: Vec<Input>,
    lanes_opened: usize,
    polls: u64,
    events: VecDeque<Polled>,
    errors: ErrorRows,
    /// Fields of the open batch that are NULL because they could not be read.
    field_errors: u64,
    /// The first of all, and whether it has been told.
    field_error: Option<String>,
    field_error_told: bool,
    /// To be returned by the next poll: what came before it has been delivered.
    failed: Option<Error>,
    /// METADATA columns of one file, at full batch length.
    constants: Option<(usize, Vec<ArrayRef>)>,
    monitor: Option<Monitor>,
    clock: Clock,
}

impl FilesystemSource {
    pub fn new(
        source: &plan::Source,
        options: &Options,
        place: &Place,
        restored: &[Vec<u8>],
        clock: Clock,
    ) -> Result<FilesystemSource> {
        let in_table = |error: Error| Error::new(error.code, format!("table \"{}\": {}", source.table, error.message));
        Self::open(source, options, place, restored, clock).map_err(in_table)
    }

    fn open(
        source: &plan::Source,
        options: &Options,
        place: &Place,
        restored: &[Vec<u8>],
        mut clock: Clock,
    ) -> Result<FilesystemSource> {
        let format = source.format.as_ref().ok_or_else(|| Error::invalid("a filesystem source needs a 'format'"))?;
        let is_metadata = |index: usize| source.metadata.iter().any(|(at, _)| *at == index);
        let fields = source.physical.fields.iter().enumerate();
        let decoded = fields.filter(|(index, _)| !is_metadata(*index)).map(|(_, field)| field.clone()).collect();
        let mut metadata = Vec::new();
        for (index, key) in &source.metadata {
            if !["file.path", "file.name", "file.size", "file.modification-time"].contains(&key.as_str()) {
                return Err(Error::invalid(format!(
                    "unknown metadata '{key}', a filesystem source has 'file.path', 'file.name', 'file.size' and 'file.modification-time'"
                )));
            }
            metadata.push((*index, source.physical.fields[*index].clone(), key.clone()));
        }
        metadata.sort_by_key(|(index, ..)| *index);
        let monitor = options.monitor_interval_ms.map(|interval| {
            let interval_ms = interval.clamp(1, i64::MAX as u64) as i64;
            Monitor { interval_ms, next_scan: clock() }
        });
        let mut this = FilesystemSource {
            table: source.table.clone(),
            options: options.clone(),
            place: place.clone(),
            schema: source.physical.to_arrow(),
            metadata,
            decoder: decoder(format, &Schema::new(decoded))?,
            inputs: Vec::new(),
            lanes_opened: 0,
            polls: 0,
            events: VecDeque::new(),
            errors: ErrorRows::default(),
            field_errors: 0,
            field_error: None,
            field_error_told: false,
            failed: None,
            constants: None,
            monitor,
            clock,
        };
        let monitoring = this.monitor.is_some();
        if !restored.is_empty() {
            this.resume(position::union(restored, monitoring)?)?;
        } else if !monitoring {
            this.start(format)?;
        }
        if monitoring {
            this.scan()?;
        } else {
            (0..this.inputs.len()).for_each(|index| this.open_lane(index));
        }
        Ok(this)
    }

    fn start(&mut self, format: &Format) -> Result<()> {
        let splittable = match format {
            Format::Csv(csv) => csv.quote.is_none() && csv.escape.is_none(),
            Format::Json(_) | Format::ChangelogJson(_) => true,
        };
        let files = listing::list(&self.options.path, self.options.compression, false)?;
        let chunks = files.iter().map(|file| splits::cut(file, self.options.split_bytes, splittable)).collect();
        let mine = splits::deal(chunks, self.place.index, self.place.parallelism);
        for (file, chunks) in files.into_iter().zip(mine) {
            if !chunks.is_empty() {
                let head = file.head(None)?;
                self.inputs.push(Input::new(file, head, chunks));
            }
        }
        Ok(())
    }

    /// Takes this subtask's part of what the checkpoint left to do, after checking that the files are still the same.
    fn resume(&mut self, files: Vec<FilePosition>) -> Result<()> {
        let Place { index, parallelism, .. } = self.place;
        let monitoring = self.monitor.is_some();
        let mut dealt = Vec::new();
        if !monitoring {
            dealt = splits::deal(files.iter().map(|file| file.chunks.clone()).collect(), index, parallelism);
        }
        for (number, old) in files.into_iter().enumerate() {
            let chunks = match monitoring {
                true if splits::owner(&old.path, parallelism) == index => old.chunks,
                true => Vec::new(),
                false => std::mem::take(&mut dealt[number]),
            };
            if chunks.is_empty() {
                continue;
            }
            let file = match File::stat(&old.path, self.options.compression) {
                Ok(file) => file,
                // A followed file that had been read to its end may be tidied away.
                Err(_) if monitoring && chunks.iter().all(|chunk| chunk.at >= Some(old.size)) => continue,
                Err(error) => return Err(error).invalid(|| "a file of the checkpoint is gone".into()),
            };
            if !file.regular {
                return Err(Error::invalid(format!(
                    "file \"{}\" is no regular file and cannot be read again",
                    old.path
                )));
            }
            if file.size < old.size || file.head(Some(old.head.0))? != old.head {
                return Err(Error::invalid(format!(
                    "file \"{}\" is not the one that the checkpoint was made with: it had {} bytes, now {}{}",
                    old.path,
                    old.size,
                    file.size,
                    if file.size < old.size { "" } else { ", and begins differently" }
                )));
            }
            self.inputs.push(Input::new(file, old.head, chunks));
        }
        Ok(())
    }

    /// Looks for new files, and for new lines in known ones.
    fn scan(&mut self) -> Result<()> {
        let now = (self.clock)();
        let Some(monitor) = &mut self.monitor else { return Ok(()) };
        let interval = monitor.interval_ms;
        monitor.next_scan = now + interval;
        let listed = listing::list(&self.options.path, self.options.compression, true)?;
        for file in &listed {
            let known = self.inputs.iter().any(|input| input.file.path == file.path);
            if known || splits::owner(&file.path, self.place.parallelism) != self.place.index {
                continue;
            }
            let head = file.head(None)?;
            self.inputs.push(Input::new(file.clone(), head, vec![Chunk::new(0, OPEN_END)]));
        }
        for index in 0..self.inputs.len() {
            let input = &mut self.inputs[index];
            let found = listed.iter().position(|file| file.path == input.file.path);
            if let Some(found) = found {
                let file = &listed[found];
                if file.size < input.file.size {
                    return Err(Error::invalid(format!(
                        "file \"{}\" shrank from {} to {} bytes while it was followed; new rows must be appended",
                        file.path, input.file.size, file.size
                    )));
                }
                if file.size > input.file.size && self.constants.as_ref().is_some_and(|(of, _)| *of == index) {
                    self.constants = None;
                }
                input.file = file.clone();
            }
            let more = match input.file.codec {
                _ if found.is_none() => false,
                Codec::Plain => input.file.size > input.seen,
                _ => input.chunks[0].end == OPEN_END && input.lane.is_none(),
            };
            match &mut input.lane {
                None if more => self.open_lane(index),
                None => {}
                Some(lane) if more => lane.quiet_since = None,
                Some(lane) if lane.quiet_since.is_some_and(|since| now - since >= interval) => {
                    self.events.push_back(Polled::Closed(lane.number));
                    input.lane = None;
                }
                Some(_) => {}
            }
        }
        // Files that are gone and have no lane are forgotten.
        self.constants = None;
        self.inputs.retain(|input| input.lane.is_some() || listed.iter().any(|file| file.path == input.file.path));
        Ok(())
    }

    fn open_lane(&mut self, index: usize) {
        let number = self.lanes_opened;
        self.lanes_opened += 1;
        self.events.push_back(Polled::Opened(number));
        self.inputs[index].lane = Some(Lane { number, reader: None, used: 0, quiet_since: None, done: false });
    }

    /// The input whose lane has the lowest watermark, the oldest lane among equals.
    fn furthest_behind(&self, watermarks: &[i64]) -> Option<usize> {
        let lanes = self.inputs.iter().enumerate().filter_map(|(index, input)| Some((index, input.lane.as_ref()?)));
        lanes
            .filter(|(_, lane)| lane.quiet_since.is_none())
            .min_by_key(|(_, lane)| (watermarks.get(lane.number).copied().unwrap_or(i64::MIN), lane.number))
            .map(|(index, _)| index)
    }

    /// Opens the reader of an input's first chunk, and closes that of another when too many are open.
    fn open_reader(&mut self, index: usize) -> Result<()> {
        let packed = self.inputs[index].file.codec != Codec::Plain;
        let open = |input: &&mut Input| {
            (input.file.codec != Codec::Plain) == packed
                && input.lane.as_ref().is_some_and(|lane| lane.reader.is_some())
        };
        let count = self.inputs.iter_mut().filter(open).count();
        if packed && count >= PACKED_MAX {
            return Err(Error::invalid(format!(
                "more than {PACKED_MAX} compressed files cover the same time and would have to be read at once; merge them, or raise the parallelism"
            )));
        }
        if count >= PLAIN_MAX && !packed {
            let oldest = self.inputs.iter_mut().filter(open).filter_map(|input| input.lane.as_mut());
            if let Some(lane) = oldest.min_by_key(|lane| lane.used) {
                lane.reader = None;
            }
        }
        let lanes = self.inputs.iter().filter(|input| input.lane.is_some()).count();
        let buffer = if lanes > MANY_LANES { SMALL_BUFFER_BYTES } else { BUFFER_BYTES };
        let input = &mut self.inputs[index];
        if let (Some(lane), Some(chunk)) = (&mut input.lane, input.chunks.front_mut()) {
            lane.reader = Some(Reader::open(&input.file, chunk, buffer)?);
        }
        Ok(())
    }

    /// Decodes rows of one input into the open batch, until it is full or nothing more can be had now.
    fn read(&mut self, index: usize, bytes: &mut u64) -> Result<()> {
        let following = self.monitor.is_some();
        loop {
            let input = &mut self.inputs[index];
            let lane = input.lane.as_mut().expect("only open lanes are read");
            let Some(chunk) = input.chunks.front() else {
                lane.done = true;
                return Ok(());
            };
            if lane.reader.is_none() {
                self.open_reader(index)?;
                continue;
            }
            if lane.used != self.polls {
                lane.used = self.polls;
                self.decoder.begin(chunk.start == 0 && chunk.lines == 0);
            }
            let grows = following && input.file.codec == Codec::Plain;
            let reader = lane.reader.as_mut().expect("opened above");
            let chunk = &mut input.chunks[0];
            let (window, last) = reader.window();
            let decoded = self.decoder.decode(window, last && !grows);
            let (from, lines) = (reader.offset, chunk.lines);
            reader.consume(decoded.consumed);
            chunk.at = Some(reader.offset);
            chunk.lines += decoded.lines;
            self.field_errors += decoded.nulled.fields;
            let first = decoded.nulled.first.filter(|_| !std::mem::replace(&mut self.field_error_told, true));
            if let Some(error) = first {
                self.field_error = Some(format!("{}: {error}", input.file.path));
            }
            match decoded.stop {
                Stop::Full => break,
                Stop::Bad(error) => {
                    let line = match chunk.start {
                        0 => lines + error.line + 1,
                        _ => input.line_at(from + error.offset as u64)?,
                    };
                    self.bad_row(index, line, error)?;
                    if self.errors.len() >= ERRORS_MAX {
                        break;
                    }
                }
                // All there is of a growing file is decoded: see whether there is more, else wait for the next scan.
                Stop::Input if grows => {
                    if !reader.fill()? {
                        input.seen = reader.offset + reader.window().0.len() as u64;
                        lane.quiet_since = Some((self.clock)());
                        break;
                    }
                }
                Stop::Input if last || reader.finished() => {
                    if following {
                        // A followed compressed file does not grow: its end tells the next scan that it is read.
                        chunk.end = reader.offset;
                        lane.done = true;
                        break;
                    }
                    let done = input.chunks.pop_front().map_or(0, |chunk| chunk.end);
                    match input.chunks.front_mut() {
                        // The neighbour is ours too: just read on.
                        Some(next) if next.start == done && next.at.is_none() => {
                            next.at = Some(reader.offset);
                            reader.go_on_to(next.end);
                        }
                        _ => {
                            *bytes += reader.take_bytes();
                            lane.reader = None;
                        }
                    }
                }
                Stop::Input => {
                    reader.fill()?;
                }
            }
        }
        if let Some(reader) = self.inputs[index].lane.as_mut().and_then(|lane| lane.reader.as_mut()) {
            *bytes += reader.take_bytes();
        }
        Ok(())
    }

    fn bad_row(&mut self, index: usize, line: u64, error: DecodeError) -> Result<()> {
        let path = &self.inputs[index].file.path;
        match self.decoder.on_error() {
            OnError::Skip | OnError::Null if !error.fatal => {
                self.errors.push(&self.table, Some(path), Some(line), &error);
                Ok(())
            }
            _ => Err(Error::invalid(format!("{path} line {line}: {error}"))),
        }
    }

    /// The open batch with its METADATA columns.
    fn take_batch(&mut self, index: usize) -> Result<RecordBatch> {
        let batch = self.decoder.take()?;
        if self.metadata.is_empty() {
            return Ok(batch);
        }
        let rows = batch.num_rows();
        let cached = self
            .constants
            .as_ref()
            .is_some_and(|(of, columns)| *of == index && columns.first().is_some_and(|column| column.len() >= rows));
        if !cached {
            let file = &self.inputs[index].file;
            let name = Path::new(&file.path).file_name().and_then(|name| name.to_str()).unwrap_or(&file.path);
            let mut columns = Vec::new();
            for (_, field, key) in &self.metadata {
                let text = match key.as_str() {
                    "file.path" => file.path.clone(),
                    "file.name" => name.to_string(),
                    "file.size" => file.size.to_string(),
                    _ => file.modified_ms.to_string(),
                };
                columns.push(crate::format::constant(field, &text, rows)?);
            }
            self.constants = Some((index, columns));
        }
        let (_, constants) = self.constants.as_ref().expect("made above");
        let mut columns = batch.columns().to_vec();
        for ((at, ..), column) in self.metadata.iter().zip(constants) {
            columns.insert(*at, column.slice(0, rows));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).internal(|| "metadata columns".into())
    }
}

impl Input {
    fn new(file: File, head: (u64, u32), chunks: Vec<Chunk>) -> Input {
        let seen = chunks[0].at.unwrap_or(0);
        Input { file, head, chunks: chunks.into(), lane: None, seen, counted: (0, 0) }
    }

    /// The number of the line that begins at `offset`.
    fn line_at(&mut self, offset: u64) -> Result<u64> {
        let (upto, lines) = if self.counted.0 <= offset { self.counted } else { (0, 0) };
        self.counted = (offset, lines + count_lines(&self.file.path, upto, offset)?);
        Ok(self.counted.1 + 1)
    }
}

impl Source for FilesystemSource {
    fn poll(&mut self, watermarks: &[i64]) -> Result<Polled> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            self.polls += 1;
            if self.monitor.is_some() {
                let now = (self.clock)();
                if self.monitor.as_ref().is_some_and(|monitor| now >= monitor.next_scan) {
                    self.scan()?;
                    if !self.events.is_empty() {
                        continue;
                    }
                }
            }
            let Some(index) = self.furthest_behind(watermarks) else {
                let Some(monitor) = &self.monitor else { return Ok(Polled::End) };
                let next_scan = monitor.next_scan;
                let wait = (next_scan - (self.clock)()).clamp(1, WAIT_MS);
                return Ok(Polled::Wait(wait as u64));
            };
            let mut bytes = 0;
            let result = self.read(index, &mut bytes);
            let lane = self.inputs[index].lane.as_mut().expect("only open lanes are read");
            let number = lane.number;
            if lane.done {
                self.inputs[index].lane = None;
                self.events.push_back(Polled::Closed(number));
            }
            self.failed = result.err();
            if self.decoder.rows() == 0 && self.errors.is_empty() {
                continue;
            }
            let batch = self.take_batch(index)?;
            return Ok(Polled::Batch(SourceBatch {
                lane: number,
                batch,
                errors: self.errors.take()?,
                field_errors: std::mem::take(&mut self.field_errors),
                field_error: self.field_error.take(),
                bytes,
            }));
        }
    }

    fn position(&self) -> Result<Vec<u8>> {
        // The row that failed is consumed already: a restart from here would not see it again.
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let files = self.inputs.iter().filter(|input| !input.chunks.is_empty()).map(|input| FilePosition {
            path: input.file.path.clone(),
            size: input.file.size,
            head: input.head,
            chunks: input.chunks.iter().cloned().collect(),
        });
        position::write(self.monitor.is_some(), files.collect())
    }

    fn bounded(&self) -> bool {
        self.monitor.is_none()
    }
}
