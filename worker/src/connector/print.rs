//! `'connector' = 'print'`: Flink's lines, `+I[a, b]`, with the table's identifier before them and the subtask's
//! number (from 1) when there are several. At least once: a restored job prints again what it printed since then.

use super::stdout::Terminal;
use super::{CommitPermit, Place, Sink};
use crate::error::Result;
use crate::format::encode::row_kinds;
use crate::format::encode::view::{self, Values, View};
use crate::time::civil::{Fraction, write_date, write_time, write_timestamp};
use arrow_array::RecordBatch;
use ef_proto::ids::Epoch;
use ef_proto::schema::{DataType, RowKind, Schema};

pub struct Print {
    terminal: Terminal,
    prefix: Vec<u8>,
    types: Vec<DataType>,
    changelog: bool,
}

impl Print {
    pub fn new(terminal: Terminal, prefix: Option<&str>, schema: &Schema, changelog: bool, place: &Place) -> Print {
        let subtask = (place.parallelism > 1).then(|| (place.index + 1).to_string());
        let parts: Vec<&str> = prefix.filter(|p| !p.is_empty()).into_iter().chain(subtask.as_deref()).collect();
        let prefix = if parts.is_empty() { String::new() } else { format!("{}> ", parts.join(":")) };
        let types = schema.fields.iter().map(|field| field.ty.clone()).collect();
        Print { terminal, prefix: prefix.into_bytes(), types, changelog }
    }
}

impl Sink for Print {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = batch.columns().iter().zip(&self.types);
        let views: Vec<_> = columns.map(|(column, ty)| View::new(column, ty)).collect::<Result<_>>()?;
        let kinds = if self.changelog { Some(row_kinds(batch)?) } else { None };
        let out = &mut self.terminal.buffer;
        for row in 0..batch.num_rows() {
            let kind = kinds.as_ref().map_or(RowKind::Insert, |kinds| kinds[row]);
            out.extend_from_slice(&self.prefix);
            out.extend_from_slice(kind.short().as_bytes());
            write_row(&views, row, out);
            out.push(b'\n');
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

fn write_row(views: &[View<'_>], row: usize, out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, view) in views.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b", ");
        }
        write_value(view, row, out);
    }
    out.push(b']');
}

/// A value as Flink's `Row.toString` shows it: text bare, nested rows with their kind.
pub(super) fn write_value(view: &View<'_>, row: usize, out: &mut Vec<u8>) {
    if view.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match &view.values {
        Values::Null => out.extend_from_slice(b"null"),
        Values::Boolean(v) => out.extend_from_slice(if v.value(row) { b"true" } else { b"false" }),
        Values::Int8(v) => view::write_integer(out, v[row]),
        Values::Int16(v) => view::write_integer(out, v[row]),
        Values::Int32(v) => view::write_integer(out, v[row]),
        Values::Int64(v) => view::write_integer(out, v[row]),
        Values::Float32(v) => view::write_float(out, v[row]),
        Values::Float64(v) => view::write_double(out, v[row]),
        Values::Decimal(v, scale) => view::write_decimal(out, v[row], *scale),
        Values::String(v) => out.extend_from_slice(v.value(row).as_bytes()),
        Values::Bytes(v) => {
            out.push(b'[');
            for (i, byte) in v.value(row).iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(b", ");
                }
                view::write_integer(out, *byte as i8);
            }
            out.push(b']');
        }
        Values::Date(v) => write_date(out, v[row] as i64),
        Values::Time(v) => write_time(out, v[row], Fraction::Short),
        Values::Timestamp(v, unit, instant) => {
            write_timestamp(out, v[row], *unit, b'T', Fraction::Full);
            if *instant {
                out.push(b'Z');
            }
        }
        Values::Row(columns) => {
            out.extend_from_slice(b"+I");
            write_row(columns, row, out);
        }
        Values::Array(offsets, items) => {
            out.push(b'[');
            for item in offsets[row]..offsets[row + 1] {
                if item > offsets[row] {
                    out.extend_from_slice(b", ");
                }
                write_value(items, item as usize, out);
            }
            out.push(b']');
        }
        Values::Map(offsets, keys, values) => {
            out.push(b'{');
            for entry in offsets[row]..offsets[row + 1] {
                if entry > offsets[row] {
                    out.extend_from_slice(b", ");
                }
                write_value(keys, entry as usize, out);
                out.push(b'=');
                write_value(values, entry as usize, out);
            }
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::stdout::tests::{Pipe, place};
    use arrow_array::{ArrayRef, Float64Array, Int8Array, StringArray, TimestampMillisecondArray};
    use ef_proto::schema::{Field, Unit};
    use std::sync::Arc;

    #[test]
    fn rows_are_printed_in_flinks_form() {
        let schema = Schema::new(vec![
            Field::new("name", DataType::String, true),
            Field::new("mean", DataType::Float64, true),
            Field::new("ts", DataType::Timestamp(Unit::Milli), true),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("p1"), None])),
            Arc::new(Float64Array::from(vec![1.0, 0.5])),
            Arc::new(TimestampMillisecondArray::from(vec![1_773_471_540_273, 0])),
            Arc::new(Int8Array::from(vec![0, 2])),
        ];
        let batch = RecordBatch::try_new(schema.with_op().to_arrow(), columns).expect("columns match");
        let pipe = Pipe::default();
        let place = crate::connector::Place { index: 1, parallelism: 2, ..place() };
        let mut print = Print::new(Terminal::to(Box::new(pipe.clone())), Some("alerts"), &schema, true, &place);
        print.write(&batch).expect("writes");
        assert_eq!(pipe.text(), "", "buffered until the clock");
        print.on_clock(0).expect("flushes");
        assert_eq!(
            pipe.text(),
            "alerts:2> +I[p1, 1.0, 2026-03-14T06:59:00.273]\nalerts:2> +U[null, 0.5, 1970-01-01T00:00:00.000]\n"
        );
    }
}
