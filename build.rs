//! The contract compiler: turns `proto/` into Rust types, clients, servers and the descriptor set, without protoc.
//!
//! `crates/core/contract` runs it (`build = "../../../build.rs"`). Its working directory is that crate, so paths start
//! from the crate's manifest. It writes only to `OUT_DIR`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::{DecodeError, Message};
use prost_types::{FileDescriptorProto, FileDescriptorSet};
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

/// A `FileDescriptorSet` whose files stay encoded, because prost-types drops the options that it has no field for.
#[derive(Clone, PartialEq, Message)]
struct EncodedFiles {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// Keeps of `buf/validate` only the declarations, which the files of the contract import and reflection has to answer.
/// Its comments go, and the options that define each rule in CEL, which prost-types drops: together nearly as long as
/// the rest of the set.
fn with_bare_rules(set: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut set = EncodedFiles::decode(set)?;
    for encoded in &mut set.file {
        let mut file = FileDescriptorProto::decode(encoded.as_slice())?;
        if is_of_rules(&file) {
            file.source_code_info = None;
            *encoded = file.encode_to_vec();
        }
    }
    Ok(set.encode_to_vec())
}

/// Whether a file declares the rules that others state: no code is made of it, since nothing here reads a rule.
fn is_of_rules(file: &FileDescriptorProto) -> bool {
    file.package() == "buf.validate"
}

fn main() -> Result<(), Box<dyn Error>> {
    let proto = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // tonic-prost-build has a setting for this, but stores its value without reading it.
    println!("cargo::rerun-if-changed={}", proto.display());

    let mut compiler = Compiler::new([&proto])?;
    compiler.include_imports(true).include_source_info(true).open_files(proto_files(&proto.join("checkup"))?)?;
    // The encoded set keeps options for which prost-types has no field, such as google.api.field_behavior.
    let descriptors = with_bare_rules(&compiler.encode_file_descriptor_set())?;
    fs::write(out.join("descriptors.binpb"), &descriptors)?;

    let mut compiled = FileDescriptorSet::decode(descriptors.as_slice())?;
    compiled.file.retain(|file| !is_of_rules(file));
    tonic_prost_build::configure()
        .client_mod_attribute(".", "#[cfg(feature = \"rpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"rpc\")]")
        .include_file("contract.rs")
        .compile_fds(compiled)?;
    Ok(())
}
