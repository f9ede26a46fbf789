//! `wxtoken check`: looks at everything between an account and WeChat, and says what is wrong and what to do about it.
//! Publishes nothing and refreshes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::report::{Report, TextStyle};
use super::{documents, output, parallel};
use crate::check::published::CurrentToken;
use crate::check::{Finding, Verdict, local, messages, published, remote};
use crate::cli::{CheckArgs, CheckFormat, CommonArgs};
use crate::config::{Config, Secrets};
use crate::error::Exit;
use crate::language::Language;
use crate::log;
use crate::message::command::command;
use crate::model::account::Account;
use crate::model::api::{Api, Rules};
use crate::model::document::Document;
use crate::model::errcode::Class;
use crate::model::kind::DocumentKind;
use crate::model::secret::Secret;
use crate::model::status::Problem;
use crate::os::ca_store;
use crate::os::clock::{Clock, SystemClock};
use crate::os::timestamp::Timestamp;
use crate::store::Stores;
use crate::upstream::client::Client;
use crate::upstream::config::{Origin, UpstreamConfig};
use crate::upstream::connect::{self, Connector};
use crate::upstream::credentials::SecretSource;
use crate::upstream::ping::PingReply;
use crate::upstream::{Liveness, RefreshMode, UpstreamError};

mod report;

pub(crate) fn run(common: &CommonArgs, args: &CheckArgs) -> Result<Exit> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let deadline = clock.instant() + args.timeout;
    let config = Config::read(common, &args.account, Secrets::Examined)?;
    let connector = Connector::within(args.timeout);
    let stores = Stores::new(Arc::clone(&clock)).within(args.timeout, deadline);
    let accounts = config.account_settings(&args.names)?.into_iter();
    let subjects: Vec<_> = accounts
        .enumerate()
        .map(|(index, it)| Subject { index, account: it.account, upstream: it.upstream })
        .collect();
    let names: Vec<_> = subjects.iter().map(|it| it.account.name.as_str()).collect();
    let style = (args.format == CheckFormat::Text).then(|| TextStyle {
        language: Language::of_process(),
        has_colours: output::has_colours(),
        only_problems: common.quiet,
        width: output::terminal::width(),
    });
    let report = Report::new(&names, style, &|text| log::without_progress(|| output::print(text)));
    parallel::for_each(
        "check",
        &subjects,
        |it| &it.account.name,
        |Subject { index, account, upstream: config }| {
            let (stores, clock, findings) =
                (&stores, &*clock, Findings { report: &report, account: *index });
            Examination { account, config, stores, clock, deadline, findings }.run(&connector);
            report.complete(*index);
            Ok(())
        },
    );
    let findings = report.finish()?;
    if args.format == CheckFormat::Json {
        output::print(&report::json(&names, &findings)?)?;
    }
    Ok(match findings.iter().map(|it| report::worst(it)).max() {
        Some(Verdict::Problem(exit)) => exit,
        _ => Exit::Done,
    })
}

/// An account that is checked.
struct Subject {
    /// Its place among all that are checked.
    index: usize,
    account: Account,
    upstream: UpstreamConfig,
}

/// Where the findings about one account go.
#[derive(Clone, Copy)]
struct Findings<'a> {
    report: &'a Report<'a>,
    account: usize,
}

impl Findings<'_> {
    fn add(&self, finding: Finding) {
        self.report.add(self.account, finding);
    }

    fn extend(&self, findings: impl IntoIterator<Item = Finding>) {
        findings.into_iter().for_each(|it| self.add(it));
    }
}

/// The examination of one account.
struct Examination<'a> {
    account: &'a Account,
    config: &'a UpstreamConfig,
    stores: &'a Stores,
    clock: &'a dyn Clock,
    /// When all calls must have ended.
    deadline: Instant,
    findings: Findings<'a>,
}

impl Examination<'_> {
    /// Examines the account, from this host to WeChat.
    fn run(&self, connector: &Connector) {
        let Examination { account, config, stores, findings, .. } = *self;
        findings.add(Finding::named("config", origin(config)));
        let (client, secret) = connector.parts(&account.name, config);
        let trial = stores.try_publishing(&account.location);
        let source = SecretSource::find(&account.name, config);
        findings.add(local::secret(config.is_mirror, source.as_ref(), &secret));
        if let (Some(source), Ok(Some(_))) = (&source, &secret) {
            findings.extend(local::secret_of_root(account, source));
        }
        findings.add(local::location(&account.location, &trial));
        let kinds = account.tickets.iter().cloned().map(DocumentKind::Ticket);
        let kinds = std::iter::once(DocumentKind::Token).chain(kinds);
        findings.extend(local::writers(kinds.map(|kind| account.location.path(&kind))));
        findings.add(local::lock(&trial, &stores.lease_state(&account.location)));
        let hooks = [&account.on_change, &account.on_trouble];
        findings.extend(hooks.into_iter().flatten().map(local::hook));
        let store = ca_store::of_system();
        findings.extend(local::ca_store(store));
        let client = client.map_err(|err| {
            if store.is_err() {
                return; // The same error, told already.
            }
            let (exit, what) = (Exit::from_error(&err), format!("{err:#}"));
            findings.add(Finding::problem("host", exit, &messages::CLIENT_UNUSABLE, [&what]));
        });
        let mut client = client.ok();
        let reply = client.as_ref().and_then(|client| self.ping(client));
        if reply.is_none() {
            // A server that does not answer is a finding already.
            client = None;
        }
        let current = match (&client, secret) {
            (Some(client), Ok(secret)) => {
                match self.remembered(client.clone(), secret.clone()) {
                    // A secret that WeChat has refused is not sent again: WeCom bans the address for it.
                    Some(error) => {
                        findings.add(remote::credentials(account.rules, &Err(error)));
                        None
                    }
                    None => self.request_token(client.clone(), secret),
                }
            }
            _ => None,
        };
        let (token, liveness, now) = self.probe(client);
        let seen_from = reply.as_ref().and_then(|reply| reply.seen_from.as_deref());
        findings.extend(remote::address(seen_from, liveness.as_ref()));
        let fault = local::store_fault(&trial);
        let (liveness, current) = (liveness.as_ref(), current.as_ref());
        findings.extend(self.published(&token, liveness, current, fault.as_deref(), now));
    }

    /// Pings the servers, and returns the reply of the first one that answers.
    fn ping(&self, client: &Client) -> Option<PingReply> {
        let (hosts, reply) = remote::hosts(client, self.account.rules, self.clock, self.deadline);
        self.findings.extend(hosts);
        self.findings.extend(reply.as_ref().map(remote::clock));
        reply
    }

    /// Adds findings about what earlier runs remember that concerns the next one. Returns the refusal of the credentials if
    /// one still holds.
    fn remembered(&self, client: Client, secret: Option<Secret>) -> Option<UpstreamError> {
        let Examination { account, stores, .. } = *self;
        let upstream = connect::upstream(account, client, secret).ok()?;
        let (appid, now) = (account.appid.as_deref()?, self.clock.now().wall);
        let record = stores.record(&account.location, &DocumentKind::Token, appid, now)?;
        let hashes = upstream.hashes(record.salt())?;
        if let Ok(document) = documents::read(stores, account, &DocumentKind::Token)
            && record.has_other_secret(&document.token, &hashes.secret)
        {
            self.findings.add(local::other_secret());
        }
        if account.rules == Rules::Classic {
            self.findings.extend(record.lost().of_day(now).as_ref().map(local::lost_answers));
        }
        let (refusal, until) = record.refusal(&hashes.request, now)?;
        let is_of_credentials = refusal.class() == Class::Credentials;
        let wait = Duration::try_from(until - now).unwrap_or_default();
        let at_once = command("fetch", Some(&account.name), &["--force"]);
        let error = UpstreamError::StillRefused { refusal, until, wait, at_once };
        if is_of_credentials {
            return Some(error);
        }
        self.findings.add(local::still_refused(&error));
        None
    }

    /// Requests a token in a way that invalidates none, to see whether the credentials are accepted. Returns the token if
    /// it is of the kind that the account publishes.
    fn request_token(&self, client: Client, secret: Option<Secret>) -> Option<CurrentToken> {
        let asked_at = self.clock.now();
        let api = match self.account.api {
            Api::Classic => Api::Stable,
            api => api,
        };
        let account = Account { api, ..self.account.clone() };
        let answer = match connect::upstream(&account, client, secret) {
            Ok(upstream) => upstream.request_token(RefreshMode::Normal, self.timeout()),
            Err(err) => {
                let (exit, what) = (Exit::from_error(&err), format!("{err:#}"));
                let finding = Finding::problem("credentials", exit, &messages::NO_APPID, [&what]);
                self.findings.add(finding);
                return None;
            }
        };
        self.findings.add(remote::credentials(account.rules, &answer));
        let is_published_kind = account.rules != Rules::Classic;
        let issued = answer.ok().filter(|_| is_published_kind)?;
        Some(CurrentToken { token: issued.token, asked_at })
    }

    /// Returns the published token, what a probe says of it, and when it was probed. If a token is dead because another
    /// one was published meanwhile, that one is probed.
    fn probe(
        &self,
        client: Option<Client>,
    ) -> (Result<Document, Problem>, Option<Liveness>, Timestamp) {
        let read = || documents::read(self.stores, self.account, &DocumentKind::Token);
        let token = |it: &Result<Document, Problem>| it.as_ref().ok().map(|it| it.token.clone());
        // A probe needs no secret. Another wxtoken has none.
        let client = client.filter(|_| self.account.rules != Rules::Mirror);
        let no_secret = Some(Secret::new(String::new()));
        let upstream = client.and_then(|it| connect::upstream(self.account, it, no_secret).ok());
        let mut found = read();
        loop {
            let now = self.clock.now();
            let live = found.as_ref().ok().filter(|it| !it.left(now).is_zero());
            let liveness = live
                .zip(upstream.as_deref())
                .map(|(it, upstream)| upstream.probe(&it.token, self.timeout()));
            let next = read();
            if !matches!(liveness, Some(Liveness::Dead)) || token(&next) == token(&found) {
                return (found, liveness, now);
            }
            found = next;
        }
    }

    /// Returns the findings about the published token and tickets. `liveness` is what a probe says of the token, `current`
    /// the token that the upstream has just issued, `store_fault` why nothing can be published.
    fn published(
        &self,
        token: &Result<Document, Problem>,
        liveness: Option<&Liveness>,
        current: Option<&CurrentToken>,
        store_fault: Option<&str>,
        now: Timestamp,
    ) -> Vec<Finding> {
        let account = self.account;
        let mut findings = match token {
            Ok(document) => vec![
                published::token(account, document, liveness, current, now),
                published::schedule(account, document, now),
            ],
            Err(Problem::Missing) if self.is_fetch_in_vain() => {
                vec![published::consequence("token", None)]
            }
            Err(problem) => {
                let location = account.location.name_of(&DocumentKind::Token);
                vec![published::problem("token", None, &location, problem, store_fault)]
            }
        };
        findings.extend(account.tickets.iter().map(|ticket| {
            let kind = DocumentKind::Ticket(ticket.clone());
            let status = documents::document_status(self.stores, account, &kind, now);
            match status.published {
                Err(Problem::Missing) if self.is_fetch_in_vain() => {
                    published::consequence("ticket", Some(ticket))
                }
                _ => published::ticket(ticket, &status, store_fault),
            }
        }));
        findings
    }

    /// Whether a finding so far says why no fetch can publish.
    fn is_fetch_in_vain(&self) -> bool {
        self.findings.report.is_fetch_in_vain(self.findings.account)
    }

    /// How long the next call may take.
    fn timeout(&self) -> Duration {
        remote::timeout(self.clock, self.deadline)
    }
}

/// Where the account is configured.
fn origin(config: &UpstreamConfig) -> String {
    match &config.origin {
        Origin::CommandLine => messages::GIVEN_HERE.with([]),
        Origin::Config { account, .. } => account.clone(),
    }
}
