//! In place of the network, for simulations: a function of the thread answers what clients send.

use std::cell::Cell;
use std::time::Duration;

use super::HttpResponse;
use crate::upstream::UpstreamError;

/// What a client sends.
pub(crate) struct Request<'a> {
    pub(crate) url: &'a str,
    /// The body of a POST.
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) timeout: Duration,
}

type Answer = fn(&Request<'_>) -> Result<HttpResponse, UpstreamError>;

thread_local!(static NETWORK: Cell<Option<Answer>> = const { Cell::new(None) });

/// Lets `answer` answer the clients of this thread.
pub(crate) fn install(answer: Answer) {
    NETWORK.set(Some(answer));
}

/// Gives the clients of this thread the system's network again.
pub(crate) fn uninstall() {
    NETWORK.set(None);
}

/// Returns the answer; `None` if this thread has the system's network.
pub(super) fn exchange(
    url: &str,
    body: Option<&[u8]>,
    timeout: Duration,
) -> Option<Result<HttpResponse, UpstreamError>> {
    NETWORK.get().map(|answer| answer(&Request { url, body, timeout }))
}
