//! Passes calls of WeChat's API on to WeChat.

pub(crate) mod admission;
