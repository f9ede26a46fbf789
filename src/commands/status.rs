//! `wxtoken status`: what is published, since when and until when. Never the token or a ticket; asks nobody.

use std::fmt::{self, Write};
use std::io::IsTerminal;
use std::iter;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use time::UtcDateTime;

use super::output;
use super::published::{Published, Trouble};
use crate::cli::{CommonArgs, Format, StatusArgs};
use crate::config::{Config, Secrets};
use crate::error::Exit;
use crate::log::printable;
use crate::model::account::Account;
use crate::model::document::Document;
use crate::model::exposition::{Exposition, TICKET_EXPIRY, TOKEN_CREATED, TOKEN_EXPIRY};
use crate::model::kind::{DocumentKind, TicketType};
use crate::os::clock::{Clock, SystemClock};

pub(crate) fn run(common: &CommonArgs, args: &StatusArgs) -> Result<Exit> {
    let config = Config::read(common, &args.account, Secrets::Unneeded)?;
    let accounts = config.accounts(&args.names)?;
    let now = SystemClock.now();
    let published: Vec<_> = accounts.iter().map(|account| Published::look(account, now)).collect();
    let tickets: Vec<_> = accounts.iter().map(|account| look_at_tickets(account, now)).collect();
    let rows: Vec<_> = published.iter().zip(&tickets).map(|(it, of)| Row::of(it, of)).collect();
    output::print(&match args.format {
        Format::Text => text(&rows, Look::of_stdout()),
        Format::Json => format!("{}\n", serde_json::to_string(&Accounts { accounts: &rows })?),
        Format::Prometheus => prometheus(&published, &tickets),
    })?;
    // The answer stands on stdout either way; the status and the lines on stderr are for the probe that asked.
    let unusable = published.iter().filter_map(|it| it.usable(args.min_life).err());
    let unusable: Vec<_> = unusable.map(|why| why.to_string()).collect();
    if unusable.is_empty() { Ok(Exit::Done) } else { Err(Exit::NoToken.errors(unusable)) }
}

/// What is published of the account's tickets, by their types.
fn look_at_tickets(account: &Account, now: UtcDateTime) -> Vec<(&TicketType, Published<'_>)> {
    let look = |kind| {
        (kind, Published::look_at(account, DocumentKind::Ticket(TicketType::clone(kind)), now))
    };
    account.tickets.iter().map(look).collect()
}

#[derive(Serialize)]
struct Accounts<'a> {
    accounts: &'a [Row<'a>],
}

/// One account, as it is told.
#[derive(Serialize)]
struct Row<'a> {
    account: &'a str,
    #[serde(flatten)]
    token: Told,
    tickets: Vec<TicketRow>,
}

/// One of its tickets.
#[derive(Serialize)]
struct TicketRow {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    ticket: Told,
}

/// What is published: a token, or a ticket.
#[derive(Serialize)]
struct Told {
    /// `live`, `due` (live, and time for the next), `expired`, `missing`, `unreadable` or `foreign`.
    state: &'static str,
    /// Seconds for which it may be promised to work.
    expires_in: u64,
    file: String,
    #[serde(flatten)]
    document: Option<ToldDocument>,
}

#[derive(Serialize)]
struct ToldDocument {
    appid: String,
    created_at: String,
    expires_at: String,
    #[serde(flatten)]
    fingerprint: Fingerprint,
    #[serde(skip)]
    share_left: f64,
}

/// The first 8 hex digits of the SHA-256, as in logs.
#[derive(Serialize)]
enum Fingerprint {
    #[serde(rename = "token_sha256")]
    Token(String),
    #[serde(rename = "ticket_sha256")]
    Ticket(String),
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fingerprint::Token(digits) => write!(f, "token {digits}"),
            Fingerprint::Ticket(digits) => write!(f, "ticket {digits}"),
        }
    }
}

impl<'a> Row<'a> {
    fn of(token: &'a Published<'_>, tickets: &[(&TicketType, Published<'_>)]) -> Row<'a> {
        let ticket_row = |(kind, ticket): &(&TicketType, Published<'_>)| TicketRow {
            kind: kind.to_string(),
            ticket: Told::of(ticket, Fingerprint::Ticket),
        };
        Row {
            account: &token.account.name,
            token: Told::of(token, Fingerprint::Token),
            tickets: tickets.iter().map(ticket_row).collect(),
        }
    }

    /// What people read, each with its name: the token's is the account's, a ticket's is what follows `/ticket/` in a URL.
    fn lines(&self) -> impl Iterator<Item = (String, &Told)> {
        let tickets = self.tickets.iter();
        let tickets = tickets.map(|it| (format!("{}/{}", self.account, it.kind), &it.ticket));
        iter::once((self.account.to_owned(), &self.token)).chain(tickets)
    }
}

impl Told {
    fn of(published: &Published<'_>, fingerprint: fn(String) -> Fingerprint) -> Told {
        let state = match &published.document {
            Ok(_) if published.life.is_zero() => "expired",
            Ok(_) if published.is_due => "due",
            Ok(_) => "live",
            Err(Trouble::Missing) => "missing",
            Err(Trouble::Unread(_) | Trouble::Damaged(_)) => "unreadable",
            Err(Trouble::Foreign { .. }) => "foreign",
        };
        let document = published.document.as_ref().ok().map(|document| ToldDocument {
            appid: printable(&document.appid, 64),
            created_at: document.created_at_rfc3339(),
            expires_at: document.expires_at_rfc3339(),
            fingerprint: fingerprint(document.token.fingerprint()),
            share_left: published.life.as_secs_f64() / document.expires_in.as_secs_f64(),
        });
        Told { state, expires_in: published.life.as_secs(), file: published.file(), document }
    }

    fn left(&self) -> String {
        format!("{} left", humantime::format_duration(Duration::from_secs(self.expires_in)))
    }
}

/// How to write for who looks.
#[derive(Clone, Copy)]
struct Look {
    bar: bool,
    colour: bool,
}

impl Look {
    /// A bar where a person looks, colour unless they said no.
    fn of_stdout() -> Look {
        Look { bar: std::io::stdout().is_terminal(), colour: output::has_colours() }
    }
}

/// A line for each token and each ticket, in columns.
fn text(rows: &[Row<'_>], look: Look) -> String {
    let all: Vec<_> = rows.iter().flat_map(Row::lines).collect();
    let widest = |cells: &mut dyn Iterator<Item = usize>| cells.max().unwrap_or_default();
    let published = || all.iter().filter_map(|(_, told)| Some((told, told.document.as_ref()?)));
    let name_width = widest(&mut all.iter().map(|(name, _)| name.len()));
    let state_width = widest(&mut all.iter().map(|(_, told)| told.state.len()));
    let left_width = widest(&mut published().map(|(told, _)| told.left().len()));
    let appid_width = widest(&mut published().map(|(_, document)| document.appid.len()));

    let mut lines = String::new();
    for (name, told) in &all {
        let (on, off) = match told.state {
            _ if !look.colour => ("", ""),
            "live" => ("\x1b[32m", "\x1b[0m"),
            "due" => ("\x1b[33m", "\x1b[0m"),
            _ => ("\x1b[31m", "\x1b[0m"),
        };
        let Told { state, file, .. } = told;
        let line = match &told.document {
            None => writeln!(lines, "{name:name_width$}  {on}{state:state_width$}{off}  {file}"),
            Some(document) => {
                let left = told.left();
                let bar = match look.bar {
                    true => format!("  {on}{}{off}", bar(document.share_left)),
                    false => String::new(),
                };
                let ToldDocument { appid, created_at, expires_at, fingerprint, .. } = document;
                writeln!(
                    lines,
                    "{name:name_width$}  {on}{state:state_width$}{off}  {left:left_width$}{bar}  since {created_at}  \
                     until {expires_at}  {appid:appid_width$}  {fingerprint}"
                )
            }
        };
        line.unwrap_or_default(); // Writing to a String cannot fail.
    }
    lines
}

/// How much is left, as twelve cells; the first stands as long as anything is left.
fn bar(share: f64) -> String {
    const CELLS: usize = 12;
    let full = ((share * CELLS as f64).ceil() as usize).min(CELLS);
    "█".repeat(full) + &"░".repeat(CELLS - full)
}

/// For node_exporter's textfile collector.
fn prometheus(
    published: &[Published<'_>],
    tickets: &[Vec<(&TicketType, Published<'_>)>],
) -> String {
    let instants = |instant: fn(&Document) -> UtcDateTime| {
        published.iter().map(move |it| ([("account", it.account.name.as_str())], it.secs(instant)))
    };
    let mut exposition = Exposition::default();
    exposition.write(&TOKEN_CREATED, instants(|document| document.created_at));
    exposition.write(&TOKEN_EXPIRY, instants(Document::expires_at));
    let tickets = tickets.iter().flatten().map(|(kind, ticket)| {
        let account = ticket.account.name.clone();
        ([("account", account), ("type", kind.to_string())], ticket.secs(Document::expires_at))
    });
    exposition.write(&TICKET_EXPIRY, tickets);
    exposition.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &'static str, expires_in: u64) -> Row<'static> {
        let fingerprint = Fingerprint::Token("ba7816bf".to_owned());
        let token = told(state, expires_in, "/d/default.json", fingerprint);
        Row { account: "default", token, tickets: Vec::new() }
    }

    fn told(state: &'static str, expires_in: u64, file: &str, fingerprint: Fingerprint) -> Told {
        let document = ToldDocument {
            appid: "wx1".to_owned(),
            created_at: "2026-11-22T05:34:46Z".to_owned(),
            expires_at: "2026-11-22T07:34:46Z".to_owned(),
            fingerprint,
            share_left: expires_in as f64 / 7200.0,
        };
        Told { state, expires_in, file: file.to_owned(), document: Some(document) }
    }

    #[test]
    fn a_file_gets_a_plain_line_and_a_person_a_bar() {
        let plain = "default  live  1h left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  token ba7816bf\n";
        assert_eq!(text(&[row("live", 3600)], Look { bar: false, colour: false }), plain);
        let seen = text(&[row("live", 3600)], Look { bar: true, colour: true });
        assert!(seen.contains("\x1b[32m██████░░░░░░\x1b[0m"), "{seen}");
        let seen = text(&[row("live", 3600)], Look { bar: true, colour: false });
        assert!(seen.contains("██████░░░░░░") && !seen.contains('\x1b'), "{seen}");
    }

    #[test]
    fn many_accounts_stand_in_columns() {
        let mut rows = [row("live", 3600), row("expired", 0), row("missing", 0)];
        (rows[0].account, rows[1].account, rows[2].token.document) = ("a", "branch_2", None);
        let lines = text(&rows, Look { bar: false, colour: false });
        let expected = "a         live     1h left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  token ba7816bf\n\
                        branch_2  expired  0s left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  token ba7816bf\n\
                        default   missing  /d/default.json\n";
        assert_eq!(lines, expected);
        // Colours take no room.
        let coloured = text(&rows, Look { bar: false, colour: true });
        let plain = coloured.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert_eq!(plain, expected);
    }

    #[test]
    fn an_accounts_tickets_follow_it_under_names_of_their_own() {
        let mut shop = row("live", 3600);
        let ticket = |kind: &str, file| {
            let fingerprint = Fingerprint::Ticket("1f93603d".to_owned());
            TicketRow { kind: kind.to_owned(), ticket: told("due", 60, file, fingerprint) }
        };
        shop.tickets = vec![ticket("jsapi", "/d/j"), ticket("wx_card", "/d/default.wx_card.json")];
        shop.tickets[1].ticket.document = None;
        shop.tickets[1].ticket.state = "missing";
        let lines = text(&[shop], Look { bar: false, colour: false });
        let expected = "default          live     1h left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  token ba7816bf\n\
                        default/jsapi    due      1m left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  ticket 1f93603d\n\
                        default/wx_card  missing  /d/default.wx_card.json\n";
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_bar_is_empty_only_when_nothing_is_left() {
        assert_eq!(bar(1.0), "█".repeat(12));
        assert_eq!(bar(0.001), format!("█{}", "░".repeat(11)));
        assert_eq!(bar(0.0), "░".repeat(12));
        assert_eq!(bar(7.0), "█".repeat(12));
    }
}
