//! Reads files into batches: one lane a file, its chunks one after another, the lane furthest behind first.
//!
//! Bounded, the files are listed once. Monitoring, new files and new rows are looked for at every interval (see
//! `follow`); a file that has been quiet for an interval closes its lane, so that it holds back no watermark, and gets
//! one again when it grows. At most [`PLAIN_MAX`] plain files are kept open (others are reopened where they were) and
//! [`PACKED_MAX`] compressed ones, which cannot be reopened cheaply: more of them with one time range are an error.

use super::super::{Place, Polled, Source, SourceBatch};
use super::input::{Input, Lane};
use super::listing::{self, Codec, File, Gone};
use super::position::{self, FilePosition};
use super::reader::{Filled, Reader};
use super::splits;
use crate::error::{Context, Error, Result};
use crate::format::decode::{DecodeError, LINE_BYTES};
use crate::format::{Decoder, ErrorRows, Stop, decoder};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use ef_proto::connector::{FilesystemSource as Options, Format, OnError};
use ef_proto::plan;
use ef_proto::schema::{Field, Schema};
use std::collections::{BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

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

/// Polls after which a lane that rests is tried again, while others have rows.
const REST_POLLS: u64 = 16;

/// Elapsed milliseconds, from any start.
pub type Clock = Box<dyn FnMut() -> i64 + Send>;

pub(super) struct Monitor {
    pub interval_ms: i64,
    pub next_scan: i64,
}

pub struct FilesystemSource {
    table: String,
    pub(super) options: Options,
    pub(super) place: Place,
    schema: SchemaRef,
    /// METADATA columns: position in the schema, field, key.
    metadata: Vec<(usize, Field, String)>,
    decoder: Box<dyn Decoder>,
    pub(super) inputs: Vec<Input>,
    /// Lane numbers given out so far, and those of them that are closed.
    lanes: usize,
    closed_lanes: BTreeSet<usize>,
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
    pub(super) constants: Option<(usize, Vec<ArrayRef>)>,
    pub(super) monitor: Option<Monitor>,
    pub(super) gone: Gone,
    pub(super) clock: Clock,
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
            lanes: 0,
            closed_lanes: BTreeSet::new(),
            polls: 0,
            events: VecDeque::new(),
            errors: ErrorRows::default(),
            field_errors: 0,
            field_error: None,
            field_error_told: false,
            failed: None,
            constants: None,
            gone: if monitor.is_some() { Gone::Below } else { Gone::Refused },
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
            // The changes of a row come in one order only.
            format => !format.reads_changelog(),
        };
        let files = listing::list(&self.options.path, self.options.compression, self.gone)?;
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
        if self.monitor.is_some() {
            return self.resume_followed(files);
        }
        let Place { index, parallelism, .. } = self.place;
        let dealt = splits::deal(files.iter().map(|file| file.chunks.clone()).collect(), index, parallelism);
        for (old, chunks) in files.into_iter().zip(dealt) {
            if !chunks.is_empty() {
                let file = File::stat(&old.path, self.options.compression);
                let file = file.invalid(|| "a file of the checkpoint is gone".into())?;
                old.check(&file)?;
                self.inputs.push(Input::new(file, old.head, chunks));
            }
        }
        Ok(())
    }

    /// The lowest number that is not in use, so that those who keep something per lane need no more of it than lanes
    /// are open at once.
    pub(super) fn open_lane(&mut self, index: usize) {
        let number = self.closed_lanes.pop_first().unwrap_or_else(|| {
            self.lanes += 1;
            self.lanes - 1
        });
        self.events.push_back(Polled::Opened(number));
        self.inputs[index].lane = Some(Lane { number, reader: None, quiet_since: None, rests: false, done: false });
    }

    pub(super) fn close_lane(&mut self, index: usize) {
        if let Some(lane) = self.inputs[index].lane.take() {
            self.closed_lanes.insert(lane.number);
            self.events.push_back(Polled::Closed(lane.number));
        }
    }

    /// The input whose lane has the lowest watermark, the oldest lane among equals.
    fn furthest_behind(&self, watermarks: &[i64]) -> Option<usize> {
        let lanes = self.inputs.iter().enumerate().filter_map(|(index, input)| Some((index, input.lane.as_ref()?)));
        lanes
            .filter(|(_, lane)| lane.quiet_since.is_none() && !lane.rests)
            .min_by_key(|(_, lane)| (watermarks.get(lane.number).copied().unwrap_or(i64::MIN), lane.number))
            .map(|(index, _)| index)
    }

    /// Whether any lane rested.
    fn end_rests(&mut self) -> bool {
        let mut any = false;
        for lane in self.inputs.iter_mut().filter_map(|input| input.lane.as_mut()) {
            any |= std::mem::take(&mut lane.rests);
        }
        any
    }

    /// Opens the reader of an input's first chunk, and closes another file when too many are open. False: a followed
    /// file is not there any more, or another one is; the next scan will tell.
    fn open_reader(&mut self, index: usize) -> Result<bool> {
        let packed = self.inputs[index].file.codec != Codec::Plain;
        if packed {
            let readers = self.inputs.iter().filter(|input| {
                input.file.codec != Codec::Plain && input.lane.as_ref().is_some_and(|lane| lane.reader.is_some())
            });
            if readers.count() >= PACKED_MAX {
                return Err(Error::invalid(format!(
                    "more than {PACKED_MAX} compressed files cover the same time and would have to be read at once; merge them, or raise the parallelism"
                )));
            }
        }
        if self.inputs[index].handle.is_none() {
            self.close_oldest();
            let input = &mut self.inputs[index];
            let shown = || format!("file \"{}\"", input.file.path);
            let handle = match listing::open(&input.file.path) {
                Err(error) if self.monitor.is_some() && error.kind() == ErrorKind::NotFound => return Ok(false),
                handle => handle.invalid(shown)?,
            };
            if listing::id(&handle.metadata().invalid(shown)?) != input.file.id {
                return match self.monitor {
                    Some(_) => Ok(false),
                    None => Err(Error::invalid(format!("{} was replaced while it was read", shown()))),
                };
            }
            input.handle = Some(Arc::new(handle));
        }
        let lanes = self.inputs.iter().filter(|input| input.lane.is_some()).count();
        let buffer = if lanes > MANY_LANES { SMALL_BUFFER_BYTES } else { BUFFER_BYTES };
        let input = &mut self.inputs[index];
        if let (Some(lane), Some(handle), Some(chunk)) = (&mut input.lane, &input.handle, input.chunks.front_mut()) {
            lane.reader = Some(Reader::open(&input.file, handle.clone(), chunk, buffer)?);
        }
        Ok(true)
    }

    /// Closes the plain file that was not read for longest, when [`PLAIN_MAX`] are open; also packed ones whose lane is
    /// closed count. One that is no longer found under its name could not be opened again.
    fn close_oldest(&mut self) {
        let closable = |input: &&mut Input| {
            let cheap = input.file.codec == Codec::Plain || input.lane.is_none();
            input.handle.is_some() && input.file.regular && cheap && input.missing == 0
        };
        if self.inputs.iter_mut().filter(closable).count() < PLAIN_MAX {
            return;
        }
        if let Some(oldest) = self.inputs.iter_mut().filter(closable).min_by_key(|input| input.used) {
            oldest.handle = None;
            if let Some(lane) = &mut oldest.lane {
                lane.reader = None;
            }
        }
    }

    /// Decodes rows of one input into the open batch, until it is full or nothing more can be had now.
    fn read(&mut self, index: usize, bytes: &mut u64) -> Result<()> {
        let following = self.monitor.is_some();
        let mut passed_over = 0;
        loop {
            let input = &mut self.inputs[index];
            let lane = input.lane.as_mut().expect("only open lanes are read");
            let Some(chunk) = input.chunks.front() else {
                lane.done = true;
                return Ok(());
            };
            if lane.reader.is_none() {
                if !self.open_reader(index)? {
                    let lane = self.inputs[index].lane.as_mut().expect("as above");
                    lane.done = true;
                    return Ok(());
                }
                continue;
            }
            if input.used != self.polls {
                input.used = self.polls;
                self.decoder.begin(chunk.start == 0 && chunk.lines == 0);
            }
            let grows = following && input.grows();
            let lane = input.lane.as_mut().expect("only open lanes are read");
            let reader = lane.reader.as_mut().expect("opened above");
            let chunk = &mut input.chunks[0];
            let (from, lines) = (reader.offset, chunk.lines);
            let mut last = false;
            if reader.is_discarding() {
                // Until its end is found, a position is before the row.
                let row_at = chunk.at.unwrap_or(0);
                if let Some((row, line_end)) = reader.pass_over(grows, self.decoder.on_error() == OnError::Fail) {
                    chunk.at = Some(reader.offset);
                    chunk.lines += line_end as u64;
                    let reason = format!("the row is longer than {} MiB", LINE_BYTES >> 20);
                    let error = DecodeError::new(0, 0, None, reason, &row);
                    let line = if chunk.start == 0 { lines + 1 } else { input.lines.at(row_at, &input.file.path)? };
                    self.bad_row(index, line, error)?;
                    continue;
                }
                passed_over += reader.offset - from;
                if passed_over > LINE_BYTES as u64 {
                    lane.rests = true;
                    break;
                }
            } else if reader.skip_mark(grows) {
                let window;
                (window, last) = reader.window();
                let decoded = self.decoder.decode(window, last && !grows);
                reader.consume(decoded.consumed);
                chunk.at = Some(reader.offset);
                chunk.lines += decoded.lines;
                let in_file = chunk.start == 0;
                let first = decoded.nulled.first.filter(|_| !std::mem::replace(&mut self.field_error_told, true));
                self.field_errors += decoded.nulled.fields;
                if let Some(error) = first {
                    let line = if in_file {
                        lines + error.line + 1
                    } else {
                        input.lines.at(from + error.offset as u64, &input.file.path)?
                    };
                    self.field_error = Some(format!("{} line {line}: {error}", input.file.path));
                }
                match decoded.stop {
                    Stop::Full => break,
                    Stop::Bad(error) => {
                        let line = match in_file {
                            true => lines + error.line + 1,
                            false => input.lines.at(from + error.offset as u64, &input.file.path)?,
                        };
                        self.bad_row(index, line, error)?;
                        if self.errors.len() >= ERRORS_MAX {
                            break;
                        }
                        continue;
                    }
                    Stop::Input => {}
                }
            }
            // All rows that were read are decoded.
            if !grows && (last || reader.finished()) {
                if following {
                    // Whether something is appended to a packed file, the next scan will tell.
                    chunk.end = reader.offset;
                    input.seen = reader.raw_bytes();
                    lane.done = true;
                    break;
                }
                let done = input.chunks.pop_front().map_or(0, |chunk| chunk.end);
                match input.chunks.front_mut() {
                    // The neighbour is ours too: just read on.
                    Some(next) if next.start == done && next.at.is_none() => {
                        next.at = Some(reader.offset);
                        reader.go_on_to(next.end)?;
                    }
                    _ => {
                        *bytes += reader.take_bytes();
                        lane.reader = None;
                        input.handle = None;
                    }
                }
                continue;
            }
            match reader.fill()? {
                Filled::More => {}
                // Of a growing file that is all for now; for others the window now ends with its last row.
                Filled::End if grows => {
                    input.seen = reader.offset + reader.window().0.len() as u64;
                    lane.quiet_since = Some((self.clock)());
                    break;
                }
                Filled::End => {}
                Filled::Later => {
                    lane.rests = true;
                    break;
                }
                Filled::Cut(_) if following => {
                    input.seen = reader.raw_bytes();
                    *bytes += reader.take_bytes();
                    lane.reader = None;
                    lane.quiet_since = Some((self.clock)());
                    break;
                }
                Filled::Cut(error) => return Err(error),
                Filled::TooLong => reader.discard(),
            }
        }
        let input = &mut self.inputs[index];
        if let Some(reader) = input.lane.as_mut().and_then(|lane| lane.reader.as_mut()) {
            *bytes += reader.take_bytes();
        }
        if following { input.extend_head() } else { Ok(()) }
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
            if self.polls.is_multiple_of(REST_POLLS) {
                self.end_rests();
            }
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
                if self.end_rests() {
                    return Ok(Polled::Wait(WAIT_MS as u64));
                }
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
                self.close_lane(index);
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
        let files = self.inputs.iter().filter(|input| !input.chunks.is_empty()).map(Input::position);
        position::write(self.monitor.is_some(), files.collect())
    }

    fn bounded(&self) -> bool {
        self.monitor.is_none()
    }
}
