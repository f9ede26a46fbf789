//! One call: reads the client's body, sends it to WeChat with the account's token, looks at the answer, and heals a dead
//! token. A call is repeated only if nothing of it was sent, or if WeChat refused its token.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::Bytes;
use hyper::http::request;
use hyper::{HeaderMap, Method, Response, StatusCode};
use tokio::time::Instant;

use super::Gateway;
use super::admission::TokenInRequest;
use super::body::{ANSWER_GAP, AnswerBody, ClientBody, ResponseBody};
use super::call::ForwardedCall;
use super::connections::answer::AnswerHead;
use super::connections::{PooledConnection, SendError};
use super::error::GatewayError;
use super::headers;
use super::hiding::{TokenMask, hide_in_body, hide_in_headers};
use super::receive::{ReceivedBody, client_patience, join, receive};
use super::verdict::{self, MAX_INSPECTED};
use crate::model::secret::Secret;
use crate::model::status::TokenDemand;
use crate::server::state::log_messages::{LEADS_BACK, NOT_PASSED_ON};

/// How long WeChat may take until its answer begins, once the request is sent.
pub(super) const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);

/// How slowly a body may go to WeChat, in bytes a second.
const SLOWEST_UPLOAD: u64 = 32 * 1024;

/// WeChat's answer.
struct ApiAnswer {
    status: StatusCode,
    headers: HeaderMap,
    body: ResponseBody,
    /// 0 if there is none, or if the answer is too large for an error.
    errcode: i64,
}

impl ApiAnswer {
    fn into_response(self) -> Response<ResponseBody> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// Fails for a request that can be passed on for no client.
pub(crate) fn check(head: &request::Parts) -> Result<(), GatewayError> {
    let is_unsupported = head.method == Method::CONNECT || head.method == Method::TRACE;
    if is_unsupported || headers::wants_websocket(&head.headers) {
        return Err(GatewayError::NotHttp);
    }
    match headers::has_plain_coding(&head.headers) {
        true => Ok(()),
        false => Err(GatewayError::TransferCoding),
    }
}

/// Whether nothing of a request was sent.
fn is_unsent(answered: &Result<AnswerHead, SendError>) -> bool {
    matches!(answered, Err(SendError::Unsent))
}

/// What an upload waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum UploadWait {
    /// WeChat, to take what was written.
    Writing,
    /// The client, to send more.
    Client,
    /// WeChat, to answer.
    Answer,
}

/// Sends a request with a body of this length, as the client sends that. Returns the head of the answer, which may come
/// before all is sent; the rest is not sent then. `None` if WeChat stops. Fails if the client does.
async fn stream(
    connection: &mut PooledConnection,
    body: &mut ClientBody<'_>,
    length: u64,
) -> Result<Option<Result<AnswerHead, SendError>>, GatewayError> {
    let mut left = length;
    let mut waited_for = (UploadWait::Writing, Instant::now());
    let mut waited_for_client = Duration::ZERO;
    poll_fn(|cx| {
        loop {
            let wait = match connection.poll_write(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Ok(Some(Err(error)))),
                Poll::Ready(Ok(())) if left == 0 => UploadWait::Answer,
                Poll::Ready(Ok(())) => match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        // Trailers are dropped: the headers did not announce them to WeChat.
                        let piece = frame.into_data().unwrap_or_default();
                        left = left.saturating_sub(piece.len() as u64);
                        connection.continue_with(piece);
                        let now = Instant::now();
                        if waited_for.0 == UploadWait::Client {
                            waited_for_client += now - waited_for.1;
                        }
                        waited_for.1 = now;
                        continue;
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(GatewayError::BodyBroken)),
                    Poll::Pending => UploadWait::Client,
                },
                Poll::Pending => UploadWait::Writing,
            };
            if let Poll::Ready(answer) = connection.poll_head(left == 0, cx) {
                return Poll::Ready(Ok(Some(answer)));
            }
            if waited_for.0 != wait {
                waited_for = (wait, Instant::now());
            }
            let limit = match wait {
                UploadWait::Client => client_patience(length - left, waited_for_client),
                UploadWait::Writing | UploadWait::Answer => FIRST_BYTE_TIMEOUT,
            };
            return connection.poll_timeout(waited_for.1 + limit, cx).map(|()| match wait {
                UploadWait::Client => Err(GatewayError::BodyTooSlow),
                UploadWait::Writing | UploadWait::Answer => Ok(None),
            });
        }
    })
    .await
}

impl Gateway {
    /// Makes the call, of which `body` is the body. Returns WeChat's answer, which may still be arriving.
    pub(crate) async fn forward(
        &self,
        call: &ForwardedCall<'_>,
        body: &mut ClientBody<'_>,
    ) -> Result<Response<ResponseBody>, GatewayError> {
        let result = self.try_forward(call, body).await;
        if let Err(error) = &result {
            call.state.counters.forwarded(call.account(), error.code(), 0);
            let (now, connections) = (call.state.clock.instant().into(), &call.state.connections);
            match error {
                GatewayError::TooManyCalls => call.state.log.too_many_calls(now),
                GatewayError::TooManyOfClient => {
                    let share = connections.share();
                    call.state.log.too_many_calls_of_client(now, &call.client, share);
                }
                _ => {}
            }
        }
        result
    }

    async fn try_forward(
        &self,
        call: &ForwardedCall<'_>,
        body: &mut ClientBody<'_>,
    ) -> Result<Response<ResponseBody>, GatewayError> {
        // Held until the answer is complete or streams.
        let mut held = self.hold(&call.client);
        // Before it counts: what is waited for here is the client, and WeChat has nothing to do with it.
        let received = receive(body, &mut held).await?;
        let slot = self.begin_call(&call.client, &call.state.connections)?;
        let mut response = self.make(call, received, body).await?;
        if let Either::Right(streaming) = response.body_mut() {
            streaming.hold(slot);
        }
        Ok(response)
    }

    /// Makes a call whose body was received as far as it is not streamed.
    async fn make(
        &self,
        call: &ForwardedCall<'_>,
        received: ReceivedBody,
        body: &mut ClientBody<'_>,
    ) -> Result<Response<ResponseBody>, GatewayError> {
        let token = match call.admitted.token {
            TokenInRequest::Foreign => None,
            _ => Some(call.token().await?),
        };
        let (length, whole) = match received {
            ReceivedBody::Whole(bytes) => (bytes.len() as u64, Some(bytes)),
            ReceivedBody::Streamed(length) => (length, None),
        };
        let first = match &whole {
            Some(bytes) => self.send_whole(call, token.as_deref(), bytes.clone()).await?,
            None => self.send_streamed(call, token.as_deref(), body, length).await?,
        };
        let Some(token) = token else { return Ok(first.into_response()) };
        let api = call.accounts.api(call.admitted.account);
        if !verdict::is_about_token(first.errcode, api) {
            if first.errcode == 0 {
                self.path_faults.borrow_mut().forget(call.account(), call.path());
            }
            return Ok(first.into_response());
        }
        let Some(new) = self.other_token(call, &token).await? else {
            return Ok(first.into_response());
        };
        let Some(bytes) = whole else { return Err(GatewayError::NotRepeated) };
        let second = self.send_whole(call, Some(&new), bytes).await?;
        if verdict::is_about_token(second.errcode, api) {
            self.note_path_fault(call);
        } else {
            call.state.counters.forwarded(call.account(), "healed", 0);
        }
        Ok(second.into_response())
    }

    /// Returns the token to repeat a call with, which WeChat refused with `token`; `None` if that is not the token's fault,
    /// or if this process replaces none.
    async fn other_token(
        &self,
        call: &ForwardedCall<'_>,
        token: &Rc<Secret>,
    ) -> Result<Option<Rc<Secret>>, GatewayError> {
        let (accounts, account) = (call.accounts, call.admitted.account);
        if let Some(current) = accounts.live_secret(account)
            && current != *token
        {
            return Ok(Some(current));
        }
        let is_known =
            self.path_faults.borrow().contains(call.account(), call.path(), Instant::now());
        if is_known || !accounts.can_refresh() {
            return Ok(None);
        }
        let (client, refused_at) = (call.client.clone(), call.state.clock.instant());
        let demand = TokenDemand::OtherThanRefused(Secret::clone(token), client, refused_at);
        let obtained = Box::pin(accounts.obtain_secret(account, demand)).await;
        let obtained = obtained.map_err(GatewayError::NotReplaced)?;
        if obtained == *token {
            // WeChat honours it.
            self.note_path_fault(call);
            return Ok(None);
        }
        Ok(Some(obtained))
    }

    fn note_path_fault(&self, call: &ForwardedCall<'_>) {
        self.path_faults.borrow_mut().note(call.account(), call.path(), Instant::now());
    }

    async fn send_whole(
        &self,
        call: &ForwardedCall<'_>,
        token: Option<&Secret>,
        bytes: Bytes,
    ) -> Result<ApiAnswer, GatewayError> {
        let length = bytes.len() as u64;
        let patience = FIRST_BYTE_TIMEOUT + Duration::from_secs(length / SLOWEST_UPLOAD);
        let mut in_flight = call.in_flight();
        loop {
            let (mut connection, is_kept) = self.connection(call).await?;
            call.begin(&mut connection, token, length, bytes.clone())?;
            in_flight.is_sent = true;
            let answered = connection.answered(Instant::now() + patience).await;
            if is_kept && answered.as_ref().is_some_and(is_unsent) {
                // It was closed while it was idle.
                in_flight.is_sent = false;
                continue;
            }
            let answer = match self.answered(call, answered) {
                Ok(head) => self.read(call, token, head, connection).await,
                Err(error) => Err(error),
            };
            in_flight.is_sent = false;
            return answer;
        }
    }

    async fn send_streamed(
        &self,
        call: &ForwardedCall<'_>,
        token: Option<&Secret>,
        body: &mut ClientBody<'_>,
        length: u64,
    ) -> Result<ApiAnswer, GatewayError> {
        let mut in_flight = call.in_flight();
        loop {
            let (mut connection, is_kept) = self.connection(call).await?;
            call.begin(&mut connection, token, length, Bytes::new())?;
            in_flight.is_sent = true;
            let answered = stream(&mut connection, body, length).await;
            in_flight.is_sent = false;
            let answered = match answered {
                // No piece of the body was read for it.
                Ok(answered) if is_kept && answered.as_ref().is_some_and(is_unsent) => continue,
                answered => answered?,
            };
            let head = self.answered(call, answered)?;
            return self.read(call, token, head, connection).await;
        }
    }

    /// Returns a kept connection to the account's servers, or a new one, and whether it is a kept one.
    async fn connection(
        &self,
        call: &ForwardedCall<'_>,
    ) -> Result<(PooledConnection, bool), GatewayError> {
        let servers = call.servers.ok_or(GatewayError::NotConfigured)?;
        if let Some(kept) = self.pool.take(servers) {
            return Ok((kept, true));
        }
        match self.pool.connect(servers).await {
            Ok(new) => Ok((new, false)),
            Err(errors) => {
                let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
                let why = NOT_PASSED_ON.quoting([], errors.join("; "));
                self.report_unreachable(call, &why);
                Err(GatewayError::Unreachable)
            }
        }
    }

    /// Returns the head of the answer. `answered` is `None` if it did not come in time.
    fn answered(
        &self,
        call: &ForwardedCall<'_>,
        answered: Option<Result<AnswerHead, SendError>>,
    ) -> Result<AnswerHead, GatewayError> {
        match answered {
            Some(Ok(head)) if head.status.is_informational() => Err(GatewayError::NoAnswer),
            Some(Ok(head)) => Ok(head),
            Some(Err(SendError::Unsent)) => {
                let why = NOT_PASSED_ON.quoting([], "a new connection was closed at once");
                self.report_unreachable(call, &why);
                Err(GatewayError::Unreachable)
            }
            Some(Err(SendError::Sent)) => Err(GatewayError::NoAnswer),
            None => Err(GatewayError::NoAnswerInTime),
        }
    }

    fn report_unreachable(&self, call: &ForwardedCall<'_>, why: &str) {
        let now = call.state.clock.instant().into();
        call.state.log.unreachable(now, call.account(), why);
    }

    /// Reads an answer to a call with this token as far as it may be an error.
    async fn read(
        &self,
        call: &ForwardedCall<'_>,
        token: Option<&Secret>,
        head: AnswerHead,
        mut connection: PooledConnection,
    ) -> Result<ApiAnswer, GatewayError> {
        if head.status == StatusCode::LOOP_DETECTED {
            self.report_unreachable(call, &LEADS_BACK.text());
            return Err(GatewayError::Loop);
        }
        let hidden = token.filter(|_| call.admitted.hides_token);
        let mut headers = headers::for_client(head.headers);
        if let Some(token) = hidden {
            hide_in_headers(&mut headers, token);
        }
        let (mut begun, mut size) = (VecDeque::new(), 0);
        let is_large = connection.left().is_some_and(|left| left > MAX_INSPECTED as u64);
        let is_whole = loop {
            if connection.is_over() {
                break true;
            }
            let is_error = begun.front().map(|first: &Bytes| verdict::may_be_error(first));
            if is_large || size > MAX_INSPECTED || is_error == Some(Some(false)) {
                break false;
            }
            let late = Instant::now() + ANSWER_GAP;
            let piece = poll_fn(|cx| match connection.poll_data(cx) {
                Poll::Ready(piece) => Poll::Ready(Ok(piece)),
                Poll::Pending => connection.poll_timeout(late, cx).map(Err),
            });
            match piece.await {
                Ok(Some(Ok(piece))) => {
                    size += piece.len();
                    begun.push_back(piece);
                }
                Ok(None) => break true,
                Ok(Some(Err(_))) => return Err(GatewayError::NoAnswer),
                Err(()) => return Err(GatewayError::NoAnswerInTime),
            }
        };
        if !is_whole && hidden.is_some() && !head.status.is_success() {
            // A page about an error, most likely not WeChat's, and too long to be looked at.
            return Err(GatewayError::NoAnswer);
        }
        if !is_whole {
            // An answer that has broken off by now is told as such: nothing of it is sent yet.
            match poll_fn(|cx| Poll::Ready(connection.poll_data(cx))).await {
                Poll::Ready(Some(Err(_))) => return Err(GatewayError::NoAnswer),
                Poll::Ready(Some(Ok(piece))) => begun.push_back(piece),
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        let (body, errcode) = if is_whole {
            self.pool.put(connection);
            let whole = join(begun);
            let whole = hidden.map(|token| hide_in_body(whole.clone(), token)).unwrap_or(whole);
            let errcode = match whole.len() <= MAX_INSPECTED {
                true => verdict::errcode(&whole),
                false => 0,
            };
            (Either::Left(Full::new(whole)), errcode)
        } else {
            (
                Either::Right(AnswerBody::new(
                    begun,
                    &self.pool,
                    connection,
                    hidden.map(TokenMask::new),
                )),
                0,
            )
        };
        let result = match (head.status.as_u16(), errcode) {
            (400.., _) => "http_error",
            (_, 0) if is_whole => "ok",
            (_, 0) => "streamed",
            _ => "refused",
        };
        call.state.counters.forwarded(call.account(), result, errcode);
        Ok(ApiAnswer { status: head.status, headers, body, errcode })
    }
}
