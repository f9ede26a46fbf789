//! A stand-in for WeChat on loopback: implements WeChat's rules for tokens, and injects faults on demand.
//!
//! `rules` and `effect` do no I/O; `http` and `wire` carry their results. Nothing here knows how wxtoken calls WeChat.

mod random;
mod errmsg;
mod rules;
mod fault;
mod wire;
mod effect;
mod routes;
mod http;

/// AppID of the account that exists when none is configured.
pub(crate) const APPID: &str = "wx0123456789abcdef";
/// Its AppSecret. Not confidential: it is valid for the stand-in alone.
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub(crate) use fault::MockFault;
pub(crate) use http::{EpochClock, MockServer};
#[cfg(test)]
pub(crate) use rules::CallerCredentials;
pub(crate) use rules::{MockWeChat, TokenLifetime};
