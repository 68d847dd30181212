//! `efctl version`.

use super::Exit;

pub fn run() -> Exit {
    let embedded =
        if cfg!(feature = "embedded") { "embedded worker (rocksdb, onnx, functions)" } else { "client only" };
    println!("efctl {} ({embedded})", env!("CARGO_PKG_VERSION"));
    Exit::Done
}
