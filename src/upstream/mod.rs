//! Where tokens and tickets come from: WeChat, or another wxtoken. Each request is made once and its result returned;
//! whether, when and how often to ask is decided elsewhere.

use std::time::Duration;

use crate::model::kind::TicketType;
use crate::model::secret::{Salt, Secret};

pub(crate) use error::UpstreamError;

pub(crate) mod api_servers;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod credentials;
pub(crate) mod error;
pub(crate) mod mirror;
pub(crate) mod passed;
pub(crate) mod ping;
pub(crate) mod roots;
pub(crate) mod wechat;

/// The two modes of a request for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshMode {
    /// For a live token. On `stable` WeChat returns the current one until its last five minutes.
    Normal,
    /// For a token other than the current one. On `stable` WeChat allows this every 30 s and 20 times a day.
    Forced,
}

/// A token or ticket as it was issued.
#[derive(Debug)]
pub(crate) struct IssuedToken {
    pub(crate) token: Secret,
    /// The lifetime as stated in the answer, counted from some instant after the request was sent.
    pub(crate) expires_in: Duration,
}

/// A request is sent within this time after [`TokenSource::request_token`] is called, or not at all: if this process is stopped meanwhile,
/// another one may have sent its own.
pub(crate) const SENT_WITHIN: Duration = Duration::from_secs(30);

/// Issues tokens.
pub(crate) trait TokenSource {
    /// Reads what a request needs and was not read yet. Fails if that cannot be used, before a request is made.
    fn prepare(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Sends one request, within [`SENT_WITHIN`] and `timeout`. Returns within `timeout`.
    fn request_token(
        &self,
        mode: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError>;
}

/// Issues tickets.
pub(crate) trait TicketSource {
    /// Requests the ticket of this type, authorized by `token`. Returns within `timeout`. Invalidates no ticket and no
    /// token.
    fn request_ticket(
        &self,
        kind: &TicketType,
        token: &Secret,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError>;
}

/// Finds out whether a token is alive.
pub(crate) trait Probe {
    /// Makes one call with the token that has no effect. Returns within `timeout`.
    fn probe(&self, token: &Secret, timeout: Duration) -> Liveness;
}

/// The AppSecret of the requests, to be compared with those of earlier runs.
pub(crate) trait Credential {
    /// Returns its hashes with this salt; `None` if the upstream is not WeChat, which bans an address that repeats a wrong secret.
    fn hashes(&self, salt: &Salt) -> Option<CredentialHashes>;
}

/// What identifies an AppSecret without revealing it.
pub(crate) struct CredentialHashes {
    /// The hash of AppID and AppSecret.
    pub(crate) secret: String,
    /// The hash of these and of all else that a refusal can depend on: the API, the servers, the proxies.
    pub(crate) request: String,
}

/// All that an account needs from upstream.
pub(crate) trait Upstream:
    TokenSource + Probe + TicketSource + Credential + Send + Sync
{
}

impl<T: TokenSource + Probe + TicketSource + Credential + Send + Sync> Upstream for T {}

/// Whether a token is alive, as far as a probe can tell.
#[derive(Debug)]
pub(crate) enum Liveness {
    /// WeChat accepts it.
    Alive,
    /// WeChat says that it is expired, replaced or unknown.
    Dead,
    /// The answer says nothing about the token (a refused address, for instance), or there was none.
    Unknown(UpstreamError),
}
