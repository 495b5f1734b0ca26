//! The servers under test: which there are, what they are built from, how one is started, checked and watched.

pub mod artifacts;
pub mod bare;
pub mod launch;
pub mod native;
pub mod process;
pub mod server;
pub mod verify;
