//! The documents of one account as `serve` hands them out, with the life that they have left. Reads a document when it is
//! replaced; takes no lock and calls no upstream. The time comes in.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Bytes;

use super::messages;
use crate::log::{OnceUntilChanged, debug, error, info, printable};
use crate::message::action_first;
use crate::model::account::Account;
use crate::model::client_key::opaque_token::TokenSeed;
use crate::model::document::{CLASSIC_OVERLAP, Document};
use crate::model::kind::{DocumentKind, TicketType};
use crate::model::response;
use crate::model::secret::Secret;
use crate::model::status::LiveToken;
use crate::os::timestamp::{Timestamp, Uptime};
use crate::store::{CACHED_BY_SDKS, MAX_REPLACED, Record, Stores, Watch};

/// How long a replaced token is remembered, in which clients may still present it: as long as WeChat honours it.
const REMEMBERED: Duration = CLASSIC_OVERLAP;

/// How many types of tickets are watched. WeChat has three.
const MAX_TICKET_TYPES: usize = 8;

/// The documents of one account, and what is handed out of them.
pub(crate) struct CachedDocument {
    account: Account,
    stores: Stores,
    watched: Box<dyn Watch>,
    /// When the token's document was last looked at, in whole milliseconds.
    looked_at: Option<Uptime>,
    /// The tickets of the types that clients asked for.
    tickets: HashMap<TicketType, WatchedTicket>,
    /// Reports that the token's document cannot be read.
    trouble: OnceUntilChanged,
    /// Reports that the token's document belongs to another account.
    foreign: OnceUntilChanged,
    /// The last answer, which holds for a second.
    answer: Option<LiveToken>,
    /// When that was last found to hold, in whole milliseconds.
    answered_at: Option<Uptime>,
    /// Counts the tokens.
    generation: u64,
    /// The token of this generation.
    current: Option<Rc<Secret>>,
    /// Whether its document belongs to this account.
    is_current_owned: bool,
    /// The tokens before, the latest one last, each with the time when its replacement was found.
    replaced: VecDeque<(Rc<Secret>, Timestamp)>,
    /// What the processes before this one remember, once it has been read.
    earlier: Option<Option<Record>>,
}

/// Which of its account's tokens a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenAge {
    /// The published one.
    Current,
    /// One that was published until lately.
    Replaced,
}

/// A ticket's document.
struct WatchedTicket {
    watch: Box<dyn Watch>,
    /// Reports that it cannot be read.
    trouble: OnceUntilChanged,
}

impl CachedDocument {
    /// Watches the documents of an account. Reads none yet.
    pub(crate) fn new(account: Account, stores: Stores) -> CachedDocument {
        let watched = stores.watch(&account.location, &DocumentKind::Token);
        CachedDocument {
            account,
            stores,
            watched,
            looked_at: None,
            tickets: HashMap::new(),
            trouble: OnceUntilChanged::default(),
            foreign: OnceUntilChanged::default(),
            answer: None,
            answered_at: None,
            generation: 0,
            current: None,
            is_current_owned: false,
            replaced: VecDeque::new(),
            earlier: None,
        }
    }

    /// Takes changed settings of the same account, which differ in its tickets and its hook at most.
    pub(crate) fn update(&mut self, account: Account) {
        self.account = account;
    }

    /// Returns the token's document as it was last read, even if it belongs to another account.
    pub(crate) fn last_document(&self) -> Option<&Document> {
        self.watched.document()
    }

    /// Has the document looked at again, even within the same millisecond: it may have been replaced just now.
    pub(crate) fn forget_look(&mut self) {
        self.looked_at = None;
    }

    /// Returns the token's document, if it belongs to this account. Logs a problem with it once.
    ///
    /// It is looked at once a millisecond, however many clients ask.
    pub(crate) fn document(&mut self, now: Timestamp) -> Option<&Document> {
        if !self.is_look_recent(now) {
            self.look(now);
        }
        self.usable()
    }

    /// Whether it was looked at in this millisecond.
    fn is_look_recent(&self, now: Timestamp) -> bool {
        now.uptime.is_some() && self.looked_at == now.uptime
    }

    /// Looks at the token's document.
    fn look(&mut self, now: Timestamp) {
        self.looked_at = now.uptime;
        if self.watched.look() {
            (self.answer, self.answered_at) = (None, None);
            self.foreign.reset();
            self.note_token(now);
        }
        let name = &self.account.name;
        match self.watched.trouble() {
            None => self.trouble.reset(),
            Some(trouble) => {
                let message = action_first(&match self.watched.document() {
                    Some(_) => messages::TOKEN_STAYS.with([&trouble]),
                    None => trouble.to_owned(),
                });
                if self.trouble.is_new(&message) {
                    error!(event = "document_unusable", account = name; "serve: {name}: {message}");
                }
            }
        }
    }

    /// Returns the document that was last read, if it belongs to this account.
    fn usable(&mut self) -> Option<&Document> {
        let name = &self.account.name;
        let document = self.watched.document()?;
        if !self.account.owns(document) {
            let (place, appid) = (&self.account.location, printable(&document.appid, 64));
            let message = messages::FOREIGN.first([place, &appid]);
            if self.foreign.is_new(&message) {
                error!(event = "document_unusable", account = name; "serve: {name}: {message}");
            }
            return None;
        }
        self.watched.document()
    }

    /// Returns the last answer, if it was found to hold in this millisecond of the machine: the life counts down once a second,
    /// and the document is looked at once a millisecond.
    pub(crate) fn last_answer(&self, uptime: Option<Uptime>) -> Option<(Rc<Secret>, LiveToken)> {
        let holds = self.looked_at == uptime && self.answered_at == uptime;
        (uptime.is_some() && holds).then(|| self.current.clone().zip(self.answer.clone()))?
    }

    /// Returns the token to hand out now; `None` if there is no live one.
    pub(crate) fn answer(&mut self, now: Timestamp) -> Option<(Rc<Secret>, LiveToken)> {
        if let Some(last) = self.last_answer(now.uptime) {
            return Some(last);
        }
        self.answered_at = None;
        let (rules, refresh_before) = (self.account.rules, self.account.refresh_before);
        let document = self.document(now)?;
        let life = document.promise(now, rules, refresh_before);
        if life.is_zero() {
            return None;
        }
        if self.answer.as_ref().is_none_or(|answer| answer.life != life) {
            let json = Bytes::from(response::token(&self.watched.document()?.token, life));
            self.answer = Some(LiveToken { json, life, generation: self.generation });
        }
        self.answered_at = now.uptime;
        Some((self.current.clone()?, self.answer.clone()?))
    }

    /// Returns the ticket of this type as JSON; `None` if there is no live one.
    pub(crate) fn ticket(&mut self, kind: &TicketType, now: Timestamp) -> Option<Bytes> {
        let document = self.ticket_document(kind)?;
        let life = Duration::from_secs(document.left(now).as_secs());
        (!life.is_zero()).then(|| response::ticket(&document.token, life).into())
    }

    /// Returns the document of the ticket of this type, if it belongs to this account.
    pub(crate) fn ticket_document(&mut self, kind: &TicketType) -> Option<&Document> {
        let name = &self.account.name;
        // Clients may ask for any number of types.
        if !self.tickets.contains_key(kind) && self.tickets.len() == MAX_TICKET_TYPES {
            self.tickets.retain(|kind, _| self.account.tickets.contains(kind));
        }
        let watched = self.tickets.entry(kind.clone()).or_insert_with(|| {
            let watch =
                self.stores.watch(&self.account.location, &DocumentKind::Ticket(kind.clone()));
            WatchedTicket { watch, trouble: OnceUntilChanged::default() }
        });
        watched.watch.look();
        match watched.watch.trouble() {
            None => watched.trouble.reset(),
            Some(trouble) if watched.trouble.is_new(trouble) => {
                info!(event = "ticket_unusable", account = name; "serve: {name}: {trouble}")
            }
            Some(_) => {}
        }
        let document = watched.watch.document()?;
        if !self.account.owns(document) {
            let appid = printable(&document.appid, 64);
            let message = messages::FOREIGN_TICKET.first([kind, &appid]);
            info!(event = "ticket_unusable", account = name; "serve: {name}: {message}");
            return None;
        }
        Some(document)
    }

    /// Whether this is the account's live token, or was replaced within [`REMEMBERED`].
    pub(crate) fn is_token(&mut self, token: &str, now: Timestamp) -> bool {
        let is_recent = |at: Timestamp| now.since(at) < REMEMBERED;
        let is_token =
            |document: &Document| !document.left(now).is_zero() && document.token.is(token);
        let found = self.seek(now, |own| {
            let is_previous =
                |(previous, at): &(Rc<Secret>, _)| is_recent(*at) && previous.is(token);
            let is_own =
                own.usable().is_some_and(is_token) || own.replaced.back().is_some_and(is_previous);
            is_own.then_some(())
        });
        found.is_some()
    }

    /// Seeks something in what is known. If it is not there, the document may have been replaced within this millisecond, and
    /// is looked at again.
    fn seek<T>(
        &mut self,
        now: Timestamp,
        find: impl Fn(&mut CachedDocument) -> Option<T>,
    ) -> Option<T> {
        let is_current = self.is_look_recent(now);
        self.document(now);
        find(self).or_else(|| {
            if !is_current {
                return None;
            }
            self.look(now);
            find(self)
        })
    }

    /// Returns which of the account's tokens this is: the published one, or one that was replaced within
    /// [`CACHED_BY_SDKS`].
    pub(crate) fn recognize(&mut self, token: &str, now: Timestamp) -> Option<TokenAge> {
        let found = self.find_token(now, |own| own.is(token)).map(|(_, age)| age);
        found.or_else(|| {
            let record = self.earlier(now)?;
            record.has_replaced(token, now.wall).then_some(TokenAge::Replaced)
        })
    }

    /// Finds one of these tokens by its seed. The token itself is not known if it was replaced before this process began.
    pub(crate) fn find_by_seed(
        &mut self,
        now: Timestamp,
        is_wanted: impl Fn(&TokenSeed) -> bool,
    ) -> Option<(Option<Rc<Secret>>, TokenAge)> {
        let found = self.find_token(now, |own| is_wanted(&TokenSeed::of(own)));
        found.map(|(token, age)| (Some(token), age)).or_else(|| {
            let mut seeds = self.earlier(now)?.replaced_seeds(now.wall);
            seeds.any(is_wanted).then_some((None, TokenAge::Replaced))
        })
    }

    /// Returns the record beside the document, which tells of tokens that were replaced before this process began. It is read
    /// once.
    fn earlier(&mut self, now: Timestamp) -> Option<&Record> {
        let of_document = self.watched.document().map(|document| &document.appid);
        let appid = self.account.appid.as_ref().or(of_document)?;
        let record = self.earlier.get_or_insert_with(|| {
            self.stores.record(&self.account.location, &DocumentKind::Token, appid, now.wall)
        });
        record.as_ref()
    }

    /// Finds one of the tokens that this process knows.
    fn find_token(
        &mut self,
        now: Timestamp,
        is_wanted: impl Fn(&Secret) -> bool,
    ) -> Option<(Rc<Secret>, TokenAge)> {
        let is_recent = |at: Timestamp| now.since(at) < CACHED_BY_SDKS;
        self.seek(now, |own| {
            let is_published = own.usable().is_some();
            if let Some(current) = own.current.as_ref().filter(|_| is_published)
                && is_wanted(current)
            {
                return Some((Rc::clone(current), TokenAge::Current));
            }
            let mut replaced = own.replaced.iter().rev();
            let found = replaced.find(|(token, at)| is_recent(*at) && is_wanted(token));
            found.map(|(token, _)| (Rc::clone(token), TokenAge::Replaced))
        })
    }

    /// Starts a new generation if the document holds another token.
    fn note_token(&mut self, now: Timestamp) {
        let found = self.watched.document().map(|document| &document.token);
        if found == self.current.as_deref() {
            return;
        }
        let found = found.cloned().map(Rc::new);
        if let Some(token) = &found {
            debug!("serve: {}: token {} is published", self.account.name, token.fingerprint());
        }
        self.generation += 1;
        let is_owned = self.watched.document().is_some_and(|it| self.account.owns(it));
        let was_owned = std::mem::replace(&mut self.is_current_owned, is_owned);
        let before = std::mem::replace(&mut self.current, found);
        if let Some(before) = before.filter(|_| was_owned) {
            self.replaced.retain(|(token, _)| *token != before);
            self.replaced.push_back((before, now));
            if self.replaced.len() > MAX_REPLACED {
                self.replaced.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::model::document::parse_rfc3339;
    use crate::os::clock::SystemClock;
    use crate::os::timestamp::BootId;

    fn at(text: &str) -> Timestamp {
        Timestamp::of_wall(parse_rfc3339(text).unwrap())
    }

    fn put(dir: &Path, appid: &str, token: &str) {
        let text = format!(
            r#"{{"appid":"{appid}","access_token":"{token}","expires_in":7200,"created_at":"2026-11-22T00:00:00Z"}}"#
        );
        fs::write(dir.join("new"), text).unwrap();
        fs::rename(dir.join("new"), dir.join("default.json")).unwrap();
    }

    fn cached(dir: &Path) -> CachedDocument {
        let account = Account::for_tests(dir.join("default.json"));
        CachedDocument::new(account, Stores::new(Arc::new(SystemClock)))
    }

    fn answer(cached: &mut CachedDocument, now: &str) -> Option<String> {
        cached.answer(at(now)).map(|(_, token)| String::from_utf8(token.json.to_vec()).unwrap())
    }

    /// Returns an instant this many milliseconds after the start of a machine.
    fn at_millis(millis: u64) -> Timestamp {
        let boot = BootId::parse("00000000-0000-0000-0000-000000000001").unwrap();
        let uptime = Some(Uptime::new(boot, Duration::from_millis(millis)));
        Timestamp { uptime, ..at("2026-11-22T00:00:01Z") }
    }

    #[test]
    fn a_replaced_document_is_seen_within_a_millisecond_and_at_once_if_its_token_is_presented() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "wx1", "T1");
        let mut cached = cached(dir.path());
        let token = |cached: &mut CachedDocument, millis| {
            cached.answer(at_millis(millis)).map(|(token, _)| token.expose().to_owned())
        };
        assert_eq!(token(&mut cached, 5).as_deref(), Some("T1"));
        put(dir.path(), "wx1", "T2");
        assert_eq!(token(&mut cached, 5).as_deref(), Some("T1"), "in the same millisecond");
        assert_eq!(token(&mut cached, 6).as_deref(), Some("T2"), "in the next one");
        put(dir.path(), "wx1", "T3");
        assert!(cached.is_token("T3", at_millis(6)));
        put(dir.path(), "wx1", "T4");
        assert_eq!(cached.recognize("T4", at_millis(6)), Some(TokenAge::Current));
        put(dir.path(), "wx1", "T5");
        cached.forget_look();
        assert_eq!(token(&mut cached, 6).as_deref(), Some("T5"), "it is known to be new");
        fs::remove_file(dir.path().join("default.json")).unwrap();
        assert_eq!(token(&mut cached, 7), None, "it was withdrawn");
    }

    #[test]
    fn invented_types_of_tickets_fill_no_memory_and_displace_no_configured_one() {
        let dir = tempfile::tempdir().unwrap();
        let kind = |name: &str| TicketType::parse(name).unwrap();
        let mut cached = cached(dir.path());
        cached.account.tickets = vec![kind("jsapi")];
        let put = |ticket: &str| {
            let text = format!(
                r#"{{"appid":"wx1","ticket":"{ticket}","expires_in":7200,"created_at":"2026-11-22T00:00:00Z"}}"#
            );
            fs::write(dir.path().join("new"), text).unwrap();
            fs::rename(dir.path().join("new"), dir.path().join("default.jsapi.json")).unwrap();
        };
        for n in 0..100 {
            put(&format!("K{n}"));
            let ticket = cached.ticket(&kind("jsapi"), at("2026-11-22T00:00:01Z"));
            let expected = format!(r#"{{"ticket":"K{n}","expires_in":7199}}"#);
            assert_eq!(ticket, Some(expected.into()));
            assert!(cached.ticket_document(&kind(&format!("t{n}"))).is_none());
            assert!(cached.tickets.len() <= MAX_TICKET_TYPES);
            assert!(cached.tickets.contains_key(&kind("jsapi")));
        }
        assert_eq!(cached.ticket(&kind("jsapi"), at("2026-11-22T02:00:00Z")), None);
    }

    #[test]
    fn the_life_counts_down_and_an_expired_token_is_not_handed_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut cached = cached(dir.path());
        assert_eq!(answer(&mut cached, "2026-11-22T00:00:00Z"), None);
        put(dir.path(), "wx1", "T1");
        let expected = |life| Some(format!(r#"{{"access_token":"T1","expires_in":{life}}}"#));
        assert_eq!(answer(&mut cached, "2026-11-22T00:00:00Z"), expected(7200));
        assert_eq!(answer(&mut cached, "2026-11-22T00:00:00.5Z"), expected(7199));
        assert_eq!(answer(&mut cached, "2026-11-22T00:00:01Z"), expected(7199));
        assert_eq!(answer(&mut cached, "2026-11-22T01:59:59Z"), expected(1));
        assert_eq!(answer(&mut cached, "2026-11-22T01:59:59.1Z"), None);
        assert_eq!(answer(&mut cached, "2026-11-22T03:00:00Z"), None);
    }

    #[test]
    fn an_answer_holds_for_the_millisecond_in_which_it_was_found_to_hold() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "wx1", "T1");
        let mut cached = cached(dir.path());
        let holds = |cached: &CachedDocument, millis| {
            cached.last_answer(at_millis(millis).uptime).map(|(token, _)| token.expose().to_owned())
        };
        assert_eq!(holds(&cached, 5), None, "there is none yet");
        let (token, answer) = cached.answer(at_millis(5)).unwrap();
        assert_eq!(holds(&cached, 5).as_deref(), Some(token.expose()));
        let (_, last) = cached.last_answer(at_millis(5).uptime).unwrap();
        assert_eq!((last.json, last.life), (answer.json, answer.life));
        assert_eq!((holds(&cached, 6), cached.last_answer(None).is_none()), (None, true));
        cached.forget_look();
        assert_eq!(holds(&cached, 5), None, "the document may be new");
    }

    #[test]
    fn a_new_token_is_handed_out_at_once_unless_it_belongs_to_another_account() {
        let dir = tempfile::tempdir().unwrap();
        let mut cached = cached(dir.path());
        let now = "2026-11-22T01:00:00Z";
        for token in ["T1", "T2"] {
            put(dir.path(), "wx1", token);
            assert!(answer(&mut cached, now).unwrap().contains(token));
        }
        put(dir.path(), "wx2", "T3");
        assert_eq!(answer(&mut cached, now), None);
        assert!(cached.foreign.last().unwrap().contains("belongs to wx2"));
        put(dir.path(), "wx1", "T4");
        assert!(answer(&mut cached, now).unwrap().contains("T4"));
        assert_eq!(cached.foreign.last(), None);
    }

    #[test]
    fn a_replaced_token_is_remembered_for_the_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let mut cached = cached(dir.path());
        put(dir.path(), "wx1", "T1");
        let (_, first) = cached.answer(at("2026-11-22T01:00:00Z")).unwrap();
        put(dir.path(), "wx1", "T2");
        let (secret, second) = cached.answer(at("2026-11-22T01:00:00Z")).unwrap();
        assert_eq!(secret.expose(), "T2");
        assert_ne!(first.generation, second.generation);
        let mut is_token = |token, now| cached.is_token(token, at(now));
        assert!(is_token("T1", "2026-11-22T01:04:59Z") && is_token("T2", "2026-11-22T01:04:59Z"));
        assert!(!is_token("T1", "2026-11-22T01:05:00Z") && is_token("T2", "2026-11-22T01:05:00Z"));
        assert!(!is_token("", "2026-11-22T01:00:00Z") && !is_token("T3", "2026-11-22T01:00:00Z"));
        // The same token with another life is the same generation.
        put(dir.path(), "wx1", "T2");
        assert_eq!(cached.answer(at("2026-11-22T01:00:00Z")).unwrap(), (secret, second));
    }

    #[test]
    fn a_replaced_token_is_recognized_for_as_long_as_sdks_cache_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut cached = cached(dir.path());
        // That of another account is never recognized.
        for (appid, token) in [("wx1", "T1"), ("wx2", "F1"), ("wx1", "T2"), ("wx1", "T3")] {
            put(dir.path(), appid, token);
            cached.recognize("", at("2026-11-22T01:00:00Z"));
        }
        let mut recognize = |token: &str, now: &str| cached.recognize(token, at(now));
        let (replaced, current) = (Some(TokenAge::Replaced), Some(TokenAge::Current));
        for (token, now, expected) in [
            ("T1", "2026-11-22T02:59:59Z", replaced),
            ("T1", "2026-11-22T03:00:00Z", None),
            ("T2", "2026-11-22T02:59:59Z", replaced),
            ("T3", "2026-11-22T02:59:59Z", current),
            // Expired, and still the one that is published.
            ("T3", "2026-11-23T02:59:59Z", current),
            ("F1", "2026-11-22T01:00:00Z", None),
        ] {
            assert_eq!(recognize(token, now), expected, "{token} {now}");
        }
        put(dir.path(), "wx1", "T1");
        assert_eq!(recognize("T1", "2026-11-22T03:00:00Z"), current);
        for n in 0..100 {
            put(dir.path(), "wx1", &format!("N{n}"));
            recognize("", "2026-11-22T03:00:00Z");
        }
        assert_eq!(recognize("N1", "2026-11-22T03:00:00Z"), None);
        assert_eq!(recognize("N98", "2026-11-22T03:00:00Z"), replaced);
    }

    #[test]
    fn a_damaged_document_costs_no_good_token_while_that_one_lives() {
        let dir = tempfile::tempdir().unwrap();
        let mut cached = cached(dir.path());
        fs::write(dir.path().join("default.json"), "{").unwrap();
        assert_eq!(answer(&mut cached, "2026-11-22T01:00:00Z"), None);
        assert!(!cached.trouble.last().unwrap().contains("stays"), "there was no good token");
        put(dir.path(), "wx1", "T1");
        assert!(answer(&mut cached, "2026-11-22T01:00:00Z").is_some());
        fs::write(dir.path().join("default.json"), "{").unwrap();
        assert!(answer(&mut cached, "2026-11-22T01:00:00Z").unwrap().contains("T1"));
        assert!(cached.trouble.last().unwrap().contains("the last good token stays"));
        assert_eq!(answer(&mut cached, "2026-11-22T02:00:00Z"), None);
    }
}
