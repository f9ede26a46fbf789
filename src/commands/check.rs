//! `wxtoken check`: looks at everything between an account and WeChat, and says what is not well and what to do about
//! it. Publishes nothing and refreshes nothing.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use time::UtcDateTime;

use super::published as documents;
use super::{output, parallel};
use crate::check::published::Current;
use crate::check::{Finding, Verdict, local, published, remote};
use crate::cli::{CheckArgs, CheckFormat, CommonArgs};
use crate::config::{Config, Secrets};
use crate::error::Exit;
use crate::log::printable;
use crate::model::account::Account;
use crate::model::api::{Api, Rules};
use crate::model::document::Document;
use crate::model::kind::DocumentKind;
use crate::model::secret::Secret;
use crate::model::status::Problem;
use crate::os::clock::{Clock, SystemClock};
use crate::store::Stores;
use crate::upstream::client::Client;
use crate::upstream::config::{Origin, UpstreamConfig};
use crate::upstream::connect::{self, Connector};
use crate::upstream::credentials::SecretSource;
use crate::upstream::ping::PingReply;
use crate::upstream::{Liveness, RefreshMode, Upstream};

/// The longest text of a finding that is shown.
const MAX_WHAT: usize = 2000; // characters

pub(crate) fn run(common: &CommonArgs, args: &CheckArgs) -> Result<Exit> {
    let deadline = SystemClock.instant() + args.timeout;
    let config = Config::read(common, &args.account, Secrets::Unneeded)?;
    let connector = Connector::default();
    let stores = Stores::new(Arc::new(SystemClock));
    let subject = |account, contact| Subject { account, contact, findings: OnceLock::new() };
    let entries = config.account_settings(&args.names)?.into_iter();
    let subjects: Vec<_> = entries.map(|it| subject(it.account, it.upstream)).collect();
    parallel::for_each("check", &subjects, |subject| {
        let Subject { account, contact, findings } = subject;
        findings.get_or_init(|| examine(account, contact, &connector, &stores, deadline));
        Ok(())
    });
    output::print(&match args.format {
        CheckFormat::Text => text(&subjects, output::has_colours(), common.quiet),
        CheckFormat::Json => json(&subjects)?,
    })?;
    Ok(match subjects.iter().map(Subject::verdict).max() {
        Some(Verdict::Wrong(exit)) => exit,
        _ => Exit::Done,
    })
}

/// An account, and what is found of it.
struct Subject {
    account: Account,
    contact: UpstreamConfig,
    /// Set as soon as it has been looked at.
    findings: OnceLock<Vec<Finding>>,
}

impl Subject {
    fn findings(&self) -> &[Finding] {
        self.findings.get().map_or(&[], Vec::as_slice)
    }

    /// The worst of its findings.
    fn verdict(&self) -> Verdict {
        self.findings().iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Well)
    }
}

/// Looks at one account, from here to there.
fn examine(
    account: &Account,
    contact: &UpstreamConfig,
    connector: &Connector,
    stores: &Stores,
    deadline: Instant,
) -> Vec<Finding> {
    let (client, secret) = connector.parts(&account.name, contact);
    let trial = stores.try_publishing(&account.location);
    let mut findings = vec![
        Finding::well("config", origin(contact)),
        local::secret(
            contact.is_mirror,
            SecretSource::find(&account.name, contact).as_ref(),
            &secret,
        ),
        local::place(&account.location, &trial),
        local::lock(&trial, &stores.lease_state(&account.location)),
    ];
    let hook = account.on_change.as_ref();
    findings.extend(hook.map(|hook| local::hook(hook.program(), &hook.find())));
    let greeting = match &client {
        Ok(client) => greet(account, client, deadline, &mut findings),
        Err(err) => {
            findings.push(Finding::of_error("host", err).remedy(
                "Mend ca_file, proxy or base_url of this account.",
                "请修正该账号的 ca_file、proxy 或 base_url。",
            ));
            None
        }
    };
    // Who is not there cannot be asked; that is told already.
    let client = client.ok().filter(|_| greeting.is_some());
    let asked = match (&client, secret) {
        (Some(client), Ok(secret)) => {
            Some(ask(account, client.clone(), secret, deadline, &mut findings))
        }
        _ => None,
    };
    // The token is all that a probe takes, and at another wxtoken there is none.
    let client = client.filter(|_| account.rules != Rules::Mirror);
    let nobody = Some(Secret::new(String::new()));
    let upstream = client.and_then(|it| connect::upstream(account, it, nobody).ok());
    let (token, liveness, now) = probed(stores, account, upstream.as_deref(), deadline);
    let seen_from = greeting.as_ref().and_then(|it| it.seen_from.as_deref());
    findings.extend(remote::address(seen_from, liveness.as_ref()));
    findings.extend(published_findings(
        stores,
        account,
        &token,
        liveness.as_ref(),
        asked.flatten().as_ref(),
        now,
    ));
    findings
}

/// Greets the servers; what the first one says that answers.
fn greet(
    account: &Account,
    client: &Client,
    deadline: Instant,
    findings: &mut Vec<Finding>,
) -> Option<PingReply> {
    let (hosts, greeting) = remote::hosts(client, account.rules, deadline);
    findings.extend(hosts);
    findings.extend(greeting.as_ref().map(remote::clock));
    greeting
}

/// Asks for what kills nothing, to see whether we are known; the token that was given, where it is of the account's kind.
fn ask(
    account: &Account,
    client: Client,
    secret: Option<Secret>,
    deadline: Instant,
    findings: &mut Vec<Finding>,
) -> Option<Current> {
    let asked_at = SystemClock.now();
    let api = match account.api {
        Api::Classic => Api::Stable,
        api => api,
    };
    let upstream = connect::upstream(&Account { api, ..account.clone() }, client, secret);
    let answer = match upstream {
        Ok(upstream) => upstream.request_token(RefreshMode::Normal, remote::timeout(deadline)),
        Err(err) => {
            findings.push(
                Finding::of_error("credentials", &err)
                    .remedy("Say which account this is.", "请指明是哪个账号。"),
            );
            return None;
        }
    };
    findings.push(remote::credentials(account.rules, &answer));
    let is_of_the_same_kind = account.rules != Rules::Classic;
    let grant = answer.ok().filter(|_| is_of_the_same_kind)?;
    Some(Current { token: grant.token, asked_at })
}

/// What there is to say of the published token and tickets. `liveness` is what a probe said of the token, `current` the
/// token that the source gave just now.
fn published_findings(
    stores: &Stores,
    account: &Account,
    token: &Result<Document, Problem>,
    liveness: Option<&Liveness>,
    current: Option<&Current>,
    now: UtcDateTime,
) -> Vec<Finding> {
    let mut findings = match token {
        Ok(document) => vec![
            published::token(account, document, liveness, current, now),
            published::schedule(account, document, now),
        ],
        Err(problem) => {
            let place = account.location.name_of(&DocumentKind::Token);
            vec![published::problem("token", None, &place, problem)]
        }
    };
    findings.extend(account.tickets.iter().map(|kind| {
        let status = DocumentKind::Ticket(kind.clone());
        published::ticket(kind, &documents::document_status(stores, account, &status, now))
    }));
    findings
}

/// The published token, what a probe says of it, and when it was probed. A token that is dead because the next one was
/// published meanwhile is no problem: the next one is probed then.
fn probed(
    stores: &Stores,
    account: &Account,
    upstream: Option<&dyn Upstream>,
    deadline: Instant,
) -> (Result<Document, Problem>, Option<Liveness>, UtcDateTime) {
    let read = || documents::read(stores, account, &DocumentKind::Token);
    let token = |it: &Result<Document, Problem>| it.as_ref().ok().map(|it| it.token.clone());
    let mut found = read();
    loop {
        let now = SystemClock.now();
        let live = found.as_ref().ok().filter(|it| !it.left(now).is_zero());
        let probe = |(it, upstream): (&Document, &dyn Upstream)| {
            upstream.probe(&it.token, remote::timeout(deadline))
        };
        let liveness = live.zip(upstream).map(probe);
        let next = read();
        if !matches!(liveness, Some(Liveness::Dead)) || token(&next) == token(&found) {
            return (found, liveness, now);
        }
        found = next;
    }
}

/// Where it is said how to ask for the account.
fn origin(contact: &UpstreamConfig) -> String {
    match &contact.origin {
        Origin::CommandLine => "given on the command line".to_owned(),
        Origin::Config { account, .. } => account.clone(),
    }
}

/// The answer as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    accounts: Vec<SubjectJson<'a>>,
}

#[derive(Serialize)]
struct SubjectJson<'a> {
    account: &'a str,
    /// The worst of its findings.
    verdict: &'static str,
    findings: Vec<FindingJson<'a>>,
}

#[derive(Serialize)]
struct FindingJson<'a> {
    about: &'static str,
    verdict: &'static str,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy_zh: Option<&'a str>,
    /// The exit status of a problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<u8>,
}

impl<'a> FindingJson<'a> {
    fn new(finding: &'a Finding) -> FindingJson<'a> {
        let [remedy, remedy_zh] = match &finding.remedy {
            Some([english, chinese]) => [Some(english.as_str()), Some(chinese.as_str())],
            None => [None, None],
        };
        FindingJson {
            about: finding.about,
            verdict: word(finding.verdict),
            what: printable(&finding.what, MAX_WHAT),
            remedy,
            remedy_zh,
            exit: match finding.verdict {
                Verdict::Wrong(exit) => Some(exit as u8),
                Verdict::Well | Verdict::Notice => None,
            },
        }
    }
}

fn json(subjects: &[Subject]) -> Result<String> {
    let accounts = subjects.iter().map(|subject| SubjectJson {
        account: &subject.account.name,
        verdict: word(subject.verdict()),
        findings: subject.findings().iter().map(FindingJson::new).collect(),
    });
    Ok(format!("{}\n", serde_json::to_string(&Answer { accounts: accounts.collect() })?))
}

/// The word by which scripts know a verdict.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Well => "ok",
        Verdict::Notice => "notice",
        Verdict::Wrong(_) => "problem",
    }
}

/// A line for each finding, in columns; with `only_problems`, none for what is well.
fn text(subjects: &[Subject], has_colours: bool, only_problems: bool) -> String {
    let account_width = subjects.iter().map(|it| it.account.name.len()).max().unwrap_or_default();
    let findings = subjects.iter().flat_map(Subject::findings);
    let about_width = findings.map(|it| it.about.len()).max().unwrap_or_default();
    let mut text = String::new();
    for subject in subjects {
        let account = &subject.account.name;
        for Finding { about, verdict, what, remedy } in subject.findings() {
            let (sign, colour) = match verdict {
                Verdict::Well if only_problems => continue,
                Verdict::Well => ("✓", output::GREEN),
                Verdict::Notice => ("!", output::YELLOW),
                Verdict::Wrong(_) => ("✗", output::RED),
            };
            let (on, off) = if has_colours { (colour, output::RESET) } else { ("", "") };
            let what = printable(what, MAX_WHAT);
            text +=
                &format!("{on}{sign}{off} {account:account_width$}  {about:about_width$}  {what}");
            if let Some([english, chinese]) = remedy {
                text += &format!(". {english} {chinese}");
            }
            text.push('\n');
        }
    }
    text
}
