//! `wxtoken status`: what is published, since when and until when. Never the token; asks nobody.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use time::UtcDateTime;

use super::published::{Published, Trouble};
use crate::cli::{Common, Format, Status};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Secrets};
use crate::exit::Exit;
use crate::exposition::{Exposition, TICKET_EXPIRY, TOKEN_CREATED, TOKEN_EXPIRY};
use crate::report::printable;
use crate::token::{Document, Kind};

pub(crate) fn run(common: &Common, args: &Status) -> Result<Exit> {
    let config = Config::read(common, &args.account, Secrets::Unneeded)?;
    let accounts = config.accounts(&args.names)?;
    let now = SystemClock.now();
    let published: Vec<_> = accounts.iter().map(|account| Published::look(account, now)).collect();
    let rows: Vec<_> = published.iter().map(Row::of).collect();
    super::answer(&match args.format {
        Format::Text => text(&rows, Look::of_stdout()),
        Format::Json => format!("{}\n", serde_json::to_string(&Accounts { accounts: &rows })?),
        Format::Prometheus => prometheus(&published, now),
    })?;
    // The answer stands on stdout either way; the status and the lines on stderr are for the probe that asked.
    let unusable = published.iter().filter_map(|it| it.usable(args.min_life).err());
    let unusable: Vec<_> = unusable.map(|why| why.to_string()).collect();
    if unusable.is_empty() { Ok(Exit::Done) } else { Err(Exit::NoToken.errors(unusable)) }
}

#[derive(Serialize)]
struct Accounts<'a> {
    accounts: &'a [Row<'a>],
}

/// One account, as it is told.
#[derive(Serialize)]
struct Row<'a> {
    account: &'a str,
    /// `live`, `due` (live, and time for the next), `expired`, `missing`, `unreadable` or `foreign`.
    state: &'static str,
    /// Seconds for which the token may be promised to work.
    expires_in: u64,
    file: String,
    #[serde(flatten)]
    token: Option<Token>,
}

#[derive(Serialize)]
struct Token {
    appid: String,
    created_at: String,
    expires_at: String,
    /// The first 8 hex digits of the token's SHA-256, as in logs.
    token_sha256: String,
    #[serde(skip)]
    share_left: f64,
}

impl<'a> Row<'a> {
    fn of(published: &'a Published<'_>) -> Row<'a> {
        let state = match &published.document {
            Ok(_) if published.life.is_zero() => "expired",
            Ok(_) if published.is_due => "due",
            Ok(_) => "live",
            Err(Trouble::Missing) => "missing",
            Err(Trouble::Unreadable(_)) => "unreadable",
            Err(Trouble::Foreign { .. }) => "foreign",
        };
        let token = published.document.as_ref().ok().map(|document| Token {
            appid: printable(&document.appid, 64),
            created_at: document.created(),
            expires_at: document.expires(),
            token_sha256: document.token.fingerprint(),
            share_left: published.life.as_secs_f64() / document.expires_in.as_secs_f64(),
        });
        Row {
            account: &published.account.name,
            state,
            expires_in: published.life.as_secs(),
            file: published.account.place.to_string(),
            token,
        }
    }
}

/// How to write for who looks.
#[derive(Clone, Copy)]
struct Look {
    bar: bool,
    colour: bool,
}

impl Look {
    /// A bar where a person looks, colour unless they said no (<https://no-color.org>).
    fn of_stdout() -> Look {
        let bar = std::io::stdout().is_terminal();
        Look {
            bar,
            colour: bar && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

/// A line for each account, in columns.
fn text(rows: &[Row<'_>], look: Look) -> String {
    let left = |row: &Row<'_>| {
        format!("{} left", humantime::format_duration(Duration::from_secs(row.expires_in)))
    };
    let widest = |cells: &mut dyn Iterator<Item = usize>| cells.max().unwrap_or_default();
    let with_token = || rows.iter().filter(|row| row.token.is_some());
    let account_width = widest(&mut rows.iter().map(|row| row.account.len()));
    let state_width = widest(&mut rows.iter().map(|row| row.state.len()));
    let left_width = widest(&mut with_token().map(|row| left(row).len()));
    let appid_width =
        widest(&mut rows.iter().filter_map(|row| row.token.as_ref()).map(|it| it.appid.len()));

    let mut lines = String::new();
    for row in rows {
        let (on, off) = match row.state {
            _ if !look.colour => ("", ""),
            "live" => ("\x1b[32m", "\x1b[0m"),
            "due" => ("\x1b[33m", "\x1b[0m"),
            _ => ("\x1b[31m", "\x1b[0m"),
        };
        let Row { account, state, file, .. } = row;
        let line = match &row.token {
            None => {
                writeln!(lines, "{account:account_width$}  {on}{state:state_width$}{off}  {file}")
            }
            Some(token) => {
                let left = left(row);
                let bar = match look.bar {
                    true => format!("  {on}{}{off}", bar(token.share_left)),
                    false => String::new(),
                };
                let Token { appid, created_at, expires_at, token_sha256, .. } = token;
                writeln!(
                    lines,
                    "{account:account_width$}  {on}{state:state_width$}{off}  {left:left_width$}{bar}  since {created_at}  \
                     until {expires_at}  {appid:appid_width$}  token {token_sha256}"
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
fn prometheus(published: &[Published<'_>], now: UtcDateTime) -> String {
    let instants = |instant: fn(&Document) -> UtcDateTime| {
        published.iter().map(move |it| {
            let at = it.document.as_ref().map_or(0, |it| instant(it).unix_timestamp());
            ([("account", it.account.name.as_str())], at)
        })
    };
    let mut exposition = Exposition::default();
    exposition.write(&TOKEN_CREATED, instants(|document| document.created_at));
    exposition.write(&TOKEN_EXPIRY, instants(Document::expires_at));
    let tickets = published.iter().flat_map(|it| {
        it.account.tickets.iter().map(|kind| {
            let ticket = Published::look_at(it.account, Kind::Ticket(kind.clone()), now);
            let at = ticket.document.as_ref().map_or(0, |it| it.expires_at().unix_timestamp());
            ([("account", it.account.name.clone()), ("type", kind.to_string())], at)
        })
    });
    exposition.write(&TICKET_EXPIRY, tickets);
    exposition.into_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &'static str, expires_in: u64) -> Row<'static> {
        let token = Token {
            appid: "wx1".to_owned(),
            created_at: "2026-11-22T05:34:46Z".to_owned(),
            expires_at: "2026-11-22T07:34:46Z".to_owned(),
            token_sha256: "ba7816bf".to_owned(),
            share_left: expires_in as f64 / 7200.0,
        };
        Row {
            account: "default",
            state,
            expires_in,
            file: "/d/default.json".to_owned(),
            token: Some(token),
        }
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
        (rows[0].account, rows[1].account, rows[2].token) = ("a", "branch_2", None);
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
    fn the_bar_is_empty_only_when_nothing_is_left() {
        assert_eq!(bar(1.0), "█".repeat(12));
        assert_eq!(bar(0.001), format!("█{}", "░".repeat(11)));
        assert_eq!(bar(0.0), "░".repeat(12));
        assert_eq!(bar(7.0), "█".repeat(12));
    }
}
