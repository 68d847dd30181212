//! Single values as plain text, for what is no record: keys and fields of a key-value store, headers, parts of addresses.
//!
//! The text is what JSON has for the value, without the quotes around it, and what `scalar` reads back: `true`, `1.5`,
//! `2026-03-14 06:59:00.000`, base64 for bytes. Nested values are JSON.

use super::json::Object;
use super::view::{Values, View};
use crate::error::Result;
use arrow_array::RecordBatch;
use ef_proto::connector::TimestampFormat;
use ef_proto::schema::Schema;

pub(crate) struct Texts(Object);

impl Texts {
    /// `schema` without `_op`.
    pub fn new(schema: &Schema) -> Texts {
        Texts(Object::new(TimestampFormat::Sql, schema))
    }

    pub fn views<'a>(&self, batch: &'a RecordBatch) -> Result<Vec<View<'a>>> {
        self.0.views(batch)
    }

    /// Appends the value of a column in a row. For NULL nothing, which is the empty text too: ask the view first.
    pub fn write(&self, views: &[View<'_>], column: usize, row: usize, out: &mut Vec<u8>) {
        let view = &views[column];
        if view.is_null(row) {
            return;
        }
        if let Values::String(texts) = &view.values {
            return out.extend_from_slice(texts.value(row).as_bytes());
        }
        let start = out.len();
        self.0.write_field(view, column, row, out);
        // Nothing that JSON quotes here has an escape in it.
        if out.get(start) == Some(&b'"') {
            out.remove(start);
            out.pop();
        }
    }

    /// The value of a column in a row; None: NULL.
    pub fn text(&self, views: &[View<'_>], column: usize, row: usize) -> Option<String> {
        if views[column].is_null(row) {
            return None;
        }
        let mut out = Vec::new();
        self.write(views, column, row, &mut out);
        Some(String::from_utf8(out).expect("digits, letters and what was text before"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, ListArray, StringArray,
        TimestampMillisecondArray, types::Int32Type,
    };
    use ef_proto::schema::{DataType, Field, Unit};
    use std::sync::Arc;

    #[test]
    fn values_are_texts_without_quotes() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]);
        let cases: Vec<(DataType, ArrayRef, &str)> = vec![
            (DataType::String, Arc::new(StringArray::from(vec!["a \"b\"\n"])), "a \"b\"\n"),
            (DataType::String, Arc::new(StringArray::from(vec![None::<&str>])), ""),
            (DataType::Int64, Arc::new(Int64Array::from(vec![-7])), "-7"),
            (DataType::Boolean, Arc::new(BooleanArray::from(vec![true])), "true"),
            (DataType::Float64, Arc::new(Float64Array::from(vec![1.5])), "1.5"),
            (DataType::Float64, Arc::new(Float64Array::from(vec![f64::NAN])), "NaN"),
            (DataType::Bytes, Arc::new(BinaryArray::from(vec![&b"hello"[..]])), "aGVsbG8="),
            (DataType::Date, Arc::new(Date32Array::from(vec![0])), "1970-01-01"),
            (
                DataType::Timestamp(Unit::Milli),
                Arc::new(TimestampMillisecondArray::from(vec![1_773_471_540_273])),
                "2026-03-14 06:59:00.273",
            ),
            (DataType::Array(Box::new(DataType::Int32)), Arc::new(list), "[1,null]"),
        ];
        let fields = cases.iter().enumerate().map(|(i, (ty, ..))| Field::new(format!("c{i}"), ty.clone(), true));
        let schema = Schema::new(fields.collect());
        let columns = cases.iter().map(|(_, column, _)| column.clone()).collect();
        let batch = RecordBatch::try_new(schema.to_arrow(), columns).expect("columns match");
        let texts = Texts::new(&schema);
        let views = texts.views(&batch).expect("types match");
        for (column, (ty, _, expected)) in cases.iter().enumerate() {
            let mut out = b"x".to_vec();
            texts.write(&views, column, 0, &mut out);
            assert_eq!(String::from_utf8_lossy(&out[1..]), *expected, "{ty}");
            let text = texts.text(&views, column, 0);
            assert_eq!(text, (!views[column].is_null(0)).then(|| expected.to_string()), "{ty}");
        }
    }
}
