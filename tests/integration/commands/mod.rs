//! The other commands, one file each.

mod ca;
mod check;
mod completions;
mod demo;
mod get;
mod help;
mod key;
mod log;
mod messages;
mod mock;
mod setup;
mod status;
