//! One call: reads the client's body, sends it to WeChat with the account's token, looks at the answer, and heals a dead
//! token. A call is repeated only if nothing of it was sent, or if WeChat refused its token.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::http::request;
use hyper::{HeaderMap, Method, Response, StatusCode};
use tokio::time::{Instant, sleep, timeout};

use super::Gateway;
use super::admission::TokenInRequest;
use super::body::{ANSWER_GAP, AnswerBody, ClientBody, ResponseBody, SentBody};
use super::call::ForwardedCall;
use super::connections::{PooledConnection, SendError};
use super::error::GatewayError;
use super::headers;
use super::receive::{ReceivedBody, feed, join, receive};
use super::verdict::{self, MAX_INSPECTED};
use crate::language::bilingual;
use crate::model::secret::Secret;
use crate::model::status::TokenDemand;

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

impl Gateway {
    /// Makes the call, of which `body` is the body. Returns WeChat's answer, which may still be arriving.
    pub(crate) async fn forward(
        &self,
        call: &ForwardedCall<'_>,
        body: &mut ClientBody<'_>,
    ) -> Result<Response<ResponseBody>, GatewayError> {
        let result = match self.begin_call(call.state.connections.capacity()) {
            Ok(slot) => self.try_forward(call, body).await.map(|mut response| {
                if let Either::Right(streaming) = response.body_mut() {
                    streaming.hold(slot);
                }
                response
            }),
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            call.state.counters.forwarded(call.account(), error.code(), 0);
        }
        result
    }

    async fn try_forward(
        &self,
        call: &ForwardedCall<'_>,
        body: &mut ClientBody<'_>,
    ) -> Result<Response<ResponseBody>, GatewayError> {
        let token = match call.admitted.token {
            TokenInRequest::Foreign => None,
            _ => Some(call.token().await?),
        };
        // Held until the answer is complete or streams.
        let mut held = self.hold();
        let received = receive(body, &mut held).await?;
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
        let obtained = accounts.obtain_secret(account, demand).await;
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
        let mut body = SentBody::whole(bytes);
        let mut in_flight = call.in_flight();
        loop {
            let (mut connection, is_kept) = self.connection(call).await?;
            let request = call.request(&self.mark, &connection, token, length, body)?;
            in_flight.is_sent = true;
            let sent = timeout(patience, connection.send(request)).await;
            let sent = match sent {
                Ok(Err(SendError::Unsent(request))) if is_kept => {
                    // It was closed while it was idle.
                    body = request.into_body();
                    in_flight.is_sent = false;
                    continue;
                }
                Ok(sent) => self.sent(call, sent),
                Err(_) => Err(GatewayError::NoAnswerInTime),
            };
            let answer = match sent {
                Ok(response) => self.read(call, response, connection).await,
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
        client_body: &mut ClientBody<'_>,
        length: u64,
    ) -> Result<ApiAnswer, GatewayError> {
        let (pieces, mut body) = SentBody::streamed(length);
        let mut in_flight = call.in_flight();
        // Goes on if another connection has to be taken: a piece may be on its way.
        let mut feeding = pin!(feed(client_body, &pieces));
        let mut late = pin!(sleep(FIRST_BYTE_TIMEOUT));
        let mut is_fed = false;
        let (connection, response) = loop {
            let (mut connection, is_kept) = self.connection(call).await?;
            let request = call.request(&self.mark, &connection, token, length, body)?;
            in_flight.is_sent = true;
            let sent = {
                let mut sending = pin!(connection.send(request));
                poll_fn(|cx| {
                    if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                        return Poll::Ready(Ok(sent));
                    }
                    if !is_fed && let Poll::Ready(fed) = feeding.as_mut().poll(cx) {
                        if let Err(error) = fed {
                            return Poll::Ready(Err(error));
                        }
                        is_fed = true;
                        late.as_mut().reset(Instant::now() + FIRST_BYTE_TIMEOUT);
                    }
                    if is_fed && late.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Err(GatewayError::NoAnswerInTime));
                    }
                    Poll::Pending
                })
                .await
            };
            in_flight.is_sent = false;
            match sent {
                Ok(Err(SendError::Unsent(request))) if is_kept => body = request.into_body(),
                Ok(sent) => break (connection, self.sent(call, sent)),
                Err(error) => return Err(error),
            }
        };
        self.read(call, response?, connection).await
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
                self.report_unreachable(call, &errors.join("; "));
                Err(GatewayError::Unreachable)
            }
        }
    }

    fn sent(
        &self,
        call: &ForwardedCall<'_>,
        sent: Result<Response<Incoming>, SendError>,
    ) -> Result<Response<Incoming>, GatewayError> {
        sent.map_err(|error| match error {
            SendError::Unsent(_) => {
                self.report_unreachable(call, "a new connection was closed at once");
                GatewayError::Unreachable
            }
            SendError::Sent => GatewayError::NoAnswer,
        })
    }

    fn report_unreachable(&self, call: &ForwardedCall<'_>, why: &str) {
        let now = call.state.clock.instant().into();
        call.state.log.unreachable(now, call.account(), why);
    }

    /// Reads an answer as far as it may be an error.
    async fn read(
        &self,
        call: &ForwardedCall<'_>,
        response: Response<Incoming>,
        mut connection: PooledConnection,
    ) -> Result<ApiAnswer, GatewayError> {
        let (head, mut rest) = response.into_parts();
        if head.status.is_informational() {
            // 101, for which nothing asked: what follows is no HTTP any more.
            return Err(GatewayError::NoAnswer);
        }
        if head.status == StatusCode::LOOP_DETECTED {
            let why = bilingual!(
                "correct base_url, or the proxy on the way: it leads back to this gateway",
                "请修正 base_url 或途中的代理：它指向了本网关"
            );
            self.report_unreachable(call, why);
            return Err(GatewayError::Loop);
        }
        let headers = headers::for_client(head.headers);
        let (mut begun, mut size) = (VecDeque::new(), 0);
        let is_large = rest.size_hint().lower() > MAX_INSPECTED as u64;
        let is_whole = loop {
            if rest.is_end_stream() {
                break true;
            }
            let is_error = begun.front().map(|first: &Bytes| verdict::may_be_error(first));
            if is_large || size > MAX_INSPECTED || is_error == Some(Some(false)) {
                break false;
            }
            let frame = poll_fn(|cx| connection.poll_frame(&mut rest, cx));
            match timeout(ANSWER_GAP, frame).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(piece) = frame.into_data()
                        && !piece.is_empty()
                    {
                        size += piece.len();
                        begun.push_back(piece);
                    }
                }
                Ok(None) => break true,
                Ok(Some(Err(_))) => return Err(GatewayError::NoAnswer),
                Err(_) => return Err(GatewayError::NoAnswerInTime),
            }
        };
        if !is_whole {
            // An answer that has broken off by now is told as such: nothing of it is sent yet.
            match poll_fn(|cx| Poll::Ready(connection.poll_frame(&mut rest, cx))).await {
                Poll::Ready(Some(Err(_))) => return Err(GatewayError::NoAnswer),
                Poll::Ready(Some(Ok(frame))) => begun.extend(frame.into_data()),
                Poll::Ready(None) | Poll::Pending => {}
            }
        }
        let (body, errcode) = if is_whole {
            self.pool.put(connection);
            let whole = join(begun);
            let errcode = match whole.len() <= MAX_INSPECTED {
                true => verdict::errcode(&whole),
                false => 0,
            };
            (Either::Left(Full::new(whole)), errcode)
        } else {
            (Either::Right(AnswerBody::new(begun, rest, &self.pool, connection)), 0)
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
