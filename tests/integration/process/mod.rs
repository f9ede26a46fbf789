//! The process itself: its stderr, its signals, and its children.

mod shortage;
mod signals;
mod stderr;
