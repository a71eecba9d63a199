//! The hospital service over gRPC, in this process, on a database of its own: what the contract says of its methods, its
//! races, and what survives lost commits and restarts.

mod access;
mod capacity_requests;
mod consuming;
mod deletion;
mod listing;
mod methods;
mod midnight;
mod pages;
mod races;
mod refusals;
mod support;
mod unknown;
