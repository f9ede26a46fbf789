//! The published document: its JSON form, and what its token is worth at a given instant: the lifetime left, whether it
//! is due, and the lifetime that may be promised. A ticket's document differs only in one field name. No clock and no
//! I/O; `now` is an argument.

pub(crate) mod faults;
mod json;
mod wall_time;

use std::time::Duration;

use time::UtcDateTime;

use self::faults::{FieldFault, InvalidDocument};
use crate::model::api::Rules;
use crate::model::kind::DocumentKind;
use crate::model::secret::Secret;
use crate::os::timestamp::{BootId, MAX_CLOCK_SKEW, Timestamp, Uptime};
use crate::sabotage::{Bug, has_bug};

use self::json::{TicketDocumentJson, TokenDocumentJson, parse_json};
pub(crate) use self::wall_time::{parse_rfc3339, rfc3339, whole_seconds};

/// How long WeChat's classic API keeps a token valid after it has issued the next one.
/// <https://developers.weixin.qq.com/doc/oplatform/developers/dev/AccessToken.html>
pub(crate) const CLASSIC_OVERLAP: Duration = Duration::from_secs(300);

/// What is promised for a token that was put back. A refresh that was under way when the place lost its documents publishes
/// its token within the minute that is missing to the overlap.
const PUT_BACK_PROMISE: Duration = CLASSIC_OVERLAP.saturating_sub(Duration::from_secs(60));

/// What is promised at a time for a token that another host may have replaced, or not.
const UNCERTAIN_PROMISE: Duration = Duration::from_secs(1);

/// How long a mirror relies on the last answer. A token replaced at the source is picked up within this time, and a cron
/// job that runs every minute asks every time.
pub(crate) const FRESH: Duration = Duration::from_secs(30);

/// The difference between two times of expiry that can come from rounding and from what the calls took.
const SAME_TIME: time::Duration = time::Duration::seconds(3);

/// What two instants are off by that are kept in whole milliseconds. A lifetime would lose a second by it, at each answer with
/// the same token.
const ROUNDING: Duration = Duration::from_millis(2);

/// A token with less lifetime left would expire before its first use.
const MIN_LIFETIME: Duration = Duration::from_secs(2);

/// Maximum length of a token in bytes; WeChat asks to reserve 512.
pub(crate) const MAX_TOKEN: usize = 2048;

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
    /// The instant *before* the request was sent, rounded down to whole seconds: WeChat's count began later. By the
    /// machine's clock as well, so that the age is known there whatever the wall clock is set to.
    pub(crate) created_at: Timestamp,
    /// Whether the place lost this document and got it back from a copy. It may also have lost that another token was
    /// minted.
    pub(crate) is_put_back: bool,
    pub(crate) provenance: Provenance,
}

/// Where a document was read. Says nothing of what is in it: any two are equal.
#[derive(Clone, Copy, Debug, Default, Eq)]
pub(crate) struct Provenance {
    /// When its file was written, by the clock of the machine that has it.
    written_at: Option<UtcDateTime>,
    /// When its place was known last to have it, if that cannot be reached and this is a copy.
    in_force_at: Option<Timestamp>,
}

impl PartialEq for Provenance {
    fn eq(&self, _: &Provenance) -> bool {
        true
    }
}

impl Document {
    /// Returns a document for a token that was requested at `asked_at`.
    pub(crate) fn new(
        appid: &str,
        token: Secret,
        expires_in: Duration,
        asked_at: Timestamp,
    ) -> Document {
        let created_at = asked_at.whole_seconds();
        let appid = appid.to_owned();
        let provenance = Provenance::default();
        Document { appid, token, expires_in, created_at, is_put_back: false, provenance }
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
            return Err(FieldFault::Token.error());
        }
        Document::from_json(json)
    }

    fn parse_ticket(bytes: &[u8]) -> Result<Document, InvalidDocument> {
        let json: TicketDocumentJson<'_> = parse_json(bytes)?;
        if json.access_token.is_some() {
            return Err(FieldFault::TokenForTicket.error());
        }
        if !is_token(&json.ticket) {
            return Err(FieldFault::Ticket.error());
        }
        Document::from_json(TokenDocumentJson {
            appid: json.appid,
            access_token: json.ticket,
            expires_in: json.expires_in,
            created_at: json.created_at,
            boot_id: json.boot_id,
            boottime: json.boottime,
            put_back: json.put_back,
        })
    }

    fn from_json(json: TokenDocumentJson<'_>) -> Result<Document, InvalidDocument> {
        let expires_in = parse_lifetime(json.expires_in).ok_or_else(|| FieldFault::Life.error())?;
        let wall = parse_rfc3339(&json.created_at).ok_or_else(|| FieldFault::Time.error())?;
        let uptime = json.boot_id.zip(json.boottime).and_then(|(boot, secs)| {
            let elapsed = Duration::try_from_secs_f64((secs * 1000.0).round() / 1000.0).ok()?;
            Some(Uptime::new(BootId::parse(&boot)?, elapsed))
        });
        let token = Secret::new(json.access_token.into_owned());
        // As this program writes it. That of another one may have a fraction.
        let created_at = Timestamp { wall, uptime }.whole_seconds();
        let is_put_back = json.put_back == Some(true);
        let (appid, provenance) = (json.appid, Provenance::default());
        Ok(Document { appid, token, expires_in, created_at, is_put_back, provenance })
    }

    /// Returns the document as it stands in a file that was written at `at`, if that is known.
    pub(crate) fn written_at(self, at: Option<UtcDateTime>) -> Document {
        Document { provenance: Provenance { written_at: at, ..self.provenance }, ..self }
    }

    /// Returns the document as a copy whose place cannot be reached, and was known last to have it at `at`; if that is not known,
    /// when the copy was written.
    pub(crate) fn cut_off_since(self, at: Option<Timestamp>) -> Document {
        let written = self.provenance.written_at.map(|wall| Timestamp { wall, uptime: None });
        let in_force_at = at.or(written).or(Some(self.created_at));
        Document { provenance: Provenance { in_force_at, ..self.provenance }, ..self }
    }

    /// Returns the document of this kind as one line of JSON.
    pub(crate) fn to_line(&self, kind: &DocumentKind) -> Secret {
        let appid = self.appid.clone();
        let token = self.token.expose().into();
        let (expires_in, created_at) = (self.expires_in.as_secs(), rfc3339(self.created_at.wall));
        let uptime = self.created_at.uptime;
        let boot_id = uptime.map(|it| it.boot.to_string());
        let put_back = self.is_put_back.then_some(true);
        let boottime = uptime.map(|it| it.elapsed.as_millis() as f64 / 1000.0);
        let line = match kind {
            DocumentKind::Token => serde_json::to_string(&TokenDocumentJson {
                appid,
                access_token: token,
                expires_in,
                created_at,
                boot_id,
                boottime,
                put_back,
            }),
            DocumentKind::Ticket(_) => serde_json::to_string(&TicketDocumentJson {
                appid,
                ticket: token,
                access_token: None,
                expires_in,
                created_at,
                boot_id,
                boottime,
                put_back,
            }),
        };
        let mut line = line.unwrap_or_default(); // Strings and a number always serialize.
        line.push('\n');
        Secret::new(line)
    }

    /// Returns the lifetime left: within `[0, expires_in]`, whatever the clock says. Of a document from the future it is
    /// what every refresh leaves a token that lives, until the life is over that it can have had when its file was written.
    pub(crate) fn left(&self, now: Timestamp) -> Duration {
        match self.is_from_future(now) {
            true => self.left_since(self.provenance.written_at, now),
            false => self.stated_left(now),
        }
    }

    /// Returns the lifetime left of a document from the future that was there at `at`, if that is known.
    fn left_since(&self, at: Option<UtcDateTime>, now: Timestamp) -> Duration {
        let age = at.and_then(|at| Duration::try_from(now.wall - at).ok()).unwrap_or_default();
        self.expires_in.saturating_sub(age).min(CLASSIC_OVERLAP)
    }

    /// Returns what is left of the stated lifetime: all of it, of a document from the future.
    fn stated_left(&self, now: Timestamp) -> Duration {
        self.expires_in.saturating_sub(self.age(now))
    }

    /// Returns the age; zero for a document from the future.
    fn age(&self, now: Timestamp) -> Duration {
        now.since(self.created_at).try_into().unwrap_or_default()
    }

    /// Returns the document as a copy that is in force because its place has lost it.
    pub(crate) fn put_back(self) -> Document {
        let provenance = Provenance { in_force_at: None, ..self.provenance };
        Document { is_put_back: true, provenance, ..self }
    }

    /// Returns the document to publish if WeChat may have issued another token at `asked_at` that was not received: it
    /// expires one overlap later, by every clock. `None` if it expires by then anyway. Never extends the lifetime, and never
    /// ends it at once.
    pub(crate) fn shortened_to_overlap(&self, asked_at: Timestamp) -> Option<Document> {
        self.shortened_to(CLASSIC_OVERLAP, asked_at)
    }

    /// Returns the document to publish if WeChat says that its token is dead: it has expired, by every clock, or has less
    /// than a second left. `None` if that is so anyway.
    pub(crate) fn ended(&self, now: Timestamp) -> Option<Document> {
        self.shortened_to(Duration::ZERO, now)
    }

    /// Returns the document with this much life left, in whole seconds; `None` if it has no more anyway.
    fn shortened_to(&self, left: Duration, now: Timestamp) -> Option<Document> {
        if self.stated_left(now) <= left || self.left(now).is_zero() {
            return None;
        }
        let left = left.min(self.left(now));
        // A document from the future would not age until its `created_at`.
        let created_at = match now.since(self.created_at).is_negative() {
            true => now.whole_seconds(),
            false => {
                let wall = self.created_at.wall_by_clock_of(now).min(self.created_at.wall);
                Timestamp { wall, ..self.created_at }
            }
        };
        let age = Duration::try_from(now.since(created_at)).unwrap_or_default();
        let left = if has_bug(Bug::ShortenedToNothing) { Duration::ZERO } else { left };
        // A document states a second at least.
        let expires_in = Duration::from_secs((age + left).as_secs().max(1));
        let expires_in = expires_in.min(self.expires_in);
        Some(Document { expires_in, created_at, ..self.clone() })
    }

    /// Returns the document to publish if WeChat may have issued another token at some time since `at`: it expires no later than
    /// one overlap after that.
    pub(crate) fn replaceable_from(self, at: Timestamp) -> Document {
        let end = at.plus(CLASSIC_OVERLAP).since(self.created_at);
        let life = Duration::try_from(end).unwrap_or_default().as_secs();
        // A document states a second at least.
        Document { expires_in: self.expires_in.min(Duration::from_secs(life.max(1))), ..self }
    }

    /// Caps the lifetime so that this document expires no later than `before`, which holds the same token. For APIs that
    /// state a full lifetime with every answer. `None` if `before` is as good as expired.
    pub(crate) fn capped_by(self, before: &Document, now: Timestamp) -> Option<Document> {
        if before.stated_left(now) < MIN_LIFETIME {
            return None;
        }
        let left = before.stated_left(self.created_at) + ROUNDING;
        let left = Duration::from_secs(left.as_secs());
        Some(Document { expires_in: self.expires_in.min(left), ..self })
    }

    /// Raises `created_at` to at least the one given, and keeps the time of expiry. For a replacement that must not be
    /// older than the document it replaces.
    pub(crate) fn with_created_at_least(&self, created_at: UtcDateTime) -> Document {
        let moved = (created_at - self.created_at.wall).try_into().unwrap_or_default();
        let created_at = self.created_at.plus(moved);
        let expires_in = self.expires_in.saturating_sub(moved).max(Duration::from_secs(1));
        Document { created_at, expires_in, ..self.clone() }
    }

    /// Whether this document stems from a later answer of WeChat than `before`. A document that was only shortened by
    /// [`Document::shortened_to_overlap`], or restored, does not.
    pub(crate) fn is_newer_answer_than(&self, before: &Document) -> bool {
        self.token != before.token || self.created_at.is_after(before.created_at)
    }

    /// Whether this document stems from a later instant than `other`, as far as the clocks tell. Which host's clock was
    /// wrong is not known of a document from the future: it is not later.
    pub(crate) fn is_later_than(&self, other: &Document, now: Timestamp) -> bool {
        self.created_at.is_after(other.created_at) && !self.is_from_future(now)
    }

    /// Whether the next token is to be requested.
    pub(crate) fn is_due(&self, now: Timestamp, rules: Rules, refresh_before: Duration) -> bool {
        // Of two clocks that contradict each other either may be right. To ask costs nothing but on classic, where it would
        // invalidate the token.
        let is_doubtful = rules != Rules::Classic && now.has_jumped_ahead_since(self.created_at);
        let is_unconfirmed = rules == Rules::Stable && self.is_put_back;
        is_doubtful
            || is_unconfirmed
            || self.is_from_future(now)
            || self.left(now) <= refresh_before && !has_bug(Bug::MarginIgnored)
            || self.left(now).is_zero()
    }

    /// Whether `created_at` is so far ahead that one of the two clocks was wrong, and the age is not known.
    pub(crate) fn is_from_future(&self, now: Timestamp) -> bool {
        now.since(self.created_at) < -MAX_CLOCK_SKEW
    }

    /// Returns the lifetime left at which this document, a ticket's, is due. WeChat returns the same ticket while it lives,
    /// and `expires_in` is what was left then: only after half of that can another request bring a longer lifetime.
    pub(crate) fn ticket_margin(&self, refresh_before: Duration) -> Duration {
        refresh_before.min(self.expires_in / 2)
    }

    /// Whether this document, of a new answer, says nothing that `published` does not: the same token, which ends at the same
    /// time but for what the calls took. Once no more than the overlap is left, a time that is a little earlier counts: the
    /// token may have been replaced at its source.
    pub(crate) fn adds_nothing_to(&self, published: &Document, now: Timestamp) -> bool {
        let boot = |document: &Document| document.created_at.uptime.map(|uptime| uptime.boot);
        let is_alike = (&self.token, &self.appid) == (&published.token, &published.appid)
            && boot(self) == boot(published)
            && self.is_put_back == published.is_put_back
            && !published.is_from_future(now)
            // It would stay doubtful, and WeChat would be asked again and again.
            && !now.has_jumped_ahead_since(published.created_at);
        let later = self.expires_at(now) - published.expires_at(now);
        let earliest = match self.left(now) > CLASSIC_OVERLAP {
            true => -SAME_TIME,
            false => time::Duration::ZERO,
        };
        is_alike && later >= earliest && later <= SAME_TIME
    }

    /// Whether a mirror has to ask its source again, where the token may have been replaced since.
    pub(crate) fn is_stale(&self, now: Timestamp) -> bool {
        self.time_until_stale(now).is_zero()
    }

    /// Returns how long a mirror may still rely on this document.
    pub(crate) fn time_until_stale(&self, now: Timestamp) -> Duration {
        if self.is_from_future(now) || now.has_jumped_ahead_since(self.created_at) {
            return Duration::ZERO;
        }
        FRESH.saturating_sub(self.age(now)).min(self.left(now))
    }

    /// Returns the lifetime that may be promised to a client that receives the token now: it works that long unless
    /// another program invalidates it. Rounded down to whole seconds; zero means that there is no token to hand out.
    pub(crate) fn promise(
        &self,
        now: Timestamp,
        rules: Rules,
        refresh_before: Duration,
    ) -> Duration {
        let left = self.left(now);
        let promise = match rules {
            // What a mirror received is a promise already.
            Rules::Stable | Rules::Work | Rules::Mirror => left,
            Rules::Classic if has_bug(Bug::WholeLifePromisedOnClassic) => left,
            // The next `fetch` may replace it as soon as it is due, or may have if the place cannot be reached; then it lives on
            // for the overlap only. A place that is down, where it stays in force, looks the same from here as one that others
            // reach.
            Rules::Classic => {
                let unseen = self.unseen_for(now);
                let until_due = (left + unseen).saturating_sub(refresh_before);
                let certain = (until_due + CLASSIC_OVERLAP).saturating_sub(unseen);
                left.min(certain.max(UNCERTAIN_PROMISE))
            }
        };
        // What was lost may be that the token is to end after the overlap.
        let is_replaceable =
            matches!(rules, Rules::Stable | Rules::Classic) && !has_bug(Bug::PutBackWithOldLife);
        let promise = match self.is_put_back && is_replaceable {
            true => promise.min(PUT_BACK_PROMISE),
            false => promise,
        };
        match has_bug(Bug::PromiseRoundedUp) {
            true => Duration::from_secs(promise.as_secs() + 1),
            false => Duration::from_secs(promise.as_secs()),
        }
    }

    /// Returns for how long it has not been known whether the document is in force. Zero if its place is reached.
    fn unseen_for(&self, now: Timestamp) -> Duration {
        let in_force_at = self.provenance.in_force_at;
        in_force_at.and_then(|at| Duration::try_from(now.since(at)).ok()).unwrap_or_default()
    }

    /// Returns when it was created, by the wall clock of `now`.
    pub(crate) fn created_at(&self, now: Timestamp) -> UtcDateTime {
        self.created_at.wall_by_clock_of(now)
    }

    /// Returns until when what is [left](Document::left) lasts, by the wall clock of `now`: the time of expiry, but for a document
    /// from the future.
    pub(crate) fn lasts_until(&self, now: Timestamp) -> UtcDateTime {
        match self.is_from_future(now) {
            true => now.wall.saturating_add(self.left(now).try_into().unwrap_or_default()),
            false => self.expires_at(now),
        }
    }

    /// Returns the time of expiry, by the wall clock of `now`.
    pub(crate) fn expires_at(&self, now: Timestamp) -> UtcDateTime {
        let expires_in = time::Duration::seconds(self.expires_in.as_secs() as i64);
        self.created_at(now).saturating_add(expires_in)
    }
}

/// Whether a mirror may still rely on an answer of `at`.
pub(crate) fn is_recent(at: UtcDateTime, now: UtcDateTime) -> bool {
    let age = now - at;
    age >= -MAX_CLOCK_SKEW && age < FRESH
}

/// Whether `text` can be a token: non-empty printable ASCII without spaces, at most 2 KiB.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether `text` can be a token that WeChat rejected, as a person or a client reports it: not the JSON that it came in.
pub(crate) fn is_bare_token(text: &str) -> bool {
    is_token(text) && !text.starts_with(['{', '"'])
}

/// Returns an `expires_in` as a duration if it is credible: one second to one day.
pub(crate) fn parse_lifetime(secs: u64) -> Option<Duration> {
    (1..=MAX_EXPIRES_IN).contains(&secs).then(|| Duration::from_secs(secs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kind::TicketType;
    use crate::os::timestamp::testing::instant;

    const MARGIN: Duration = Duration::from_secs(300);

    fn at(text: &str) -> Timestamp {
        Timestamp::of_wall(parse_rfc3339(text).unwrap())
    }

    fn document_created_at(text: &str) -> Document {
        Document::new("wx1", Secret::new("T1".to_owned()), Duration::from_secs(7200), at(text))
    }

    /// The time of expiry, for documents of which only the time by the wall clock is known.
    fn expiry(document: &Document) -> UtcDateTime {
        document.expires_at(document.created_at)
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn raising_created_at_keeps_the_time_of_expiry() {
        let document = document_created_at("2026-11-22T05:34:46Z");
        let raised = document.with_created_at_least(at("2026-11-22T05:35:16Z").wall);
        assert_eq!(raised.created_at, at("2026-11-22T05:35:16Z"));
        assert_eq!(expiry(&raised), expiry(&document));
        assert_eq!(document.with_created_at_least(at("2026-11-22T05:34:45Z").wall), document);
        let at_least_a_second = document.with_created_at_least(at("2026-12-01T00:00:00Z").wall);
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
    fn a_fraction_of_a_second_is_dropped_where_a_document_is_read() {
        let line = document_created_at("2026-11-22T05:34:46Z").to_line(&DocumentKind::Token);
        let with_fraction = line.expose().replace("46Z", "46.75Z");
        let read = Document::parse_token(with_fraction.as_bytes()).unwrap();
        assert_eq!(read.created_at, at("2026-11-22T05:34:46Z"));
        assert_eq!(read.to_line(&DocumentKind::Token), line);
    }

    #[test]
    fn the_machines_clock_is_written_and_read_and_what_is_not_it_is_ignored() {
        let asked_at = instant(10_000, 0x38bc_f4e1, 500).plus(Duration::from_millis(1250));
        let document = Document::new("wx1", Secret::new("T1".to_owned()), secs(7200), asked_at);
        let line = document.to_line(&DocumentKind::Token);
        let fields = r#","boot_id":"00000000-0000-0000-0000-000038bcf4e1","boottime":501.0}"#;
        assert!(line.expose().trim_end().ends_with(fields), "{}", line.expose());
        assert_eq!(Document::parse_token(line.expose().as_bytes()), Ok(document.clone()));
        for uptime in [0.001, 12_345.678, 31_536_000.999] {
            let elapsed = Duration::from_secs_f64(uptime);
            let boot = BootId::parse("38bcf4e1-95ec-4780-b34b-6460bb9b439b").unwrap();
            let created_at =
                Timestamp { uptime: Some(Uptime::new(boot, elapsed)), ..document.created_at };
            let document = Document { created_at, ..document.clone() };
            let line = document.to_line(&DocumentKind::Token);
            assert!(line.expose().contains(&format!("\"boottime\":{uptime}")), "{}", line.expose());
            assert_eq!(Document::parse_token(line.expose().as_bytes()), Ok(document));
        }
        let without = Document {
            created_at: Timestamp::of_wall(document.created_at.wall),
            ..document.clone()
        };
        for (ours, theirs) in [
            ("501.0", "null"),
            ("501.0", "-1"),
            ("501.0", "1e300"),
            ("501.0", "\"x\""),
            ("\"00000000-0000-0000-0000-000038bcf4e1\"", "7"),
            ("\"00000000-0000-0000-0000-000038bcf4e1\"", "[{}]"),
            ("00000000-", "0-"),
        ] {
            let other = line.expose().replace(ours, theirs);
            assert_eq!(Document::parse_token(other.as_bytes()), Ok(without.clone()), "{other}");
        }
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
        assert!(!document.is_due(at("2026-11-22T01:54:59Z"), Rules::Stable, MARGIN));
        assert!(document.is_due(at("2026-11-22T01:55:00Z"), Rules::Stable, MARGIN));
        assert!(document.is_due(at("2026-11-23T00:00:00Z"), Rules::Stable, MARGIN));
    }

    #[test]
    fn a_token_from_the_future_is_due_and_is_good_for_one_overlap_at_most() {
        let document = document_created_at("2026-11-22T00:00:00Z");
        assert!(
            !document.is_due(at("2026-11-21T23:59:00Z"), Rules::Stable, MARGIN),
            "a minute of skew is no news"
        );
        assert!(document.is_due(at("2026-11-21T23:58:59Z"), Rules::Stable, MARGIN));
        assert_eq!(document.left(at("2026-11-21T23:59:00Z")), secs(7200));
        assert_eq!(document.left(at("2026-11-21T23:58:59Z")), CLASSIC_OVERLAP);
        assert_eq!(document.left(at("2020-01-01T00:00:00Z")), CLASSIC_OVERLAP);
        assert_eq!(document.left(at("9000-01-01T00:00:00Z")), secs(0));
    }

    /// A document of 7200 s, requested at 10,000 s by the wall clock and 500 s after the start of the machine 1.
    fn document_with_uptime() -> Document {
        Document::new("wx1", Secret::new("T1".to_owned()), secs(7200), instant(10_000, 1, 500))
    }

    #[test]
    fn on_its_machine_a_token_ages_alike_whatever_the_wall_clock_is_set_to() {
        let document = document_with_uptime();
        for set_to in [0, 10_000, 13_600 - 1800, 13_600, 13_600 + 86_400] {
            let now = instant(set_to, 1, 4100);
            assert_eq!(document.left(now), secs(3600), "{set_to}");
            assert!(!document.is_from_future(now));
            assert_eq!(document.expires_at(now), now.wall + secs(3600), "{set_to}");
            assert!(!document.is_due(now, Rules::Classic, MARGIN), "{set_to}");
            let is_doubtful = set_to > 13_660;
            assert_eq!(document.is_due(now, Rules::Stable, MARGIN), is_doubtful, "{set_to}");
            assert!(document.left(instant(set_to, 1, 7700)).is_zero(), "{set_to}");
        }
        // Another machine, or the same one after it was restarted, has the wall clock only.
        assert_eq!(document.left(instant(13_600, 2, 4100)), secs(3600));
        assert_eq!(document.left(instant(9_000, 2, 4100)), CLASSIC_OVERLAP);
    }

    #[test]
    fn a_token_that_may_have_been_replaced_expires_within_the_overlap_by_every_clock() {
        for set_to in [0, 9_970, 10_000, 13_600 - 1800, 13_600, 13_600 + 86_400] {
            for machine in [1, 2] {
                let now = instant(set_to, machine, 4100);
                let cut = document_with_uptime().shortened_to_overlap(now);
                let Some(cut) = cut else {
                    assert!(machine == 2 && set_to == 13_600 + 86_400, "it has expired: {set_to}");
                    continue;
                };
                let by_wall = Timestamp::of_wall(now.wall);
                assert!((secs(299)..=CLASSIC_OVERLAP).contains(&cut.left(now)), "{set_to}");
                assert!(cut.left(by_wall) <= CLASSIC_OVERLAP, "{set_to} on {machine}");
                assert!(!cut.is_newer_answer_than(&document_with_uptime()), "{set_to}");
            }
        }
    }

    #[test]
    fn the_machines_clock_tells_which_document_is_later() {
        let old = document_with_uptime();
        let new = Document { created_at: instant(8_200, 1, 600), ..document_with_uptime() };
        for machine in [1, 2] {
            let now = instant(8_300, machine, 700);
            assert!(new.is_later_than(&old, now) && !old.is_later_than(&new, now), "{machine}");
            assert!(new.is_newer_answer_than(&old) && !old.is_newer_answer_than(&new));
        }
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
    fn a_copy_is_promised_for_the_overlap_after_the_token_was_due_or_its_place_was_reached() {
        let document = document_created_at("2026-11-22T00:00:00Z");
        let (hour, seen) = (secs(3600), |text| Some(at(text)));
        let promise = |document: &Document, now| document.promise(at(now), Rules::Classic, hour);
        // It was due at 01:00.
        let copy = document.clone().cut_off_since(seen("2026-11-22T00:30:00Z"));
        for (now, promised) in [
            ("2026-11-22T00:40:00Z", 1500),
            ("2026-11-22T01:00:00Z", 300),
            ("2026-11-22T01:04:00Z", 60),
            ("2026-11-22T01:05:00Z", 1),
            ("2026-11-22T01:59:58Z", 1),
            ("2026-11-22T02:00:00Z", 0),
        ] {
            assert_eq!(promise(&copy, now), secs(promised), "{now}");
            assert_eq!(copy.promise(at(now), Rules::Stable, hour), copy.left(at(now)));
        }
        let copy = document.clone().cut_off_since(seen("2026-11-22T01:30:00Z"));
        assert_eq!(promise(&copy, "2026-11-22T01:34:00Z"), secs(60));
        // When it is not known, the copy was written no later.
        let written = document.clone().written_at(parse_rfc3339("2026-11-22T01:10:00Z"));
        let copy = written.cut_off_since(None);
        assert_eq!(promise(&copy, "2026-11-22T01:12:00Z"), secs(180));
        assert_eq!(promise(&document.cut_off_since(None), "2026-11-22T01:04:00Z"), secs(60));
        assert_eq!(promise(&copy.put_back(), "2026-11-22T01:40:00Z"), secs(240), "it is reached");
    }

    #[test]
    fn a_token_of_which_the_lease_was_lost_ends_an_overlap_later() {
        let document = document_created_at("2026-11-22T00:00:10Z");
        let lost = |at_: &str| document.clone().replaceable_from(at(at_));
        assert_eq!(lost("2026-11-22T00:00:05.5Z").expires_in, secs(295));
        assert_eq!(lost("2026-11-22T00:00:05.5Z").created_at, document.created_at);
        assert_eq!(lost("2026-11-22T01:00:10Z").expires_in, secs(3900));
        assert_eq!(lost("2026-11-22T01:58:10Z").expires_in, secs(7200), "never longer");
        assert_eq!(lost("2026-11-21T00:00:00Z").expires_in, secs(1), "a second is the least");
    }

    #[test]
    fn what_is_put_back_is_promised_for_less_than_the_overlap_until_it_is_confirmed() {
        let document = document_created_at("2026-11-22T00:00:00Z").put_back();
        let line = document.to_line(&DocumentKind::Token);
        assert!(line.expose().ends_with(",\"put_back\":true}\n"));
        assert_eq!(Document::parse_token(line.expose().as_bytes()), Ok(document.clone()));
        let now = at("2026-11-22T00:30:00Z");
        for (rules, promise, is_due) in [
            (Rules::Classic, 240, false),
            (Rules::Stable, 240, true),
            (Rules::Work, 5400, false),
            (Rules::Mirror, 5400, false),
        ] {
            assert_eq!(document.promise(now, rules, MARGIN), secs(promise), "{rules:?}");
            assert_eq!(document.is_due(now, rules, MARGIN), is_due, "{rules:?}");
        }
        assert_eq!(document.promise(at("2026-11-22T01:59:00Z"), Rules::Classic, MARGIN), secs(60));
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
            assert!(expiry(&cut) <= at(asked_at).wall + CLASSIC_OVERLAP, "{asked_at}");
            assert!(cut.left(at(asked_at)) > secs(298), "not at once: {asked_at}");
            assert_eq!(cut.shortened_to_overlap(at(asked_at)), None, "not twice: {asked_at}");
            assert!(!cut.is_newer_answer_than(&document) && !document.is_newer_answer_than(&cut));
        }
    }

    #[test]
    fn a_token_from_the_future_outlives_no_life_that_began_when_its_file_was_written() {
        let document = document_created_at("2026-11-22T12:00:00Z");
        let now = at("2026-11-22T10:00:00Z");
        for (written, left) in [
            (None, 300),
            // The clock was wrong then.
            (Some("2026-11-22T12:00:01Z"), 300),
            (Some("2026-11-22T09:59:00Z"), 300),
            (Some("2026-11-22T08:01:00Z"), 60),
            (Some("2026-11-22T08:00:00Z"), 0),
            (Some("2026-11-20T00:00:00Z"), 0),
        ] {
            let document = document.clone().written_at(written.and_then(parse_rfc3339));
            assert_eq!(document.left(now), secs(left), "{written:?}");
            assert_eq!(document.promise(now, Rules::Classic, MARGIN), secs(left), "{written:?}");
            assert!(document.is_due(now, Rules::Classic, MARGIN));
            let cut = document.shortened_to_overlap(now);
            assert_eq!(cut.map(|cut| cut.left(now)), (left > 0).then_some(secs(left)));
            // When the clock has come so far, its age is known.
            assert_eq!(document.left(at("2026-11-22T12:00:00Z")), secs(7200));
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
        assert_eq!((cut.created_at, cut.expires_in.as_secs()), (at("2026-11-21T23:00:00Z"), 300));
        assert!(!cut.is_newer_answer_than(&document_created_at("2026-11-22T00:00:00Z")));
    }

    #[test]
    fn the_document_of_a_dead_token_promises_nothing_from_then_on_by_any_clock() {
        let document = document_created_at("2026-11-22T00:00:00Z");
        for now in ["2026-11-22T00:00:00Z", "2026-11-22T00:00:00.9Z", "2026-11-22T01:59:59Z"] {
            let ended = document.ended(at(now)).unwrap();
            // A token that was found dead in its first second is promised for the rest of that.
            let soon = at(now).plus(secs(u64::from(now.starts_with("2026-11-22T00:00:00"))));
            for rules in [Rules::Stable, Rules::Classic, Rules::Work, Rules::Mirror] {
                assert_eq!(ended.promise(soon, rules, MARGIN), Duration::ZERO, "{now}");
            }
            assert_eq!((&ended.token, ended.created_at), (&document.token, document.created_at));
            let line = ended.to_line(&DocumentKind::Token);
            let parsed = Document::parse(&DocumentKind::Token, line.expose().as_bytes());
            assert_eq!(parsed.as_ref(), Ok(&ended), "{now}");
            assert!(!ended.is_newer_answer_than(&document));
        }
        assert_eq!(document.ended(at("2026-11-22T02:00:00Z")), None);
        let day_before = at("2026-11-21T00:00:00Z");
        let ended = document.ended(day_before).unwrap();
        assert_eq!(ended.promise(day_before.plus(secs(1)), Rules::Stable, MARGIN), Duration::ZERO);
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
    fn the_answer_after_a_jump_of_the_wall_clock_is_published_and_settles_the_doubt() {
        let created_at = |wall, uptime, left| Document {
            created_at: instant(wall, 1, uptime),
            expires_in: secs(left),
            ..document_created_at("2026-11-22T00:00:00Z")
        };
        let published = created_at(10_000, 500, 7200);
        for (wall, is_jump) in [(11_000, false), (15_000, true)] {
            let now = instant(wall, 1, 1500);
            let again = created_at(wall, 1500, 6200);
            assert_eq!(published.is_due(now, Rules::Stable, MARGIN), is_jump);
            assert_eq!(again.adds_nothing_to(&published, now), !is_jump);
            assert!(!again.is_due(now, Rules::Stable, MARGIN));
        }
    }

    #[test]
    fn the_same_token_again_is_capped_by_its_first_lifetime() {
        let before = document_created_at("2026-11-22T00:00:00Z");
        let again = |asked_at, expires_in| {
            let again = Document { expires_in: secs(expires_in), ..document_created_at(asked_at) };
            again.capped_by(&before, at(asked_at)).map(|document| rfc3339(expiry(&document)))
        };
        let ends = |text: &str| Some(text.to_owned());
        assert_eq!(again("2026-11-22T01:00:00Z", 7200), ends("2026-11-22T02:00:00Z"));
        assert_eq!(again("2026-11-22T01:00:00Z", 1800), ends("2026-11-22T01:30:00Z"));
        assert_eq!(again("2026-11-22T01:59:58Z", 7200), ends("2026-11-22T02:00:00Z"));
        assert_eq!(again("2026-11-22T01:59:58.1Z", 7200), None);
        assert_eq!(again("2026-11-22T02:00:00Z", 7200), None);
        assert_eq!(again("2026-11-22T09:00:00Z", 7200), None);
        // Milliseconds that were rounded down cost no second.
        let instant = |wall, millis| {
            let uptime = instant(wall, 1, 0)
                .uptime
                .map(|it| Uptime::new(it.boot, Duration::from_millis(millis)));
            Timestamp { uptime, ..instant(wall, 1, 0) }
        };
        let asked_at =
            |wall, millis| Document { created_at: instant(wall, millis), ..before.clone() };
        let exact =
            asked_at(3600, 3_700_124).capped_by(&asked_at(0, 100_123), instant(3600, 3_700_124));
        assert_eq!(exact.map(|it| it.expires_in), Some(secs(3600)));
        // A clock that was set back does not extend it either.
        assert_eq!(again("2026-11-21T00:00:00Z", 86_400), ends("2026-11-21T02:00:00Z"));
    }

    #[test]
    fn an_answer_adds_nothing_if_it_has_the_same_token_that_ends_at_the_same_time() {
        let published = document_created_at("2026-11-22T00:00:00Z");
        let answer = |created_at: &str, left| Document {
            expires_in: secs(left),
            ..document_created_at(created_at)
        };
        let now = at("2026-11-22T01:00:00Z");
        for (left, expected) in
            [(3596, false), (3597, true), (3600, true), (3603, true), (3604, false)]
        {
            let answer = answer("2026-11-22T01:00:00Z", left);
            assert_eq!(answer.adds_nothing_to(&published, now), expected, "{left}");
        }
        // Within the overlap a second less counts.
        let late = at("2026-11-22T01:55:00Z");
        for (left, life, expected) in [(300, 7200, true), (300, 7201, false), (301, 7202, true)] {
            let published = Document { expires_in: secs(life), ..published.clone() };
            let answer = answer("2026-11-22T01:55:00Z", left);
            assert_eq!(answer.adds_nothing_to(&published, late), expected, "{left} {life}");
        }
        let boot = BootId::parse("38bcf4e1-95ec-4780-b34b-6460bb9b439b").unwrap();
        let uptime = Some(Uptime::new(boot, secs(1)));
        let created_at = Timestamp { uptime, ..published.created_at };
        for other in [
            Document { token: Secret::new("T2".to_owned()), ..published.clone() },
            Document { appid: "wx2".to_owned(), ..published.clone() },
            Document { is_put_back: !published.is_put_back, ..published.clone() },
            Document { created_at, ..published.clone() },
        ] {
            assert!(!other.adds_nothing_to(&published, now), "{other:?}");
        }
        assert!(published.adds_nothing_to(&published, at("2026-11-21T23:59:00Z")));
        assert!(!published.adds_nothing_to(&published, at("2026-11-21T23:58:59Z")), "the future");
    }

    #[test]
    fn a_mirror_relies_on_a_document_for_half_a_minute_and_no_longer_than_it_lives() {
        let document = document_created_at("2026-11-22T00:01:00Z");
        let until_stale = |text| document.time_until_stale(at(text));
        assert_eq!(until_stale("2026-11-22T00:01:10Z"), secs(20));
        assert_eq!(until_stale("2026-11-22T00:01:30Z"), Duration::ZERO);
        assert_eq!(until_stale("2026-11-21T23:59:59Z"), Duration::ZERO, "the future");
        assert!(!document.is_stale(at("2026-11-22T00:01:29Z")));
        assert!(document.is_stale(at("2026-11-22T00:01:30Z")));
        let brief = Document { expires_in: secs(5), ..document };
        assert_eq!(brief.time_until_stale(at("2026-11-22T00:01:01Z")), secs(4));
        let answered = at("2026-11-22T00:01:00Z").wall;
        for (now, expected) in [
            ("2026-11-21T23:59:59Z", false),
            ("2026-11-22T00:00:00Z", true),
            ("2026-11-22T00:01:29Z", true),
            ("2026-11-22T00:01:30Z", false),
        ] {
            assert_eq!(is_recent(answered, at(now).wall), expected, "{now}");
        }
    }

    #[test]
    fn a_ticket_is_due_when_half_of_its_life_is_left_at_the_latest() {
        let ticket = |life| Document {
            expires_in: secs(life),
            ..document_created_at("2026-11-22T00:00:00Z")
        };
        assert_eq!(ticket(7200).ticket_margin(MARGIN), MARGIN);
        assert_eq!(ticket(400).ticket_margin(MARGIN), secs(200));
    }

    #[test]
    fn an_invalid_document_is_told_by_kind() {
        for (bytes, what) in [
            ("", "it is empty"),
            ("{", "it ends too soon (line 1, column 1)"),
            ("{}", "a field is missing or of the wrong type"),
            ("x", "it is not JSON (line 1, column 1)"),
        ] {
            let error = Document::parse_token(bytes.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(what), "{bytes:?}: {error}");
        }
    }
}
