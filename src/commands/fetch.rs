//! `wxtoken fetch`: asks WeChat for the tokens and tickets that are due, publishes them, and runs `on_change` and
//! `on_trouble`. Prints nothing.

mod trouble;

use std::cell::Cell;
use std::fmt::Display;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use zeroize::Zeroizing;

use self::trouble::Conditions;
use super::messages;
use super::{documents, parallel};
use crate::cli::{CommonArgs, FetchArgs};
use crate::config::{AccountSettings, Config, Secrets};
use crate::error::Exit;
use crate::language::in_both;
use crate::log::{debug, error, info, notice};
use crate::message::command::command;
use crate::message::{Message, span};
use crate::model::account::Account;
use crate::model::api::Rules;
use crate::model::document::{self, Document};
use crate::model::kind::{DocumentKind, DocumentName, TicketType};
use crate::model::secret::Secret;
use crate::model::status::{DocumentStatus, TokenRequest};
use crate::os::clock::{Clock, SystemClock};
use crate::os::ending::{self, Ending, Finishing};
use crate::os::hook::{HAS_RUN, HookKind, TIME_AT_END};
use crate::os::signals::SignalDeferral;
use crate::refresh::ticket::TicketRefresh;
use crate::refresh::{Outcome, RecordContext, Refresh, RefreshError};
use crate::store::{Store, Stores};
use crate::upstream::Upstream;
use crate::upstream::connect::Connector;

/// Runs `wxtoken fetch`. Failures of accounts are logged as they come; the status is the worst.
pub(crate) fn run(common: &CommonArgs, args: &FetchArgs) -> Result<Exit> {
    let clock = SystemClock;
    let deadline = clock.instant() + args.timeout;
    let config = Config::read(common, &args.account, Secrets::Needed)?;
    let stores = Stores::new(Arc::new(SystemClock)).within(args.timeout, deadline);
    let stores = stores.taking_over(config.predecessor()).renaming(config.document_names());
    let settings = config.account_settings(&args.names)?;
    let request = parse_request(args)?;
    check_number(&request, settings.len(), !args.names.is_empty())?;
    let (mode, connector) = (config.mode(args.mode), Connector::within(args.timeout));
    Ok(parallel::for_each(
        "fetch",
        &settings,
        |it| &it.account.name,
        |AccountSettings { account, upstream, .. }| {
            if ending::is_asked() {
                return Ok(());
            }
            let ending = Ending::default();
            let conditions = &Conditions::new(&stores, account, mode, &clock);
            let connected = connector.connect_later(account, upstream);
            let connected =
                connected.inspect_err(|failure| conditions.note_config(&request, failure));
            let fetched = connected.and_then(|upstream| {
                AccountFetch {
                    stores: &stores,
                    account,
                    upstream: &*upstream,
                    request: &request,
                    mode,
                    deadline,
                    clock: &clock,
                    ending: &ending,
                    conditions,
                }
                .run()
            });
            conditions.tell();
            match fetched {
                // Reported here, because the process may end by the signal now.
                Err(failure) if ending::is_asked() => {
                    Exit::report("fetch", Some(&account.name), &failure);
                    Ok(())
                }
                fetched => fetched,
            }
        },
    ))
}

/// Fails if the request replaces tokens of more accounts than the user can have meant.
fn check_number(request: &TokenRequest, accounts: usize, are_named: bool) -> Result<()> {
    match request {
        TokenRequest::OtherThan(_) if accounts > 1 => {
            Err(Exit::Usage.error(messages::REJECTED_OF_MANY.text()))
        }
        TokenRequest::New if accounts > 1 && !are_named => {
            Err(Exit::Usage.error(messages::FORCE_OF_MANY.with([&accounts])))
        }
        _ => Ok(()),
    }
}

/// Fetches the documents of one account.
struct AccountFetch<'a> {
    stores: &'a Stores,
    account: &'a Account,
    upstream: &'a dyn Upstream,
    request: &'a TokenRequest,
    /// Permissions of the documents.
    mode: u32,
    deadline: Instant,
    clock: &'a dyn Clock,
    ending: &'a Ending,
    conditions: &'a Conditions<'a>,
}

impl AccountFetch<'_> {
    /// Publishes the token and then the tickets, and runs `on_change` if the token changed. A failure of one does not
    /// keep the others from being tried, as long as there is a live token.
    fn run(&self) -> Result<()> {
        let mut failures = Vec::new();
        let mut has_changed = false;
        let is_live = match self.fetch_token() {
            Ok(is_new) => {
                has_changed = is_new;
                true
            }
            Err(failure) => {
                failures.push(failure);
                // A rejected token is not used, whatever life it has left.
                !matches!(self.request, TokenRequest::OtherThan(_))
                    && !self.published_life().is_zero()
            }
        };
        if is_live {
            for kind in &self.account.tickets {
                failures.extend(self.fetch_ticket(kind, &mut has_changed).err());
            }
        }
        // After the tickets, because the command may read them.
        if has_changed {
            failures.extend(run_on_change(self.account).err());
        }
        Exit::combine(failures)
    }

    /// Publishes the token that is requested. Returns whether it is another one than before.
    fn fetch_token(&self) -> Result<bool> {
        let AccountFetch { account, request, .. } = *self;
        let name = account.name.as_str();
        let store = self.stores.open(&account.location, &DocumentKind::Token, self.mode);
        let place = account.location.name_of(&DocumentKind::Token);
        let mut refresh = self.refresh(DocumentName::of_token(name), &place, &*store)?;
        if let Some(context) = &mut refresh.record {
            context.keeps_honoured = true;
        }
        let is_rejected_published = match request {
            TokenRequest::OtherThan(rejected) => self.is_published(rejected),
            TokenRequest::Live | TokenRequest::New => false,
        };
        let outcome = refresh.run(request, self.deadline);
        self.conditions.note(&DocumentKind::Token, request, &outcome);
        let outcome = outcome.map_err(|failure| self.failed(&failure))?;
        self.warn_of_short_life(&outcome);
        if let Outcome::Kept(_) = outcome {
            set_mode(DocumentName::of_token(name), &*store);
        }
        self.report(&outcome, is_rejected_published)?;
        Ok(matches!(outcome, Outcome::Renewed(_)))
    }

    /// Returns the error of a failure to refresh the token. It says how urgent that is.
    fn failed(&self, failure: &RefreshError) -> anyhow::Error {
        let life = match self.published_life() {
            Duration::ZERO => {
                in_both(" (no live token is published)", "（没有已发布的可用 token）")
            }
            life => {
                let life = span(life);
                in_both(
                    format!(" (the published token lives for {life})"),
                    format!("（已发布的 token 剩余 {life}）"),
                )
            }
        };
        failure.exit().error(format!("{}: {failure}{life}", self.account.name))
    }

    /// Warns if a new token is due from the start.
    fn warn_of_short_life(&self, outcome: &Outcome) {
        let account = self.account;
        if let Outcome::Renewed(document) = outcome
            && account.rules == Rules::Classic
            && document.expires_in <= account.refresh_before
        {
            let (life, margin) = (document.expires_in, account.refresh_before);
            let [life, margin] = [life, margin].map(span);
            let name = &account.name;
            error!(
                event = "refresh_before_too_long", account = name;
                "fetch: {name}: {}", messages::SHORT_LIFE.first([&margin, &life])
            );
        }
    }

    /// Says what came of a refresh of the token. Fails if a rejected token is all that there is.
    fn report(&self, outcome: &Outcome, is_rejected_published: bool) -> Result<()> {
        let AccountFetch { account, request, .. } = *self;
        let name = account.name.as_str();
        let describe = |document: &Document| {
            let life = document.promise(self.clock.now(), account.rules, account.refresh_before);
            let life = span(life);
            messages::LIFE.with([&document.token.fingerprint(), &life])
        };
        match (outcome, request) {
            (Outcome::Confirmed(_), TokenRequest::OtherThan(_)) => {
                let message = same_token_message(account.rules, request).first([]);
                return Err(Exit::Unreachable.error(format!("{name}: {message}")));
            }
            (Outcome::Confirmed(_), TokenRequest::New) => {
                error!(event = "same_token", account = name; "fetch: {name}: {}", same_token_message(account.rules, request).first([]));
            }
            (Outcome::Confirmed(document), TokenRequest::Live) => {
                let said = messages::TOKEN_CONFIRMED.with([&describe(document)]);
                info!(event = "token_confirmed", account = name; "fetch: {name}: {said}");
            }
            (Outcome::Renewed(document), TokenRequest::OtherThan(rejected))
                if !is_rejected_published =>
            {
                let (rejected, described) = (rejected.fingerprint(), describe(document));
                let said = messages::PUBLISHED.with([&described, &rejected]);
                notice!(event = "token_published", account = name; "fetch: {name}: {said}");
            }
            (Outcome::Renewed(document), TokenRequest::OtherThan(rejected)) => {
                let values = [&rejected.fingerprint() as &dyn Display, &describe(document)];
                let said = messages::REPLACED.with(values);
                notice!(event = "rejected_token_replaced", account = name; "fetch: {name}: {said}");
            }
            (Outcome::Kept(document), TokenRequest::OtherThan(rejected))
                if document.token == *rejected =>
            {
                let force = command("fetch", Some(name), &["--force"]);
                let fingerprint = rejected.fingerprint();
                let said = messages::KEPT.with([&fingerprint, &force]);
                notice!(event = "rejected_token_kept", account = name; "fetch: {name}: {said}");
            }
            (Outcome::Kept(document), TokenRequest::OtherThan(rejected)) => {
                let values = [&rejected.fingerprint() as &dyn Display, &describe(document)];
                let said = messages::NOT_PUBLISHED.with(values);
                notice!(event = "rejected_token_not_published", account = name; "fetch: {name}: {said}");
            }
            (Outcome::Renewed(document), _) => {
                let said = messages::TOKEN_PUBLISHED.with([&describe(document)]);
                info!(event = "token_published", account = name; "fetch: {name}: {said}");
            }
            (Outcome::Kept(document), _) => {
                let said = messages::TOKEN_KEPT.with([&describe(document)]);
                info!(event = "token_kept", account = name; "fetch: {name}: {said}");
            }
        }
        Ok(())
    }

    /// Publishes the ticket of this type. Sets `has_changed` if the token had to be replaced for it, even if it fails then.
    fn fetch_ticket(&self, kind: &TicketType, has_changed: &mut bool) -> Result<()> {
        let AccountFetch { account, upstream, mode, .. } = *self;
        let name = DocumentName { account: &account.name, ticket: Some(kind) };
        let token_store = self.stores.open(&account.location, &DocumentKind::Token, mode);
        let token_place = account.location.name_of(&DocumentKind::Token);
        let document_kind = DocumentKind::Ticket(kind.clone());
        let store = self.stores.open(&account.location, &document_kind, mode);
        let refresh = TicketRefresh {
            kind,
            place: &account.location.name_of(&document_kind),
            token: self.refresh(name, &token_place, &*token_store)?,
            upstream,
            store: &*store,
            replaces_dead_token: true,
            has_renewed_token: Cell::default(),
        };
        let outcome = refresh.run(self.deadline);
        *has_changed |= refresh.has_renewed_token.get();
        self.conditions.note(&document_kind, &TokenRequest::Live, &outcome);
        match outcome {
            Ok(Outcome::Kept(_)) => set_mode(name, &*store),
            Ok(Outcome::Renewed(document) | Outcome::Confirmed(document)) => {
                let said = messages::TICKET_PUBLISHED.with([&document.token.fingerprint()]);
                info!(event = "ticket_published", account = account.name; "fetch: {name}: {said}");
            }
            Err(failure) => return Err(failure.exit().error(format!("{name}: {failure}"))),
        }
        Ok(())
    }

    /// Returns the refresh of the token in `store`, which messages call `place`. They begin with `name`.
    fn refresh<'b>(
        &'b self,
        name: DocumentName<'b>,
        place: &'b str,
        store: &'b dyn Store,
    ) -> Result<Refresh<'b>> {
        Ok(Refresh {
            name,
            place,
            appid: self.account.needed_appid()?,
            rules: self.account.rules,
            refresh_before: self.account.refresh_before,
            clock: self.clock,
            source: self.upstream,
            store,
            dead: None,
            ending: Some(self.ending),
            record: Some(RecordContext {
                credential: self.upstream,
                probe: self.upstream,
                asks_anyway: *self.request == TokenRequest::New,
                is_of_token: true,
                keeps_honoured: false,
            }),
        })
    }

    /// Returns how long the published token is promised to live; zero if there is none.
    fn published_life(&self) -> Duration {
        self.status().life()
    }

    /// Whether this token is the published one, expired or not.
    fn is_published(&self, token: &Secret) -> bool {
        self.status().published.is_ok_and(|it| it.fingerprint == token.fingerprint())
    }

    fn status(&self) -> DocumentStatus {
        documents::document_status(
            self.stores,
            self.account,
            &DocumentKind::Token,
            self.clock.now(),
        )
    }
}

/// Gives a document that stays published the mode of this run. A failure costs no token.
fn set_mode(name: DocumentName<'_>, store: &dyn Store) {
    if let Err(err) = store.apply_settings() {
        debug!("{name}: the document is left as it is: {err:#}");
    }
}

/// Runs the account's `on_change` command. No lock is held, so the command may ask for the token itself. A signal that ends
/// this process ends the command first. If it came before, the command gets a moment.
fn run_on_change(account: &Account) -> Result<()> {
    let Some(hook) = &account.on_change else { return Ok(()) };
    let name = &account.name;
    debug!("{name}: running on_change");
    let was_asked = ending::is_asked();
    let (_deferral, _finishing) = (SignalDeferral::begin(), Finishing::begin());
    let document = account.location.path(&DocumentKind::Token);
    let begun = Instant::now();
    let is_over = || match was_asked {
        true => begun.elapsed() >= TIME_AT_END,
        false => ending::is_asked(),
    };
    match hook.run(name, &document, &[], &is_over) {
        Err(failure) if ending::is_asked() => {
            // Logged here because the process ends by the signal.
            error!(event = "hook_failed", account = name; "fetch: {name}: {failure}");
            Ok(())
        }
        Ok(()) => {
            let ran = HAS_RUN.with([&HookKind::OnChange.key()]);
            info!(event = "hook_ran", account = name; "fetch: {name}: {ran}");
            Ok(())
        }
        Err(failure) => Err(Exit::Hook.error(format!("{name}: {failure}"))),
    }
}

/// Returns which token the flags ask for.
fn parse_request(args: &FetchArgs) -> Result<TokenRequest> {
    let is_secret_on_stdin =
        args.account.secret_file.as_ref().is_some_and(|path| path.as_os_str() == "-");
    let rejected = match args.rejected.as_deref() {
        None if args.force => return Ok(TokenRequest::New),
        None => return Ok(TokenRequest::Live),
        Some("-") if is_secret_on_stdin => {
            return Err(Exit::Usage.error(messages::STDIN_TWICE.text()));
        }
        Some("-") => {
            let mut text = Zeroizing::new(String::new());
            std::io::stdin()
                .take(8192) // More than any token and its line end.
                .read_to_string(&mut text)
                .map_err(|err| Exit::Usage.error(messages::STDIN_UNREADABLE.quoting([], err)))?;
            text.trim().to_owned()
        }
        // A token may begin with one hyphen; with two, the token was left out.
        Some(flag) if flag.starts_with("--") => {
            return Err(Exit::Usage.error(messages::REJECTED_IS_FLAG.text()));
        }
        Some(token) => token.to_owned(),
    };
    if rejected.is_empty() {
        return Err(Exit::Usage.error(messages::REJECTED_EMPTY.text()));
    }
    if !document::is_bare_token(&rejected) {
        return Err(Exit::Usage.error(messages::REJECTED_NO_TOKEN.text()));
    }
    Ok(TokenRequest::OtherThan(Secret::new(rejected)))
}

/// Returns the message for a run that requested another token and was given the published one again.
fn same_token_message(rules: Rules, request: &TokenRequest) -> &'static Message<0> {
    match (rules, request) {
        (Rules::Stable | Rules::Classic, _) => &messages::SAME_ON_STABLE,
        (Rules::Work, _) => &messages::SAME_ON_WORK,
        (Rules::Mirror, TokenRequest::OtherThan(_)) => &messages::SAME_REPORTED_TO_SOURCE,
        // A mirror passes on that a token was rejected, but cannot force another one.
        (Rules::Mirror, _) => &messages::SAME_AT_SOURCE,
    }
}
