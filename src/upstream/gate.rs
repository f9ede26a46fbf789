//! Whether a request was sent at all: a gate between the connection, TLS and all, and the request. Who gives up before
//! anything has passed it shuts it, and then knows that nothing ever will. Knows nothing of HTTP.

use std::sync::{Arc, OnceLock};

use ureq::unversioned::transport::{ConnectionDetails, Connector, Transport};

/// The gate of one exchange; its clones are the same gate.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    fate: Arc<OnceLock<Fate>>,
    /// Whether the way leads through a proxy: then the proxy is connected to first, and not the server.
    has_proxy: bool,
}

/// What became of a gate; it is settled once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passed,
    Shut,
}

impl Gate {
    pub(super) fn new(has_proxy: bool) -> Gate {
        Gate { fate: Arc::default(), has_proxy }
    }

    /// Shuts the gate; whether that was before anything had passed.
    pub(super) fn shut(&self) -> bool {
        *self.fate.get_or_init(|| Fate::Shut) == Fate::Shut
    }

    /// Lets a request through, unless somebody has given up on it.
    fn pass(&self) -> bool {
        *self.fate.get_or_init(|| Fate::Passed) == Fate::Passed
    }
}

/// The last of the connectors: when its turn comes the others have looked up the name, reached the server and shaken
/// hands.
impl<In: Transport> Connector<In> for Gate {
    type Out = In;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<In>, ureq::Error> {
        // The connection to the proxy itself is made without one.
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
    fn what_has_passed_cannot_be_held_back_and_what_is_shut_lets_nothing_through() {
        let gate = Gate::new(false);
        assert!(gate.clone().pass());
        assert!(!gate.shut() && gate.pass());
        let gate = Gate::new(false);
        assert!(gate.clone().shut());
        assert!(!gate.pass() && gate.shut());
    }
}
