//! Turns `proto/*.proto` into Rust types and gRPC services. The compiler is protox, so that no protoc has to be
//! installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    // Stored and shared messages first: the services refer to them by the module that holds them here.
    let messages = protox::compile(["proto/checkpoint.proto", "proto/plan.proto"], ["proto"])?;
    // Maps in order, so that a message has one encoding.
    tonic_prost_build::configure().btree_map(".").compile_fds(messages)?;
    let services = protox::compile(["proto/agent.proto", "proto/control.proto", "proto/exchange.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .btree_map(".")
        .extern_path(".edgeflow.checkpoint.v1", "crate::wire::generated::checkpoint")
        .extern_path(".edgeflow.plan.v1", "crate::wire::generated::plan")
        // A batch's buffers are handed on, not copied.
        .bytes(".edgeflow.exchange.v1")
        // efctl shows these messages as JSON and YAML.
        .type_attribute(".edgeflow.control.v1", "#[derive(serde::Serialize, serde::Deserialize)]")
        .compile_fds(services)?;
    Ok(())
}
