//! Calls of WeChat's API that are passed on. A part of [`RequestContext`].

use std::sync::Arc;

use hyper::http::request::Parts;

use super::RequestContext;
use crate::server::gateway::admission::{self, ApiRequest, GatewayRefusal};
use crate::server::gateway::call::ForwardedCall;
use crate::server::gateway::forward;
use crate::server::routes::body::RequestBody;
use crate::server::routes::rejection::Rejection;
use crate::server::routes::response::Reply;
use crate::server::state::snapshot::Snapshot;

impl RequestContext<'_> {
    /// Passes a call on to WeChat, if the client may make it. Fails if the path is none of WeChat's.
    pub(super) async fn answer_api(
        self,
        head: &Parts,
        body: &mut RequestBody<'_>,
    ) -> Result<Reply, Rejection> {
        if let Err(error) = forward::check(head) {
            return Ok(Reply::ApiError(error));
        }
        let Snapshot { access, accounts, api_servers, .. } = self.snapshot;
        let request = ApiRequest {
            path: head.uri.path(),
            query: head.uri.query(),
            headers: &head.headers,
            client: self.address,
        };
        let admitted = match admission::admit(request, access, accounts) {
            Ok(admitted) => admitted,
            Err(GatewayRefusal::NoSuchPath) => return Err(Rejection::NotFound),
            Err(refusal) => {
                self.report_refusal(refusal);
                return Ok(Reply::Json(refusal.body(self.client)));
            }
        };
        if let Some(name) = &admitted.key {
            self.key_name.get_or_init(|| Arc::clone(name));
        }
        let client = self.client(admitted.key.as_ref());
        let name = &accounts.names()[admitted.account];
        let servers = api_servers.as_ref().and_then(|servers| servers.get(name));
        let call = ForwardedCall { head, admitted, client, accounts, servers, state: self.state };
        Ok(match self.gateway.forward(&call, body).await {
            Ok(response) => Reply::Api(Box::new(response)),
            Err(error) => Reply::ApiError(error),
        })
    }

    fn report_refusal(self, refusal: GatewayRefusal) {
        self.state.counters.refused(refusal.code());
        if let Some(why) = refusal.log_line() {
            let now = self.state.clock.instant().into();
            self.state.log.refused(now, refusal.code(), self.address, self.peer, why.text());
        }
    }
}
