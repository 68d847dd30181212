//! `changelog-json`: `{"op":"+U","data":{…}}` a row, the data as in `json`. Rows of a stream that only inserts are
//! `+I`.

use super::json::{Object, kind, kinds};
use crate::error::Result;
use arrow_array::RecordBatch;
use ef_proto::connector::Json;
use ef_proto::schema::{RowKind, Schema};

pub(super) struct Encoder {
    object: Object,
    changelog: bool,
}

impl Encoder {
    pub fn new(options: &Json, schema: &Schema, changelog: bool) -> Encoder {
        Encoder { object: Object::new(options.timestamps, schema), changelog }
    }
}

impl super::Encoder for Encoder {
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>, end: &mut dyn FnMut(&mut Vec<u8>)) -> Result<()> {
        let views = self.object.views(batch)?;
        let kinds = if self.changelog { Some(kinds(batch)?) } else { None };
        for row in 0..batch.num_rows() {
            let kind = kinds.map_or(Ok(RowKind::Insert), |kinds| kind(kinds[row]))?;
            out.extend_from_slice(b"{\"op\":\"");
            out.extend_from_slice(kind.short().as_bytes());
            out.extend_from_slice(b"\",\"data\":");
            self.object.write(&views, row, out);
            out.push(b'}');
            end(out);
        }
        Ok(())
    }
}
