//! What scripts and newcomers rely on: help, the default configuration, exit statuses, the shape of the workspace.

#[path = "cli/architecture.rs"]
mod architecture;
#[path = "cli/golden.rs"]
mod golden;
#[path = "cli/statuses.rs"]
mod statuses;
