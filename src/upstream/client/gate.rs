//! A gate between connecting (TLS included) and sending the request, to know whether a request was sent. A caller that
//! gives up before anything has passed shuts the gate, and then nothing ever passes. Knows nothing of HTTP.

use std::sync::{Arc, OnceLock};

use ureq::unversioned::transport::{ConnectionDetails, Connector, Transport};

/// The gate of one exchange; clones share its state.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    state: Arc<OnceLock<GateState>>,
    /// With a proxy, ureq connects to the proxy first, and that must not count.
    has_proxy: bool,
}

/// The final state of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GateState {
    Passed,
    Shut,
}

impl Gate {
    pub(super) fn new(has_proxy: bool) -> Gate {
        Gate { state: Arc::default(), has_proxy }
    }

    /// Shuts the gate. Returns whether it is shut: `false` if a request has passed before.
    pub(super) fn shut(&self) -> bool {
        *self.state.get_or_init(|| GateState::Shut) == GateState::Shut
    }

    /// Lets a request pass. Returns `false` if the gate has been shut before.
    fn pass(&self) -> bool {
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
            return Err(ureq::Error::ConnectionFailed);
        }
        Ok(chained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_pass_and_shut_decides() {
        let gate = Gate::new(false);
        assert!(gate.clone().pass());
        assert!(!gate.shut() && gate.pass());
        let gate = Gate::new(false);
        assert!(gate.clone().shut());
        assert!(!gate.pass() && gate.shut());
    }
}
