//! A stand-in for WeChat on loopback: WeChat's rules for tokens, and faults on demand. Not canned answers.
//!
//! The rules and the faults are pure; `http` and `wire` carry them. It knows nothing of how wxtoken asks WeChat.

mod calls;
mod errmsg;
mod rules;
mod fault;
mod effect;
mod wire;
mod http;

/// The account that exists when none is named. Its secret keeps nothing safe: it opens only the stand-in.
pub(crate) const APPID: &str = "wx0123456789abcdef";
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub(crate) use fault::Fault;
pub(crate) use http::{Clock, StandIn};
#[cfg(test)]
pub(crate) use rules::Credentials;
pub(crate) use rules::{Terms, WeChat};
