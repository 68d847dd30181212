//! `efctl version`.

use super::Exit;

pub fn run() -> Exit {
    let embedded = match (cfg!(feature = "embedded"), cfg!(feature = "remote-stores")) {
        (true, true) => "embedded worker (rocksdb, onnx, functions, object stores)",
        (true, false) => "embedded worker (rocksdb, onnx, functions)",
        (false, _) => "client only",
    };
    Exit::printed(&format!("efctl {} ({embedded})\n", env!("CARGO_PKG_VERSION")))
}
