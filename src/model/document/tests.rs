//! What a document says, for how long it is promised, and which of two is later.

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
    let without =
        Document { created_at: Timestamp::of_wall(document.created_at.wall), ..document.clone() };
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
        assert!(Document::parse_token(&whole.expose().as_bytes()[..end]).is_err(), "cut at {end}");
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
    let short = Document { expires_in: secs(200), ..document_created_at("2026-11-22T00:00:00Z") };
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
    let asked_at = |wall, millis| Document { created_at: instant(wall, millis), ..before.clone() };
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
    for (left, expected) in [(3596, false), (3597, true), (3600, true), (3603, true), (3604, false)]
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
    let ticket =
        |life| Document { expires_in: secs(life), ..document_created_at("2026-11-22T00:00:00Z") };
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

#[test]
fn a_rejected_token_is_a_word_and_not_the_json_that_it_came_in() {
    for (text, expected) in [
        ("70_token-with.signs", true),
        ("", false),
        ("two words", false),
        ("{\"access_token\":\"T1\"}", false),
        ("\"T1\"", false),
    ] {
        assert_eq!(is_bare_token(text), expected, "{text}");
    }
}
