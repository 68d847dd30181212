//! The bare final SELECT: NDJSON on a pipe, a growing table on a terminal (header once, columns padded by type).
//! Also the buffered way to standard output that `print` shares.

use super::print::write_value;
use super::{CommitPermit, Sink};
use crate::error::{Code, Error, Result};
use crate::format::encode::view::View;
use crate::format::encode::{Encoder, lines, row_kinds};
use arrow_array::RecordBatch;
use ef_proto::ids::Epoch;
use ef_proto::schema::{DataType, OP_COLUMN, Schema};
use std::io::{self, IsTerminal, Write};

const BUFFER_BYTES: usize = 64 << 10;

/// Whole lines on their way to standard output: subtasks that print at once do not mix their lines.
pub struct Terminal {
    out: Box<dyn Write + Send>,
    pub(super) buffer: Vec<u8>,
    flushed: u64,
}

impl Terminal {
    pub fn stdout() -> Terminal {
        Terminal::to(Box::new(io::stdout()))
    }

    pub fn to(out: Box<dyn Write + Send>) -> Terminal {
        Terminal { out, buffer: Vec::new(), flushed: 0 }
    }

    pub(super) fn flush_when_full(&mut self) -> Result<()> {
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        // `Stdout::write_all` holds its lock for the whole buffer.
        let written = self.out.write_all(&self.buffer).and_then(|()| self.out.flush());
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Error::new(Code::Unavailable, "standard output is closed"),
            _ => Error::new(Code::Unavailable, format!("cannot write to standard output: {error}")),
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }
}

/// A sink that goes away has printed all that it took; an error then has nobody to go to.
impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

pub struct Stdout {
    terminal: Terminal,
    style: Style,
}

enum Style {
    Lines(Box<dyn Encoder>),
    Table(Table),
}

struct Table {
    schema: Schema,
    changelog: bool,
    widths: Vec<usize>,
    headed: bool,
    cell: Vec<u8>,
}

impl Stdout {
    pub fn new(schema: &Schema, changelog: bool) -> Stdout {
        Stdout::to(Terminal::stdout(), io::stdout().is_terminal(), schema, changelog)
    }

    pub fn to(terminal: Terminal, table: bool, schema: &Schema, changelog: bool) -> Stdout {
        let style =
            if table { Style::Table(Table::new(schema, changelog)) } else { Style::Lines(lines(schema, changelog)) };
        Stdout { terminal, style }
    }
}

impl Sink for Stdout {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match &mut self.style {
            Style::Lines(encoder) => encoder.encode(batch, &mut self.terminal.buffer)?,
            Style::Table(table) => table.write(batch, &mut self.terminal.buffer)?,
        }
        self.terminal.flush_when_full()
    }

    fn prepare(&mut self, _epoch: Epoch) -> Result<Vec<u8>> {
        self.terminal.flush()?;
        Ok(Vec::new())
    }

    fn commit(&mut self, _permit: &CommitPermit) -> Result<()> {
        Ok(())
    }

    fn on_clock(&mut self, _now_ms: i64) -> Result<()> {
        self.terminal.flush()
    }

    fn bytes_written(&self) -> u64 {
        self.terminal.bytes()
    }
}

impl Table {
    fn new(schema: &Schema, changelog: bool) -> Table {
        let widths = schema.fields.iter().map(|f| width(&f.ty).max(f.name.chars().count())).collect();
        Table { schema: schema.clone(), changelog, widths, headed: false, cell: Vec::new() }
    }

    fn head(&mut self, out: &mut Vec<u8>) {
        self.headed = true;
        let mut rule = Vec::new();
        if self.changelog {
            out.extend_from_slice(format!(" {OP_COLUMN} |").as_bytes());
            rule.extend_from_slice("-----+".as_bytes());
        }
        for (i, (field, width)) in self.schema.fields.iter().zip(&self.widths).enumerate() {
            if i > 0 {
                out.push(b'|');
                rule.push(b'+');
            }
            pad(out, field.name.as_bytes(), *width, false);
            rule.extend(std::iter::repeat_n(b'-', width + 2));
        }
        out.push(b'\n');
        out.append(&mut rule);
        out.push(b'\n');
    }

    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        if !self.headed {
            self.head(out);
        }
        let columns = batch.columns().iter().zip(&self.schema.fields);
        let views: Vec<_> = columns.map(|(column, field)| View::new(column, &field.ty)).collect::<Result<_>>()?;
        let kinds = if self.changelog { Some(row_kinds(batch)?) } else { None };
        for row in 0..batch.num_rows() {
            if let Some(kinds) = &kinds {
                out.extend_from_slice(format!(" {}  |", kinds[row].short()).as_bytes());
            }
            for (i, view) in views.iter().enumerate() {
                if i > 0 {
                    out.push(b'|');
                }
                self.cell.clear();
                write_value(view, row, &mut self.cell);
                pad(out, &self.cell, self.widths[i], self.schema.fields[i].ty.is_numeric());
            }
            out.push(b'\n');
        }
        Ok(())
    }
}

/// Room that most values of a type need; longer ones push their line aside.
fn width(ty: &DataType) -> usize {
    match ty {
        DataType::Boolean => 5,
        DataType::Int8 => 4,
        DataType::Int16 => 6,
        DataType::Int32 | DataType::Date => 10,
        DataType::Int64 | DataType::Float32 | DataType::Time => 12,
        DataType::Float64 => 18,
        DataType::Decimal { precision, .. } => (*precision as usize + 2).min(20),
        DataType::Timestamp(_) | DataType::TimestampLtz(_) => 23,
        _ => 16,
    }
}

fn pad(out: &mut Vec<u8>, text: &[u8], width: usize, right: bool) {
    let characters = text.iter().filter(|b| (**b & 0xc0) != 0x80).count();
    let blanks = std::iter::repeat_n(b' ', width.saturating_sub(characters));
    out.push(b' ');
    if right {
        out.extend(blanks.clone());
    }
    out.extend_from_slice(text);
    if !right {
        out.extend(blanks);
    }
    out.push(b' ');
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::connector::Place;
    use arrow_array::{ArrayRef, Int8Array, Int32Array, StringArray};
    use ef_proto::ids::OperatorId;
    use ef_proto::schema::Field;
    use std::sync::{Arc, Mutex};

    /// A pipe whose other end is the test.
    #[derive(Clone, Default)]
    pub struct Pipe {
        bytes: Arc<Mutex<Vec<u8>>>,
        closed: bool,
    }

    impl Pipe {
        pub fn text(&self) -> String {
            String::from_utf8(self.bytes.lock().expect("no panic while held").clone()).expect("text")
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.closed {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.bytes.lock().expect("no panic while held").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    pub fn place() -> Place {
        Place {
            table: "t".into(),
            index: 0,
            parallelism: 1,
            job: "j".into(),
            operator: OperatorId(1),
            incarnation: 1,
            now_ms: 0,
            secrets: Default::default(),
            scratch: Default::default(),
            durable: None,
        }
    }

    fn rows() -> (Schema, RecordBatch) {
        let schema =
            Schema::new(vec![Field::new("n", DataType::Int32, true), Field::new("word", DataType::String, true)]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![1, -20])),
            Arc::new(StringArray::from(vec![Some("é\""), None])),
            Arc::new(Int8Array::from(vec![0, 3])),
        ];
        let batch = RecordBatch::try_new(schema.with_op().to_arrow(), columns).expect("columns match");
        (schema, batch)
    }

    #[test]
    fn a_pipe_gets_json_lines_with_the_row_kind_first() {
        let (schema, batch) = rows();
        let pipe = Pipe::default();
        let mut sink = Stdout::to(Terminal::to(Box::new(pipe.clone())), false, &schema, true);
        sink.write(&batch).expect("writes");
        drop(sink);
        let expected = "{\"_op\":\"+I\",\"n\":1,\"word\":\"é\\\"\"}\n{\"_op\":\"-D\",\"n\":-20,\"word\":null}\n";
        assert_eq!(pipe.text(), expected);
    }

    #[test]
    fn a_terminal_gets_one_header_and_padded_columns() {
        let (schema, batch) = rows();
        let pipe = Pipe::default();
        let mut sink = Stdout::to(Terminal::to(Box::new(pipe.clone())), true, &schema, true);
        sink.write(&batch).expect("writes");
        sink.write(&batch).expect("writes");
        sink.on_clock(0).expect("flushes");
        let text = pipe.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert_eq!(lines[0], " _op | n          | word             ");
        assert_eq!(lines[1], "-----+------------+------------------");
        assert_eq!(lines[2], " +I  |          1 | é\"               ");
        assert_eq!(lines[3], " -D  |        -20 | null             ");
    }

    #[test]
    fn a_closed_pipe_says_so() {
        let (schema, batch) = rows();
        let pipe = Pipe { closed: true, ..Pipe::default() };
        let mut sink = Stdout::to(Terminal::to(Box::new(pipe)), false, &schema, true);
        sink.write(&batch).expect("buffered");
        let error = sink.on_clock(0).expect_err("closed");
        assert_eq!((error.code, error.message.as_str()), (Code::Unavailable, "standard output is closed"));
    }
}
