//! The process itself: its stderr, its signals, and its children.

mod first_process;
mod limits;
mod panics;
mod shortage;
mod signals;
mod stderr;
