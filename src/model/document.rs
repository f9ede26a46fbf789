//! The published document: its form in bytes, and what its token is worth at an instant: how long it is left, whether
//! it is due, what may be promised of it. A ticket's document is the same but for one name. Pure: no clock and no I/O,
//! `now` always comes in.

use std::fmt;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcDateTime};

use crate::model::api::{Api, Rules};
use crate::model::secret::Secret;

/// How long WeChat's classic API lets a token live on after it issued the next one.
/// <https://developers.weixin.qq.com/doc/oplatform/developers/dev/AccessToken.html>
pub(crate) const CLASSIC_OVERLAP: Duration = Duration::from_secs(300);

/// A `created_at` further ahead than this is a clock that was set back, not two clocks that differ a little.
pub(crate) const MAX_CLOCK_SKEW: time::Duration = time::Duration::seconds(60);

/// How long a mirror is content with what its source said: whoever replaces a token there by hand is followed within this
/// time, and a cron job that runs each minute asks each time.
const FRESH: Duration = Duration::from_secs(30);

/// With less life than this a token is over before anybody has used it.
const LEAST_LIFE: Duration = Duration::from_secs(2);

/// The longest token we take; WeChat asks to reserve 512 characters.
const MAX_TOKEN: usize = 2048;

/// The longest life we believe; WeChat says 7200 s, "a value within".
const MAX_EXPIRES_IN: u64 = 86_400;

/// No document is longer: a token of [`MAX_TOKEN`], an AppID, and room for fields that others add.
pub(crate) const MAX_DOCUMENT: usize = 8 * 1024;

/// What is published for an account: the token, and what is needed to tell how long it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) appid: String,
    /// Or the ticket.
    pub(crate) token: Secret,
    /// What WeChat said, counted from `created_at`.
    pub(crate) expires_in: Duration,
    /// The instant *before* the request was sent, in whole seconds rounded down: WeChat's count began later.
    pub(crate) created_at: UtcDateTime,
}

/// A document as it stands in the file. Readers ignore fields they do not know.
#[derive(Deserialize, Serialize)]
struct Written<'a> {
    appid: String,
    access_token: std::borrow::Cow<'a, str>,
    expires_in: u64,
    created_at: String,
}

/// A ticket's document as it stands in the file.
#[derive(Deserialize, Serialize)]
struct WrittenTicket<'a> {
    appid: String,
    ticket: std::borrow::Cow<'a, str>,
    /// A token's document is no ticket's, whatever else is in it.
    #[serde(default, skip_serializing)]
    access_token: Option<IgnoredAny>,
    expires_in: u64,
    created_at: String,
}

/// Why bytes are no document. Never quotes them: a token may be among them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damage(String);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Document {
    /// A document for a token that was asked for at `asked_at`.
    pub(crate) fn new(
        appid: &str,
        token: Secret,
        expires_in: Duration,
        asked_at: UtcDateTime,
    ) -> Document {
        let created_at = asked_at.replace_nanosecond(0).unwrap_or(asked_at); // 0 is in range.
        Document { appid: appid.to_owned(), token, expires_in, created_at }
    }

    /// Reads a document of this kind from a file's bytes.
    pub(crate) fn parse(kind: &DocumentKind, bytes: &[u8]) -> Result<Document, Damage> {
        match kind {
            DocumentKind::Token => Document::parse_token(bytes),
            DocumentKind::Ticket(_) => Document::parse_ticket(bytes),
        }
    }

    fn parse_token(bytes: &[u8]) -> Result<Document, Damage> {
        let written: Written<'_> = parse_json(bytes)?;
        if !is_token(&written.access_token) {
            return Err(Damage("access_token is not a token".to_owned()));
        }
        Document::checked(written)
    }

    fn parse_ticket(bytes: &[u8]) -> Result<Document, Damage> {
        let WrittenTicket { appid, ticket, access_token, expires_in, created_at } =
            parse_json(bytes)?;
        if access_token.is_some() {
            return Err(Damage("it has an access_token and is no ticket's".to_owned()));
        }
        if !is_token(&ticket) {
            return Err(Damage("ticket is not a ticket".to_owned()));
        }
        Document::checked(Written { appid, access_token: ticket, expires_in, created_at })
    }

    fn checked(written: Written<'_>) -> Result<Document, Damage> {
        let expires_in = life(written.expires_in)
            .ok_or_else(|| Damage(format!("expires_in is not in 1…{MAX_EXPIRES_IN}")))?;
        // Not UtcDateTime::parse, which panics on 9999-12-31T23:59:59-23:59.
        let created_at = OffsetDateTime::parse(&written.created_at, &Rfc3339)
            .ok()
            .and_then(OffsetDateTime::checked_to_utc)
            .filter(|at| (1970..=9000).contains(&at.year()))
            .ok_or_else(|| Damage("created_at is not an RFC 3339 time".to_owned()))?;
        Ok(Document {
            appid: written.appid,
            token: Secret::new(written.access_token.into_owned()),
            expires_in,
            created_at,
        })
    }

    /// The document as it stands in the file, being one of this kind: one line of JSON.
    pub(crate) fn to_line(&self, kind: &DocumentKind) -> Secret {
        let appid = self.appid.clone();
        let token = self.token.expose().into();
        let (expires_in, created_at) = (self.expires_in.as_secs(), self.created());
        let line = match kind {
            DocumentKind::Token => serde_json::to_string(&Written {
                appid,
                access_token: token,
                expires_in,
                created_at,
            }),
            DocumentKind::Ticket(_) => serde_json::to_string(&WrittenTicket {
                appid,
                ticket: token,
                access_token: None,
                expires_in,
                created_at,
            }),
        };
        let mut line = line.unwrap_or_default(); // Strings and a number always serialize.
        line.push('\n');
        Secret::new(line)
    }

    /// How long the token still lives: within `[0, expires_in]`, whatever the clock says.
    pub(crate) fn left(&self, now: UtcDateTime) -> Duration {
        let age = now - self.created_at;
        self.expires_in.saturating_sub(age.try_into().unwrap_or(Duration::ZERO)) // Made in the future: its age is 0.
    }

    /// This document as it must stand if WeChat may have issued another token since `asked_at`, unknown to anybody: it
    /// ends an overlap later. `None` if it ends by then anyway. It never ends later than before, and never at once.
    pub(crate) fn if_replaced(&self, asked_at: UtcDateTime) -> Option<Document> {
        if self.left(asked_at) <= CLASSIC_OVERLAP {
            return None;
        }
        // One from the future would not grow old until then.
        let created_at = self.created_at.min(asked_at.replace_nanosecond(0).unwrap_or(asked_at));
        let age = Duration::try_from(asked_at - created_at).unwrap_or_default();
        let expires_in = Duration::from_secs((age + CLASSIC_OVERLAP).as_secs());
        let expires_in = expires_in.min(self.expires_in);
        Some(Document { expires_in, created_at, ..self.clone() })
    }

    /// This document, of an answer with the same token as `before`, as it must stand where WeChat states a whole life for
    /// it each time: it ends when `before` does, or sooner. `None` if that is as good as over.
    pub(crate) fn no_longer_than(self, before: &Document, now: UtcDateTime) -> Option<Document> {
        if before.left(now) < LEAST_LIFE {
            return None;
        }
        let left = Duration::from_secs(before.left(self.created_at).as_secs());
        Some(Document { expires_in: self.expires_in.min(left), ..self })
    }

    /// This document, made no older than one of `created_at`; it ends when it ended.
    pub(crate) fn no_older_than(&self, created_at: UtcDateTime) -> Document {
        let created_at = self.created_at.max(created_at);
        let moved = (created_at - self.created_at).try_into().unwrap_or_default();
        let expires_in = self.expires_in.saturating_sub(moved).max(Duration::from_secs(1));
        Document { created_at, expires_in, ..self.clone() }
    }

    /// Whether WeChat has been asked and has answered since `before` stood here, as opposed to a document that was
    /// merely cut by [`Document::if_replaced`], or put back.
    pub(crate) fn is_news_since(&self, before: &Document) -> bool {
        self.token != before.token || self.created_at > before.created_at
    }

    /// Whether it is time to ask for the next token.
    pub(crate) fn is_due(&self, now: UtcDateTime, refresh_before: Duration) -> bool {
        self.is_from_the_future(now) || self.left(now) <= refresh_before
    }

    /// Whether the clock by which it was made was ahead, or this one has been set back: its age says nothing.
    pub(crate) fn is_from_the_future(&self, now: UtcDateTime) -> bool {
        self.created_at - now > MAX_CLOCK_SKEW
    }

    /// With how much life left this document, being a ticket's, is due. WeChat gives the same ticket again while it lives, and
    /// the document says since then how much was left: half of that has to pass before another question can bring more.
    pub(crate) fn ticket_margin(&self, refresh_before: Duration) -> Duration {
        refresh_before.min(self.expires_in / 2)
    }

    /// Whether a mirror should hear from its source again, where the token may have been replaced since.
    pub(crate) fn is_stale(&self, now: UtcDateTime) -> bool {
        self.stale_in(now).is_zero()
    }

    /// How long it is until then.
    pub(crate) fn stale_in(&self, now: UtcDateTime) -> Duration {
        let age = now - self.created_at;
        if age < -MAX_CLOCK_SKEW {
            return Duration::ZERO;
        }
        let age = Duration::try_from(age).unwrap_or_default(); // Made in the future: its age is 0.
        FRESH.saturating_sub(age).min(self.left(now))
    }

    /// What may be promised to someone who takes the token now: it works that long, unless somebody outside kills it.
    /// In whole seconds, rounded down; zero means that there is no token to hand out.
    pub(crate) fn promise(
        &self,
        now: UtcDateTime,
        rules: Rules,
        refresh_before: Duration,
    ) -> Duration {
        let left = self.left(now);
        let promise = match rules {
            // What a mirror was promised has its source's rules in it.
            Rules::Stable | Rules::Work | Rules::Mirror => left,
            // The next `fetch` may replace it as soon as it is due, and then it lives on for the overlap only.
            Rules::Classic => left.min(left.saturating_sub(refresh_before) + CLASSIC_OVERLAP),
        };
        Duration::from_secs(promise.as_secs())
    }

    /// When it was asked for, as RFC 3339 in UTC.
    pub(crate) fn created(&self) -> String {
        rfc3339(self.created_at)
    }

    /// When it ends, as RFC 3339 in UTC.
    pub(crate) fn expires(&self) -> String {
        rfc3339(self.expires_at())
    }

    /// When it ends.
    pub(crate) fn expires_at(&self) -> UtcDateTime {
        self.created_at.saturating_add(time::Duration::seconds(self.expires_in.as_secs() as i64))
    }
}

/// serde_json's own words quote what it did not expect, so only the place is told.
fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Damage> {
    serde_json::from_slice(bytes).map_err(|err| {
        let what = match err.classify() {
            _ if bytes.is_empty() => return Damage("it is empty".to_owned()),
            serde_json::error::Category::Eof => "it ends too soon",
            serde_json::error::Category::Data => "a field is missing or of the wrong type",
            _ => "it is not JSON",
        };
        Damage(format!("{what} (line {}, column {})", err.line(), err.column()))
    })
}

/// As RFC 3339 in UTC.
pub(crate) fn rfc3339(at: UtcDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string()) // Only a year beyond 9999 has no RFC 3339 form.
}

/// Whether `text` can be a token: non-empty printable ASCII without spaces, at most 2 KiB.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What a document holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DocumentKind {
    Token,
    Ticket(TicketType),
}

/// What a ticket is for: `jsapi`, `wx_card`, … Never a path, as it becomes a part of a file's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TicketType(String);

impl TicketType {
    /// The type of this name, if it can be one: small letters, digits and underscores, 32 at most.
    pub(crate) fn parse(name: &str) -> Option<TicketType> {
        let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let is_type = (1..=32).contains(&name.len()) && name.bytes().all(is_good);
        is_type.then(|| TicketType(name.to_owned()))
    }

    /// The type of this name, if accounts on this API have such tickets; else a sentence that says which they have.
    pub(crate) fn on(api: Api, name: &str) -> Result<TicketType, String> {
        let types = match api {
            Api::Stable | Api::Classic => ["jsapi", "wx_card"],
            Api::Work => ["jsapi", "agent_config"],
        };
        let found = types.contains(&name).then(|| TicketType(name.to_owned()));
        let types = types.join(", ");
        found.ok_or_else(|| format!("there is no such ticket on this api; there are {types}"))
    }
}

impl fmt::Display for TicketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A life that can be believed: 1 s to a day.
pub(crate) fn life(secs: u64) -> Option<Duration> {
    (1..=MAX_EXPIRES_IN).contains(&secs).then(|| Duration::from_secs(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARGIN: Duration = Duration::from_secs(300);

    fn at(text: &str) -> UtcDateTime {
        UtcDateTime::parse(text, &Rfc3339).unwrap()
    }

    fn made_at(text: &str) -> Document {
        Document::new("wx1", Secret::new("T1".to_owned()), Duration::from_secs(7200), at(text))
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_document_that_is_made_newer_ends_when_it_ended() {
        let document = made_at("2026-11-22T05:34:46Z");
        let moved = document.no_older_than(at("2026-11-22T05:35:16Z"));
        assert_eq!(moved.created(), "2026-11-22T05:35:16Z");
        assert_eq!(moved.expires(), document.expires());
        assert_eq!(document.no_older_than(at("2026-11-22T05:34:45Z")), document);
        let never_nothing = document.no_older_than(at("2026-12-01T00:00:00Z"));
        assert_eq!(never_nothing.expires_in, secs(1));
    }

    #[test]
    fn a_document_survives_being_written_and_read() {
        let document = made_at("2026-11-22T05:34:46.987654321Z");
        let line = document.to_line(&DocumentKind::Token);
        assert_eq!(
            line.expose(),
            "{\"appid\":\"wx1\",\"access_token\":\"T1\",\"expires_in\":7200,\"created_at\":\"2026-11-22T05:34:46Z\"}\n"
        );
        assert_eq!(Document::parse_token(line.expose().as_bytes()), Ok(document.clone()));
        let ticket = document.to_line(&DocumentKind::Ticket(TicketType::parse("jsapi").unwrap()));
        assert_eq!(ticket.expose(), line.expose().replace("access_token", "ticket"));
        assert_eq!(Document::parse_ticket(ticket.expose().as_bytes()), Ok(document));
    }

    #[test]
    fn readers_ignore_fields_they_do_not_know_and_take_any_offset() {
        let parsed = Document::parse_token(
            br#"{"v":2,"created_at":"2026-11-22T13:34:46+08:00","expires_in":7200,"access_token":"T1","appid":"wx1"}"#,
        );
        assert_eq!(parsed, Ok(made_at("2026-11-22T05:34:46Z")));
    }

    #[test]
    fn a_ticket_is_read_like_a_token_and_neither_is_the_other() {
        let rest = r#""expires_in":7200,"created_at":"2026-11-22T05:34:46Z","appid":"wx1"}"#;
        let ticket = format!(r#"{{"ticket":"T1",{rest}"#);
        assert_eq!(Document::parse_ticket(ticket.as_bytes()), Ok(made_at("2026-11-22T05:34:46Z")));
        assert!(Document::parse_token(ticket.as_bytes()).is_err());
        for wrong in [
            format!(r#"{{"access_token":"S3CR3T",{rest}"#),
            format!(r#"{{"access_token":"S3CR3T","ticket":"S3CR3T",{rest}"#),
            format!(r#"{{"ticket":"",{rest}"#),
            format!(r#"{{"ticket":"S3CR3T S3CR3T",{rest}"#),
            format!(r#"{{"ticket":["S3CR3T"],{rest}"#),
            r#"{"ticket":"S3CR3T","appid":"wx1","expires_in":0,"created_at":"2026-11-22T05:34:46Z"}"#
                .to_owned(),
            String::new(),
        ] {
            let damage = Document::parse_ticket(wrong.as_bytes()).unwrap_err().to_string();
            assert!(!damage.contains("S3CR3T"), "{damage}");
        }
    }

    #[test]
    fn a_tickets_type_is_a_word_and_never_a_path() {
        for name in ["jsapi", "wx_card", "agent_config", "2", &"x".repeat(32)] {
            assert_eq!(TicketType::parse(name).unwrap().to_string(), name);
        }
        for wrong in ["", "JSAPI", "a.b", "../x", "a/b", "a b", "jsapi\0", "é", &"x".repeat(33)] {
            assert_eq!(TicketType::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn damage_is_named_without_quoting_what_is_damaged() {
        let whole = made_at("2026-11-22T05:34:46Z").to_line(&DocumentKind::Token);
        for end in 0..whole.expose().len() - 2 {
            assert!(
                Document::parse_token(&whole.expose().as_bytes()[..end]).is_err(),
                "cut at {end}"
            );
        }
        for wrong in [
            r#"{"appid":"wx1","access_token":["S3CR3T"],"expires_in":7200,"created_at":"2026-11-22T05:34:46Z"}"#,
            r#"{"appid":"wx1","access_token":"T","expires_in":"S3CR3T","created_at":"2026-11-22T05:34:46Z"}"#,
            r#"{"appid":"wx1","access_token":"T","expires_in":1,"created_at":"S3CR3T"}"#,
            r#"{"appid":"wx1","access_token":"S3CR3T \u0007","expires_in":1,"created_at":"2026-11-22T05:34:46Z"}"#,
            r#"{"appid":"wx1","access_token":"T","expires_in":0,"created_at":"2026-11-22T05:34:46Z"}"#,
            r#"{"appid":"wx1","access_token":"","expires_in":1,"created_at":"2026-11-22T05:34:46Z"}"#,
            r#"{"appid":"wx1","access_token":"T","expires_in":1,"created_at":"9999-12-31T23:59:59-23:59"}"#,
            r#"{"appid":"wx1","access_token":"T","expires_in":1,"created_at":"0000-01-01T00:00:00+23:59"}"#,
            r#"["S3CR3T"]"#,
            "S3CR3T",
        ] {
            let damage = Document::parse_token(wrong.as_bytes()).unwrap_err().to_string();
            assert!(!damage.contains("S3CR3T"), "{damage}");
        }
    }

    #[test]
    fn a_token_is_due_exactly_at_the_margin_and_not_a_second_before() {
        let document = made_at("2026-11-22T00:00:00Z");
        assert!(!document.is_due(at("2026-11-22T01:54:59Z"), MARGIN));
        assert!(document.is_due(at("2026-11-22T01:55:00Z"), MARGIN));
        assert!(document.is_due(at("2026-11-23T00:00:00Z"), MARGIN));
    }

    #[test]
    fn a_token_from_the_future_is_due_and_never_lives_longer_than_it_was_given() {
        let document = made_at("2026-11-22T00:00:00Z");
        assert!(
            !document.is_due(at("2026-11-21T23:59:00Z"), MARGIN),
            "a minute of skew is no news"
        );
        assert!(document.is_due(at("2026-11-21T23:58:59Z"), MARGIN));
        assert_eq!(document.left(at("2020-01-01T00:00:00Z")), secs(7200));
        assert_eq!(document.left(at("9999-01-01T00:00:00Z")), secs(0));
    }

    #[test]
    fn a_promise_is_rounded_down() {
        let document = made_at("2026-11-22T00:00:00Z");
        let promise = |now| document.promise(at(now), Rules::Stable, MARGIN);
        assert_eq!(promise("2026-11-22T00:00:00.1Z"), secs(7199));
        assert_eq!(promise("2026-11-22T01:59:58.9Z"), secs(1));
        assert_eq!(promise("2026-11-22T01:59:59.1Z"), secs(0), "less than a second is no token");
    }

    #[test]
    fn a_classic_token_is_promised_no_longer_than_an_early_refresh_lets_it_live() {
        let document = made_at("2026-11-22T00:00:00Z");
        let hour = secs(3600);
        let promise = |now, margin| document.promise(at(now), Rules::Classic, margin);
        // The default margin is the overlap: what is left.
        assert_eq!(promise("2026-11-22T00:00:00Z", MARGIN), secs(7200));
        assert_eq!(promise("2026-11-22T01:59:00Z", MARGIN), secs(60));
        // Replaced an hour early, it may die an hour less five minutes early.
        assert_eq!(promise("2026-11-22T00:00:00Z", hour), secs(3900));
        assert_eq!(promise("2026-11-22T01:00:00Z", hour), secs(300));
        assert_eq!(promise("2026-11-22T01:30:00Z", hour), secs(300));
        assert_eq!(promise("2026-11-22T01:59:00Z", hour), secs(60));
        assert_eq!(document.promise(at("2026-11-22T00:00:00Z"), Rules::Stable, hour), secs(7200));
    }

    #[test]
    fn a_token_that_may_have_been_replaced_ends_after_the_overlap_at_the_latest() {
        let document = made_at("2026-11-22T00:00:00Z");
        for (asked_at, expires_in) in [
            ("2026-11-22T00:00:00Z", Some(300)),
            ("2026-11-22T00:00:00.9Z", Some(300)),
            ("2026-11-22T01:00:00Z", Some(3900)),
            ("2026-11-22T01:00:00.9Z", Some(3900)),
            ("2026-11-22T01:54:59Z", Some(7199)),
            // It ends by then anyway.
            ("2026-11-22T01:55:00Z", None),
            ("2026-11-22T01:59:59Z", None),
            ("2026-11-22T03:00:00Z", None),
        ] {
            let cut = document.if_replaced(at(asked_at));
            assert_eq!(cut.as_ref().map(|cut| cut.expires_in.as_secs()), expires_in, "{asked_at}");
            let Some(cut) = cut else { continue };
            assert_eq!((&cut.token, cut.created_at), (&document.token, document.created_at));
            assert!(cut.expires_at() <= at(asked_at) + CLASSIC_OVERLAP, "{asked_at}");
            assert!(cut.left(at(asked_at)) > secs(298), "never at once: {asked_at}");
            assert_eq!(cut.if_replaced(at(asked_at)), None, "and never twice: {asked_at}");
            assert!(!cut.is_news_since(&document) && !document.is_news_since(&cut));
        }
    }

    #[test]
    fn a_token_from_the_future_that_may_have_been_replaced_grows_old_at_once() {
        let short = Document { expires_in: secs(200), ..made_at("2026-11-22T00:00:00Z") };
        let hour_before = at("2026-11-21T23:00:00.5Z");
        assert_eq!(short.if_replaced(hour_before), None);
        let cut = made_at("2026-11-22T00:00:00Z").if_replaced(hour_before).unwrap();
        assert_eq!(
            (cut.created(), cut.expires_in.as_secs()),
            ("2026-11-21T23:00:00Z".to_owned(), 300)
        );
        assert!(!cut.is_news_since(&made_at("2026-11-22T00:00:00Z")));
    }

    #[test]
    fn an_answer_is_news_and_another_life_of_the_same_token_is_none() {
        let before = made_at("2026-11-22T00:00:00Z");
        assert!(!before.is_news_since(&before));
        assert!(!Document { expires_in: secs(9), ..before.clone() }.is_news_since(&before));
        assert!(made_at("2026-11-22T00:00:01Z").is_news_since(&before));
        let another = Document { token: Secret::new("T2".to_owned()), ..before.clone() };
        assert!(another.is_news_since(&before));
    }

    #[test]
    fn the_same_token_again_never_ends_later_where_each_answer_states_a_whole_life() {
        let before = made_at("2026-11-22T00:00:00Z");
        let again = |asked_at, expires_in| {
            let again = Document { expires_in: secs(expires_in), ..made_at(asked_at) };
            again.no_longer_than(&before, at(asked_at)).map(|document| document.expires())
        };
        let ends = |text: &str| Some(text.to_owned());
        assert_eq!(again("2026-11-22T01:00:00Z", 7200), ends("2026-11-22T02:00:00Z"));
        assert_eq!(again("2026-11-22T01:00:00Z", 1800), ends("2026-11-22T01:30:00Z"));
        assert_eq!(again("2026-11-22T01:59:58Z", 7200), ends("2026-11-22T02:00:00Z"));
        assert_eq!(again("2026-11-22T01:59:58.1Z", 7200), None);
        assert_eq!(again("2026-11-22T02:00:00Z", 7200), None);
        assert_eq!(again("2026-11-22T09:00:00Z", 7200), None);
        // Nor does a clock that was set back give it more than it ever had.
        assert_eq!(again("2026-11-21T00:00:00Z", 86_400), ends("2026-11-21T02:00:00Z"));
    }
}
