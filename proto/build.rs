//! Turns `proto/*.proto` into Rust types and gRPC services. The compiler is protox, so that no protoc has to be
//! installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = [
        "proto/agent.proto",
        "proto/checkpoint.proto",
        "proto/control.proto",
        "proto/exchange.proto",
        "proto/plan.proto",
    ];
    let files = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        // Maps in order, so that a message has one encoding.
        .btree_map(".")
        // A batch's buffers are handed on, not copied.
        .bytes(".edgeflow.exchange.v1")
        // efctl shows these messages as JSON and YAML.
        .type_attribute(".edgeflow.control.v1", "#[derive(serde::Serialize, serde::Deserialize)]")
        .compile_fds(files)?;
    Ok(())
}
