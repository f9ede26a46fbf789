//! The published document: its JSON form, and what its token is worth at a given instant: the lifetime left, whether it
//! is due, and the lifetime that may be promised. A ticket's document differs only in one field name. No clock and no
//! I/O; `now` is an argument.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcDateTime};

use crate::model::api::Rules;
use crate::model::kind::DocumentKind;
use crate::model::secret::Secret;

/// How long WeChat's classic API keeps a token valid after it has issued the next one.
/// <https://developers.weixin.qq.com/doc/oplatform/developers/dev/AccessToken.html>
pub(crate) const CLASSIC_OVERLAP: Duration = Duration::from_secs(300);

/// A `created_at` further ahead than this means that a clock was set back, not that two clocks differ a little.
pub(crate) const MAX_CLOCK_SKEW: time::Duration = time::Duration::seconds(60);

/// How long a mirror relies on the last answer. A token replaced at the source is picked up within this time, and a cron
/// job that runs every minute asks every time.
const FRESH: Duration = Duration::from_secs(30);

/// A token with less lifetime left would expire before its first use.
const MIN_LIFETIME: Duration = Duration::from_secs(2);

/// Maximum length of a token in bytes; WeChat asks to reserve 512.
const MAX_TOKEN: usize = 2048;

/// Maximum accepted lifetime in seconds; WeChat documents "a value within 7200".
const MAX_EXPIRES_IN: u64 = 86_400;

/// Maximum size of a document: a token of [`MAX_TOKEN`], an AppID, and room for fields that others add.
pub(crate) const MAX_DOCUMENT: usize = 8 * 1024;

/// What is published for an account: a token, or a ticket, and what determines its lifetime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) appid: String,
    /// The token or the ticket.
    pub(crate) token: Secret,
    /// The lifetime that WeChat stated, counted from `created_at`.
    pub(crate) expires_in: Duration,
    /// The instant *before* the request was sent, rounded down to whole seconds: WeChat's count began later.
    pub(crate) created_at: UtcDateTime,
}

/// The JSON form of a token's document. Unknown fields are ignored.
#[derive(Deserialize, Serialize)]
struct TokenDocumentJson<'a> {
    appid: String,
    access_token: Cow<'a, str>,
    expires_in: u64,
    created_at: String,
}

/// The JSON form of a ticket's document.
#[derive(Deserialize, Serialize)]
struct TicketDocumentJson<'a> {
    appid: String,
    ticket: Cow<'a, str>,
    /// Its presence makes the document a token's, whatever else is in it.
    #[serde(default, skip_serializing)]
    access_token: Option<IgnoredAny>,
    expires_in: u64,
    created_at: String,
}

/// Why bytes are not a document. Never quotes them, because they may contain a token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidDocument(String);

impl fmt::Display for InvalidDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Document {
    /// Returns a document for a token that was requested at `asked_at`.
    pub(crate) fn new(
        appid: &str,
        token: Secret,
        expires_in: Duration,
        asked_at: UtcDateTime,
    ) -> Document {
        let created_at = whole_seconds(asked_at);
        Document { appid: appid.to_owned(), token, expires_in, created_at }
    }

    /// Parses a document of this kind.
    pub(crate) fn parse(kind: &DocumentKind, bytes: &[u8]) -> Result<Document, InvalidDocument> {
        match kind {
            DocumentKind::Token => Document::parse_token(bytes),
            DocumentKind::Ticket(_) => Document::parse_ticket(bytes),
        }
    }

    fn parse_token(bytes: &[u8]) -> Result<Document, InvalidDocument> {
        let json: TokenDocumentJson<'_> = parse_json(bytes)?;
        if !is_token(&json.access_token) {
            return Err(InvalidDocument("access_token is not a token".to_owned()));
        }
        Document::from_json(json)
    }

    fn parse_ticket(bytes: &[u8]) -> Result<Document, InvalidDocument> {
        let TicketDocumentJson { appid, ticket, access_token, expires_in, created_at } =
            parse_json(bytes)?;
        if access_token.is_some() {
            return Err(InvalidDocument("it has an access_token and is no ticket's".to_owned()));
        }
        if !is_token(&ticket) {
            return Err(InvalidDocument("ticket is not a ticket".to_owned()));
        }
        Document::from_json(TokenDocumentJson {
            appid,
            access_token: ticket,
            expires_in,
            created_at,
        })
    }

    fn from_json(json: TokenDocumentJson<'_>) -> Result<Document, InvalidDocument> {
        let expires_in = parse_lifetime(json.expires_in)
            .ok_or_else(|| InvalidDocument(format!("expires_in is not in 1…{MAX_EXPIRES_IN}")))?;
        let created_at = parse_rfc3339(&json.created_at)
            .ok_or_else(|| InvalidDocument("created_at is not an RFC 3339 time".to_owned()))?;
        let token = Secret::new(json.access_token.into_owned());
        Ok(Document { appid: json.appid, token, expires_in, created_at })
    }

    /// Returns the document of this kind as one line of JSON.
    pub(crate) fn to_line(&self, kind: &DocumentKind) -> Secret {
        let appid = self.appid.clone();
        let token = self.token.expose().into();
        let (expires_in, created_at) = (self.expires_in.as_secs(), self.created_at_rfc3339());
        let line = match kind {
            DocumentKind::Token => serde_json::to_string(&TokenDocumentJson {
                appid,
                access_token: token,
                expires_in,
                created_at,
            }),
            DocumentKind::Ticket(_) => serde_json::to_string(&TicketDocumentJson {
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

    /// Returns the lifetime left: within `[0, expires_in]`, whatever the clock says.
    pub(crate) fn left(&self, now: UtcDateTime) -> Duration {
        let age = now - self.created_at;
        self.expires_in.saturating_sub(age.try_into().unwrap_or(Duration::ZERO)) // From the future: age 0.
    }

    /// Returns the document to publish if WeChat may have issued another token at `asked_at` that was not received: it
    /// expires one overlap later. `None` if it expires by then anyway. Never extends the lifetime, and never ends it at
    /// once.
    pub(crate) fn shortened_to_overlap(&self, asked_at: UtcDateTime) -> Option<Document> {
        if self.left(asked_at) <= CLASSIC_OVERLAP {
            return None;
        }
        // A document from the future would not age until its `created_at`.
        let created_at = self.created_at.min(whole_seconds(asked_at));
        let age = Duration::try_from(asked_at - created_at).unwrap_or_default();
        let expires_in = Duration::from_secs((age + CLASSIC_OVERLAP).as_secs());
        let expires_in = expires_in.min(self.expires_in);
        Some(Document { expires_in, created_at, ..self.clone() })
    }

    /// Caps the lifetime so that this document expires no later than `before`, which holds the same token. For APIs that
    /// state a full lifetime with every answer. `None` if `before` is as good as expired.
    pub(crate) fn capped_by(self, before: &Document, now: UtcDateTime) -> Option<Document> {
        if before.left(now) < MIN_LIFETIME {
            return None;
        }
        let left = Duration::from_secs(before.left(self.created_at).as_secs());
        Some(Document { expires_in: self.expires_in.min(left), ..self })
    }

    /// Raises `created_at` to at least the one given, and keeps the time of expiry. For a replacement that must not be
    /// older than the document it replaces.
    pub(crate) fn with_created_at_least(&self, created_at: UtcDateTime) -> Document {
        let created_at = self.created_at.max(created_at);
        let moved = (created_at - self.created_at).try_into().unwrap_or_default();
        let expires_in = self.expires_in.saturating_sub(moved).max(Duration::from_secs(1));
        Document { created_at, expires_in, ..self.clone() }
    }

    /// Whether this document stems from a later answer of WeChat than `before`. A document that was only shortened by
    /// [`Document::shortened_to_overlap`], or restored, does not.
    pub(crate) fn is_newer_answer_than(&self, before: &Document) -> bool {
        self.token != before.token || self.created_at > before.created_at
    }

    /// Whether the next token is to be requested.
    pub(crate) fn is_due(&self, now: UtcDateTime, refresh_before: Duration) -> bool {
        self.is_from_future(now) || self.left(now) <= refresh_before
    }

    /// Whether `created_at` is so far ahead that one of the two clocks was wrong, and the age is meaningless.
    pub(crate) fn is_from_future(&self, now: UtcDateTime) -> bool {
        self.created_at - now > MAX_CLOCK_SKEW
    }

    /// Returns the lifetime left at which this document, a ticket's, is due. WeChat returns the same ticket while it lives,
    /// and `expires_in` is what was left then: only after half of that can another request bring a longer lifetime.
    pub(crate) fn ticket_margin(&self, refresh_before: Duration) -> Duration {
        refresh_before.min(self.expires_in / 2)
    }

    /// Whether a mirror has to ask its source again, where the token may have been replaced since.
    pub(crate) fn is_stale(&self, now: UtcDateTime) -> bool {
        self.time_until_stale(now).is_zero()
    }

    /// Returns how long a mirror may still rely on this document.
    pub(crate) fn time_until_stale(&self, now: UtcDateTime) -> Duration {
        let age = now - self.created_at;
        if age < -MAX_CLOCK_SKEW {
            return Duration::ZERO;
        }
        let age = Duration::try_from(age).unwrap_or_default(); // From the future: age 0.
        FRESH.saturating_sub(age).min(self.left(now))
    }

    /// Returns the lifetime that may be promised to a client that receives the token now: it works that long unless
    /// another program invalidates it. Rounded down to whole seconds; zero means that there is no token to hand out.
    pub(crate) fn promise(
        &self,
        now: UtcDateTime,
        rules: Rules,
        refresh_before: Duration,
    ) -> Duration {
        let left = self.left(now);
        let promise = match rules {
            // What a mirror received is a promise already.
            Rules::Stable | Rules::Work | Rules::Mirror => left,
            // The next `fetch` may replace it as soon as it is due; then it lives on for the overlap only.
            Rules::Classic => left.min(left.saturating_sub(refresh_before) + CLASSIC_OVERLAP),
        };
        Duration::from_secs(promise.as_secs())
    }

    /// Returns `created_at` as RFC 3339 in UTC.
    pub(crate) fn created_at_rfc3339(&self) -> String {
        rfc3339(self.created_at)
    }

    /// Returns the time of expiry as RFC 3339 in UTC.
    pub(crate) fn expires_at_rfc3339(&self) -> String {
        rfc3339(self.expires_at())
    }

    /// Returns the time of expiry.
    pub(crate) fn expires_at(&self) -> UtcDateTime {
        self.created_at.saturating_add(time::Duration::seconds(self.expires_in.as_secs() as i64))
    }
}

/// Only the kind and place of an error: serde_json's own message quotes what it did not expect.
fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, InvalidDocument> {
    serde_json::from_slice(bytes).map_err(|err| {
        let what = match err.classify() {
            _ if bytes.is_empty() => return InvalidDocument("it is empty".to_owned()),
            serde_json::error::Category::Eof => "it ends too soon",
            serde_json::error::Category::Data => "a field is missing or of the wrong type",
            _ => "it is not JSON",
        };
        InvalidDocument(format!("{what} (line {}, column {})", err.line(), err.column()))
    })
}

/// Returns the time without its fraction of a second, as it is written.
pub(crate) fn whole_seconds(at: UtcDateTime) -> UtcDateTime {
    at.replace_nanosecond(0).unwrap_or(at) // 0 is in range.
}

/// Formats a time as RFC 3339 in UTC.
pub(crate) fn rfc3339(at: UtcDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string()) // Only a year beyond 9999 has no RFC 3339 form.
}

/// Parses an RFC 3339 time of a year in which this program may be run.
pub(crate) fn parse_rfc3339(text: &str) -> Option<UtcDateTime> {
    // Not UtcDateTime::parse, which panics on 9999-12-31T23:59:59-23:59.
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?.checked_to_utc()?;
    (1970..=9000).contains(&at.year()).then_some(at)
}

/// Whether `text` can be a token: non-empty printable ASCII without spaces, at most 2 KiB.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns an `expires_in` as a duration if it is credible: one second to one day.
pub(crate) fn parse_lifetime(secs: u64) -> Option<Duration> {
    (1..=MAX_EXPIRES_IN).contains(&secs).then(|| Duration::from_secs(secs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kind::TicketType;

    const MARGIN: Duration = Duration::from_secs(300);

    fn at(text: &str) -> UtcDateTime {
        UtcDateTime::parse(text, &Rfc3339).unwrap()
    }

    fn document_created_at(text: &str) -> Document {
        Document::new("wx1", Secret::new("T1".to_owned()), Duration::from_secs(7200), at(text))
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn raising_created_at_keeps_the_time_of_expiry() {
        let document = document_created_at("2026-11-22T05:34:46Z");
        let raised = document.with_created_at_least(at("2026-11-22T05:35:16Z"));
        assert_eq!(raised.created_at_rfc3339(), "2026-11-22T05:35:16Z");
        assert_eq!(raised.expires_at_rfc3339(), document.expires_at_rfc3339());
        assert_eq!(document.with_created_at_least(at("2026-11-22T05:34:45Z")), document);
        let at_least_a_second = document.with_created_at_least(at("2026-12-01T00:00:00Z"));
        assert_eq!(at_least_a_second.expires_in, secs(1));
    }

    #[test]
    fn a_document_is_parsed_as_it_was_written() {
        let document = document_created_at("2026-11-22T05:34:46.987654321Z");
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
    fn unknown_fields_are_ignored_and_any_utc_offset_is_accepted() {
        let parsed = Document::parse_token(
            br#"{"v":2,"created_at":"2026-11-22T13:34:46+08:00","expires_in":7200,"access_token":"T1","appid":"wx1"}"#,
        );
        assert_eq!(parsed, Ok(document_created_at("2026-11-22T05:34:46Z")));
    }

    #[test]
    fn a_tickets_document_is_no_tokens_and_the_reverse() {
        let rest = r#""expires_in":7200,"created_at":"2026-11-22T05:34:46Z","appid":"wx1"}"#;
        let ticket = format!(r#"{{"ticket":"T1",{rest}"#);
        assert_eq!(
            Document::parse_ticket(ticket.as_bytes()),
            Ok(document_created_at("2026-11-22T05:34:46Z"))
        );
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
            let err = Document::parse_ticket(wrong.as_bytes()).unwrap_err().to_string();
            assert!(!err.contains("S3CR3T"), "{err}");
        }
    }

    #[test]
    fn errors_about_invalid_documents_quote_nothing_of_them() {
        let whole = document_created_at("2026-11-22T05:34:46Z").to_line(&DocumentKind::Token);
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
            let err = Document::parse_token(wrong.as_bytes()).unwrap_err().to_string();
            assert!(!err.contains("S3CR3T"), "{err}");
        }
    }

    #[test]
    fn a_token_is_due_exactly_at_the_margin() {
        let document = document_created_at("2026-11-22T00:00:00Z");
        assert!(!document.is_due(at("2026-11-22T01:54:59Z"), MARGIN));
        assert!(document.is_due(at("2026-11-22T01:55:00Z"), MARGIN));
        assert!(document.is_due(at("2026-11-23T00:00:00Z"), MARGIN));
    }

    #[test]
    fn a_token_from_the_future_is_due_and_its_lifetime_stays_within_expires_in() {
        let document = document_created_at("2026-11-22T00:00:00Z");
        assert!(
            !document.is_due(at("2026-11-21T23:59:00Z"), MARGIN),
            "a minute of skew is no news"
        );
        assert!(document.is_due(at("2026-11-21T23:58:59Z"), MARGIN));
        assert_eq!(document.left(at("2020-01-01T00:00:00Z")), secs(7200));
        assert_eq!(document.left(at("9999-01-01T00:00:00Z")), secs(0));
    }

    #[test]
    fn a_promise_is_rounded_down_to_seconds() {
        let document = document_created_at("2026-11-22T00:00:00Z");
        let promise = |now| document.promise(at(now), Rules::Stable, MARGIN);
        assert_eq!(promise("2026-11-22T00:00:00.1Z"), secs(7199));
        assert_eq!(promise("2026-11-22T01:59:58.9Z"), secs(1));
        assert_eq!(promise("2026-11-22T01:59:59.1Z"), secs(0), "less than a second is no token");
    }

    #[test]
    fn a_classic_token_is_promised_capped_by_an_early_refresh_lets_it_live() {
        let document = document_created_at("2026-11-22T00:00:00Z");
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
    fn a_token_that_may_have_been_replaced_expires_within_the_overlap() {
        let document = document_created_at("2026-11-22T00:00:00Z");
        for (asked_at, expires_in) in [
            ("2026-11-22T00:00:00Z", Some(300)),
            ("2026-11-22T00:00:00.9Z", Some(300)),
            ("2026-11-22T01:00:00Z", Some(3900)),
            ("2026-11-22T01:00:00.9Z", Some(3900)),
            ("2026-11-22T01:54:59Z", Some(7199)),
            // It expires by then anyway.
            ("2026-11-22T01:55:00Z", None),
            ("2026-11-22T01:59:59Z", None),
            ("2026-11-22T03:00:00Z", None),
        ] {
            let cut = document.shortened_to_overlap(at(asked_at));
            assert_eq!(cut.as_ref().map(|cut| cut.expires_in.as_secs()), expires_in, "{asked_at}");
            let Some(cut) = cut else { continue };
            assert_eq!((&cut.token, cut.created_at), (&document.token, document.created_at));
            assert!(cut.expires_at() <= at(asked_at) + CLASSIC_OVERLAP, "{asked_at}");
            assert!(cut.left(at(asked_at)) > secs(298), "not at once: {asked_at}");
            assert_eq!(cut.shortened_to_overlap(at(asked_at)), None, "not twice: {asked_at}");
            assert!(!cut.is_newer_answer_than(&document) && !document.is_newer_answer_than(&cut));
        }
    }

    #[test]
    fn shortening_a_token_from_the_future_moves_created_at_back() {
        let short =
            Document { expires_in: secs(200), ..document_created_at("2026-11-22T00:00:00Z") };
        let hour_before = at("2026-11-21T23:00:00.5Z");
        assert_eq!(short.shortened_to_overlap(hour_before), None);
        let cut =
            document_created_at("2026-11-22T00:00:00Z").shortened_to_overlap(hour_before).unwrap();
        assert_eq!(
            (cut.created_at_rfc3339(), cut.expires_in.as_secs()),
            ("2026-11-21T23:00:00Z".to_owned(), 300)
        );
        assert!(!cut.is_newer_answer_than(&document_created_at("2026-11-22T00:00:00Z")));
    }

    #[test]
    fn a_later_answer_is_newer_and_a_changed_lifetime_alone_is_not() {
        let before = document_created_at("2026-11-22T00:00:00Z");
        assert!(!before.is_newer_answer_than(&before));
        assert!(!Document { expires_in: secs(9), ..before.clone() }.is_newer_answer_than(&before));
        assert!(document_created_at("2026-11-22T00:00:01Z").is_newer_answer_than(&before));
        let another = Document { token: Secret::new("T2".to_owned()), ..before.clone() };
        assert!(another.is_newer_answer_than(&before));
    }

    #[test]
    fn the_same_token_again_is_capped_by_its_first_lifetime() {
        let before = document_created_at("2026-11-22T00:00:00Z");
        let again = |asked_at, expires_in| {
            let again = Document { expires_in: secs(expires_in), ..document_created_at(asked_at) };
            again.capped_by(&before, at(asked_at)).map(|document| document.expires_at_rfc3339())
        };
        let ends = |text: &str| Some(text.to_owned());
        assert_eq!(again("2026-11-22T01:00:00Z", 7200), ends("2026-11-22T02:00:00Z"));
        assert_eq!(again("2026-11-22T01:00:00Z", 1800), ends("2026-11-22T01:30:00Z"));
        assert_eq!(again("2026-11-22T01:59:58Z", 7200), ends("2026-11-22T02:00:00Z"));
        assert_eq!(again("2026-11-22T01:59:58.1Z", 7200), None);
        assert_eq!(again("2026-11-22T02:00:00Z", 7200), None);
        assert_eq!(again("2026-11-22T09:00:00Z", 7200), None);
        // A clock that was set back does not extend it either.
        assert_eq!(again("2026-11-21T00:00:00Z", 86_400), ends("2026-11-21T02:00:00Z"));
    }
}
