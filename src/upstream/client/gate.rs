//! A gate between connecting (TLS included) and sending the request, to know whether a request was sent. A caller that
//! gives up before anything has passed shuts the gate, and then nothing ever passes. Nothing passes late either, because
//! this process was stopped or the machine suspended. Knows nothing of HTTP.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ureq::unversioned::transport::{ConnectionDetails, Connector, Transport};

use crate::os::clock::{Clock, SystemClock};
use crate::os::timestamp::Timestamp;

/// The gate of one exchange; clones share its state.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    state: Arc<OnceLock<GateState>>,
    /// With a proxy, ureq connects to the proxy first, and that must not count.
    has_proxy: bool,
    /// How long it is open, and from when on.
    span: Duration,
    since: Timestamp,
}

/// The final state of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GateState {
    Passed,
    Shut,
}

impl Gate {
    /// Returns a gate that nothing passes later than `span` after `since`.
    pub(super) fn new(has_proxy: bool, since: Timestamp, span: Duration) -> Gate {
        Gate { state: Arc::default(), has_proxy, span, since }
    }

    /// Shuts the gate. Returns whether it is shut: `false` if a request has passed before.
    pub(super) fn shut(&self) -> bool {
        *self.state.get_or_init(|| GateState::Shut) == GateState::Shut
    }

    /// Lets a request pass. Returns `false` if the gate has been shut before, or it is too late.
    fn pass(&self) -> bool {
        if SystemClock.now().since(self.since) > self.span {
            return !self.shut();
        }
        *self.state.get_or_init(|| GateState::Passed) == GateState::Passed
    }
}

/// The last connector of the chain: those before it have resolved the name, connected and completed the TLS handshake.
impl<In: Transport> Connector<In> for Gate {
    type Out = In;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<In>, ureq::Error> {
        // The connection to the proxy itself is configured without a proxy.
        let is_to_server = details.config.proxy().is_some() == self.has_proxy;
        if is_to_server && chained.is_some() && !self.pass() {
            return Err(ureq::Error::Timeout(ureq::Timeout::SendRequest));
        }
        Ok(chained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::timestamp::testing::instant;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn the_first_of_pass_and_shut_decides() {
        let gate = || Gate::new(false, SystemClock.now(), DAY);
        let first = gate();
        assert!(first.clone().pass());
        assert!(!first.shut() && first.pass());
        let other = gate();
        assert!(other.clone().shut());
        assert!(!other.pass() && other.shut());
    }

    #[test]
    fn nothing_passes_late_but_what_has_passed_before() {
        let late = Gate { since: instant(0, 0, 0), ..Gate::new(false, SystemClock.now(), DAY) };
        assert!(!late.pass() && late.shut());
        let gate = Gate::new(false, SystemClock.now(), DAY);
        assert!(gate.pass());
        assert!(Gate { since: instant(0, 0, 0), ..gate }.pass());
    }
}
