//! A call on its way: what it is made of, and the request that WeChat gets.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::http::request;
use tokio::time::timeout;

use super::admission::Admitted;
use super::connections::PooledConnection;
use super::error::{GatewayError, text};
use super::headers;
use super::{Gateway, PASSED};
use crate::accounts::Accounts;
use crate::log::info;
use crate::model::secret::Secret;
use crate::model::status::{ClientIdentity, TokenDemand, Unavailable};
use crate::server::state::ServerState;
use crate::upstream::api_servers::ApiServers;
use crate::upstream::passed;

/// How long a call waits for a token where there is none, so that the client is answered within 2.5 s.
const TOKEN_PATIENCE: Duration = Duration::from_millis(2300);

/// One connection in so many is never taken by a call that waits for WeChat, so that tokens and health checks are answered
/// also while WeChat answers no call.
const KEPT_FREE: usize = 4;

/// A call that is to be passed on.
pub(crate) struct ForwardedCall<'a> {
    pub(crate) head: &'a request::Parts,
    pub(crate) admitted: Admitted,
    /// Whose word it counts as that WeChat rejected the token.
    pub(crate) client: ClientIdentity,
    pub(crate) accounts: &'a Accounts,
    /// `None` if they could not be read.
    pub(crate) servers: Option<&'a Arc<ApiServers>>,
    pub(crate) state: &'a ServerState,
}

/// A call that is under way, which counts until this is dropped.
pub(super) struct CallSlot(Rc<Cell<usize>>);

impl Drop for CallSlot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Gateway {
    /// Counts a call. Fails if too many are under way, for a server that may have this many connections.
    pub(super) fn begin_call(&self, connections: usize) -> Result<CallSlot, GatewayError> {
        if self.calls.get() >= connections - connections / KEPT_FREE {
            return Err(GatewayError::TooManyCalls);
        }
        self.calls.set(self.calls.get() + 1);
        Ok(CallSlot(Rc::clone(&self.calls)))
    }
}

/// Notes when a call is dropped because its client left while WeChat had it.
pub(super) struct InFlight<'a> {
    account: &'a str,
    path: &'a str,
    pub(super) is_sent: bool,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if self.is_sent {
            let InFlight { account, path, .. } = self;
            let said = text::CLIENT_LEFT.with([path]);
            info!(event = "client_left", account = account; "serve: {account}: {said}");
        }
    }
}

impl<'a> ForwardedCall<'a> {
    /// The account's name.
    pub(super) fn account(&self) -> &'a str {
        &self.accounts.names()[self.admitted.account]
    }

    pub(super) fn path(&self) -> &str {
        self.admitted.target.path()
    }

    pub(super) fn in_flight(&self) -> InFlight<'_> {
        InFlight { account: self.account(), path: self.path(), is_sent: false }
    }

    /// Returns the account's token. Waits a moment for one.
    pub(super) async fn token(&self) -> Result<Rc<Secret>, GatewayError> {
        let account = self.admitted.account;
        if let Some(token) = self.accounts.live_secret(account) {
            return Ok(token);
        }
        // Boxed: it is seldom needed, and each call would move its memory around.
        let obtain = Box::pin(self.accounts.obtain_secret(account, TokenDemand::Live));
        let late = || Unavailable::for_now(text::ASKED_FOR_TOKEN);
        let obtained = timeout(TOKEN_PATIENCE, obtain).await.unwrap_or_else(|_| Err(late()));
        obtained.map_err(GatewayError::NoToken)
    }

    /// Begins the request to WeChat on this connection, with a body of this length, of which this is the first piece.
    pub(super) fn begin(
        &self,
        connection: &mut PooledConnection,
        token: Option<&Secret>,
        length: u64,
        body: Bytes,
    ) -> Result<(), GatewayError> {
        let servers = self.servers.ok_or(GatewayError::NotConfigured)?;
        let server = &servers.servers[connection.server()].base;
        let token = token.map_or("", Secret::expose);
        let head = self.head;
        connection.begin(&head.method, body, |out| {
            out.extend_from_slice(head.method.as_str().as_bytes());
            out.push(b' ');
            self.admitted.target.write(out, server.prefix(), token);
            out.extend_from_slice(b" HTTP/1.1\r\n");
            headers::write_for_wechat(out, &head.headers, &head.method, server.authority(), length);
            headers::write_line(out, &PASSED, passed::name().as_bytes());
            out.extend_from_slice(b"\r\n");
        });
        Ok(())
    }
}
