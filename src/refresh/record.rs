//! How a refresh uses the record that earlier runs left, and that the store keeps. A request that WeChat refused a short time ago is
//! not repeated. Requests are rationed after lost answers, where each of these costs a token. A secret other than the one that got
//! the published token is noticed.

use std::time::{Duration, Instant};

use time::UtcDateTime;

use super::{OTHER_APP, Refresh};
use crate::log::{debug, error, verb};
use crate::message::command::command;
use crate::model::api::Rules;
use crate::model::document::Document;
use crate::model::errcode::Class;
use crate::sabotage::{Bug, has_bug};
use crate::store::{Lease, LostRequests, Record};
use crate::upstream::{Credential, CredentialHashes, Liveness, Probe, RefreshMode, UpstreamError};

/// The time for a probe of the published token.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// What a refresh needs to use the record.
#[derive(Clone, Copy)]
pub(crate) struct RecordContext<'a> {
    pub(crate) credential: &'a dyn Credential,
    pub(crate) probe: &'a dyn Probe,
    /// Whether WeChat is asked whatever the record says, because the operator may have removed the cause.
    pub(crate) asks_anyway: bool,
    /// Whether the document is a token's, which is requested with the secret itself. A ticket is requested with a token.
    pub(crate) is_of_token: bool,
    /// Whether a token that was reported as rejected is probed, and stays if WeChat honours it.
    pub(crate) keeps_honoured: bool,
}

/// The record in use by one refresh, which holds the lease to publish.
pub(super) struct RecordSession<'a> {
    refresh: &'a Refresh<'a>,
    context: RecordContext<'a>,
    record: Record,
    hashes: CredentialHashes,
    /// The record as it was written last.
    written: Option<Record>,
    /// When the last request was sent that mints a token.
    requested_at: Option<UtcDateTime>,
    /// The requests without an answer that all hosts know of; `None` if the place is this host's alone.
    shared: Option<LostRequests>,
}

impl<'a> RecordSession<'a> {
    /// Reads the record. Returns `None` if there is none for this upstream.
    pub(super) fn begin(refresh: &'a Refresh<'a>) -> Option<RecordSession<'a>> {
        let context = refresh.record?;
        let written = refresh.store.record(refresh.appid, refresh.clock.now().wall);
        let record = written.clone().or_else(|| Record::new(refresh.appid))?;
        let hashes = context.credential.hashes(record.salt())?;
        Some(RecordSession {
            refresh,
            context,
            record,
            hashes,
            written,
            requested_at: None,
            shared: None,
        })
    }

    /// Whether requests are noted before they are sent. On classic each request mints a token; on WeCom, a token's age may count from
    /// a request whose answer was lost.
    fn notes_requests(&self) -> bool {
        matches!(self.refresh.rules, Rules::Classic | Rules::Work)
    }

    /// Adds the requests without an answer that other hosts know of to the record.
    pub(super) fn take_in(
        &mut self,
        lease: &dyn Lease,
        published: Option<&Document>,
    ) -> anyhow::Result<()> {
        if !self.notes_requests() {
            return Ok(());
        }
        let Some(lost) = lease.lost()? else { return Ok(()) };
        self.record.lost_mut().add(&lost);
        // A token other than the published one was issued after it, whichever host published it.
        if let (Rules::Work, Some(published)) = (self.refresh.rules, published) {
            self.record.lost_mut().forget_until(published.created_at.wall);
        }
        self.shared = Some(lost);
        self.write();
        Ok(())
    }

    /// Returns the requests without an answer if other hosts do not know them yet. The caller tells these hosts: from now on they count
    /// as known.
    pub(super) fn unshared(&mut self) -> Option<&LostRequests> {
        let (shared, lost) = (self.shared.as_mut()?, self.record.lost());
        if shared == lost {
            return None;
        }
        shared.clone_from(lost);
        Some(lost)
    }

    /// Fails if the record says that WeChat is not to be asked now.
    pub(super) fn check(&self) -> Result<(), UpstreamError> {
        if self.context.asks_anyway {
            return Ok(());
        }
        let now = self.refresh.clock.now().wall;
        let wait = |until: UtcDateTime| Duration::try_from(until - now).unwrap_or_default();
        if let Some((refusal, until)) = self.record.refusal(&self.hashes.request, now) {
            let (wait, at_once) = (wait(until), self.at_once());
            return Err(UpstreamError::StillRefused { refusal, until, wait, at_once });
        }
        match self.record.lost().of_day(now) {
            Some(lost) if self.refresh.rules == Rules::Classic => match lost.next_at {
                Some(until) => {
                    let (lost, wait, at_once) = (lost.count, wait(until), self.at_once());
                    Err(UpstreamError::Rationed { lost, until, wait, at_once })
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Returns the command that asks WeChat whatever the record says.
    fn at_once(&self) -> String {
        command("fetch", Some(self.refresh.name.account), &["--force"])
    }

    /// Asks WeChat whether it honours the token of a document that is not due and was got with another secret. The document is kept
    /// unless the token is dead. Returns `None` without asking where a request for a token invalidates none.
    pub(super) fn verdict(&mut self, document: &Document, deadline: Instant) -> Option<Liveness> {
        if self.refresh.rules != Rules::Classic {
            return None;
        }
        let timeout = PROBE_TIMEOUT.min(self.refresh.clock.until(deadline));
        let name = self.refresh.name;
        let verdict = self.context.probe.probe(&document.token, timeout);
        match &verdict {
            Liveness::Alive => {
                debug!(
                    "{name}: the secret is another one, and WeChat honours the token all the same"
                );
                self.record.note_issued(&document.token, &self.hashes.secret);
                self.write();
            }
            Liveness::Dead => {}
            Liveness::Unknown(why) => {
                debug!(
                    "{name}: the secret is another one; whether the token is alive is unknown: {why}"
                );
            }
        }
        Some(verdict)
    }

    /// Asks WeChat whether it honours the token of a document that was reported as rejected; `None` if such a token is not to be kept.
    pub(super) fn verdict_on_report(
        &self,
        document: &Document,
        deadline: Instant,
    ) -> Option<Liveness> {
        // The other half of the time is for a request.
        let timeout = PROBE_TIMEOUT.min(self.refresh.clock.until(deadline) / 2);
        let probe = || self.context.probe.probe(&document.token, timeout);
        self.context.keeps_honoured.then(probe)
    }

    /// Notes that a request is about to be sent. Its answer counts as lost until it comes: this process may end before.
    pub(super) fn note_request(&mut self, at: UtcDateTime) {
        if self.notes_requests() && !has_bug(Bug::LostAnswersNotCounted) {
            self.requested_at = Some(at);
            self.record.lost_mut().note(at);
            self.write();
        }
    }

    /// Notes that the request that was about to be sent at `at` is not sent.
    pub(super) fn note_unsent(&mut self, at: UtcDateTime) {
        self.record.lost_mut().note_answer(at);
    }

    /// Notes the error of the request of `at`.
    pub(super) fn note_error(&mut self, error: &UpstreamError, mode: RefreshMode, at: UtcDateTime) {
        if !error.may_have_minted() || has_bug(Bug::LostAnswersTakenForAnswers) {
            self.record.lost_mut().note_answer(at);
        }
        if let UpstreamError::Refused(refusal) = error {
            // The quota of forced requests says nothing about normal ones.
            let is_forced_quota = self.refresh.rules == Rules::Stable
                && mode == RefreshMode::Forced
                && refusal.class() == Class::Quota;
            if !is_forced_quota && !has_bug(Bug::RefusalForgotten) {
                let now = self.refresh.clock.now().wall;
                self.record.note_refusal(&self.hashes.request, refusal, now);
            }
        }
    }

    /// Returns how much of its life a token may have spent that WeCom returned to the request of `at` and that is new here: it may have
    /// been issued to an earlier run whose answer was lost. Zero if an answer has come since.
    pub(super) fn spent(&self, life: Duration, at: UtcDateTime) -> Duration {
        let since = self.record.lost().since(life, at);
        since.map_or(Duration::ZERO, |since| (at - since).try_into().unwrap_or_default())
    }

    /// Notes that the last request was answered with a token. Does not write the record.
    pub(super) fn note_token(&mut self) {
        let requested_at = self.requested_at.take();
        settle(self.record.lost_mut(), self.refresh.rules, requested_at);
    }

    /// Writes the record for the next run, if it has changed. The lease is held.
    pub(super) fn write(&mut self) {
        if is_changed(&self.record, self.written.as_ref()) {
            self.refresh.store.write_record(&self.record, self.refresh.clock);
            self.written = Some(self.record.clone());
        }
    }

    /// Notes that the document of the last answer was published in place of `before`, and writes the record. The lease is held.
    pub(super) fn note_published(mut self, document: &Document, before: Option<&Document>) {
        self.note_token();
        let RecordSession { refresh, context, mut record, written, .. } = self;
        // Hashed anew: the secret may have been changed since the session began.
        let Some(hashes) = context.credential.hashes(record.salt()) else { return };
        record.forget_refusal(&hashes.request);
        if context.is_of_token {
            let is_of_other_secret = |it: &Document| {
                it.token != document.token
                    && !it.left(refresh.clock.now()).is_zero()
                    && record.has_other_secret(&it.token, &hashes.secret)
            };
            // At WeCom the AppID does not say which app is meant.
            if refresh.rules == Rules::Work && before.is_some_and(is_of_other_secret) {
                let (name, account) = (refresh.name, refresh.name.account);
                error!(
                    event = "other_secret", account = account;
                    "{}: {name}: {}", verb(), OTHER_APP.first([])
                );
            }
            let before = before.map(|before| &before.token);
            record.note_replacement(&document.token, before, refresh.clock.now().wall);
            record.note_issued(&document.token, &hashes.secret);
        }
        if is_changed(&record, written.as_ref()) {
            refresh.store.write_record(&record, refresh.clock);
        }
    }
}

/// Whether the document's token was got with a secret other than the present one. `false` also if that is unknown.
pub(super) fn has_other_secret(refresh: &Refresh<'_>, document: &Document) -> bool {
    let Some(context) = refresh.record.filter(|context| context.is_of_token) else { return false };
    let record = refresh.store.record(refresh.appid, refresh.clock.now().wall);
    record.is_some_and(|record| {
        let hashes = context.credential.hashes(record.salt());
        hashes.is_some_and(|hashes| record.has_other_secret(&document.token, &hashes.secret))
    })
}

/// Whether this record differs from the one that was written last.
fn is_changed(record: &Record, written: Option<&Record>) -> bool {
    match written {
        Some(written) => written != record,
        None => !record.is_empty(),
    }
}

/// Notes that a token came in answer to the request of `requested_at`.
fn settle(lost: &mut LostRequests, rules: Rules, requested_at: Option<UtcDateTime>) {
    match rules {
        // A token that is new after this one was issued later than all of these requests.
        Rules::Work => lost.clear(),
        _ => requested_at.iter().for_each(|at| lost.note_answer(*at)),
    }
}
