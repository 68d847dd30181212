//! CSV rows. A field is quoted when it would not read back as it is: it holds a delimiter, a quote, an escape or a
//! line break, begins or ends with a space, is empty, or looks like the NULL literal. NULL itself is never quoted.

use super::view::{self, Values, View};
use crate::error::{Error, Result};
use crate::time::civil::{Fraction, write_date, write_time, write_timestamp};
use arrow_array::RecordBatch;
use ef_proto::connector::Csv;
use ef_proto::error::Code;
use ef_proto::schema::Schema;

pub(super) struct Encoder {
    options: Csv,
    schema: Schema,
}

impl Encoder {
    pub fn new(options: &Csv, schema: &Schema) -> Encoder {
        Encoder { options: options.clone(), schema: schema.clone() }
    }

    /// None: the text needs quotes and there are none.
    fn write_text(&self, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let Csv { delimiter, quote, escape, .. } = self.options;
        let special = |b: &u8| *b == delimiter || *b == b'\n' || *b == b'\r' || Some(*b) == quote || Some(*b) == escape;
        let edge = |b: Option<&u8>| b.is_none_or(|b| *b == b' ' || *b == b'#');
        let null = self.options.null_literal.as_deref().is_some_and(|null| null.as_bytes() == text);
        let holds_special = text.iter().any(special);
        if !holds_special && !null && !edge(text.first()) && !edge(text.last()) {
            out.extend_from_slice(text);
            return Some(());
        }
        match (quote, escape) {
            (Some(quote), escape) => {
                out.push(quote);
                for b in text {
                    if *b == quote {
                        out.push(escape.unwrap_or(quote));
                    } else if Some(*b) == escape {
                        out.push(*b);
                    }
                    out.push(*b);
                }
                out.push(quote);
            }
            (None, Some(escape)) if !text.contains(&b'\n') && !text.contains(&b'\r') => {
                for b in text {
                    if special(b) {
                        out.push(escape);
                    }
                    out.push(*b);
                }
            }
            (None, _) if holds_special => return None,
            (None, _) => out.extend_from_slice(text),
        }
        Some(())
    }

    fn write_field(&self, view: &View<'_>, row: usize, out: &mut Vec<u8>) -> Option<()> {
        if view.is_null(row) {
            out.extend_from_slice(self.options.null_literal.as_deref().unwrap_or("").as_bytes());
            return Some(());
        }
        match &view.values {
            Values::String(v) => return self.write_text(v.value(row).as_bytes(), out),
            Values::Boolean(v) => out.extend_from_slice(if v.value(row) { b"true" } else { b"false" }),
            Values::Int8(v) => view::write_integer(out, v[row]),
            Values::Int16(v) => view::write_integer(out, v[row]),
            Values::Int32(v) => view::write_integer(out, v[row]),
            Values::Int64(v) => view::write_integer(out, v[row]),
            Values::Float32(v) => view::write_float(out, v[row]),
            Values::Float64(v) => view::write_double(out, v[row]),
            Values::Decimal(v, scale) => view::write_decimal(out, v[row], *scale),
            Values::Bytes(v) => view::write_base64(out, v.value(row)),
            Values::Date(v) => write_date(out, v[row] as i64),
            Values::Time(v) => write_time(out, v[row], Fraction::Short),
            Values::Timestamp(v, unit, instant) => {
                write_timestamp(out, v[row], *unit, b' ', Fraction::Full);
                if *instant {
                    out.push(b'Z');
                }
            }
            // The planner lets no such column through to CSV.
            Values::Null | Values::Row(_) | Values::Array(..) | Values::Map(..) => return None,
        }
        Some(())
    }
}

impl super::Encoder for Encoder {
    fn header(&mut self, out: &mut Vec<u8>) {
        if !self.options.header {
            return;
        }
        for (i, field) in self.schema.fields.iter().enumerate() {
            if i > 0 {
                out.push(self.options.delimiter);
            }
            if self.write_text(field.name.as_bytes(), out).is_none() {
                out.extend_from_slice(field.name.as_bytes());
            }
        }
        out.push(b'\n');
    }

    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>, end: &mut dyn FnMut(&mut Vec<u8>)) -> Result<()> {
        let columns = batch.columns().iter().zip(&self.schema.fields);
        let views: Vec<_> = columns.map(|(column, field)| View::new(column, &field.ty)).collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            for (i, view) in views.iter().enumerate() {
                if i > 0 {
                    out.push(self.options.delimiter);
                }
                if self.write_field(view, row, out).is_none() {
                    let name = &self.schema.fields[i].name;
                    let what = format!(
                        "csv: a value of column `{name}` needs quotes, expected 'csv.disable-quote-character' to be 'false'"
                    );
                    return Err(Error::new(Code::Invalid, what));
                }
            }
            end(out);
        }
        Ok(())
    }
}
