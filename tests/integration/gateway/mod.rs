//! `serve --gateway`: calls of WeChat's API that are passed on. WeChat is the mock, for tokens, behind an upstream of the
//! test's own, which answers the calls.

mod admission;
mod apis;
mod failures;
mod healing;
mod hosts;
mod opaque;
mod passing;
mod smuggling;
mod streaming;
pub(crate) mod upstream;
mod ways;
