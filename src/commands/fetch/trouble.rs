//! What a run tells `on_trouble`: how each document of the account fared. Tells it at the end, when no lock is held.

use std::cell::RefCell;
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use crate::commands::documents;
use crate::log::{debug, error, info};
use crate::model::account::Account;
use crate::model::document::Document;
use crate::model::kind::DocumentKind;
use crate::model::secret::Secret;
use crate::model::status::TokenRequest;
use crate::os::clock::Clock;
use crate::os::ending::{self, Finishing};
use crate::os::file::dir::dir_of;
use crate::os::hook::{HAS_RUN, HookKind};
use crate::os::signals::SignalDeferral;
use crate::refresh::trouble::{RefreshCondition, Telling, TroubleCause, TroubleSubject};
use crate::refresh::{Outcome, RefreshError};
use crate::store::Stores;

/// The conditions of an account's documents, as this run found them.
pub(super) struct Conditions<'a> {
    stores: &'a Stores,
    account: &'a Account,
    /// Permissions of the documents.
    mode: u32,
    clock: &'a dyn Clock,
    found: RefCell<Vec<(DocumentKind, RefreshCondition, Duration)>>,
}

impl<'a> Conditions<'a> {
    pub(super) fn new(
        stores: &'a Stores,
        account: &'a Account,
        mode: u32,
        clock: &'a dyn Clock,
    ) -> Conditions<'a> {
        Conditions { stores, account, mode, clock, found: RefCell::default() }
    }

    /// Notes that the account could not be connected, and so nothing refreshed. What `--force` met is seen by the user who
    /// typed it.
    pub(super) fn note_config(&self, request: &TokenRequest, failure: &anyhow::Error) {
        if self.account.on_trouble.is_none() || *request == TokenRequest::New {
            return;
        }
        let (life, margin) = self.life_and_margin(&DocumentKind::Token);
        if self.is_of_caller_only(&DocumentKind::Token, life, margin) {
            return;
        }
        let cause = TroubleCause::of_config(failure);
        let condition = RefreshCondition::Trouble { cause, rejected: None };
        self.found.borrow_mut().push((DocumentKind::Token, condition, life));
    }

    /// Notes what came of this request for a document. What `--force` met says nothing of the next run, and is seen
    /// by the user who typed it.
    pub(super) fn note(
        &self,
        kind: &DocumentKind,
        request: &TokenRequest,
        outcome: &Result<Outcome, RefreshError>,
    ) {
        if self.account.on_trouble.is_none() {
            return;
        }
        let (condition, life) = match (outcome, request) {
            (Ok(Outcome::Renewed(document)), _)
            | (Ok(Outcome::Confirmed(document)), TokenRequest::Live) => {
                (RefreshCondition::Well { kept: None }, document.left(self.clock.now()))
            }
            (Ok(Outcome::Kept(document)), TokenRequest::Live) => {
                let kept = Some(document.token.clone());
                (RefreshCondition::Well { kept }, document.left(self.clock.now()))
            }
            (Err(failure), TokenRequest::Live | TokenRequest::OtherThan(_)) => {
                let Some(cause) = TroubleCause::of(failure) else { return };
                let (life, margin) = self.life_and_margin(kind);
                let rejected = self.rejected(request);
                let life = if rejected.is_some() { Duration::ZERO } else { life };
                let is_local = matches!(failure, RefreshError::Local(_));
                if is_local && self.is_of_caller_only(kind, life, margin) {
                    return;
                }
                if !cause.is_trouble(self.account, margin, life) {
                    return;
                }
                (RefreshCondition::Trouble { cause, rejected }, life)
            }
            (Ok(_) | Err(_), _) => return,
        };
        self.found.borrow_mut().push((kind.clone(), condition, life));
    }

    /// Whether a failure of this host, such as a secret that cannot be read, is that of the user who runs this, and not the
    /// account's: another user refreshes the documents, and they live long enough, or the caller is at a terminal and sees it.
    /// A timer's user to whom the documents do not belong any more tells it once they end.
    fn is_of_caller_only(&self, kind: &DocumentKind, life: Duration, margin: Duration) -> bool {
        let is_seen = || io::stderr().is_terminal() || io::stdin().is_terminal();
        self.is_refreshed_by_another_user(kind)
            && ((!life.is_zero() && life >= margin / 2) || is_seen())
    }

    /// Whether neither the document nor its directory is this user's, nor can this user publish there.
    fn is_refreshed_by_another_user(&self, kind: &DocumentKind) -> bool {
        let document = self.account.location.path(kind);
        let user = geteuid();
        let dir = dir_of(&document);
        let owners: Vec<_> = [&*document, dir]
            .into_iter()
            .filter_map(|it| Some(fs::metadata(it).ok()?.uid()))
            .collect();
        let may_publish = || access(dir, Access::WRITE_OK | Access::EXEC_OK).is_ok();
        // Root may everywhere.
        let is_shared = || !user.is_root() && may_publish();
        !owners.is_empty() && !owners.contains(&user.as_raw()) && !is_shared()
    }

    /// The published token, if it is the one that the request says was rejected.
    fn rejected(&self, request: &TokenRequest) -> Option<Secret> {
        let TokenRequest::OtherThan(rejected) = request else { return None };
        let published = self.read(&DocumentKind::Token);
        published.map(|document| document.token).filter(|token| token == rejected)
    }

    /// How long the document still lives, and with how much life it is due.
    fn life_and_margin(&self, kind: &DocumentKind) -> (Duration, Duration) {
        let status = documents::document_status(self.stores, self.account, kind, self.clock.now());
        let margin = self.account.refresh_before;
        let margin = match kind {
            DocumentKind::Token => margin,
            DocumentKind::Ticket(_) => {
                self.read(kind).map_or(margin, |document| document.ticket_margin(margin))
            }
        };
        (status.life(), margin)
    }

    fn read(&self, kind: &DocumentKind) -> Option<Document> {
        documents::read(self.stores, self.account, kind).ok()
    }

    /// Tells `on_trouble` what it does not know yet. A failure is logged, and costs nothing: the next run tells it again.
    pub(super) fn tell(&self) {
        let Conditions { stores, account, mode, clock, .. } = *self;
        for (kind, condition, life) in self.found.take() {
            if ending::is_asked() {
                return;
            }
            // A signal ends the command first.
            let (_deferral, _finishing) = (SignalDeferral::begin(), Finishing::begin());
            let store = stores.open(&account.location, &kind, mode);
            let subject = TroubleSubject { account, kind: &kind, store: &*store, clock, life };
            let name = &account.name;
            match subject.tell(&condition, &ending::is_asked) {
                Telling::Told => {
                    let ran = HAS_RUN.with([&HookKind::OnTrouble.key()]);
                    info!(event = "hook_ran", account = name; "fetch: {name}: {ran}")
                }
                Telling::Needless => {}
                Telling::Later => debug!("fetch: {name}: on_trouble is left to another process"),
                Telling::Failed(failure) => {
                    error!(event = "hook_failed", account = name; "fetch: {name}: {failure}")
                }
            }
        }
    }
}
