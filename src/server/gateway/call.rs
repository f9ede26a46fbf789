//! A call on its way: what it is made of, and the request that WeChat gets.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
use crate::server::state::slots::Connections;
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

/// The calls that are under way, of each client.
#[derive(Default)]
pub(super) struct CallsUnderWay {
    total: usize,
    of_clients: HashMap<ClientIdentity, usize>,
}

/// A call that is under way, which counts until this is dropped.
pub(super) struct CallSlot {
    calls: Rc<RefCell<CallsUnderWay>>,
    client: ClientIdentity,
}

impl Drop for CallSlot {
    fn drop(&mut self) {
        let mut calls = self.calls.borrow_mut();
        calls.total -= 1;
        if let Entry::Occupied(mut of_client) = calls.of_clients.entry(self.client.clone()) {
            *of_client.get_mut() -= 1;
            if *of_client.get() == 0 {
                of_client.remove();
            }
        }
    }
}

impl Gateway {
    /// Counts a call of this client, from when its body is there or streams. Fails if too many are under way, for a server that
    /// may have this many connections, or if this client has its share of them: as with connections, no client keeps the others
    /// out, and programs of this host may have all.
    pub(super) fn begin_call(
        &self,
        client: &ClientIdentity,
        connections: &Connections,
    ) -> Result<CallSlot, GatewayError> {
        let capacity = connections.capacity();
        let mut calls = self.calls.borrow_mut();
        if calls.total >= capacity - capacity / KEPT_FREE {
            return Err(GatewayError::TooManyCalls);
        }
        let of_client = calls.of_clients.entry(client.clone()).or_default();
        if *of_client >= connections.share() && !client.is_of_this_host() {
            return Err(GatewayError::TooManyOfClient);
        }
        *of_client += 1;
        calls.total += 1;
        Ok(CallSlot { calls: Rc::clone(&self.calls), client: client.clone() })
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_client_that_has_its_share_of_the_calls_keeps_no_other_one_out() {
        let (gateway, connections) = (Gateway::default(), Connections::new(64));
        let client = |name: &str| ClientIdentity::Key(name.into());
        let begin = |client: &ClientIdentity| gateway.begin_call(client, &connections);
        let greedy = client("greedy");
        let mut held: Vec<_> = (0..16).map(|_| begin(&greedy).unwrap()).collect();
        assert!(matches!(begin(&greedy), Err(GatewayError::TooManyOfClient)));
        let of_other = begin(&client("other")).unwrap();
        held.pop();
        held.push(begin(&greedy).unwrap());
        assert!(begin(&greedy).is_err());
        // Programs of this host may have all that are left.
        let local = ClientIdentity::Address(Ipv4Addr::LOCALHOST.into());
        held.extend((0..31).map(|_| begin(&local).unwrap()));
        assert!(matches!(begin(&client("another")), Err(GatewayError::TooManyCalls)));
        drop((held, of_other));
        let calls = gateway.calls.borrow();
        assert!(calls.total == 0 && calls.of_clients.is_empty());
    }
}
