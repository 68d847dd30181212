//! `debezium-json`, as Flink writes it: +I and +U are creations (`c`), -U and -D are deletions (`d`). An update is so
//! two messages, which whoever reads them adds up to the same table.

use super::json::{Object, kind, kinds};
use crate::error::Result;
use arrow_array::RecordBatch;
use ef_proto::connector::DebeziumJson;
use ef_proto::schema::{RowKind, Schema};

pub(super) struct Encoder {
    object: Object,
    changelog: bool,
}

impl Encoder {
    pub fn new(options: &DebeziumJson, schema: &Schema, changelog: bool) -> Encoder {
        Encoder { object: Object::new(options.json.timestamps, schema), changelog }
    }
}

impl super::Encoder for Encoder {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>, end: &mut dyn FnMut(&mut Vec<u8>)) -> Result<()> {
        let views = self.object.views(batch)?;
        let kinds = if self.changelog { Some(kinds(batch)?) } else { None };
        for row in 0..batch.num_rows() {
            let kind = kinds.map_or(Ok(RowKind::Insert), |kinds| kind(kinds[row]))?;
            if kind.retracts() {
                out.extend_from_slice(b"{\"before\":");
                self.object.write(&views, row, out);
                out.extend_from_slice(b",\"after\":null,\"op\":\"d\"}");
            } else {
                out.extend_from_slice(b"{\"before\":null,\"after\":");
                self.object.write(&views, row, out);
                out.extend_from_slice(b",\"op\":\"c\"}");
            }
            end(out);
        }
        Ok(())
    }
}
