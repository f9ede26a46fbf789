//! `wxtoken status`: what is published, since when and until when. Never shows a token or a ticket; asks no server but the
//! store.

use std::fmt::Write;
use std::io::IsTerminal;
use std::iter;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;

use super::{documents, output};
use crate::cli::{CommonArgs, Format, StatusArgs};
use crate::config::{Config, Secrets};
use crate::error::Exit;
use crate::log::printable;
use crate::model::document::rfc3339;
use crate::model::exposition::Exposition;
use crate::model::kind::DocumentKind;
use crate::model::status::{AccountStatus, DocumentState, DocumentStatus, Published};
use crate::os::clock::{Clock, SystemClock};
use crate::store::Stores;

/// The longest AppID that is shown of a document.
const MAX_APPID: usize = 64; // characters

pub(crate) fn run(common: &CommonArgs, args: &StatusArgs) -> Result<Exit> {
    let config = Config::read(common, &args.account, Secrets::Unneeded)?;
    let accounts = config.accounts(&args.names)?;
    let stores = Stores::new(Arc::new(SystemClock));
    let now = SystemClock.now();
    let statuses: Vec<_> =
        accounts.iter().map(|account| documents::account_status(&stores, account, now)).collect();
    output::print(&match args.format {
        Format::Text => text(&statuses, Style::of_stdout()),
        Format::Json => json(&statuses)?,
        Format::Prometheus => prometheus(&statuses),
    })?;
    // The answer is on stdout either way. The exit status and stderr say whether the tokens can be used.
    let unusable = accounts.iter().zip(&statuses).filter_map(|(account, status)| {
        documents::unusable(account, &DocumentKind::Token, &status.token, args.min_life, now)
    });
    let unusable: Vec<_> = unusable.collect();
    if unusable.is_empty() { Ok(Exit::Done) } else { Err(Exit::NoToken.errors(unusable)) }
}

/// The answer as JSON.
#[derive(Serialize)]
struct StatusJson<'a> {
    accounts: Vec<AccountJson<'a>>,
}

#[derive(Serialize)]
struct AccountJson<'a> {
    account: &'a str,
    #[serde(flatten)]
    token: DocumentJson<'a>,
    tickets: Vec<TicketJson<'a>>,
}

#[derive(Serialize)]
struct TicketJson<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    ticket: DocumentJson<'a>,
}

#[derive(Serialize)]
struct DocumentJson<'a> {
    state: &'static str,
    /// Seconds for which it may be promised to work.
    expires_in: u64,
    file: &'a str,
    #[serde(flatten)]
    published: Option<PublishedJson<'a>>,
}

#[derive(Serialize)]
struct PublishedJson<'a> {
    appid: String,
    created_at: String,
    expires_at: String,
    #[serde(flatten)]
    fingerprint: Fingerprint<'a>,
}

/// The first 8 hex digits of the SHA-256, as in logs.
#[derive(Serialize)]
enum Fingerprint<'a> {
    #[serde(rename = "token_sha256")]
    Token(&'a str),
    #[serde(rename = "ticket_sha256")]
    Ticket(&'a str),
}

impl<'a> DocumentJson<'a> {
    fn new(status: &'a DocumentStatus, fingerprint: fn(&'a str) -> Fingerprint<'a>) -> Self {
        let published = status.published.as_ref().ok().map(|it| PublishedJson {
            appid: printable(&it.appid, MAX_APPID),
            created_at: rfc3339(it.created_at),
            expires_at: rfc3339(it.expires_at),
            fingerprint: fingerprint(&it.fingerprint),
        });
        DocumentJson {
            state: status.state().word(),
            expires_in: status.life().as_secs(),
            file: &status.place,
            published,
        }
    }
}

fn json(statuses: &[AccountStatus]) -> Result<String> {
    let accounts = statuses.iter().map(|status| AccountJson {
        account: &status.name,
        token: DocumentJson::new(&status.token, Fingerprint::Token),
        tickets: status
            .tickets
            .iter()
            .map(|(kind, it)| TicketJson {
                kind: kind.to_string(),
                ticket: DocumentJson::new(it, Fingerprint::Ticket),
            })
            .collect(),
    });
    Ok(format!("{}\n", serde_json::to_string(&StatusJson { accounts: accounts.collect() })?))
}

/// How to write text.
#[derive(Clone, Copy)]
struct Style {
    has_bar: bool,
    has_colour: bool,
}

impl Style {
    /// A bar on a terminal; colours unless they are declined.
    fn of_stdout() -> Style {
        Style { has_bar: std::io::stdout().is_terminal(), has_colour: output::has_colours() }
    }
}

/// A line of the text, for a token or a ticket.
struct Line<'a> {
    /// The account's name; for a ticket also what follows `/ticket/` in its URL.
    name: String,
    /// `token` or `ticket`.
    noun: &'static str,
    status: &'a DocumentStatus,
    /// The cells that only a published document has.
    cells: Option<Cells<'a>>,
}

struct Cells<'a> {
    left: String,
    appid: String,
    published: &'a Published,
}

impl<'a> Line<'a> {
    fn new(name: String, noun: &'static str, status: &'a DocumentStatus) -> Line<'a> {
        let cells = status.published.as_ref().ok().map(|published| Cells {
            left: format!("{} left", humantime::format_duration(published.life)),
            appid: printable(&published.appid, MAX_APPID),
            published,
        });
        Line { name, noun, status, cells }
    }
}

/// A line for each token and each ticket, in columns.
fn text(statuses: &[AccountStatus], style: Style) -> String {
    let lines = statuses.iter().flat_map(|status| {
        let tickets = status
            .tickets
            .iter()
            .map(|(kind, ticket)| Line::new(format!("{}/{kind}", status.name), "ticket", ticket));
        iter::once(Line::new(status.name.clone(), "token", &status.token)).chain(tickets)
    });
    let lines: Vec<_> = lines.collect();
    let width = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or_default();
    let cells = || lines.iter().filter_map(|line| line.cells.as_ref());
    let name_width = width(&mut lines.iter().map(|line| line.name.len()));
    let state_width = width(&mut lines.iter().map(|line| line.status.state().word().len()));
    let left_width = width(&mut cells().map(|cells| cells.left.len()));
    let appid_width = width(&mut cells().map(|cells| cells.appid.len()));

    let mut text = String::new();
    for Line { name, noun, status, cells } in &lines {
        let state = status.state();
        let (on, off) = if style.has_colour { (colour(state), output::RESET) } else { ("", "") };
        let state = state.word();
        let head = format!("{name:name_width$}  {on}{state:state_width$}{off}");
        let line = match cells {
            None => writeln!(text, "{head}  {}", status.place),
            Some(Cells { left, appid, published }) => {
                let bar = match style.has_bar {
                    true => format!("  {on}{}{off}", bar(published)),
                    false => String::new(),
                };
                let since = rfc3339(published.created_at);
                let until = rfc3339(published.expires_at);
                let fingerprint = &published.fingerprint;
                writeln!(
                    text,
                    "{head}  {left:left_width$}{bar}  since {since}  until {until}  {appid:appid_width$}  {noun} \
                     {fingerprint}"
                )
            }
        };
        line.unwrap_or_default(); // Writing to a String cannot fail.
    }
    text
}

fn colour(state: DocumentState) -> &'static str {
    match state {
        DocumentState::Live => output::GREEN,
        DocumentState::Due => output::YELLOW,
        DocumentState::Expired
        | DocumentState::Dead
        | DocumentState::Missing
        | DocumentState::Unreadable
        | DocumentState::Foreign => output::RED,
    }
}

/// How much life is left, as twelve cells. The first one stays as long as anything is left.
fn bar(published: &Published) -> String {
    const CELLS: usize = 12;
    let share = published.life.as_secs_f64() / published.expires_in.as_secs_f64();
    let full = ((share * CELLS as f64).ceil() as usize).min(CELLS);
    "█".repeat(full) + &"░".repeat(CELLS - full)
}

/// Metrics for node_exporter's textfile collector.
fn prometheus(statuses: &[AccountStatus]) -> String {
    let mut exposition = Exposition::default();
    exposition.write_token_instants(statuses);
    exposition.write_ticket_instants(statuses);
    exposition.into_text()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::UtcDateTime;

    use super::*;
    use crate::model::kind::TicketType;
    use crate::model::status::Problem;

    const PLAIN: Style = Style { has_bar: false, has_colour: false };

    fn at(secs: i64) -> UtcDateTime {
        UtcDateTime::from_unix_timestamp(1_795_325_686 + secs).unwrap() // 2026-11-22T05:34:46Z
    }

    fn published(life: u64) -> Published {
        Published {
            appid: "wx1".to_owned(),
            created_at: at(0),
            expires_at: at(7200),
            expires_in: Duration::from_secs(7200),
            life: Duration::from_secs(life),
            is_due: life <= 300,
            fingerprint: "ba7816bf".to_owned(),
        }
    }

    fn document(published: Result<Published, Problem>, place: &str) -> DocumentStatus {
        DocumentStatus { place: place.to_owned(), published, is_dead: false, failure: None }
    }

    fn account(name: &str, published: Result<Published, Problem>) -> AccountStatus {
        AccountStatus {
            name: name.to_owned(),
            appid: None,
            token: document(published, "/d/default.json"),
            tickets: Vec::new(),
            refresh: None,
        }
    }

    #[test]
    fn a_file_gets_a_plain_line_and_a_terminal_a_bar() {
        let live = [account("default", Ok(published(3600)))];
        let plain = "default  live  1h left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  token ba7816bf\n";
        assert_eq!(text(&live, PLAIN), plain);
        let line = text(&live, Style { has_bar: true, has_colour: true });
        assert!(line.contains("\x1b[32m██████░░░░░░\x1b[0m"), "{line}");
        let line = text(&live, Style { has_bar: true, has_colour: false });
        assert!(line.contains("██████░░░░░░") && !line.contains('\x1b'), "{line}");
    }

    #[test]
    fn accounts_are_in_columns_with_and_without_colours() {
        let accounts = [
            account("a", Ok(published(3600))),
            account("branch_2", Ok(published(0))),
            account("default", Err(Problem::Missing)),
        ];
        let expected = "a         live     1h left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  token ba7816bf\n\
                        branch_2  expired  0s left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  token ba7816bf\n\
                        default   missing  /d/default.json\n";
        assert_eq!(text(&accounts, PLAIN), expected);
        let coloured = text(&accounts, Style { has_bar: false, has_colour: true });
        let plain = coloured.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert_eq!(plain, expected);
    }

    #[test]
    fn tickets_follow_their_account_under_its_name() {
        let mut shop = account("default", Ok(published(3600)));
        let jsapi = Published { fingerprint: "1f93603d".to_owned(), ..published(60) };
        shop.tickets = vec![
            (TicketType::parse("jsapi").unwrap(), document(Ok(jsapi), "/d/default.jsapi.json")),
            (
                TicketType::parse("wx_card").unwrap(),
                document(Err(Problem::Missing), "/d/default.wx_card.json"),
            ),
        ];
        let expected = "default          live     1h left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  token ba7816bf\n\
                        default/jsapi    due      1m left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  ticket 1f93603d\n\
                        default/wx_card  missing  /d/default.wx_card.json\n";
        assert_eq!(text(&[shop], PLAIN), expected);
    }

    #[test]
    fn the_bar_is_empty_only_if_nothing_is_left() {
        for (life, cells) in [(7200, 12), (7, 1), (0, 0), (50_000, 12)] {
            let expected = "█".repeat(cells) + &"░".repeat(12 - cells);
            assert_eq!(bar(&published(life)), expected, "{life}");
        }
    }
}
