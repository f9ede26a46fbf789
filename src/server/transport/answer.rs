//! The answer to one request, whichever way it came: asks the routes, and notes what a connection needs to know of it.

use http_body_util::Either;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::Instant;

use super::Transport;
use super::connection::Connection;
use super::tracked::{TrackedAnswer, TrackedBody};
use crate::log::{self, Level, info};
use crate::server::routes::handler::{self, ArrivedRequest, Handled};
use crate::server::routes::rejection::Rejection;
use crate::server::routes::response::{self, Reply};
use crate::server::routes::{Route, is_for_sdks, printable_path, without_extra_slashes};

/// How many characters of a method a log line shows: more than any standard method has.
const LONGEST_METHOD_SHOWN: usize = 10;

/// Answers one request.
pub(super) async fn answer(
    request: Request<Incoming>,
    connection: &Connection,
) -> Response<TrackedAnswer> {
    let Connection { info, transport, slot, progress, .. } = connection;
    let Transport { state, gateway, .. } = &**transport;
    let asked_at = Instant::now();
    let (head, body) = request.into_parts();
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
        head: &head,
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
    let languages = head.headers.get(header::ACCEPT_LANGUAGE);
    let mut response = match answer {
        Ok(reply) => reply.into_response(languages),
        Err(rejection) => {
            let sdk = is_for_sdks.then_some(client);
            response::refuse(&rejection, sdk, languages).map(Either::Left)
        }
    };
    if progress.has_unread() || state.connections.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let answered_at = Instant::now();
    slot.mark_answered(answered_at);
    let (head_of_response, answer_body) = response.into_parts();
    let has_body = head.method != Method::HEAD
        && !matches!(head_of_response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let answer_body = TrackedAnswer::begin(answer_body, has_body, progress, answered_at);
    let response = Response::from_parts(head_of_response, answer_body);
    if log::is_enabled(Level::Info) {
        let method = log::printable(head.method.as_str(), LONGEST_METHOD_SHOWN);
        let (path, status) = (printable_path(head.uri.path()), response.status().as_u16());
        let took = (answered_at - asked_at).as_micros();
        let key = key.map_or_else(String::new, |name| format!(" {name}"));
        info!(
            event = "request", method = method, path = path, status = status, address = client, microseconds = took;
            "serve: {method} {path} {status} {client} {took}us{key}"
        );
    }
    response
}
