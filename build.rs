//! The contract compiler: turns `proto/` into Rust types, clients, servers and the descriptor set, without protoc.
//!
//! `crates/core/contract` runs it (`build = "../../../build.rs"`). Its working directory is that crate, so paths start
//! from the crate's manifest. It writes only to `OUT_DIR`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;
use protox::Compiler;

/// Every `.proto` file below `dir`, sorted, so that the output does not depend on the order of the file system.
fn proto_files(dir: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(proto_files(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "proto") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn main() -> Result<(), Box<dyn Error>> {
    let proto = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // tonic-prost-build has a setting for this, but stores its value without reading it.
    println!("cargo::rerun-if-changed={}", proto.display());

    let mut compiler = Compiler::new([&proto])?;
    compiler.include_imports(true).include_source_info(true).open_files(proto_files(&proto.join("checkup"))?)?;
    // The encoded set keeps options for which prost-types has no field, such as google.api.field_behavior.
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptors.binpb"), &descriptors)?;

    tonic_prost_build::configure()
        .client_mod_attribute(".", "#[cfg(feature = \"rpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"rpc\")]")
        .include_file("contract.rs")
        .compile_fds(FileDescriptorSet::decode(descriptors.as_slice())?)?;
    Ok(())
}
