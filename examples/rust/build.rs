//! Compiles event.proto, without protoc. A team copies proto/ into its own repository, or keeps it as a submodule.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let proto = "../../proto";
    println!("cargo::rerun-if-changed={proto}");
    let descriptors = protox::compile(["checkup/event/v1/event.proto"], [proto])?;
    prost_build::Config::new().include_file("contract.rs").compile_fds(descriptors)?;
    Ok(())
}
