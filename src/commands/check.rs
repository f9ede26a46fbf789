//! `wxtoken check`: looks at everything between an account and WeChat, and says what is not well and what to do about
//! it. Publishes nothing and refreshes nothing.

use std::fmt::Write;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use time::UtcDateTime;

use super::published::{Published, Trouble};
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
use crate::os::clock::{Clock, SystemClock};
use crate::upstream::client::Client;
use crate::upstream::connect::{Connector, UpstreamParts};
use crate::upstream::connect::{Origin, UpstreamConfig};
use crate::upstream::credentials::SecretSource;
use crate::upstream::ping::PingReply;
use crate::upstream::{Liveness, RefreshMode, Upstream};

pub(crate) fn run(common: &CommonArgs, args: &CheckArgs) -> Result<Exit> {
    let deadline = SystemClock.instant() + args.timeout;
    let config = Config::read(common, &args.account, Secrets::Unneeded)?;
    let linker = Connector::default();
    let subject = |account, contact| Subject { account, contact, findings: OnceLock::new() };
    let entries = config.account_settings(&args.names)?.into_iter();
    let subjects: Vec<_> = entries.map(|it| subject(it.account, it.upstream)).collect();
    parallel::for_each("check", &subjects, |subject| {
        let Subject { account, contact, findings } = subject;
        findings.get_or_init(|| examine(account, contact, &linker, deadline));
        Ok(())
    });
    let rows: Vec<_> = subjects.iter().map(Row::of).collect();
    output::print(&match args.format {
        CheckFormat::Text => text(&rows, output::has_colours(), common.quiet),
        CheckFormat::Json => format!("{}\n", serde_json::to_string(&Accounts { accounts: &rows })?),
    })?;
    let findings = subjects.iter().flat_map(Subject::findings);
    let worst = findings.map(|finding| finding.verdict).max();
    Ok(match worst {
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
}

/// Looks at one account, from here to there.
fn examine(
    account: &Account,
    contact: &UpstreamConfig,
    linker: &Connector,
    deadline: Instant,
) -> Vec<Finding> {
    let (client, secret) = linker.parts(&account.name, contact);
    let trial = account.place.try_out();
    let mut findings = vec![
        Finding::well("config", origin(contact)),
        local::secret(contact.is_mirror, secret_from(account, contact).as_ref(), &secret),
        local::place(&account.place, &trial),
        local::lock(&trial, &account.place.turns()),
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
    let upstream = client.and_then(|it| UpstreamParts::new(it, nobody).upstream(account).ok());
    let (found, pulse, now) = probed(account, upstream.as_deref(), deadline);
    let seen_from = greeting.as_ref().and_then(|it| it.seen_from.as_deref());
    findings.extend(remote::address(seen_from, pulse.as_ref()));
    findings.extend(look(&found, pulse.as_ref(), asked.flatten().as_ref(), now));
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
    let upstream = UpstreamParts::new(client, secret).upstream(&Account { api, ..account.clone() });
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

/// Looks at what is published: the token of which a probe said this, where `current` is what the source gave just now;
/// and the tickets.
fn look(
    found: &Published<'_>,
    pulse: Option<&Liveness>,
    current: Option<&Current>,
    now: UtcDateTime,
) -> Vec<Finding> {
    let account = found.account;
    let mut findings = match &found.document {
        Ok(document) => vec![
            published::token(account, document, pulse, current, now),
            published::schedule(account, document, now),
        ],
        Err(_) => vec![none("token", found, &DocumentKind::Token)],
    };
    for kind in &account.tickets {
        let found = Published::look_at(account, DocumentKind::Ticket(kind.clone()), now);
        findings.push(match &found.document {
            Ok(document) => published::ticket(&kind.to_string(), document, now),
            Err(_) => none("ticket", &found, &DocumentKind::Ticket(kind.clone())),
        });
    }
    findings
}

/// The published token, and what a probe says of it, with when that was. One that is dead because the next one was
/// published meanwhile is nobody's fault: then that one counts.
fn probed<'a>(
    account: &'a Account,
    upstream: Option<&dyn Upstream>,
    deadline: Instant,
) -> (Published<'a>, Option<Liveness>, UtcDateTime) {
    let token = |it: &Published<'_>| it.document.as_ref().ok().map(|it| it.token.clone());
    let mut found = Published::look(account, SystemClock.now());
    loop {
        let now = SystemClock.now();
        let live = found.document.as_ref().ok().filter(|it| !it.left(now).is_zero());
        let probe =
            |(it, who): (&Document, &dyn Upstream)| who.probe(&it.token, remote::timeout(deadline));
        let pulse = live.zip(upstream).map(probe);
        let next = Published::look(account, SystemClock.now());
        if !matches!(pulse, Some(Liveness::Dead)) || token(&next) == token(&found) {
            return (found, pulse, now);
        }
        found = next;
    }
}

/// A document that is not there, cannot be read, or is none of this account's.
fn none(about: &'static str, found: &Published<'_>, kind: &DocumentKind) -> Finding {
    let place = found.account.place.name_of(kind);
    let why = match &found.document {
        Err(Trouble::Foreign { appid }) => {
            format!("{place} belongs to {}, another account", printable(appid, 64))
        }
        Err(Trouble::Unread(what) | Trouble::Damaged(what)) => what.clone(),
        _ => format!("nothing is published: {place} does not exist"),
    };
    let why = match kind {
        DocumentKind::Token => why,
        DocumentKind::Ticket(kind) => format!("{kind}: {why}"),
    };
    // A fetch would not help.
    match found.document {
        Err(Trouble::Unread(_)) => Finding::wrong(about, Exit::NoToken, why).remedy(
            "See store or directory, above; run this as whoever fetches, or as a member of the group that may read it.",
            "见上面的 store 或 directory 一项；请以运行 fetch 的用户，或有读权限的组成员执行。",
        ),
        _ => published::none(about, why),
    }
}

/// Where it is said how to ask for the account.
fn origin(contact: &UpstreamConfig) -> String {
    match &contact.origin {
        Origin::CommandLine => "given on the command line".to_owned(),
        Origin::Config { account, .. } => account.clone(),
    }
}

fn secret_from<'a>(account: &Account, contact: &'a UpstreamConfig) -> Option<SecretSource<'a>> {
    let is_given = contact.origin == Origin::CommandLine;
    let kind = if contact.is_mirror { "key" } else { "secret" };
    let credential = format!("{}.{kind}", account.name);
    SecretSource::find(contact.secret_file.as_deref(), &credential, is_given)
}

#[derive(Serialize)]
struct Accounts<'a> {
    accounts: &'a [Row<'a>],
}

/// One account, as it is told.
#[derive(Serialize)]
struct Row<'a> {
    account: &'a str,
    /// `ok`, `notice` or `problem`: the worst of its findings.
    verdict: &'static str,
    findings: Vec<Told<'a>>,
}

#[derive(Serialize)]
struct Told<'a> {
    about: &'static str,
    verdict: &'static str,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy_zh: Option<&'a str>,
    /// The status of a problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<u8>,
}

impl<'a> Row<'a> {
    fn of(subject: &'a Subject) -> Row<'a> {
        let findings = subject.findings();
        let worst = findings.iter().map(|finding| finding.verdict).max();
        Row {
            account: &subject.account.name,
            verdict: word(worst.unwrap_or(Verdict::Well)),
            findings: findings.iter().map(Told::of).collect(),
        }
    }
}

impl<'a> Told<'a> {
    fn of(finding: &'a Finding) -> Told<'a> {
        let [remedy, remedy_zh] = match &finding.remedy {
            Some([english, chinese]) => [Some(english.as_str()), Some(chinese.as_str())],
            None => [None, None],
        };
        Told {
            about: finding.about,
            verdict: word(finding.verdict),
            what: printable(&finding.what, 2000),
            remedy,
            remedy_zh,
            exit: match finding.verdict {
                Verdict::Wrong(exit) => Some(exit as u8),
                _ => None,
            },
        }
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Well => "ok",
        Verdict::Notice => "notice",
        Verdict::Wrong(_) => "problem",
    }
}

/// A line for each finding, in columns; where only troubles are wanted, for each that is not well.
fn text(rows: &[Row<'_>], has_colour: bool, only_troubles: bool) -> String {
    let account_width = rows.iter().map(|row| row.account.len()).max().unwrap_or_default();
    let findings = rows.iter().flat_map(|row| &row.findings);
    let about_width = findings.map(|it| it.about.len()).max().unwrap_or_default();
    let mut lines = String::new();
    for row in rows {
        let findings = row.findings.iter();
        let findings = findings.filter(|it| !only_troubles || it.verdict != word(Verdict::Well));
        for Told { about, verdict, what, remedy, remedy_zh, .. } in findings {
            let (mark, colour) = match *verdict {
                "ok" => ("✓", "\x1b[32m"),
                "notice" => ("!", "\x1b[33m"),
                _ => ("✗", "\x1b[31m"),
            };
            let (on, off) = if has_colour { (colour, "\x1b[0m") } else { ("", "") };
            let account = row.account;
            let line =
                format!("{on}{mark}{off} {account:account_width$}  {about:about_width$}  {what}");
            lines.push_str(&line);
            if let (Some(remedy), Some(remedy_zh)) = (remedy, remedy_zh) {
                let _ = write!(lines, ". {remedy} {remedy_zh}"); // Writing to a String cannot fail.
            }
            lines.push('\n');
        }
    }
    lines
}
