//! When a failed refresh is trouble, and what `on_trouble` is told of it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::model::account::Account;
use crate::model::address::redis_url::RedisUrl;
use crate::model::kind::DocumentKind;
use crate::model::location::{Location, RedisLocation, RedisSettings};
use crate::os::hook::{Hook, HookKind};
use crate::refresh::trouble::{RefreshCondition, Telling, TroubleCause, TroubleSubject};
use crate::store::TroubleClaim;

fn account(location: Location) -> Account {
    Account { location, ..Account::for_tests("shop.json") }
}

fn in_redis() -> Location {
    let settings = RedisSettings {
        url: RedisUrl::parse("redis://127.0.0.1").unwrap(),
        user: None,
        password_file: None,
        ca_file: None,
        prefix: "wxtoken".to_owned(),
        timeout: Duration::from_secs(1),
        also: Vec::new(),
    };
    Location::Redis(Arc::new(RedisLocation {
        redis: Arc::new(settings),
        account: "shop".to_owned(),
        appid: None,
        copy: "/nowhere".into(),
    }))
}

fn cause(failure: RefreshError) -> TroubleCause {
    TroubleCause::of(&failure).expect("it says something of the document")
}

#[test]
fn what_passes_is_trouble_once_less_than_half_of_the_margin_is_left() {
    let (file, redis) = (account(Location::File("/nowhere".into())), account(in_redis()));
    let passing = cause(RefreshError::Locked);
    let local = cause(RefreshError::Local(anyhow::anyhow!("no space left on device")));
    for account in [&file, &redis] {
        for (life, expected) in [(7200, false), (150, false), (149, true), (0, true)] {
            let life = Duration::from_secs(life);
            assert_eq!(passing.is_trouble(account, MARGIN, life), expected, "{life:?}");
        }
        assert!(passing.is_trouble(account, Duration::ZERO, Duration::ZERO), "over");
        for lasting in [
            cause(RefreshError::Foreign { place: "x".into(), appid: "y".into() }),
            TroubleCause::lasting("no secret".to_owned()),
        ] {
            assert!(lasting.is_trouble(account, MARGIN, LIFE));
        }
    }
    // A person has to mend a disk. A Redis comes back.
    assert!(local.is_trouble(&file, MARGIN, LIFE));
    assert!(!local.is_trouble(&redis, MARGIN, LIFE));
    assert!(local.is_trouble(&redis, MARGIN, Duration::ZERO));
}

#[test]
fn a_refusal_for_five_minutes_or_more_needs_a_person_and_one_of_the_token_says_nothing_of_it() {
    let file = account(Location::File("/nowhere".into()));
    let refused = |code| {
        let Err(error) = refused(code) else { unreachable!() };
        TroubleCause::of(&RefreshError::Upstream(error))
    };
    for (code, expected) in [(40125, true), (45009, true), (-1, false)] {
        let cause = refused(code).unwrap();
        assert_eq!(cause.errcode, Some(code));
        assert_eq!(cause.is_trouble(&file, MARGIN, LIFE), expected, "{code}");
    }
    let lost = UpstreamError::unreachable("no answer in time", true, true);
    let ends_at = VirtualClock::START;
    let cause = cause(RefreshError::AnswerLost { error: lost, ends_at });
    assert!(!cause.is_trouble(&file, MARGIN, LIFE));
    let dead = Refusal::new(40001, "", CallKind::UsesToken, Platform::Official);
    for error in [UpstreamError::NoToken, UpstreamError::Refused(dead)] {
        assert_eq!(TroubleCause::of(&RefreshError::Upstream(error)), None);
    }
}

/// Tells of this condition by this script, with a path as `$0`.
fn tell(
    fixture: &Fixture,
    (script, path): (&str, &Path),
    condition: &RefreshCondition,
    is_over: &dyn Fn() -> bool,
) -> Telling {
    let args = vec!["-c".to_owned(), script.to_owned(), path.display().to_string()];
    let hook = Hook::new(HookKind::OnTrouble, "sh".into(), args, Duration::from_secs(600));
    let account = Account { on_trouble: Some(hook), ..account(Location::File("/nowhere".into())) };
    let subject = TroubleSubject {
        account: &account,
        kind: &DocumentKind::Token,
        store: &fixture.store,
        clock: &fixture.clock,
        life: MARGIN,
    };
    subject.tell(condition, is_over)
}

fn begin() -> RefreshCondition {
    RefreshCondition::Trouble { cause: cause(RefreshError::Locked), rejected: None }
}

#[test]
fn a_trouble_is_told_once_and_its_end_only_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("told");
    let script = r#"echo "$WXTOKEN_TROUBLE $WXTOKEN_TROUBLE_LIFE" >> "$0""#;
    let fixture = Fixture::new([]);
    let end = || RefreshCondition::Well { kept: None };
    for (condition, expected, lines) in [
        (end(), false, ""),
        (begin(), true, "begin 300\n"),
        (begin(), false, "begin 300\n"),
        (end(), true, "begin 300\nend 300\n"),
        (end(), false, "begin 300\nend 300\n"),
    ] {
        match (tell(&fixture, (script, &path), &condition, &|| false), expected) {
            (Telling::Told, true) | (Telling::Needless, false) => {}
            (telling, _) => panic!("{condition:?}: {telling:?}"),
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), lines);
    }
}

#[test]
fn while_one_process_tells_the_others_leave_it_to_that_for_the_hooks_time_and_some_more() {
    let fixture = Fixture::new([]);
    let claims = RefCell::new(Vec::new());
    let script = ("sleep 600", Path::new("/nowhere"));
    let telling = tell(&fixture, script, &begin(), &|| {
        *claims.borrow_mut() = [0, 605, 611]
            .map(|secs| {
                let mut record = fixture.store.record.borrow().clone().expect("it is noted");
                let now = fixture.clock.now().wall + Duration::from_secs(secs);
                matches!(record.claim_begin(None, now, MARGIN), TroubleClaim::Held)
            })
            .to_vec();
        true
    });
    assert!(matches!(telling, Telling::Failed(_)), "it was ended: {telling:?}");
    assert_eq!(*claims.borrow(), [true, true, false]);
    // It is not told yet.
    let script = ("true", Path::new("/nowhere"));
    assert!(matches!(tell(&fixture, script, &begin(), &|| false), Telling::Told));
}

#[test]
fn what_was_told_is_noted_as_soon_as_the_record_can_be_changed_again() {
    let fixture = Fixture::new([]);
    let script = ("true", Path::new("/nowhere"));
    *fixture.store.held_locks.borrow_mut() = [false, true, true, true].into();
    let before = fixture.clock.elapsed();
    assert!(matches!(tell(&fixture, script, &begin(), &|| false), Telling::Told));
    assert!(fixture.clock.elapsed() - before < Duration::from_secs(1));
    assert!(matches!(tell(&fixture, script, &begin(), &|| false), Telling::Needless));
}
