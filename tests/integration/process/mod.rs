//! The process itself: its stderr, its signals, and its children.

mod signals;
mod stderr;
