//! A stand-in for WeChat on loopback: WeChat's rules for tokens, and faults on demand. Not canned answers.
//!
//! The rules and the faults are pure; `http` and `wire` carry them. It knows nothing of how wxtoken asks WeChat.

mod rules;
mod errmsg;
mod fault;
mod effect;
mod wire;
mod http;

pub(crate) use fault::Fault;
pub(crate) use http::{Clock, StandIn};
pub(crate) use rules::{Terms, WeChat};
