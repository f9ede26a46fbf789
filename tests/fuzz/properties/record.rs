//! The record that a run leaves for the next one, `DIR/ACCOUNT.state`.

use std::time::Duration;

use time::UtcDateTime;

use super::Scratch;
use crate::model::client_key::opaque_token::TokenSeed;
use crate::model::document::parse_rfc3339;
use crate::model::kind::DocumentKind;
use crate::model::location::Location;
use crate::model::secret::Secret;
use crate::os::clock::{Clock, SystemClock};
use crate::store::{MAX_REPLACED, Record, Stores, TroubleClaim, TroubleEvent};

const DAY: Duration = Duration::from_secs(86_400);

/// What a test of an hour's figures would find: no refusal holds for longer than this.
const LONGEST_REFUSAL: time::Duration = time::Duration::hours(24);

thread_local! {
    static SCRATCH: Scratch = Scratch::new();
    static STORES: Stores = Stores::new(std::sync::Arc::new(SystemClock));
}

pub fn check(data: &[u8]) {
    let Ok(record) = serde_json::from_slice::<Record>(data) else { return };
    let written = serde_json::to_vec(&record).expect("a record can be written");
    let again: Record = serde_json::from_slice(&written).expect("what is written can be read");
    assert_eq!(again, record);

    let now = parse_rfc3339("2026-11-28T12:00:00Z").unwrap_or_else(|| SystemClock.now().wall);
    check_what_it_says(&record, now);
    check_changes(record, now);
    check_file(data, now);
}

fn check_what_it_says(record: &Record, now: UtcDateTime) {
    for request in ["", "r", "0000000000000000000000000000000000000000000000000000000000000000"] {
        if let Some((_, until)) = record.refusal(request, now) {
            // One from the future is dropped when the file is read.
            assert!(until > now);
        }
    }
    if let Some(lost) = record.lost().of_day(now) {
        assert!(lost.count > 0);
        assert!(lost.next_at.is_none_or(|next_at| next_at > now));
    }
}

fn check_changes(mut record: Record, now: UtcDateTime) {
    let (token, other) = (Secret::new("T1".to_owned()), Secret::new("T2".to_owned()));
    record.note_issued(&token, "hash");
    assert!(!record.has_other_secret(&token, "hash") && record.has_other_secret(&token, "other"));
    record.note_replacement(&other, Some(&token), now);
    assert!(record.has_replaced("T1", now) && !record.has_replaced("T2", now));
    assert!(record.replaced_seeds(now).any(|seed| *seed == TokenSeed::of(&token)));
    for number in 0..=MAX_REPLACED {
        record.note_issued(&Secret::new(number.to_string()), "hash");
        record.note_replacement(&other, None, now);
    }
    assert!(!record.has_replaced("T1", now), "more is remembered than there is room for");

    record.lost_mut().note(now);
    let lost = record.lost().of_day(now).expect("an answer that has not come is lost");
    record.lost_mut().note_answer(now);
    let left = record.lost().of_day(now).map_or(0, |it| it.count);
    assert_eq!(left + 1, lost.count);

    let hold = Duration::from_secs(60);
    if let TroubleClaim::Ours(_) = record.claim_begin(Some(&token), now, hold) {
        assert_eq!(record.claim_begin(None, now, hold), TroubleClaim::Held, "told twice");
        record.note_told(TroubleEvent::Begin, true);
        assert_eq!(record.claim_end(Some(&token), now, hold), TroubleClaim::Needless);
        assert!(matches!(record.claim_end(None, now, hold), TroubleClaim::Ours(_)));
        record.note_told(TroubleEvent::End, true);
        assert!(!record.has_trouble());
    }
}

/// What is read from the file counts for a day at most, and nothing counts before its time.
fn check_file(data: &[u8], now: UtcDateTime) {
    SCRATCH.with(|scratch| {
        let path = scratch.write("a.state", data);
        let location = Location::File(path.with_extension("json"));
        let read = |appid: &str, now| {
            STORES.with(|stores| stores.record(&location, &DocumentKind::Token, appid, now))
        };
        let Some(record) = read("wx1", now) else { return };
        assert!(read("wx2", now).is_none(), "another account's record");
        assert_counts_briefly(&record, now);
        let in_two_days = now + 2 * DAY;
        assert!(record.lost().of_day(in_two_days).is_none(), "lost for more than a day");
        assert!(record.refusal("r", in_two_days).is_none(), "refused for more than a day");
        // Read again then, it has what was from the future before.
        let record = read("wx1", in_two_days).expect("the same record");
        assert_counts_briefly(&record, in_two_days);
    });
}

/// What a record that was read at `now` says began no more than a day before, and ends no more than a day after.
fn assert_counts_briefly(record: &Record, now: UtcDateTime) {
    let (earliest, latest) = (now - DAY, now + time::Duration::minutes(2));
    assert!(record.refusal("r", now).is_none_or(|(_, until)| until <= latest + LONGEST_REFUSAL));
    let is_recent = |at: UtcDateTime| earliest < at && at <= latest;
    assert!(
        record.lost().of_day(now).is_none_or(|it| is_recent(it.last_at)),
        "lost at another time"
    );
}
