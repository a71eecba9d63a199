//! The binary `checkup` as a library: its commands, and the assembly of services into a process.
//!
//! It has no rules of the product. Services are built from their crates and connected by events and calls. The tools
//! that drive a running process use only its contract.

mod archive;
pub mod assembly;
pub mod backup;
pub mod bench;
pub mod cli;
pub mod command;
pub mod config;
pub mod consumers;
pub mod data_dir;
pub mod dead_letters;
pub mod demo;
pub mod exit;
pub mod gateway;
pub mod host;
pub mod identity;
pub mod jwks;
pub mod mesh;
pub mod migrate;
pub mod party;
pub mod past;
pub mod rebuild;
pub mod recover;
pub mod serve;
pub mod service;
pub mod terminal;
pub mod token;
pub mod up;
pub mod verify;
pub mod view_files;
pub mod welcome;
