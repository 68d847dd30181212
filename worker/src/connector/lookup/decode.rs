//! From what a server has for each key to columns: JSON documents by the table's format, fields and plain values by
//! their text.
//!
//! A JSON document is an object, which is one row, or where the connector says so an array of objects, which are as
//! many. It may have line ends between its parts: the decoder takes lines, so they are taken out first.

use super::Raw;
use crate::error::{Code, Context, Error, Result};
use crate::format::decode::{Decoded, Stop};
use crate::format::{Decoder, decoder, expected, of_texts};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use arrow_select::concat::concat_batches;
use ef_proto::connector::lookup::LookupConnector;
use ef_proto::plan::LookupJoin;
use ef_proto::schema::Schema;
use std::sync::Arc;

pub(super) struct Decode {
    values: Schema,
    schema: SchemaRef,
    how: How,
}

enum How {
    /// No column is asked for: there is a row or there is none.
    There,
    Documents {
        decoder: Box<dyn Decoder>,
        /// An array of objects is so many rows, and an empty document or `null` is none.
        several: bool,
    },
    Texts,
}

/// At the n-th key.
type Failed = (usize, Error);

impl Decode {
    pub fn new(spec: &LookupJoin) -> Result<Decode> {
        let values = spec.values();
        let several = matches!(spec.connector, LookupConnector::Http(_));
        let how = match &spec.format {
            // Of a web service the number of rows is in the document.
            Some(format) if several || !values.is_empty() => {
                How::Documents { decoder: decoder(format, &values)?, several }
            }
            None if !values.is_empty() => How::Texts,
            _ => How::There,
        };
        Ok(Decode { schema: values.to_arrow(), values, how })
    }

    /// The rows of all keys behind each other, and how many each has.
    pub fn rows(&mut self, raw: &[Raw]) -> std::result::Result<(RecordBatch, Vec<u32>), Failed> {
        match &mut self.how {
            How::There => {
                let counts: Vec<u32> = raw.iter().map(|raw| u32::from(*raw != Raw::Missing)).collect();
                let rows = counts.iter().sum::<u32>() as usize;
                Ok((self.batch(vec![], rows).map_err(|error| (0, error))?, counts))
            }
            How::Documents { decoder, several } => {
                let mut documents = Documents { decoder: decoder.as_mut(), batches: vec![], rows: 0 };
                let mut counts = Vec::with_capacity(raw.len());
                for (at, raw) in raw.iter().enumerate() {
                    let before = documents.rows;
                    if let Raw::Document(document) = raw
                        && let Err(error) = documents.document(document, *several)
                    {
                        // The rows before it are of no use to anybody any more.
                        documents.decoder.take().map_err(|error| (at, error))?;
                        return Err((at, error));
                    }
                    counts.push((documents.rows - before) as u32);
                }
                let rows = documents.finish(&self.schema).map_err(|error| (0, error))?;
                Ok((rows, counts))
            }
            How::Texts => self.texts(raw),
        }
    }

    fn texts(&self, raw: &[Raw]) -> std::result::Result<(RecordBatch, Vec<u32>), Failed> {
        let counts: Vec<u32> = raw.iter().map(|raw| u32::from(*raw != Raw::Missing)).collect();
        let found: Vec<usize> = (0..raw.len()).filter(|at| counts[*at] > 0).collect();
        let mut columns = Vec::with_capacity(self.values.len());
        for (i, field) in self.values.fields.iter().enumerate() {
            let text = |at: &usize| match &raw[*at] {
                Raw::Missing => None,
                Raw::Document(document) => Some(document.as_slice()),
                Raw::Fields(fields) => fields.get(i).and_then(Option::as_deref),
            };
            let texts: Vec<Option<&[u8]>> = found.iter().map(text).collect();
            let column = of_texts(field, &texts).map_err(|error| (0, error))?;
            columns.push(column.map_err(|at| {
                let what = match texts[at] {
                    None => format!("column `{}` is NOT NULL and has no value", field.name),
                    Some(text) => {
                        let text: String = String::from_utf8_lossy(text).chars().take(100).collect();
                        format!("column `{}`: expected {}, found '{text}'", field.name, expected(&field.ty))
                    }
                };
                (found[at], Error::invalid(what))
            })?);
        }
        Ok((self.batch(columns, found.len()).map_err(|error| (0, error))?, counts))
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .internal(|| "rows of a lookup".into())
    }
}

/// One answer's documents on their way to columns.
struct Documents<'a> {
    decoder: &'a mut dyn Decoder,
    /// Full ones.
    batches: Vec<RecordBatch>,
    rows: usize,
}

impl Documents<'_> {
    fn document(&mut self, document: &[u8], several: bool) -> Result<()> {
        let mut line: Vec<u8> = document.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect();
        let text = line.trim_ascii();
        match text.first() {
            None | Some(b'n') if several && (text.is_empty() || text == b"null") => Ok(()),
            None => Err(Error::invalid("expected a JSON object, found nothing")),
            Some(b'[') if several => {
                let items = items(text).ok_or_else(|| Error::invalid("expected a JSON array of objects"))?;
                items.into_iter().try_for_each(|item| self.object(&mut text[item].to_vec()))
            }
            Some(_) => self.object(&mut line),
        }
    }

    fn object(&mut self, line: &mut Vec<u8>) -> Result<()> {
        line.push(b'\n');
        loop {
            let before = self.decoder.rows();
            let Decoded { stop, .. } = self.decoder.decode(line, true);
            match stop {
                Stop::Input if self.decoder.rows() == before + 1 => {
                    self.rows += 1;
                    return Ok(());
                }
                Stop::Input => return Err(Error::invalid("expected a JSON object")),
                Stop::Full => self.batches.push(self.decoder.take()?),
                Stop::Bad(error) => return Err(Error::invalid(error.to_string())),
            }
        }
    }

    fn finish(mut self, schema: &SchemaRef) -> Result<RecordBatch> {
        let last = self.decoder.take()?;
        if self.batches.is_empty() {
            return Ok(last);
        }
        self.batches.push(last);
        if schema.fields().is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
            return RecordBatch::try_new_with_options(schema.clone(), vec![], &options)
                .internal(|| "rows of a lookup".into());
        }
        let rows = concat_batches(schema, &self.batches).internal(|| "rows of a lookup".into())?;
        if rows.num_rows() != self.rows {
            return Err(Error::new(Code::Internal, "rows of a lookup are lost"));
        }
        Ok(rows)
    }
}

/// Where the items of a JSON array are. None: it is none. Whether each item is well-formed is the decoder's business.
fn items(array: &[u8]) -> Option<Vec<std::ops::Range<usize>>> {
    let inside = array.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let mut items = Vec::new();
    let (mut depth, mut start, mut in_string, mut escaped) = (0i32, 1, false, false);
    for (at, b) in inside.iter().enumerate().map(|(at, b)| (at + 1, *b)) {
        if in_string {
            (in_string, escaped) = (escaped || b != b'"', !escaped && b == b'\\');
            continue;
        }
        match b {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => {
                items.push(start..at);
                start = at + 1;
            }
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    let last = start..array.len() - 1;
    if !items.is_empty() || !array[last.clone()].trim_ascii().is_empty() {
        items.push(last);
    }
    (depth == 0 && !in_string).then_some(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::BATCH_ROWS;
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use ef_proto::connector::{Format, Json, OnError, TimestampFormat};
    use ef_proto::schema::{DataType, Field};

    fn decode(how: &str) -> Decode {
        let values = Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("name", DataType::String, how == "strict"),
        ]);
        let format = Format::Json(Json { on_error: OnError::Fail, timestamps: TimestampFormat::Sql });
        let how = match how {
            "texts" => How::Texts,
            several => {
                How::Documents { decoder: decoder(&format, &values).expect("json"), several: several == "several" }
            }
        };
        Decode { schema: values.to_arrow(), values, how }
    }

    fn document(text: &str) -> Raw {
        Raw::Document(text.into())
    }

    #[test]
    fn objects_arrays_and_nothing_are_one_many_and_no_rows() {
        let mut decode = decode("several");
        let raw = [
            document("{\n  \"n\": 1,\r\n \"name\": \"a, [b] \\\" {\"\n}\n"),
            Raw::Missing,
            document(" [ {\"n\":2,\"name\":\"x\"} ,{\"name\":\"],\",\"n\":3}]\n"),
            document("[]"),
            document("null"),
            document(""),
            document("[{\"n\":4,\"name\":\"y\"}]"),
        ];
        let (rows, counts) = decode.rows(&raw).expect("well-formed");
        assert_eq!(counts, [1, 0, 2, 0, 0, 0, 1]);
        assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[1, 2, 3, 4]);
        let names: Vec<&str> = rows.column(1).as_string::<i32>().iter().flatten().collect();
        assert_eq!(names, ["a, [b] \" {", "x", "],", "y"]);
        let (rows, counts) = decode.rows(&[document("{\"n\":9,\"name\":\"z\"}")]).expect("the next answer is its own");
        assert_eq!((rows.num_rows(), counts), (1, vec![1]));
    }

    #[test]
    fn a_document_that_is_none_is_told_with_its_key() {
        for (how, bad, expected) in [
            ("several", "[1, 2]", "JSON object"),
            ("several", "[{\"n\":1]", "array"),
            ("several", "[{\"n\":1,\"name\":\"a\"}", "array"),
            ("several", "{\"n\":\"x\"}", "column \"n\""),
            ("one", "", "found nothing"),
            ("one", "[]", "JSON object"),
            ("one", "null", "JSON object"),
            ("one", "{\"n\":1,\"name\":\"a\"} {\"n\":2,\"name\":\"b\"}", "JSON object"),
        ] {
            let mut decode = decode(how);
            let good = "{\"n\":1,\"name\":\"a\"}";
            let (at, error) = decode.rows(&[document(good), document(bad), document(good)]).expect_err(bad);
            assert_eq!(at, 1, "{bad}");
            assert!(error.message.contains(expected), "{bad}: {error}");
            let (rows, _) = decode.rows(&[document(good)]).expect("nothing of the bad answer is left");
            assert_eq!(rows.num_rows(), 1);
        }
    }

    #[test]
    fn more_rows_than_a_batch_come_as_one_answer() {
        let mut decode = decode("one");
        let count = BATCH_ROWS + 10;
        let raw: Vec<Raw> = (0..count).map(|n| document(&format!("{{\"n\":{n},\"name\":\"a\"}}"))).collect();
        let (rows, counts) = decode.rows(&raw).expect("well-formed");
        assert_eq!((rows.num_rows(), counts.len()), (count, count));
        assert_eq!(rows.column(0).as_primitive::<Int64Type>().value(count - 1), (count - 1) as i64);
    }

    #[test]
    fn fields_are_read_as_their_columns_say() {
        let mut decode = decode("texts");
        let fields = |n: Option<&str>, name: Option<&str>| {
            Raw::Fields([n, name].map(|text| text.map(|text| text.as_bytes().to_vec())).to_vec())
        };
        let raw = [fields(Some("7"), Some("a")), Raw::Missing, fields(None, Some("b"))];
        let (rows, counts) = decode.rows(&raw).expect("they fit");
        assert_eq!(counts, [1, 0, 1]);
        assert_eq!(rows.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(7), None]);
        let (at, error) = decode.rows(&[Raw::Missing, fields(Some("x"), Some("a"))]).expect_err("no number");
        assert_eq!((at, error.message.contains("column `n`: expected a whole number")), (1, true), "{error}");
        let (at, error) = decode.rows(&[fields(Some("1"), None)]).expect_err("NOT NULL");
        assert_eq!((at, error.message.contains("column `name` is NOT NULL")), (0, true), "{error}");
    }
}
