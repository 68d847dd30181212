//! Inference: ONNX models by tract, checked at plan time and run in batches.
//!
//! [`inspect`] is the planner's check of a `CREATE MODEL` against its file; [`Runner`] is one subtask's loaded model.
//! What tract lacks or miscomputes is either done here (`trees`, `ops`) or refused by name at plan time (`graph`).
//! A row with a NULL in any input has NULL in every output.

use ef_proto::plan::Model;
use ef_proto::schema::Schema;
use std::collections::BTreeMap;
use std::path::Path;

#[cfg(feature = "onnx")]
mod binding;
#[cfg(feature = "onnx")]
mod graph;
#[cfg(feature = "onnx")]
mod ops;
#[cfg(feature = "onnx")]
mod runner;
#[cfg(all(test, feature = "onnx"))]
mod tests;
#[cfg(feature = "onnx")]
mod trees;

#[cfg(feature = "onnx")]
pub use runner::{Runner, inspect};

/// A larger file is refused: it would be read into memory by every subtask.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// Rows per inference call unless `'onnx.batch-rows'` says otherwise.
pub const BATCH_ROWS_DEFAULT: u32 = 1024;

/// The planner's view of this module, for whoever links planner and worker together.
pub struct Inspector;

impl Inspector {
    /// Checks the file at `path` against the declared columns and returns the model for the plan.
    pub fn inspect(
        &self,
        path: &str,
        inputs: &Schema,
        outputs: &Schema,
        options: &BTreeMap<String, String>,
    ) -> std::result::Result<Model, String> {
        inspect(Path::new(path), inputs, outputs, options).map_err(|error| error.message)
    }
}

/// A build without the `onnx` feature refuses every model, at plan time and at start.
#[cfg(not(feature = "onnx"))]
mod absent {
    use super::*;
    use crate::error::{Error, Result};
    use arrow_array::ArrayRef;

    pub fn inspect(path: &Path, _: &Schema, _: &Schema, _: &BTreeMap<String, String>) -> Result<Model> {
        Err(refusal(&path.display().to_string()))
    }

    fn refusal(model: &str) -> Error {
        Error::invalid(format!("model `{model}`: this build cannot run ONNX models; use one with the feature `onnx`"))
    }

    pub struct Runner(());

    impl Runner {
        pub fn load(model: &Model) -> Result<Runner> {
            Err(refusal(&model.name))
        }

        pub fn predict(&mut self, _args: &[ArrayRef], _rows: usize) -> Result<Vec<ArrayRef>> {
            unreachable!("a runner of this build is never loaded")
        }
    }
}
#[cfg(not(feature = "onnx"))]
pub use absent::{Runner, inspect};
