//! How far a connection is with its current request, and how long that may take. Reads and writes nothing itself.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::server::limits::{
    ANSWER_TIMEOUT, FORWARD_TIMEOUT, IDLE_TIMEOUT, PARSER_KEPT, REQUEST_TIMEOUT, RESPONSE_TIMEOUT,
    STREAM_GAP, poll_deadline,
};
use crate::server::state::slots::Standing;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestPhase {
    /// No byte of a request has arrived since the connection was accepted.
    Connected,
    /// Part of a TLS handshake has arrived.
    Handshake,
    /// Part of a request's head has arrived.
    ReadingHead,
    /// The head has arrived, and the route waits for the body.
    ReadingBody,
    /// All that the route needs of the request has arrived, and its answer is not ready.
    Answering,
    /// A call is being passed on to WeChat, and nothing of its body is waited for.
    Forwarding,
    /// The next piece of such a call's body is waited for.
    ReceivingCall,
    /// The answer is being written, and more of it is to come.
    Streaming,
    /// The answer, or its end, is being written.
    Writing,
    /// The answer was written a moment ago, and the next request may follow at once: the parser is kept for it.
    Resting,
    /// The connection waits for another request, without a parser.
    Idle,
}

impl RequestPhase {
    /// How long a connection may be in this phase. All phases up to the last byte of a request share one timeout.
    fn timeout(self) -> Duration {
        match self {
            RequestPhase::Connected
            | RequestPhase::Handshake
            | RequestPhase::ReadingHead
            | RequestPhase::ReadingBody => REQUEST_TIMEOUT,
            RequestPhase::Answering => ANSWER_TIMEOUT,
            RequestPhase::Forwarding | RequestPhase::ReceivingCall => FORWARD_TIMEOUT,
            RequestPhase::Streaming => STREAM_GAP,
            RequestPhase::Writing => RESPONSE_TIMEOUT,
            RequestPhase::Resting => PARSER_KEPT,
            RequestPhase::Idle => IDLE_TIMEOUT,
        }
    }
}

/// The progress of one connection, which its stream, its service and its timer share.
pub(super) struct RequestProgress {
    phase: Cell<RequestPhase>,
    /// When the timeout of the phase began.
    since: Cell<Instant>,
    /// Whether bytes of the client may be left unread when the connection ends.
    has_unread: Cell<bool>,
    /// Whether the client has shut down its side.
    has_ended: Cell<bool>,
    /// Whether the last request was a call that is passed on.
    is_call: Cell<bool>,
}

impl RequestProgress {
    /// Returns the progress of a connection that was just accepted.
    pub(super) fn new(now: Instant) -> RequestProgress {
        RequestProgress {
            phase: Cell::new(RequestPhase::Connected),
            since: Cell::new(now),
            has_unread: Cell::new(false),
            has_ended: Cell::new(false),
            is_call: Cell::new(false),
        }
    }

    pub(super) fn enter(&self, phase: RequestPhase, since: Instant) {
        self.phase.set(phase);
        self.since.set(since);
    }

    /// Notes that a TLS handshake has begun.
    pub(super) fn begin_handshake(&self) {
        self.phase.set(RequestPhase::Handshake);
    }

    /// Notes that the TLS handshake is done.
    pub(super) fn end_handshake(&self) {
        self.phase.set(RequestPhase::Connected);
    }

    /// Enters the phase after the head of a request. Returns when the request began to arrive.
    pub(super) fn begin_answer(&self, is_call: bool, now: Instant) -> Instant {
        let request_began = match self.phase.get() {
            RequestPhase::Connected | RequestPhase::ReadingHead => self.since.get(),
            // The request arrived together with the one before.
            _ => now,
        };
        self.is_call.set(is_call);
        let phase = if is_call { RequestPhase::Forwarding } else { RequestPhase::Answering };
        self.enter(phase, now);
        request_began
    }

    /// Notes that the next piece of a call's body is waited for.
    pub(super) fn await_call(&self) {
        self.phase.set(RequestPhase::ReceivingCall);
    }

    /// Notes that bytes of the client have arrived.
    pub(super) fn received_bytes(&self) {
        match self.phase.get() {
            RequestPhase::Connected => self.phase.set(RequestPhase::ReadingHead),
            RequestPhase::Resting | RequestPhase::Idle => {
                self.enter(RequestPhase::ReadingHead, Instant::now());
            }
            _ => {}
        }
    }

    /// Notes that some bytes for the client are written.
    pub(super) fn sent_bytes(&self) {
        if self.phase.get() == RequestPhase::Streaming {
            self.since.set(Instant::now());
        }
    }

    /// Notes that the whole answer is there to be written, in the time that began with its head.
    pub(super) fn took_whole_body(&self) {
        self.phase.set(RequestPhase::Writing);
    }

    /// Notes that all bytes for the client are written.
    pub(super) fn sent_everything(&self) {
        if self.phase.get() == RequestPhase::Writing {
            self.phase.set(RequestPhase::Resting);
        }
    }

    /// Notes that the parser is dropped. The time that the connection may be idle runs from its last answer.
    pub(super) fn end_rest(&self) {
        self.phase.set(RequestPhase::Idle);
    }

    /// Notes that the client has shut down its side.
    pub(super) fn reached_end(&self) {
        self.has_ended.set(true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// Whether the end of what a client sends has no meaning until its request is answered: one that shuts down its side
    /// after a request still gets the answer. One whose call is passed on has left: there is no other sign of that, and
    /// WeChat's answer would reach no client.
    pub(super) fn ignores_end(&self) -> bool {
        !self.is_call.get()
            && matches!(
                self.phase.get(),
                RequestPhase::Answering | RequestPhase::Streaming | RequestPhase::Writing
            )
    }

    pub(super) fn set_has_unread(&self, has_unread: bool) {
        self.has_unread.set(has_unread);
    }

    pub(super) fn has_unread(&self) -> bool {
        self.has_unread.get()
    }

    pub(super) fn is_resting(&self) -> bool {
        self.phase.get() == RequestPhase::Resting
    }

    /// Whether the head of a request is arriving.
    pub(super) fn is_reading_head(&self) -> bool {
        self.phase.get() == RequestPhase::ReadingHead
    }

    /// Whether no request is under way.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(
            self.phase.get(),
            RequestPhase::Connected
                | RequestPhase::Handshake
                | RequestPhase::Resting
                | RequestPhase::Idle
        )
    }

    /// Returns what the connection is doing, as far as eviction goes.
    pub(super) fn standing(&self) -> Standing {
        match self.phase.get() {
            RequestPhase::Connected | RequestPhase::Resting | RequestPhase::Idle => Standing::Idle,
            RequestPhase::Handshake
            | RequestPhase::ReadingHead
            | RequestPhase::ReadingBody
            | RequestPhase::ReceivingCall => Standing::Receiving,
            RequestPhase::Answering
            | RequestPhase::Forwarding
            | RequestPhase::Streaming
            | RequestPhase::Writing => Standing::InFlight,
        }
    }

    pub(super) fn is_writing(&self) -> bool {
        matches!(self.phase.get(), RequestPhase::Streaming | RequestPhase::Writing)
    }

    /// Whether hyper has parsed a request whose answer is not completely written.
    pub(super) fn has_request(&self) -> bool {
        matches!(
            self.phase.get(),
            RequestPhase::ReadingBody
                | RequestPhase::Answering
                | RequestPhase::Forwarding
                | RequestPhase::ReceivingCall
                | RequestPhase::Streaming
                | RequestPhase::Writing
        )
    }

    /// Polls until the current phase has lasted too long. `timer` wakes the task for that; a request does not touch it.
    pub(super) fn poll_timeout(&self, timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
        poll_deadline(timer, self.since.get() + self.phase.get().timeout(), cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_shuts_down_its_side_has_left_only_if_wechat_would_answer_it() {
        let now = Instant::now();
        let progress = RequestProgress::new(now);
        assert!(!progress.ignores_end(), "no request has arrived");
        progress.begin_answer(true, now);
        assert!(!progress.ignores_end(), "a call");
        progress.enter(RequestPhase::Writing, now);
        progress.sent_everything();
        progress.received_bytes();
        progress.begin_answer(false, now);
        assert!(progress.ignores_end(), "a request for a token, on the same connection");
        progress.enter(RequestPhase::ReadingBody, now);
        assert!(!progress.ignores_end(), "its body breaks off");
        progress.enter(RequestPhase::Writing, now);
        assert!(progress.ignores_end());
        progress.sent_everything();
        assert!(!progress.ignores_end(), "it is answered");
    }

    #[test]
    fn a_connection_is_idle_from_its_last_answer_however_long_its_parser_is_kept() {
        let start = Instant::now();
        let progress = RequestProgress::new(start);
        progress.enter(RequestPhase::Writing, start);
        progress.sent_everything();
        assert!(progress.is_resting() && progress.is_between_requests());
        assert_eq!((progress.since.get(), progress.standing()), (start, Standing::Idle));
        progress.end_rest();
        assert!(!progress.is_resting() && progress.is_between_requests());
        assert_eq!((progress.since.get(), progress.standing()), (start, Standing::Idle));
    }

    #[test]
    fn the_time_for_a_request_runs_from_its_first_byte() {
        let start = Instant::now();
        let later = |secs| start + Duration::from_secs(secs);
        let progress = RequestProgress::new(start);
        progress.received_bytes();
        assert_eq!(
            progress.begin_answer(false, later(5)),
            start,
            "that of the first one, from the accept"
        );
        progress.enter(RequestPhase::Writing, later(6));
        // The next request is here before the answer is written completely.
        progress.received_bytes();
        assert_eq!(progress.begin_answer(false, later(7)), later(7));
        progress.enter(RequestPhase::Writing, later(8));
        progress.sent_everything();
        assert!(progress.is_resting());
        progress.received_bytes();
        let began = progress.begin_answer(false, later(86_400));
        assert!(
            start <= began && began < later(86_400),
            "that of a later one, from its first byte"
        );
        assert!(progress.has_request() && !progress.is_between_requests());
    }
}
