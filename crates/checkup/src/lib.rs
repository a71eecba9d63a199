//! The binary `checkup` as a library: its commands, and the assembly of services into a process.
//!
//! No rule of the product is here. Services are built from their crates and joined by events and calls; the tools that drive a
//! running process know it only by its contract.

pub mod cli;
mod demo;
pub mod exit;
mod party;
pub mod service;
mod terminal;
mod token;
mod verify;
