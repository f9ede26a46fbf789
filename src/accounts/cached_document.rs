//! What `serve` hands out for each account: the published document's token with the life it has now. Reads documents
//! as they are replaced; takes no lock, asks nobody, and lets `now` come in.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Bytes;
use time::UtcDateTime;

use crate::log::{OnceUntilChanged, debug, error, info, printable};
use crate::model::account::Account;
use crate::model::document::{CLASSIC_OVERLAP, Document};
use crate::model::kind::{DocumentKind, TicketType};
use crate::model::response;
use crate::model::secret::Secret;
use crate::model::status::Token;
use crate::store::{Stores, Watch};

/// How long after a token was replaced somebody may still show it: as long as WeChat honours it.
const REMEMBERED: Duration = CLASSIC_OVERLAP;

/// So many types of tickets are watched; WeChat has three.
const MOST_TYPES: usize = 8;

/// One account's document, and what was last made of it.
pub(crate) struct CachedDocument {
    account: Account,
    stores: Stores,
    watched: Box<dyn Watch>,
    /// The tickets of the types that were asked for.
    tickets: HashMap<TicketType, WatchedTicket>,
    /// What is wrong with the document.
    trouble: OnceUntilChanged,
    /// That the document belongs to another account.
    foreign: OnceUntilChanged,
    /// The answer for all who ask within a second.
    answer: Option<Token>,
    /// How many other tokens there have been.
    generation: u64,
    /// The token of this generation.
    current: Option<Rc<Secret>>,
    /// The one before, and when it was found replaced.
    previous: Option<(Rc<Secret>, UtcDateTime)>,
}

/// A ticket's document.
struct WatchedTicket {
    watch: Box<dyn Watch>,
    /// What is wrong with it.
    trouble: OnceUntilChanged,
}

impl CachedDocument {
    pub(crate) fn new(account: Account, stores: Stores) -> CachedDocument {
        let watched = stores.watch(&account.location, &DocumentKind::Token);
        CachedDocument {
            account,
            stores,
            watched,
            tickets: HashMap::new(),
            trouble: OnceUntilChanged::default(),
            foreign: OnceUntilChanged::default(),
            answer: None,
            generation: 0,
            current: None,
            previous: None,
        }
    }

    /// Goes on with another configuration of the account, which differs in its tickets and its hook at most.
    pub(crate) fn update(&mut self, account: Account) {
        self.account = account;
    }

    /// The document of the last look, whosever it is.
    pub(crate) fn last_document(&self) -> Option<&Document> {
        self.watched.document()
    }

    /// The document as of now, if it is this account's. Trouble with it is told once.
    pub(crate) fn document(&mut self, now: UtcDateTime) -> Option<&Document> {
        if self.watched.look() {
            self.answer = None;
            self.foreign.reset();
            self.note_token(now);
        }
        let name = &self.account.name;
        match self.watched.trouble() {
            None => self.trouble.reset(),
            Some(trouble) => {
                let stays = match self.watched.document() {
                    Some(_) => "; the last good token stays while it lives",
                    None => "",
                };
                let message = format!("{trouble}{stays}");
                if self.trouble.is_new(&message) {
                    error!("serve: {name}: {message}");
                }
            }
        }
        let document = self.watched.document()?;
        if !self.account.owns(document) {
            let (place, appid) = (&self.account.location, printable(&document.appid, 64));
            let message =
                format!("{place} belongs to {appid}, another account; nothing is handed out");
            if self.foreign.is_new(&message) {
                error!("serve: {name}: {message}");
            }
            return None;
        }
        self.watched.document()
    }

    /// What to hand out now, and the token in it; `None` if there is no live one.
    pub(crate) fn answer(&mut self, now: UtcDateTime) -> Option<(Rc<Secret>, Token)> {
        let (rules, refresh_before) = (self.account.rules, self.account.refresh_before);
        let document = self.document(now)?;
        let life = document.promise(now, rules, refresh_before);
        if life.is_zero() {
            return None;
        }
        if self.answer.as_ref().is_none_or(|answer| answer.life != life) {
            let json = Bytes::from(response::token(&self.watched.document()?.token, life));
            self.answer = Some(Token { json, life, generation: self.generation });
        }
        Some((self.current.clone()?, self.answer.clone()?))
    }

    /// The ticket of this type as JSON, with the life that is left; `None` if there is no live one.
    pub(crate) fn ticket(&mut self, kind: &TicketType, now: UtcDateTime) -> Option<Bytes> {
        let document = self.ticket_document(kind)?;
        let life = Duration::from_secs(document.left(now).as_secs());
        (!life.is_zero()).then(|| response::ticket(&document.token, life).into())
    }

    /// The document of the ticket of this type, if it is this account's.
    pub(crate) fn ticket_document(&mut self, kind: &TicketType) -> Option<&Document> {
        let name = &self.account.name;
        // Callers name types as they like.
        if !self.tickets.contains_key(kind) && self.tickets.len() == MOST_TYPES {
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
            Some(trouble) if watched.trouble.is_new(trouble) => info!("serve: {name}: {trouble}"),
            Some(_) => {}
        }
        let document = watched.watch.document()?;
        if !self.account.owns(document) {
            let whose = printable(&document.appid, 64);
            info!("serve: {name}: the {kind} ticket belongs to {whose}, another account");
            return None;
        }
        Some(document)
    }

    /// Whether this is the account's token and lives, or was it until a moment ago.
    pub(crate) fn is_token(&mut self, token: &str, now: UtcDateTime) -> bool {
        let is_it = |document: &Document| !document.left(now).is_zero() && document.token.is(token);
        if self.document(now).is_some_and(is_it) {
            return true;
        }
        let is_recent = |at: UtcDateTime| now - at < REMEMBERED;
        self.previous.as_ref().is_some_and(|(previous, at)| is_recent(*at) && previous.is(token))
    }

    fn note_token(&mut self, now: UtcDateTime) {
        let found = self.watched.document().map(|document| &document.token);
        if found == self.current.as_deref() {
            return;
        }
        let found = found.cloned().map(Rc::new);
        if let Some(token) = &found {
            debug!("serve: {}: token {} is published", self.account.name, token.fingerprint());
        }
        self.generation += 1;
        self.previous = std::mem::replace(&mut self.current, found).map(|token| (token, now));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use time::format_description::well_known::Rfc3339;

    use super::*;
    use crate::model::api::{Api, Rules};
    use crate::model::location::Location;
    use crate::os::clock::SystemClock;

    fn at(text: &str) -> UtcDateTime {
        UtcDateTime::parse(text, &Rfc3339).unwrap()
    }

    fn put(dir: &Path, appid: &str, token: &str) {
        let text = format!(
            r#"{{"appid":"{appid}","access_token":"{token}","expires_in":7200,"created_at":"2026-11-22T00:00:00Z"}}"#
        );
        fs::write(dir.join("new"), text).unwrap();
        fs::rename(dir.join("new"), dir.join("default.json")).unwrap();
    }

    fn handout(dir: &Path) -> CachedDocument {
        let account = Account {
            name: "default".to_owned(),
            appid: Some("wx1".to_owned()),
            api: Api::Stable,
            rules: Rules::Stable,
            refresh_before: Duration::from_secs(300),
            location: Location::File(dir.join("default.json")),
            tickets: Vec::new(),
            on_change: None,
        };
        CachedDocument::new(account, Stores::new(Arc::new(SystemClock)))
    }

    fn answered(handout: &mut CachedDocument, now: &str) -> Option<String> {
        handout.answer(at(now)).map(|(_, token)| String::from_utf8(token.json.to_vec()).unwrap())
    }

    #[test]
    fn callers_who_make_up_types_of_tickets_fill_no_memory_and_displace_none_that_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| TicketType::parse(name).unwrap();
        let mut handout = handout(dir.path());
        handout.account.tickets = vec![of("jsapi")];
        let put = |ticket: &str| {
            let text = format!(
                r#"{{"appid":"wx1","ticket":"{ticket}","expires_in":7200,"created_at":"2026-11-22T00:00:00Z"}}"#
            );
            fs::write(dir.path().join("new"), text).unwrap();
            fs::rename(dir.path().join("new"), dir.path().join("default.jsapi.json")).unwrap();
        };
        for n in 0..100 {
            put(&format!("K{n}"));
            let told = handout.ticket(&of("jsapi"), at("2026-11-22T00:00:01Z"));
            let expected = format!(r#"{{"ticket":"K{n}","expires_in":7199}}"#);
            assert_eq!(told, Some(expected.into()));
            assert!(handout.ticket_document(&of(&format!("t{n}"))).is_none());
            assert!(handout.tickets.len() <= MOST_TYPES);
            assert!(handout.tickets.contains_key(&of("jsapi")));
        }
        assert_eq!(handout.ticket(&of("jsapi"), at("2026-11-22T02:00:00Z")), None);
    }

    #[test]
    fn the_life_counts_down_and_a_token_that_ran_out_is_not_handed_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut handout = handout(dir.path());
        assert_eq!(answered(&mut handout, "2026-11-22T00:00:00Z"), None);
        put(dir.path(), "wx1", "T1");
        let expected = |life| Some(format!(r#"{{"access_token":"T1","expires_in":{life}}}"#));
        assert_eq!(answered(&mut handout, "2026-11-22T00:00:00Z"), expected(7200));
        assert_eq!(answered(&mut handout, "2026-11-22T00:00:00.5Z"), expected(7199));
        assert_eq!(answered(&mut handout, "2026-11-22T00:00:01Z"), expected(7199));
        assert_eq!(answered(&mut handout, "2026-11-22T01:59:59Z"), expected(1));
        assert_eq!(answered(&mut handout, "2026-11-22T01:59:59.1Z"), None);
        assert_eq!(answered(&mut handout, "2026-11-22T03:00:00Z"), None);
    }

    #[test]
    fn another_token_is_handed_out_as_soon_as_it_is_published_and_for_this_account_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut handout = handout(dir.path());
        let now = "2026-11-22T01:00:00Z";
        for token in ["T1", "T2"] {
            put(dir.path(), "wx1", token);
            assert!(answered(&mut handout, now).unwrap().contains(token));
        }
        put(dir.path(), "wx2", "T3");
        assert_eq!(answered(&mut handout, now), None);
        assert!(handout.foreign.last().unwrap().contains("belongs to wx2"));
        put(dir.path(), "wx1", "T4");
        assert!(answered(&mut handout, now).unwrap().contains("T4"));
        assert_eq!(handout.foreign.last(), None);
    }

    #[test]
    fn a_token_is_known_until_the_overlap_after_its_replacement_has_passed() {
        let dir = tempfile::tempdir().unwrap();
        let mut handout = handout(dir.path());
        put(dir.path(), "wx1", "T1");
        let (_, first) = handout.answer(at("2026-11-22T01:00:00Z")).unwrap();
        put(dir.path(), "wx1", "T2");
        let (secret, second) = handout.answer(at("2026-11-22T01:00:00Z")).unwrap();
        assert_eq!(secret.expose(), "T2");
        assert_ne!(first.generation, second.generation);
        let mut knows = |token, now| handout.is_token(token, at(now));
        assert!(knows("T1", "2026-11-22T01:04:59Z") && knows("T2", "2026-11-22T01:04:59Z"));
        assert!(!knows("T1", "2026-11-22T01:05:00Z") && knows("T2", "2026-11-22T01:05:00Z"));
        assert!(!knows("", "2026-11-22T01:00:00Z") && !knows("T3", "2026-11-22T01:00:00Z"));
        // The same token with another life is the same generation.
        put(dir.path(), "wx1", "T2");
        assert_eq!(handout.answer(at("2026-11-22T01:00:00Z")).unwrap(), (secret, second));
    }

    #[test]
    fn a_damaged_document_costs_no_good_token_while_that_one_lives() {
        let dir = tempfile::tempdir().unwrap();
        let mut handout = handout(dir.path());
        fs::write(dir.path().join("default.json"), "{").unwrap();
        assert_eq!(answered(&mut handout, "2026-11-22T01:00:00Z"), None);
        assert!(!handout.trouble.last().unwrap().contains("stays"), "there is none to stay");
        put(dir.path(), "wx1", "T1");
        assert!(answered(&mut handout, "2026-11-22T01:00:00Z").is_some());
        fs::write(dir.path().join("default.json"), "{").unwrap();
        assert!(answered(&mut handout, "2026-11-22T01:00:00Z").unwrap().contains("T1"));
        assert!(handout.trouble.last().unwrap().contains("the last good token stays"));
        assert_eq!(answered(&mut handout, "2026-11-22T02:00:00Z"), None);
    }
}
