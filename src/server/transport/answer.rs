//! The answer to one request, whichever way it came: asks the routes, and notes what a connection needs to know of it.

use hyper::Method;
use hyper::body::{Body, Incoming};
use hyper::http::request::Parts;
use tokio::time::Instant;

use super::Transport;
use super::connection::Connection;
use super::tracked::TrackedBody;
use crate::log::{self, Level, info};
use crate::server::routes::handler::{self, ArrivedRequest, Handled};
use crate::server::routes::rejection::Rejection;
use crate::server::routes::response::{Outcome, Reply};
use crate::server::routes::{Route, is_for_sdks, printable_path, without_extra_slashes};

/// How many characters of a method a log line shows: more than any standard method has.
const LONGEST_METHOD_SHOWN: usize = 10;

/// The answer to a request.
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) at: Instant,
    /// Whether the connection is closed after it.
    pub(super) is_last: bool,
    /// Whether a request of the same bytes can be answered without a parser: a GET without a body, for which this is a reply
    /// of this server's own.
    pub(super) may_repeat: bool,
}

/// Answers one request. `body` is `None` if it has none.
pub(super) async fn answer(
    head: &Parts,
    body: Option<Incoming>,
    connection: &Connection,
) -> Answer {
    let Connection { info, transport, slot, progress, .. } = connection;
    let Transport { state, gateway, .. } = &**transport;
    let asked_at = Instant::now();
    let snapshot = state.snapshot.get();
    let path = without_extra_slashes(head.uri.path());
    let route = Route::of(&path, snapshot.api_servers.is_some());
    let is_forwarded = matches!(route, Ok(Route::Api));
    let request_began = progress.begin_answer(is_forwarded, asked_at);
    // In case that the body does not arrive.
    connection.is_for_sdks.set(is_for_sdks(head.uri.path()));
    let mut body = TrackedBody { body, progress, request_began, is_forwarded, has_ended: false };
    // The end of a body that is not read, and so the beginning of the next request, is unknown.
    let has_body = !body.is_end_stream();
    progress.set_has_unread(has_body);
    let certificate = connection.certificate.get();
    let certificate = certificate.map_or(Ok(()), |it| it.judge(state.clock.now().wall));
    let request = ArrivedRequest {
        head,
        route,
        snapshot: &snapshot,
        connection: *info,
        certificate,
        loops: &connection.loops,
    };
    let Handled { client, is_for_sdks, key, answer } =
        handler::handle(request, &mut body, state, gateway).await;
    connection.is_for_sdks.set(is_for_sdks);
    let closes = answer.as_ref().map_or_else(Rejection::closes, Reply::closes);
    progress.set_has_unread(closes || (has_body && !body.is_end_stream()));
    let is_last = progress.has_unread() || state.connections.is_draining();
    let at = Instant::now();
    slot.mark_answered(at);
    if log::is_enabled(Level::Info) {
        let status = answer.as_ref().map_or_else(Rejection::status, Reply::status).as_u16();
        let method = log::printable(head.method.as_str(), LONGEST_METHOD_SHOWN);
        let path = printable_path(head.uri.path());
        let took = (at - asked_at).as_micros();
        let key = key.map_or_else(String::new, |name| format!(" {name}"));
        info!(
            event = "request", method = method, path = path, status = status, address = client, microseconds = took;
            "serve: {method} {path} {status} {client} {took}us{key}"
        );
    }
    let is_own = head.method == Method::GET && !is_forwarded && answer.is_ok();
    Answer {
        outcome: answer.map_err(|rejection| (rejection, is_for_sdks.then_some(client))),
        at,
        is_last,
        may_repeat: is_own && !has_body && !is_last,
    }
}
