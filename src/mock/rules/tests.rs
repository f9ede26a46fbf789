//! The rules, call by call, on virtual time.

use super::*;

const APPID: &str = "wx0123456789abcdef";
const CALLER: CallerCredentials<'_> =
    CallerCredentials { appid: APPID, grant_type: "client_credential", secret: "hush" };
const START: Duration = Duration::from_secs(0x6aac_005a);

/// The time `secs` seconds after the start.
fn at(secs: u64) -> Duration {
    START + Duration::from_secs(secs)
}

fn wechat() -> MockWeChat {
    let lifetime =
        TokenLifetime { life: Duration::from_secs(7200), overlap: Duration::from_secs(300) };
    MockWeChat::new(vec![(APPID.to_owned(), Secret::new("hush".to_owned()))], lifetime, START, 1)
}

fn check(wechat: &mut MockWeChat, grant: &MockGrant, now: Duration) -> Result<(), i64> {
    wechat.check_token(grant.token.expose(), now).map_err(|refusal| refusal.errcode)
}

#[test]
fn ticket_quotas_are_100_an_hour_for_an_app_and_400_for_its_corp_over_all_types() {
    let lifetime =
        TokenLifetime { life: Duration::from_secs(7200), overlap: Duration::from_secs(300) };
    let secret = |n: u32| Secret::new(format!("app{n}"));
    let apps = (0..6).map(|n| (APPID.to_owned(), secret(n))).collect();
    let mut wechat = MockWeChat::new(apps, lifetime, START, 1);
    let tokens: Vec<_> = (0..6)
        .map(|n| {
            let secret = format!("app{n}");
            wechat
                .wecom_token(CallerCredentials { secret: &secret, ..CALLER }, at(0))
                .unwrap()
                .token
        })
        .collect();
    let mut ask = |n: usize, kind, now| {
        wechat.ticket(tokens[n].expose(), kind, now).map(drop).map_err(|refusal| refusal.errcode)
    };
    for n in 0..4 {
        for call in 0..100 {
            let kind = if call % 2 == 0 { "jsapi" } else { "agent_config" };
            assert_eq!(ask(n, kind, at(1)), Ok(()), "{n} {call}");
        }
        assert_eq!(ask(n, "jsapi", at(2)), Err(45009), "the quota of this app is spent");
    }
    assert_eq!(ask(4, "jsapi", at(3599)), Err(45009), "the quota of the corp is spent");
    assert_eq!(ask(4, "jsapi", at(3600)), Ok(()), "a new hour");

    let token = wechat
        .stable_token(CallerCredentials { secret: "app0", ..CALLER }, false, at(0))
        .unwrap()
        .token;
    for _ in 0..1000 {
        assert!(wechat.ticket(token.expose(), "jsapi", at(1)).is_ok(), "WeChat states no limit");
    }
}

#[test]
fn a_second_classic_call_revokes_the_first_token_after_the_overlap() {
    let mut wechat = wechat();
    let first = wechat.classic_token(CALLER, at(0)).unwrap();
    let second = wechat.classic_token(CALLER, at(1000)).unwrap();
    assert!(first.token != second.token);
    assert_eq!((first.expires_in_secs, second.expires_in_secs), (7200, 7200));
    assert_eq!(check(&mut wechat, &first, at(1299)), Ok(()));
    assert_eq!(check(&mut wechat, &first, at(1300)), Err(40001));
    assert_eq!(check(&mut wechat, &second, at(8199)), Ok(()));
}

#[test]
fn a_token_that_is_not_replaced_expires_with_42001() {
    let mut wechat = wechat();
    let token = wechat.classic_token(CALLER, at(0)).unwrap();
    assert_eq!(check(&mut wechat, &token, at(7199)), Ok(()));
    assert_eq!(check(&mut wechat, &token, at(7200)), Err(42001));
    // Replacing a token that has less than the overlap left does not prolong its life.
    wechat.classic_token(CALLER, at(7201)).unwrap();
    assert_eq!(check(&mut wechat, &token, at(7202)), Err(42001));
}

#[test]
fn the_stable_api_returns_the_same_token_until_its_last_overlap() {
    let mut wechat = wechat();
    let first = wechat.stable_token(CALLER, false, at(0)).unwrap();
    let again = wechat.stable_token(CALLER, false, at(6900)).unwrap();
    assert!(first.token == again.token);
    assert_eq!(again.expires_in_secs, 300);
    let next = wechat.stable_token(CALLER, false, at(6901)).unwrap();
    assert!(next.token != first.token);
    assert_eq!(next.expires_in_secs, 7200);
    assert_eq!(check(&mut wechat, &first, at(7199)), Ok(()), "both work during the overlap");
    assert_eq!(check(&mut wechat, &first, at(7200)), Err(42001));
    assert_eq!(wechat.mints(), 2);
}

#[test]
fn expires_in_of_a_stable_token_is_whole_seconds_and_never_0() {
    let lifetime = TokenLifetime { life: Duration::from_secs(10), overlap: Duration::ZERO };
    let mut wechat = MockWeChat::new(
        vec![(APPID.to_owned(), Secret::new("hush".to_owned()))],
        lifetime,
        START,
        1,
    );
    let lives: Vec<u64> = (0..100)
        .map(|n| {
            wechat
                .stable_token(CALLER, false, START + Duration::from_millis(333 * n))
                .unwrap()
                .expires_in_secs
        })
        .collect();
    assert!(lives.iter().all(|life| (1..=10).contains(life)), "{lives:?}");
}

#[test]
fn one_forced_call_leaves_the_overlap_and_a_second_revokes_the_first_token_at_once() {
    let mut wechat = wechat();
    let first = wechat.stable_token(CALLER, false, at(0)).unwrap();
    let second = wechat.stable_token(CALLER, true, at(100)).unwrap();
    assert!(first.token != second.token);
    assert_eq!(check(&mut wechat, &first, at(129)), Ok(()));
    let third = wechat.stable_token(CALLER, true, at(130)).unwrap();
    assert!(second.token != third.token);
    assert_eq!(check(&mut wechat, &first, at(130)), Err(40001));
    assert_eq!(check(&mut wechat, &second, at(429)), Ok(()));
    assert_eq!(check(&mut wechat, &second, at(430)), Err(40001));
}

#[test]
fn a_second_forced_call_within_30_seconds_returns_the_current_token() {
    let mut wechat = wechat();
    let first = wechat.stable_token(CALLER, true, at(0)).unwrap();
    let soon = wechat.stable_token(CALLER, true, at(29)).unwrap();
    assert!(first.token == soon.token);
    assert_eq!(soon.expires_in_secs, 7171);
    let later = wechat.stable_token(CALLER, true, at(30)).unwrap();
    assert!(first.token != later.token);
}

#[test]
fn forced_calls_are_limited_to_20_a_day_and_those_that_mint_nothing_do_not_count() {
    let mut wechat = wechat();
    for n in 0..20 {
        wechat.stable_token(CALLER, true, at(n * 30)).unwrap();
        wechat.stable_token(CALLER, true, at(n * 30 + 1)).unwrap();
    }
    let refusal = wechat.stable_token(CALLER, true, at(600)).unwrap_err();
    assert_eq!(refusal.errcode, 45009);
    assert!(
        refusal.errmsg.starts_with("reach max api daily quota limit rid: "),
        "{}",
        refusal.errmsg
    );
    assert!(
        wechat.stable_token(CALLER, false, at(600)).is_ok(),
        "the current token is still returned"
    );
    assert!(wechat.stable_token(CALLER, true, at(24 * 60 * 60)).is_ok(), "a new day");
}

#[test]
fn the_classic_and_the_stable_api_do_not_affect_each_others_tokens() {
    let mut wechat = wechat();
    let stable = wechat.stable_token(CALLER, false, at(0)).unwrap();
    let classic = wechat.classic_token(CALLER, at(1)).unwrap();
    wechat.classic_token(CALLER, at(2)).unwrap();
    wechat.stable_token(CALLER, true, at(3)).unwrap();
    assert_eq!(check(&mut wechat, &stable, at(299)), Ok(()));
    assert_eq!(check(&mut wechat, &classic, at(299)), Ok(()));
    assert_eq!(wechat.mints(), 4);
}

#[test]
fn credentials_are_checked_in_the_order_appid_grant_type_secret() {
    let mut wechat = wechat();
    let mut code = |appid, grant_type, secret| {
        let caller = CallerCredentials { appid, grant_type, secret };
        let codes = [
            wechat.classic_token(caller, at(0)),
            wechat.stable_token(caller, false, at(0)),
            wechat.stable_token(caller, true, at(0)),
        ]
        .map(|answer| answer.unwrap_err().errcode);
        assert!(codes.iter().all(|code| *code == codes[0]), "{codes:?}");
        codes[0]
    };
    assert_eq!(code("", "", ""), 41002);
    assert_eq!(code("wxunknown", "", ""), 40013);
    assert_eq!(code("WX0123456789ABCDEF", "client_credential", "hush"), 40013);
    assert_eq!(code(APPID, "", "hush"), 40002);
    assert_eq!(code(APPID, "client_credentials", "hush"), 40002);
    assert_eq!(code(APPID, "client_credential", ""), 41004);
    assert_eq!(code(APPID, "client_credential", "HUSH"), 40125);
    assert_eq!(wechat.mints(), 0);
}

#[test]
fn a_rid_begins_with_the_unix_time() {
    let mut wechat = wechat();
    let caller = CallerCredentials { appid: "wxunknown", ..CALLER };
    let refusal = wechat.classic_token(caller, at(0)).unwrap_err();
    let rid = refusal.errmsg.strip_prefix("invalid appid rid: ").expect("WeChat's text");
    let groups: Vec<&str> = rid.split('-').collect();
    assert_eq!(groups[0], "6aac005a");
    assert!(groups.len() == 3 && groups.iter().all(|group| group.len() == 8), "{rid}");
    assert!(wechat.classic_token(caller, at(0)).unwrap_err().errmsg != refusal.errmsg);
}

#[test]
fn the_classic_api_is_limited_to_2000_calls_a_day() {
    let mut wechat = wechat();
    for _ in 0..2000 {
        wechat.classic_token(CALLER, at(0)).unwrap();
    }
    let refusal = wechat.classic_token(CALLER, at(86_399)).unwrap_err();
    assert_eq!(refusal.errcode, 45009);
    assert!(
        refusal.errmsg.contains("could get access_token by getStableAccessToken"),
        "{}",
        refusal.errmsg
    );
    assert!(wechat.stable_token(CALLER, false, at(86_399)).is_ok());
    assert!(wechat.classic_token(CALLER, at(86_400)).is_ok());
}

#[test]
fn the_stable_api_is_limited_to_10000_calls_a_minute_and_500000_a_day() {
    let mut wechat = wechat();
    for minute in 0..50 {
        for _ in 0..10_000 {
            wechat.stable_token(CALLER, false, at(60 * minute)).unwrap();
        }
        let expected = if minute < 49 { 45011 } else { 45009 };
        let now = at(60 * minute + if minute < 49 { 59 } else { 60 });
        assert_eq!(wechat.stable_token(CALLER, false, now).unwrap_err().errcode, expected);
    }
    assert!(wechat.stable_token(CALLER, false, at(86_400)).is_ok());
}

#[test]
fn revoke_all_ends_every_live_token_and_the_next_call_mints_a_new_one() {
    let mut wechat = wechat();
    let classic = wechat.classic_token(CALLER, at(0)).unwrap();
    let stable = wechat.stable_token(CALLER, false, at(0)).unwrap();
    assert_eq!(wechat.revoke_all(at(10)), 2);
    assert_eq!(check(&mut wechat, &classic, at(10)), Err(40001));
    assert_eq!(check(&mut wechat, &stable, at(10)), Err(40001));
    assert!(wechat.stable_token(CALLER, false, at(11)).unwrap().token != stable.token);
    assert_eq!(wechat.revoke_all(at(12)), 1);
}

#[test]
fn wecom_returns_the_same_token_while_it_lives_and_always_states_a_whole_life() {
    let mut wechat = wechat();
    let first = wechat.wecom_token(CALLER, at(0)).unwrap();
    let again = wechat.wecom_token(CALLER, at(7199)).unwrap();
    assert!(first.token == again.token);
    assert_eq!((first.expires_in_secs, again.expires_in_secs), (7200, 7200));
    assert_eq!(check(&mut wechat, &first, at(7199)), Ok(()));
    assert_eq!(
        check(&mut wechat, &first, at(7200)),
        Err(40014),
        "the same as for an unknown token"
    );
    let next = wechat.wecom_token(CALLER, at(7200)).unwrap();
    assert!(next.token != first.token);
    assert_eq!((wechat.mints(), wechat.revoke_all(at(7201))), (2, 1));
    assert_eq!(check(&mut wechat, &next, at(7201)), Err(40014));
    assert!(wechat.wecom_token(CALLER, at(7202)).unwrap().token != next.token);
    assert!(wechat.is_wecom_token(next.token.expose()));
    let official = wechat.classic_token(CALLER, at(7202)).unwrap();
    assert!(!wechat.is_wecom_token(official.token.expose()));
}

#[test]
fn each_app_of_a_corp_has_its_own_token() {
    let lifetime =
        TokenLifetime { life: Duration::from_secs(7200), overlap: Duration::from_secs(300) };
    let accounts =
        ["hush", "psst"].map(|secret| (APPID.to_owned(), Secret::new(secret.to_owned())));
    let mut wechat = MockWeChat::new(accounts.to_vec(), lifetime, START, 1);
    let (one, other) = (CALLER, CallerCredentials { secret: "psst", ..CALLER });
    let first = wechat.wecom_token(one, at(0)).unwrap();
    assert!(wechat.wecom_token(other, at(0)).unwrap().token != first.token);
    assert!(wechat.wecom_token(one, at(1)).unwrap().token == first.token);
    assert_eq!(
        wechat.classic_token(other, at(1)).unwrap_err().errcode,
        40125,
        "WeChat's own APIs know the first account alone"
    );
}

#[test]
fn wecom_checks_the_secret_first_and_has_texts_of_its_own() {
    let mut wechat = wechat();
    let mut refused = |appid, secret| {
        let caller = CallerCredentials { appid, grant_type: "", secret };
        wechat.wecom_token(caller, at(0)).unwrap_err()
    };
    for (appid, secret, errcode) in
        [("", "", 41004), ("", "x", 41002), ("ww1", "x", 40013), (APPID, "x", 40001)]
    {
        assert_eq!(refused(appid, secret).errcode, errcode);
    }
    let text = refused("ww1", "x").errmsg;
    let rest = text.strip_prefix("invalid corpid, hint: [").expect("WeCom's text");
    let (hint, rest) = rest.split_once(']').expect("a hint");
    assert!(hint.len() == 25 && hint.starts_with(&START.as_secs().to_string()), "{hint}");
    assert_eq!(
        rest,
        ", from ip: 203.0.113.9, more info at https://open.work.weixin.qq.com/devtool/query?e=40013"
    );
}

#[test]
fn an_unknown_token_is_refused() {
    let mut wechat = wechat();
    let mut code = |token| wechat.check_token(token, at(0)).unwrap_err().errcode;
    assert_eq!(code(""), 41001);
    assert_eq!(code("68_made_up"), 40001);
}

#[test]
fn the_number_of_remembered_tokens_is_bounded() {
    let mut history = TokenHistory::default();
    for n in 0..=MAX_REMEMBERED as u64 {
        history.mint(Secret::new(n.to_string()), Duration::from_secs(1), at(n));
    }
    assert_eq!(history.0.len(), MAX_REMEMBERED);
    assert_eq!(history.0[0].text.expose(), "1");
}
