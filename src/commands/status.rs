//! `wxtoken status`: what is published, since when and until when. Never shows a token or a ticket; asks no server but the
//! store.

use std::fmt::Write;
use std::iter;
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use time::UtcDateTime;

use super::output::table::{self, Cell, Column, Row};
use super::{documents, output};
use crate::cli::{CommonArgs, Format, StatusArgs};
use crate::config::{Config, Secrets};
use crate::error::Exit;
use crate::language::Language;
use crate::log::printable;
use crate::message::span;
use crate::model::document::rfc3339;
use crate::model::exposition::Exposition;
use crate::model::kind::DocumentKind;
use crate::model::status::{AccountStatus, DocumentState, DocumentStatus, Published};
use crate::os::clock::{Clock, SystemClock};
use crate::os::local_time::{LocalZone, zone_name};
use crate::store::Stores;

/// What follows the life that is left.
const LEFT: &str = " left";

/// The longest path or Redis key that is shown; no path is longer.
const MAX_PLACE: usize = 4096; // characters

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
        Format::Text => match output::terminal::width() {
            Some(width) => screen(&statuses, &Screen::of_process(width, now.wall)),
            None => text(&statuses),
        },
        Format::Json => json(&statuses)?,
        Format::Prometheus => prometheus(&statuses),
    })?;
    // The answer is on stdout either way. The exit status and stderr say whether the tokens can be used.
    let unusable = accounts.iter().zip(&statuses).filter_map(|(account, status)| {
        let token = &status.token;
        let why = documents::unusable(account, &DocumentKind::Token, token, args.min_life, now)?;
        Some((account.name.clone(), why))
    });
    let unusable: Vec<_> = unusable.collect();
    if unusable.is_empty() { Ok(Exit::Done) } else { Err(Exit::NoToken.errors_of(unusable)) }
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
    /// Since when there is trouble of which `on_trouble` is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble_since: Option<String>,
    /// What WeChat answered to the last request, if it refused and that still holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<RefusalJson>,
    #[serde(flatten)]
    published: Option<PublishedJson<'a>>,
}

#[derive(Serialize)]
struct RefusalJson {
    at: String,
    errcode: i64,
    what: String,
    /// `what` in Chinese.
    what_zh: String,
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
            trouble_since: status.trouble_since.map(rfc3339),
            refusal: status.refusal.as_ref().map(|(refusal, at)| {
                let text = refusal.to_string();
                let what = |language: Language| language.resolve(&text).into_owned();
                RefusalJson {
                    at: rfc3339(*at),
                    errcode: refusal.code,
                    what: what(Language::English),
                    what_zh: what(Language::Chinese),
                }
            }),
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

/// How to write for people.
struct Screen<'a> {
    width: usize,
    has_colours: bool,
    language: Language,
    zone: &'a LocalZone,
    now: UtcDateTime,
}

impl Screen<'static> {
    /// Returns the terminal of this process, which has this width.
    fn of_process(width: usize, now: UtcDateTime) -> Screen<'static> {
        let (has_colours, language) = (output::has_colours(), Language::of_process());
        Screen { width, has_colours, language, zone: LocalZone::of_process(), now }
    }
}

impl Screen<'_> {
    /// Returns a heading of the table, in one language: there is no room for two.
    fn heading(&self, english: &str, chinese: &str) -> String {
        match self.language {
            Language::Chinese => chinese,
            Language::English | Language::Both => english,
        }
        .to_owned()
    }

    /// Returns an instant in local time: the time of today, the date and the time of another day.
    fn instant(&self, at: UtcDateTime) -> String {
        let (at, now) = (self.zone.at(at), self.zone.at(self.now));
        let (hour, minute, second) = at.time().as_hms();
        match at.date() == now.date() {
            true => format!("{hour:02}:{minute:02}:{second:02}"),
            false => format!("{} {hour:02}:{minute:02}", at.date()),
        }
    }
}

/// A table for people: a row for each token and each ticket.
fn screen(statuses: &[AccountStatus], screen: &Screen<'_>) -> String {
    let zone = zone_name(screen.zone.at(screen.now));
    let column = |english: &str, chinese: &str, leave_out| Column {
        heading: screen.heading(english, chinese),
        leave_out,
    };
    let has_trouble = statuses.iter().any(|account| {
        let tickets = account.tickets.iter().map(|(_, ticket)| ticket);
        tickets.chain([&account.token]).any(|it| it.trouble_since.is_some())
    });
    let mut columns = vec![
        column("ACCOUNT", "账号", None),
        column("STATE", "状态", None),
        column("LEFT", "剩余", None),
        column("", "", Some(3)),
        column("SINCE", "获取", Some(0)),
        Column {
            heading: format!("{} ({zone})", screen.heading("UNTIL", "到期")),
            leave_out: None,
        },
        column("APPID", "AppID", Some(1)),
        column("SHA-256", "SHA-256", Some(2)),
    ];
    // Only where there is some, beside the state.
    if has_trouble {
        columns.insert(2, column("TROUBLE", "故障始于", None));
    }
    let rows = lines(statuses).into_iter().map(|StatusLine { name, status, cells, .. }| {
        let state = status.state();
        let colour = Some(colour(state)).filter(|_| screen.has_colours);
        let word = screen.heading(state.word(), chinese(state));
        let mut row = vec![Cell::new(name), Cell::new(word).coloured(colour)];
        if has_trouble {
            let since = status.trouble_since.map(|at| screen.instant(at)).unwrap_or_default();
            let colour = screen.has_colours.then_some(output::RED);
            row.push(Cell::new(since).coloured(colour.filter(|_| status.trouble_since.is_some())));
        }
        let Some(Cells { left, appid, published }) = cells else {
            return Row { cells: row, path: Some(printable(&status.place, MAX_PLACE)) };
        };
        row.extend([
            Cell::new(left),
            Cell::new(bar(published)).coloured(colour),
            Cell::new(screen.instant(published.created_at)),
            Cell::new(screen.instant(published.expires_at)),
            Cell::new(appid),
            Cell::new(published.fingerprint.as_str()),
        ]);
        Row { cells: row, path: None }
    });
    table::table(columns, rows.collect(), screen.width) + &refusals(statuses, screen)
}

/// What WeChat refuses now, below the table.
fn refusals(statuses: &[AccountStatus], screen: &Screen<'_>) -> String {
    let mut text = String::new();
    for StatusLine { name, status, .. } in lines(statuses) {
        if let Some((refusal, at)) = &status.refusal {
            let said = refusal.to_string();
            let said = screen.language.resolve(&said);
            let line = format!("{name}: {said} ({})", screen.instant(*at));
            text += &format!("{}\n", output::terminal::wrapped(&line, screen.width).join("\n"));
        }
    }
    text
}

/// The state in Chinese.
fn chinese(state: DocumentState) -> &'static str {
    match state {
        DocumentState::Live => "有效",
        DocumentState::Due => "待刷新",
        DocumentState::Expired => "已过期",
        DocumentState::Dead => "已失效",
        DocumentState::Missing => "不存在",
        DocumentState::Unreadable => "无法读取",
        DocumentState::Foreign => "属于其他账号",
    }
}

/// A line of the text, for a token or a ticket.
struct StatusLine<'a> {
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

impl<'a> StatusLine<'a> {
    fn new(name: String, noun: &'static str, status: &'a DocumentStatus) -> StatusLine<'a> {
        let cells = status.published.as_ref().ok().map(|published| Cells {
            left: span(published.life),
            appid: printable(&published.appid, MAX_APPID),
            published,
        });
        StatusLine { name, noun, status, cells }
    }
}

/// The lines of all tokens and tickets.
fn lines(statuses: &[AccountStatus]) -> Vec<StatusLine<'_>> {
    let lines = statuses.iter().flat_map(|status| {
        let tickets = status.tickets.iter().map(|(kind, ticket)| {
            StatusLine::new(format!("{}/{kind}", status.name), "ticket", ticket)
        });
        iter::once(StatusLine::new(status.name.clone(), "token", &status.token)).chain(tickets)
    });
    lines.collect()
}

/// A line for each token and each ticket, in columns, for scripts and files: it is the same on every machine.
fn text(statuses: &[AccountStatus]) -> String {
    let lines = lines(statuses);
    let width = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or_default();
    let cells = || lines.iter().filter_map(|line| line.cells.as_ref());
    let name_width = width(&mut lines.iter().map(|line| line.name.len()));
    let state_width = width(&mut lines.iter().map(|line| line.status.state().word().len()));
    let left_width = width(&mut cells().map(|cells| cells.left.len() + LEFT.len()));
    let appid_width = width(&mut cells().map(|cells| cells.appid.len()));

    let mut text = String::new();
    for StatusLine { name, noun, status, cells } in &lines {
        let trouble = status.trouble_since.map(|at| format!("  trouble since {}", rfc3339(at)));
        let refused = status
            .refusal
            .as_ref()
            .map(|(refusal, at)| format!("  refused {} at {}", refusal.code, rfc3339(*at)));
        let trouble = trouble.unwrap_or_default() + &refused.unwrap_or_default();
        let state = status.state().word();
        let head = format!("{name:name_width$}  {state:state_width$}");
        let line = match cells {
            None => writeln!(text, "{head}  {}{trouble}", printable(&status.place, MAX_PLACE)),
            Some(Cells { left, appid, published }) => {
                let left = format!("{left}{LEFT}");
                let since = rfc3339(published.created_at);
                let until = rfc3339(published.expires_at);
                let fingerprint = &published.fingerprint;
                writeln!(
                    text,
                    "{head}  {left:left_width$}  since {since}  until {until}  {appid:appid_width$}  {noun} {fingerprint}{trouble}"
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
    use std::sync::LazyLock;
    use std::time::Duration;

    use super::*;
    use crate::model::kind::TicketType;
    use crate::model::status::Problem;

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
        let (place, is_dead) = (place.to_owned(), false);
        let (failure, trouble_since, refusal) = (None, None, None);
        DocumentStatus { place, published, is_dead, failure, trouble_since, refusal }
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

    fn screen_of(width: usize, language: Language, has_colours: bool) -> Screen<'static> {
        static ZONE: LazyLock<LocalZone> = LazyLock::new(|| LocalZone::for_tests("CST-8"));
        let zone = &*ZONE;
        Screen { width, has_colours, language, zone, now: at(60) }
    }

    #[test]
    fn a_file_gets_plain_lines_in_columns_with_times_in_utc() {
        let accounts = [
            account("a", Ok(published(3600))),
            account("branch_2", Ok(published(0))),
            account("default", Err(Problem::Missing)),
        ];
        let expected = "a         live     1h left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  token ba7816bf\n\
                        branch_2  expired  0s left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  token ba7816bf\n\
                        default   missing  /d/default.json\n";
        assert_eq!(text(&accounts), expected);
    }

    #[test]
    fn a_terminal_gets_a_table_in_local_time_that_fits_it() {
        let accounts = [
            account("a", Ok(published(3600))),
            account("branch_2", Ok(published(0))),
            account("default", Err(Problem::Missing)),
        ];
        let wide = screen(&accounts, &screen_of(100, Language::English, false));
        let expected = "ACCOUNT   STATE    LEFT                SINCE     UNTIL (UTC+8)  APPID  SHA-256\n\
                        a         live     1h    ██████░░░░░░  13:34:46  15:34:46       wx1    ba7816bf\n\
                        branch_2  expired  0s    ░░░░░░░░░░░░  13:34:46  15:34:46       wx1    ba7816bf\n\
                        default   missing  /d/default.json\n";
        assert_eq!(wide, expected);
        for width in 40..100 {
            for language in [Language::English, Language::Chinese] {
                let table = screen(&accounts, &screen_of(width, language, false));
                let widest = table.lines().map(output::terminal::columns).max().unwrap();
                assert!(widest <= width, "{width}: {table}");
            }
        }
        let chinese = screen(&accounts, &screen_of(60, Language::Chinese, false));
        let expected = "账号      状态    剩余                到期 (UTC+8)  SHA-256\n\
                        a         有效    1h    ██████░░░░░░  15:34:46      ba7816bf\n";
        assert!(chinese.starts_with(expected), "{chinese}");
    }

    #[test]
    fn colours_change_nothing_else_and_another_day_has_its_date() {
        let accounts = [account("a", Ok(published(3600))), account("b", Err(Problem::Missing))];
        let coloured = screen(&accounts, &screen_of(80, Language::English, true));
        assert!(coloured.contains("\x1b[32m██████░░░░░░"), "{coloured}");
        let plain = coloured.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert_eq!(plain, screen(&accounts, &screen_of(80, Language::English, false)));
        let next_day = Screen { now: at(86_400), ..screen_of(80, Language::English, false) };
        assert!(screen(&accounts, &next_day).contains("2026-11-22 15:34"));
    }

    #[test]
    fn a_trouble_is_shown_beside_the_state_and_only_where_there_is_one() {
        let mut ill = account("branch_2", Ok(published(3600)));
        ill.token.trouble_since = Some(at(30));
        let accounts = [account("a", Ok(published(3600))), ill];
        let expected = "a         live  1h left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  token ba7816bf\n\
                        branch_2  live  1h left  since 2026-11-22T05:34:46Z  until 2026-11-22T07:34:46Z  wx1  token ba7816bf  trouble since 2026-11-22T05:35:16Z\n";
        assert_eq!(text(&accounts), expected);
        let table = screen(&accounts, &screen_of(50, Language::English, false));
        let expected = "ACCOUNT   STATE  TROUBLE   LEFT  UNTIL (UTC+8)\n\
                        a         live             1h    15:34:46\n\
                        branch_2  live   13:35:16  1h    15:34:46\n";
        assert_eq!(table, expected);
        let json: serde_json::Value = serde_json::from_str(&json(&accounts).unwrap()).unwrap();
        assert_eq!(json["accounts"][1]["trouble_since"], "2026-11-22T05:35:16Z");
        assert!(json["accounts"][0]["trouble_since"].is_null());
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
        assert_eq!(text(&[shop]), expected);
    }

    #[test]
    fn the_bar_is_empty_only_if_nothing_is_left() {
        for (life, cells) in [(7200, 12), (7, 1), (0, 0), (50_000, 12)] {
            let expected = "█".repeat(cells) + &"░".repeat(12 - cells);
            assert_eq!(bar(&published(life)), expected, "{life}");
        }
    }
}
