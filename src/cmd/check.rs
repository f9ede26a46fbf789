//! `wxtoken check`: looks at everything between an account and WeChat, and says what is not well and what to do about
//! it. Publishes nothing and refreshes nothing.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use serde::Serialize;

use super::asking::{Link, Linker};
use super::many;
use super::published::{Published, Trouble};
use crate::api::Api;
use crate::appsecret::SecretFrom;
use crate::check::{Finding, Verdict, here, published, there};
use crate::cli::{Check, CheckFormat, Common};
use crate::clock::{Clock, SystemClock};
use crate::config::{Account, Config, Contact, DEFAULT_ACCOUNT, Entry, Meant, Origin, Secrets};
use crate::exit::Exit;
use crate::report::printable;
use crate::secret::Secret;
use crate::source::client::Client;
use crate::source::{Ask, Pulse};
use crate::token::Kind;

pub(crate) fn run(common: &Common, args: &Check) -> Result<Exit> {
    let config = Config::read(common, &args.account, Secrets::Unneeded)?;
    let linker = Linker::default();
    let subjects: Vec<(Account, Contact)> = match config.meant(&args.names)? {
        Meant::Given(account, contact) => vec![(account?, *contact)],
        Meant::OfFile(entries) => {
            entries.into_iter().map(|Entry { account, contact, .. }| (account, contact)).collect()
        }
    };
    // Each at its place, whoever is done first.
    let examined: Vec<_> = subjects.iter().map(|_| Mutex::new(Vec::new())).collect();
    let places: Vec<usize> = (0..subjects.len()).collect();
    many::each("check", &places, |place| {
        let (account, contact) = &subjects[*place];
        let findings = examine(account, contact, &linker)?;
        *examined[*place].lock().unwrap_or_else(PoisonError::into_inner) = findings;
        Ok(())
    });
    let examined = examined.into_iter();
    let examined: Vec<_> =
        examined.map(|it| it.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
    let rows: Vec<_> = subjects
        .iter()
        .zip(&examined)
        .map(|((account, _), findings)| Row::of(account, findings))
        .collect();
    super::answer(&match args.format {
        CheckFormat::Text => text(&rows, has_colour()),
        CheckFormat::Json => format!("{}\n", serde_json::to_string(&Accounts { accounts: &rows })?),
    })?;
    let worst = examined.iter().flatten().map(|finding| finding.verdict).max();
    Ok(match worst {
        Some(Verdict::Wrong(exit)) => exit,
        _ => Exit::Done,
    })
}

/// Looks at one account, from here to there.
fn examine(account: &Account, contact: &Contact, linker: &Linker) -> Result<Vec<Finding>> {
    let (client, secret) = linker.parts(&account.name, contact);
    let mut findings = vec![
        Finding::well("config", origin(contact)),
        here::secret(contact.is_mirror, secret_from(account, contact).as_ref(), &secret),
        here::directory(&account.place, &account.place.try_out()),
        here::lock(&account.place.turns()),
    ];
    let hook = account.on_change.as_ref();
    findings.extend(hook.map(|hook| here::hook(hook.program(), &hook.find())));
    let is_reached = match &client {
        Ok(client) => greet(account, client, &mut findings),
        Err(err) => {
            findings.push(Finding::of_error("host", err));
            false
        }
    };
    // Who is not there cannot be asked; that is told already.
    let there = client.ok().filter(|_| is_reached);
    let asked = match (&there, secret) {
        (Some(client), Ok(secret)) => Some(ask(account, client.clone(), secret, &mut findings)),
        _ => None,
    };
    look(account, there, asked.flatten(), &mut findings);
    Ok(findings)
}

/// Greets the servers; whether one answers.
fn greet(account: &Account, client: &Client, findings: &mut Vec<Finding>) -> bool {
    let (hosts, greeting) = there::hosts(client, account.api);
    findings.extend(hosts);
    let Some(greeting) = greeting else { return false };
    findings.push(there::clock(&greeting));
    findings.extend(greeting.seen_from.as_deref().map(there::address));
    true
}

/// Asks for what kills nothing, to see whether we are known; the token that was given, where it is the account's.
fn ask(
    account: &Account,
    client: Client,
    secret: Option<Secret>,
    findings: &mut Vec<Finding>,
) -> Option<Secret> {
    let api = match account.api {
        Api::Classic => Api::Stable,
        api => api,
    };
    let upstream = Link::of(client, secret).upstream(&Account { api, ..account.clone() });
    let answer = match upstream {
        Ok(upstream) => upstream.ask(Ask::Good, there::TIMEOUT),
        Err(err) => {
            findings.push(Finding::of_error("credentials", &err));
            return None;
        }
    };
    findings.push(there::credentials(account.api, &answer));
    answer.ok().map(|grant| grant.token)
}

/// Looks at what is published; `given` is what the source gave just now.
fn look(
    account: &Account,
    client: Option<Client>,
    given: Option<Secret>,
    findings: &mut Vec<Finding>,
) {
    let now = SystemClock.now();
    let found = Published::look(account, now);
    match &found.document {
        Ok(document) => {
            let pulse = match (client, account.api) {
                _ if document.left(now).is_zero() => None,
                (_, Api::Mirror) => {
                    (given.as_ref() == Some(&document.token)).then_some(Pulse::Alive)
                }
                // The token is all that a probe takes.
                (Some(client), _) => {
                    let nobody = Some(Secret::new(String::new()));
                    let upstream = Link::of(client, nobody).upstream(account);
                    upstream.ok().map(|it| it.probe(&document.token, there::TIMEOUT))
                }
                (None, _) => None,
            };
            findings.push(published::token(account, document, pulse.as_ref(), now));
            findings.push(published::schedule(account, document, now));
        }
        Err(_) => findings.push(none("token", &found, &Kind::Token)),
    }
    for kind in &account.tickets {
        let found = Published::look_at(account, Kind::Ticket(kind.clone()), now);
        findings.push(match &found.document {
            Ok(document) => published::ticket(&kind.to_string(), document, now),
            Err(_) => none("ticket", &found, &Kind::Ticket(kind.clone())),
        });
    }
}

/// A document that is not there, or is none of this account's.
fn none(about: &'static str, found: &Published<'_>, kind: &Kind) -> Finding {
    let place = found.account.place.name_of(kind);
    published::none(
        about,
        match &found.document {
            Err(Trouble::Foreign { appid }) => {
                format!("{place} belongs to {}, another account", printable(appid, 64))
            }
            Err(Trouble::Unreadable(what)) => what.clone(),
            _ => format!("nothing is published: {place} does not exist"),
        },
    )
}

/// Where it is said how to ask for the account.
fn origin(contact: &Contact) -> String {
    match &contact.origin {
        Origin::CommandLine => "given on the command line".to_owned(),
        Origin::Config { account, .. } => account.clone(),
    }
}

fn secret_from<'a>(account: &Account, contact: &'a Contact) -> Option<SecretFrom<'a>> {
    let (name, is_given) = match contact.origin {
        Origin::CommandLine => (DEFAULT_ACCOUNT, true),
        Origin::Config { .. } => (account.name.as_str(), false),
    };
    let kind = if contact.is_mirror { "key" } else { "secret" };
    SecretFrom::find(contact.secret_file.as_deref(), &format!("{name}.{kind}"), is_given)
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
    fn of(account: &'a Account, findings: &'a [Finding]) -> Row<'a> {
        let worst = findings.iter().map(|finding| finding.verdict).max();
        Row {
            account: &account.name,
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

/// Whether who looks wants colours (<https://no-color.org>).
fn has_colour() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A line for each finding, in columns.
fn text(rows: &[Row<'_>], has_colour: bool) -> String {
    let account_width = rows.iter().map(|row| row.account.len()).max().unwrap_or_default();
    let findings = rows.iter().flat_map(|row| &row.findings);
    let about_width = findings.map(|it| it.about.len()).max().unwrap_or_default();
    let mut lines = String::new();
    for row in rows {
        for Told { about, verdict, what, remedy, remedy_zh, .. } in &row.findings {
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
