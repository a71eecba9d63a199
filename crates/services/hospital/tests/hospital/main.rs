//! Tests of the hospital service over gRPC, in this process and on a database of its own: its methods by the contract,
//! its races, and its behaviour after lost commits and restarts.

mod access;
mod batches;
mod capacity_requests;
mod closures;
mod consuming;
mod deletion;
mod listing;
mod methods;
mod midnight;
mod openings;
mod pages;
mod races;
mod refusals;
mod support;
mod unknown;
mod waiting;
mod watching;
