//! A published document, as `get`, `serve` and the next `fetch` read it: of a token, or of a ticket.

use std::time::Duration;

use super::assert_tells_no_secret;
use crate::model::api::Rules;
use crate::model::document::{CLASSIC_OVERLAP, Document, parse_rfc3339, rfc3339};
use crate::model::kind::{DocumentKind, TicketType};
use crate::model::secret::Secret;
use crate::os::timestamp::Timestamp;

const RULES: [Rules; 4] = [Rules::Stable, Rules::Classic, Rules::Work, Rules::Mirror];

const MARGIN: Duration = Duration::from_secs(300);

/// A second more, for what is rounded to whole ones.
const SECOND: Duration = Duration::from_secs(1);

/// How long after `created_at` a document is looked at, in seconds.
const AGES: [u64; 12] = [0, 1, 59, 100, 299, 300, 301, 3600, 6899, 6900, 7200, 90_000];

pub fn check(data: &[u8]) {
    let ticket = TicketType::parse("jsapi").map(DocumentKind::Ticket);
    for kind in [DocumentKind::Token].into_iter().chain(ticket) {
        match Document::parse(&kind, data) {
            Ok(document) => {
                assert_is_written_as_it_is_read(&document, &kind);
                assert_life_only_shrinks(&document);
            }
            Err(err) => assert_tells_no_secret(&err.to_string(), data),
        }
    }
    if let Some(at) = std::str::from_utf8(data).ok().and_then(parse_rfc3339) {
        assert_eq!(parse_rfc3339(&rfc3339(at)), at.replace_nanosecond(0).ok());
    }
}

fn assert_is_written_as_it_is_read(document: &Document, kind: &DocumentKind) {
    let line = document.to_line(kind);
    let line = line.expose();
    assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "not one line");
    let again = Document::parse(kind, line.as_bytes()).expect("what is written can be read");
    assert!(again == *document, "{document:?} is read as {again:?}");
    assert_eq!(again.to_line(kind).expose(), line);
    // Of two readers neither takes the other's document.
    let other = match kind {
        DocumentKind::Token => TicketType::parse("jsapi").map(DocumentKind::Ticket),
        DocumentKind::Ticket(_) => Some(DocumentKind::Token),
    };
    assert!(other.is_none_or(|other| Document::parse(&other, line.as_bytes()).is_err()));
}

fn assert_life_only_shrinks(document: &Document) {
    let created_at = document.created_at;
    let mut before = document.expires_in;
    for age in AGES.map(Duration::from_secs) {
        let now = created_at.plus(age);
        let left = document.left(now);
        assert!(left <= before, "{left:?} at {age:?}, and {before:?} before");
        assert!(left <= document.expires_in.saturating_sub(age), "{left:?} at {age:?}");
        before = left;
        for rules in RULES {
            let promise = document.promise(now, rules, MARGIN);
            assert!(promise <= left, "{rules:?} promises {promise:?} of {left:?}");
        }
        assert_copies_live_no_longer(document, now);
    }
    // A clock that is wrong by an hour, in both ways, on a machine that was started again.
    let early =
        Timestamp { wall: created_at.wall.saturating_sub(time::Duration::hours(1)), uptime: None };
    assert!(document.left(early) <= document.expires_in.min(CLASSIC_OVERLAP));
    assert!(document.is_due(early, Rules::Stable, MARGIN));
}

/// What replaces a document for a while ends no later than it.
fn assert_copies_live_no_longer(document: &Document, now: Timestamp) {
    let shortened = document.shortened_to_overlap(now);
    if let Some(shortened) = &shortened {
        assert!(!shortened.left(now).is_zero(), "ended at once");
        assert!(shortened.left(now) <= CLASSIC_OVERLAP + SECOND);
        assert!(shortened.token == document.token && shortened.appid == document.appid);
    } else {
        assert!(document.left(now) <= CLASSIC_OVERLAP);
    }
    let fresh = Document::new(&document.appid, document.token.clone(), MARGIN * 24, now);
    let capped = fresh.clone().capped_by(document, now);
    let moved = document.with_created_at_least(now.wall);
    assert!(moved.created_at.wall >= now.wall.replace_nanosecond(0).unwrap_or(now.wall));
    for later in AGES.map(Duration::from_secs) {
        let then = now.plus(later);
        let left = document.left(then);
        for (copy, what) in [(&shortened, "shortened"), (&capped, "capped")] {
            let copied = copy.as_ref().map_or(Duration::ZERO, |it| it.left(then));
            assert!(copied <= left + SECOND, "{what}: {copied:?} of {left:?}");
        }
        assert!(moved.left(then) <= left + SECOND, "moved: {:?} of {left:?}", moved.left(then));
    }
    let other = Secret::new(format!("{}x", document.token.expose()));
    let newer = Document { token: other, ..fresh };
    assert!(newer.is_newer_answer_than(document) && !document.is_newer_answer_than(document));
}
