//! The published document: its JSON form, and what its token is worth at a given instant: the lifetime left, whether it
//! is due, and the lifetime that may be promised. A ticket's document differs only in one field name. No clock and no
//! I/O; `now` is an argument.

pub(crate) mod faults;
mod json;
mod provenance;
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
pub(crate) use self::provenance::Provenance;
pub(crate) use self::wall_time::{parse_rfc3339, rfc3339, whole_seconds};

/// How long WeChat's classic API keeps a token valid after it has issued the next one.
/// <https://developers.weixin.qq.com/doc/oplatform/developers/dev/AccessToken.html>
pub(crate) const CLASSIC_OVERLAP: Duration = Duration::from_secs(300);

/// What is promised at most for a token that was put back. It is a minute less than the overlap: within this minute, a refresh that
/// was under way when the place lost its documents publishes its token.
const PUT_BACK_PROMISE: Duration = CLASSIC_OVERLAP.saturating_sub(Duration::from_secs(60));

/// What is promised at a time for a token that another host may have replaced unseen.
const UNCERTAIN_PROMISE: Duration = Duration::from_secs(1);

/// How long a mirror relies on the last answer. A token replaced at the source is picked up within this time, and a cron
/// job that runs every minute asks every time.
pub(crate) const FRESH: Duration = Duration::from_secs(30);

/// By how much two times of expiry of one token can differ, because of rounding and of the time that the calls took.
const SAME_TIME: time::Duration = time::Duration::seconds(3);

/// The error of the difference of two instants that are kept in whole milliseconds. Without it, a lifetime would lose a second at each
/// answer with the same token.
const ROUNDING: Duration = Duration::from_millis(2);

/// A token with less lifetime left would expire before its first use.
const MIN_LIFETIME: Duration = Duration::from_secs(2);

/// Maximum length of a token in bytes; WeChat asks to reserve 512.
pub(crate) const MAX_TOKEN: usize = 2048;

/// Maximum accepted lifetime in seconds; WeChat documents "a value within 7200".
const MAX_EXPIRES_IN: u64 = 86_400;

/// Maximum size of a document: a token of [`MAX_TOKEN`], an AppID, and room for fields that others add.
pub(crate) const MAX_DOCUMENT: usize = 8 * 1024;

/// What is published for an account: a token, or a ticket, and what determines its lifetime. Two documents are equal if they say the
/// same, wherever they were read.
#[derive(Clone, Debug, Eq)]
pub(crate) struct Document {
    pub(crate) appid: String,
    /// The token or the ticket.
    pub(crate) token: Secret,
    /// The lifetime that WeChat stated, counted from `created_at`.
    pub(crate) expires_in: Duration,
    /// The instant *before* the request was sent, rounded down to whole seconds: WeChat's count began later. Also by the clock of the
    /// machine since its start, by which this machine knows the age whatever the wall clock is set to.
    pub(crate) created_at: Timestamp,
    /// Whether the place lost this document and got it back from a copy. The place may also have lost a later document, of another
    /// token.
    pub(crate) is_put_back: bool,
    pub(crate) provenance: Provenance,
}

impl PartialEq for Document {
    fn eq(&self, other: &Document) -> bool {
        let Document { appid, token, expires_in, created_at, is_put_back, provenance: _ } = other;
        self.token == *token
            && self.appid == *appid
            && self.expires_in == *expires_in
            && self.created_at == *created_at
            && self.is_put_back == *is_put_back
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
        // wxtoken writes whole seconds; another program may have written a fraction.
        let created_at = Timestamp { wall, uptime }.whole_seconds();
        let is_put_back = json.put_back == Some(true);
        let (appid, provenance) = (json.appid, Provenance::default());
        Ok(Document { appid, token, expires_in, created_at, is_put_back, provenance })
    }

    /// Returns the document of this kind as one line of JSON.
    pub(crate) fn to_line(&self, kind: &DocumentKind) -> Secret {
        let appid = self.appid.clone();
        let token = self.token.expose().into();
        let expires_in = self.expires_in.as_secs();
        let created_at = rfc3339(self.created_at.wall).into();
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

    /// Returns the lifetime left: within `[0, expires_in]`, whatever the clock says. For a document from the future that is the overlap,
    /// which every refresh leaves a live token, or less, if its file was written so long ago that less can be left.
    pub(crate) fn left(&self, now: Timestamp) -> Duration {
        match self.is_from_future(now) {
            true => self.left_since(self.provenance.written_at, now),
            false => self.stated_left(now),
        }
    }

    /// Returns the lifetime left of a document from the future that existed at `at`, if that time is known.
    fn left_since(&self, at: Option<UtcDateTime>, now: Timestamp) -> Duration {
        let age = at.and_then(|at| Duration::try_from(now.wall - at).ok()).unwrap_or_default();
        self.expires_in.saturating_sub(age).min(CLASSIC_OVERLAP)
    }

    /// Returns what is left of the stated lifetime; for a document from the future, all of it.
    fn stated_left(&self, now: Timestamp) -> Duration {
        self.expires_in.saturating_sub(self.age(now))
    }

    /// Returns the age; zero for a document from the future.
    fn age(&self, now: Timestamp) -> Duration {
        now.since(self.created_at).try_into().unwrap_or_default()
    }

    /// Returns the document to publish if WeChat may have issued another token at `asked_at`: it expires one overlap later, by every
    /// clock. `None` if it expires by then anyway. Never extends the lifetime, and never ends it at once.
    pub(crate) fn shortened_to_overlap(&self, asked_at: Timestamp) -> Option<Document> {
        self.shortened_to(CLASSIC_OVERLAP, asked_at)
    }

    /// Returns the document to publish if WeChat says that its token is dead: it has less than a second left, by every clock. `None` if
    /// it has no more anyway.
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

    /// Returns the document to publish if WeChat may have issued another token at any time since `at`: it expires no later than one
    /// overlap after `at`.
    pub(crate) fn replaceable_from(self, at: Timestamp) -> Document {
        let end = at.plus(CLASSIC_OVERLAP).since(self.created_at);
        let life = Duration::try_from(end).unwrap_or_default().as_secs();
        // A document states a second at least.
        Document { expires_in: self.expires_in.min(Duration::from_secs(life.max(1))), ..self }
    }

    /// Returns this document with a lifetime that ends no later than that of `before`, which holds the same token. For APIs that may
    /// state a full lifetime in every answer. `None` if `before` is as good as expired.
    pub(crate) fn capped_by(self, before: &Document, now: Timestamp) -> Option<Document> {
        if before.stated_left(now) < MIN_LIFETIME {
            return None;
        }
        let left = before.stated_left(self.created_at) + ROUNDING;
        let left = Duration::from_secs(left.as_secs());
        Some(Document { expires_in: self.expires_in.min(left), ..self })
    }

    /// Returns this document with a `created_at` that is not before the one given, and with the same time of expiry. For a replacement
    /// that must not seem older than the document that it replaces.
    pub(crate) fn with_created_at_least(&self, created_at: UtcDateTime) -> Document {
        let moved = (created_at - self.created_at.wall).try_into().unwrap_or_default();
        let created_at = self.created_at.plus(moved);
        let expires_in = self.expires_in.saturating_sub(moved).max(Duration::from_secs(1));
        Document { created_at, expires_in, ..self.clone() }
    }

    /// Whether this document comes from a later answer of WeChat than `before`. One that was only
    /// [shortened](Document::shortened_to_overlap) or restored does not.
    pub(crate) fn is_newer_answer_than(&self, before: &Document) -> bool {
        self.token != before.token || self.created_at.is_after(before.created_at)
    }

    /// Whether this document was created later than `other`, as far as the clocks tell. A document from the future does not count as
    /// later: which clock was wrong is unknown.
    pub(crate) fn is_later_than(&self, other: &Document, now: Timestamp) -> bool {
        self.created_at.is_after(other.created_at) && !self.is_from_future(now)
    }

    /// Whether the next token is to be requested.
    pub(crate) fn is_due(&self, now: Timestamp, rules: Rules, refresh_before: Duration) -> bool {
        // The two clocks contradict each other, and either may be right. A request costs nothing, except on classic, where it would
        // invalidate the token.
        let is_doubtful = rules != Rules::Classic && now.has_jumped_ahead_since(self.created_at);
        let is_unconfirmed = rules == Rules::Stable && self.is_put_back;
        is_doubtful
            || is_unconfirmed
            || self.is_from_future(now)
            || self.left(now) <= refresh_before && !has_bug(Bug::MarginIgnored)
            || self.left(now).is_zero()
    }

    /// Whether `created_at` is so far ahead of `now` that one of the two clocks was wrong. The age is unknown then.
    pub(crate) fn is_from_future(&self, now: Timestamp) -> bool {
        now.since(self.created_at) < -MAX_CLOCK_SKEW
    }

    /// Returns the lifetime left at which a ticket's document is due. WeChat returns the same ticket while it lives, with the lifetime
    /// left as its `expires_in`. So the ticket is not requested again before half of that is over.
    pub(crate) fn ticket_margin(&self, refresh_before: Duration) -> Duration {
        refresh_before.min(self.expires_in / 2)
    }

    /// Whether this document, of a new answer, says nothing new beside `published`: it has the same token, which ends at the same time
    /// but for what the calls took. Once no more than the overlap is left, a time that is a little earlier is news: the token may have
    /// been replaced at its source.
    pub(crate) fn adds_nothing_to(&self, published: &Document, now: Timestamp) -> bool {
        let boot = |document: &Document| document.created_at.uptime.map(|uptime| uptime.boot);
        let is_alike = (&self.token, &self.appid) == (&published.token, &published.appid)
            && boot(self) == boot(published)
            && self.is_put_back == published.is_put_back
            && !published.is_from_future(now)
            // Kept, it would stay in doubt, and WeChat would be asked again and again.
            && !now.has_jumped_ahead_since(published.created_at);
        let later = self.expires_at(now) - published.expires_at(now);
        let earliest = match self.left(now) > CLASSIC_OVERLAP {
            true => -SAME_TIME,
            false => time::Duration::ZERO,
        };
        is_alike && later >= earliest && later <= SAME_TIME
    }

    /// Whether a mirror has to ask its source again, because the token may have been replaced there.
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
            // As soon as the token is due, the next `fetch` may replace it, and then it lives for the overlap only. Where the place
            // cannot be reached, another host may have replaced it already: from here, a place that is down looks like one that
            // only others reach.
            Rules::Classic => {
                let unseen = self.unseen_for(now);
                let until_due = (left + unseen).saturating_sub(refresh_before);
                let certain = (until_due + CLASSIC_OVERLAP).saturating_sub(unseen);
                left.min(certain.max(UNCERTAIN_PROMISE))
            }
        };
        // The place may have lost that the token ends after the overlap.
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

    /// Returns when the document was created, by the wall clock of `now`.
    pub(crate) fn created_at(&self, now: Timestamp) -> UtcDateTime {
        self.created_at.wall_by_clock_of(now)
    }

    /// Returns the end of the lifetime [left](Document::left), by the wall clock of `now`. It is the time of expiry, except for a
    /// document from the future.
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
mod tests;
