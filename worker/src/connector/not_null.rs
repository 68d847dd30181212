//! What NOT NULL of a written column means: a row with NULL there fails the job, or is dropped and counted, by
//! `SET 'table.exec.sink.not-null-enforcer'`. The same for all sinks, so it stands in front of them.

use super::{CommitPermit, Published, Sink};
use crate::error::{Code, Error, Result};
use crate::state::Staged;
use arrow_array::{Array, BooleanArray, RecordBatch};
use arrow_buffer::NullBuffer;
use ef_proto::checkpoint::StateFile;
use ef_proto::ids::Epoch;
use ef_proto::schema::Schema;
use std::collections::BTreeMap;

/// What becomes of a row with NULL in a NOT NULL column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcer {
    #[default]
    Error,
    Drop,
}

impl Enforcer {
    /// As the job's SET options say; the planner has checked the value.
    pub fn of(config: &BTreeMap<String, String>) -> Enforcer {
        match config.get("table.exec.sink.not-null-enforcer") {
            Some(value) if value.eq_ignore_ascii_case("DROP") => Enforcer::Drop,
            _ => Enforcer::Error,
        }
    }
}

pub struct NotNull {
    sink: Box<dyn Sink>,
    table: String,
    columns: Vec<(usize, String)>,
    enforcer: Enforcer,
    dropped: u64,
}

/// `sink` behind the check, if `schema` has a column to check.
pub fn enforced(sink: Box<dyn Sink>, table: &str, schema: &Schema, enforcer: Enforcer) -> Box<dyn Sink> {
    let fields = schema.fields.iter().enumerate();
    let columns: Vec<_> = fields.filter(|(_, f)| !f.nullable).map(|(at, f)| (at, f.name.clone())).collect();
    if columns.is_empty() {
        return sink;
    }
    Box::new(NotNull { sink, table: table.into(), columns, enforcer, dropped: 0 })
}

impl Sink for NotNull {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let nulls = |at: usize| batch.column(at).logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let mut missing = self.columns.iter().filter_map(|(at, name)| Some((name, nulls(*at)?))).peekable();
        let Some((name, _)) = missing.peek() else { return self.sink.write(batch) };
        if self.enforcer == Enforcer::Error {
            let message = format!(
                "column `{name}` of table `{}` is NOT NULL, and a row has NULL for it; with SET \
                 'table.exec.sink.not-null-enforcer' = 'DROP' such rows are left out",
                self.table
            );
            return Err(Error::new(Code::Invalid, message));
        }
        let whole = missing.fold(None, |all, (_, nulls)| NullBuffer::union(all.as_ref(), Some(&nulls)));
        let whole = whole.map(NullBuffer::into_inner).ok_or_else(|| Error::new(Code::Internal, "no row is missing"))?;
        let kept = arrow_select::filter::filter_record_batch(batch, &BooleanArray::new(whole, None));
        let kept = kept.map_err(|e| Error::new(Code::Internal, format!("rows without NULL: {e}")))?;
        self.dropped += (batch.num_rows() - kept.num_rows()) as u64;
        self.sink.write(&kept)
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<Vec<u8>> {
        self.sink.prepare(epoch)
    }

    fn stage(&mut self, epoch: Epoch) -> Result<(Vec<u8>, Option<Staged>)> {
        self.sink.stage(epoch)
    }

    fn uploaded(&mut self, sequence: u64, files: Vec<StateFile>) {
        self.sink.uploaded(sequence, files);
    }

    fn confirm(&mut self, sequence: u64) {
        self.sink.confirm(sequence);
    }

    fn commit(&mut self, permit: &CommitPermit) -> Result<()> {
        self.sink.commit(permit)
    }

    fn published(&mut self) -> Result<Published> {
        self.sink.published()
    }

    fn on_clock(&mut self, now_ms: i64) -> Result<()> {
        self.sink.on_clock(now_ms)
    }

    fn interrupt(&self) -> Option<Box<dyn FnOnce() + Send>> {
        self.sink.interrupt()
    }

    fn bytes_written(&self) -> u64 {
        self.sink.bytes_written()
    }

    fn rows_dropped(&self) -> u64 {
        self.dropped + self.sink.rows_dropped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Int64Array, StringArray};
    use ef_proto::schema::{DataType, Field};
    use std::sync::{Arc, Mutex};

    struct Kept(Arc<Mutex<Vec<usize>>>);

    impl Sink for Kept {
        fn write(&mut self, batch: &RecordBatch) -> Result<()> {
            self.0.lock().unwrap().push(batch.num_rows());
            Ok(())
        }

        fn prepare(&mut self, _: Epoch) -> Result<Vec<u8>> {
            Ok(vec![])
        }

        fn commit(&mut self, _: &CommitPermit) -> Result<()> {
            Ok(())
        }
    }

    fn table() -> Schema {
        let field = |name: &str, ty, nullable| Field::new(name, ty, nullable);
        Schema::new(vec![
            field("id", DataType::Int64, false),
            field("note", DataType::String, true),
            field("name", DataType::String, false),
        ])
    }

    /// As an edge delivers it: the columns of the query, all of them nullable.
    fn batch(ids: [Option<i64>; 3], names: [Option<&str>; 3]) -> RecordBatch {
        let fields = table().fields.into_iter().map(|field| Field { nullable: true, ..field }).collect();
        let notes = StringArray::from(vec![None::<&str>; 3]);
        let ids = Int64Array::from(ids.to_vec());
        let names = StringArray::from(names.to_vec());
        let columns: Vec<arrow_array::ArrayRef> = vec![Arc::new(ids), Arc::new(notes), Arc::new(names)];
        RecordBatch::try_new(Schema::new(fields).to_arrow(), columns).unwrap()
    }

    fn sink(enforcer: Enforcer) -> (Box<dyn Sink>, Arc<Mutex<Vec<usize>>>) {
        let kept = Arc::new(Mutex::new(vec![]));
        (enforced(Box::new(Kept(kept.clone())), "o", &table(), enforcer), kept)
    }

    #[test]
    fn null_in_a_not_null_column_fails_with_the_columns_name() {
        let (mut sink, kept) = sink(Enforcer::Error);
        sink.write(&batch([Some(1), Some(2), Some(3)], [Some("a"); 3])).unwrap();
        let error = sink.write(&batch([Some(1), Some(2), Some(3)], [Some("a"), None, Some("c")])).unwrap_err();
        assert!(error.message.contains("column `name` of table `o` is NOT NULL"), "{}", error.message);
        assert_eq!((kept.lock().unwrap().as_slice(), error.code), (&[3][..], Code::Invalid));
    }

    #[test]
    fn dropped_rows_are_counted_and_the_others_written() {
        let (mut sink, kept) = sink(Enforcer::Drop);
        sink.write(&batch([Some(1), None, Some(3)], [Some("a"), None, None])).unwrap();
        sink.write(&batch([Some(1), Some(2), Some(3)], [Some("a"); 3])).unwrap();
        assert_eq!((kept.lock().unwrap().as_slice(), sink.rows_dropped()), (&[1, 3][..], 2));
    }
}
