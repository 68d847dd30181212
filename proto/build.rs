//! Turns `proto/*.proto` into Rust types. The compiler is protox, so that no protoc has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["proto/checkpoint.proto", "proto/plan.proto"], ["proto"])?;
    // Maps in order, so that a message has one encoding.
    prost_build::Config::new().btree_map(["."]).compile_fds(files)?;
    Ok(())
}
